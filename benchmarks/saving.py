"""How long a checkpoint stops training, and that this depends on what is new and not on the size of the replay.

    python benchmarks/saving.py --gigabytes 4 --new-steps 50000 --directory .

Fills a ring, saves it whole once, then saves three times with `--new-steps` more agent steps of images. The
default is what the default `--save-every-frames` of 100,000 leaves between two saves at action repeat 2. The time
of the processor is given beside that of the clock: on a machine shared with others only the first is ours.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pixelcontrol.checkpoint import Checkpoints
from pixelcontrol.replay import Replay

WORLDS = 16
ROW_MEGABYTES = WORLDS * 3 * 84 * 84 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the ring")
    parser.add_argument("--new-steps", type=int, default=50_000, help="agent steps between saves")
    parser.add_argument("--directory", type=Path, default=Path("."), help="on the disk to measure")
    parser.add_argument("--device", default="cpu", help="where the images live")
    given = parser.parse_args()

    rows = int(given.gigabytes * 1e3 / ROW_MEGABYTES)
    new_rows = given.new_steps // WORLDS
    device = torch.device(given.device)
    images = torch.randint(0, 256, (rows, WORLDS, 3, 84, 84), dtype=torch.uint8, device=device)
    replay = Replay(images, action_dim=6, n_step=3, gamma=0.99, frame_stack=3, device=device, seed=0)
    replay.rows_added = rows
    with tempfile.TemporaryDirectory(dir=given.directory) as folder:
        checkpoints = Checkpoints(Path(folder))
        for new in (rows, new_rows, new_rows, new_rows):
            replay.rows_added += new if new != rows else 0
            report(f"saved {new * ROW_MEGABYTES:.0f} MB of new images", lambda: checkpoints.save({}, replay))
        report(
            f"verified and loaded {rows * ROW_MEGABYTES:.0f} MB",
            lambda: Checkpoints(Path(folder)).load(replay),
        )


def report(what: str, action: Callable[[], object]) -> None:
    """Do it, and print how long it took."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{what}: {wall:.2f} s, of which {processor:.2f} s of processor", flush=True)


if __name__ == "__main__":
    main()
