"""The best policy outlives what comes after it, and no other run's is taken for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pixelcontrol.best import BestPolicy
from pixelcontrol.checkpoint import CheckpointNotSaved, Checkpoints
from pixelcontrol.rundir import read_json, write_json

STATE = {"agent": {"weight": torch.ones(3)}}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    write_json(tmp_path / "config.json", {"task": "toy_reach"})
    return tmp_path


def silent(words: str) -> None:
    raise AssertionError(words)


def test_what_was_kept_is_recalled(run_dir: Path) -> None:
    best = BestPolicy(run_dir, silent, resumed=False)
    assert best.episode_return == -math.inf
    best.keep(STATE, 5.0)
    assert read_json(run_dir / "best/config.json") == {"task": "toy_reach"}
    assert Checkpoints(run_dir / "best").load()["agent"]["weight"].tolist() == [1.0, 1.0, 1.0]
    resumed = BestPolicy(run_dir, silent, resumed=True)
    assert resumed.episode_return == 5.0
    resumed.keep(STATE, 6.0)
    assert BestPolicy(run_dir, silent, resumed=True).episode_return == 6.0


def test_what_a_run_left_that_never_saved_is_not_another_runs(run_dir: Path) -> None:
    BestPolicy(run_dir, silent, resumed=False).keep(STATE, 5.0)
    begun = BestPolicy(run_dir, silent, resumed=False)
    assert begun.episode_return == -math.inf
    begun.keep(STATE, 1.0)
    assert BestPolicy(run_dir, silent, resumed=True).episode_return == 1.0


def test_one_that_found_no_room_leaves_its_place_to_the_next(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: Any) -> None:
        raise CheckpointNotSaved("no space")

    best = BestPolicy(run_dir, silent, resumed=False)
    best.keep(STATE, 3.0)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", full_disk)
        with pytest.raises(CheckpointNotSaved):
            best.keep(STATE, 5.0)
    assert best.episode_return == 3.0
    best.keep(STATE, 4.0)
    assert BestPolicy(run_dir, silent, resumed=True).episode_return == 4.0


def test_one_that_is_damaged_is_given_up(run_dir: Path) -> None:
    BestPolicy(run_dir, silent, resumed=False).keep(STATE, 5.0)
    for file in (run_dir / "best/checkpoint").iterdir():
        file.write_bytes(b"damaged")
    said: list[str] = []
    best = BestPolicy(run_dir, said.append, resumed=True)
    assert "warning: the best policy so far is lost" in said[0]
    assert best.episode_return == -math.inf
    best.keep(STATE, 1.0)
    assert BestPolicy(run_dir, silent, resumed=True).episode_return == 1.0
