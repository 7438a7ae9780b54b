"""The files that a run leaves, read back by those that they are for."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixelcontrol.logger import EventLog, Progress


def test_tensorboard_shows_what_was_logged_and_not_what_a_resumed_run_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = tmp_path / "tensorboard"
    killed = EventLog(board, 0)
    for frame, value in [(100, 1.0), (200, 2.0), (300, 3.0)]:
        killed.append({"train/episode_return": value, "train/critic_loss": -value}, frame)
    killed.close()
    monkeypatch.setattr(time, "time", lambda: 0.0)  # the clock was set back
    resumed = EventLog(board, 250)  # its checkpoint was made at frame 250
    resumed.append({"train/episode_return": 30.0}, 300)
    shown = EventAccumulator(str(board)).Reload()
    assert [(at.step, at.value) for at in shown.Scalars("train/episode_return")] == [
        (100, 1),
        (200, 2),
        (300, 30),
    ]
    assert [(at.step, at.value) for at in shown.Scalars("train/critic_loss")] == [(100, -1), (200, -2)]
    resumed.close()


def test_a_full_disk_is_met_where_it_is_written_to(tmp_path: Path) -> None:
    log = EventLog(tmp_path, 0)
    log.file.close()
    log.file = log.records._writer = open("/dev/full", "wb")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left"):
        log.append({"loss": 1.0}, 2)


def test_files_of_tensorboard_are_numbered_whatever_else_lies_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for number in range(3):
        EventLog(tmp_path, 0).close()
        assert (tmp_path / f"events.out.tfevents.{number:010d}").exists()
    (tmp_path / "events.out.tfevents.0000000001").unlink()
    EventLog(tmp_path, 0).close()
    assert (tmp_path / "events.out.tfevents.0000000003").exists()


def test_a_terminal_that_was_closed_does_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", buffering=1) as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        progress = Progress(1_000, 0)
        progress.say("a line")
        progress.frame(500, 10.0)
        monkeypatch.undo()
        with suppress(OSError):
            closed.close()


def test_seed_frames_do_not_foretell_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(10_000, 400).frame(400, 100.0)
    assert "? left" in capsys.readouterr().err
    Progress(10_000, 400).frame(1_000, 100.0)
    assert "1m30s left" in capsys.readouterr().err
