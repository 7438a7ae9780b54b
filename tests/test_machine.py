"""What a run notes about the machine it ran on."""

from pathlib import Path

import pytest

from pixelcontrol import machine


def test_a_clone_without_git_still_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "pixelcontrol" / "machine.py"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.commit() == "unknown"


def test_what_was_installed_names_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "pixelcontrol" / "machine.py"))
    assert machine.commit().startswith("v")
