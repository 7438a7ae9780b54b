"""A robot of your own, from its model to a policy: a box with one arm learns from pixels to crawl.

    cd examples
    pixelcontrol train crawler:make_world --preset quick --frames 120_000 --out ../runs/crawler
    pixelcontrol play ../runs/crawler --video crawler.mp4

All that is particular to the robot is in this file: its model for MuJoCo, how an episode begins, and what
is rewarded. Copy it, and put your own in their places.
"""

from typing import Any

import numpy as np
from dm_control import mujoco
from dm_control.rl import control
from dm_control.suite.base import Task

from pixelcontrol.envs.dmc import DmcWorld, RendererName

MODEL = """
<mujoco>
  <option timestep="0.005"/>
  <asset>
    <texture name="tiles" type="2d" builtin="checker" rgb1=".2 .3 .4" rgb2=".3 .4 .5" width="64" height="64"/>
    <material name="tiles" texture="tiles" texrepeat="40 4"/>
  </asset>
  <worldbody>
    <light pos="0 -1.5 2.5" dir="0 0.5 -1" mode="trackcom"/>
    <geom type="plane" size="20 2 0.1" material="tiles" friction="0.3"/>
    <body name="box" pos="0 0 0.1">
      <camera name="beside" mode="trackcom" pos="0.2 -1.1 0.4" xyaxes="1 0 0 0 0.3 1"/>
      <joint name="along" type="slide" axis="1 0 0"/>
      <joint name="up" type="slide" axis="0 0 1"/>
      <joint name="pitch" type="hinge" axis="0 1 0"/>
      <geom type="box" size="0.2 0.1 0.06" mass="2" friction="0.3" rgba="0.9 0.5 0.2 1"/>
      <body pos="0.2 0 0.04">
        <joint name="shoulder" axis="0 1 0" range="-100 20" damping="0.2"/>
        <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.03" mass="0.2" friction="0.3" rgba="0.3 0.8 0.4 1"/>
        <body pos="0.2 0 0">
          <joint name="elbow" axis="0 1 0" range="0 140" damping="0.2"/>
          <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.03" mass="0.2" friction="1.5" rgba="0.9 0.8 0.3 1"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="shoulder" gear="8" ctrlrange="-1 1"/>
    <motor joint="elbow" gear="5" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""

CONTROL_TIMESTEP = 0.02  # seconds of one frame; an action is held for --action-repeat of them
EPISODE_FRAMES = 400
FULL_SPEED = 0.5  # metres per second, from which on more is not rewarded


class Crawl(Task):
    """Move the box forward."""

    def initialize_episode(self, physics: Any) -> None:
        """Turn arm and elbow somewhere; `self.random` is seeded for each episode."""
        for joint in ("shoulder", "elbow"):
            low, high = physics.named.model.jnt_range[joint]
            physics.named.data.qpos[joint] = self.random.uniform(low, high)
        super().initialize_episode(physics)

    def get_observation(self, physics: Any) -> dict[str, Any]:
        """Return what no camera shows exactly, for `--agent privileged` alone; others have their eyes."""
        return {"position": physics.data.qpos[1:].copy(), "velocity": physics.data.qvel.copy()}

    def get_reward(self, physics: Any) -> float:
        """Return the speed forward as a share of full speed, from -1 to 1."""
        return float(np.clip(physics.named.data.qvel["along"][0] / FULL_SPEED, -1.0, 1.0))


def make_world(image_size: tuple[int, int], action_repeat: int, renderer: RendererName) -> DmcWorld:
    """Build one world; training makes as many as it needs."""
    environment = control.Environment(
        mujoco.Physics.from_xml_string(MODEL),
        Crawl(),
        control_timestep=CONTROL_TIMESTEP,
        time_limit=EPISODE_FRAMES * CONTROL_TIMESTEP,
    )
    return DmcWorld(environment, "beside", renderer, image_size, action_repeat, privileged=True)
