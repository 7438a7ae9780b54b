"""The table of tasks against the paper and against what dm_control offers."""

import pickle
from dataclasses import FrozenInstanceError

import pytest
from dm_control import suite

from pixelcontrol.envs.tasks import OTHER_TASKS, PAPER_TASKS, find_task, parse_tasks


def test_the_paper_has_9_easy_12_medium_and_3_hard_tasks():
    difficulties = [task.difficulty for task in PAPER_TASKS]
    assert [difficulties.count(d) for d in ("easy", "medium", "hard")] == [9, 12, 3]
    assert len({task.name for task in PAPER_TASKS}) == 24


@pytest.mark.parametrize(
    ("name", "frames", "exploration"),
    [
        ("cup_catch", 1_000_000, 100_000),
        ("reach_duplo", 3_000_000, 500_000),
        ("humanoid_run", 30_000_000, 2_000_000),
        ("fish_swim", 3_000_000, 500_000),
    ],
)
def test_difficulty_decides_frames_and_exploration(name, frames, exploration):
    task = find_task(name)
    assert (task.train_frames, task.stddev_duration) == (frames, exploration)


def test_deviations_are_those_of_appendix_b_and_the_official_code():
    deviating = {task.name: task.deviations for task in (*PAPER_TASKS, *OTHER_TASKS) if task.deviations}
    walker = {"n_step": 1, "batch_size": 512}
    humanoid = {"learning_rate": 8e-5, "feature_dim": 100}
    assert deviating == {
        "walker_stand": walker,
        "walker_walk": walker,
        "walker_run": walker,
        "quadruped_run": {"replay_capacity": 100_000},
        "humanoid_stand": humanoid,
        "humanoid_walk": humanoid,
        "humanoid_run": humanoid,
    }


def test_every_suite_task_but_lqr_has_exactly_one_name():
    named = [(task.domain, task.task) for task in (*PAPER_TASKS, *OTHER_TASKS) if task.source == "suite"]
    assert len(named) == len(set(named))
    assert set(suite.ALL_TASKS) - set(named) == {("lqr", "lqr_2_1"), ("lqr", "lqr_6_2")}
    assert set(named) <= set(suite.ALL_TASKS)


@pytest.mark.parametrize(
    ("name", "camera", "episode_frames"),
    [
        ("cheetah_run", 0, 1000),
        ("quadruped_run", 2, 1000),
        ("quadruped_fetch", 2, 1000),
        ("reach_duplo", "front_close", 250),
    ],
)
def test_cameras_and_episode_lengths(name, camera, episode_frames):
    task = find_task(name)
    assert (task.camera, task.episode_frames) == (camera, episode_frames)


def test_a_users_own_world_is_module_and_factory():
    task = find_task("my.robot:make_world")
    assert (task.source, task.domain, task.task) == ("factory", "my.robot", "make_world")


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("cheeta_run", "cheetah_run"), ("ball_in_cup_catch", "cup_catch"), (":make_world", None), ("x:", None)],
)
def test_an_unknown_name_is_refused_with_the_nearest(typed, nearest):
    with pytest.raises(ValueError, match=f"unknown task '{typed}'; the nearest name is '{nearest or ''}"):
        find_task(typed)


def test_tasks_are_frozen_hashable_and_picklable():
    task = find_task("walker_walk")
    assert pickle.loads(pickle.dumps(task)) == task
    assert len({task, find_task("walker_walk")}) == 1
    with pytest.raises(FrozenInstanceError):
        task.name = "other"


@pytest.mark.parametrize(("words", "number"), [(["easy"], 9), (["medium"], 12), (["hard"], 3), (["all"], 24)])
def test_groups_of_tasks(words, number):
    assert len(parse_tasks(words)) == number


def test_tasks_by_name_come_once():
    assert parse_tasks(["hard", "humanoid_run", "toy_reach"]) == [
        *("humanoid_stand", "humanoid_walk", "humanoid_run", "toy_reach")
    ]


def test_an_unknown_task_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="cheetah_run"):
        parse_tasks(["cheeta_run"])
