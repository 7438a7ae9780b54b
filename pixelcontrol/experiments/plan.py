"""What a sweep is made of, how far each of its runs has come, and what is still ahead.

A sweep keeps no state but its run directories. Each holds, besides what training writes:

    sweep.json     how the run was started, and whether it finished
    output.log     what it printed, over all of its starts
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pixelcontrol.checkpoint import Checkpoints
from pixelcontrol.config import reserve_bytes, resolve, transitions_kept
from pixelcontrol.envs.tasks import channel_count, find_task
from pixelcontrol.experiments.published import PAPER_FRAMES_PER_SECOND
from pixelcontrol.experiments.runs import agent_name, short_count
from pixelcontrol.machine import choose_device
from pixelcontrol.rundir import read_json
from pixelcontrol.settings import flag, spell

OVERHEAD_BYTES = 1024**3
"""What a run needs beside its images and what its agent works with: libraries, a CUDA context."""

State = Literal["new", "resumable", "finished"]


@dataclass(frozen=True)
class Variant:
    """One of the things that a sweep compares: an agent with its preset and settings of its own.

    Attributes:
        agent: for example "drqv2".
        preset: of the agent, for example "paper".
        settings: for its runs alone, by field name, as `config.resolve` takes them.
    """

    agent: str
    preset: str = "paper"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """As `--agents` takes it: drqv2:quick --n-step 1."""
        name = self.agent if self.preset == "paper" else f"{self.agent}:{self.preset}"
        return shlex.join([name, *_words(self.settings)])

    @property
    def directory_name(self) -> str:
        """What begins the names of its runs' directories: drqv2-quick-n_step=1."""
        name = agent_name({"agent": self.agent, "preset": self.preset})
        own = [f"{name}={spell(self.settings[name])}" for name in sorted(self.settings)]
        return re.sub(r"[^\w.,=-]", "-", "-".join([name, *own]))


def _words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as flags, sorted, so that the same sweep is known again however they were ordered."""
    return [word for name in sorted(settings) for word in (flag(name), spell(settings[name]))]


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        agent: for example "drqv2".
        preset: of the agent, for example "paper".
        variant: what it is a run of, in words (see `Variant`).
        task: for example "cheetah_run".
        seed: the run's own.
        directory: where it is trained.
        frames: environment frames it trains for.
        memory_bytes: that the run takes once its replay is full: images, agent, libraries.
        settings: command-line settings that differ from the preset, for example ("--envs", "4").
    """

    agent: str
    preset: str
    variant: str
    task: str
    seed: int
    directory: Path
    frames: int
    memory_bytes: int
    settings: tuple[str, ...]

    def __str__(self) -> str:
        return self.directory.name

    def command(self) -> list[str]:
        """The arguments of `pixelcontrol train` that start this run anew."""
        return [
            self.task,
            *("--agent", self.agent, "--preset", self.preset, "--seed", str(self.seed)),
            *self.settings,
            *("--out", str(self.directory)),
        ]


def parse_seeds(text: str) -> list[int]:
    """Seeds as people write them: "3", "0-9", "0-4,7".

    Raises:
        ValueError: anything else.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ValueError(f"--seeds {text!r}: expected numbers and rising ranges such as 0-9 or 0-4,7")
        seeds.update(dict.fromkeys(range(int(first), int(last or first) + 1)))
    return list(seeds)


def plan(
    tasks: Sequence[str],
    variants: Sequence[Variant],
    seeds: Sequence[int],
    out: Path,
    overrides: Mapping[str, Any],
) -> list[Job]:
    """The product of tasks, agents and seeds, seeds outermost, so that every comparison is complete early.

    Args:
        tasks: names of tasks.
        variants: of agents; the same one twice is one.
        seeds: one run for each.
        out: directory that holds the run directories.
        overrides: settings for all runs but those of variants that have their own.

    Raises:
        ValueError: an agent, preset, task or setting does not exist or cannot be; nothing has been started.
    """
    for variant in variants:
        if "device" in variant.settings:  # which decides how many runs fit at a time
            raise ValueError(f"--device is for all runs of a sweep: give it apart, not in {str(variant)!r}")
    jobs = []
    for seed, task, variant in product(
        seeds, tasks, {str(variant): variant for variant in variants}.values()
    ):
        settings = {**overrides, **variant.settings}
        config = resolve(task, variant.agent, variant.preset, seed, **settings)
        loop = config.loop
        channels = channel_count(loop.camera or find_task(task).camera, loop.depth)
        jobs.append(
            Job(
                agent=variant.agent,
                preset=variant.preset,
                variant=str(variant),
                task=task,
                seed=seed,
                directory=out / f"{variant.directory_name}_{task.replace(':', '.')}_{seed}",
                frames=loop.frames,
                memory_bytes=transitions_kept(config) * channels * math.prod(loop.height_and_width)
                + reserve_bytes(config)
                + OVERHEAD_BYTES,
                settings=tuple(_words(settings)),
            )
        )
    places = Counter(job.directory for job in jobs)
    if shared := [f"{job.variant!r}" for job in jobs if places[job.directory] > 1]:
        raise ValueError(
            f"{' and '.join(shared[:2])} would train in one directory; name other files or agents"
        )
    return jobs


def state(job: Job) -> State:
    """How far a run has come, by what lies in its directory.

    Raises:
        ValueError: the directory was not made by a sweep, or by one with other settings.
    """
    note = job.directory / "sweep.json"
    if not job.directory.exists() or {path.name for path in job.directory.iterdir()} <= {"sweep.json.tmp"}:
        return "new"
    if not note.exists():
        raise ValueError(f"{job.directory} was not made by a sweep; choose another --out or move it away")
    stored = read_json(note)
    if stored["command"][:-1] != job.command()[:-1]:  # but for where it lies: it may be moved
        old, new = (
            {f"{name} {value}" for name, value in zip(command[1:-2:2], command[2:-2:2], strict=True)}
            for command in (stored["command"], job.command())
        )
        was, now = (
            f"with {' '.join(sorted(some))}" if some else "without" for some in (old - new, new - old)
        )
        raise ValueError(
            f"{job.directory} was started {was}, and now {now}; give the same, or choose another --out"
        )
    if stored["finished"]:
        return "finished"
    return "resumable" if Checkpoints(job.directory).exist() else "new"


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
            f"have not run, {'a tenth of ' if on_cpu else ''}the paper's on one V100 (the preset quick: more)",
            f"{memory:.1f} GB for the largest run{memory_together}",
        ]
    return "\n".join(lines)


def _expected_hours(jobs: Sequence[Job], left: Sequence[Job], on_cpu: bool) -> Iterator[float]:
    """Yield how long each run that is left will take, by what those of its agent and preset have shown."""
    now = {job: progress(job) for job in jobs}
    measured: dict[str, list[float]] = {}
    for job in jobs:
        if speed := now[job]["frames_per_second"]:
            measured.setdefault(job.variant, []).append(speed)
    for job in left:
        # The paper gives none for SAC; CURL is SAC with one more step.
        published = PAPER_FRAMES_PER_SECOND.get(job.agent, PAPER_FRAMES_PER_SECOND["curl"])
        usual = published / 10 if on_cpu and job.preset != "quick" else published
        speed = fmean(measured.get(job.variant, [usual]))
        yield (job.frames - now[job]["frame"]) / speed / 3600


def progress(job: Job) -> dict[str, float]:
    """Where a run stands, by the last whole lines of its tables: frame, last evaluation, frames/s.

    The rate of success is NaN where none is told.
    """
    train = last_row(job.directory / "train.csv")
    evaluation = last_row(job.directory / "eval.csv")
    return {
        "frame": max(int(train.get("frame", 0)), int(evaluation.get("frame", 0))),
        "episode_return": float(evaluation.get("episode_return", "nan")),
        "success_rate": float(evaluation.get("success_rate") or "nan"),
        # before the first update the speed is that of the worlds alone, and foretells nothing
        "frames_per_second": float(train["frames_per_second"]) if int(train.get("update", 0)) else 0.0,
    }


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
