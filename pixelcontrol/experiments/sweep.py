"""Runs the product of tasks, agents and seeds, each run as a process of its own, until all of them are finished.

A sweep keeps no state but its run directories, so it can be killed at any moment and started again with the
same words. Each run directory holds, besides what training writes:

    sweep.json     how the run was started, and whether it finished
    output.log     what it printed, over all of its starts

A finished run is skipped, a run with a checkpoint is resumed, a run that died before its first checkpoint starts
over. Runs go onto this machine, so many at a time, or to a Ray cluster, one task each. There is no scheduler
here: Ray's decides, and on SLURM the sweep of one array task is a sweep of a few runs (docs/sweeps.md).
"""

from __future__ import annotations

import ctypes
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any, Literal

import torch
from rich.console import Group
from rich.live import Live
from rich.table import Table

from pixelcontrol.checkpoint import Checkpoints
from pixelcontrol.config import reserve_bytes, resolve, split_agent, transitions_kept
from pixelcontrol.envs.tasks import channel_count, find_task, parse_tasks
from pixelcontrol.errors import SWEEP_STOPS, Interrupted, heeded_signals
from pixelcontrol.experiments.published import PAPER_FRAMES_PER_SECOND
from pixelcontrol.experiments.runs import agent_name, short_count
from pixelcontrol.logger import clock
from pixelcontrol.machine import choose_device, usable_cores
from pixelcontrol.rundir import RunBusy, RunLock, read_json, write_json
from pixelcontrol.settings import flag, spell
from pixelcontrol.storage import available_ram_bytes

TRAIN = (sys.executable, "-m", "pixelcontrol", "train")
"""The program that each run is: `pixelcontrol train` of this very installation."""

OVERHEAD_BYTES = 1024**3
"""What a run needs beside its images and what its agent works with: libraries, a CUDA context."""

# How `pixelcontrol train` ends when its arguments make no sense.
_MISTAKE = 2

State = Literal["new", "resumable", "finished"]


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        agent: for example "drqv2".
        preset: of the agent, for example "paper".
        task: for example "cheetah_run".
        seed: the run's own.
        directory: where it is trained.
        frames: environment frames it trains for.
        memory_bytes: that the run takes once its replay is full: images, agent, libraries.
        settings: command-line settings that differ from the preset, for example ("--envs", "4").
    """

    agent: str
    preset: str
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


# ---- the plan ----


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
    tasks: Sequence[str], agents: Sequence[str], seeds: Sequence[int], out: Path, overrides: Mapping[str, Any]
) -> list[Job]:
    """The product of tasks, agents and seeds, seeds outermost, so that every comparison is complete early.

    Args:
        tasks: names of tasks.
        agents: names of agents, each alone or with a preset: "drqv2", "drqv2:ablation-a".
        seeds: one run for each.
        out: directory that holds the run directories.
        overrides: settings for all runs, by field name, as `config.resolve` takes them.

    Raises:
        ValueError: an agent, preset, task or setting does not exist or cannot be; nothing has been started.
    """
    # sorted, so that the same sweep is known again however its settings were ordered
    settings = tuple(word for name in sorted(overrides) for word in (flag(name), spell(overrides[name])))
    chosen = dict.fromkeys(split_agent(word) for word in agents)  # "drqv2" and "drqv2:paper" are one
    jobs = []
    for seed, task, (agent, preset) in product(seeds, tasks, chosen):
        word = agent_name({"agent": agent, "preset": preset})
        config = resolve(task, agent, preset, seed, **overrides)
        loop = config.loop
        channels = channel_count(loop.camera or find_task(task).camera, loop.depth)
        jobs.append(
            Job(
                agent=agent,
                preset=preset,
                task=task,
                seed=seed,
                directory=out / f"{word.replace(':', '-')}_{task.replace(':', '.')}_{seed}",
                frames=loop.frames,
                memory_bytes=transitions_kept(config) * channels * math.prod(loop.height_and_width)
                + reserve_bytes(config)
                + OVERHEAD_BYTES,
                settings=settings,
            )
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


def choose_parallel(jobs: Sequence[Job], device: str) -> int:
    """How many runs to train at a time: as many as fit into the memory of the device, at most one per core.

    Args:
        jobs: all of the sweep, finished ones too: a run that goes on keeps its number of threads, and so its bits.
            The largest decides.
        device: "auto", "cpu" or "cuda", as training takes it.
    """
    memory = _free_gpu_bytes(device) or available_ram_bytes()
    return max(1, min(usable_cores(), len(jobs), int(0.9 * memory) // max(job.memory_bytes for job in jobs)))


def _free_gpu_bytes(device: str) -> int:
    return torch.cuda.mem_get_info()[0] if choose_device(device).type == "cuda" else 0


def _refuse_too_many(jobs: Sequence[Job], parallel: int, device: str) -> None:
    """Refuse runs that fit into memory one by one, and not together: each would find all of it free."""
    free = int(0.9 * (_free_gpu_bytes(device) + available_ram_bytes()))
    sizes = sorted((job.memory_bytes for job in jobs if state(job) != "finished"), reverse=True)
    if (needed := sum([size for size in sizes if size <= free][:parallel])) > free:
        raise ValueError(
            f"{parallel} runs at a time take up to {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; lower "
            "--replay-capacity, or sweep with fewer --jobs (0 takes what fits)"
        )


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
    measured: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        if speed := now[job]["frames_per_second"]:
            measured.setdefault((job.agent, job.preset), []).append(speed)
    for job in left:
        # The paper gives none for SAC; CURL is SAC with one more step.
        published = PAPER_FRAMES_PER_SECOND.get(job.agent, PAPER_FRAMES_PER_SECOND["curl"])
        usual = published / 10 if on_cpu and job.preset != "quick" else published
        speed = fmean(measured.get((job.agent, job.preset), [usual]))
        yield (job.frames - now[job]["frame"]) / speed / 3600


# ---- one run ----


def run_command(job: Job, program: Sequence[str]) -> list[str]:
    """Prepare the run's directory for its next start, and say which command that is."""
    found = state(job)
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
    write_json(job.directory / "sweep.json", {"command": job.command(), "finished": finished})


def start_process(command: Sequence[str], log: Path, threads: int) -> subprocess.Popen[bytes]:
    """Start a run that ends, with a checkpoint, when the process that started it ends.

    Args:
        command: the program and its arguments.
        log: file that takes what it prints, after what is there.
        threads: CPU threads for its arithmetic.
    """
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            # Ctrl-C must reach a run once, from us: twice means "at once, without saving".
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


# loaded here, since between fork and exec of a process with threads no library may be
LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    LIBC.prctl(pr_set_pdeathsig, SWEEP_STOPS)


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


# ---- where runs run ----


class ThisMachine:
    """`capacity` runs at a time, as child processes that share the cores."""

    def __init__(self, capacity: int) -> None:
        self.capacity: float = capacity
        self.threads = max(1, usable_cores() // capacity)

    def start(self, job: Job, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a process."""
        return start_process(command, job.directory / "output.log", self.threads)

    def exit_status(self, handle: subprocess.Popen[bytes]) -> int | None:
        """The process's; a signal is a negative number."""
        return handle.poll()

    def stop(self, handles: Sequence[subprocess.Popen[bytes]]) -> None:
        """Let the runs save and end."""
        for handle in handles:
            handle.send_signal(SWEEP_STOPS)
        for handle in handles:
            handle.wait()


class RayCluster:
    """One Ray task per run, with its cores and its share of a GPU stated; Ray decides when and where it runs.

    The run directories must lie on storage that all machines of the cluster share.
    """

    def __init__(self, address: str, cpus: float, gpus: float) -> None:
        """Connect.

        Args:
            address: of a running cluster, or "local" for one on this machine that ends with the sweep.
            cpus: cores per run.
            gpus: GPUs per run; 0.25 packs four runs onto one.

        Raises:
            ValueError: Ray is not installed.
        """
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ValueError(
                "--ray needs Ray; install it with: pip install -c constraints.txt -e '.[ray]'"
            ) from error
        ray.init(
            address=None if address == "local" else address, log_to_driver=False, include_dashboard=False
        )
        self.ray = ray
        self.capacity = math.inf
        self.task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_run_to_its_end)
        self.threads = max(1, int(cpus))

    def start(self, job: Job, command: Sequence[str]) -> Any:
        """Hand the run to Ray, which queues it."""
        return self.task.remote(list(command), str(job.directory / "output.log"), self.threads)

    def exit_status(self, handle: Any) -> int | None:
        """The process's, or -1 when the machine or Ray's worker on it was lost."""
        done, _ = self.ray.wait([handle], timeout=0)
        if not done:
            return None
        try:
            return self.ray.get(handle)
        except self.ray.exceptions.RayError:
            return -1

    def stop(self, handles: Sequence[Any]) -> None:
        """Interrupt the tasks, which let their runs save and end."""
        for handle in handles:
            self.ray.cancel(handle)
        self.ray.wait(list(handles), num_returns=len(handles), timeout=60)


def _run_to_its_end(command: list[str], log: str, threads: int) -> int:
    process = start_process(command, Path(log), threads)
    try:
        return process.wait()
    except KeyboardInterrupt:  # how Ray cancels
        process.send_signal(SWEEP_STOPS)
        return process.wait()


# ---- the sweep ----


def sweep(
    tasks: Sequence[str],
    agents: Sequence[str],
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
        agents: names, each alone or with a preset: "drqv2", "drqv2:ablation-a".
        seeds: such as "0-9".
        out: directory that holds the run directories.
        overrides: settings for all runs, by field name.
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
    jobs = plan(parse_tasks(tasks), agents, parse_seeds(seeds), out, overrides)
    device = str(overrides.get("device", "auto"))
    if not ray:  # whose machines are others than this
        parallel = parallel or choose_parallel(jobs, device)
    print(describe(jobs, None if ray else parallel, device))
    if dry_run:
        return 0
    if ray:
        failed = run_all(jobs, RayCluster(ray, cpus_per_run, gpus_per_run))
    else:
        _refuse_too_many(jobs, parallel, device)
        failed = run_all(jobs, ThisMachine(parallel))
    for job in jobs:
        now = progress(job)
        rate = now["success_rate"]
        achieved = "" if math.isnan(rate) else f", success in {rate:.0%}"
        print(f"  {job}  return {now['episode_return']:.1f}{achieved} at frame {now['frame']:,}")
    print(
        f"figures: pixelcontrol plot {shlex.quote(str(out))}; a page: pixelcontrol report {shlex.quote(str(out))}"
    )
    return 1 if failed else 0


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
                    if len(running) < place.capacity and not _busy(job):
                        waiting.remove(job)
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
        speed = now["frames_per_second"]
        table.add_row(
            job.task,
            job.agent if job.preset == "paper" else f"{job.agent}:{job.preset}",
            str(job.seed),
            f"{short_count(now['frame'])} of {short_count(job.frames)}",
            f"{now['episode_return']:.0f}",
            f"{speed:.0f}",
            clock((job.frames - now["frame"]) / speed) if speed else "",
            str(starts[job]),
        )
    return table
