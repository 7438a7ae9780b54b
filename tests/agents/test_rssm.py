"""The world model's parts, by numbers worked out by hand or in another form; together: test_dreamerv2."""

from math import exp, log, tanh

import pytest
import torch
from torch import nn

from pixelcontrol.agents.rssm import (
    ImageDecoder,
    ImageEncoder,
    LatentHead,
    Transition,
    balanced_kl,
    categorical_kl,
    centred,
    dense,
    imagine,
    initialise_glorot,
)


def drawn(module, seed=1):
    initialise_glorot(module, torch.Generator().manual_seed(seed))
    return module


def test_glorot_draws_within_its_bounds():
    layers = drawn(nn.Sequential(nn.Linear(30, 50), nn.Conv2d(3, 8, 4), nn.ConvTranspose2d(8, 3, 5)))
    for layer, fans in zip(layers, (30 + 50, 16 * (3 + 8), 25 * (8 + 3)), strict=True):
        bound = (6 / fans) ** 0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert not layer.bias.any()


def test_encoder_sizes_are_the_papers():
    encoder = ImageEncoder(3, 48)
    assert encoder.feature_count == 1536
    assert encoder(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 1536)


def test_encoder_is_the_plain_convolutions_of_centred_pixels():
    encoder = drawn(ImageEncoder(3, 2))
    image = torch.randint(
        0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    expected = encoder.convolutions(centred(image)).flatten(1)
    torch.testing.assert_close(encoder(image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 8])
def test_decoder_is_the_plain_transposed_convolutions(channels):
    decoder = drawn(ImageDecoder(10, channels, 2))
    for layer in decoder.convolutions[::2]:
        nn.init.uniform_(layer.bias, generator=torch.Generator().manual_seed(3))
    features = torch.randn(5, 10, generator=torch.Generator().manual_seed(2))
    expected = decoder.convolutions(decoder.linear(features)[:, :, None, None])
    assert expected.shape == (5, channels, 64, 64)
    torch.testing.assert_close(decoder(features), expected, rtol=0, atol=1e-5)


def test_centred_pixels():
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(centred(image).flatten(), torch.tensor([-0.5, -0.3, 0.5]))


def test_a_step_of_the_gru_by_hand():
    cell = Transition(latent_dim=1, action_dim=1, deter_dim=1, hidden_dim=1)
    inputs, gates = cell.inputs[0], cell.gates
    with torch.no_grad():
        inputs.weight.copy_(torch.tensor([[1.0, -2.0]]))
        inputs.bias.fill_(0.5)
        gates.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]]))
        gates.bias.zero_()
    # ELU(0.5 + 1 - 2) = e^-0.5 - 1; gates from (x, h) = (x, 2): x, 2, 2x + 2
    x = exp(-0.5) - 1
    raw = [x, 2.0, 2 * x + 2]
    mean = sum(raw) / 3
    scale = (sum((gate - mean) ** 2 for gate in raw) / 3 + 1e-3) ** 0.5
    reset, candidate, update = ((gate - mean) / scale for gate in raw)
    candidate = tanh(candidate / (1 + exp(-reset)))
    update = 1 / (1 + exp(1 - update))
    after = cell(torch.tensor([[1.0]]), torch.tensor([[1.0]]), torch.tensor([[2.0]]))
    assert after.item() == pytest.approx(update * candidate + (1 - update) * 2.0, abs=1e-6)


def test_a_head_has_four_hidden_layers():
    widths = [
        (layer.in_features, layer.out_features)
        for layer in dense(5, 7, nn.Linear(7, 2))
        if isinstance(layer, nn.Linear)
    ]
    assert widths == [(5, 7), (7, 7), (7, 7), (7, 7), (7, 2)]


def test_kl_by_hand():
    even, skewed = torch.zeros(1, 2, 2), torch.tensor([[[0.0, log(3.0)], [0.0, 0.0]]])
    # two groups of two classes; only the first differs: 1/2 and 1/2 against 1/4 and 3/4
    assert categorical_kl(even, skewed).item() == pytest.approx(0.5 * log(2) + 0.5 * log(2 / 3), abs=1e-6)
    assert categorical_kl(skewed, even).item() == pytest.approx(0.25 * log(0.5) + 0.75 * log(1.5), abs=1e-6)
    assert categorical_kl(skewed, skewed).item() == 0.0


def test_the_kl_trains_prior_and_posterior_by_their_shares():
    posterior = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    prior = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(2)).requires_grad_()
    whole = torch.autograd.grad(categorical_kl(posterior, prior).mean(), (posterior, prior))
    parts = torch.autograd.grad(balanced_kl(posterior, prior, 0.8, 0.0), (posterior, prior))
    torch.testing.assert_close(parts[0], 0.2 * whole[0])
    torch.testing.assert_close(parts[1], 0.8 * whole[1])


def test_below_the_free_nats_the_kl_trains_nothing():
    posterior = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    prior = posterior.detach() + 0.1
    prior[:, 0, 0] += 0.1
    prior.requires_grad_()
    # the bound is on the mean over all rows, which a single row may exceed
    assert 0 < categorical_kl(posterior, prior).mean() < 1.0
    loss = balanced_kl(posterior, prior, 0.8, 1.0)
    assert loss.item() == pytest.approx(1.0)
    loss.backward()
    assert not posterior.grad.any()
    assert not prior.grad.any()


def test_imagination_starts_where_it_is_told_and_asks_the_policy_before_each_step():
    transition, prior = Transition(6, 2, 4, 5), LatentHead(4, 5, 2, 3)
    latent, deter = torch.zeros(7, 6), torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    asked = []

    def policy(features, step):
        asked.append((step, features))
        return torch.full((7, 2), float(step))

    features = imagine(transition, prior, policy, (latent, deter), torch.zeros(3, 7, 2, 3))
    assert features.shape == (4, 7, 10)
    assert torch.equal(features[0], torch.cat([latent, deter], dim=1))
    assert [step for step, _ in asked] == [0, 1, 2]
    for step, seen in asked:
        assert torch.equal(seen, features[step])
        following = transition(seen[:, :6], torch.full((7, 2), float(step)), seen[:, 6:])
        torch.testing.assert_close(features[step + 1, :, 6:], following)
        best = prior(following).argmax(dim=-1)
        torch.testing.assert_close(
            features[step + 1, :, :6].unflatten(1, (2, 3)), nn.functional.one_hot(best, 3).float()
        )
