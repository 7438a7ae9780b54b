"""A writer of run directories, so that the tests can say in numbers what training would have left behind."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pixelcontrol.experiments.runs import EVAL_COLUMNS

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path) -> WriteRun:
    """Returns a function that writes one run directory and returns its path."""
    return writer(tmp_path)


@pytest.fixture(scope="module")
def write_shared_run(tmp_path_factory) -> WriteRun:
    """The same for runs that a module's tests share."""
    return writer(tmp_path_factory.mktemp("shared"))


def writer(folder: Path) -> WriteRun:
    """Return a function that writes run directories into `runs` of a folder."""

    def write(
        agent: str = "drqv2",
        task: str = "cheetah_run",
        seed: int = 0,
        returns: Sequence[float] = (0.0, 100.0, 200.0),
        every_frames: int = 10_000,
        frames_per_second: float = 100.0,
        rates: Sequence[float | str] | None = None,
        **changes: str | int,
    ) -> Path:
        directory = folder / "runs" / f"{agent}_{task}_{seed}"
        directory.mkdir(parents=True)
        conditions = {
            "preset": "paper",
            "renderer": "warp",
            "precision": "float32",
            "envs": 16,
            "commit": "abc1234",
        } | changes
        with (directory / "eval.csv").open("w", newline="") as file:
            told = () if rates is None else ("success_rate",)
            table = csv.DictWriter(file, (*EVAL_COLUMNS, *told), lineterminator="\n")
            table.writeheader()
            for i, value in enumerate(returns):
                frame = i * every_frames
                table.writerow(
                    {
                        "agent": agent,
                        "task": task,
                        "seed": seed,
                        "frame": frame,
                        "agent_step": frame // 2,
                        "update": frame // 4,
                        "hour": frame / frames_per_second / 3600,
                        "episode_return": value,
                        "episode_return_std": 1.0,
                        "episodes": 10,
                        **conditions,
                        **({} if rates is None else {"success_rate": rates[i]}),
                    }
                )
        settings = {"frames": (len(returns) - 1) * every_frames}
        config = {"agent": agent, "task": task, "seed": seed, "settings": settings}
        (directory / "config.json").write_text(json.dumps(config | conditions))
        return directory

    return write
