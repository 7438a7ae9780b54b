"""Train under random faults for a long time, and compare every run with one that nothing disturbed.

    python benchmarks/soak.py --minutes 60 --seed 0 --directory soak

Round after round, one small run of the toy task is trained in peace, and again under faults drawn from `--seed`:
kills, signals, frozen processes, a disk that takes no more, flipped bits, files cut short or deleted. After each
fault the run is resumed. In the end tables and weights must be equal, and no process and no shared memory may be
left. Memory and open files are those of the run in peace, in its second and in its last quarter.

Every fault and every round is a line of `soak.csv`. Exit status 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch

from pixelcontrol.checkpoint import Checkpoints

COMMAND = [sys.executable, "-c", "import sys; from pixelcontrol.cli import main; sys.exit(main())"]
FLAGS = [
    "--frames=3000", "--envs=2", "--workers=1", "--image-size=24", "--batch-size=16", "--hidden-dim=32",
    "--conv-filters=4", "--seed-frames=200", "--exploration-steps=100", "--eval-every-frames=1500",
    "--eval-episodes=2", "--save-every-frames=100", "--device=cpu", "--precision=fp32",
]  # fmt: skip
CLOCK_COLUMNS = {"hour", "frames_per_second"}
WAIT_SECONDS = 300


def start(run_dir: Path, seed: int) -> subprocess.Popen[bytes]:
    """Begin a run, or resume it if it has begun."""
    begun = (run_dir / "config.json").exists()
    arguments = (
        ["--resume", str(run_dir)] if begun else ["toy_reach", f"--seed={seed}", f"--out={run_dir}", *FLAGS]
    )
    with run_dir.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [*COMMAND, "train", *arguments], stdout=log, stderr=log, start_new_session=True
        )


# Faults of a running process


def kill(run: subprocess.Popen[bytes], draw: random.Random) -> None:
    run.kill()


def terminate(run: subprocess.Popen[bytes], draw: random.Random) -> None:
    run.terminate()


def interrupt_twice(run: subprocess.Popen[bytes], draw: random.Random) -> None:
    run.send_signal(signal.SIGINT)
    time.sleep(draw.uniform(0, 0.2))
    run.send_signal(signal.SIGINT)


def freeze(run: subprocess.Popen[bytes], draw: random.Random) -> None:
    run.send_signal(signal.SIGSTOP)
    time.sleep(draw.uniform(0, 5))
    run.send_signal(signal.SIGCONT)


def fill_the_disk(run: subprocess.Popen[bytes], draw: random.Random) -> None:
    """No file of this process may grow beyond a few kilobytes any more: its writes fail as on a full disk."""
    resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (draw.randrange(100_000), resource.RLIM_INFINITY))
    time.sleep(draw.uniform(0, 5))
    run.terminate()


RUNNING: list[Callable[[subprocess.Popen[bytes], random.Random], None]] = [
    kill, kill, kill, terminate, interrupt_twice, freeze, fill_the_disk,
]  # fmt: skip


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
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    state.write_bytes(data)


def cut_short(state: Path, draw: random.Random) -> None:
    state.write_bytes(state.read_bytes()[: draw.randrange(state.stat().st_size)])


def delete(state: Path, draw: random.Random) -> None:
    state.unlink()


RESTING = [flip_a_bit, cut_short, delete]


def disturbed(run_dir: Path, seed: int, draw: random.Random, note: Callable[[str], None]) -> bool:
    """Train under faults until the run has ended by itself; return whether it ended well."""
    while True:
        run = start(run_dir, seed)
        try:
            return run.wait(timeout=draw.uniform(2, 10)) == 0
        except subprocess.TimeoutExpired:
            workers = psutil.Process(run.pid).children(recursive=True)
        fault = draw.choice(RUNNING)
        fault(run, draw)
        note(fault.__name__)
        if run.wait(timeout=WAIT_SECONDS) == 0:
            return True
        _, left = psutil.wait_procs(workers, timeout=WAIT_SECONDS)
        if left:
            note(f"left behind: {left}")
            return False
        if draw.random() < 0.3 and (state := newest_state(run_dir)) is not None:
            damage = draw.choice(RESTING)
            damage(state, draw)
            note(damage.__name__)


def in_peace(run_dir: Path, seed: int) -> tuple[list[float], list[int]]:
    """Train undisturbed; return memory in megabytes and open files, sampled while it ran."""
    run = start(run_dir, seed)
    process, megabytes, open_files = psutil.Process(run.pid), [], []
    while run.poll() is None:
        try:
            megabytes.append(process.memory_info().rss / 1e6)
            open_files.append(process.num_fds())
        except psutil.Error:
            break  # it has just ended
        time.sleep(0.1)
    if run.wait() != 0:
        raise SystemExit(f"the run in peace failed; see {run_dir.with_suffix('.log')}")
    return megabytes, open_files


def quarters(samples: Sequence[float]) -> str:
    """Write the medians of the second and of the last quarter."""
    size = max(1, len(samples) // 4)
    return f"{statistics.median(samples[size : 2 * size]):.0f} -> {statistics.median(samples[-size:]):.0f}"


def outcome(run_dir: Path) -> tuple[list[list[dict[str, str]]], list[torch.Tensor]]:
    """Return the tables, without the columns that a clock fills, and the weights."""
    tables = []
    for name in ("train.csv", "eval.csv"):
        with (run_dir / name).open(newline="") as file:
            tables.append(
                [{k: v for k, v in row.items() if k not in CLOCK_COLUMNS} for row in csv.DictReader(file)]
            )
    agent = Checkpoints(run_dir).load()["agent"]
    parts = ("encoder", "actor", "critic", "target_critic")
    return tables, [value for part in parts for value in agent[part].values()]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="no new round begins after")
    parser.add_argument("--seed", type=int, default=0, help="of faults and moments, and of the first run")
    parser.add_argument("--directory", type=Path, default=Path("soak"), help="for runs, logs and soak.csv")
    given = parser.parse_args()
    given.directory.mkdir(parents=True)
    draw, began, shared_memory = random.Random(given.seed), time.monotonic(), set(Path("/dev/shm").iterdir())
    faults = losses = rounds = 0
    with (given.directory / "soak.csv").open("w", newline="", buffering=1) as file:
        table = csv.writer(file)
        table.writerow(["minute", "round", "event"])
        while time.monotonic() - began < 60 * given.minutes:

            def note(event: str) -> None:
                nonlocal faults
                faults += 1
                table.writerow([f"{(time.monotonic() - began) / 60:.2f}", rounds, event])  # noqa: B023

            calm, shaken = (given.directory / f"{rounds:04d}-{kind}" for kind in ("calm", "shaken"))
            megabytes, open_files = in_peace(calm, given.seed + rounds)
            went_on = disturbed(shaken, given.seed + rounds, draw, note)
            tables, weights = outcome(calm)
            shaken_tables, shaken_weights = outcome(shaken)
            same = went_on and tables == shaken_tables and all(map(torch.equal, weights, shaken_weights))
            losses += not same
            verdict = "equal" if same else "LOST"
            summary = f"{verdict}; memory {quarters(megabytes)} MB, open files {quarters(open_files)}"
            table.writerow([f"{(time.monotonic() - began) / 60:.2f}", rounds, summary])
            print(f"round {rounds}, {faults} faults so far: {summary}", flush=True)
            rounds += 1
    leaked = set(Path("/dev/shm").iterdir()) - shared_memory
    print(
        f"{rounds} rounds, {faults} faults in {(time.monotonic() - began) / 60:.1f} minutes; "
        f"{losses} runs lost anything; left in shared memory: {[path.name for path in leaked]}"
    )
    return 1 if losses or leaked else 0


if __name__ == "__main__":
    sys.exit(main())
