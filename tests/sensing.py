"""A user's own environment with proprioception, which cannot be solved without."""

from dataclasses import replace

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from pixelcontrol.envs.gymnasium import GymnasiumWorld
from pixelcontrol.envs.toy import ToyWorld

STEPS = 20


class Blind(gymnasium.Env):
    """Wants, of each action, to be the number that is sensed; the picture shows nothing.

    A frame's reward is 1 - |action - number|. Mean returns: 6.7 at random, 20 at best, 10 at best for who does not
    sense.
    """

    action_space = Box(-1.0, 1.0, (1,), np.float32)
    observation_space = Dict(arm=Box(-1.0, 1.0, (2, 2), np.float64), mode=Discrete(3))
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  gymnasium's own form
    render_mode = "rgb_array"

    def __init__(self, numb=False, length=STEPS):
        self.numb, self.length = numb, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.sense(), {}

    def step(self, action):
        reward = 1.0 - abs(float(action[0]) - self.arm[1, 0])
        self.steps += 1
        return self.sense(), reward, False, self.steps == self.length, {"close": reward > 0.9}

    def sense(self):
        self.arm = self.np_random.uniform(-1.0, 1.0, (2, 2))
        return {"arm": np.zeros((2, 2)) if self.numb else self.arm, "mode": 0}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


def make_world(image_size, action_repeat):
    return GymnasiumWorld(Blind(), image_size, action_repeat, proprio="arm", success="close")


def make_real_world(image_size, action_repeat):
    return GymnasiumWorld(Blind(), image_size, action_repeat, repeats=False)


class Old(Blind):
    """Of the interface before Gymnasium's."""

    def step(self, action):
        observation, reward, _, done, info = super().step(action)
        return observation, reward, done, info


def make_old_world(image_size, action_repeat):
    return GymnasiumWorld(Old(), image_size, action_repeat)


class Strong(Blind):
    """Of the same shapes as `Blind`, and takes other controls."""

    action_space = Box(-2.0, 2.0, (1,), np.float32)


def make_strong_world(image_size, action_repeat):
    return GymnasiumWorld(Strong(), image_size, action_repeat, proprio="arm", success="close")


class Telling(Blind):
    """Tells the simulator's own count of its steps, and a map that is a picture."""

    observation_space = Dict(
        arm=Box(-1.0, 1.0, (2, 2), np.float64), count=Box(0.0, 1.0, ()), map=Box(0.0, 1.0, (9, 9, 1))
    )

    def sense(self):
        more = {"count": self.steps / self.length, "map": np.zeros((9, 9, 1))}
        return {"arm": super().sense()["arm"]} | more


def make_disclosing_world(image_size, action_repeat):
    return GymnasiumWorld(Telling(), image_size, action_repeat, proprio="arm", privileged=True)


def make_numb_world(image_size, action_repeat):
    return GymnasiumWorld(Blind(numb=True), image_size, action_repeat, proprio="arm")


def make_brief_world(image_size, action_repeat):
    """Its episodes are one step long, which nothing tells beforehand."""
    return GymnasiumWorld(Blind(length=1), image_size, action_repeat, proprio="arm")


def make_bare_world(image_size, action_repeat):
    return GymnasiumWorld(Blind(), image_size, action_repeat)


def make_broken_world(image_size, action_repeat):
    """Its sensor breaks at the second agent step of an episode."""
    world = make_world(image_size, action_repeat)
    sense = world.sense

    def broken(out):
        sense(out)
        if world._env.steps == 2:
            out[1] = np.nan

    world.sense = broken
    return world


class PromisingWorld(ToyWorld):
    """Its spec promises what it does not give."""

    def __init__(self, image_size, action_repeat, proprio_dim=2, tells_success=False):
        super().__init__(image_size, action_repeat)
        self.spec = replace(super().spec, proprio_dim=proprio_dim, tells_success=tells_success)


class SecretiveWorld(ToyWorld):
    """Its spec promises to disclose what it does not."""

    disclose = None


def make_world_without_a_judge(image_size, action_repeat):
    return PromisingWorld(image_size, action_repeat, proprio_dim=0, tells_success=True)
