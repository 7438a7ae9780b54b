"""What a run notes about the machine it ran on."""

import itertools
from pathlib import Path

import pytest
import torch

from pixelcontrol import machine


def test_a_clone_without_git_still_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "pixelcontrol" / "machine.py"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.commit() == "unknown"


def test_what_was_installed_names_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "pixelcontrol" / "machine.py"))
    assert machine.commit().startswith("v")


def test_purposes_of_one_seed_draw_different_numbers() -> None:
    drawn = [
        torch.rand(4, generator=machine.random_stream(seed, purpose, torch.device("cpu")))
        for seed, purpose in [(1, "agent"), (1, "replay"), (2, "agent"), (1, "agent")]
    ]
    assert torch.equal(drawn[0], drawn[3])
    for one, other in itertools.combinations(drawn[:3], 2):
        assert not torch.isclose(one, other).any()
