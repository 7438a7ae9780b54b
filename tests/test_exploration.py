"""Exploration noise: its distribution, its colour, and that it follows from seed and agent step alone."""

import numpy as np
import pytest
import torch

from pixelcontrol.exploration import BLOCK_STEPS, COLOURS, ExplorationNoise, pink, uniform

CPU = torch.device("cpu")


def series(colour, worlds=40, blocks=2, seed=1):
    """Return (steps, worlds, 2), drawn as a run does."""
    noise = ExplorationNoise(colour, 2, seed, CPU)
    rounds = range(blocks * BLOCK_STEPS)
    return torch.stack([noise.at(round * worlds, worlds).clone() for round in rounds])


def test_pink_by_hand():
    """Four steps have the frequencies 0, 1/4, 1/2, 1/4: powers 0, 4, 2, 4, of mean 5/2."""
    slow, fast = np.sqrt(4 / 2.5), np.sqrt(2 / 2.5)
    expected = [(2 * slow + fast) / 4, -fast / 4, (-2 * slow + fast) / 4, -fast / 4]
    np.testing.assert_allclose(pink(torch.tensor([1.0, 0.0, 0.0, 0.0])), expected, rtol=1e-6)


@pytest.mark.parametrize("colour", COLOURS)
def test_every_number_is_standard_normal(colour):
    drawn = series(colour).flatten()
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.var() - 1) < 0.03
    normal = torch.distributions.Normal(0.0, 1.0)
    for value in (-1.5, -0.5, 0.5, 1.5):
        assert abs((drawn < value).float().mean() - normal.cdf(torch.tensor(value))) < 0.01


def test_white_forgets_and_pink_remembers():
    """The correlation over `lag` steps is the power's Fourier transform, here written as its sum."""
    frequency = np.minimum(np.arange(1, BLOCK_STEPS), BLOCK_STEPS - np.arange(1, BLOCK_STEPS)) / BLOCK_STEPS
    for lag in (1, 10, 50):
        pairs = {colour: series(colour)[:BLOCK_STEPS] for colour in COLOURS}
        found = {colour: (drawn[lag:] * drawn[:-lag]).mean().item() for colour, drawn in pairs.items()}
        expected = (np.cos(2 * np.pi * frequency * lag) / frequency).sum() / (1 / frequency).sum()
        assert expected > 0.2 if lag < 50 else expected > 0
        assert found["pink"] == pytest.approx(expected, abs=0.06)
        assert abs(found["white"]) < 0.02


@pytest.mark.parametrize("colour", COLOURS)
def test_noise_follows_from_seed_and_step_alone(colour):
    whole = series(colour, worlds=3)
    late = ExplorationNoise(colour, 2, 1, CPU)  # as after a resume, in the middle of the second block
    step = BLOCK_STEPS + 7
    assert torch.equal(late.at(3 * step, 3), whole[step])
    assert torch.equal(late.at(3 * 7, 3), whole[7])
    assert not torch.equal(series(colour, worlds=3, seed=2), whole)
    assert not torch.equal(whole[:BLOCK_STEPS], whole[BLOCK_STEPS:])
    assert not torch.equal(whole[:, 0], whole[:, 1])


def test_uniform_numbers_are_uniform():
    drawn = uniform(series("pink")).flatten().sort().values
    assert drawn.min() >= -1
    assert drawn.max() <= 1
    assert (drawn - torch.linspace(-1, 1, len(drawn))).abs().max() < 0.02
