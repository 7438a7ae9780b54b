"""Figures that others published, cited row by row: what our runs are drawn and tabled against.

`published.csv` holds one row per agent, task and frame. The DrQ-v2 rows are means over the seeds of the
curves that its authors ship with their code; the DrQ and Dreamer-v2 rows come from those projects' own score
files, under their own protocols, which the `source` column names. Nothing in it was read off a picture.

Three things to know when comparing:

- Not every task has ten seeds: five have 8, three have 9 (`seeds`).
- The curves are sampled every 20k frames (humanoid: 100k), so there are rows at 240k and 980k, none at 250k.
- The hours of the humanoid curves are frames / 96 / 3600, computed and not measured; they have no speed here.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pixelcontrol.envs.tasks import PAPER_TASKS

PAPER_FRAMES_PER_SECOND = {"drqv2": 96.0, "drq": 28.0, "curl": 16.0, "dreamerv2": 24.0}
"""Training speed on one V100 (DrQ-v2 paper, section 4.2); the paper gives none for SAC."""


@dataclass(frozen=True)
class Published:
    """The return that others report for one agent on one task after `frame` frames.

    Attributes:
        agent: what our runs with the same settings are filed under: "drqv2", "drq-author" or "dreamerv2".
        task: for example "cheetah_run".
        frame: environment frames of training.
        mean: mean over seeds of the evaluation return.
        std: standard deviation over seeds, with n - 1 in the denominator.
        seeds: number of seeds.
        frames_per_second: speed of the same runs, evaluation included, or None where it was not measured.
        source: repository, place and commit.
    """

    agent: str
    task: str
    frame: int
    mean: float
    std: float
    seeds: int
    frames_per_second: float | None
    source: str

    @property
    def hour(self) -> float:
        """When the runs were at that frame, by their speed; NaN where it was not measured."""
        return self.frame / self.frames_per_second / 3600 if self.frames_per_second else float("nan")


@cache
def load_published() -> tuple[Published, ...]:
    """Every cited figure, in the order of the table."""
    with files(__package__).joinpath("published.csv").open("r", encoding="utf-8") as lines:
        return tuple(
            Published(
                agent=row["agent"],
                task=row["task"],
                frame=int(row["frame"]),
                mean=float(row["mean"]),
                std=float(row["std"]),
                seeds=int(row["seeds"]),
                frames_per_second=float(row["frames_per_second"]) if row["frames_per_second"] else None,
                source=row["source"],
            )
            for row in csv.DictReader(lines)
        )


def published_at(agent: str, task: str, frame: int) -> Published | None:
    """The last cited figure of `agent` on `task` at or before `frame`, or None when there is none."""
    rows = [row for row in load_published() if (row.agent, row.task) == (agent, task) and row.frame <= frame]
    return max(rows, key=lambda row: row.frame, default=None)


def max_return(task: str) -> float | None:
    """The highest return of an episode of one of the paper's tasks, where a frame gives at most 1; else None."""
    return next((float(known.episode_frames or 0) for known in PAPER_TASKS if known.name == task), None)
