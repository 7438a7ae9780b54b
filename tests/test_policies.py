"""The policies that come with the repository do what is said of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pixelcontrol

FOLDER = Path(__file__).parent.parent / "policies"
ROW = re.compile(r"\| `(\w+)` \|.*\| ([\d,]+) \| \d+ \| \w+ \| (\d+) \+- \d+ \|")
SAID = {
    name: (int(frame.replace(",", "")), float(told))
    for name, frame, told in ROW.findall((FOLDER / "README.md").read_text(encoding="utf-8"))
}


def test_all_are_in_the_table() -> None:
    assert SAID.keys() == {path.name for path in FOLDER.iterdir() if path.is_dir()}


@pytest.mark.parametrize("name", SAID)
def test_a_policy_is_as_good_as_is_said(name: str) -> None:
    """Nearly: there are few episodes, and other machines round otherwise."""
    frame, told = SAID[name]
    policy = pixelcontrol.load(FOLDER / name)
    assert policy.frame == frame
    assert policy.evaluate(2, seed=100).returns.mean() > 0.8 * told
