"""`pixelcontrol doctor`: what it finds, and that a fault is a finding."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from pixelcontrol import doctor
from pixelcontrol.cli import main


def test_it_draws_with_both_renderers_and_says_how_fast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--images", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for renderer in ("opengl", "warp"):
        assert f"{renderer:12s} works: " in said
        assert (tmp_path / f"{renderer}.png").stat().st_size > 1000


def test_a_renderer_that_breaks_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: Any) -> None:
        raise RuntimeError("the driver is older than the library")

    monkeypatch.setattr(doctor, "make_env", broken)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    for renderer in ("opengl", "warp"):
        assert f"{renderer:12s} does not draw: RuntimeError: the driver is older than the library" in said


def test_it_asks_for_the_versions_that_are_installed_with_it() -> None:
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))
    wanted = dict(word.split("==") for word in project["project"]["dependencies"] if "==" in word)
    assert wanted == doctor.PINS
