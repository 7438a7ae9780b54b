import torch

from pixelcontrol.distributions import EDGE, noisy_action, straight_through_clamp


def test_clamp_keeps_actions_just_inside_of_the_bounds():
    action = torch.tensor([-7.0, -1.0, -0.25, 0.0, 0.75, 1.0, 9.0])
    clamped = straight_through_clamp(action)
    expected = torch.tensor([-1 + 1e-6, -1 + 1e-6, -0.25, 0.0, 0.75, 1 - 1e-6, 1 - 1e-6])
    torch.testing.assert_close(clamped, expected, rtol=0, atol=5e-7)
    assert (clamped.abs() < 1).all()
    assert EDGE == 1e-6


def test_gradient_passes_as_if_nothing_had_been_clamped():
    action = torch.tensor([-7.0, -0.25, 9.0], requires_grad=True)
    # d(a²)/da = 2a at the clamped value, times 1 for the clamp
    (straight_through_clamp(action) ** 2).sum().backward()
    torch.testing.assert_close(action.grad, torch.tensor([-2.0, -0.5, 2.0]), rtol=0, atol=1e-5)


def noise_around(mean, std, clip, seed=5):
    action = noisy_action(mean, torch.tensor(std), torch.Generator().manual_seed(seed), clip)
    drawn = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
    return action, drawn


def test_noise_is_scaled_then_clipped_then_the_action_clamped():
    mean = torch.tensor([0.0, 0.5, -0.5, 0.99, -0.99, 0.0]).repeat(50, 1)
    action, drawn = noise_around(mean, 0.4, 0.3)
    for m, z, a in zip(
        mean.flatten().tolist(), drawn.flatten().tolist(), action.flatten().tolist(), strict=True
    ):
        noise = max(-0.3, min(0.3, 0.4 * z))
        assert abs(a - max(-1 + 1e-6, min(1 - 1e-6, m + noise))) < 5e-7
    # both bounds are met in this draw
    assert (0.4 * drawn).abs().max() > 0.3
    assert action.max() > 0.9999


def test_noise_is_unbounded_without_a_clip():
    mean = torch.zeros(1000, 2)
    action, drawn = noise_around(mean, 0.25, None)
    torch.testing.assert_close(action, (0.25 * drawn).clamp(-1 + 1e-6, 1 - 1e-6), rtol=0, atol=5e-7)
    assert action.abs().max() > 0.6


def test_the_mean_gets_a_gradient_of_one_whatever_was_clipped():
    mean = torch.tensor([[0.0, 0.999, -0.999, 0.3]]).repeat(20, 1).requires_grad_()
    action, _ = noise_around(mean, 2.0, 0.3)
    action.sum().backward()
    assert torch.equal(mean.grad, torch.ones_like(mean))


def test_only_the_given_generator_advances():
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    first = noisy_action(torch.zeros(2, 3), torch.tensor(1.0), generator)
    second = noisy_action(torch.zeros(2, 3), torch.tensor(1.0), generator)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
