"""What a journal does beside its tables, which `test_train.py` reads: warnings and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dreaming import TINY_DREAMER

from pixelcontrol import journal
from pixelcontrol.build import choose_hardware
from pixelcontrol.config import resolve
from pixelcontrol.evaluate import Evaluation
from pixelcontrol.journal import Journal
from pixelcontrol.logger import Progress

START = {"frame": 0, "agent_step": 0, "update": 0, "hour": 0.0}


def begin(run_dir: Path, agent: str = "drqv2", **settings: Any) -> Journal:
    config = resolve("toy_reach", agent, device="cpu", **settings)
    hardware = choose_hardware(config)
    return Journal(config, run_dir, hardware, "warp", ["loss"], Progress(100, 0), frame=0, sizes={})


def test_episodes_too_short_for_their_sequences_are_told_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = begin(tmp_path, "dreamerv2", **TINY_DREAMER)
    for frames in (8, 6, 6):
        kept.episode(START, 1, 1.0, frames, {})
    kept.close()
    assert capsys.readouterr().err.count("those with fewer than 5 are never learned from") == 1


def test_a_film_that_cannot_be_written_is_told_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no ffmpeg")

    monkeypatch.setattr(journal, "write_video", fail)
    kept = begin(tmp_path)
    outcome = Evaluation(np.array([1.0, 3.0]), np.zeros((2, 8, 8, 3), np.uint8), "warp", saturated=True)
    for _ in range(2):
        kept.evaluation(START, outcome)
    kept.close()
    said = capsys.readouterr().err
    assert said.count("warning: an evaluation's film or curve could not be written: no ffmpeg") == 2
    assert said.count("eval return     2.0 +- 1.0 over 2 episodes") == 2
    assert said.count("warning: every action of this evaluation was the same") == 2
    assert len((tmp_path / "eval.csv").read_text().splitlines()) == 3
