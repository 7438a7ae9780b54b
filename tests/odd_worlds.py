"""Worlds from which nothing can be learned, each in its own way."""

from dataclasses import replace
from functools import cached_property

import numpy as np

from pixelcontrol.envs.toy import ToyWorld


class Idle(ToyWorld):
    """Never rewards, and tells no time limit."""

    @cached_property
    def spec(self):
        return replace(super().spec, episode_frames=None)

    def step(self, action):
        _, discount, last = super().step(action)
        return 0.0, discount, last


class Hopeless(ToyWorld):
    """Rewards everything alike."""

    def step(self, action):
        _, discount, last = super().step(action)
        return -2.0, discount, last


class Lavish(ToyWorld):
    """Rewards in another currency."""

    def step(self, action):
        reward, discount, last = super().step(action)
        return 1e5 * reward, discount, last


class HalfBlind(ToyWorld):
    """Has two cameras with distances, the second of which sees nothing."""

    @cached_property
    def spec(self):
        spec = super().spec
        return replace(spec, payload_shape=(8, *spec.payload_shape[1:]), camera_channels=4)

    def observe(self, out):
        out[:] = 0
        super().observe(out[:3])


class Numb(ToyWorld):
    """Senses noise that no seed decides."""

    @cached_property
    def spec(self):
        return replace(super().spec, proprio_dim=1)

    def sense(self, out):
        out[:] = np.random.default_rng().normal()


class Foggy(ToyWorld):
    """Shows one colour, another at every step."""

    def observe(self, out):
        out[:] = self._frame


class Frozen(ToyWorld):
    """Shows for ever what it showed first."""

    def observe(self, out):
        self.shown = getattr(self, "shown", None)
        if self.shown is None:
            super().observe(out)
            self.shown = out.copy()
        out[:] = self.shown


class Whimsical(ToyWorld):
    """Begins as it likes, whatever the seed."""

    def reset(self, seed):
        super().reset(int(np.random.default_rng().integers(2**31)))


class Gone(ToyWorld):
    """Cannot be reached."""

    def reset(self, seed):
        raise BrokenPipeError("the robot is gone")


class Failing(ToyWorld):
    """Falls over at its third agent step."""

    def step(self, action):
        _, discount, last = super().step(action)
        return 1.0 / (3 - self._frame), discount, last
