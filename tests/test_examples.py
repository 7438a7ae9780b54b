"""The examples do what their heads promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pixelcontrol.cli import main
from pixelcontrol.envs.dmc import DmcWorld
from pixelcontrol.envs.user import build_world

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def _from_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(EXAMPLES)


def crawl(world: DmcWorld, seed: int, period: float) -> float:
    """Return what a round of the arm every `period` seconds is rewarded with; 0 stands still."""
    world.reset(seed)
    total, last, step = 0.0, False, 0
    while not last:
        angle = 2.0 * np.pi * step * 0.08 / period if period else 0.0
        action = np.sign([np.sin(angle), np.sin(angle + 1.5 * np.pi)]) if period else np.zeros(2)
        reward, _, last = world.step(action.astype(np.float32))
        total += reward
        step += 1
    assert step == 100
    return total


def test_the_crawler_is_paid_for_crawling() -> None:
    world = build_world("crawler:make_world", (48, 48), 4, "warp")
    gait = crawl(world, 1, 0.4)
    assert abs(crawl(world, 1, 0.0)) < 10.0
    assert gait > 100.0
    assert crawl(world, 1, 0.4) == gait  # an episode repeats itself from its seed
    assert crawl(world, 2, 0.4) != gait
    world.close()


@pytest.mark.parametrize("agent", ["drqv2", "privileged"])
def test_the_crawler_is_trained_and_filmed(
    agent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--preset quick --frames 500 --seed-frames 400 --batch-size 8 --eval-episodes 1 --device cpu"
    run = tmp_path / "crawler"
    assert main(["train", "crawler:make_world", "--agent", agent, *small.split(), "--out", str(run)]) == 0
    assert "renderer warp" in capsys.readouterr().err
    assert main(["play", str(run), "--video", str(tmp_path / "crawler.mp4")]) == 0
    assert (tmp_path / "crawler.mp4").stat().st_size > 0
