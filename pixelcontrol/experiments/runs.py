"""Reads what training left behind, and finds what must be said before it is averaged.

A run is one agent, one task, one seed. Its evaluations are rows of a CSV file: `eval.csv` in its run directory,
or a tidy table that holds the rows of many runs, as `results/` does. Both are read the same way, because every
row names its run. `notices` then lists what a reader of any average over these runs has to know.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from pixelcontrol.config import stored_changes
from pixelcontrol.experiments.statistics import FEWEST_SEEDS
from pixelcontrol.rundir import read_json
from pixelcontrol.settings import spell

IDENTITY = ("agent", "task", "seed")
POSITION = ("frame", "agent_step", "update", "hour")
EVAL_COLUMNS = (
    *IDENTITY,
    *POSITION,
    *("episode_return", "episode_return_std", "episodes"),
    *("preset", "renderer", "precision", "envs", "commit"),
)
"""The columns of every table of evaluations, here and in `results/`. `frame` counts environment frames, `hour`
is hours of training so far, `episode_return` is the mean over the evaluation's `episodes`."""

_NUMBERS = {"seed": int, "frame": int, "hour": float, "episode_return": float}

CONDITIONS = ("renderer", "precision", "envs", "commit")
"""What runs that are averaged or compared should have in common."""

PATHS = {"start_from", "demonstrations"}
"""Settings that are a place on a disk, of which only that there is one is part of an agent's name."""


@dataclass(frozen=True)
class Run:
    """The evaluations of one agent on one task from one seed.

    Attributes:
        agent: for example "drqv2", with another preset than the paper's "drqv2-quick", and with a setting of its
            own "drqv2-quick n_step=1": what learns otherwise is another agent, and never averaged with the first.
            A run is called the same whatever others are read beside it.
        task: for example "cheetah_run".
        seed: the run's own.
        frame: (evaluations,) int64, strictly rising.
        hour: (evaluations,) float64, hours of training.
        episode_return: (evaluations,) float64, mean over the evaluation's episodes.
        success_rate: (evaluations,) float64, share of those episodes in which the task was achieved; None where
            not every evaluation tells.
        conditions: for each name of `CONDITIONS`, the value the run had; several, joined with "+", if it was
            resumed under others.
        path: the CSV file it was read from.
    """

    agent: str
    task: str
    seed: int
    frame: np.ndarray
    hour: np.ndarray
    episode_return: np.ndarray
    success_rate: np.ndarray | None
    conditions: dict[str, str]
    path: Path

    @property
    def config(self) -> dict[str, Any] | None:
        """The `config.json` beside the CSV file, or None when the run's directory is not at hand."""
        return _config_beside(self.path)

    def __str__(self) -> str:
        return f"{self.agent} on {self.task}, seed {self.seed}"


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that a run writes, one dict per row.

    A last line that does not end in a newline was cut by a kill: it is left out, with a warning.

    Raises:
        ValueError: a line inside the file has too few or too many fields, or the file is no UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # as spreadsheets save it
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); save it anew as that") from error
    whole, _, partial = text.rpartition("\n")
    if partial:
        warnings.warn(f"{path}: left out the partial last line {partial[:40]!r}", stacklevel=2)
    reader = csv.DictReader(io.StringIO(whole))
    rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(
                f"{path}, line {number}: expected {len(reader.fieldnames or ())} fields as in the header; "
                "repair or remove the line"
            )
    return rows


def read_runs(paths: Iterable[Path | str]) -> list[Run]:
    """Read every run found at `paths`, sorted by agent, task and seed.

    Args:
        paths: run directories, directories that hold some at any depth, or CSV files with `EVAL_COLUMNS`.

    Raises:
        ValueError: nothing at a path holds evaluations, or only tables without one; a broken line, or frames that
            do not rise.

    Warns:
        UserWarning: a seed comes twice; the longer run is taken, since a copy is no second seed. Or a run has just
            begun: it is left out where others have got further, whose means it would cut short at frame 0.
    """
    files = {file.resolve(): file for path in paths for file in _eval_files(Path(path))}
    runs = [run for file in files.values() for run in _runs_in(file)]
    if not runs:
        raise ValueError(
            f"{', '.join(map(str, files.values()))}: no evaluation yet; train on, or with --eval-episodes above 0 "
            "(returns in training are in train.csv and curve.png)"
        )
    longest: dict[tuple[str, str, int], Run] = {}
    for run in sorted(runs, key=_order):
        taken = longest.setdefault(_identity(run), run)
        if taken is not run:
            warnings.warn(
                f"{run} comes twice: {taken.path} is read, and {run.path}, which has no more frames, is left out",
                stacklevel=2,
            )
    learned = [run for run in longest.values() if run.frame[-1] > 0]
    for run in longest.values():
        if learned and run.frame[-1] == 0:
            warnings.warn(f"{run} has only just begun, and is left out: {run.path}", stacklevel=2)
    return learned or list(longest.values())


def notices(runs: Sequence[Run]) -> list[str]:
    """What must be said beside any average or comparison of `runs`, one sentence each, worst first."""
    said = []
    if knowing := sorted({run.agent for run in runs if re.match(r"privileged\b(?!:)", run.agent)}):
        said.append(f"Trained with the simulator's state, not from images alone: {', '.join(knowing)}.")
    if sensing := sorted({run.agent for run in runs if re.search(r"\bproprio\b", run.agent)}):
        said.append(f"With proprioception beside images: {', '.join(sensing)}.")
    seeds = Counter((run.agent, run.task) for run in runs)
    if set(seeds.values()) == {1} and len(seeds) > 1:
        said.append("One seed each.")
    elif few := [f"{agent} on {task} ({n})" for (agent, task), n in seeds.items() if n < FEWEST_SEEDS]:
        said.append(f"Fewer than three seeds: {_some(few)}.")
    last = {task: [int(run.frame[-1]) for run in runs if run.task == task] for _, task in seeds}
    if uneven := [
        f"{task} ({short_count(min(ends))} to {short_count(max(ends))})"
        for task, ends in last.items()
        if min(ends) < 0.99 * max(ends)
    ]:
        said.append(f"Unequal frame counts, each mean ends with its shortest run: {_some(uneven)}.")
    for name in CONDITIONS:
        values = Counter(run.conditions[name] for run in runs)
        if len(values) > 1:
            mixed = [f"{value or 'not recorded'} ({n} runs)" for value, n in values.most_common()]
            said.append(f"Mixed {name}: {_some(mixed)}.")
    return said


def short_count(number: int | float) -> str:
    """A count as people say it: 950, 20k, 1.5M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{float(f'{number / size:.3g}'):g}{suffix}"
    return f"{number:.3g}"


def _some(items: list[str]) -> str:
    """The items as one phrase, cut after six of them."""
    return ", ".join(items[:6]) + (f" and {len(items) - 6} more" if len(items) > 6 else "")


def full_name(agent: str, preset: str, changed: Mapping[str, Any]) -> str:
    """What an agent is called: with another preset than the paper's by that too, and by settings that are not its.

    Args:
        agent: for example "drqv2".
        preset: of the agent; "" where it is not known.
        changed: as `config.changed_settings` finds them.
    """
    name = agent if preset in ("", "paper") else f"{agent}-{preset}"
    # every seed may begin with networks, or demonstrations, of its own
    own = [key if key in PATHS else f"{key}={spell(value)}" for key, value in changed.items()]
    return " ".join([name, *own])


def _identity(run: Run) -> tuple[str, str, int]:
    return run.agent, run.task, run.seed


def _order(run: Run) -> tuple[Any, ...]:
    """By which runs are sorted: numbers in names by size, so that n_step=5 comes before n_step=10."""
    parts = re.split(r"(\d+)", run.agent)
    return [int(part) if part.isdigit() else part for part in parts], run.task, run.seed, -run.frame[-1]


def _eval_files(path: Path) -> list[Path]:
    """The CSV files with evaluations at or beneath `path`."""
    candidates = sorted(path.rglob("*.csv")) if path.is_dir() else [path] if path.exists() else []
    found = [file for file in candidates if _has_evaluations(file)]
    if not found:
        raise ValueError(
            f"{path} holds no evaluations: expected a run directory, a directory of run directories, or a CSV "
            f"file with the columns {', '.join(EVAL_COLUMNS)}"
        )
    return found


def _config_beside(file: Path) -> dict[str, Any] | None:
    path = file.parent / "config.json"
    return read_json(path) if path.exists() else None


def _has_evaluations(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        return set(EVAL_COLUMNS) <= set(lines.readline().strip().split(","))


def _runs_in(file: Path) -> Iterator[Run]:
    rows = read_table(file)
    if not rows:
        warnings.warn(f"{file}: no evaluation yet", stacklevel=2)

    changed = stored_changes(_config_beside(file) or {})

    def identity(row: dict[str, str]) -> tuple[str, str, int]:
        name = full_name(row["agent"], row.get("preset", ""), changed)
        return name, row["task"], int(row["seed"])

    for number, row in enumerate(rows, start=2):
        for name, kind in _NUMBERS.items():
            try:
                kind(row[name])
            except ValueError as error:
                raise ValueError(
                    f"{file}, line {number}: {name} is {row[name]!r}; expected "
                    f"{'a whole number' if kind is int else 'a number (nan where it is not known)'}"
                ) from error
    for (agent, task, seed), group in groupby(sorted(rows, key=identity), key=identity):
        mine = list(group)
        rates = [row.get("success_rate", "") for row in mine]
        run = Run(
            agent=agent,
            task=task,
            seed=seed,
            frame=np.array([int(row["frame"]) for row in mine]),
            hour=np.array([float(row["hour"]) for row in mine]),
            episode_return=np.array([float(row["episode_return"]) for row in mine]),
            success_rate=np.array([float(rate) for rate in rates]) if all(rates) else None,
            conditions={name: "+".join(dict.fromkeys(row[name] for row in mine)) for name in CONDITIONS},
            path=file,
        )
        if (np.diff(run.frame) <= 0).any():
            raise ValueError(
                f"{file}: the frames of {run} do not rise; a resume must cut the table back to its checkpoint"
            )
        yield run
