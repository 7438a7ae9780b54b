"""A user's own environments, as the documentation tells to write them."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from pixelcontrol.envs.gymnasium import GymnasiumWorld


class Slider(gymnasium.Env):
    """A bar as wide as the picture at the height where the slider is; falls off (truly ends) beyond 20."""

    action_space = Box(-2.0, 6.0, (1,), np.float64)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  gymnasium's own form

    def __init__(self, observe="height first", render_mode=None, height=40, width=30):
        self.render_mode = render_mode
        self.size = (height, width)
        self.observe = observe
        shapes = {"height first": (height, width, 3), "channels first": (3, height, width)}
        self.observation_space = (
            Box(-np.inf, np.inf, (1,)) if observe == "state" else Box(0, 255, shapes[observe], np.uint8)
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(0.0, 5.0)
        self.steps = 0
        return self.picture(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.place += action[0]
        self.steps += 1
        return self.picture(), self.place, self.place > 20.0, self.steps == 10, self.told()

    def told(self):
        return {"near": 6.0 < self.place < 12.0}

    def render(self):
        image = np.zeros((*self.size, 3), np.uint8)
        image[int(np.clip(self.place, 0, self.size[0] - 1))] = (255, 0, 100)
        return image

    def picture(self):
        match self.observe:
            case "state":
                return np.float32([self.place])
            case "channels first":
                return self.render().transpose(2, 0, 1)
        return self.render()


def make_world(image_size, action_repeat):
    return GymnasiumWorld(Slider(), image_size, action_repeat)


def make_judging_world(image_size, action_repeat):
    return GymnasiumWorld(Slider(), image_size, action_repeat, success="near")


def make_real_robot(image_size, action_repeat):
    return GymnasiumWorld(Slider(), image_size, action_repeat, repeats=False)


def make_world_without_arguments():
    return Slider()


def make_bare_environment(image_size, action_repeat):
    return Slider()


def make_world_of_another_size(image_size, action_repeat):
    return GymnasiumWorld(Slider(), (50, 50), action_repeat)


def make_dm_control_world(image_size, action_repeat, renderer="warp"):
    from dm_control.rl import control
    from dm_control.suite import pendulum

    from pixelcontrol.envs.dmc import DmcWorld

    physics = pendulum.Physics.from_xml_string(*pendulum.get_model_and_assets())
    environment = control.Environment(physics, pendulum.SwingUp(), time_limit=1.0)
    return DmcWorld(environment, 0, renderer, image_size, action_repeat)


def make_dm_control_environment(image_size, action_repeat):
    return make_dm_control_world(image_size, action_repeat)._environment


def make_opengl_world(image_size, action_repeat):
    return make_dm_control_world(image_size, action_repeat, renderer="opengl")
