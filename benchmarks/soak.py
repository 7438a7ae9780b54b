"""Train under random faults for a long time, and compare every run with one that nothing disturbed.

    python benchmarks/soak.py --minutes 60 --seed 0 --directory soak

One small run of the toy task is trained in peace, then round after round the same again under faults drawn from
`--seed`: kills, signals, frozen processes, a second run in the same directory, a disk that takes no more, a
directory that goes away, flipped bits, files cut short, overwritten or deleted. After each fault the run is
resumed. In the end tables and weights must be equal, and no process and no shared memory may be left.

In every fourth round it is worker processes that are killed or hang. That discards episodes, so such a run is not
equal; it must end by itself, with every frame counted once.

Beside the rounds one process trains all the time, and is asked to stop at the end. Its memory and open files,
workers included, are given as medians of the second and of the last quarter of the time: they must not grow.

Every fault and every round is a line of `soak.csv`. Exit status 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import atexit
import csv
import fcntl
import random
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from pixelcontrol.checkpoint import Checkpoints

COMMAND = [sys.executable, "-m", "pixelcontrol"]
FLAGS = [
    "--envs=2", "--workers=1", "--image-size=24", "--batch-size=16", "--hidden-dim=32", "--conv-filters=4",
    "--seed-frames=200", "--exploration-steps=100", "--eval-episodes=2", "--device=cpu", "--precision=fp32",
]  # fmt: skip
FRAMES = 3000
SHORT = [f"--frames={FRAMES}", "--eval-every-frames=1500", "--save-every-frames=100"]
# The ring is full after the first seconds.
ENDLESS = [
    "--frames=1_000_000_000", "--replay-capacity=1000", "--eval-every-frames=10000", "--save-every-frames=10000",
]  # fmt: skip
CLOCK_COLUMNS = {"hour", "frames_per_second"}
WAIT_SECONDS = 600


class Lost(Exception):
    """What was promised was not kept."""


def start(run_dir: Path, flags: Sequence[str] = SHORT) -> subprocess.Popen[bytes]:
    """Begin a run, or resume it if it has begun."""
    begun = (run_dir / "config.json").exists()
    arguments = ["--resume", str(run_dir)] if begun else ["toy_reach", f"--out={run_dir}", *FLAGS, *flags]
    with run_dir.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [*COMMAND, "train", *arguments], stdout=log, stderr=log, start_new_session=True
        )


def workers_of(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the processes that a run has started, none where it has ended."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(run.pid).children(recursive=True)
    return []


@dataclass(frozen=True)
class Shaken:
    """A running run that a fault comes over."""

    run: subprocess.Popen[bytes]
    run_dir: Path
    draw: random.Random

    def signal_workers(self, number: int) -> None:
        """Send a signal to what holds worlds."""
        for process in workers_of(self.run):
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(process.cmdline()):
                    process.send_signal(number)


# Faults of a running process. Those that end it wait for the end.


def kill(it: Shaken) -> None:
    it.run.kill()
    it.run.wait(WAIT_SECONDS)


def terminate(it: Shaken) -> None:
    it.run.terminate()
    it.run.wait(WAIT_SECONDS)


def interrupt(it: Shaken) -> None:
    it.run.send_signal(signal.SIGINT)
    it.run.wait(WAIT_SECONDS)


def interrupt_twice(it: Shaken) -> None:
    it.run.send_signal(signal.SIGINT)
    time.sleep(it.draw.uniform(0, 0.2))
    it.run.send_signal(signal.SIGINT)
    it.run.wait(WAIT_SECONDS)


def freeze(it: Shaken) -> None:
    it.run.send_signal(signal.SIGSTOP)
    time.sleep(it.draw.uniform(0, 5))
    it.run.send_signal(signal.SIGCONT)


def freeze_workers(it: Shaken) -> None:
    it.signal_workers(signal.SIGSTOP)
    time.sleep(it.draw.uniform(0, 5))
    it.signal_workers(signal.SIGCONT)


def fill_the_disk(it: Shaken) -> None:
    """No file of this process may grow beyond a few kilobytes any more: its writes fail as on a full disk."""
    with suppress(ProcessLookupError):
        resource.prlimit(
            it.run.pid, resource.RLIMIT_FSIZE, (it.draw.randrange(100_000), resource.RLIM_INFINITY)
        )
    time.sleep(it.draw.uniform(0, 5))
    terminate(it)


def take_the_directory_away(it: Shaken) -> None:
    elsewhere = it.run_dir.with_suffix(".elsewhere")
    it.run_dir.rename(elsewhere)
    it.run.wait(WAIT_SECONDS)
    elsewhere.rename(it.run_dir)


def start_a_second(it: Shaken) -> None:
    it.run.send_signal(signal.SIGSTOP)  # so that it does not end meanwhile
    if is_locked(it.run_dir) and (status := start(it.run_dir).wait(WAIT_SECONDS)) != 1:
        raise Lost(f"a second run in the same directory ended with {status}")
    it.run.send_signal(signal.SIGCONT)


def is_locked(run_dir: Path) -> bool:
    """Return whether a run holds this directory: neither before its start nor after its end."""
    try:
        with (run_dir / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


EXACT: list[Callable[[Shaken], None]] = [
    kill, kill, kill, terminate, interrupt, interrupt_twice, freeze, freeze_workers, fill_the_disk,
    take_the_directory_away, start_a_second,
]  # fmt: skip


# Faults of the workers, which discard their episodes


def kill_workers(it: Shaken) -> None:
    it.signal_workers(signal.SIGKILL)


def hang_workers(it: Shaken) -> None:
    it.signal_workers(signal.SIGSTOP)


DISCARDING = [kill_workers, kill_workers, hang_workers, kill, terminate]


# Faults of a directory at rest, at most one between two good saves: two generations are kept, not three


def newest_state(run_dir: Path) -> Path | None:
    """Return the newest state file, if it is there and there is one before it to fall back to."""
    manifests = sorted((run_dir / "checkpoint").glob("*.json"))
    if len(manifests) < 2:
        return None
    state = manifests[-1].with_name(f"{manifests[-1].stem}-state.pt")
    return state if state.exists() else None


def flip_a_bit(state: Path, draw: random.Random) -> None:
    data = bytearray(state.read_bytes())
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    state.write_bytes(data)


def cut_short(state: Path, draw: random.Random) -> None:
    state.write_bytes(state.read_bytes()[: draw.randrange(state.stat().st_size + 1)])


def delete(state: Path, draw: random.Random) -> None:
    state.unlink()


def overwrite_the_manifest(state: Path, draw: random.Random) -> None:
    state.with_name(state.name.replace("-state.pt", ".json")).write_bytes(
        draw.randbytes(draw.randrange(2000))
    )


RESTING = [flip_a_bit, cut_short, delete, overwrite_the_manifest]


def manifests(run_dir: Path) -> set[str]:
    """Return the checkpoints that a run has now, by name."""
    return {path.name for path in (run_dir / "checkpoint").glob("*.json")}


def await_a_moment(run: subprocess.Popen[bytes], run_dir: Path, draw: random.Random) -> bool:
    """Wait for a random moment, of the start-up or of training; return whether the run still runs then."""
    before = manifests(run_dir)
    deadline = time.monotonic() + (draw.uniform(0, 20) if draw.random() < 0.2 else WAIT_SECONDS)
    while run.poll() is None and manifests(run_dir) <= before and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(draw.uniform(0, 3))
    return run.poll() is None


def failed_too_often(run: subprocess.Popen[bytes], run_dir: Path) -> bool:
    """Return whether a run ended since one worker failed more often than is mended."""
    said = run_dir.with_suffix(".log").read_text(encoding="utf-8").splitlines()
    return run.poll() == 1 and "times within" in said[-1]


def shake(
    run_dir: Path,
    draw: random.Random,
    faults: Sequence[Callable[[Shaken], None]],
    note: Callable[[str], None],
) -> None:
    """Train under faults until the run has ended by itself.

    Raises:
        Lost: it did not end well, or left a process behind.
    """
    run = start(run_dir)
    while await_a_moment(run, run_dir, draw) or failed_too_often(run, run_dir):
        if run.returncode == 1:  # its workers were killed four times in a row: all is saved
            run = start(run_dir)
            continue
        workers, fault, began = workers_of(run), draw.choice(faults), time.monotonic()
        fault(Shaken(run, run_dir, draw))
        note(f"{fault.__name__}, {time.monotonic() - began:.1f} s")
        if run.poll() is None:
            continue
        for process in workers:  # what hangs by our doing cannot end by itself
            with suppress(psutil.NoSuchProcess):
                process.resume()
        _, left = psutil.wait_procs(workers, timeout=WAIT_SECONDS)
        if left:
            raise Lost(f"left behind: {left}")
        if draw.random() < 0.3 and (state := newest_state(run_dir)) is not None:
            damage = draw.choice(RESTING)
            damage(state, draw)
            note(damage.__name__)
        run = start(run_dir)
    if run.returncode != 0:
        raise Lost(f"ended with {run.returncode}; see {run_dir.with_suffix('.log').name}")


def tables(run_dir: Path) -> list[list[dict[str, str]]]:
    """Return training and evaluation without the columns that a clock fills."""
    found = []
    for name in ("train.csv", "eval.csv"):
        with (run_dir / name).open(newline="") as file:
            found.append(
                [{k: v for k, v in row.items() if k not in CLOCK_COLUMNS} for row in csv.DictReader(file)]
            )
    return found


def weights(run_dir: Path) -> list[torch.Tensor]:
    agent = Checkpoints(run_dir).load()["agent"]
    return [
        value for part in ("encoder", "actor", "critic", "target_critic") for value in agent[part].values()
    ]


def require_equal(run_dir: Path, calm: Path) -> None:
    if tables(run_dir) != tables(calm):
        raise Lost("the tables differ")
    if not all(map(torch.equal, weights(run_dir), weights(calm))):
        raise Lost("the weights differ")


def require_whole(run_dir: Path) -> None:
    training, evaluation = tables(run_dir)
    episodes = [int(row["episode"]) for row in training]
    if episodes != list(range(1, len(episodes) + 1)):
        raise Lost(f"episodes are missing or repeated: {episodes}")
    if [row["frame"] for row in evaluation] != ["0", "1500", str(FRAMES)]:
        raise Lost("evaluations are missing or repeated")
    if Checkpoints(run_dir).load()["counters"]["agent_step"] * 2 != FRAMES:
        raise Lost("frames are missing or repeated")


def quarters(samples: Sequence[float]) -> str:
    """Write the medians of the second and of the last quarter."""
    size = max(1, len(samples) // 4)
    return f"{statistics.median(samples[size : 2 * size]):.0f} -> {statistics.median(samples[-size:]):.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="no new round begins after")
    parser.add_argument("--seed", type=int, default=0, help="of faults and moments")
    parser.add_argument("--directory", type=Path, default=Path("soak"), help="for runs, logs and soak.csv")
    given = parser.parse_args()
    given.directory.mkdir(parents=True)
    draw, began, shared_memory = random.Random(given.seed), time.monotonic(), set(Path("/dev/shm").iterdir())
    faults = lost = rounds = 0
    megabytes: list[float] = []
    open_files: list[int] = []
    endless_dir = given.directory / "endless"
    endless = start(endless_dir, ENDLESS)
    atexit.register(endless.kill)
    psutil.Process(endless.pid).nice(5)  # the rounds come first
    with (given.directory / "soak.csv").open("w", newline="", buffering=1) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["minute", "round", "event"])

        def line(event: str) -> None:
            table.writerow([f"{(time.monotonic() - began) / 60:.2f}", rounds, event])

        def note(fault: str) -> None:
            nonlocal faults
            faults += 1
            line(fault)
            if manifests(endless_dir) and endless.poll() is None:
                processes = [psutil.Process(endless.pid), *workers_of(endless)]
                megabytes.append(sum(process.memory_info().rss for process in processes) / 1e6)
                open_files.append(sum(process.num_fds() for process in processes))

        calm = given.directory / "calm"
        if start(calm).wait() != 0:
            raise SystemExit(f"the run in peace failed; see {calm.with_suffix('.log')}")
        while time.monotonic() - began < 60 * given.minutes:
            run_dir, discarding = given.directory / f"{rounds:04d}", rounds % 4 == 3
            verdict = "whole" if discarding else "equal"
            try:
                shake(run_dir, draw, DISCARDING if discarding else EXACT, note)
                if discarding:
                    require_whole(run_dir)
                else:
                    require_equal(run_dir, calm)
            except Lost as loss:
                lost += 1
                verdict = f"LOST: {loss}"
            line(verdict)
            print(f"round {rounds}, {faults} faults so far: {verdict}", flush=True)
            rounds += 1
        asked = time.monotonic()
        endless.terminate()
        lost += endless.wait(WAIT_SECONDS) != 128 + signal.SIGTERM
        leaked = set(Path("/dev/shm").iterdir()) - shared_memory
        frames = Checkpoints(endless_dir).load()["counters"]["agent_step"] * 2
        summary = (
            f"{rounds} rounds, {faults} faults, {lost} lost anything; left in shared memory: "
            f"{[path.name for path in leaked]}; the process beside: {frames} frames, "
            f"memory {quarters(megabytes)} MB and open files {quarters(open_files)} (second -> last quarter), "
            f"stopped {time.monotonic() - asked:.1f} s after it was asked to"
        )
        line(summary)
        print(summary)
    return 1 if lost or leaked else 0


if __name__ == "__main__":
    sys.exit(main())
