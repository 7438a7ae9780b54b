"""This computer: which device to use, how to set it up, and how to name it in results."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

from pixelcontrol import __version__

# Their versions decide, beside Python's, torch's and ours, what a run computes and what its images look like.
RECORDED_PACKAGES = ("mujoco", "dm-control", "warp-lang", "numpy")

# glibc's names for mallopt
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def choose_device(wanted: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda".

    Raises:
        ValueError: cuda is wanted and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device is cuda, but torch sees no GPU; use --device auto or cpu, or see `pixelcontrol doctor`"
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Send a small array to a device, behind the work that is queued there and without waiting for it.

    PyTorch waits for that work unless told otherwise. On a GPU the tensor is a copy, finished when this returns,
    since CUDA takes ordinary memory's content at once; on a CPU it shares `array`'s memory: do not write there.
    """
    return torch.from_numpy(array).to(device, non_blocking=True)


def random_stream(seed: int, purpose: str, device: torch.device) -> torch.Generator:
    """Return a generator that draws what no other purpose draws from the same seed."""
    sequence = np.random.SeedSequence(seed, spawn_key=tuple(purpose.encode()))
    return torch.Generator(device).manual_seed(int(sequence.generate_state(1)[0]))


def restore_generator(generator: torch.Generator, state: torch.Tensor) -> None:
    """Let a generator go on from a stored state, or as it was seeded where that is another kind of device's.

    A GPU's state is a seed and an offset, a CPU's is a Mersenne Twister: neither can go on as the other.
    """
    if state.shape == generator.get_state().shape:
        generator.set_state(state.cpu())


def prepare_process() -> None:
    """Set up this process for learning; call once, at its start.

    Batches are tens of megabytes, allocated and freed at every update. By default glibc hands such memory back
    to the system each time, and taking it again costs as much as the update itself. Denormal numbers, which
    small gradients become, are slow on CPUs and mean nothing here.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 << 30)
        libc.mallopt(_M_TOP_PAD, 64 << 20)
    torch.set_flush_denormal(True)


def repeat_exactly(exactly: bool) -> None:
    """Have torch use only algorithms that give the same bits at every run, or any; call before it computes."""
    if exactly:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once, at its start
    torch.use_deterministic_algorithms(exactly)
    # it would write through all of the replay's memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def ran_out_of_memory(error: Exception) -> bool:
    """Whether an error means that there was no more memory, on the GPU or the host."""
    # torch has no type of its own for the host's
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def versions() -> dict[str, str]:
    """Return the version of everything that decides a run's numbers; "none" of what is not installed."""
    found = {"python": platform.python_version(), "pixelcontrol": __version__}
    found["torch"] = str(torch.__version__)  # a wheel from PyPI has its build, such as +cu130, nowhere else
    for package in RECORDED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def commit() -> str:
    """Return the commit of this source tree, with "+" when it has changes; or the version when installed."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return f"v{__version__}"
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # a clone needs no git to run
        return "unknown"
    return described.stdout.strip() or "unknown"


def describe(device: torch.device) -> str:
    """Name the machine in words: processor, cores, and GPU if that is where learning happens."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    words = f"{model}, {usable_cores()} cores"
    return f"{words}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else words
