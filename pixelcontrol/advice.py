"""When a run warns whoever started it: nothing can be learned, a seed looks dead, an actor saturated or idle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixelcontrol.build import reach
from pixelcontrol.config import Config
from pixelcontrol.evaluate import ENDLESS, Evaluation
from pixelcontrol.experiments.statistics import dead_seeds
from pixelcontrol.experiments.summary import reference_return
from pixelcontrol.settings import flag


def on_settings(config: Config, episode_frames: int | None) -> Iterator[str]:
    """Name settings from which nothing good comes, in worlds whose time limit is `episode_frames` or unknown."""
    loop = config.loop
    if loop.eval_episodes and episode_frames is None:
        yield f"{ENDLESS.format(task=config.task)} or --eval-episodes 0"
    if loop.frames <= loop.seed_frames:
        yield (
            f"nothing will be learned in {loop.frames:,} frames, since updates begin after {loop.seed_frames:,} "
            "(--seed-frames)"
        )


def on_episode(config: Config, episode_frames: int) -> Iterator[str]:
    """Notice an episode that an agent of sequences cannot learn from."""
    images = episode_frames // config.loop.action_repeat + 1
    if config.of_sequences and images < reach(config):
        yield (
            f"an episode had only {images} images; those with fewer than {reach(config)} are never learned from: "
            "lower --sequence-length"
        )


def on_evaluation(config: Config, frame: int, outcome: Evaluation) -> Iterator[str]:
    """Notice a seed that looks dead or idle at `frame`, by what is published or by its actions; say what helps."""
    known = reference_return(config.task, frame, [])
    if known and dead_seeds(np.array([outcome.mean]), known):
        yield (
            f"this seed looks dead: DrQ-v2 is published with {known:.0f} by this frame; some seeds recover, "
            "others never do"
        )
    settings = config.flat()
    drawn = settings.get("saturation_penalty") and settings.get("saturation_margin") == 0.0
    if drawn and frame > config.loop.seed_frames and not outcome.returns.any():
        yield (
            "no episode of this evaluation met any reward. Where hardly one is met in training, the penalty on "
            "saturation draws the actor to doing nothing: begin anew with --saturation-margin 2"
        )
    if outcome.saturated:
        penalised = settings.get("saturation_penalty", 1.0) > 0.0
        remedy = f"a lower {learning_rates(config)}" if penalised else "--saturation-penalty 0.01"
        yield (
            "every action of this evaluation was the same, at its bounds. Unless that is best here, the actor is "
            "saturated: tanh has hardly a gradient there, so it comes back late or never. Begin anew with "
            f"{remedy}"
        )


def learning_rates(config: Config) -> str:
    """Return the flags of all learning rates that an agent has, in words where it has none."""
    flags = [flag(name) for name in config.flat() if name.endswith("learning_rate")]
    return " or ".join(flags) or "learning rate"
