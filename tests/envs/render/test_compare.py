"""Every task's picture by `warp` is OpenGL's, and what an agent must see to solve it is seen in both."""

import dataclasses

import numpy as np
import pytest

from pixelcontrol.envs.dmc import load_environment
from pixelcontrol.envs.render.compare import Comparison, compare
from pixelcontrol.envs.render.opengl import OpenGLRenderer
from pixelcontrol.envs.render.scene import GEOM_SIZE, Scene
from pixelcontrol.envs.render.warp import WarpRenderer
from pixelcontrol.envs.tasks import PAPER_TASKS, find_task

SIZE = (84, 84)

# They show the scene of another task of the paper.
ALIKE = {
    "cartpole_balance_sparse", "cartpole_swingup_sparse", "walker_stand", "walker_run", "hopper_hop",
    "quadruped_walk", "humanoid_stand", "humanoid_run",
}  # fmt: skip


@pytest.mark.parametrize("name", [task.name for task in PAPER_TASKS if task.name not in ALIKE])
def test_the_picture_is_opengls(name):
    comparison = compare(find_task(name), states=2)
    assert comparison.mean_difference <= 1.5
    assert comparison.off_fractions.mean() <= 0.01


@pytest.mark.parametrize(
    ("name", "thing"),
    [
        ("reacher_easy", "geom target"),
        ("reacher_hard", "geom target"),
        ("finger_turn_hard", "site tip"),
        ("finger_turn_easy", "site target"),
        ("finger_turn_hard", "site target"),
        ("cup_catch", "geom ball"),
        ("cup_catch", "string"),
    ],
)
def test_what_matters_is_seen(name, thing):
    """Where a thing's absence changes the picture, the picture with it is OpenGL's and that without is not."""
    task = find_task(name)
    environment = load_environment(task)
    environment.reset()
    physics = environment.physics
    scene = Scene(physics, task.camera)
    rows = np.zeros((2, *scene.payload_shape), np.float32)
    scene.pack(physics, rows[0])
    rows[1] = rows[0]
    geoms = rows[1, 0, scene.first_geom :].reshape(-1, GEOM_SIZE)
    if thing == "string":
        chosen = np.arange(len(geoms)) >= int(rows[0, 0, 0]) - 30
    else:
        kind, label = thing.split()
        place = getattr(physics.named.data, f"{kind}_xpos")[label]
        chosen = np.isclose(geoms[:, 7:10], place, atol=1e-5).all(axis=1)
    assert chosen.any()
    geoms[chosen, 7:10] += 1000.0  # out of sight

    opengl = np.zeros((3, *SIZE), np.uint8)
    OpenGLRenderer(physics, task.camera, SIZE).draw(opengl)
    present, absent = WarpRenderer(scene, 2, SIZE, "cpu").images(rows).numpy().astype(int)
    there = np.abs(present - absent).max(axis=0) > 16
    assert there.sum() >= 4
    assert np.abs(opengl - present)[:, there].mean() < 8
    assert np.abs(opengl - absent)[:, there].mean() > 16


def test_the_figures_on_numbers_by_hand():
    """Of 2 x 4 pixels one is off by (20, 0, 1): mean 21 / 24 = 0.875; in its state one of 4 by > 16."""
    opengl = np.full((2, 2, 2, 3), 100, np.uint8)
    warp = opengl.copy()
    warp[1, 1, 0] = 80, 100, 101
    comparison = Comparison(opengl, warp, 0.0021)
    assert comparison.mean_difference == pytest.approx(0.875)
    assert comparison.off_fractions.tolist() == [0.0, 0.25]
    assert comparison.table_row() == "0.88 | 12.50% | 25.00% | 2.10"
    picture = comparison.picture()
    assert picture.shape == (4, 6, 3)
    assert picture[3, 4].tolist() == [80, 0, 4]
    assert picture[3, 2].tolist() == [80, 100, 101]


def test_the_picture_is_written(tmp_path):
    comparison = Comparison(np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2, 2, 3), np.uint8), 0.0)
    comparison.save(tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").stat().st_size > 0


def test_only_dm_controls_tasks_and_own_models_can_be_compared():
    toy = dataclasses.replace(find_task("cartpole_swingup"), source="toy", name="toy")
    with pytest.raises(ValueError, match="only dm_control's tasks and an own model in a DmcWorld"):
        compare(toy)


def test_episodes_may_end_between_two_states(monkeypatch):
    """Composer compiles a model anew at every beginning, and OpenGL must draw the one that lives."""
    task = find_task("reach_duplo")
    environment = load_environment(task)
    environment._time_limit = 0.4
    monkeypatch.setattr("pixelcontrol.envs.render.compare._model", lambda *_: (environment, task.camera))
    assert compare(task, states=8).mean_difference <= 1.5
