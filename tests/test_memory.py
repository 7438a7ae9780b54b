"""What is seen while a world runs; that it is what the replay draws later is in test_replay."""

import numpy as np
import torch

from pixelcontrol.memory import FrameStack
from pixelcontrol.types import Memory, TimeStep


def test_images_of_any_number_of_channels_are_stacked():
    def row(value, first):
        image = torch.full((1, 5, 2, 2), value, dtype=torch.uint8)
        zero = np.zeros(1, np.float32)
        return TimeStep(image, zero[None], zero, zero, np.array([first]), np.array([False]))

    frames = FrameStack(10)
    assert frames.push(row(1, True))[0, :, 0, 0].tolist() == [1] * 10
    assert frames.push(row(2, False))[0, :, 0, 0].tolist() == [1] * 5 + [2] * 5


def test_it_is_a_memory():
    assert isinstance(FrameStack(9), Memory)
