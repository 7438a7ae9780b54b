"""What SAC, DrQ and CURL add to the shared pieces: policies squashed by tanh, crops, other first weights."""

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from pixelcontrol.augment import centre_crop, random_crop, random_shift
from pixelcontrol.distributions import tanh_normal
from pixelcontrol.networks import ConvEncoder, StochasticActor, Trunk, TwinCritic, initialise


def policy(seed, count=50, actions=4):
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(count, actions, generator=g).requires_grad_()
    log_std = (torch.rand(count, actions, generator=g) * 3 - 2).requires_grad_()
    return mean, log_std


def test_tanh_normal_agrees_with_torch_distributions():
    mean, log_std = policy(1)
    action, log_prob = tanh_normal(mean, log_std, torch.Generator().manual_seed(2))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(2))
    base = Independent(Normal(mean.double(), log_std.double().exp()), 1)
    distribution = TransformedDistribution(base, TanhTransform(cache_size=1))
    expected = distribution.transforms[0](mean.double() + log_std.double().exp() * noise)
    torch.testing.assert_close(action.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_prob.double(), distribution.log_prob(expected), rtol=1e-5, atol=1e-5)

    def gradients(a, lp):
        return torch.autograd.grad((a * a).sum() + lp.sum(), (mean, log_std))

    for ours, theirs in zip(
        gradients(action, log_prob), gradients(expected, distribution.log_prob(expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_tanh_normal_by_hand():
    g = torch.Generator().manual_seed(2)
    z = torch.randn(1, 1, generator=torch.Generator().manual_seed(2)).item()
    action, log_prob = tanh_normal(torch.tensor([[0.3]]), torch.tensor([[-1.0]]), g)
    u = torch.tensor(0.3 + z / torch.e, dtype=torch.float64)
    density = (-0.5 * z**2 + 1.0 - 0.5 * torch.tensor(2 * torch.pi).log()) - (1 - u.tanh() ** 2).log()
    assert action.item() == pytest.approx(u.tanh().item(), abs=1e-6)
    assert log_prob.item() == pytest.approx(density.item(), abs=1e-5)


def test_log_density_and_its_gradient_are_finite_far_outside():
    mean = torch.tensor([[-60.0, 60.0, 15.0]]).requires_grad_()
    log_std = torch.full((1, 3), -10.0).requires_grad_()
    action, log_prob = tanh_normal(mean, log_std, torch.Generator().manual_seed(1))
    log_prob.sum().backward()
    assert action.tolist() == [[-1.0, 1.0, 1.0]]
    assert log_prob.isfinite().all()
    # d log π / du = 2 tanh(u): the density of an action grows as it nears its limit
    torch.testing.assert_close(mean.grad, torch.tensor([[-2.0, 2.0, 2.0]]))


def test_a_floor_under_the_slope_bounds_the_density():
    mean, log_std = torch.tensor([[20.0], [0.3]]), torch.tensor([[-10.0], [-1.0]])
    z = torch.randn(2, 1, generator=torch.Generator().manual_seed(2))
    _, log_prob = tanh_normal(mean, log_std, torch.Generator().manual_seed(2), 1e-6)
    log_normal = -0.5 * z.square() - log_std - 0.5 * torch.tensor(2 * torch.pi).log()
    slope = 1 - (mean + z * log_std.exp()).double().tanh() ** 2
    # at 20 the true slope is 1.7e-17, and log π would be 25 higher
    torch.testing.assert_close(log_prob[0], log_normal[0, 0] + 6 * torch.tensor(10.0).log())
    torch.testing.assert_close(log_prob[1].double(), log_normal[1, 0].double() - (slope[1, 0] + 1e-6).log())


def test_the_density_integrates_to_one():
    mean, log_std = torch.full((200_000, 1), 0.4), torch.full((200_000, 1), -0.5)
    action, log_prob = tanh_normal(mean, log_std, torch.Generator().manual_seed(1))
    # E[1/π(a)] over a ~ π is the length of (-1, 1); cut the rare large weights at the ends
    inside = action.squeeze(1).abs() < 0.9
    estimate = torch.where(inside, (-log_prob).exp(), 0.0).mean()
    assert estimate.item() == pytest.approx(1.8, rel=0.02)


def test_stochastic_actor_bounds_log_std():
    actor = StochasticActor(12, 3, 5, 8, log_std_bounds=(-10.0, 2.0))
    nn.init.zeros_(actor.policy[4].weight)
    with torch.no_grad():
        actor.policy[4].bias.copy_(torch.tensor([7.0, 0.0, -7.0, 50.0, 0.0, -50.0]))
    mean, log_std = actor(torch.randn(2, 12))
    assert mean.tolist() == [[7.0, 0.0, -7.0]] * 2
    assert log_std.tolist() == [[2.0, -4.0, -10.0]] * 2


def test_stochastic_actor_has_the_size_of_the_original():
    actor = StochasticActor(39_200, 6, 50, 1024, log_std_bounds=(-10.0, 2.0))
    trunk = 39_200 * 50 + 50 + 100
    layers = (50 + 1) * 1024 + (1024 + 1) * 1024 + (1024 + 1) * 12
    assert sum(parameter.numel() for parameter in actor.parameters()) == trunk + layers


@pytest.mark.parametrize(
    "build",
    [
        lambda tanh: Trunk(12, 5, tanh=tanh),
        lambda tanh: TwinCritic(12, 3, 5, 8, trunk_tanh=tanh).trunk,
        lambda tanh: StochasticActor(12, 3, 5, 8, log_std_bounds=(-10.0, 2.0), trunk_tanh=tanh).trunk,
    ],
)
def test_trunks_without_tanh(build):
    torch.manual_seed(0)
    squashed = build(True)
    free = build(False)
    free.load_state_dict(squashed.state_dict())
    features = torch.randn(4, 12)
    assert free(features).abs().max() > 1
    torch.testing.assert_close(free(features).tanh(), squashed(features))


def test_delta_orthogonal_convolutions_map_single_pixels():
    encoder = ConvEncoder((9, 16, 16), filters=32, strides=(2, 1), pixel_offset=0.0)
    initialise(encoder, torch.Generator().manual_seed(1), delta_orthogonal=True)
    first, second = encoder.convolutions[0].weight.detach(), encoder.convolutions[2].weight.detach()
    for weight in (first, second):
        off_centre = weight.clone()
        off_centre[:, :, 1, 1] = 0
        assert (off_centre == 0).all()
    centre = first[:, :, 1, 1]
    torch.testing.assert_close(centre.T @ centre, 2.0 * torch.eye(9), rtol=0, atol=1e-5)
    centre = second[:, :, 1, 1]
    torch.testing.assert_close(centre @ centre.T, 2.0 * torch.eye(32), rtol=0, atol=1e-5)


def test_pixel_offset():
    encoder = ConvEncoder((3, 12, 12), filters=1, strides=(1,), pixel_offset=0.0)
    nn.init.zeros_(encoder.convolutions[0].weight)
    nn.init.zeros_(encoder.convolutions[0].bias)
    encoder.convolutions[0].weight.data[0, 0, 1, 1] = 1.0
    grey = encoder(torch.full((1, 3, 12, 12), 51, dtype=torch.uint8))
    torch.testing.assert_close(grey, torch.full((1, 100), 0.2))


def coordinates(batch, height, width):
    """Images whose two channels hold each pixel's own row and column."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([y, x]).to(torch.uint8).expand(batch, 2, height, width)


def test_random_crops_are_windows_at_every_place_alike():
    crops = random_crop(coordinates(20_000, 12, 14), 10, torch.Generator().manual_seed(1))
    assert crops.shape == (20_000, 2, 10, 10)
    top, left = crops[:, 0, 0, 0].long(), crops[:, 1, 0, 0].long()
    side = torch.arange(10)
    assert torch.equal(crops[:, 0].long(), (top[:, None] + side)[:, :, None].expand(-1, 10, 10))
    assert torch.equal(crops[:, 1].long(), (left[:, None] + side)[:, None, :].expand(-1, 10, 10))
    counts = torch.bincount(top * 5 + left, minlength=15)
    assert len(counts) == 15  # 3 tops, 5 lefts
    chi_square = ((counts - 20_000 / 15) ** 2 / (20_000 / 15)).sum().item()
    assert abs(chi_square - 14) < 4 * 28**0.5


def test_all_channels_are_cropped_at_one_place():
    picture = torch.randint(0, 256, (32, 1, 20, 20), dtype=torch.uint8)
    crops = random_crop(picture.expand(32, 9, 20, 20), 16, torch.Generator().manual_seed(1))
    assert (crops == crops[:, :1]).all()


def test_where_there_is_nothing_to_choose_nothing_is_drawn():
    g = torch.Generator().manual_seed(1)
    state = g.get_state()
    observation = torch.randint(0, 256, (2, 9, 16, 16), dtype=torch.uint8)
    assert torch.equal(random_crop(observation, 16, g), observation)
    assert torch.equal(random_shift(observation, 0, g), observation)
    assert torch.equal(g.get_state(), state)


@pytest.mark.parametrize(("height", "top"), [(100, 8), (85, 0), (87, 1), (84, 0)])
def test_centre_crop(height, top):
    crop = centre_crop(coordinates(1, height, 100), 84)
    assert crop.shape == (1, 2, 84, 84)
    assert crop[0, 0, 0, 0] == top
    assert crop[0, 1, 0, 0] == 8
