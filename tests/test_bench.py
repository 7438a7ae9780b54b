"""Benchmarks print what they promise; how fast anything was is nobody's assertion."""

import re

import pytest
import torch

from pixelcontrol.augment import random_shift
from pixelcontrol.bench import Operations, interpolated_shift
from pixelcontrol.cli import BENCHMARKS, main

SMALL = "toy_reach --preset quick --repeats 2 --replay-capacity 500 --frames 80 --envs 2"


@pytest.mark.parametrize("what", [name for name in BENCHMARKS if name != "seeds"])
def test_each_names_machine_commit_and_ratio(what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", what, *SMALL.split()]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^machine .* cores.*; commit .*; drqv2, quick, toy_reach$", printed, re.MULTILINE)
    assert re.search(rf"^{what} +\d+\.\d times as fast as", printed, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
    # the toy draws itself, whatever --renderer says
    assert ("workers, own: " in printed) == (what == "env")
    if what != "train":
        assert "quartiles" in printed
        return
    shares = re.findall(r"^train +(\d+\.\d)%", printed, re.MULTILINE)
    assert len(shares) == 7
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.5)


def test_an_agent_of_sequences_has_no_shifts_to_time(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "replay", "toy_reach", "--agent", "dreamerv2"]) == 2
    assert "dreamerv2 learns from sequences" in capsys.readouterr().err


def test_operations_are_counted_and_views_are_not():
    x = torch.zeros(4, 6)
    with Operations() as operations:
        y = x.view(6, 4)[1:].T.detach()
        assert operations.count == 0
        y = torch.empty_like(x).copy_(x + 1.0)
        y.mul_(2.0)
    assert operations.count == 3


def test_the_plain_shift_is_the_shift():
    """Its sampling grid always hits pixels; the numbers that it draws mean x before y."""
    images = torch.randint(0, 256, (8, 9, 20, 20), dtype=torch.uint8)
    plain = interpolated_shift(images, 3, torch.Generator().manual_seed(1))
    ours = random_shift(images.mT, 3, torch.Generator().manual_seed(1)).mT
    torch.testing.assert_close(plain, ours.float(), rtol=0, atol=0.01)
