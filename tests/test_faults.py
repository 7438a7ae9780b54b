"""Whole runs under the faults of shared machines: kills, signals, damage, full disks, a second run.

Every run here is the command line in a process of its own. The measure is always the same: after the fault and a
resume, tables and weights equal those of a run that nothing disturbed.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from forked import PATIENCE_SECONDS, CommandLine
from test_checkpoint import OWN_DISK, files
from test_train import TINY, assert_same, rows

from pixelcontrol import build, loop
from pixelcontrol.checkpoint import Checkpoints
from pixelcontrol.envs import hosts, vector
from pixelcontrol.envs.vector import VectorEnv
from pixelcontrol.errors import STOP_SIGNALS, SWEEP_STOPS
from pixelcontrol.settings import flag, spell

SAVE_OFTEN = TINY | {"save_every_frames": 20, "eval_every_frames": 400}


def new_run(run_dir: Path) -> list[str]:
    """Return the arguments that begin the tiny run of these tests."""
    flags = [f"{flag(name)}={spell(value)}" for name, value in SAVE_OFTEN.items()]
    return ["train", "toy_reach", f"--out={run_dir}", *flags]


def start(run_dir: Path, *, prepare: object = None) -> CommandLine:
    """Begin the run, or resume it if it has begun."""
    begun = (run_dir / "config.json").exists()
    arguments = ["train", "--resume", run_dir] if begun else new_run(run_dir)
    return CommandLine(*arguments, log=run_dir.with_suffix(".log"), prepare=prepare)


def saves(run_dir: Path) -> int:
    """Return how many checkpoints the run has made."""
    return max((int(path.stem) for path in (run_dir / "checkpoint").glob("*.json")), default=0)


def assert_same_run(one: Path, other: Path) -> None:
    assert_same(one, other)
    assert rows(one / "eval.csv") == rows(other / "eval.csv")


def abandoned_shared_memory() -> set[Path]:
    """Return what lies in shared memory and no process has mapped; others may be at work on this machine."""
    mapped = ""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):  # it has ended, or is another user's
            mapped += maps.read_text()
    return {path for path in Path("/dev/shm").iterdir() if str(path) not in mapped}


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
    assert not alive


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    run = start(run_dir)
    assert run.ended() == 0, run.printed()
    return run_dir


def stop_after_two_saves() -> None:
    finish = Checkpoints.finish_save

    def finish_and_stop(self: Checkpoints) -> None:
        finish(self)
        if self.directory.exists() and saves(self.directory.parent) == 2:
            Checkpoints.finish_save = finish  # type: ignore[method-assign]
            os.kill(os.getpid(), signal.SIGSTOP)

    Checkpoints.finish_save = finish_and_stop  # type: ignore[method-assign]


def stopped_after_two_saves(run_dir: Path) -> CommandLine:
    """Return a run that waits for SIGCONT in the midst of training, however slow or fast the machine is."""
    run = start(run_dir, prepare=stop_after_two_saves)
    assert run.stopped(), run.printed()
    return run


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run that was killed after two saves."""
    run_dir = tmp_path / "run"
    run = stopped_after_two_saves(run_dir)
    run.signal(signal.SIGKILL)
    run.ended()
    return run_dir


def stop_at(save: int, call: int) -> None:
    """Stop at this call of a function, whichever that is, after this save has begun."""
    begin, saves_begun, calls = Checkpoints.begin_save, itertools.count(1), itertools.count(1)

    def count_and_stop(*_: object) -> None:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGSTOP)

    def begin_and_count(self: Checkpoints, *arguments: Any) -> None:
        begin(self, *arguments)
        if next(saves_begun) == save:
            sys.setprofile(count_and_stop)

    Checkpoints.begin_save = begin_and_count  # type: ignore[method-assign]


def test_killed_again_and_again_it_ends_as_if_nothing_had_happened(undisturbed: Path, tmp_path: Path) -> None:
    run_dir, draw, kills = tmp_path / "run", random.Random(0), 0
    abandoned = abandoned_shared_memory()
    while True:
        run = start(run_dir, prepare=partial(stop_at, draw.randrange(3, 7), draw.randrange(1, 90_000)))
        if not run.stopped():
            break
        workers = run.children()
        run.signal(signal.SIGKILL)
        assert run.ended() == -signal.SIGKILL
        assert_gone(workers)
        kills += 1
    assert run.ended() == 0, run.printed()
    assert kills >= 4  # the run makes 30 saves; a call is at most one interval after its save
    assert_same_run(undisturbed, run_dir)
    assert abandoned_shared_memory() <= abandoned


def die_at_the_first_save() -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Checkpoints.begin_save = die  # type: ignore[method-assign]


def test_killed_before_its_first_save_it_begins_anew(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run = start(run_dir, prepare=die_at_the_first_save)
    assert run.ended() == -signal.SIGKILL, run.printed()
    resumed = start(run_dir)
    assert resumed.ended() == 0, resumed.printed()
    assert "the run begins anew" in resumed.printed()
    assert_same_run(undisturbed, run_dir)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_one_signal_saves_and_exits(number: signal.Signals, undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "läuft – 走る und hält"
    run = stopped_after_two_saves(run_dir)
    workers = run.children()
    run.signal_group(number)
    run.signal(signal.SIGCONT)
    assert run.ended() == 128 + number, run.printed()
    assert f"continue with: pixelcontrol train --resume '{run_dir}'" in run.printed()
    assert "Traceback" not in run.printed()
    assert_gone(workers)
    assert Checkpoints(run_dir).load()
    if number == signal.SIGTERM:  # each saves the same
        resumed = start(run_dir)
        assert resumed.ended() == 0, resumed.printed()
        assert_same_run(undisturbed, run_dir)


def hang_at(stream: int, step: int) -> None:
    send, sent = VectorEnv.send, itertools.count(1)

    def hang(self: VectorEnv, action: np.ndarray) -> None:
        if self._stream == stream and next(sent) == step:
            for worker in multiprocessing.active_children():
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGSTOP)
            print("hangs for ever", flush=True)
        send(self, action)

    VectorEnv.send = hang  # type: ignore[method-assign]
    vector.STEP_TIMEOUT, hosts.HURRIED_TIMEOUT = 3600.0, 0.5


@pytest.mark.parametrize(
    ("stream", "step"),
    [(build.TRAIN_STREAM, 70), (build.EVAL_STREAM, 3), (build.EVAL_STREAM, 30)],
    ids=["learning", "first evaluation", "second evaluation"],
)
def test_a_signal_does_not_wait_for_a_worker_that_hangs(
    stream: int, step: int, undisturbed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    run = start(run_dir, prepare=partial(hang_at, stream, step))
    assert run.wait_until(lambda: "hangs for ever" in run.printed()), run.printed()
    workers = run.children()
    run.signal(signal.SIGTERM)
    assert run.ended() == 128 + signal.SIGTERM, run.printed()
    assert_gone(workers)
    resumed = start(run_dir)
    assert resumed.ended() == 0, resumed.printed()
    assert "resumed at frame" in resumed.printed()
    if stream == build.EVAL_STREAM:  # in training, the hung worker's episodes are discarded
        assert_same_run(undisturbed, run_dir)


def hang_while_worlds_are_built() -> None:
    def build_for_ever(*_: object) -> None:
        print("builds for ever", flush=True)
        time.sleep(10 * PATIENCE_SECONDS)

    loop.build_env = build_for_ever  # type: ignore[assignment]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_start_up_ends_it_at_once(number: signal.Signals, begun: Path) -> None:
    before = files(begun)
    run = start(begun, prepare=hang_while_worlds_are_built)
    assert run.wait_until(lambda: "builds for ever" in run.printed()), run.printed()
    run.signal_group(number)
    assert run.ended() == -number
    assert "Traceback" not in run.printed()
    assert files(begun) == before


def stop_within_a_save() -> None:
    write = Checkpoints._write

    def stop_and_write(self: Checkpoints, name: str, data: memoryview) -> Any:
        Checkpoints._write = write  # type: ignore[method-assign]
        os.kill(os.getpid(), signal.SIGSTOP)
        return write(self, name, data)

    Checkpoints._write = stop_and_write  # type: ignore[method-assign]


@pytest.mark.parametrize("asked", [(signal.SIGTERM,), (signal.SIGTERM, SWEEP_STOPS)])
def test_a_signal_during_a_save_lets_it_finish(
    asked: tuple[signal.Signals, ...], begun: Path, undisturbed: Path
) -> None:
    """A scheduler may ask both a sweep and its runs."""
    before = saves(begun)
    run = start(begun, prepare=stop_within_a_save)
    assert run.stopped(), run.printed()
    for number in asked:
        run.signal(number)
    run.signal(signal.SIGCONT)
    assert run.ended() in {128 + number for number in asked}, run.printed()
    assert saves(begun) > before
    resumed = start(begun)
    assert resumed.ended() == 0, resumed.printed()
    assert_same_run(undisturbed, begun)


def never_finish_saving() -> None:
    def save(*_: object) -> None:
        print("saves for ever", flush=True)
        time.sleep(10 * PATIENCE_SECONDS)

    Checkpoints.begin_save = save  # type: ignore[method-assign]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(number: signal.Signals, begun: Path) -> None:
    before = files(begun)
    run = start(begun, prepare=never_finish_saving)
    assert run.wait_until(lambda: "saves for ever" in run.printed()), run.printed()
    workers = run.children()
    run.signal_group(number)
    assert run.wait_until(lambda: "again to stop at once" in run.printed()), run.printed()
    run.signal_group(number)
    assert run.ended() == -number
    assert_gone(workers)
    assert files(begun) == before


def hang_up_at_every_save() -> None:
    begin = Checkpoints.begin_save

    def hang_up_and_begin(self: Checkpoints, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        begin(self, *arguments)

    Checkpoints.begin_save = hang_up_and_begin  # type: ignore[method-assign]


def test_a_terminal_that_closes_may_hang_up_twice(begun: Path, undisturbed: Path) -> None:
    """The kernel does, and the shell again; the second comes while the first is answered by a save."""
    before = saves(begun)
    run = start(begun, prepare=hang_up_at_every_save)
    assert run.ended() == 128 + signal.SIGHUP, run.printed()
    assert saves(begun) > before
    resumed = start(begun)
    assert resumed.ended() == 0, resumed.printed()
    assert_same_run(undisturbed, begun)


def test_a_second_run_in_one_directory_is_refused_and_the_first_goes_on(
    undisturbed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    first = stopped_after_two_saves(run_dir)
    second = CommandLine("train", "--resume", run_dir, log=tmp_path / "second.log")
    assert second.ended() == 1
    first.signal(signal.SIGCONT)
    assert f"{run_dir} is in use by process {first.pid} on " in second.printed()
    assert "Traceback" not in second.printed()
    assert first.ended() == 0, first.printed()
    assert_same_run(undisturbed, run_dir)


def test_a_finished_run_has_nothing_left_to_do(undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(undisturbed, run_dir)  # a run may be moved, too
    for _ in range(2):
        resumed = start(run_dir)
        assert resumed.ended() == 0, resumed.printed()
    assert_same_run(undisturbed, run_dir)


def test_a_damaged_checkpoint_costs_one_interval(begun: Path, undisturbed: Path) -> None:
    newest = files(begun, "-state.pt")[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = start(begun)
    assert resumed.ended() == 0, resumed.printed()
    assert f"{newest.name} has other content than was saved" in resumed.printed()
    assert_same_run(undisturbed, begun)


@pytest.mark.parametrize("verb", [["train", "--resume"], ["eval"]], ids=["train", "eval"])
def test_where_every_checkpoint_is_damaged_one_line_says_so(begun: Path, verb: list[str]) -> None:
    for path in files(begun, "-state.pt"):
        path.write_bytes(b"")
    before = {path: path.read_bytes() for path in begun.glob("*.csv")}
    run = CommandLine(*verb, begun, log=begun / "log")
    assert run.ended() == 1
    assert run.printed().splitlines()[-1].startswith(f"pixelcontrol {verb[0]}: {begun / 'checkpoint'}: 0000")
    assert "Traceback" not in run.printed()
    assert {path: path.read_bytes() for path in begun.glob("*.csv")} == before


def test_damaged_images_cost_the_replay_and_nothing_else(begun: Path) -> None:
    for path in files(begun, ".bin"):
        path.write_bytes(b"")
    refused = start(begun)
    assert refused.ended() == 1
    assert "resume with --keep-replay no" in refused.printed()
    resumed = CommandLine("train", "--resume", begun, "--keep-replay=no", log=begun / "log")
    assert resumed.ended() == 0, resumed.printed()
    assert "refilling" in resumed.printed()
    assert rows(begun / "train.csv")[-1]["frame"] == "600"


def test_a_table_that_lost_rows_is_refused(begun: Path) -> None:
    os.truncate(begun / "train.csv", 10)
    resumed = start(begun)
    assert resumed.ended() == 1
    assert "train.csv has 10 bytes and had" in resumed.printed()
    assert "Traceback" not in resumed.printed()


def test_a_killed_worker_is_replaced_and_the_run_goes_on(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run = stopped_after_two_saves(run_dir)
    for worker in run.children():
        with suppress(psutil.NoSuchProcess):  # some other child that has ended by now
            if "spawn_main" in " ".join(worker.cmdline()):
                worker.kill()
    run.signal(signal.SIGCONT)
    assert run.ended() == 0, run.printed()
    # one in training and one at the next evaluation
    assert run.printed().count("died of SIGKILL (Killed)") == 2
    episodes = [int(row["episode"]) for row in rows(run_dir / "train.csv")]
    assert episodes == list(range(1, 11))  # of 12: those that it broke off in both worlds are not among them
    assert [row["frame"] for row in rows(run_dir / "eval.csv")] == ["0", "400", "600"]


ON_A_FULL_DISK = """
mount -t tmpfs -o size={megabytes}m none "$1" || exit 99
exec 2>&1
"{python}" -c "{train_and_stop}" {arguments} &
training=$!
until grep -q '^State:.*stopped' /proc/$training/status; do
    kill -0 $training || exit 98
    sleep 0.05
done
dd if=/dev/zero of="$1"/ballast bs=64k 2>/dev/null
kill -CONT $training
wait $training
echo "ended on the full disk with status $?"
rm "$1"/ballast
"{python}" -m pixelcontrol train --resume "$1"/run
echo "resumed with status $?"
cp -r "$1"/run "$2"
"""
TRAIN_AND_STOP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_faults import stop_after_two_saves
stop_after_two_saves()
from pixelcontrol.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_that_fills_up_leaves_a_run_that_resumes(undisturbed: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = " ".join(f"'{part}'" for part in new_run(disk / "run"))
    script = ON_A_FULL_DISK.format(
        megabytes=60, python=sys.executable, train_and_stop=TRAIN_AND_STOP, arguments=arguments
    )
    done = subprocess.run(
        [*OWN_DISK, script, "sh", str(disk), str(tmp_path / "saved")],
        stdout=subprocess.PIPE, text=True, check=False, timeout=2 * PATIENCE_SECONDS,
    )  # fmt: skip
    if done.returncode == 99:
        pytest.skip("this system lets nobody mount a disk of his own")
    assert "resumed with status 0" in done.stdout, done.stdout
    assert "free" in done.stdout or "No space left on device" in done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    assert_same_run(undisturbed, tmp_path / "saved")


def test_a_directory_that_vanishes_ends_the_run_and_is_named(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run = stopped_after_two_saves(run_dir)
    workers = run.children()
    run_dir.rename(tmp_path / "elsewhere")
    run.signal(signal.SIGCONT)
    assert run.ended() == 1, run.printed()
    assert run.printed().splitlines()[-1].startswith(f"pixelcontrol train: {run_dir} is gone")
    assert "Traceback" not in run.printed()
    assert_gone(workers)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = CommandLine(*new_run(tmp_path / "file" / "run"), log=tmp_path / "log")
    assert run.ended() == 1
    assert str(tmp_path / "file" / "run") in run.printed()
    assert "Traceback" not in run.printed()
