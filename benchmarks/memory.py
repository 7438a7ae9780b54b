"""Memory and open files of one process over a run of the full length, which must not grow once the ring is full.

    python benchmarks/memory.py --frames 3_000_000 --out memory.csv

The command line itself trains the toy task, with the ring of a million transitions, a checkpoint every 100,000
frames and evaluations, as long runs have them. So that it ends within minutes on a CPU, images have 16x16 pixels
and there is an update every 500 agent steps. Episodes have 50 frames, so the tables grow twenty times as fast as a
control task's. Sizes are resident memory, of the process and of its workers.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from pixelcontrol.experiments.forecast import last_row

COMMAND = [
    sys.executable, "-m", "pixelcontrol", "train", "toy_reach",
    "--envs=64", "--workers=1", "--image-size=16", "--hidden-dim=64", "--update-every-agent-steps=500",
    "--eval-every-frames=200_000", "--eval-episodes=10", "--device=cpu", "--precision=fp32",
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", default="3_000_000", help="environment frames")
    parser.add_argument("--seconds", type=float, default=5.0, help="between samples")
    parser.add_argument("--out", type=Path, default=Path("memory.csv"), help="table to write")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, given.out.open("w", newline="", buffering=1) as file:
        run_dir, table = Path(folder) / "run", csv.writer(file, lineterminator="\n")
        table.writerow(["frame", "seconds", "process_mb", "workers_mb", "open_files"])
        began = time.monotonic()
        run = subprocess.Popen([*COMMAND, f"--frames={given.frames}", f"--out={run_dir}"])
        while True:
            with suppress(subprocess.TimeoutExpired):
                return run.wait(given.seconds)
            try:
                process = psutil.Process(run.pid)
                workers = process.children(recursive=True)
                megabytes = [part.memory_info().rss / 1e6 for part in (process, *workers)]
                open_files, frame = process.num_fds(), int(last_row(run_dir / "train.csv").get("frame", 0))
            except psutil.Error:
                continue  # it has not begun, or it or a process that it had started has just ended
            row = [frame, f"{time.monotonic() - began:.0f}", f"{megabytes[0]:.0f}"]
            table.writerow([*row, f"{sum(megabytes[1:]):.0f}", open_files])


if __name__ == "__main__":
    sys.exit(main())
