"""The kernels against OpenGL's picture of small scenes, each with the one thing that it is about."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import warp as wp
from dm_control import mujoco
from dm_control.rl import control
from dm_control.suite.base import Task

from pixelcontrol.envs.dmc import DmcWorld
from pixelcontrol.envs.render.opengl import OpenGLRenderer
from pixelcontrol.envs.render.scene import CAMERA_START, GEOM_SIZE, Scene
from pixelcontrol.envs.render.warp import WarpRenderer, _halve, _pack_textures, _plane_grids

SIZE = (48, 60)

SCENE = """
<mujoco>
  <asset>
    <texture name="check" type="2d" builtin="checker" width="100" height="100" rgb1=".1 .2 .3" rgb2=".5 .5 .2"/>
    <texture name="gradient" type="cube" builtin="gradient" width="64" height="64" rgb1="1 0 0" rgb2="0 0 1"/>
    <texture name="sky" type="skybox" builtin="gradient" rgb1=".4 .6 .8" rgb2="0 .2 0" width="64" height="64"/>
    <material name="floor" texture="check" texuniform="true" texrepeat="2 3" reflectance="{reflectance}"/>
    <material name="wrapped" texture="gradient"/>
    <texture name="flat" type="2d" builtin="gradient" width="64" height="64" rgb1="1 0 0" rgb2="0 0 1" mark="cross"
      markrgb="0 1 0"/>
    <material name="crate" texture="flat" texrepeat="2 1" texuniform="{uniform}"/>
    <mesh name="mapped" vertex="0 0 0  .4 0 0  0 .4 0  0 0 .5" texcoord="0 0  1 0  0 1  1 1"/>
    <mesh name="wedge" vertex="0 0 0  .4 0 0  0 .4 0  0 0 .5"/>
    <mesh name="ball" builtin="sphere" params="1" scale=".4 .4 .4"/>
    <hfield name="hills" nrow="4" ncol="5" size=".6 .5 .5 .1"
      elevation="0 0 0 0 0  0 .3 1 .4 0  0 .8 .2 .9 0  0 0 0 0 0"/>
    <hfield name="plain" nrow="3" ncol="4" size=".6 .5 .5 .1"/>
  </asset>
  <worldbody>
    <camera name="eye" pos=".1 -2 1" xyaxes="1 .1 0 -.1 .5 1"/>
    <camera name="above" pos="0 0 3"/>
    <camera name="below" pos="0 -.3 -2" xyaxes="1 0 0 0 -1 0"/>
    <light pos="1 -1 3" dir="-.3 .3 -1" directional="{directional}" castshadow="{shadow}" {lamp}/>
    <geom type="plane" size="1 .8 {grid}" material="floor"/>
    {body}
  </worldbody>
</mujoco>
"""
DEFAULTS = {"reflectance": 0, "grid": 0.1, "directional": "false", "shadow": "false", "lamp": "", "body": ""}
DEFAULTS["uniform"] = "false"
BODIES = {
    "sphere": '<geom type="sphere" size=".3" pos="0 0 .4" rgba=".8 .3 .2 1"/>',
    "capsule": '<geom type="capsule" size=".2 .3" pos="0 0 .5" euler="50 20 0" rgba=".8 .6 .2 1"/>',
    "ellipsoid": '<geom type="ellipsoid" size=".2 .3 .4" pos="0 0 .5" euler="0 30 10" rgba=".8 .6 .9 1"/>',
    "cylinder": '<geom type="cylinder" size=".3 .2" pos="0 0 .5" euler="40 20 0" rgba=".2 .6 .9 1"/>',
    "box": '<geom type="box" size=".2 .3 .1" pos="0 0 .5" euler="20 0 50" rgba=".2 .9 .3 1"/>',
    "mesh": '<geom type="mesh" mesh="wedge" pos="0 0 .2" rgba=".9 .9 .3 1"/>',
    "round mesh": '<geom type="mesh" mesh="ball" pos="0 0 .4" rgba=".9 .9 .3 1"/>',
    "round mesh behind glass": """<geom type="mesh" mesh="ball" pos="0 0 .4" rgba=".9 .9 .3 1"/>
        <geom type="box" size=".3 .02 .4" pos="0 -.6 .5" rgba=".2 .4 .9 .2"/>""",
    "site": '<site type="sphere" size=".2" pos="0 0 .4" rgba=".9 .1 .3 1"/>',
    "transparent": '<geom type="sphere" size=".3" pos="0 0 .4" rgba=".9 .1 .3 .4"/>',
    "cube texture": '<geom type="box" size=".2 .3 .1" pos="0 0 .5" euler="20 0 50" material="wrapped"/>',
    "tendon": """<site name="a" pos="-.4 0 .3"/><site name="b" pos=".4 0 .6"/></worldbody><tendon>
        <spatial width=".05" rgba="1 .5 0 1"><site site="a"/><site site="b"/></spatial></tendon><worldbody>""",
}


def draw(xml, size=SIZE, camera="eye", depth=0.0):
    """OpenGL's picture, the warp renderer's, and the renderer with the rows it drew."""
    physics = mujoco.Physics.from_xml_string(xml)
    scene = Scene(physics, camera, depth)
    opengl = np.zeros((scene.channels, *size), np.uint8)
    OpenGLRenderer(physics, camera, size, depth).draw(opengl)
    rows = np.zeros((1, *scene.payload_shape), np.float32)
    scene.pack(physics, rows[0])
    renderer = WarpRenderer(scene, 1, size, "cpu")
    return torch.from_numpy(opengl), renderer.images(rows)[0], renderer, rows


def assert_alike(opengl, warp, off=0.01):
    difference = (opengl.int() - warp.int()).abs()
    assert difference.float().mean() <= 1.5
    assert (difference.amax(dim=0) > 16).float().mean() <= off


@pytest.mark.parametrize("body", BODIES)
def test_a_body_looks_like_opengls(body):
    opengl, warp, _, _ = draw(SCENE.format(**DEFAULTS | {"body": BODIES[body]}))
    assert_alike(opengl, warp)
    without, _, _, _ = draw(SCENE.format(**DEFAULTS))
    seen = (opengl.int() - without.int()).abs().amax(dim=0) > 16
    assert seen.sum() > 30  # the body is in the picture, or this test would be about nothing


SHAPES = {
    "sphere": 'type="sphere" size=".3"',
    "capsule": 'type="capsule" size=".2 .3"',
    "ellipsoid": 'type="ellipsoid" size=".2 .3 .4"',
    "cylinder": 'type="cylinder" size=".3 .2"',
    "box": 'type="box" size=".2 .3 .25"',
    "mesh": 'type="mesh" mesh="wedge"',
    "mapped mesh": 'type="mesh" mesh="mapped"',
}


@pytest.mark.parametrize("uniform", ["false", "true"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_flat_texture_is_wrapped_round_a_body_as_opengls(shape, uniform):
    body = f'<geom {SHAPES[shape]} pos="-.1 -.6 .5" euler="20 30 50" material="crate"/>'
    opengl, warp, _, _ = draw(SCENE.format(**DEFAULTS | {"body": body, "uniform": uniform}))
    assert_alike(opengl, warp)
    plain, _, _, _ = draw(SCENE.format(**DEFAULTS | {"body": body.replace("crate", "floor")}))
    assert (opengl.int() - plain.int()).abs().amax(dim=0).gt(16).sum() > 30


@pytest.mark.parametrize(
    "lens",
    [
        'sensorsize=".02 .02" focal=".03 .03"',
        'sensorsize=".03 .02" focal=".03 .02"',
        'sensorsize=".02 .016" focal=".03 .03" principal=".004 .003"',
        'sensorsize=".02 .016" focalpixel="60 60" principalpixel="8 -5"',
    ],
)
def test_a_calibrated_camera_sees_what_opengls_does(lens):
    camera = f'<camera name="lens" pos=".1 -2 1" xyaxes="1 .1 0 -.1 .5 1" resolution="60 48" {lens}/>'
    settings = DEFAULTS | {"body": camera + BODIES["cube texture"]}
    opengl, warp, _, _ = draw(SCENE.format(**settings), camera="lens")
    assert_alike(opengl, warp)
    _, plain, _, _ = draw(SCENE.format(**settings))
    assert (plain.int() - warp.int()).abs().amax(dim=0).gt(16).float().mean() > 0.1


def test_thousands_of_geoms_keep_their_colours():
    many = "".join(f'<geom size=".01" pos="0 {i / 1000} -3"/>' for i in range(2_100))
    settings = DEFAULTS | {"body": many + BODIES["box"], "reflectance": 0.5}
    assert_alike(*draw(SCENE.format(**settings))[:2])


@pytest.mark.parametrize("shadow", ["false", "true"])
def test_a_ninth_light_is_dropped_as_opengls(shadow):
    """The head's lamp and seven others are eight."""
    lamp = f'<light pos="0 -1 2" diffuse=".1 0 0" castshadow="{shadow}"/>'
    bright = f'<light pos="0 -1 2" diffuse="1 1 1" castshadow="{shadow}"/>'
    opengl, eight, _, _ = draw(SCENE.format(**DEFAULTS | {"body": 6 * lamp}))
    assert_alike(opengl, eight)
    opengl, nine, _, _ = draw(SCENE.format(**DEFAULTS | {"body": 6 * lamp + bright}))
    assert_alike(opengl, nine)
    assert torch.equal(eight, nine)


def test_without_any_light_all_is_dim():
    xml = """<mujoco><visual><headlight active="0"/></visual>
      <worldbody><camera name="eye" pos="0 0 4"/><geom size="1" rgba=".5 .8 .2 1"/></worldbody></mujoco>"""
    opengl, warp, _, _ = draw(xml)
    assert_alike(opengl, warp)
    assert warp[:, 24, 30].tolist() == [38, 61, 15]  # 0.3 of the colour


@pytest.mark.parametrize("directional", ["true", "false"])
def test_shadows_fall_as_opengls(directional):
    settings = DEFAULTS | {"body": BODIES["sphere"], "directional": directional, "shadow": "true"}
    opengl, warp, _, _ = draw(SCENE.format(**settings))
    assert_alike(opengl, warp)


def test_a_lamp_fades_and_casts_shadows_in_the_inner_part_of_its_cone():
    """Beyond 0.6 of its cone of 15 degrees a lamp shines through: part of the sphere's shadow is missing."""
    body = '<geom size=".2" pos="-.35 -.25 .4" rgba=".8 .3 .2 1"/>'
    lamp = 'cutoff="15" exponent="1" attenuation=".5 .1 .05" diffuse="1 1 1"'
    opengl, warp, _, _ = draw(SCENE.format(**DEFAULTS | {"body": body, "lamp": lamp, "shadow": "true"}))
    assert_alike(opengl, warp)


def assign(**values):
    """What sets members of a model, each an array or a number."""

    def change(model):
        for name, value in values.items():
            *path, last = name.split("__")
            holder = model
            for part in path:
                holder = getattr(holder, part)
            if isinstance(getattr(holder, last), np.ndarray):
                getattr(holder, last)[:] = value
            else:
                setattr(holder, last, value)

    return change


SECOND = '<light pos="-1 -1 2" dir=".3 .3 -1" diffuse="0 .6 .1" castshadow="true" active="false"/>'
CHANGES = {
    "diffuse": assign(light_diffuse=[0.1, 0.9, 0.2]),
    "ambient": assign(light_ambient=[0.1, 0.2, 0.0]),
    "specular": assign(light_specular=[1, 0, 0], mat_specular=1, mat_shininess=0.05),
    "attenuation": assign(light_attenuation=[0.8, 0.2, 0.1]),
    "cone": assign(light_cutoff=12, light_exponent=1),
    "type": assign(light_type=1),
    "shadow": assign(light_castshadow=0),
    "off": assign(light_active=[0, 0]),
    "another": assign(light_active=[0, 1]),
    "both": assign(light_active=[1, 1]),
    "head": assign(vis__headlight__diffuse=[0.9, 0.2, 0.2]),
    "headless": assign(vis__headlight__active=0),
    "dark": assign(light_active=0, vis__headlight__active=0),
    "emission": assign(mat_emission=0.5),
    "reflectance": assign(mat_reflectance=0.6),
    "rgba": assign(mat_rgba=[0.9, 0.5, 0.9, 1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_lights_and_materials_may_change_as_opengls(change):
    """They do so after the scene was built, as at the start of an episode."""
    body = SECOND + '<geom size=".3" pos="0 0 .4" material="wrapped"/>'
    settings = DEFAULTS | {"body": body, "shadow": "true", "lamp": 'diffuse=".5 .5 .5"'}
    physics = mujoco.Physics.from_xml_string(SCENE.format(**settings))
    scene = Scene(physics, "eye")
    rows = np.zeros((2, *scene.payload_shape), np.float32)
    scene.pack(physics, rows[0])
    CHANGES[change](physics.model)
    scene.pack(physics, rows[1])
    opengl = np.zeros((3, *SIZE), np.uint8)
    OpenGLRenderer(physics, "eye", SIZE).draw(opengl)
    before, after = WarpRenderer(scene, 2, SIZE, "cpu").images(rows)
    assert_alike(torch.from_numpy(opengl), after)
    assert (before.int() - after.int()).abs().amax(dim=0).gt(16).sum() > 30
    anew = Scene(physics, "eye")
    rows = np.zeros((1, *anew.payload_shape), np.float32)
    anew.pack(physics, rows[0])
    assert torch.equal(after, WarpRenderer(anew, 1, SIZE, "cpu").images(rows)[0])


LAMP = """<mujoco><visual><headlight active="0"/></visual><worldbody>
  <camera name="eye" pos="0 0 4"/><geom type="plane" size="9 9 1" rgba=".5 .8 .2 1"/>
  <light name="sun" pos="0 0 3" directional="{}" cutoff="80" exponent="0" diffuse="1 1 1" specular="0 0 0"
    castshadow="false"/></worldbody></mujoco>"""


def test_a_lamp_may_change_by_hand():
    """Light from above falls on (.5, .8, .2) x 255 = (127.5, 204, 51): all, half, a fifth; 0.3 without any."""
    physics = mujoco.Physics.from_xml_string(LAMP.format("true"))
    scene = Scene(physics, "eye")
    rows = np.zeros((4, *scene.payload_shape), np.float32)
    scene.pack(physics, rows[0])
    for row, strength in zip(rows[1:3], (0.5, 0.2), strict=True):
        physics.named.model.light_diffuse["sun"] = strength
        scene.pack(physics, row)
    physics.named.model.light_active["sun"] = False
    scene.pack(physics, rows[3])
    images = WarpRenderer(scene, 4, SIZE, "cpu").images(rows)
    shades = [[127.5, 204, 51], [63.75, 102, 25.5], [25.5, 40.8, 10.2], [38.25, 61.2, 15.3]]
    np.testing.assert_allclose(images[:, :, 24, 30], shades, atol=0.51)


def test_a_lamp_may_fade_by_hand():
    """All of its light is divided by the constant of its attenuation."""
    physics = mujoco.Physics.from_xml_string(LAMP.format("false"))
    scene = Scene(physics, "eye")
    rows = np.zeros((2, *scene.payload_shape), np.float32)
    scene.pack(physics, rows[0])
    physics.named.model.light_attenuation["sun", 0] = 2.0
    scene.pack(physics, rows[1])
    bright, half = WarpRenderer(scene, 2, SIZE, "cpu").images(rows).float()
    assert bright.mean() > 60
    torch.testing.assert_close(half, bright / 2, atol=0.51, rtol=0.0)


class Sunrise(Task):
    """Whose light and floor are others in each episode."""

    def initialize_episode(self, physics):
        physics.named.model.light_diffuse["sun"] = self.random.uniform(0.2, 1.0, 3)
        physics.named.model.light_active["lamp"] = self.random.rand() < 0.5
        physics.named.model.mat_texrepeat["floor"] = self.random.uniform(1.0, 9.0, 2)

    def get_observation(self, physics):
        return {}

    def get_reward(self, physics):
        return 0.0


SUNRISE = """<mujoco><asset><texture name="check" type="2d" builtin="checker" width="64" height="64"
  rgb1=".1 .2 .3" rgb2=".5 .5 .2"/><material name="floor" texture="check"/></asset><worldbody>
  <camera name="eye" pos="0 0 4"/><light name="sun" pos="0 0 3"/><light name="lamp" pos="1 1 3"/>
  <geom type="plane" size="2 2 .1" material="floor"/><body><joint name="turn"/><geom size=".1"/></body></worldbody>
  <actuator><motor joint="turn" ctrlrange="-1 1"/></actuator></mujoco>"""


def test_worlds_of_one_seed_look_the_same_whatever_was_before():
    """Each has its own scene, read in an episode of its own."""

    def images(seeds):
        environment = control.Environment(mujoco.Physics.from_xml_string(SUNRISE), Sunrise(), time_limit=1)
        world = DmcWorld(environment, "eye", "warp", SIZE, 2)
        rows = np.zeros((1, *world.spec.payload_shape), np.float32)
        for seed in seeds:
            world.reset(seed)
        world.observe(rows[0])
        return WarpRenderer(world.scene, 1, SIZE, "cpu").images(rows)[0]

    first = images([1])
    assert torch.equal(first, images([1]))
    assert not torch.equal(first, images([2]))


def test_a_floor_seen_from_below_is_faint():
    opengl, warp, _, _ = draw(SCENE.format(**DEFAULTS), camera="below")
    assert_alike(opengl, warp)


def test_a_floor_is_lit_at_the_corners_of_its_grid():
    """A lamp near (-0.6, 0), a corner of the grid of 0.3, lights its cells; a finer grid shows a spot."""
    lamp = '<light pos="-.6 0 .3" dir="0 0 -1" cutoff="70" diffuse="1 1 1" castshadow="false"/>'
    settings = DEFAULTS | {"lamp": 'diffuse="0 0 0"', "body": lamp}
    pictures = []
    for grid in (0.01, 0.3, 1.0):
        opengl, warp, _, _ = draw(SCENE.format(**settings | {"grid": grid}))
        assert_alike(opengl, warp)
        pictures.append(warp.int())
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (pictures[one] - pictures[other]).abs().amax(dim=0).gt(16).sum() > 20


def test_a_mirror_seen_from_below_shows_nothing():
    body = '<geom size=".2" pos="0 0 -.5" rgba=".8 .3 .2 1"/>'
    pictures = []
    for reflectance in (0, 0.9):
        settings = DEFAULTS | {"body": body, "reflectance": reflectance}
        opengl, warp, _, _ = draw(SCENE.format(**settings), camera="below")
        assert_alike(opengl, warp)
        pictures.append(warp)
    assert torch.equal(*pictures)


@pytest.mark.parametrize("camera", ["front", "high"])
def test_a_box_mirrors_on_its_upper_side_alone(camera):
    xml = """<mujoco><asset><material name="mirror" reflectance=".9" rgba=".3 .3 .3 1"/></asset><worldbody>
      <camera name="front" pos=".2 -3 1.5" xyaxes="1 0 0 0 .45 .9"/>
      <camera name="high" pos=".2 -1.8 1.8" xyaxes="1 0 0 0 .7 .75"/>
      <light pos="1 -2 4" dir="-.2 .4 -1"/>
      <geom type="box" size="1 .5 .3" material="mirror"/>
      <geom size=".2" pos="0 0 .6" rgba=".8 .3 .2 1"/><geom size=".2" pos=".2 -.8 0" rgba=".8 .9 .2 1"/>
      </worldbody></mujoco>"""
    opengl, warp, _, _ = draw(xml, camera=camera)
    assert_alike(opengl, warp)


def test_what_reaches_from_before_the_camera_to_behind_it_is_seen():
    """None of its corners' places in the picture says where it is."""
    body = '<geom type="box" size=".1 2 .05" pos="-.4 -1.5 .5" rgba=".8 .3 .2 1"/>'
    opengl, warp, _, _ = draw(SCENE.format(**DEFAULTS | {"body": body}))
    assert_alike(opengl, warp)


def test_a_height_field_may_change():
    """Edges between its hills are not smoothed: the bound on single pixels is 3 %."""
    body = '<geom type="hfield" hfield="hills" pos="0 0 .01" rgba=".3 .5 .8 1"/>'
    physics = mujoco.Physics.from_xml_string(SCENE.format(**DEFAULTS | {"body": body}))
    scene = Scene(physics, "eye")
    rows = np.zeros((2, *scene.payload_shape), np.float32)
    scene.pack(physics, rows[0])
    physics.model.hfield_data[7] = 1.6
    scene.pack(physics, rows[1])
    opengl = np.zeros((3, *SIZE), np.uint8)
    OpenGLRenderer(physics, "eye", SIZE).draw(opengl)
    before, after = WarpRenderer(scene, 2, SIZE, "cpu").images(rows)
    assert_alike(torch.from_numpy(opengl), after, off=0.03)
    assert (before.int() - after.int()).abs().amax(dim=0).gt(16).sum() > 30


def test_a_height_field_without_hills_is_seen():
    """Its sides, which are not drawn, are the bound on single pixels."""
    body = '<geom type="hfield" hfield="plain" pos="0 0 .01" rgba=".9 .2 .3 1"/>'
    opengl, warp, _, _ = draw(SCENE.format(**DEFAULTS | {"body": body}))
    assert_alike(opengl, warp, off=0.03)
    assert (warp[0] > 2 * warp[1].int()).sum() > 300


def test_a_mirroring_floor_looks_like_opengls():
    settings = DEFAULTS | {"body": BODIES["capsule"], "reflectance": 0.5}
    opengl, warp, _, _ = draw(SCENE.format(**settings))
    assert_alike(opengl, warp)
    _, dull, _, _ = draw(SCENE.format(**settings | {"reflectance": 0}))
    assert (warp.int() - dull.int()).abs().amax(dim=0).gt(16).sum() > 30


def test_a_glowing_sphere_in_the_dark():
    """Without light, emission alone gives the colour: 1 x (0.2, 0.4, 0.6) x 255 = (51, 102, 153)."""
    xml = """<mujoco><visual><headlight active="0"/></visual>
      <asset><material name="lamp" emission="1" rgba=".2 .4 .6 1"/></asset>
      <worldbody><camera name="eye" pos="0 0 4" fovy="45"/>
      <light diffuse="0 0 0" specular="0 0 0" castshadow="false"/>
      <geom size="1" material="lamp"/></worldbody></mujoco>"""
    _, image, _, _ = draw(xml, (20, 30))
    assert image[:, 10, 15].tolist() == [51, 102, 153]
    assert image[:, 0, 0].tolist() == [0, 0, 0]
    # The radius appears as tan(asin(1/4)) / tan(22.5 degrees) = 0.6235 of half the height, 6.2 of 10 pixels.
    assert (image[0, :, 15] > 25).sum() == 12
    assert (image[0, 10, :] > 25).sum() == 12


@pytest.mark.parametrize("size", [(48, 48), (64, 64), (128, 128), (30, 80), (80, 30)])
def test_any_size_looks_like_opengls(size):
    opengl, warp, _, _ = draw(SCENE.format(**DEFAULTS | {"body": BODIES["box"], "shadow": "true"}), size)
    assert warp.shape == (3, *size)
    assert_alike(opengl, warp)


@pytest.mark.parametrize("body", ["ellipsoid", "mesh", "transparent"])
def test_distances_are_opengls(body):
    xml = SCENE.format(**DEFAULTS | {"body": BODIES[body]})
    opengl, warp, _, _ = draw(xml, depth=3.0)
    assert warp.shape == (4, *SIZE)
    assert_alike(opengl[:3], warp[:3])
    difference = (opengl[3].int() - warp[3].int()).abs()
    assert (difference > 1).float().mean() <= 0.01
    physics = mujoco.Physics.from_xml_string(xml)
    metres = np.minimum(physics.render(*SIZE, camera_id="eye", depth=True), 3.0)
    np.testing.assert_allclose(opengl[3], metres / 3.0 * 255, atol=0.51)
    assert metres.min() < 2.5  # or there would be nothing but what is too far


def test_the_distance_to_a_floor_by_hand():
    """A camera 3 m above the floor: 3 / 4 x 255 = 191.25 wherever it sees the floor, slanted rays or not."""
    xml = SCENE.format(**DEFAULTS)
    _, image, _, _ = draw(xml, (20, 20), "above", depth=4.0)
    assert image[3, 5:15, 5:15].unique().tolist() == [191]


def test_cameras_lie_behind_one_another():
    xml = SCENE.format(**DEFAULTS | {"body": BODIES["cylinder"]})
    _, both, renderer, _ = draw(xml, camera=("above", "eye"), depth=5.0)
    apart = [draw(xml, camera=name, depth=5.0)[1] for name in ("above", "eye")]
    assert renderer.image_shape == (8, *SIZE)
    assert torch.equal(both, torch.cat(apart))
    assert not torch.equal(*apart)


def test_a_gpu_that_warp_cannot_use_is_refused_with_a_remedy(monkeypatch):
    monkeypatch.setattr(wp, "is_cuda_available", lambda: False)
    scene = Scene(mujoco.Physics.from_xml_string(SCENE.format(**DEFAULTS)), "eye")
    with pytest.raises(ValueError, match="update the driver, or choose --renderer opengl or --device cpu"):
        WarpRenderer(scene, 1, SIZE, "cuda")


def test_worlds_drawn_together_are_as_drawn_alone():
    _, _, renderer, row = draw(SCENE.format(**DEFAULTS | {"body": BODIES["box"]}))
    physics = mujoco.Physics.from_xml_string(SCENE.format(**DEFAULTS | {"body": BODIES["box"]}))
    scene = Scene(physics, "eye")
    rows = row.repeat(3, axis=0)
    rows[1, 0, scene.first_geom + GEOM_SIZE + 7] += 0.2  # the box of the second world is to the right
    together = WarpRenderer(scene, 3, SIZE, "cpu").images(rows)
    for world in range(3):
        assert torch.equal(together[world], renderer.images(rows[world : world + 1])[0])
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])


def test_every_picture_is_a_tensor_of_its_own():
    _, first, renderer, rows = draw(SCENE.format(**DEFAULTS))
    kept = first.clone()
    rows[0, 0, CAMERA_START + 2] += 1.0
    assert not torch.equal(renderer.images(rows)[0], kept)
    assert torch.equal(first, kept)


def test_mip_levels_are_averages_over_areas():
    """5 texels become 2 of 2.5 each: (0 + 1 + 2/2) / 2.5 = 0.8 and (2/2 + 3 + 4) / 2.5 = 3.2."""
    row = np.arange(5.0).reshape(1, 1, 5, 1)
    np.testing.assert_allclose(_halve(row).ravel(), [0.8, 3.2])


def test_textures_are_packed_level_by_level():
    face = np.array([[[1, 2, 3], [3, 4, 5]], [[5, 6, 7], [7, 8, 9]]], np.uint8)
    texels, table = _pack_textures([(False, face[None]), (False, face[None])])
    assert table.T.tolist() == [[0, 2, 2, 2, 0], [0, 2, 2, 2, 5]]
    assert texels[0] == 1 + 2 * 256 + 3 * 65536
    assert texels[4] == 4 + 5 * 256 + 6 * 65536


def test_a_planes_grid_is_symmetric_about_its_middle():
    """Half width 1 in steps of 0.3: floor(1 / 0.3) = 3, made even 2 cells of 0.6, and 0.4 left at either end."""
    physics = mujoco.Physics.from_xml_string(
        '<mujoco><worldbody><camera name="eye"/><geom type="plane" size="1 0 .3"/></worldbody></mujoco>'
    )
    scene = Scene(physics, "eye")
    finite, endless = _plane_grids(scene)[0]
    np.testing.assert_allclose(finite, [1.0, 0.4, 0.6], rtol=1e-6)
    np.testing.assert_allclose(endless[0], 100 * endless[2])


FOR_A_GPU = """
import sys
import warp as wp
from pixelcontrol.envs.render import kernels
wp.compile_aot_module(kernels, arch=80, module_dir=sys.argv[1], use_ptx=True)
"""


def test_the_kernels_compile_for_a_gpu(tmp_path):
    """Which needs none: Warp brings NVIDIA's compiler along."""
    subprocess.run([sys.executable, "-c", FOR_A_GPU, str(tmp_path)], check=True)
    (program,) = tmp_path.glob("*.ptx")
    for kernel in ("look", "place", "find", "shade"):
        assert f".entry {kernel}_" in program.read_text(errors="replace")
