import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pixelcontrol import storage
from pixelcontrol.replay import TransitionReplay
from pixelcontrol.storage import RESERVE_BYTES, Storage, allocate, available_ram_bytes, choose
from pixelcontrol.types import TimeStep

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPE = (40, 2, 3, 12, 12)
SIZE = 40 * 2 * 3 * 12 * 12


@pytest.fixture
def machine(monkeypatch):
    """Returns a function that sets how many bytes this machine pretends to have free."""

    def pretend(gpu=0, ram=0, disk=0):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gpu, 2**40))
        monkeypatch.setattr(storage, "available_ram_bytes", lambda: ram)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=disk))

    return pretend


# what is free beside the reserve: exactly enough, and a block or byte too little
ENOUGH = RESERVE_BYTES + SIZE + 512 - SIZE % 512
SHORT = RESERVE_BYTES + SIZE - 1


@pytest.mark.parametrize(
    ("device", "free", "tier"),
    [
        (CUDA, {"gpu": RESERVE_BYTES + SIZE, "ram": ENOUGH, "disk": ENOUGH}, "gpu"),
        (CUDA, {"gpu": SHORT, "ram": RESERVE_BYTES + SIZE, "disk": ENOUGH}, "ram"),
        (CUDA, {"gpu": SHORT, "ram": SHORT, "disk": ENOUGH}, "disk"),
        (CPU, {"gpu": ENOUGH, "ram": RESERVE_BYTES + SIZE, "disk": ENOUGH}, "ram"),
        (CPU, {"gpu": ENOUGH, "ram": SHORT, "disk": ENOUGH}, "disk"),
    ],
)
def test_the_fastest_place_with_room_is_chosen(machine, tmp_path, device, free, tier):
    machine(**free)
    place = choose(SHAPE, device, tmp_path, RESERVE_BYTES)
    assert (place.tier, place.size_bytes) == (tier, SIZE)
    assert "free on ram" in place.reason


def test_a_file_needs_room_for_the_copy_that_checkpoints_keep(machine, tmp_path):
    machine(ram=SHORT, disk=ENOUGH + SIZE)
    assert choose(SHAPE, CPU, tmp_path, RESERVE_BYTES, SIZE).tier == "disk"
    machine(ram=SHORT, disk=ENOUGH)
    with pytest.raises(ValueError, match=r"keep a copy, 0\.0 GB on disk \(--keep-replay no\)"):
        choose(SHAPE, CPU, tmp_path, RESERVE_BYTES, SIZE)
    machine(ram=RESERVE_BYTES + SIZE, disk=SHORT)
    assert "WARNING: checkpoints keep a copy" in choose(SHAPE, CPU, tmp_path, RESERVE_BYTES, SIZE).reason
    assert "WARNING" not in choose(SHAPE, CPU, tmp_path, RESERVE_BYTES, copy_bytes=0).reason
    machine(ram=RESERVE_BYTES + SIZE, disk=ENOUGH)
    assert "WARNING" not in choose(SHAPE, CPU, tmp_path, RESERVE_BYTES, SIZE).reason


def test_a_large_reserve_is_one_of_memory(machine, tmp_path):
    machine(ram=4 * RESERVE_BYTES + SIZE, disk=ENOUGH)
    assert choose(SHAPE, CPU, tmp_path, 4 * RESERVE_BYTES).tier == "ram"
    assert choose(SHAPE, CPU, tmp_path, 5 * RESERVE_BYTES).tier == "disk"


def test_nothing_fits_is_said_with_numbers_and_a_remedy(machine, tmp_path):
    machine(gpu=4 * 10**9, ram=7 * 10**9, disk=10**9)
    with pytest.raises(ValueError, match=r"the replay needs 21\.2 GB") as error:
        choose((1_000_000, 1, 3, 84, 84), CUDA, tmp_path, RESERVE_BYTES)
    assert "1.9 GB free on gpu, 4.9 GB free on ram, 0.0 GB free on disk" in str(error.value)
    # (7e9 - 2 GiB) / 21,168
    assert "lower --replay-capacity, to about 229,000, or --image-size" in str(error.value)
    with pytest.raises(ValueError, match="resume where more is free") as error:
        choose((1_000_000, 1, 3, 84, 84), CUDA, tmp_path, RESERVE_BYTES, resumed=True)
    assert "--replay-capacity" not in str(error.value)


def test_this_machine_has_a_place_for_a_small_replay(tmp_path):
    assert choose(SHAPE, CPU, tmp_path, RESERVE_BYTES).tier in ("ram", "disk")


GROUPS = {
    2: ("0::/slice/job\n", "", "memory.max", "memory.current", "inactive_file"),
    1: (
        "9:cpu:/elsewhere\n4:memory:/slice/job\n",
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


@pytest.mark.parametrize("version", GROUPS)
def test_a_containers_limit_counts_and_those_around_it(version, monkeypatch, tmp_path):
    """Files that were only read, 500 bytes of the 1,500 used, can be given up."""
    line, mount, limit_file, used_file, cache = GROUPS[version]
    monkeypatch.setattr(storage, "Path", lambda path: tmp_path)
    monkeypatch.setattr(storage.psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    assert available_ram_bytes() == 10_000
    table = tmp_path / "proc/self/cgroup"
    table.parent.mkdir(parents=True)
    table.write_text(line)
    assert available_ram_bytes() == 10_000
    job = tmp_path / "sys/fs/cgroup" / mount / "slice/job"
    job.mkdir(parents=True)
    for folder in (job, job.parent):
        (folder / used_file).write_text("1500\n")
        (folder / "memory.stat").write_text(f"anon 800\n{cache} 500\nactive_file 200\n")
    for own, above, available in (("4000", "max", 3000), ("90000", "9000", 8000), ("max", "90000", 10_000)):
        (job / limit_file).write_text(f"{own}\n")
        (job.parent / limit_file).write_text(f"{above}\n")
        assert available_ram_bytes() == available
    (job.parent / "memory.stat").unlink()
    (job.parent / limit_file).write_text("5000\n")
    assert available_ram_bytes() == 3500


def test_a_file_is_on_disk_in_full_before_anything_is_written(monkeypatch, tmp_path):
    sizes = []

    def look(path, **options):
        sizes.extend([os.stat(path).st_size, os.stat(path).st_blocks * 512])
        return from_file(path, **options)

    from_file = torch.from_file
    monkeypatch.setattr(torch, "from_file", look)
    images = allocate(SHAPE, Storage("disk", SIZE, ""), CPU, tmp_path)
    assert sizes[0] == SIZE
    assert sizes[1] >= SIZE
    assert (images.shape, images.dtype) == (SHAPE, torch.uint8)
    images[3, 1] = 7
    assert images[3, 1].min() == 7


def test_a_file_has_no_name_that_a_kill_could_leave_behind(tmp_path):
    images = allocate(SHAPE, Storage("disk", SIZE, ""), CPU, tmp_path)
    assert not list(tmp_path.iterdir())
    del images


def test_a_full_disk_is_noticed_before_anything_is_mapped(monkeypatch, tmp_path):
    def full(descriptor, offset, size):
        raise OSError(28, "No space left on device")

    def never(*args, **kwargs):
        raise AssertionError("the file was mapped")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(torch, "from_file", never)
    with pytest.raises(OSError, match="No space left"):
        allocate(SHAPE, Storage("disk", SIZE, ""), CPU, tmp_path)


def test_ram_leaves_no_file(tmp_path):
    images = allocate(SHAPE, Storage("ram", SIZE, ""), CPU, tmp_path)
    assert (images.shape, images.dtype, images.device) == (SHAPE, torch.uint8, CPU)
    assert not list(tmp_path.iterdir())


def test_a_replay_on_disk_equals_one_in_ram(tmp_path):
    ram, disk = (
        TransitionReplay(
            allocate(SHAPE, Storage(tier, SIZE, ""), CPU, tmp_path),
            action_dim=2,
            n_step=3,
            gamma=0.99,
            frame_stack=3,
            device=CPU,
            generator=torch.Generator().manual_seed(0),
        )
        for tier in ("ram", "disk")
    )
    g = np.random.default_rng(0)
    for row in range(100):  # the ring has 40 rows
        first = np.array([row % 11 == 0, row % 7 == 0])
        step = TimeStep(
            image=torch.from_numpy(g.integers(0, 256, (2, 3, 12, 12), dtype=np.uint8)),
            action=g.uniform(-1, 1, (2, 2)).astype(np.float32),
            reward=g.random(2, dtype=np.float32),
            discount=np.ones(2, dtype=np.float32),
            first=first,
            last=np.zeros(2, dtype=bool),
            proprio=np.zeros((2, 0), dtype=np.float32),
            privileged=np.zeros((2, 0), dtype=np.float32),
        )
        ram.add(step)
        disk.add(step)
        if row >= 5:
            torch.testing.assert_close(ram.sample(8), disk.sample(8), rtol=0, atol=0)


@pytest.mark.gpu
def test_a_gpu_holds_the_images_itself(tmp_path):
    images = allocate(SHAPE, Storage("gpu", SIZE, ""), CUDA, tmp_path)
    assert images.is_cuda
    assert (images.shape, images.dtype) == (SHAPE, torch.uint8)
