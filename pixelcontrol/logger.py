"""How a run says and writes what happens: tidy CSVs, TensorBoard events, one live line, a video."""

from __future__ import annotations

import csv
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
from jaxtyping import UInt8
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from pixelcontrol.errors import RunError

PLAIN_LINE_EVERY_SECONDS = 30.0
LIVE_LINE_EVERY_SECONDS = 0.2
SPEED_WINDOW_SECONDS = 10.0
VIDEO_WIDTH = 336
IMAGES_PER_SECOND = 30


class CsvLog:
    """Appends rows to a CSV file, each handed to the system before the next begins.

    Attributes:
        lacking: wanted columns that a continued file was begun without; their values are not written.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep_bytes: int | None = None) -> None:
        """Start a new file with a header, or continue after its first `keep_bytes` bytes, with its own columns."""
        self.lacking: list[str] = []
        if keep_bytes is None:
            self.file = path.open("w", newline="", encoding="utf-8")
        else:
            self.file = path.open("r+", newline="", encoding="utf-8")
            if (found := path.stat().st_size) < keep_bytes:
                raise RunError(
                    f"{path} has {found} bytes and had {keep_bytes} at the checkpoint; copy it back"
                )
            wanted, columns = columns, self.file.readline().strip().split(",")
            self.lacking = [name for name in wanted if name not in columns]
            self.file.truncate(keep_bytes)
            self.file.seek(keep_bytes)
        self.writer = csv.DictWriter(
            self.file, list(columns), extrasaction="ignore" if self.lacking else "raise"
        )
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


class EventLog:
    """Appends numbers to a file that TensorBoard shows.

    Unusual: TensorBoard's own writer works in a thread, which prints a traceback when the disk is full or the
    directory gone, and opens the file anew at every flush. Here both are as with a table.
    """

    def __init__(self, directory: Path, begin_at: int) -> None:
        """Start a new file in `directory`; TensorBoard then ignores older ones from frame `begin_at` on."""
        directory.mkdir(exist_ok=True)
        # Read in the order of their names, which no clock may change.
        numbers = [int(path.name.rpartition(".")[2]) for path in directory.glob("events.out.tfevents.*")]
        name = f"events.out.tfevents.{max(numbers, default=-1) + 1:010d}"
        self.file = (directory / name).open("wb")
        self.records = RecordWriter(self.file)
        self._write(file_version="brain.Event:2")
        self._write(step=begin_at, session_log=SessionLog(status=SessionLog.START))

    def append(self, values: Mapping[str, float], frame: int) -> None:
        """Write one point of each named curve."""
        self._write(
            step=frame,
            summary=Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()]),
        )

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _write(self, **content: Any) -> None:
        self.records.write(Event(wall_time=time.time(), **content).SerializeToString())
        self.file.flush()


class Progress:
    """One line that lives in a terminal; elsewhere, a plain line now and then.

    Attributes:
        frames_per_second: over the last seconds of training, with or without learning but never over both.
    """

    def __init__(self, total_frames: int, seed_frames: int) -> None:
        """Count to `total_frames`; the first `seed_frames` are made without learning, so they foretell nothing."""
        self.total_frames, self.seed_frames = total_frames, seed_frames
        self.frames_per_second = 0.0
        self.measure_from(0)
        self.live = sys.stderr.isatty()
        self.next_line = 0.0
        self.last_return = math.nan
        self.losses = ""

    def say(self, words: str) -> None:
        """Print a line that stays."""
        self._print(f"\r\033[K{words}\n" if self.live else f"{words}\n")

    def _print(self, text: str) -> None:
        with suppress(OSError):  # a terminal that was closed must not end a run
            print(text, end="", file=sys.stderr, flush=True)

    def episode(self, episode_return: float) -> None:
        """Take note of a finished episode for the lines to come."""
        self.last_return = episode_return

    def learned(self, metrics: Mapping[str, float]) -> None:
        """Take note of an update's metrics for the lines to come."""
        self.losses = "  ".join(f"{name} {metrics[name]:.3g}" for name in metrics if name.endswith("_loss"))

    def measure_from(self, frame: int) -> None:
        """Measure the speed anew, as if training began here and now."""
        self.since, self.from_frame, self.settled = time.monotonic(), frame, False

    def leave_out(self, seconds: float) -> None:
        """Let the last `seconds`, which were not training, not count."""
        self.since += seconds

    def frame(self, frame: int) -> None:
        """Measure the speed, and show where training stands, if the last time was long enough ago."""
        now = time.monotonic()
        if self.from_frame < self.seed_frames <= frame:
            self.measure_from(frame)
        elif (passed := now - self.since) > SPEED_WINDOW_SECONDS or not self.settled:
            self.frames_per_second = (frame - self.from_frame) / max(passed, 1e-9)
            if passed > SPEED_WINDOW_SECONDS:
                self.since, self.from_frame, self.settled = now, frame, True
        if now < self.next_line:
            return
        self.next_line = now + (LIVE_LINE_EVERY_SECONDS if self.live else PLAIN_LINE_EVERY_SECONDS)
        known = self.frames_per_second > 0 and frame > self.seed_frames
        left = (self.total_frames - frame) / self.frames_per_second if known else math.inf
        last = "" if math.isnan(self.last_return) else f"return {self.last_return:.1f}  "
        line = (
            f"{frame:,}/{self.total_frames:,} frames  {self.frames_per_second:.0f} frames/s  {last}{self.losses}  "
            f"{clock(left)} left"
        )
        self._print(f"\r\033[K{line}" if self.live else f"{line}\n")


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
    try:
        if path.suffix.lower() == ".gif":
            imageio.imwrite(temporary, even, duration=1000 / IMAGES_PER_SECOND, loop=0)
        else:
            imageio.imwrite(
                temporary, even, fps=IMAGES_PER_SECOND, macro_block_size=2, output_params=["-crf", "18"]
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
