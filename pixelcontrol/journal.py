"""What becomes of what happens in a run: rows of tables, TensorBoard's events, the live line, curve and film."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pixelcontrol import advice, machine
from pixelcontrol.build import Hardware
from pixelcontrol.config import Config
from pixelcontrol.evaluate import Evaluation
from pixelcontrol.experiments.figures import run_curve
from pixelcontrol.experiments.runs import EVAL_COLUMNS, IDENTITY, POSITION
from pixelcontrol.logger import CsvLog, EventLog, Progress, write_video

TRAIN_COLUMNS = (*IDENTITY, *POSITION, "episode", "episode_return", "episode_frames", "frames_per_second")


class Journal:
    """The journal of one run. A `position` is where the run stands then: a value for each name in `POSITION`."""

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        hardware: Hardware,
        renderer: str,
        metric_names: Sequence[str],
        progress: Progress,
        *,
        tells_success: bool,
        frame: int,
        sizes: Mapping[str, int],
    ) -> None:
        """Begin the files of a run, or go on at `frame` with tables of the `sizes` that they had then.

        Where the worlds tell success, the tables have a column for it; those of before go on without.

        Raises:
            RunError: a table is shorter than it was.
        """
        self.config, self.run_dir, self.progress = config, run_dir, progress
        self.identity = {"agent": config.agent, "task": config.task, "seed": config.seed}
        self.made_with = {
            "preset": config.preset,
            "renderer": renderer,
            "precision": hardware.precision,
            "envs": hardware.envs,
            "commit": machine.commit(),
        }
        success, rate = (("success",), ("success_rate",)) if tells_success else ((), ())
        columns = (*TRAIN_COLUMNS, *success, *metric_names)
        self.train_log = CsvLog(run_dir / "train.csv", columns, sizes.get("train"))
        self.eval_log = CsvLog(run_dir / "eval.csv", (*EVAL_COLUMNS, *rate), sizes.get("eval"))
        for table in (self.train_log, self.eval_log):
            if table.lacking:
                progress.say(f"  note: {table.file.name} was begun without {', '.join(table.lacking)}")
        # what was noted at a checkpoint's own frame is not noted again
        self.board = EventLog(run_dir / "tensorboard", frame + 1 if sizes else 0)
        self.artist = ThreadPoolExecutor(max_workers=1)
        self.pictures: Future[None] | None = None
        self.warned_of_episodes = False

    def sizes(self) -> dict[str, int]:
        """Return how long the tables are, once all of them is on the disk: what a checkpoint remembers."""
        return {"train": self.train_log.size_bytes(), "eval": self.eval_log.size_bytes()}

    def metrics(self, position: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Take note of an update's metrics."""
        speed = {"frames_per_second": self.progress.frames_per_second}
        values = {f"learn/{name}": value for name, value in {**metrics, **speed}.items()}
        self.board.append(values, position["frame"])
        self.progress.learned(metrics)

    def episode(
        self,
        position: Mapping[str, Any],
        episode: int,
        episode_return: float,
        episode_frames: int,
        metrics: Mapping[str, float],
        success: bool | None = None,
    ) -> None:
        """Take note of an episode's end, and of the metrics of then; `episode` counts those that have ended."""
        row: dict[str, float] = {
            "episode": episode,
            "episode_return": episode_return,
            "episode_frames": episode_frames,
            "frames_per_second": self.progress.frames_per_second,
        }
        if success is not None:
            row["success"] = int(success)
        self.train_log.append({**self.identity, **position, **row, **metrics})
        self.board.append({f"train/{name}": value for name, value in row.items()}, position["frame"])
        self.progress.episode(episode_return)
        if not self.warned_of_episodes:
            self.warned_of_episodes = self._warn(advice.on_episode(self.config, episode_frames))

    def evaluation(self, position: Mapping[str, Any], outcome: Evaluation) -> None:
        """Take note of an evaluation, and begin to draw it."""
        self.finish_pictures()  # which read the table
        frame = position["frame"]
        row = {"episode_return": outcome.mean, "episode_return_std": outcome.std}
        if outcome.success_rate is not None:
            row["success_rate"] = outcome.success_rate
        counted = {"episodes": len(outcome.returns), **self.made_with}
        self.eval_log.append({**self.identity, **position, **row, **counted})
        self.board.append({f"eval/{name}": value for name, value in row.items()}, frame)
        self.progress.say(f"frame {frame:>11,}  eval return {outcome}")
        self._warn(advice.on_evaluation(self.config, frame, outcome))
        self.draw(outcome.video)

    def _warn(self, warnings: Iterable[str]) -> bool:
        """Say each warning; return whether there was one."""
        warned = False
        for words in warnings:
            self.progress.say(f"warning: {words}")
            warned = True
        return warned

    def draw(self, video: UInt8[np.ndarray, "images height width 3"] | None = None) -> None:
        """Begin to write curve and film, in a thread: they take as long as thousands of updates on a GPU."""
        self.pictures = self.artist.submit(self._draw, video)

    def _draw(self, video: UInt8[np.ndarray, "images height width 3"] | None) -> None:
        run_curve(self.run_dir)
        gc.collect()  # a figure is held by cycles: 1.5 MB more at every evaluation otherwise
        if video is not None:
            write_video(self.run_dir / "eval.mp4", video)

    def finish_pictures(self) -> None:
        """Wait for curve and film of the evaluation before; say what went wrong."""
        try:
            if self.pictures is not None:
                self.pictures.result()
        except Exception as error:  # noqa: BLE001  no picture is worth a run
            self.progress.say(f"warning: an evaluation's film or curve could not be written: {error}")
        self.pictures = None

    def close(self) -> None:
        """Close the files, once the pictures are finished."""
        try:
            self.finish_pictures()
        finally:
            self.artist.shutdown()
            for part in (self.train_log, self.eval_log, self.board):
                part.close()
