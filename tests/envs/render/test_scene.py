"""A row holds the moment it was packed in, and packing leaves the task alone."""

import subprocess
import sys

import mujoco
import numpy as np
import pytest
from dm_control import mujoco as control_mujoco
from dm_control import suite

from pixelcontrol.envs.render.scene import CAMERA_START, GEOM_SIZE, Scene

SPHERE, CAPSULE = int(mujoco.mjtGeom.mjGEOM_SPHERE), int(mujoco.mjtGeom.mjGEOM_CAPSULE)


def load(domain, task):
    environment = suite.load(domain, task, task_kwargs={"random": 3})
    environment.reset()
    return environment


def pack(scene, physics):
    rows = np.zeros(scene.payload_shape, np.float32)
    scene.pack(physics, rows)
    return rows[0]


def geoms_of(scene, row):
    return row[scene.first_geom :].reshape(-1, GEOM_SIZE)[: int(row[0])]


def test_geoms_are_where_physics_has_them():
    environment = load("cheetah", "run")
    scene = Scene(environment.physics, 0)
    environment.step(np.ones(6))
    geoms = geoms_of(scene, pack(scene, environment.physics))
    model, data = environment.physics.model, environment.physics.data
    bodies = geoms[1:]  # the floor, first, is moved along with the camera
    np.testing.assert_array_equal(bodies[:, 0], model.geom_type[1:])
    np.testing.assert_allclose(bodies[:, 7:10], data.geom_xpos[1:], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(bodies[:, 10:19], data.geom_xmat[1:], rtol=1e-6, atol=1e-6)


def test_a_camera_follows_its_body():
    environment = load("cheetah", "run")
    scene = Scene(environment.physics, 0)
    before = pack(scene, environment.physics)[CAMERA_START : CAMERA_START + 3]
    for _ in range(50):
        environment.step(np.ones(6))
    after = pack(scene, environment.physics)[CAMERA_START : CAMERA_START + 3]
    np.testing.assert_allclose(after, environment.physics.data.cam_xpos[0], rtol=1e-5)
    assert abs(after[0] - before[0]) > 0.01


def test_what_an_episode_changes_in_the_model_is_in_the_row():
    environment = load("reacher", "easy")
    scene = Scene(environment.physics, 0)
    places = set()
    for _ in range(3):
        environment.reset()
        geoms = geoms_of(scene, pack(scene, environment.physics))
        x, y, _ = environment.physics.named.data.geom_xpos["target"]
        assert np.isclose(geoms[:, 7:9], [x, y], atol=1e-6).all(axis=1).any()
        places.add((x, y))
    assert len(places) == 3
    environment.physics.named.model.geom_rgba["target"] = 0.1, 0.2, 0.3, 1
    environment.physics.named.model.geom_size["target", 0] = 0.123
    target = geoms_of(scene, pack(scene, environment.physics))
    assert (np.isclose(target[:, 19:22], [0.1, 0.2, 0.3]).all(axis=1) & np.isclose(target[:, 4], 0.123)).any()


def test_heights_travel_where_terrain_is_shown_alone():
    lengths = {}
    for task in ("run", "escape"):
        environment = load("quadruped", task)
        scene = Scene(environment.physics, 2)
        lengths[task] = len(pack(scene, environment.physics))
        assert scene.fields[:, :2].tolist() == ([[0, 0]] if task == "run" else [[201, 201]])
    assert lengths["run"] < 1_000
    assert lengths["escape"] > 201 * 201


def test_sites_and_tendons_are_geoms():
    environment = load("ball_in_cup", "catch")
    scene = Scene(environment.physics, 0)
    kinds = geoms_of(scene, pack(scene, environment.physics))[:, 0].astype(int).tolist()
    drawn = environment.physics.model.geom_type.tolist()
    more = [kinds.count(kind) - drawn.count(kind) for kind in (SPHERE, CAPSULE)]
    assert more[0] == 2  # the ends of the string
    assert more[1] == 1 or 20 <= more[1] <= 30  # the string, taut or hanging


def test_packing_leaves_the_model_alone():
    environment = load("finger", "turn_hard")
    model = environment.physics.model.ptr
    before = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, before)
    pack(Scene(environment.physics, 0), environment.physics)
    after = np.empty_like(before)
    mujoco.mj_saveModel(model, None, after)
    np.testing.assert_array_equal(before, after)


def test_a_camera_has_an_id_or_a_name():
    environment = load("cheetah", "run")
    by_name, by_id = Scene(environment.physics, "back"), Scene(environment.physics, 1)
    np.testing.assert_array_equal(pack(by_name, environment.physics), pack(by_id, environment.physics))
    for unknown in (2, -1, "front"):
        with pytest.raises(ValueError, match=r"this task has 0 \(side\), 1 \(back\)"):
            Scene(environment.physics, unknown)


def test_several_cameras_have_a_row_each():
    environment = load("cheetah", "run")
    both = Scene(environment.physics, ("1", "side"))
    rows = np.zeros(both.payload_shape, np.float32)
    both.pack(environment.physics, rows)
    for row, camera in zip(rows, ("back", 0), strict=True):
        np.testing.assert_array_equal(row, pack(Scene(environment.physics, camera), environment.physics))
    assert not np.array_equal(rows[0], rows[1])


CLOTH = '<flexcomp name="cloth" type="grid" count="4 4 1" spacing=".2 .2 .2" radius=".02" dim="2"/>'


def of(body):
    xml = f'<mujoco><worldbody><camera pos="0 0 4"/>{body}</worldbody></mujoco>'
    return control_mujoco.Physics.from_xml_string(xml)


def test_what_cannot_be_drawn_is_said_at_once():
    with pytest.raises(ValueError, match="shows a skin, which only renderer 'opengl' draws"):
        Scene(load("dog", "stand").physics, 0)
    with pytest.raises(ValueError, match="shows a flex, which only renderer 'opengl' draws"):
        Scene(of(CLOTH), 0)


def test_an_orthographic_camera_is_refused():
    physics = of('<camera name="flat" projection="orthographic"/>')
    Scene(physics, 0)
    for camera in ("flat", (0, "flat")):
        with pytest.raises(ValueError, match=r"camera 1 \(flat\) is orthographic, .* renderer 'opengl'"):
            Scene(physics, camera)


def test_a_cube_on_a_mesh_with_coordinates_is_refused():
    """OpenGL shows it without a texture, or with the last flat one that it drew."""
    xml = """<mujoco><asset><texture name="skin" type="{}" builtin="flat" width="8" height="8"/>
      <material name="skin" texture="skin"/>
      <mesh name="mapped" vertex="0 0 0  1 0 0  0 1 0  0 0 1" texcoord="0 0  1 0  0 1  1 1"/></asset>
      <worldbody><camera/><geom type="mesh" mesh="mapped" material="skin"/></worldbody></mujoco>"""
    Scene(control_mujoco.Physics.from_xml_string(xml.format("2d")), 0)
    with pytest.raises(ValueError, match=r"texture 'skin' .* declare it with type=\"2d\""):
        Scene(control_mujoco.Physics.from_xml_string(xml.format("cube")), 0)


def test_what_is_hidden_at_first_may_be_shown():
    physics = of('<geom size=".2" rgba="1 0 0 0"/><site pos="1 0 0"/><site group="4"/><geom size=".1"/>')
    scene = Scene(physics, 0)
    assert len(geoms_of(scene, pack(scene, physics))) == 2
    physics.model.geom_rgba[0] = 1, 0, 0, 1
    assert geoms_of(scene, pack(scene, physics))[:, 19].tolist() == [1, 0.5, 0.5]
    assert scene.max_geoms == 3


def test_a_world_may_have_thousands_of_geoms():
    physics = of("".join(f'<geom size=".01" pos="{i / 100} 0 0"/>' for i in range(1_200)))
    scene = Scene(physics, 0)
    geoms = geoms_of(scene, pack(scene, physics))
    np.testing.assert_allclose(geoms[:, 7], np.arange(1_200) / 100, rtol=1e-6)


def test_more_geoms_than_there_is_room_for_are_refused():
    scene = Scene(of('<geom size=".01"/>'), 0)
    with pytest.raises(RuntimeError, match="shows 2 geoms, 1 were expected at most"):
        pack(scene, of('<geom size=".01"/><geom size=".02"/>'))


def test_more_lights_than_there_is_room_for_are_refused():
    scene = Scene(of("<light/>"), 0)
    row = pack(scene, of('<light active="false"/>'))
    assert row[1] == 1  # the head's
    with pytest.raises(RuntimeError, match=r"shows 3 lights, 2 were expected at most, .* --renderer opengl"):
        pack(scene, of("<light/><light/>"))


def test_a_light_of_a_type_that_opengl_does_not_draw_is_refused():
    physics = of("<light/>")
    scene = Scene(physics, 0)
    physics.model.light_type[0] = mujoco.mjtLightType.mjLIGHT_POINT
    for draw in (lambda: pack(scene, physics), lambda: Scene(physics, 0)):
        with pytest.raises(ValueError, match="light 0 of this task is of type point"):
            draw()


def test_another_model_with_other_textures_is_refused():
    """As a composer task may compile one for an episode; a changed colour travels in the row."""
    xml = """<mujoco><asset><texture name="skin" type="2d" builtin="checker" width="8" height="8" rgb1="{} 0 0"/>
      <material name="skin" texture="skin" rgba="{} 1 1 1"/></asset>
      <worldbody><camera/><geom size=".1" material="skin"/></worldbody></mujoco>"""
    first, other_colour, other_texture = (
        control_mujoco.Physics.from_xml_string(xml.format(*numbers))
        for numbers in ((1, 1), (1, 0.5), (0.5, 1))
    )
    scene = Scene(first, 0)
    assert geoms_of(scene, pack(scene, other_colour))[0, 19] == 0.5
    with pytest.raises(RuntimeError, match=r"another tex_data than the first.* --renderer opengl"):
        pack(scene, other_texture)


def test_a_worker_needs_neither_torch_nor_warp():
    code = "import sys, pixelcontrol.envs.render.scene; print({'torch', 'warp'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"
