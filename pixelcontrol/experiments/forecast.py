"""How far each run of a sweep has come, and what is still ahead."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pixelcontrol.experiments.plan import Job, Variant, state
from pixelcontrol.experiments.published import PAPER_FRAMES_PER_SECOND
from pixelcontrol.experiments.runs import short_count
from pixelcontrol.machine import choose_device

QUICK_FRAMES_PER_SECOND = {"drqv2": 263.0, "privileged": 304.0, "sac": 296.0, "drq": 186.0, "dreamerv2": 44.0}
"""Training speed of the preset quick on one CPU core, with evaluations: medians of results/quick."""


def describe(jobs: Sequence[Job], parallel: int | None, device: str) -> str:
    """The plan in words: which runs, how long, how much memory. Starts nothing.

    Args:
        jobs: the runs.
        parallel: how many at a time, or None where Ray decides that, and where they run.
        device: "auto", "cpu" or "cuda", as training takes it.
    """
    states = {job: state(job) for job in jobs}
    left = [job for job in jobs if states[job] != "finished"]
    counted = sorted(Counter(states.values()).items())
    lines = [f"{len(jobs)} runs: " + ", ".join(f"{n} {name}" for name, n in counted)]
    lines += [f"  {job}  {short_count(job.frames)} frames  {states[job]}" for job in jobs]
    if left:
        on_cpu = parallel is not None and choose_device(device).type == "cpu"
        hours = sum(_expected_hours(jobs, left, on_cpu))
        memory = max(job.memory_bytes for job in left) / 1e9
        time_together = memory_together = ""
        if parallel is not None:
            parallel = min(parallel, len(left))
            time_together = f", {hours / parallel:.1f} with {parallel} at a time"
            memory_together = f", {parallel * memory:.1f} GB with {parallel} at a time"
        lines += [
            f"{hours:.1f} device hours{time_together}, at the speed that this sweep has shown or, for agents that "
            f"have not, {'a tenth of ' if on_cpu else ''}the paper's on one V100 (quick: ours on one CPU core)",
            f"{memory:.1f} GB for the largest run{memory_together}",
        ]
    return "\n".join(lines)


def _expected_hours(jobs: Sequence[Job], left: Sequence[Job], on_cpu: bool) -> Iterator[float]:
    """Yield how long each run that is left will take.

    That is by the speed that its variant has shown in this sweep, else by what was measured of its agent: for the
    preset quick one CPU core's, for others that of the paper's GPU, of which a CPU has about a tenth.
    """
    now = {job: progress(job) for job in jobs}
    measured: dict[Variant, list[float]] = {}
    for job in jobs:
        if speed := now[job].frames_per_second:
            measured.setdefault(job.variant, []).append(speed)
    for job in left:
        if job.variant.preset == "quick":
            usual = QUICK_FRAMES_PER_SECOND.get(job.variant.agent, QUICK_FRAMES_PER_SECOND["drqv2"])
        else:
            # The paper gives none for SAC; CURL is SAC with one more step.
            published = PAPER_FRAMES_PER_SECOND.get(job.variant.agent, PAPER_FRAMES_PER_SECOND["curl"])
            usual = published / 10 if on_cpu else published
        speed = fmean(measured.get(job.variant, [usual]))
        yield (job.frames - now[job].frame) / speed / 3600


@dataclass(frozen=True)
class Progress:
    """Where a run stands, by the last whole lines of its tables.

    Attributes:
        frame: environment frames trained.
        episode_return: of the last evaluation; None before one.
        success_rate: of the last evaluation; None where none is told.
        frames_per_second: of training; None before the first update, where it is that of the worlds alone and
            foretells nothing.
    """

    frame: int
    episode_return: float | None
    success_rate: float | None
    frames_per_second: float | None


def progress(job: Job) -> Progress:
    """Read where a run stands."""
    train = last_row(job.directory / "train.csv")
    evaluation = last_row(job.directory / "eval.csv")

    def number(row: Mapping[str, str], name: str) -> float | None:
        return float(row[name]) if row.get(name) else None

    return Progress(
        frame=max(int(train.get("frame", 0)), int(evaluation.get("frame", 0))),
        episode_return=number(evaluation, "episode_return"),
        success_rate=number(evaluation, "success_rate"),
        frames_per_second=number(train, "frames_per_second") if int(train.get("update", 0)) else None,
    )


def last_row(table: Path) -> dict[str, str]:
    """The last whole line of a table that is being written, by column; nothing where there is none yet."""
    if not table.exists():
        return {}
    with table.open("rb") as file:
        names = file.readline().decode().strip().split(",")
        start = file.tell()
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - 8192))
        # the first line may begin in the middle of a letter, and is not looked at
        lines = file.read().decode(errors="ignore").rpartition("\n")[0].splitlines()
    return dict(zip(names, lines[-1].split(","), strict=True)) if lines else {}
