"""How long a checkpoint stops training, and that this depends on what is new and not on the size of the replay.

    python benchmarks/saving.py --gigabytes 21.4 --new-steps 10000 50000 --tier disk --directory .

Saves a ring whole once, and then after so many new agent steps of images each. The default is what the default
`--save-every-frames` of 100,000 leaves between two saves at action repeat 2. The time of the processor is given
beside that of the clock: on a machine shared with others only the first is ours.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pixelcontrol.checkpoint import Checkpoints
from pixelcontrol.replay import TransitionReplay
from pixelcontrol.storage import Storage, allocate

WORLDS = 16
ROW_BYTES = WORLDS * 3 * 84 * 84


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the ring")
    parser.add_argument(
        "--new-steps", type=int, nargs="+", default=[50_000], help="agent steps between saves"
    )
    parser.add_argument("--directory", type=Path, default=Path("."), help="on the disk to measure")
    parser.add_argument("--tier", choices=("gpu", "ram", "disk"), default="ram", help="where the images live")
    given = parser.parse_args()

    rows = int(given.gigabytes * 1e9 / ROW_BYTES)
    device = torch.device("cuda" if given.tier == "gpu" else "cpu")
    with tempfile.TemporaryDirectory(dir=given.directory) as folder:
        place = Storage(given.tier, rows * ROW_BYTES, "as asked")
        images = allocate((rows, WORLDS, 3, 84, 84), place, device, Path(folder))
        replay = TransitionReplay(
            images,
            action_dim=6,
            n_step=3,
            gamma=0.99,
            frame_stack=3,
            device=device,
            generator=torch.Generator(images.device),
        )
        checkpoints = Checkpoints(Path(folder))
        for new in (rows, *(steps // WORLDS for steps in given.new_steps)):
            first = replay.rows_added % rows
            if replay.rows_added:  # as training leaves it; what the ring held long before is on the disk
                images[first : first + new].random_(256)
            replay.rows_added += new
            print(f"{new * WORLDS:,} new agent steps, {new * ROW_BYTES / 1e6:,.0f} MB of images", flush=True)
            report("  training waits", lambda: checkpoints.begin_save({}, replay))
            report("  until the checkpoint counts, beside training", checkpoints.finish_save)
        report("loaded with every byte compared", lambda: Checkpoints(Path(folder)).load(replay))


def report(what: str, action: Callable[[], object]) -> None:
    """Do it, and print how long it took."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{what}: {wall:.2f} s, of which {processor:.2f} s of processor", flush=True)


if __name__ == "__main__":
    main()
