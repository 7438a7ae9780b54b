"""Checkpoints: what comes back, what a kill, a full disk and a flipped bit can do, and what is never executed."""

import hashlib
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import warnings
import zipfile
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrol import checkpoint
from pixelcontrol.checkpoint import CheckpointDamaged, CheckpointError, CheckpointNotSaved, Checkpoints
from pixelcontrol.replay import TransitionReplay
from pixelcontrol.types import TimeStep

WORLDS, SIZE = 2, 4
ROW_BYTES = WORLDS * 3 * SIZE * SIZE


def make_replay(rows: int = 12, size: int = SIZE) -> TransitionReplay:
    images = torch.zeros(rows, WORLDS, 3, size, size, dtype=torch.uint8)
    return TransitionReplay(
        images,
        action_dim=1,
        n_step=3,
        gamma=0.9,
        frame_stack=3,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(0),
    )


def add_rows(replay: TransitionReplay, count: int) -> None:
    """Add rows that are a function of their number: every row of a run looks different from all others."""
    for _ in range(count):
        row = replay.rows_added
        draw = np.random.default_rng(row)
        replay.add(
            TimeStep(
                image=torch.from_numpy(draw.integers(0, 256, (WORLDS, 3, SIZE, SIZE), dtype=np.uint8)),
                action=draw.random((WORLDS, 1), dtype=np.float32),
                reward=draw.random(WORLDS, dtype=np.float32),
                discount=np.ones(WORLDS, dtype=np.float32),
                first=np.full(WORLDS, row % 7 == 0),
                last=np.full(WORLDS, row % 7 == 6),
                proprio=np.zeros((WORLDS, 0), dtype=np.float32),
                privileged=np.zeros((WORLDS, 0), dtype=np.float32),
            )
        )


def assert_same(found: TransitionReplay, expected: TransitionReplay) -> None:
    """All that was added is there, and the next batches are the same."""
    assert found.rows_added == expected.rows_added
    assert torch.equal(found.images, expected.images)
    if len(expected):
        batches = []
        for replay in (found, expected):
            generator = replay.generator.get_state()
            batches.append(replay.sample(5))
            replay.generator.set_state(generator)
        torch.testing.assert_close(*batches, rtol=0, atol=0)


def files(run_dir: Path, end: str = "") -> list[Path]:
    return sorted(path for path in (run_dir / "checkpoint").iterdir() if path.name.endswith(end))


def forge(run_dir: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the newest manifest as an attacker would, who knows how it is sealed."""
    path = files(run_dir, ".json")[-1]
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    seal = hashlib.sha256(json.dumps(content, indent=1, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"sha256": seal, **content}, indent=1, sort_keys=True))


def replace_state(run_dir: Path, data: bytes) -> None:
    """Put another file in the place of the newest state, with a manifest that vouches for it."""
    files(run_dir, "-state.pt")[-1].write_bytes(data)
    forged = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    forge(run_dir, lambda content: content["state"].update(forged))


# What comes back


def test_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    net = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    adam.step()
    generator = torch.Generator().manual_seed(3)
    state = {
        "weights": net.state_dict(),
        "optimiser": adam.state_dict(),
        "generator": generator.get_state(),
        "numpy": np.random.default_rng(1).bit_generator.state,  # integers of 128 bits
        "counters": {"frame": 10**12, "name": "café", "done": False, "none": None, "nan": float("nan")},
        "nested": [(1, 2.5), [], {}],
    }
    Checkpoints(tmp_path).save(state, None)
    found = Checkpoints(tmp_path).load()
    assert torch.equal(found["weights"]["weight"], net.weight)
    assert torch.equal(found["optimiser"]["state"][0]["exp_avg"], adam.state_dict()["state"][0]["exp_avg"])
    assert torch.equal(found["generator"], generator.get_state())
    assert found["numpy"] == state["numpy"]
    assert found["nested"] == state["nested"]
    assert np.isnan(found["counters"].pop("nan"))
    assert found["counters"] == {"frame": 10**12, "name": "café", "done": False, "none": None}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.zeros(2), "ndarray"),
        (np.float64(1), "float64"),
        (deque([1]), "deque"),
        (Path("/"), "PosixPath"),
        (torch.nn.Linear(1, 1), "Linear"),
    ],
)
def test_what_could_not_be_loaded_again_is_refused_when_saved(tmp_path: Path, value: Any, kind: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 1}, None)
    with pytest.raises(TypeError, match=rf"checkpoint\['state'\]\['env'\]\[1\] is a {kind}"):
        checkpoints.save({"env": [0, value]}, None)
    assert Checkpoints(tmp_path).load() == {"step": 1}


@pytest.mark.parametrize("name", ["a run with spaces", "läuft – 走る"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    run_dir = tmp_path / name
    run_dir.mkdir()
    Checkpoints(run_dir).save({"step": 1}, None)
    run_dir.rename(tmp_path / "moved")
    assert Checkpoints(tmp_path / "moved").load() == {"step": 1}


def test_a_directory_without_checkpoint_says_so(tmp_path: Path) -> None:
    assert not Checkpoints(tmp_path).exist()
    with pytest.raises(CheckpointError, match=r"no checkpoint here; name the directory of a run"):
        Checkpoints(tmp_path).load()


def test_a_new_run_does_not_take_the_place_of_another(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save({"step": 1}, None)
    assert Checkpoints(tmp_path).exist()
    with pytest.raises(CheckpointError, match="checkpoints of another run"):
        Checkpoints(tmp_path).save({"step": 0}, None)
    assert Checkpoints(tmp_path).load() == {"step": 1}


# The replay


@settings(max_examples=20)
@given(
    steps=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    rows_per_file=st.integers(1, 5),
    resume_after=st.integers(0, 8),
)
def test_increments_are_the_whole_replay_through_any_wrap_around(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], rows_per_file: int, resume_after: int
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    replay, checkpoints = make_replay(), Checkpoints(run_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "IMAGE_FILE_BYTES", rows_per_file * ROW_BYTES)
        for number, count in enumerate(steps):
            add_rows(replay, count)
            checkpoints.save({"number": number}, replay)
            found, reader = make_replay(), Checkpoints(run_dir)
            assert reader.load(found) == {"number": number}
            assert_same(found, replay)
            if number == resume_after:
                replay, checkpoints = found, reader
    # No more on disk than the ring, what the older checkpoint still needs, and the rest of the oldest files.
    on_disk = sum(path.stat().st_size for path in files(run_dir, ".bin"))
    assert on_disk <= (replay.rows + min(steps[-1], replay.rows) + 2 * rows_per_file) * ROW_BYTES


def test_a_save_writes_only_the_new_rows(tmp_path: Path) -> None:
    replay, checkpoints = make_replay(rows=100), Checkpoints(tmp_path)
    add_rows(replay, 40)
    checkpoints.save({}, replay)
    before = {path: path.stat() for path in files(tmp_path, ".bin")}
    add_rows(replay, 3)
    checkpoints.save({}, replay)
    new = set(files(tmp_path, ".bin")) - set(before)
    assert sum(path.stat().st_size for path in new) == 3 * ROW_BYTES
    for path, then in before.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (then.st_ino, then.st_mtime_ns)


def test_without_a_kept_replay_the_replay_stays_empty(tmp_path: Path) -> None:
    replay, checkpoints = make_replay(), Checkpoints(tmp_path)
    add_rows(replay, 5)
    checkpoints.save({"step": 1}, None)
    found = make_replay()
    assert Checkpoints(tmp_path).load(found) == {"step": 1}
    assert found.rows_added == 0


def test_a_run_that_goes_on_without_its_replay_writes_the_new_one_from_its_start(tmp_path: Path) -> None:
    replay, checkpoints = make_replay(), Checkpoints(tmp_path)
    add_rows(replay, 9)
    checkpoints.save({}, replay)
    resumed, refilling = Checkpoints(tmp_path), make_replay()
    resumed.load()
    add_rows(refilling, 2)
    resumed.save({}, refilling)
    found = make_replay()
    Checkpoints(tmp_path).load(found)
    assert_same(found, refilling)


def test_a_replay_of_another_shape_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save({}, make_replay(rows=12))
    with pytest.raises(CheckpointError, match=r"shape \(12, 2, 3, 4, 4\), and this run's \(11, 2, 3, 4, 4\)"):
        Checkpoints(tmp_path).load(make_replay(rows=11))


@pytest.mark.parametrize(("added", "fits"), [(12, True), (13, False)])
def test_a_ring_that_has_not_gone_round_fits_into_a_longer_one(
    added: int, fits: bool, tmp_path: Path
) -> None:
    replay, longer = make_replay(rows=12), make_replay(rows=20)
    add_rows(replay, added)
    Checkpoints(tmp_path).save({}, replay)
    if not fits:
        with pytest.raises(
            CheckpointError, match=r"shape \(12, 2, 3, 4, 4\), and this run's \(20, 2, 3, 4, 4\)"
        ):
            Checkpoints(tmp_path).load(longer)
        return
    Checkpoints(tmp_path).load(longer)
    always_long = make_replay(rows=20)
    add_rows(longer, 30)
    add_rows(always_long, added + 30)
    assert_same(longer, always_long)


def test_memory_is_never_taken_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def peak_mb() -> float:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def forget_peak() -> None:
        Path("/proc/self/clear_refs").write_text("5")

    monkeypatch.setattr(checkpoint, "IMAGE_FILE_BYTES", 4 * 1024**2)
    ring_mb = 128
    replay, found = (make_replay(rows=ring_mb * 1024**2 // (WORLDS * 3 * 84**2), size=84) for _ in range(2))
    replay.images.random_(256, generator=torch.Generator().manual_seed(0))
    found.images.fill_(1)
    replay.rows_added = replay.rows + 7
    forget_peak()
    before = peak_mb()
    Checkpoints(tmp_path).save({}, replay)
    Checkpoints(tmp_path).load(found)
    assert peak_mb() - before < ring_mb / 4
    assert torch.equal(found.images, replay.images)


# Saving while training goes on


def test_what_changes_after_a_save_has_begun_is_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, checkpoints, weights = make_replay(), Checkpoints(tmp_path), torch.ones(3)
    add_rows(replay, 9)
    checkpoints.save({"weights": weights}, replay)
    disk_answers, sync = threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        assert disk_answers.wait(600)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    add_rows(replay, 2)
    weights += 1
    expected = make_replay()
    expected.images.copy_(replay.images)
    expected.load_state_dict(deepcopy(replay.state_dict()))
    checkpoints.begin_save({"weights": weights}, replay)
    add_rows(replay, replay.rows)  # over all that was to be saved
    weights += 1
    assert Checkpoints(tmp_path).load()["weights"].tolist() == [1, 1, 1]  # it does not count yet
    disk_answers.set()
    checkpoints.finish_save()
    found = make_replay()
    assert Checkpoints(tmp_path).load(found)["weights"].tolist() == [2, 2, 2]
    assert_same(found, expected)


def test_a_disk_that_fails_after_a_save_has_begun_costs_only_that_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError("the disk is gone")

    replay, checkpoints = make_replay(), Checkpoints(tmp_path)
    add_rows(replay, 3)
    checkpoints.save({"step": 1}, replay)
    before = files(tmp_path)
    add_rows(replay, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        checkpoints.begin_save({"step": 2}, replay)
        with pytest.raises(CheckpointNotSaved, match="the disk is gone"):
            checkpoints.finish_save()
    assert files(tmp_path) == before
    checkpoints.save({"step": 3}, replay)
    found = make_replay()
    assert Checkpoints(tmp_path).load(found) == {"step": 3}
    assert_same(found, replay)


# Damage


def save_three(run_dir: Path) -> TransitionReplay:
    """Leave two checkpoints, of steps 2 and 3, which share image files."""
    replay, checkpoints = make_replay(), Checkpoints(run_dir)
    for step in (1, 2, 3):
        add_rows(replay, 2)
        checkpoints.save({"step": step}, replay)
    return replay


def users_of(run_dir: Path, damaged: Path) -> set[int]:
    """Return the steps of the checkpoints that need a file."""
    return {
        int(manifest.stem)
        for manifest in files(run_dir, ".json")
        if damaged == manifest or damaged.name in manifest.read_text()
    }


def assert_damage_is_found(run_dir: Path, damaged: Path, users: set[int]) -> None:
    """A damaged file costs the checkpoints that need it and no other, and is named."""
    reader, replay = Checkpoints(run_dir), make_replay()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if users == {2, 3}:
            with pytest.raises(CheckpointError, match=damaged.name):
                reader.load(replay)
            return
        state = reader.load(replay)
    assert state == {"step": 2 if 3 in users else 3}
    assert replay.rows_added == 2 * state["step"]
    messages = [str(w.message) for w in caught if issubclass(w.category, CheckpointDamaged)]
    missing_manifest = damaged.suffix == ".json" and not damaged.exists()
    assert len(messages) == (3 in users and not missing_manifest)
    assert all(damaged.name in message for message in messages)


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    save_three(tmp_path)
    draw = random.Random(0)
    for path in files(tmp_path):
        whole, users = path.read_bytes(), users_of(tmp_path, path)
        for place in draw.sample(range(len(whole)), 50):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << draw.randrange(8)
            path.write_bytes(flipped)
            assert_damage_is_found(tmp_path, path, users)
        path.write_bytes(whole)


@pytest.mark.parametrize("kept_share", [0, 0.5, None], ids=["emptied", "truncated", "deleted"])
def test_a_file_that_is_gone_in_whole_or_part_is_found(tmp_path: Path, kept_share: float | None) -> None:
    save_three(tmp_path)
    for path in files(tmp_path):
        whole, users = path.read_bytes(), users_of(tmp_path, path)
        if kept_share is None:
            path.unlink()
        else:
            path.write_bytes(whole[: int(len(whole) * kept_share)])
        assert_damage_is_found(tmp_path, path, users)
        path.write_bytes(whole)


def test_saving_goes_on_after_a_fall_back_and_forgets_the_damaged_one(tmp_path: Path) -> None:
    save_three(tmp_path)
    newest = files(tmp_path, ".json")[-1]
    newest.write_text("{}")
    resumed, replay = Checkpoints(tmp_path), make_replay()
    with pytest.warns(CheckpointDamaged, match=f"{newest.name}.*the checkpoint before was loaded"):
        assert resumed.load(replay) == {"step": 2}
    add_rows(replay, 5)
    resumed.save({"step": 4}, replay)
    assert [path.stem for path in files(tmp_path, ".json")] == ["00000002", "00000004"]
    found = make_replay()
    assert Checkpoints(tmp_path).load(found) == {"step": 4}
    assert_same(found, replay)
    files(tmp_path, "-state.pt")[-1].write_bytes(b"")
    with pytest.warns(CheckpointDamaged, match="00000004-state.pt"):
        assert Checkpoints(tmp_path).load(make_replay()) == {"step": 2}


def test_what_a_killed_save_left_behind_is_removed_by_the_next(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 1}, None)
    folder = tmp_path / "checkpoint"
    for name in ("00000002-images-0.bin", "00000002-images-9.bin", "00000002-state.pt", "00000002.json.tmp"):
        (folder / name).write_bytes(b"half")
    (folder / "notes.txt").write_text("not ours")
    resumed = Checkpoints(tmp_path)
    assert resumed.load() == {"step": 1}
    resumed.save({"step": 2}, None)
    names = {path.name for path in files(tmp_path)}
    assert names == {
        "00000001-state.pt", "00000001.json", "00000002-state.pt", "00000002.json", "notes.txt",
    }  # fmt: skip


# Disks that fail


def test_that_earlier_checkpoints_are_intact_is_said_where_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left")

    monkeypatch.setattr(Checkpoints, "_write", full)
    with pytest.raises(CheckpointNotSaved, match="No space left; there is none yet, and saving works again"):
        Checkpoints(tmp_path).save({}, None)


def test_a_full_disk_costs_only_the_save(tmp_path: Path) -> None:
    """The kernel refuses to let any file grow, as a full disk does, in the middle of the save's second file."""
    replay, checkpoints = make_replay(), Checkpoints(tmp_path)
    add_rows(replay, 5)
    checkpoints.save({"step": 1}, replay)
    before = {path: path.read_bytes() for path in files(tmp_path)}
    add_rows(replay, 1)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * ROW_BYTES, unlimited[1]))
    try:
        with pytest.raises(CheckpointNotSaved, match=r"File too large; earlier checkpoints are intact"):
            checkpoints.save({"step": 2}, replay)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert {path: path.read_bytes() for path in files(tmp_path)} == before
    checkpoints.save({"step": 2}, replay)
    found = make_replay()
    assert Checkpoints(tmp_path).load(found) == {"step": 2}
    assert_same(found, replay)


# A disk of its own for a process and its children, that nobody else sees and that goes with them.
OWN_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
USE_OWN_DISK = """
import subprocess, sys
from pathlib import Path
import torch
from pixelcontrol.checkpoint import CheckpointNotSaved, Checkpoints
run_dir, fault = Path(sys.argv[1]), sys.argv[2]
checkpoints = Checkpoints(run_dir)
checkpoints.save({"step": 1}, None)
before = sorted((run_dir / "checkpoint").iterdir())
if fault == "full":
    (run_dir / "ballast").write_bytes(bytes(5 * 1024**2))
    size = 10**6
elif fault == "filling":  # by another, after it was found to have room
    import shutil
    shutil.disk_usage = lambda path: type("Usage", (), {"free": 10**12})
    size = 3 * 10**6
else:
    subprocess.run(["mount", "-o", "remount,ro", run_dir], check=True)
    size = 1
try:
    checkpoints.save({"step": 2, "weights": torch.zeros(size)}, None)
except CheckpointNotSaved as error:
    print(error)
assert sorted((run_dir / "checkpoint").iterdir()) == before
assert Checkpoints(run_dir).load() == {"step": 1}
if fault == "full":
    (run_dir / "ballast").unlink()
    checkpoints.save({"step": 2, "weights": torch.zeros(size)}, None)
    assert Checkpoints(run_dir).load()["step"] == 2
"""


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("full", "00000002-state.pt takes 4.0 MB and 3.1 MB are free"),
        ("filling", "No space left on device"),
        ("read-only", "Read-only file system"),
    ],
)
def test_a_real_disk_that_is_full_or_read_only(tmp_path: Path, fault: str, words: str) -> None:
    mount = f"mount -t tmpfs -o size=8m none '{tmp_path}'"
    if subprocess.run([*OWN_DISK, mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets nobody mount a disk of his own")
    (tmp_path / "script.py").write_text(USE_OWN_DISK)
    script = f"exec 3<'{tmp_path}/script.py'; {mount}; exec '{sys.executable}' - '{tmp_path}' {fault} <&3"
    done = subprocess.run([*OWN_DISK, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert "earlier checkpoints are intact" in done.stdout


@pytest.mark.parametrize("gone", ["the run's directory", "its checkpoints", "their images"])
def test_a_directory_that_vanishes_costs_only_what_was_in_it(tmp_path: Path, gone: str) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    replay, checkpoints = make_replay(), Checkpoints(run_dir)
    add_rows(replay, 5)
    checkpoints.save({"step": 1}, replay)
    checkpoints.save({"step": 2}, replay)
    if gone == "the run's directory":
        shutil.rmtree(run_dir)
        with pytest.raises(CheckpointNotSaved, match="No such file or directory"):
            checkpoints.save({"step": 3}, replay)
        run_dir.mkdir()
    elif gone == "its checkpoints":
        shutil.rmtree(run_dir / "checkpoint")
    else:
        for path in files(run_dir, ".bin"):
            path.unlink()
    add_rows(replay, 1)
    checkpoints.save({"step": 3}, replay)
    found = make_replay()
    assert Checkpoints(run_dir).load(found) == {"step": 3}
    assert_same(found, replay)


# Kills

SAVE_UNTIL_KILLED = r"""
import os, random, signal, sys, time
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[2])
torch.set_num_threads(1)
from pixelcontrol import checkpoint
from pixelcontrol.checkpoint import Checkpoints
from test_checkpoint import ROW_BYTES, add_rows, assert_same, make_replay
checkpoint.IMAGE_FILE_BYTES = 2 * ROW_BYTES

run_dir, draw = Path(sys.argv[1]), random.Random(0)

def resume_and_save(pipe):
    replay, checkpoints, step = make_replay(), Checkpoints(run_dir), 0
    if checkpoints.exist():
        step = checkpoints.load(replay)["step"]
    expected = make_replay()
    add_rows(expected, 3 * step)
    assert_same(replay, expected)
    os.write(pipe, b"resumed %d\n" % step)
    while True:
        step += 1
        add_rows(replay, 3)
        checkpoints.save({"step": step, "weights": torch.full((1000,), step)}, replay)
        os.write(pipe, b"saved %d\n" % step)

last_saved, torn = 0, 0
for _ in range(50):
    ours, childs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        resume_and_save(childs)
    os.close(childs)
    with os.fdopen(ours) as words:
        resumed = words.readline().split()
        assert resumed and resumed[0] == "resumed", "the child could not resume"
        # the save that the kill interrupted may have been complete already
        assert last_saved <= int(resumed[1]) <= last_saved + 1, (resumed, last_saved)
        last_saved = int(resumed[1])
        for _ in range(draw.randrange(3)):
            last_saved = int(words.readline().split()[1])
        time.sleep(draw.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for line in words:
            last_saved = int(line.split()[1])
    manifests = list((run_dir / "checkpoint").glob("*.json"))
    newest = max((path.name for path in manifests), default="")
    torn += any(path.name[:8] > newest[:8] for path in (run_dir / "checkpoint").iterdir())
print(last_saved, torn)
"""


def test_fifty_kills_at_random_moments_of_saving_lose_nothing_that_was_saved(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVE_UNTIL_KILLED, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    last_saved, torn = map(int, done.stdout.split())
    assert last_saved > 20
    assert torn > 0  # so many kills did tear a save
    replay, expected = make_replay(), make_replay()
    assert Checkpoints(tmp_path).load(replay)["step"] in (last_saved, last_saved + 1)
    add_rows(expected, replay.rows_added)
    assert_same(replay, expected)


# Files of others


class _Evil:
    """Unpickling this creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "bare pickle"])
def test_a_hostile_pickle_is_refused_and_never_executed(tmp_path: Path, legacy: bool) -> None:
    Checkpoints(tmp_path).save({}, None)
    data, trace = io.BytesIO(), tmp_path / "executed"
    torch.save({"state": _Evil(trace)}, data, _use_new_zipfile_serialization=not legacy)
    replace_state(tmp_path, data.getvalue())
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        Checkpoints(tmp_path).load()
    assert not trace.exists()
    torch.load(io.BytesIO(data.getvalue()), weights_only=False)
    assert trace.exists()  # it was loaded


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_called_that(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Checkpoints(tmp_path).save({}, None)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(CheckpointError, match="memory ran out while it was read; free some"):
        Checkpoints(tmp_path).load()


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", b"\x80\x02K\x01.", bytes(1000)], ids=["empty", "torn", "number", "zeros"]
)
def test_a_foreign_file_is_refused(tmp_path: Path, data: bytes) -> None:
    Checkpoints(tmp_path).save({}, None)
    replace_state(tmp_path, data)
    with pytest.raises(CheckpointError, match="this program did not write it"):
        Checkpoints(tmp_path).load()


@pytest.mark.parametrize("content", [{"state": {}}, [1], torch.zeros(2)])
def test_a_torch_file_of_another_program_is_refused(tmp_path: Path, content: Any) -> None:
    Checkpoints(tmp_path).save({}, None)
    data = io.BytesIO()
    torch.save(content, data)
    replace_state(tmp_path, data.getvalue())
    with pytest.raises(CheckpointError, match="this program did not write it"):
        Checkpoints(tmp_path).load()


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_unread(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save({}, None)
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({"state": torch.zeros(10**6)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert len(packed.getvalue()) < 10**5
    replace_state(tmp_path, packed.getvalue())
    with pytest.raises(CheckpointError, match="this program did not write it") as refusal:
        Checkpoints(tmp_path).load()
    assert "compressed" in str(refusal.value.__cause__)


@pytest.mark.parametrize(
    "name", ["../outside-state.pt", "/etc/passwd", "00000001-state.pt/../x", "", 3, None]
)
def test_a_manifest_cannot_point_elsewhere(tmp_path: Path, name: Any) -> None:
    Checkpoints(tmp_path).save({}, None)
    forge(tmp_path, lambda content: content["state"].update(name=name))
    with pytest.raises(CheckpointError, match=r"00000001\.json is not a manifest of this program"):
        Checkpoints(tmp_path).load()


def test_a_file_larger_than_announced_or_than_memory_is_not_read(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save({}, None)
    state = files(tmp_path, "-state.pt")[0]
    os.truncate(state, 10**13)  # sparse: takes no disk
    with pytest.raises(CheckpointError, match=r"state\.pt has 10000000000000 bytes, and \d+ are the most"):
        Checkpoints(tmp_path).load()
    forge(tmp_path, lambda content: content["state"].update(size=10**13))
    with pytest.raises(CheckpointError, match=r"state\.pt: it has 10000\.0 GB, and .* GB of memory are free"):
        Checkpoints(tmp_path).load()
    os.truncate(files(tmp_path, ".json")[0], 10**13)
    with pytest.raises(CheckpointError, match=r"00000001\.json has 10000000000000 bytes"):
        Checkpoints(tmp_path).load()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{" * 10**5, '{"sha256": 1, "format": 1}', "\xff"])
def test_a_foreign_manifest_is_refused(tmp_path: Path, text: str) -> None:
    Checkpoints(tmp_path).save({}, None)
    files(tmp_path, ".json")[0].write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"00000001\.json (is not a manifest|has other content)"):
        Checkpoints(tmp_path).load()


@pytest.mark.parametrize("change", [{"first_row": 1}, {"end_row": 5}, {"first_row": -3}])
def test_images_for_another_place_in_the_replay_are_refused(tmp_path: Path, change: dict[str, int]) -> None:
    replay = make_replay()
    add_rows(replay, 6)
    Checkpoints(tmp_path).save({}, replay)
    forge(tmp_path, lambda content: content["images"][0].update(change))
    with pytest.raises(CheckpointError, match="holds other rows than its place in the replay needs"):
        Checkpoints(tmp_path).load(make_replay())


def test_missing_images_are_refused(tmp_path: Path) -> None:
    save_three(tmp_path)
    forge(tmp_path, lambda content: content["images"].pop())
    with pytest.warns(CheckpointDamaged, match=r"00000003\.json names too few images"):
        assert Checkpoints(tmp_path).load(make_replay()) == {"step": 2}


def test_another_version_is_refused_by_name_and_not_passed_over(tmp_path: Path) -> None:
    save_three(tmp_path)
    forge(tmp_path, lambda content: content.update(format=0, pixelcontrol="0.0.9"))
    with pytest.raises(
        CheckpointError, match=r"format 0, of pixelcontrol 0\.0\.9; .* use the version that wrote"
    ):
        Checkpoints(tmp_path).load()
