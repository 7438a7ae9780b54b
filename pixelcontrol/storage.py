"""Where the replay's images live: on the GPU, in RAM, or in a file, by what is free.

One image of 84x84 takes 21,168 bytes and is stored once, so a million transitions take 21.2 GB; the official
code, which stores whole observations, takes 63.5 GB.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import psutil
import torch
from torch import Tensor

# What runs need beside their replay, where a batch is 256 stacks of 84x84: weights and activations on a GPU;
# those or the workers in RAM.
RESERVE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Storage:
    """A place for the images: "gpu", "ram" or "disk", with its size in bytes and the reason for it."""

    tier: str
    size_bytes: int
    reason: str


def available_ram_bytes() -> int:
    """Return the memory that can still be taken: the system's, or this container's limit if that is tighter."""
    return min([psutil.virtual_memory().available, *_left_in_groups(Path("/"))])


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each memory limit around this process leaves it: its control group's, and those of the groups above."""
    table = root / "proc/self/cgroup"
    for line in table.read_text().splitlines() if table.exists() else []:
        _, controllers, own = line.split(":", 2)
        if controllers == "":  # version 2
            mount, limit_file, used_file, cache = "", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit_file, used_file = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        top = root / "sys/fs/cgroup" / mount
        group = top / own.strip("/")
        for folder in (group, *(above for above in group.parents if above.is_relative_to(top))):
            limit = folder / limit_file
            if limit.exists() and (limit_bytes := limit.read_text().strip()) != "max":
                # files that were read lately count as used, but are given up on demand; sandboxes may not say
                listed = folder / "memory.stat"
                lines = listed.read_text().splitlines() if listed.exists() else []
                statistics = dict(line.split() for line in lines)
                used = int((folder / used_file).read_text()) - int(statistics.get(cache, 0))
                yield int(limit_bytes) - used


def choose(
    shape: tuple[int, ...],
    device: torch.device,
    directory: Path,
    reserve_bytes: int,
    copy_bytes: int = 0,
    *,
    resumed: bool = False,
) -> Storage:
    """Choose the fastest place with room for a uint8 array of `shape`.

    Args:
        shape: of the images, (rows, worlds, channels, height, width).
        device: where the agent learns.
        directory: where a file would be put.
        reserve_bytes: of GPU and of RAM, what is to stay free for everything else.
        copy_bytes: what checkpoints will take in `directory` for their copy of the images. It must be free
            where the images go to a file; elsewhere the reason warns if it is not.
        resumed: whether the run is resumed, so that the error must not suggest other settings.

    Raises:
        ValueError: it fits nowhere; names what is needed and what is free.
    """
    size = prod(shape)
    free: dict[str, int] = {}
    if device.type == "cuda":
        free["gpu"] = torch.cuda.mem_get_info(device)[0] - reserve_bytes
    free["ram"] = available_ram_bytes() - reserve_bytes
    free["disk"] = shutil.disk_usage(directory).free - RESERVE_BYTES
    words = ", ".join(f"{max(room, 0) / 1e9:.1f} GB free on {tier}" for tier, room in free.items())
    copies = f"checkpoints keep a copy, {copy_bytes / 1e9:.1f} GB on disk (--keep-replay no)"
    for tier, room in free.items():
        if size + (copy_bytes if tier == "disk" else 0) <= room:
            return Storage(
                tier, size, words if copy_bytes <= max(0, free["disk"]) else f"{words}; WARNING: {copies}"
            )
    rooms = [room / 2 if copy_bytes and tier == "disk" else room for tier, room in free.items()]
    fits = int(shape[0] * shape[1] * max(0.0, *rooms) / size) // 1000 * 1000
    smaller = f"lower --replay-capacity, to about {fits:,}, or --image-size"
    raise ValueError(
        f"the replay needs {size / 1e9:.1f} GB, but there are only {words} (after what everything else needs, "
        f"{reserve_bytes / 1e9:.1f} GB of memory{f'; {copies}' if copy_bytes else ''}); "
        + ("resume where more is free" if resumed else smaller)
    )


def allocate(shape: tuple[int, ...], storage: Storage, device: torch.device, directory: Path) -> Tensor:
    """Allocate uint8 images of `shape`.

    RAM is reserved at once but taken as rows are written. A file is allocated on disk first: writing into a
    sparse map on a full disk would kill the process. It loses its name before it takes any room, so that is free
    again when the process ends, however that ends.
    """
    if storage.tier == "gpu":
        return torch.empty(shape, dtype=torch.uint8, device=device)
    if storage.tier == "ram":
        return torch.empty(shape, dtype=torch.uint8)
    path = directory / "replay_images.bin"
    with path.open("wb+") as file:
        path.unlink()
        os.posix_fallocate(file.fileno(), 0, storage.size_bytes)
        unnamed = f"/proc/self/fd/{file.fileno()}"
        return torch.from_file(unnamed, shared=True, size=storage.size_bytes, dtype=torch.uint8).view(shape)
