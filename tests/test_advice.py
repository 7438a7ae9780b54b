"""Each warning, where it is due and where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from dreaming import TINY_DREAMER

from pixelcontrol import advice
from pixelcontrol.config import resolve
from pixelcontrol.evaluate import Evaluation
from pixelcontrol.experiments import summary
from pixelcontrol.experiments.published import Published


def outcome(episode_return: float, *, saturated: bool = False) -> Evaluation:
    return Evaluation(np.full(2, episode_return), np.zeros((1, 8, 8, 3), np.uint8), "warp", None, saturated)


def test_a_run_that_learns_nothing_is_told() -> None:
    (said,) = advice.on_settings(resolve("toy_reach", frames=100, seed_frames=100), 50)
    assert "nothing will be learned in 100 frames" in said
    assert not [*advice.on_settings(resolve("toy_reach", frames=102, seed_frames=100), 50)]


def test_an_evaluation_that_may_never_end_is_told() -> None:
    (said,) = advice.on_settings(resolve("sensing:make_world"), None)
    assert "episodes of sensing:make_world tell no time limit" in said
    assert not [*advice.on_settings(resolve("sensing:make_world", eval_episodes=0), None)]


def test_an_episode_too_short_for_a_sequence_is_told() -> None:
    config = resolve("toy_reach", "dreamerv2", **TINY_DREAMER)
    assert config.loop.action_repeat == 2
    (said,) = advice.on_episode(config, 6)
    assert "had only 4 images; those with fewer than 5 are never learned from" in said
    assert not [*advice.on_episode(config, 8)]
    assert not [*advice.on_episode(resolve("toy_reach"), 2)]


def test_a_dead_seed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cited = Published(
        "drqv2", "toy_reach", 200, mean=400.0, std=1.0, seeds=10, frames_per_second=None, source="a test"
    )
    monkeypatch.setattr(summary, "published_at", lambda agent, task, frame: cited if frame >= 200 else None)
    config = resolve("toy_reach")
    (said,) = advice.on_evaluation(config, 200, outcome(39.0))
    assert "this seed looks dead: DrQ-v2 is published with 400 by this frame" in said
    assert not [*advice.on_evaluation(config, 200, outcome(41.0))]
    assert not [*advice.on_evaluation(config, 199, outcome(0.0))]


def test_no_seed_is_called_dead_where_next_to_nothing_is_published() -> None:
    # 22 by then, of 1000
    assert not [*advice.on_evaluation(resolve("acrobot_swingup"), 240_000, outcome(0.0))]


def test_an_actor_that_a_penalty_draws_to_doing_nothing_is_noticed() -> None:
    config = resolve("toy_reach", saturation_penalty=0.01)
    frame = config.loop.seed_frames + 1
    (said,) = advice.on_evaluation(config, frame, outcome(0.0))
    assert said.endswith("draws the actor to doing nothing: begin anew with --saturation-margin 2")
    assert not [*advice.on_evaluation(config, frame, outcome(0.1))]
    assert not [*advice.on_evaluation(config, frame - 1, outcome(0.0))]
    free = resolve("toy_reach", saturation_penalty=0.01, saturation_margin=2.0)
    for other in (free, resolve("toy_reach"), resolve("toy_reach", "sac")):
        assert not [*advice.on_evaluation(other, frame, outcome(0.0))]


@pytest.mark.parametrize(
    ("agent", "settings", "remedy"),
    [
        ("drqv2", {}, "--saturation-penalty 0.01"),
        ("drqv2", {"saturation_penalty": 0.01}, "a lower --learning-rate"),
        ("dreamerv2", {}, "a lower --model-learning-rate or --actor-learning-rate or --critic-learning-rate"),
    ],
)
def test_a_saturated_actor_is_noticed_and_a_remedy_named(
    agent: str, settings: dict[str, float], remedy: str
) -> None:
    config = resolve("toy_reach", agent, **settings)
    (said,) = advice.on_evaluation(config, 0, outcome(0.0, saturated=True))
    assert "every action of this evaluation was the same, at its bounds" in said
    assert said.endswith(f"Begin anew with {remedy}")


def test_an_agent_without_a_learning_rate_is_advised_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve("toy_reach")
    assert advice.learning_rates(config) == "--learning-rate"
    without = {name: value for name, value in config.flat().items() if name != "learning_rate"}
    monkeypatch.setattr(type(config), "flat", lambda self: without)
    assert advice.learning_rates(config) == "learning rate"
