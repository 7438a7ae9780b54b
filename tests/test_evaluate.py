"""What counts in an evaluation, whatever ends early or fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelcontrol import evaluate as evaluation
from pixelcontrol.agents.drqv2 import DrQV2, DrQV2Settings
from pixelcontrol.envs.render.pixels import PixelRenderer
from pixelcontrol.envs.vector import VectorEnv
from pixelcontrol.evaluate import evaluate
from pixelcontrol.types import WorldSpec

SHAPE = (3, 4, 4)


class CountingWorld:
    """Rewards every agent step with 1 and shows its number; an episode has 2 to 5 of them, by its seed."""

    spec = WorldSpec(1, SHAPE, "uint8", 1, None)

    def reset(self, seed: int) -> None:
        self.steps, self.length = 0, 2 + seed % 4

    def step(self, action: np.ndarray) -> tuple[float, float, bool]:
        self.steps += 1
        ends = self.steps == self.length
        return 1.0, float(not ends), ends

    def observe(self, out: np.ndarray) -> None:
        out[:] = self.steps

    def close(self) -> None:
        pass


class LongWorld(CountingWorld):
    """Has five steps, whatever the seed."""

    def reset(self, seed: int) -> None:
        self.steps, self.length = 0, 5


class JudgingWorld(CountingWorld):
    """Is achieved by those that get to a fourth step."""

    spec = replace(CountingWorld.spec, tells_success=True)

    @property
    def success(self) -> bool:
        return self.steps >= 4


class FragileWorld(LongWorld):
    """Kills its own process at its third step, once, where the file says so."""

    def __init__(self, doomed: Path) -> None:
        self.doomed = doomed

    def step(self, action: np.ndarray) -> tuple[float, float, bool]:
        if self.steps == 2 and self.doomed.exists() and self.doomed.read_text() == str(os.getpid()):
            self.doomed.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def new_agent() -> DrQV2:
    settings = DrQV2Settings(conv_filters=1, conv_strides=(1,), feature_dim=2, hidden_dim=2)
    return DrQV2(SHAPE, 1, settings, device=torch.device("cpu"), seed=1)


def new_env(
    make_world: Callable[[], CountingWorld], worlds: int, workers: int, action_dim: int = 1
) -> VectorEnv:
    spec = getattr(make_world, "spec", CountingWorld.spec)
    return VectorEnv(
        make_world, replace(spec, action_dim=action_dim), PixelRenderer("pixels", SHAPE, "cpu"),
        num_worlds=worlds, num_workers=workers, seed=1,
    )  # fmt: skip


def test_every_episode_counts_whole_however_early_it_ends() -> None:
    env = new_env(CountingWorld, worlds=6, workers=0)
    worlds = env._hosts[0]._worlds.values()
    env.reset()
    lengths = [world.length for world in worlds]
    assert len(set(lengths)) > 1
    outcome = evaluate(new_agent(), new_env(CountingWorld, worlds=6, workers=0), 6)
    assert outcome.returns.tolist() == lengths
    assert outcome.video[:, 0, 0, 0].tolist() == list(range(lengths[0] + 1))


def test_the_episodes_that_succeed_are_counted() -> None:
    for episodes, worlds in ((6, 6), (5, 2)):
        outcome = evaluate(new_agent(), new_env(JudgingWorld, worlds=worlds, workers=0), episodes)
        assert outcome.success_rate == (outcome.returns >= 4.0).mean()
        assert 0.0 < outcome.success_rate < 1.0
    assert str(outcome).endswith(f" over 5 episodes, success in {outcome.success_rate:.0%}")
    untold = evaluate(new_agent(), new_env(CountingWorld, worlds=2, workers=0), 2)
    assert untold.success_rate is None
    assert str(untold) == f"{untold.returns.mean():.1f} +- {untold.returns.std():.1f} over 2 episodes"


def test_more_episodes_than_worlds_are_run_in_turns() -> None:
    outcome = evaluate(new_agent(), new_env(CountingWorld, worlds=2, workers=0), 5)
    assert outcome.returns.shape == (5,)
    assert set(outcome.returns) <= {2.0, 3.0, 4.0, 5.0}


def test_a_film_ends_where_an_episode_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MAX_FILM_IMAGES", 3)
    env = new_env(LongWorld, worlds=2, workers=0)
    outcome = evaluate(new_agent(), env, 2)
    assert outcome.video[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert outcome.returns.tolist() == [5.0, 5.0]


@pytest.mark.parametrize("failing", [0, 1], ids=["the filmed world's worker", "another worker"])
def test_a_worker_that_dies_spoils_no_return_and_no_film(failing: int, tmp_path: Path) -> None:
    doomed = tmp_path / "doomed"
    env = new_env(partial(FragileWorld, doomed), worlds=4, workers=2)
    try:
        doomed.write_text(str(env._hosts[failing]._process.pid))
        outcome = evaluate(new_agent(), env, 4)
    finally:
        env.close()
    assert not doomed.exists()
    assert outcome.returns.tolist() == [5.0] * 4
    assert outcome.video[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("means", "saturated"),
    [
        ([[0.99] * 5], False),
        ([[0.999] * 5], True),
        ([[-0.999, -1.0, -1.0, -1.0, -1.0]], True),
        ([[1.0, 1.0, -1.0, 1.0, 1.0]], False),  # it looks, and goes from bound to bound
        ([[1.0] * 5, [-1.0] * 5], True),  # each component at a bound of its own
        ([[1.0] * 5, [-1.0, -1.0, -1.0, -1.0, 0.5]], False),
    ],
)
def test_only_one_and_the_same_action_at_its_bounds_is_saturated(
    means: list[list[float]], saturated: bool
) -> None:
    """`means` are the mean actions of each component, step by step."""
    agent, steps = new_agent(), iter(zip(*means, strict=True))
    agent.act_greedily = lambda observation: torch.tensor([next(steps)])  # type: ignore[method-assign]
    env = new_env(LongWorld, worlds=1, workers=0, action_dim=len(means))
    assert evaluate(agent, env, 1).saturated is saturated
