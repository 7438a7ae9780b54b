"""What a sweep is made of, and which of its runs are begun or finished.

A sweep keeps no state but its run directories. Each holds, besides what training writes:

    sweep.json     how the run was started, and whether it finished
    output.log     what it printed, over all of its starts
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pixelcontrol.checkpoint import Checkpoints
from pixelcontrol.config import changed_settings, reserve_bytes, resolve, transitions_kept
from pixelcontrol.envs.tasks import channel_count, find_task
from pixelcontrol.experiments.runs import full_name
from pixelcontrol.rundir import read_json
from pixelcontrol.settings import flag, spell

OVERHEAD_BYTES = 1024**3
"""What a run needs beside its images and what its agent works with: libraries, a CUDA context."""

LONGEST_NAME_BYTES = 255
"""Of a directory, on the file systems there are."""

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
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """As `--agents` takes it: drqv2:quick --n-step=1."""
        name = self.agent if self.preset == "paper" else f"{self.agent}:{self.preset}"
        return shlex.join([name, *_words(self.settings)])

    @property
    def directory_name(self) -> str:
        """What begins the names of its runs' directories: drqv2-quick-n_step=1."""
        name = full_name(self.agent, self.preset, {})
        own = [f"{name}={spell(self.settings[name])}" for name in sorted(self.settings)]
        return re.sub(r"[^\w.,=-]", "-", "-".join([name, *own]))


def _words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as flags, sorted, so that the same sweep is known again however they were ordered."""
    return [f"{flag(name)}={spell(settings[name])}" for name in sorted(settings)]


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        variant: what it is a run of.
        task: for example "cheetah_run".
        seed: the run's own.
        settings: all that were chosen for it, the sweep's and the variant's, by field name.
        directory: where it is trained.
        frames: environment frames it trains for.
        memory_bytes: that the run takes once its replay is full: images, agent, libraries.
    """

    variant: Variant
    task: str
    seed: int
    settings: Mapping[str, Any] = field(hash=False)
    directory: Path
    frames: int
    memory_bytes: int

    def __str__(self) -> str:
        return self.directory.name

    def words(self) -> list[str]:
        """What it is, as `pixelcontrol train` takes it: all but where it lies, since it may be moved."""
        return [
            self.task,
            *(f"--agent={self.variant.agent}", f"--preset={self.variant.preset}", f"--seed={self.seed}"),
            *_words(self.settings),
        ]

    def command(self) -> list[str]:
        """The arguments of `pixelcontrol train` that start this run anew."""
        return [*self.words(), f"--out={self.directory}"]


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
        tasks: names of tasks, each once.
        variants: of agents, each once.
        seeds: one run for each.
        out: directory that holds the run directories.
        overrides: settings for all runs but those of variants that have their own.

    Raises:
        ValueError: an agent, preset, task or setting does not exist or cannot be, or two variants would be one
            agent in every figure; nothing has been started.
    """
    for variant in variants:
        if "device" in variant.settings:  # which decides how many runs fit at a time
            raise ValueError(f"--device is for all runs of a sweep: give it apart, not in {str(variant)!r}")
    jobs = []
    called: dict[tuple[str, str], Variant] = {}
    for seed, task, variant in product(seeds, tasks, variants):
        settings = {**overrides, **variant.settings}
        config = resolve(task, variant.agent, variant.preset, seed, **settings)
        name = full_name(variant.agent, variant.preset, changed_settings(config))
        if (other := called.setdefault((name, task), variant)) is not variant:
            raise ValueError(
                f"--agents {str(other)!r} and {str(variant)!r} would be one in figures, {name!r}: they are the "
                "same, or differ in nothing that changes learning, or only in the files they start from; leave "
                "one out, or sweep them into two directories (an agent's own settings stand in quotes with it)"
            )
        loop = config.loop
        channels = channel_count(loop.camera or find_task(task).camera, loop.depth)
        directory = out / f"{variant.directory_name}_{task.replace(':', '.')}_{seed}"
        if len(directory.name.encode()) > LONGEST_NAME_BYTES:
            raise ValueError(
                f"the run directory would be called {directory.name}, longer than {LONGEST_NAME_BYTES} bytes; "
                "make what all agents have in common settings of the sweep, outside the quotes"
            )
        jobs.append(
            Job(
                variant=variant,
                task=task,
                seed=seed,
                settings=settings,
                directory=directory,
                frames=loop.frames,
                memory_bytes=transitions_kept(config) * channels * math.prod(loop.height_and_width)
                + reserve_bytes(config)
                + OVERHEAD_BYTES,
            )
        )
    places = Counter(job.directory for job in jobs)
    if shared := [repr(str(job.variant)) for job in jobs if places[job.directory] > 1]:
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
    if stored.keys() != {"words", "finished"}:
        raise ValueError(f"{note} is none that this version wrote; choose another --out or move it away")
    if stored["words"] != job.words():
        was, now = (
            f"with {' '.join(sorted(some))}" if some else "without"
            for some in (set(stored["words"]) - set(job.words()), set(job.words()) - set(stored["words"]))
        )
        raise ValueError(
            f"{job.directory} was started {was}, and now {now}; give the same, or choose another --out"
        )
    if stored["finished"]:
        return "finished"
    return "resumable" if Checkpoints(job.directory).exist() else "new"
