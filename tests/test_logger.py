"""The files that a run leaves, read back by those that they are for."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixelcontrol import logger
from pixelcontrol.logger import EventLog, Progress, write_video


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
        progress.frame(500)
        monkeypatch.undo()
        with suppress(OSError):
            closed.close()


def test_the_speed_is_that_of_the_last_seconds_and_never_of_seed_frames_and_learning_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress(10_000, 400)
    progress.measure_from(0)
    measured = []
    for now, frame in [
        (1.0, 200), (2.0, 400), (3.0, 410), (14.0, 520), (15.0, 600), (20.0, 640), (54.0, 1_000)
    ]:  # fmt: skip
        if now == 54.0:
            progress.leave_out(20.0)
        progress.frame(frame)
        measured.append(progress.frames_per_second)
    # one window is from 2 to 14 seconds, the next, without the evaluation, of 20 seconds
    assert measured == [200.0, 200.0, 10.0, 10.0, 10.0, 10.0, 24.0]
    said = capsys.readouterr().err
    assert said.startswith("200/10,000 frames  200 frames/s")
    assert "? left" in said
    assert said.endswith("1,000/10,000 frames  24 frames/s    6m15s left\n")


def test_an_animation_is_shown_over_and_over_however_its_ending_is_spelt(tmp_path: Path) -> None:
    write_video(tmp_path / "film.GIF", np.arange(384, dtype=np.uint8).reshape(2, 8, 8, 3))
    assert b"NETSCAPE" in (tmp_path / "film.GIF").read_bytes()  # the extension that says so


@pytest.mark.parametrize("name", ["film.mp4", "film.gif"])
def test_a_film_that_cannot_be_written_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(logger.imageio, "imwrite", full)
    with pytest.raises(OSError, match="No space left"):
        write_video(tmp_path / name, np.zeros((2, 8, 8, 3), np.uint8))
    assert not list(tmp_path.iterdir())
