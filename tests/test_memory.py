"""What is seen while a world runs; that it is what the replay draws later is in test_replay."""

import numpy as np
import torch

from pixelcontrol.memory import FrameStack
from pixelcontrol.types import Memory, TimeStep


def row(value, first):
    image = torch.full((1, 5, 2, 2), value, dtype=torch.uint8)
    zero, sensed = np.zeros(1, np.float32), np.float32([[value, -value]])
    known = np.float32([[10 * value]])
    return TimeStep(image, zero[None], zero, zero, np.array([first]), np.array([False]), sensed, known)


def test_images_of_any_number_of_channels_are_stacked():
    frames = FrameStack(10)
    for value, first, stack in ((1, True, [1] * 10), (2, False, [1] * 5 + [2] * 5), (3, True, [3] * 10)):
        seen = frames.push(row(value, first))
        assert seen.stack[0, :, 0, 0].tolist() == stack
        assert seen.proprio.tolist() == [[value, -value]]
        assert seen.privileged.tolist() == [[10 * value]]


def test_what_is_remembered_goes_on_in_another_memory():
    frames, other = FrameStack(10), FrameStack(10)
    assert other.state_dict() == {}
    other.load_state_dict({})
    assert other.observation is None
    frames.push(row(1, True))
    other.load_state_dict(frames.state_dict())
    for memory in (frames, other):
        seen = memory.push(row(2, False))
        assert seen.stack[0, :, 0, 0].tolist() == [1] * 5 + [2] * 5
        assert seen.proprio.tolist() == [[2, -2]]
        assert seen.privileged.tolist() == [[20]]


def test_it_is_a_memory():
    assert isinstance(FrameStack(9), Memory)
