"""The kernels against OpenGL's picture of small scenes, each with the one thing that it is about."""

import numpy as np
import pytest
import torch
from dm_control import mujoco

from pixelcontrol.envs.render.opengl import OpenGLRenderer
from pixelcontrol.envs.render.scene import Scene
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
    <mesh name="wedge" vertex="0 0 0  .4 0 0  0 .4 0  0 0 .5"/>
  </asset>
  <worldbody>
    <camera name="eye" pos=".1 -2 1" xyaxes="1 .1 0 -.1 .5 1"/>
    <light pos="1 -1 3" dir="-.3 .3 -1" directional="{directional}" castshadow="{shadow}"/>
    <geom type="plane" size="1 .8 .1" material="floor"/>
    {body}
  </worldbody>
</mujoco>
"""
DEFAULTS = {"reflectance": 0, "directional": "false", "shadow": "false", "body": ""}
BODIES = {
    "sphere": '<geom type="sphere" size=".3" pos="0 0 .4" rgba=".8 .3 .2 1"/>',
    "capsule": '<geom type="capsule" size=".2 .3" pos="0 0 .5" euler="50 20 0" rgba=".8 .6 .2 1"/>',
    "ellipsoid": '<geom type="ellipsoid" size=".2 .3 .4" pos="0 0 .5" euler="0 30 10" rgba=".8 .6 .9 1"/>',
    "cylinder": '<geom type="cylinder" size=".3 .2" pos="0 0 .5" euler="40 20 0" rgba=".2 .6 .9 1"/>',
    "box": '<geom type="box" size=".2 .3 .1" pos="0 0 .5" euler="20 0 50" rgba=".2 .9 .3 1"/>',
    "mesh": '<geom type="mesh" mesh="wedge" pos="0 0 .2" rgba=".9 .9 .3 1"/>',
    "site": '<site type="sphere" size=".2" pos="0 0 .4" rgba=".9 .1 .3 1"/>',
    "transparent": '<geom type="sphere" size=".3" pos="0 0 .4" rgba=".9 .1 .3 .4"/>',
    "cube texture": '<geom type="box" size=".2 .3 .1" pos="0 0 .5" euler="20 0 50" material="wrapped"/>',
    "tendon": """<site name="a" pos="-.4 0 .3"/><site name="b" pos=".4 0 .6"/></worldbody><tendon>
        <spatial width=".05" rgba="1 .5 0 1"><site site="a"/><site site="b"/></spatial></tendon><worldbody>""",
}


def draw(xml, size=SIZE):
    """OpenGL's picture, the warp renderer's, and the renderer with the rows it drew."""
    physics = mujoco.Physics.from_xml_string(xml)
    opengl = np.zeros((3, *size), np.uint8)
    OpenGLRenderer(physics, "eye", size).draw(opengl)
    scene = Scene(physics, "eye")
    rows = np.zeros((1, scene.payload_size), np.float32)
    scene.pack(physics, rows[0])
    renderer = WarpRenderer(scene, 1, size, "cpu")
    return torch.from_numpy(opengl), renderer.images(rows)[0], renderer, rows


def assert_alike(opengl, warp):
    difference = (opengl.int() - warp.int()).abs()
    assert difference.float().mean() <= 1.5
    assert (difference.amax(dim=0) > 16).float().mean() <= 0.01


@pytest.mark.parametrize("body", BODIES)
def test_a_body_looks_like_opengls(body):
    opengl, warp, _, _ = draw(SCENE.format(**DEFAULTS | {"body": BODIES[body]}))
    assert_alike(opengl, warp)
    without, _, _, _ = draw(SCENE.format(**DEFAULTS))
    seen = (opengl.int() - without.int()).abs().amax(dim=0) > 16
    assert seen.sum() > 30  # the body is in the picture, or this test would be about nothing


@pytest.mark.parametrize("directional", ["true", "false"])
def test_shadows_fall_as_opengls(directional):
    settings = DEFAULTS | {"body": BODIES["sphere"], "directional": directional, "shadow": "true"}
    opengl, warp, _, _ = draw(SCENE.format(**settings))
    assert_alike(opengl, warp)


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


def test_worlds_drawn_together_are_as_drawn_alone():
    _, _, renderer, row = draw(SCENE.format(**DEFAULTS | {"body": BODIES["box"]}))
    physics = mujoco.Physics.from_xml_string(SCENE.format(**DEFAULTS | {"body": BODIES["box"]}))
    scene = Scene(physics, "eye")
    rows = row.repeat(3, axis=0)
    rows[1, -scene.max_geoms * 23 + 23 + 7] += 0.2  # the box of the second world is to the right
    together = WarpRenderer(scene, 3, SIZE, "cpu").images(rows)
    for world in range(3):
        assert torch.equal(together[world], renderer.images(rows[world : world + 1])[0])
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])


def test_every_picture_is_a_tensor_of_its_own():
    _, first, renderer, rows = draw(SCENE.format(**DEFAULTS))
    kept = first.clone()
    rows[0, 3] += 1.0
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
