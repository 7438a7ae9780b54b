from functools import partial
from math import log, sqrt
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pixelcontrol.networks import (
    ConvEncoder,
    DeterministicActor,
    RunningNorm,
    StochasticActor,
    Trunk,
    TwinCritic,
    TwinLinear,
    Value,
    adam,
    compute_dtype,
    descend,
    ema_update,
    initialise,
    mlp,
    rounded,
)


def parameter_count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def linear(layer, x):
    return layer.weight.detach().double().numpy() @ x + layer.bias.detach().double().numpy()


def slow_projection(trunk, features):
    """Linear, LayerNorm, tanh of one feature vector, written out."""
    hidden = linear(trunk[0], features)
    normal = (hidden - hidden.mean()) / sqrt(((hidden - hidden.mean()) ** 2).mean() + 1e-5)
    scale, offset = trunk[1].weight.detach().numpy(), trunk[1].bias.detach().numpy()
    return np.tanh(scale * normal + offset)


def one_of(layer, twin):
    """Return one half of a `TwinLinear`, as far as `linear` needs it."""
    if not isinstance(layer, TwinLinear):
        return layer
    return SimpleNamespace(weight=layer.weight[twin].T, bias=layer.bias[twin, 0])


def slow_mlp(network, x):
    hidden = np.maximum(linear(network[0], x), 0)
    hidden = np.maximum(linear(network[2], hidden), 0)
    return linear(network[4], hidden)


def slow_features(encoder, observation):
    """Convolve one observation pixel by pixel; the result is flattened in the order row, column, channel."""
    image = observation.astype(np.float64) / 255 - 0.5
    for layer in encoder.convolutions:
        if isinstance(layer, nn.ReLU):
            image = np.maximum(image, 0)
            continue
        weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
        stride = layer.stride[0]
        height, width = (image.shape[1] - 3) // stride + 1, (image.shape[2] - 3) // stride + 1
        output = np.empty((len(weight), height, width))
        for i in range(height):
            for j in range(width):
                patch = image[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
                output[:, i, j] = (weight * patch).sum(axis=(1, 2, 3)) + bias
        image = output
    return np.array([image[c, i, j] for i in range(height) for j in range(width) for c in range(len(image))])


def with_random_biases(module):
    """Biases start at zero, where a forgotten one would not be seen."""
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1 or name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return module


def test_the_papers_encoder():
    encoder = ConvEncoder((9, 84, 84))
    assert encoder.feature_count == 39_200
    assert parameter_count(encoder) == 30_368
    assert encoder(torch.zeros(2, 9, 84, 84, dtype=torch.uint8)).shape == (2, 39_200)


def test_the_papers_sizes():
    # per trunk 39200·50 + 50 and 2·50 for the LayerNorm; per MLP three layers
    trunk = 39_200 * 50 + 50 + 100
    actor_mlp = (50 + 1) * 1024 + (1024 + 1) * 1024 + (1024 + 1) * 6
    critic_mlp = (56 + 1) * 1024 + (1024 + 1) * 1024 + 1025
    assert parameter_count(DeterministicActor(39_200, 6, 50, 1024)) == trunk + actor_mlp
    assert parameter_count(TwinCritic(39_200, 6, 50, 1024)) == trunk + 2 * critic_mlp


@pytest.mark.parametrize(("height", "width", "strides"), [(24, 24, (2, 1, 1, 1)), (15, 20, (2, 2, 1))])
def test_encoder_equals_loops_over_pixels(height, width, strides):
    encoder = with_random_biases(ConvEncoder((9, height, width), filters=4, strides=strides))
    observation = torch.randint(0, 256, (2, 9, height, width), dtype=torch.uint8)
    features = encoder(observation)
    assert features.shape == (2, encoder.feature_count)
    for sample in range(2):
        expected = slow_features(encoder, observation[sample].numpy())
        np.testing.assert_allclose(features[sample].detach().numpy(), expected, rtol=0, atol=1e-5)


def test_encoder_centres_pixels():
    encoder = ConvEncoder((3, 12, 12), filters=1, strides=(1,))
    nn.init.zeros_(encoder.convolutions[0].weight)
    nn.init.zeros_(encoder.convolutions[0].bias)
    encoder.convolutions[0].weight.data[0, 0, 1, 1] = 1.0
    white = encoder(torch.full((1, 3, 12, 12), 255, dtype=torch.uint8))
    grey = encoder(torch.full((1, 3, 12, 12), 153, dtype=torch.uint8))
    torch.testing.assert_close(white, torch.full((1, 100), 0.5))
    torch.testing.assert_close(grey, torch.full((1, 100), 0.1))


@pytest.mark.parametrize(("height", "width"), [(10, 30), (14, 30), (30, 14), (2, 2)])
def test_images_that_vanish_are_refused(height, width):
    words = rf"images of {height}x{width} pixels vanish in 4 convolutions with strides \(2, 1, 1, 1\)"
    with pytest.raises(ValueError, match=words):
        ConvEncoder((9, height, width))


def test_the_smallest_images_leave_one_pixel():
    assert ConvEncoder((9, 15, 15)).feature_count == 32


def test_a_trunk_is_linear_layernorm_tanh():
    trunk = with_random_biases(Trunk(7, 5))
    features = torch.randn(3, 7) * 4
    for sample in range(3):
        expected = slow_projection(trunk, features[sample].double().numpy())
        np.testing.assert_allclose(trunk(features)[sample].detach().numpy(), expected, atol=1e-5)


def test_running_norm_is_that_of_all_that_was_shown():
    g = torch.Generator().manual_seed(0)
    scale, offset = torch.tensor([1e-3, 1.0, 300.0]), torch.tensor([5.0, 0.0, -40.0])
    norm = RunningNorm(3)
    parts = [torch.randn(count, 3, generator=g) * scale + offset for count in (1, 16, 3, 40)]
    for part in parts:
        norm.show(part)
    shown = torch.cat(parts).double().numpy()
    normed = (parts[1].numpy() - shown.mean(axis=0)) / shown.std(axis=0)
    expected = np.sign(normed) * np.log(1 + np.abs(normed))
    np.testing.assert_allclose(norm(parts[1]).numpy(), expected, rtol=0.01, atol=0.01)
    assert norm.count == 60


def test_running_norm_of_what_stays_the_same_is_zero_and_a_first_change_is_squashed():
    norm = RunningNorm(2)
    for _ in range(3):
        norm.show(torch.tensor([[7.0, 1.0]]))
    assert norm(torch.tensor([[7.0, 1.0]])).tolist() == [[0.0, 0.0]]
    # half a unit is 5,000 times the smallest deviation there is, 1e-4
    assert norm(torch.tensor([[7.5, -50.0]])).tolist() == [
        pytest.approx([log(5_001), -log(510_001)], rel=1e-5)
    ]


def test_encoder_puts_proprioception_behind_the_features_normed_by_what_it_was_shown():
    encoder = ConvEncoder((9, 15, 15), proprio_dim=1)
    stack = torch.randint(0, 256, (2, 9, 15, 15), dtype=torch.uint8)
    encoder.show(torch.tensor([[100.0], [300.0], [500.0], [300.0]]))  # mean 300, variance 20,000
    features = encoder(stack, torch.tensor([[300.0], [500.0]]))
    assert torch.equal(features[:, :-1], encoder(stack))
    assert features[:, -1].tolist() == pytest.approx([0.0, log(1.0 + 2.0**0.5)])


def test_encoder_of_images_alone_takes_proprioception_of_no_numbers():
    encoder, nothing = ConvEncoder((9, 15, 15)), torch.zeros(4, 0)
    stack = torch.randint(0, 256, (4, 9, 15, 15), dtype=torch.uint8)
    encoder.show(nothing)
    assert torch.equal(encoder(stack, nothing), encoder(stack))


def test_trunks_project_features_and_leave_proprioception_as_it_is():
    trunk = with_random_biases(Trunk(7, 5))
    features = (torch.randn(3, 9) * 4).requires_grad_()
    small = trunk(features)
    assert torch.equal(small, torch.cat([trunk(features[:, :7]), features[:, 7:]], dim=1))
    (gradient,) = torch.autograd.grad(small[:, 5:].sum(), features)
    assert torch.equal(gradient, torch.tensor([0.0] * 7 + [1.0] * 2).expand(3, -1))


@pytest.mark.parametrize(
    "build",
    [DeterministicActor, partial(StochasticActor, log_std_bounds=(-5.0, 2.0)), TwinCritic],
    ids=["DeterministicActor", "StochasticActor", "TwinCritic"],
)
def test_every_head_sees_proprioception_and_no_trunk_does(build):
    # wide enough that no sample finds all units of a layer at rest
    network = build(12, 3, 5, 64, proprio_dim=2)
    features = torch.randn(4, 14).requires_grad_()
    action = [torch.rand(4, 3)] if isinstance(network, TwinCritic) else []
    output = network(features, *action)
    output = output[0] if isinstance(output, tuple) else output
    (gradient,) = torch.autograd.grad(output.sum(), features)
    assert (gradient[:, 12:] != 0).all()
    assert network.trunk[0].weight.shape == (5, 12)


def test_mlp_has_two_hidden_layers():
    network = mlp(3, 8, 2)
    x = torch.randn(4, 3)
    for sample in range(4):
        expected = slow_mlp(network, x[sample].double().numpy())
        np.testing.assert_allclose(network(x)[sample].detach().numpy(), expected, atol=1e-5)


def test_actor_is_trunk_and_mlp():
    actor = with_random_biases(DeterministicActor(12, 3, feature_dim=5, hidden_dim=8))
    features = torch.randn(4, 12) * 3
    action = actor(features)
    for sample in range(4):
        hidden = slow_projection(actor.trunk, features[sample].double().numpy())
        np.testing.assert_allclose(action[sample].detach().numpy(), slow_mlp(actor.policy, hidden), atol=1e-5)


def test_critic_has_one_trunk_and_two_heads_that_see_the_action():
    critic = with_random_biases(TwinCritic(12, 3, feature_dim=5, hidden_dim=8))
    features, action = torch.randn(4, 12) * 3, torch.rand(4, 3) * 2 - 1
    q = critic(features, action)
    for sample in range(4):
        hidden = slow_projection(critic.trunk, features[sample].double().numpy())
        inputs = np.concatenate([hidden, action[sample].double().numpy()])
        for twin in range(2):
            expected = slow_mlp([one_of(layer, twin) for layer in critic.twins], inputs)
            np.testing.assert_allclose(q[twin, sample].item(), expected[0], atol=1e-5)
    assert not torch.equal(q[0], q[1])


def test_weights_are_orthogonal_and_biases_zero():
    linear = nn.Linear(40, 10), nn.Linear(10, 40), nn.Linear(10, 1), TwinLinear(9, 4)
    module = nn.Sequential(nn.Conv2d(9, 32, 3), *linear, nn.LayerNorm(6))
    initialise(module, torch.Generator().manual_seed(0))
    convolution, wide, tall, single, twins, norm = module
    matrix = convolution.weight.detach().flatten(1)  # 32 x 81
    torch.testing.assert_close(matrix @ matrix.T, 2.0 * torch.eye(32), rtol=0, atol=1e-5)
    torch.testing.assert_close(wide.weight @ wide.weight.T, torch.eye(10), rtol=0, atol=1e-5)
    torch.testing.assert_close(tall.weight.T @ tall.weight, torch.eye(10), rtol=0, atol=1e-5)
    torch.testing.assert_close(single.weight.norm(), torch.tensor(1.0))
    torch.testing.assert_close(
        twins.weight.mT @ twins.weight, torch.eye(4).expand(2, 4, 4), rtol=0, atol=1e-5
    )
    assert not torch.equal(*twins.weight)
    for layer in (convolution, wide, tall, single, twins, norm):
        assert (layer.bias == 0).all()
    assert (norm.weight == 1).all()


def test_weights_depend_on_the_generator_alone():
    def weights(seed):
        network = mlp(4, 8, 2)
        initialise(network, torch.Generator().manual_seed(seed))
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_ema_moves_the_target_by_tau():
    target, source = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 2.0])
    ema_update([target], [source], 0.25)
    assert target.tolist() == [1.5, -1.0]  # 1 + (3 - 1)/4, -2 + (2 + 2)/4
    assert source.tolist() == [3.0, 2.0]


def test_ema_covers_every_parameter():
    target, source = TwinCritic(6, 2, 4, 8), TwinCritic(6, 2, 4, 8)
    with_random_biases(source)
    before = [p.detach().clone() for p in target.parameters()]
    ema_update(target.parameters(), source.parameters(), 0.01)
    for old, new, goal in zip(before, target.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), 0.99 * old + 0.01 * goal.detach(), rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------------ bf16

CPU = torch.device("cpu")


def bf16():
    return torch.autocast("cpu", torch.bfloat16, cache_enabled=False)


def test_the_precision_is_that_of_the_region_around():
    assert compute_dtype(CPU) == torch.float32
    with bf16():
        assert compute_dtype(CPU) == torch.bfloat16


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_pixels_are_exact_in_bf16(offset):
    """Each of the 256 values, seen through a filter of one pixel with the weight 255/255."""
    encoder = ConvEncoder((1, 18, 18), filters=1, strides=(1,), pixel_offset=offset)
    nn.init.zeros_(encoder.convolutions[0].weight)
    nn.init.zeros_(encoder.convolutions[0].bias)
    encoder.convolutions[0].weight.data[0, 0, 1, 1] = 255.0
    pixels = torch.zeros(1, 1, 18, 18, dtype=torch.uint8)
    pixels[0, 0, 1:-1, 1:-1] = torch.arange(256).view(16, 16)
    with bf16():
        seen = encoder(pixels)
    assert seen.dtype == torch.bfloat16
    assert seen[0].tolist() == [max(0.0, value - 255 * offset) for value in range(256)]


def loss_and_gradients(network, function):
    draw = torch.Generator().manual_seed(2)
    features, action = torch.randn(6, 36, generator=draw), torch.rand(6, 2, generator=draw)
    loss = function(features, action).square().mean()
    return loss, torch.autograd.grad(loss, list(network.parameters()))


def test_weights_rounded_together_are_those_that_autocast_rounds():
    """Values and gradients, bit for bit."""
    critic = with_random_biases(TwinCritic(36, 2, 5, 8))
    with bf16():
        loss, gradients = loss_and_gradients(critic, critic)
        same_loss, same_gradients = loss_and_gradients(critic, *rounded(critic))
    assert loss == same_loss
    assert loss != loss_and_gradients(critic, critic)[0]
    for gradient, same in zip(gradients, same_gradients, strict=True):
        assert gradient.dtype == same.dtype == torch.float32
        assert torch.equal(gradient, same)


def test_values_are_finer_than_bf16():
    """Near 200 bf16 knows whole numbers only."""
    critic, head = TwinCritic(36, 2, 5, 8), nn.Sequential(nn.Linear(3, 4), Value(4))
    told = torch.tensor([200.3, -150.7])
    for last, bias in ((critic.twins[-1], told[:, None, None]), (head[-1], told[:1])):
        nn.init.zeros_(last.weight)
        last.bias.data = bias
    with bf16():
        for function in (critic, *rounded(critic)):
            assert torch.equal(function(torch.randn(6, 36), torch.rand(6, 2)), told[:, None].expand(2, 6))
        for function in (head, *rounded(head)):
            assert torch.equal(function(torch.randn(4, 5, 3)), told[0].expand(4, 5))


def test_gradients_of_values_are_float32_too():
    x, target = torch.randn(6, 4), torch.randn(6)
    gradients = []
    for enabled in (False, True):
        head = Value(4)
        nn.init.ones_(head.weight)
        nn.init.zeros_(head.bias)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            descend((head(x) - target).square().mean(), adam(head.parameters(), 1e-3))
        gradients.append(head.weight.grad)
    assert torch.equal(*gradients)


def test_a_step_moves_an_optimisers_own_weights_and_gives_no_others_a_gradient():
    learner, judge = nn.Linear(3, 3), nn.Linear(3, 1)
    before = [parameter.detach().clone() for parameter in (*learner.parameters(), *judge.parameters())]
    descend(judge(learner(torch.ones(1, 3))).square().sum(), adam(learner.parameters(), 0.1))
    after = [*learner.parameters(), *judge.parameters()]
    assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == [False, False, True, True]
    assert all(parameter.grad is None for parameter in judge.parameters())


def test_gradients_are_clipped_together():
    weights = [nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))]
    optimiser = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:]}], lr=1.0)
    descend(30.0 * weights[0] + 40.0 * weights[1], optimiser, clip=5.0)
    torch.testing.assert_close(torch.stack(weights), torch.tensor([-3.0, -4.0]))


def test_every_network_gets_its_own_weights():
    encoder, critic = ConvEncoder((3, 12, 12), filters=4, strides=(2, 1)), TwinCritic(36, 2, 5, 8)
    pixels = torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8)
    with bf16():
        seeing, judging = rounded(encoder, critic)
        torch.testing.assert_close(seeing(pixels), encoder(pixels), rtol=0.02, atol=0.02)
        judging(seeing(pixels), torch.zeros(6, 2)).sum().backward()
    assert all(parameter.grad is not None for parameter in (*encoder.parameters(), *critic.parameters()))


def test_rounded_weights_stay_as_they_were():
    network, x = mlp(3, 8, 2), torch.randn(4, 3)
    with bf16():
        (function,) = rounded(network)
        before = function(x)
        network[0].weight.data += 1.0
        assert torch.equal(function(x), before)
        assert not torch.equal(rounded(network)[0](x), before)


def test_without_gradients_a_network_is_only_a_judge():
    critic, action = TwinCritic(36, 2, 5, 8), torch.zeros(6, 2, requires_grad=True)
    with bf16():
        with torch.no_grad():
            (judge,) = rounded(critic)
        judge(torch.randn(6, 36), action).sum().backward()
    assert action.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in critic.trunk[0].parameters())


def test_in_float32_there_is_nothing_to_round():
    networks = [mlp(3, 8, 2), TwinCritic(36, 2, 5, 8)]
    assert rounded(*networks) == networks
