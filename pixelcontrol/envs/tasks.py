"""The tasks by name: the paper's 24, every other task of the control suite, a toy, and the user's own.

Unusual: a task is data. What differs from task to task (episode length, camera, schedule, the paper's
deviations from its own hyper-parameters) stands in the tables below, not in code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Difficulty = Literal["easy", "medium", "hard"]
Cameras = int | str | tuple[int | str, ...]
"""A camera by id or name, or several, whose images then lie behind one another along the channels."""

_TRAIN_FRAMES = {"easy": 1_000_000, "medium": 3_000_000, "hard": 30_000_000}
# Official code, agent steps until the exploration noise is at its smallest; the paper names no unit.
_STDDEV_DURATION = {"easy": 100_000, "medium": 500_000, "hard": 2_000_000}


@dataclass(frozen=True)
class Task:
    """One control problem, and the settings that belong to it rather than to an agent.

    Attributes:
        name: what users type and results are filed under; the paper's name for the paper's tasks.
        source: who provides the world: dm_control's "suite" or "manipulation", this project's "toy", or a
            user's "factory".
        domain: dm_control's domain, the manipulation environment's name, or the factory's module.
        task: dm_control's task within the domain, or the factory's name; "" where there is none.
        difficulty: the paper's Table 1; None outside of the paper.
        train_frames: frames to train (Table 1, "Allowed Steps").
        stddev_duration: agent steps over which the exploration noise decays (Table 2, official code).
        camera: that the agent sees through, or several.
        depth: if above 0, each camera has a fourth channel: the distance along its view, 0 at the camera and
            255 from `depth` metres on.
        proprio: entries of dm_control's observations that are told beside the images.
        episode_frames: frames until the time limit, or None when only the world knows.
        traits: Table 1.
        state_dim: dim(S) of Table 1; None outside of the paper.
        action_dim: dim(A) of Table 1; None outside of the paper.
        deviations: hyper-parameters that the paper (appendix B) and the official code set for this task
            alone, by field name: n_step, batch_size, replay_capacity, learning_rate, feature_dim.
    """

    name: str
    source: Literal["suite", "manipulation", "toy", "factory"]
    domain: str
    task: str
    difficulty: Difficulty | None = None
    train_frames: int = _TRAIN_FRAMES["medium"]
    stddev_duration: int = _STDDEV_DURATION["medium"]
    camera: Cameras = 0
    depth: float = 0.0
    proprio: tuple[str, ...] = ()
    episode_frames: int | None = 1000
    traits: tuple[str, ...] = ()
    state_dim: int | None = None
    action_dim: int | None = None
    deviations: Mapping[str, int | float] = field(default_factory=dict, hash=False)


def channel_count(camera: Cameras, depth: float) -> int:
    """How many channels an image has: red, green and blue of each camera, and distances if `depth` > 0."""
    return (len(camera) if isinstance(camera, tuple) else 1) * (4 if depth > 0 else 3)


# Table 1: name, traits, difficulty, dim(S), dim(A).
_TABLE_1: tuple[tuple[str, str, Difficulty, int, int], ...] = (
    ("cartpole_balance", "balance, dense", "easy", 4, 1),
    ("cartpole_balance_sparse", "balance, sparse", "easy", 4, 1),
    ("cartpole_swingup", "swing, dense", "easy", 4, 1),
    ("cup_catch", "swing, catch, sparse", "easy", 8, 2),
    ("finger_spin", "rotate, dense", "easy", 6, 2),
    ("hopper_stand", "stand, dense", "easy", 14, 4),
    ("pendulum_swingup", "swing, sparse", "easy", 2, 1),
    ("walker_stand", "stand, dense", "easy", 18, 6),
    ("walker_walk", "walk, dense", "easy", 18, 6),
    ("acrobot_swingup", "diff. balance, dense", "medium", 4, 1),
    ("cartpole_swingup_sparse", "swing, sparse", "medium", 4, 1),
    ("cheetah_run", "run, dense", "medium", 18, 6),
    ("finger_turn_easy", "turn, sparse", "medium", 6, 2),
    ("finger_turn_hard", "turn, sparse", "medium", 6, 2),
    ("hopper_hop", "move, dense", "medium", 14, 4),
    ("quadruped_run", "run, dense", "medium", 56, 12),
    ("quadruped_walk", "walk, dense", "medium", 56, 12),
    ("reach_duplo", "manipulation, sparse", "medium", 55, 9),
    ("reacher_easy", "reach, dense", "medium", 4, 2),
    ("reacher_hard", "reach, dense", "medium", 4, 2),
    ("walker_run", "run, dense", "medium", 18, 6),
    ("humanoid_stand", "stand, dense", "hard", 54, 21),
    ("humanoid_walk", "walk, dense", "hard", 54, 21),
    ("humanoid_run", "run, dense", "hard", 54, 21),
)

# The rest of dm_control's suite. Without lqr: its actions are bounded by 1e10, which is no scale for [-1, 1].
_OTHER_SUITE_TASKS = (
    "acrobot_swingup_sparse",
    "cartpole_three_poles",
    "cartpole_two_poles",
    "dog_fetch",
    "dog_run",
    "dog_stand",
    "dog_trot",
    "dog_walk",
    "fish_swim",
    "fish_upright",
    "humanoid_CMU_run",
    "humanoid_CMU_stand",
    "humanoid_CMU_walk",
    "humanoid_run_pure_state",
    "manipulator_bring_ball",
    "manipulator_bring_peg",
    "manipulator_insert_ball",
    "manipulator_insert_peg",
    "point_mass_easy",
    "point_mass_hard",
    "quadruped_escape",
    "quadruped_fetch",
    "stacker_stack_2",
    "stacker_stack_4",
    "swimmer_swimmer15",
    "swimmer_swimmer6",
)

# Domains whose own name holds an underscore.
_LONG_DOMAINS = ("humanoid_CMU", "point_mass")


def _deviations(name: str) -> dict[str, int | float]:
    """Appendix B. Humanoid Run is not named there; the official code treats it as the other two."""
    if name in ("walker_stand", "walker_walk", "walker_run"):
        return {"n_step": 1, "batch_size": 512}
    if name == "quadruped_run":
        return {"replay_capacity": 100_000}
    if name in ("humanoid_stand", "humanoid_walk", "humanoid_run"):
        return {"learning_rate": 8e-5, "feature_dim": 100}
    return {}


def _suite_names(name: str) -> tuple[str, str]:
    if name == "cup_catch":
        return "ball_in_cup", "catch"
    domain = next((long for long in _LONG_DOMAINS if name.startswith(long)), name.partition("_")[0])
    return domain, name[len(domain) + 1 :]


def _paper_task(name: str, traits: str, difficulty: Difficulty, state_dim: int, action_dim: int) -> Task:
    reach = name == "reach_duplo"
    domain, task = ("reach_duplo", "") if reach else _suite_names(name)
    return Task(
        name=name,
        source="manipulation" if reach else "suite",
        domain=domain,
        task=task,
        difficulty=difficulty,
        train_frames=_TRAIN_FRAMES[difficulty],
        stddev_duration=_STDDEV_DURATION[difficulty],
        camera="front_close" if reach else _suite_camera(domain),
        episode_frames=250 if reach else 1000,
        traits=tuple(traits.split(", ")),
        state_dim=state_dim,
        action_dim=action_dim,
        deviations=_deviations(name),
    )


def _suite_camera(domain: str) -> int:
    """Official code of DrQ-v2, DrQ and Dreamer-v2: 2 for quadruped, where 0 sees little of the body."""
    return 2 if domain == "quadruped" else 0


def _other_suite_task(name: str) -> Task:
    domain, task = _suite_names(name)
    return Task(name=name, source="suite", domain=domain, task=task, camera=_suite_camera(domain))


PAPER_TASKS: tuple[Task, ...] = tuple(_paper_task(*row) for row in _TABLE_1)
"""The 24 tasks of the paper's Table 1, in its order."""

OTHER_TASKS: tuple[Task, ...] = (
    *(_other_suite_task(name) for name in _OTHER_SUITE_TASKS),
    Task(
        name="toy_reach",
        source="toy",
        domain="toy",
        task="reach",
        train_frames=20_000,
        stddev_duration=2_000,
        episode_frames=50,
        traits=("reach", "dense"),
        action_dim=2,
    ),
)
"""Every other task that has a name: the rest of dm_control's suite, with the medium settings, and the toy."""

_BY_NAME = {task.name: task for task in (*PAPER_TASKS, *OTHER_TASKS)}


def find_task(name: str) -> Task:
    """Look a task up by its name.

    Args:
        name: a name in `PAPER_TASKS` or `OTHER_TASKS`, or "module:factory" for a user's own world, where
            `factory(image_size=..., action_repeat=...)` in importable `module` returns a `World`.

    Raises:
        ValueError: nothing has this name; the message holds the nearest one.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    module, colon, factory = name.partition(":")
    if colon and module and factory:
        return Task(name=name, source="factory", domain=module, task=factory, episode_frames=None)
    module = name.removesuffix(".py")
    if module.isidentifier() and Path(f"{module}.py").is_file():
        raise ValueError(
            f"unknown task {name!r}; a function of {module}.py that builds a world is written {module}:FUNCTION, "
            f"such as {module}:make_world"
        )
    nearest = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"unknown task {name!r}; the nearest name is {nearest!r}. `pixelcontrol tasks` lists all; "
        f"a world of your own is written 'module:factory'"
    )


def parse_tasks(words: Iterable[str]) -> list[str]:
    """Return tasks by name; "easy", "medium", "hard" and "all" stand for the paper's (Table 1).

    Raises:
        ValueError: no task has this name; the message holds the nearest one.
    """
    tasks: dict[str, None] = {}
    for word in words:
        group = [task.name for task in PAPER_TASKS if word in ("all", task.difficulty)]
        tasks.update(dict.fromkeys(group or [find_task(word).name]))
    return list(tasks)
