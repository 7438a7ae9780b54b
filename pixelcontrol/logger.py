"""What a run says and writes while it goes: tidy CSVs, TensorBoard events, one live line, a video."""

from __future__ import annotations

import csv
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from jaxtyping import UInt8

from pixelcontrol.errors import RunError

PLAIN_LINE_EVERY_SECONDS = 30.0
LIVE_LINE_EVERY_SECONDS = 0.2
VIDEO_WIDTH = 336
IMAGES_PER_SECOND = 30


class CsvLog:
    """Appends rows to a CSV file, each on disk before the next begins."""

    def __init__(self, path: Path, columns: Sequence[str], keep_bytes: int | None = None) -> None:
        """Start a new file with a header, or continue after its first `keep_bytes` bytes."""
        self.columns = list(columns)
        if keep_bytes is None:
            self.file = path.open("w", newline="", encoding="utf-8")
        else:
            self.file = path.open("r+", newline="", encoding="utf-8")
            if (found := path.stat().st_size) < keep_bytes:
                raise RunError(
                    f"{path} has {found} bytes and had {keep_bytes} at the checkpoint; copy it back"
                )
            self.file.truncate(keep_bytes)
            self.file.seek(keep_bytes)
        self.writer = csv.DictWriter(self.file, self.columns)
        if keep_bytes is None:
            self.writer.writeheader()
            self.file.flush()

    def append(self, row: Mapping[str, object]) -> None:
        """Write one row; columns that `row` lacks stay empty."""
        self.writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        self.file.flush()

    def size_bytes(self) -> int:
        """How long the file is, once all of it is on the disk: what a checkpoint remembers."""
        os.fsync(self.file.fileno())
        return self.file.tell()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Progress:
    """One line that lives in a terminal; elsewhere, a plain line now and then."""

    def __init__(self, total_frames: int) -> None:
        self.total_frames = total_frames
        self.live = sys.stderr.isatty()
        self.next_line = 0.0
        self.last_return = math.nan
        self.losses = ""

    def say(self, words: str) -> None:
        """Print a line that stays."""
        print(f"\r\033[K{words}" if self.live else words, file=sys.stderr, flush=True)

    def episode(self, episode_return: float, metrics: Mapping[str, float]) -> None:
        """Take note of a finished episode for the lines to come."""
        self.last_return = episode_return
        self.losses = "  ".join(f"{name} {metrics[name]:.3g}" for name in metrics if name.endswith("_loss"))

    def frame(self, frame: int, frames_per_second: float) -> None:
        """Show where training stands, if the last time was long enough ago."""
        now = time.monotonic()
        if now < self.next_line:
            return
        self.next_line = now + (LIVE_LINE_EVERY_SECONDS if self.live else PLAIN_LINE_EVERY_SECONDS)
        left = (self.total_frames - frame) / frames_per_second if frames_per_second > 0 else math.inf
        last = "" if math.isnan(self.last_return) else f"return {self.last_return:.1f}  "
        line = (
            f"{frame:,}/{self.total_frames:,} frames  {frames_per_second:.0f} frames/s  {last}{self.losses}  "
            f"{clock(left)} left"
        )
        end = "" if self.live else "\n"
        print(f"\r\033[K{line}" if self.live else line, end=end, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Write a duration as people read it: "1h02m", "3m05s" or "12s"; "?" when it is not known yet."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def write_video(path: Path, video: UInt8[np.ndarray, "images height width 3"]) -> None:
    """Write an mp4 or GIF of 30 images per second.

    They are enlarged without smoothing, so that one sees the pixels that the agent sees.
    """
    zoom = max(1, VIDEO_WIDTH // video.shape[2])
    large = video.repeat(zoom, axis=1).repeat(zoom, axis=2)
    even = large[:, : large.shape[1] // 2 * 2, : large.shape[2] // 2 * 2]
    temporary = path.with_suffix(f".tmp{path.suffix}")
    if path.suffix == ".gif":
        imageio.imwrite(temporary, even, duration=1000 / IMAGES_PER_SECOND, loop=0)
    else:
        imageio.imwrite(
            temporary, even, fps=IMAGES_PER_SECOND, macro_block_size=2, output_params=["-crf", "18"]
        )
    temporary.replace(path)
