"""Runs that take seconds, on the toy task and on what is sensed; how they are stopped, and compared."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from dreaming import TINY_DREAMER

from pixelcontrol.checkpoint import Checkpoints
from pixelcontrol.config import Config, resolve
from pixelcontrol.errors import Interrupted
from pixelcontrol.logger import Progress
from pixelcontrol.train import train

TINY: dict[str, Any] = {
    "frames": 600,
    "envs": 2,
    "workers": 1,
    "image_size": (24,),
    "batch_size": 8,
    "hidden_dim": 16,
    "conv_filters": 4,
    "seed_frames": 100,
    "catch_up_updates": 5,
    "exploration_steps": 40,
    "eval_every_frames": 200,
    "eval_episodes": 2,
    "save_every_frames": 200,
    "device": "cpu",
    "precision": "fp32",
}


def tiny(**overrides: Any) -> Config:
    which = {name: overrides.pop(name) for name in overrides.keys() & {"task", "agent", "seed"}}
    return resolve(**{"task": "toy_reach", "seed": 1} | which, **(TINY | overrides))


def dreaming(**overrides: Any) -> Config:
    shared = {name: TINY[name] for name in TINY.keys() - {"image_size", "hidden_dim", "conv_filters"}}
    return resolve("toy_reach", "dreamerv2", **(shared | TINY_DREAMER | {"frames": 400} | overrides))


def sensing(agent: str = "drqv2", world: str = "make_world", **overrides: Any) -> Config:
    shared = TINY | {"image_size": (16,), "action_repeat": 1, "frames": 300}
    return resolve(f"sensing:{world}", agent, **(shared | overrides))


def rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV without the columns that a clock or a developer fills meanwhile."""
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    for row in table:
        row.pop("hour")
        row.pop("frames_per_second", None)
        row.pop("commit", None)
    return table


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    agent = Checkpoints(run_dir).load()["agent"]
    return {
        f"{part}.{name}": value
        for part in ("encoder", "actor", "critic", "target_critic")
        for name, value in agent[part].items()
    }


def assert_same(one: Path, other: Path) -> None:
    assert rows(one / "train.csv") == rows(other / "train.csv")
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def assert_same_dreams(one: Path, other: Path) -> None:
    assert rows(one / "train.csv") == rows(other / "train.csv")
    left, right = (Checkpoints(run_dir).load() for run_dir in (one, other))
    assert torch.equal(left["memory"]["observation"], right["memory"]["observation"])
    torch.testing.assert_close(left["agent"], right["agent"], rtol=0, atol=0)


def train_and_stop(config: Config, run_dir: Path, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until a signal comes after so many rounds of the loop."""
    show, shown = Progress.frame, []

    def stop(self: Progress, frame: int) -> None:
        show(self, frame)
        shown.append(frame)
        if len(shown) == rounds:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "frame", stop)
        with pytest.raises(Interrupted) as stopped:
            train(config, run_dir)
    assert stopped.value.exit_status == 128 + signal.SIGTERM
