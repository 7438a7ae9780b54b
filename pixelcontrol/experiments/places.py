"""Where the runs of a sweep run: on this machine, so many at a time, or on a Ray cluster, one task each."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pixelcontrol.errors import SWEEP_STOPS
from pixelcontrol.experiments.plan import Job, state
from pixelcontrol.machine import choose_device, usable_cores
from pixelcontrol.storage import available_ram_bytes


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


def refuse_too_many(jobs: Sequence[Job], parallel: int, device: str) -> None:
    """Refuse runs that fit into memory one by one, and not together: each would find all of it free."""
    free = int(0.9 * (_free_gpu_bytes(device) + available_ram_bytes()))
    sizes = sorted((job.memory_bytes for job in jobs if state(job) != "finished"), reverse=True)
    if (needed := sum([size for size in sizes if size <= free][:parallel])) > free:
        raise ValueError(
            f"{parallel} runs at a time take up to {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; lower "
            "--replay-capacity, or sweep with fewer --jobs (0 takes what fits)"
        )


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
