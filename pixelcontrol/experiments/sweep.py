"""Runs the product of tasks, agents and seeds, each run as a process of its own, until all of them are finished.

It can be killed at any moment and started again with the same words: a finished run is skipped, a run with a
checkpoint is resumed, a run that died before its first checkpoint starts over. There is no scheduler here: Ray has
one, and on SLURM the sweep of one array task is a sweep of a few runs (docs/sweeps.md).
"""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table

from pixelcontrol.envs.tasks import parse_tasks
from pixelcontrol.errors import Interrupted, heeded_signals
from pixelcontrol.experiments.forecast import describe, progress
from pixelcontrol.experiments.places import RayCluster, ThisMachine, choose_parallel, refuse_too_many
from pixelcontrol.experiments.plan import Job, Variant, parse_seeds, plan, state
from pixelcontrol.experiments.runs import short_count
from pixelcontrol.logger import clock
from pixelcontrol.rundir import RunBusy, RunLock, write_json

TRAIN = (sys.executable, "-m", "pixelcontrol", "train")
"""The program that each run is: `pixelcontrol train` of this very installation."""

# How `pixelcontrol train` ends when its arguments make no sense.
_MISTAKE = 2


def sweep(
    tasks: Sequence[str],
    variants: Sequence[Variant],
    seeds: str,
    out: Path,
    overrides: Mapping[str, Any],
    *,
    parallel: int = 0,
    ray: str | None = None,
    cpus_per_run: float = 2.0,
    gpus_per_run: float = 0.0,
    dry_run: bool = False,
) -> int:
    """What `pixelcontrol sweep` does.

    Args:
        tasks: names, "easy", "medium", "hard" or "all".
        variants: of agents.
        seeds: such as "0-9".
        out: directory that holds the run directories.
        overrides: settings for all runs, by field name (see `plan`).
        parallel: runs at a time on this machine; 0 takes what fits (see `choose_parallel`).
        ray: address of a Ray cluster, or "local" for one on this machine; None uses no Ray.
        cpus_per_run: cores that Ray keeps for a run.
        gpus_per_run: GPUs, or the share of one, that Ray keeps for a run.
        dry_run: print the plan and start nothing.

    Returns:
        The exit status: 0, or 1 when some run failed for good.

    Raises:
        ValueError: something named does not exist, a run directory is not this sweep's, or so many runs at a
            time do not fit into memory.
        Interrupted: a signal came.
    """
    if ray:  # its workers have a folder of their own
        out = out.absolute()
    jobs = plan(parse_tasks(tasks), variants, parse_seeds(seeds), out, overrides)
    device = str(overrides.get("device", "auto"))
    if not ray:  # whose machines are others than this
        parallel = parallel or choose_parallel(jobs, device)
    print(describe(jobs, None if ray else parallel, device))
    if dry_run:
        return 0
    if ray:
        failed = run_all(jobs, RayCluster(ray, cpus_per_run, gpus_per_run))
    else:
        refuse_too_many(jobs, parallel, device)
        failed = run_all(jobs, ThisMachine(parallel))
    for job in jobs:
        now = progress(job)
        reached = "no evaluation" if now.episode_return is None else f"return {now.episode_return:.1f}"
        achieved = "" if now.success_rate is None else f", success in {now.success_rate:.0%}"
        ended = f", failed: see {job.directory}/output.log" if job in failed else ""
        print(f"  {job}  {reached}{achieved} at frame {now.frame:,}{ended}")
    print(
        f"figures: pixelcontrol plot {shlex.quote(str(out))}; a page: pixelcontrol report {shlex.quote(str(out))}"
    )
    return 1 if failed else 0


def run_command(job: Job, program: Sequence[str]) -> list[str]:
    """Prepare the run's directory for its next start, and say which command that is.

    Raises:
        ValueError: the run is finished, and would be lost.
    """
    found = state(job)
    if found == "finished":
        raise ValueError(f"{job.directory} is finished")
    if found == "resumable":
        return [*program, "--resume", str(job.directory)]
    job.directory.mkdir(parents=True, exist_ok=True)
    # the note stays until it is replaced, so that a directory is the sweep's own at any moment
    for leftover in list(job.directory.iterdir()):
        if leftover.name not in ("output.log", "sweep.json"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    _note(job, finished=False)
    return [*program, *job.command()]


def _note(job: Job, *, finished: bool) -> None:
    write_json(job.directory / "sweep.json", {"words": job.words(), "finished": finished})


def run_all(
    jobs: Sequence[Job],
    place: ThisMachine | RayCluster,
    *,
    restarts: int = 3,
    program: Sequence[str] = TRAIN,
    poll_seconds: float = 1.0,
) -> list[Job]:
    """Run every job that is not finished yet, showing one live table.

    Args:
        jobs: from `plan`.
        place: `ThisMachine` or `RayCluster`.
        restarts: how often a run that crashed is started again. A mistake in its arguments (exit status 2) is
            not a crash.
        program: what is called with the arguments of `pixelcontrol train`.
        poll_seconds: time between looks at the runs.

    Returns:
        The runs that failed for good.

    Raises:
        ValueError: a run directory is not this sweep's; nothing has been started.
        Interrupted: a signal came.
    """
    waiting = [job for job in jobs if state(job) != "finished"]
    running: dict[Job, Any] = {}
    starts: Counter[Job] = Counter()
    failed: list[Job] = []
    received: list[int] = []

    def note_signal(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one ends the sweep at once, and its runs with it

    previous = {number: signal.signal(number, note_signal) for number in heeded_signals()}
    try:
        with Live(refresh_per_second=2) as live:
            while (waiting or running) and not received:
                for job in list(waiting):
                    if len(running) >= place.capacity or _busy(job):
                        continue
                    waiting.remove(job)
                    if state(job) != "finished":  # as by a second sweep of the same words, meanwhile
                        starts[job] += 1
                        running[job] = place.start(job, run_command(job, program))
                for job, handle in list(running.items()):
                    status = place.exit_status(handle)
                    if status is None:
                        continue
                    del running[job]
                    if status == 0:
                        _note(job, finished=True)
                    elif status != _MISTAKE and starts[job] <= restarts:
                        live.console.print(f"{job} ended with status {status}; starting it again")
                        waiting.append(job)
                    else:
                        live.console.print(
                            f"{job} failed with status {status}; see {job.directory}/output.log"
                        )
                        failed.append(job)
                done = len(jobs) - len(waiting) - len(running) - len(failed)
                counts = f"{done} of {len(jobs)} runs finished, {len(waiting)} waiting, {len(failed)} failed"
                live.update(Group(_table(running, starts), counts))
                time.sleep(poll_seconds)
        if not live.console.is_terminal:
            print()  # the table's last form ends without one
    finally:
        place.stop(list(running.values()))
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise Interrupted(received[0], "start the same sweep again to go on")
    return failed


def _busy(job: Job) -> bool:
    """Whether a process still trains there, as after the sweep before this one was killed."""
    if not (job.directory / "sweep.json").exists():
        return False
    try:
        with RunLock(job.directory, patience_seconds=0.0):
            return False
    except RunBusy:
        return True


def _table(running: Iterable[Job], starts: Mapping[Job, int]) -> Table:
    """One line for every run that has begun to train."""
    table = Table(box=None, header_style="dim")
    for name in ("task", "agent", "seed", "frame", "return", "frames/s", "time left", "starts"):
        table.add_column(name, justify="left" if name in ("task", "agent") else "right")
    for job in running:
        if not (job.directory / "config.json").exists():
            continue
        now = progress(job)
        speed = now.frames_per_second
        table.add_row(
            job.task,
            str(job.variant),
            str(job.seed),
            f"{short_count(now.frame)} of {short_count(job.frames)}",
            "" if now.episode_return is None else f"{now.episode_return:.0f}",
            f"{speed:.0f}" if speed else "",
            clock((job.frames - now.frame) / speed) if speed else "",
            str(starts[job]),
        )
    return table
