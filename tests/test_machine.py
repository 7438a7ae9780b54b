"""What a run notes about the machine it ran on."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelcontrol import machine


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (MemoryError(), True),
        (RuntimeError("shapes do not match"), False),
    ],
    ids=["gpu", "host, torch", "host, Python", "another"],
)
def test_memory_that_ran_out_is_recognised(error: Exception, expected: bool) -> None:
    assert machine.ran_out_of_memory(error) is expected


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


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(machine, "RECORDED_PACKAGES", ("numpy", "no-such-package"))
    found = machine.versions()
    assert found["numpy"] == np.__version__
    assert found["no-such-package"] == "none"
