"""What a journal does beside its tables, which `test_train.py` reads: warnings and pictures."""

from __future__ import annotations

import csv
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


def begin(
    run_dir: Path,
    agent: str = "drqv2",
    tells_success: bool = False,
    sizes: dict[str, int] | None = None,
    **settings: Any,
) -> Journal:
    config = resolve("toy_reach", agent, device="cpu", **settings)
    return Journal(
        config, run_dir, choose_hardware(config), "warp", ["loss"], Progress(100, 0),
        tells_success=tells_success, frame=0, sizes=sizes or {},
    )  # fmt: skip


def evaluation(success_rate: float | None = None, saturated: bool = False) -> Evaluation:
    film = np.zeros((2, 8, 8, 3), np.uint8)
    return Evaluation(np.array([1.0, 3.0]), film, "warp", success_rate, saturated)


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_successes_have_a_column_where_they_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = begin(tmp_path, tells_success=True)
    kept.episode(START, 1, 1.0, 8, {}, success=True)
    kept.episode(START, 2, 1.0, 8, {}, success=False)
    kept.evaluation(START, evaluation(success_rate=0.75))
    sizes = kept.sizes()
    kept.close()
    kept = begin(tmp_path, tells_success=False, sizes=sizes)
    kept.evaluation(START, evaluation())
    kept.close()
    assert [row["success"] for row in rows(tmp_path / "train.csv")] == ["1", "0"]
    assert [row["success_rate"] for row in rows(tmp_path / "eval.csv")] == ["0.75", ""]
    assert "2.0 +- 1.0 over 2 episodes, success in 75%" in capsys.readouterr().err


def test_a_table_without_a_column_for_successes_goes_on_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = begin(tmp_path)
    kept.evaluation(START, evaluation())
    sizes = kept.sizes()
    kept.close()
    kept = begin(tmp_path, tells_success=True, sizes=sizes)
    kept.episode(START, 1, 1.0, 8, {}, success=True)
    kept.evaluation(START, evaluation(success_rate=0.75))
    kept.close()
    table = rows(tmp_path / "eval.csv")
    assert [row["episode_return"] for row in table] == ["2", "2"]
    assert "success_rate" not in table[0]
    assert "eval.csv was begun without success_rate\n" in capsys.readouterr().err
    assert [row["episode_return"] for row in rows(tmp_path / "train.csv")] == ["1"]


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
    outcome = evaluation(saturated=True)
    for _ in range(2):
        kept.evaluation(START, outcome)
    kept.close()
    said = capsys.readouterr().err
    assert said.count("warning: an evaluation's film or curve could not be written: no ffmpeg") == 2
    assert said.count("eval return 2.0 +- 1.0 over 2 episodes") == 2
    assert said.count("warning: every action of this evaluation was the same") == 2
    assert len((tmp_path / "eval.csv").read_text().splitlines()) == 3
    assert (tmp_path / "curve.png").exists()
