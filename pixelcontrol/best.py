"""The policy of the best evaluation so far, kept in a run's `best/` as a run of its own.

With it one can do all but resume it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pixelcontrol.checkpoint import CheckpointError, Checkpoints
from pixelcontrol.rundir import read_json, write_json


class BestPolicy:
    """The best policy of one run.

    Attributes:
        episode_return: of the evaluation that it is from; -inf before the first.
    """

    def __init__(self, run_dir: Path, say: Callable[[str], None], *, resumed: bool) -> None:
        """Recall what is kept in `run_dir`, if that run is `resumed`, or remove it; that it is lost is said."""
        self.run_dir = run_dir
        self.checkpoints = Checkpoints(run_dir / "best")
        self.episode_return = -math.inf
        if not resumed:  # what a run left here that was killed before its first save
            shutil.rmtree(self.checkpoints.directory, ignore_errors=True)
        elif self.checkpoints.exist():
            try:
                self.episode_return = self.checkpoints.load()["episode_return"]
            except CheckpointError as error:
                say(f"  warning: the best policy so far is lost: {error}")
                shutil.rmtree(run_dir / "best")

    def keep(self, state: Mapping[str, Any], episode_return: float) -> None:
        """Save what was learned so far in place of the best policy before.

        Raises:
            CheckpointNotSaved, OSError: the disk did not take it; the one before stands.
        """
        folder = self.run_dir / "best"
        folder.mkdir(exist_ok=True)
        write_json(folder / "config.json", read_json(self.run_dir / "config.json"))
        self.checkpoints.save({**state, "episode_return": episode_return}, None)
        self.episode_return = episode_return
