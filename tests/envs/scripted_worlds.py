"""Worlds for the tests of worker processes: they do what the action says, and import no torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import cached_property

import numpy as np

EPISODE_STEPS = 3

# First controls that make a `ScriptedWorld` misbehave.
END, RAISE, DIE, HANG, NAN_REWARD, NAN_PAYLOAD, NAN_PROPRIO = 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65
NAN_PRIVILEGED = 0.66
DISCONNECT = 0.25
DISCOUNT_OF_TWO = 0.68
MISTAKE = 0.69


class ScriptedWorld:
    """Counts agent steps: payload [episode seed, agent step, torch is loaded], reward 10 per step, 3 steps.

    Senses [episode seed / 2^32, agent step / 10], and discloses [-agent step].
    """

    def __init__(self):
        self.seed = self.count = 0
        self.spoiled = self.hurt = self.told = False

    @cached_property
    def spec(self):
        from pixelcontrol.types import WorldSpec

        return WorldSpec(
            1,
            (3,),
            "float32",
            action_repeat=2,
            episode_frames=2 * EPISODE_STEPS,
            proprio_dim=2,
            privileged_dim=1,
        )

    def reset(self, seed):
        self.seed, self.count = seed, 0
        self.spoiled = self.hurt = self.told = False

    def step(self, action):
        self.count += 1
        match round(float(action[0]), 3):
            case 0.1:
                return 1.0, 0.0, True
            case 0.2:
                raise ArithmeticError("the world is out of joint\nand none sets it right")
            case 0.25:
                raise ConnectionResetError("the robot hung up")
            case 0.3:
                os.kill(os.getpid(), signal.SIGKILL)
            case 0.4:
                time.sleep(3600.0)
            case 0.5:
                return float("nan"), 1.0, False
            case 0.6:
                self.spoiled = True
            case 0.65:
                self.hurt = True
            case 0.66:
                self.told = True
            case 0.68:
                return 1.0, 2.0, False
            case 0.69:
                return 1.0, None
        return 10.0 * self.count, 1.0, self.count == EPISODE_STEPS

    def observe(self, out):
        out[:] = np.nan if self.spoiled else (self.seed, self.count, "torch" in sys.modules)

    def sense(self, out):
        out[:] = np.nan if self.hurt else (self.seed / 2**32, self.count / 10)

    def disclose(self, out):
        out[:] = np.nan if self.told else -self.count

    def close(self):
        pass


def unbuildable():
    raise OSError("no such robot")
