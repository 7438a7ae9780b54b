import io
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from naive_drqv2 import NaiveDrQV2, encode, mean_action
from observing import without_proprio
from torch import nn

from pixelcontrol.agents.drqv2 import DrQV2, DrQV2Settings, critic_loss, update_actor
from pixelcontrol.networks import descend
from pixelcontrol.types import Observation, Transitions

CPU = torch.device("cpu")
BATCH, ACTION = 8, 2
SHAPE = (9, 24, 28)
SMALL = DrQV2Settings(
    learning_rate=1e-3,
    feature_dim=6,
    hidden_dim=16,
    conv_filters=4,
    stddev_duration=100,
    exploration_steps=10,
)


def new_agent(seed=1, settings=SMALL, proprio=0):
    return DrQV2(SHAPE, ACTION, settings, device=CPU, seed=seed, proprio_dim=proprio)


def new_batch(seed=0, proprio=0):
    """Random transitions, of which some end truly (discount 0) and some early (γ instead of γ³)."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, BATCH, *SHAPE), generator=g, dtype=torch.uint8)
    sensed = torch.randn(2, BATCH, proprio, generator=g)
    return Transitions(
        observation=Observation(images[0], sensed[0], torch.zeros(BATCH, 0)),
        action=2 * torch.rand(BATCH, ACTION, generator=g) - 1,
        reward=torch.rand(BATCH, generator=g),
        discount=torch.tensor([0.99**3, 0.0, 0.99, 0.99**3]).repeat(BATCH // 4),
        next_observation=Observation(images[1], sensed[1], torch.zeros(BATCH, 0)),
    )


def step(number):
    return torch.tensor(number)


def observations(count=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return without_proprio(torch.randint(0, 256, (count, *SHAPE), generator=g, dtype=torch.uint8))


def weights(agent):
    """Return {network.parameter: copy} of all four networks."""
    return {
        f"{name}.{key}": value.clone()
        for name in ("encoder", "actor", "critic", "target_critic")
        for key, value in getattr(agent, name).state_dict().items()
    }


def changed(before, after):
    """Return the networks all of whose weights changed; fails where a network changed in part."""
    networks = {}
    for name, value in before.items():
        networks.setdefault(name.split(".")[0], set()).add(not torch.equal(value, after[name]))
    assert all(len(verdicts) == 1 for verdicts in networks.values()), networks
    return {name for name, verdicts in networks.items() if verdicts == {True}}


def equal(one, other):
    """Compare two nested states bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def next_draws(agent):
    """Draw what the agent's next update will draw, without advancing its generator."""
    g = torch.Generator()
    g.set_state(agent.generator.get_state())
    pad = agent.settings.shift_pad
    return {
        "offset": torch.randint(-pad, pad + 1, (BATCH, 2), generator=g),
        "next_offset": torch.randint(-pad, pad + 1, (BATCH, 2), generator=g),
        "target_noise": torch.randn(BATCH, ACTION, generator=g),
        "actor_noise": torch.randn(BATCH, ACTION, generator=g),
    }


# ---------------------------------------------------------------------------------------------- one update


@pytest.mark.parametrize(("seed", "proprio"), [(1, 0), (2, 0), (3, 5)])
def test_updates_equal_the_naive_reference(seed, proprio):
    agent = new_agent(seed, proprio=proprio)
    agent.encoder.show(1.0 + 2.0 * torch.randn(64, proprio))
    naive = NaiveDrQV2(agent)
    for number in range(5):
        batch, draws = new_batch(100 * seed + number, proprio), next_draws(agent)
        metrics = agent.update(batch, step(number * 25))
        for name, value in naive.update(batch, number * 25, draws).items():
            assert metrics[name].item() == pytest.approx(value, abs=1e-5), name
        for network, name, value in naive.weights():
            worst = (getattr(agent, network).state_dict()[name] - value).abs().max().item()
            assert worst < 1e-5, f"update {number}: {network}.{name} is off by {worst:.2e}"


def test_every_weight_moves_in_an_update():
    agent = new_agent()
    before = weights(agent)
    agent.update(new_batch(), step(50))
    assert changed(before, weights(agent)) == {"encoder", "actor", "critic", "target_critic"}


def test_the_batch_stays_as_it_is():
    batch = new_batch()
    before = deepcopy(batch)
    new_agent().update(batch, step(50))
    assert equal(tuple(batch), tuple(before))


def test_metrics_are_the_announced_numbers_and_stay_tensors():
    metrics = new_agent().update(new_batch(), step(50))
    assert set(metrics) == set(DrQV2.metric_names)
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


# ---------------------------------------------------------------------------------------------- losses by hand


class Judge(nn.Module):
    """A critic with known values: q1 = offset1 + sum of the action, q2 = offset2 + twice that sum."""

    def __init__(self, offset1, offset2):
        super().__init__()
        self.offset1 = nn.Parameter(torch.tensor(offset1))
        self.offset2 = nn.Parameter(torch.tensor(offset2))

    def forward(self, features, action):
        total = action.sum(dim=1)
        return torch.stack([self.offset1 + total, self.offset2 + 2 * total])


def test_target_and_critic_loss_by_hand():
    agent = new_agent()
    # without noise the next action is the actor's; without a hidden layer's output it is tanh(0) = 0
    nn.init.zeros_(agent.actor.policy[-1].weight)
    agent.target_critic = Judge([2.0, 3.0, 9.0, -1.0], [4.0, 1.0, 9.0, -2.0])  # smaller: 2, 1, 9, -2
    agent.critic = Judge([0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0])
    batch = Transitions(
        observation=observations(4),
        action=torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.0, 0.5], [0.25, 0.25]]),  # sums 1, 0, 1/2, 1/2
        reward=torch.tensor([1.0, 2.0, 3.0, 4.0]),
        discount=torch.tensor([0.5, 1.0, 0.0, 0.5]),  # the third one is a true end
        next_observation=observations(4),
    )
    features = agent.encoder(*batch.observation.seen)
    loss, metrics = critic_loss(
        agent, features, batch, features.detach(), features.detach(), torch.tensor(0.0)
    )
    loss.backward()
    # targets 1 + 2/2, 2 + 1, 3 + 0, 4 - 2/2, that is 2, 3, 3, 3
    assert metrics["target_mean"].item() == 2.75
    # q1 is 1, 0, 1/2, 1/2: errors 1, 3, 5/2, 5/2; q2 is 3, 0, 1, 1: errors -1, 3, 2, 2
    assert metrics["critic_loss"].item() == (1 + 9 + 6.25 + 6.25) / 4 + (1 + 9 + 4 + 4) / 4
    assert metrics["q_mean"].item() == (0.5 + 1.25) / 2
    # d loss / d q = 2 (q - target) / 4
    assert agent.critic.offset1.grad.tolist() == [-0.5, -1.5, -1.25, -1.25]
    assert agent.critic.offset2.grad.tolist() == [0.5, -1.5, -1.0, -1.0]


def test_actor_loss_by_hand():
    agent = new_agent()
    nn.init.zeros_(agent.actor.policy[-1].weight)
    agent.actor.policy[-1].bias.data = torch.tensor([0.5, -0.25])
    # action a = tanh(bias), a1 + a2 = 0.2172; q1 = offset + sum, q2 = offset + 2 sum
    agent.critic = Judge([1.0, 5.0], [2.0, 4.0])
    total = np.tanh(0.5) + np.tanh(-0.25)
    features = torch.randn(2, agent.encoder.feature_count)
    metrics = update_actor(agent, features, features, torch.tensor(0.0))
    # the smaller values are 1 + sum and 4 + 2 sum
    assert metrics["actor_loss"].item() == pytest.approx(-(1 + total + 4 + 2 * total) / 2, abs=1e-6)
    # d loss / d bias = -(1 + 2) / 2 · (1 - tanh²)
    gradient = agent.actor.policy[-1].bias.grad.tolist()
    assert gradient == pytest.approx(
        [-1.5 * (1 - np.tanh(0.5) ** 2), -1.5 * (1 - np.tanh(0.25) ** 2)], abs=1e-6
    )


@pytest.mark.parametrize(
    ("margin", "penalty", "gradient"),
    [(0.0, 0.1 * (9 + 2.25) / 2, [-0.3, 0.15]), (2.0, 0.1 * (3 - 2) ** 2 / 2, [-0.1, 0.0])],
)
def test_the_penalty_on_saturation_by_hand(margin, penalty, gradient):
    agent = new_agent(settings=replace(SMALL, saturation_penalty=0.1, saturation_margin=margin))
    nn.init.zeros_(agent.actor.policy[-1].weight)
    agent.actor.policy[-1].bias.data = torch.tensor([-3.0, 1.5])
    agent.critic = Judge([0.0, 0.0], [0.0, 0.0])
    agent.critic.forward = lambda features, action: 0.0 * action.sum(dim=1).expand(2, -1)
    features = torch.randn(2, agent.encoder.feature_count)
    metrics = update_actor(agent, features, features, torch.tensor(0.0))
    assert metrics["actor_loss"].item() == pytest.approx(penalty)
    # d loss / d bias = 0.1 * 2 (bias - margin) / 2 controls
    assert agent.actor.policy[-1].bias.grad.tolist() == pytest.approx(gradient)


def test_the_noise_in_both_losses_is_clipped():
    agent = new_agent()
    nn.init.zeros_(agent.actor.policy[-1].weight)
    agent.critic = agent.target_critic = Judge([0.0] * BATCH, [0.0] * BATCH)
    seen = []
    agent.critic.register_forward_hook(lambda module, inputs, outputs: seen.append(inputs[1].detach()))
    features = torch.randn(BATCH, agent.encoder.feature_count)
    critic_loss(agent, features, new_batch(), features, features, torch.tensor(100.0))
    update_actor(agent, features, features, torch.tensor(100.0))
    target_action, _, actor_action = seen
    # with noise this strong every action lies on the bound
    for action in (target_action, actor_action):
        torch.testing.assert_close(action.abs(), torch.full((BATCH, ACTION), 0.3))
        assert (action > 0).any()
        assert (action < 0).any()


# ---------------------------------------------------------------------------------------------- who learns


def test_the_critic_loss_moves_critic_and_encoder_alone():
    agent, batch = new_agent(), new_batch()
    before = weights(agent)
    features, next_features = (
        agent.encoder(*batch.observation.seen),
        agent.encoder(*batch.next_observation.seen),
    )
    following = next_features.detach()
    loss, _ = critic_loss(agent, features, batch, following, following, torch.tensor(0.2))
    descend(loss, agent.critic_optimiser)
    assert changed(before, weights(agent)) == {"critic", "encoder"}
    others = [*agent.actor.parameters(), *agent.target_critic.parameters()]
    assert all(parameter.grad is None for parameter in others)


def test_the_actor_loss_moves_the_actor_alone():
    agent = new_agent()
    before = weights(agent)
    features = agent.encoder(*observations(BATCH).seen)
    update_actor(agent, features.detach(), features.detach(), torch.tensor(0.2))
    assert changed(before, weights(agent)) == {"actor"}
    others = [*agent.encoder.parameters(), *agent.critic.parameters(), *agent.target_critic.parameters()]
    assert all(parameter.grad is None for parameter in others)


def test_the_next_observation_sends_no_gradient_to_the_encoder():
    agent = new_agent()
    learns = []
    agent.encoder.register_forward_hook(lambda module, inputs, output: learns.append(output.requires_grad))
    agent.update(new_batch(), step(50))
    assert learns == [True, False]  # the observation, the next observation


def test_the_actor_sees_the_features_from_before_the_encoders_step():
    agent = new_agent()
    seen = {}
    agent.encoder.register_forward_hook(
        lambda module, inputs, output: seen.setdefault("first", output.detach())
    )
    agent.actor.register_forward_hook(lambda module, inputs, output: seen.update(last=inputs[0]))
    agent.update(new_batch(), step(50))
    assert torch.equal(seen["last"], seen["first"])
    assert not seen["last"].requires_grad


def test_target_critic_starts_as_the_critic_and_follows_at_tau():
    agent = new_agent()
    start = [p.detach().clone() for p in agent.critic.parameters()]
    assert equal(list(agent.target_critic.parameters()), start)
    agent.update(new_batch(), step(50))
    networks = (agent.critic.parameters(), agent.target_critic.parameters())
    for old, critic, target in zip(start, *networks, strict=True):
        torch.testing.assert_close(target, 0.99 * old + 0.01 * critic.detach(), rtol=0, atol=1e-7)
        assert not target.requires_grad


# ---------------------------------------------------------------------------------------------- acting


def test_actions_are_uniform_at_first():
    agent = new_agent()
    observation = without_proprio(observations(1).stack.expand(4000, *SHAPE))
    action = agent.act(observation, agent_step=9)
    assert action.abs().max() <= 1
    counts = torch.histc(action, bins=10, min=-1, max=1)
    chi_square = ((counts - 800) ** 2 / 800).sum().item()
    assert abs(chi_square - 9) < 4 * 18**0.5


def test_then_actions_are_the_policys_with_unclipped_noise():
    agent = new_agent()
    seen = observations(5)
    mean = agent.act_greedily(seen)
    g = torch.Generator()
    g.set_state(agent.generator.get_state())
    action = agent.act(seen, agent_step=10)
    # the schedule goes from 1 to 0.1 in 100 agent steps: 0.91 after 10
    expected = (mean + 0.91 * torch.randn(5, ACTION, generator=g)).clamp(-1 + 1e-6, 1 - 1e-6)
    torch.testing.assert_close(action, expected, rtol=0, atol=1e-6)
    assert (action - mean).abs().max() > 0.3
    assert not action.requires_grad


def test_acting_greedily_is_deterministic_and_leaves_no_trace():
    agent = new_agent()
    agent.update(new_batch(), step(50))
    seen = observations()
    gradients = [p.grad.clone() for p in agent.encoder.parameters()]
    before, global_state = deepcopy(agent.state_dict()), torch.get_rng_state()
    first, second = agent.act_greedily(seen), agent.act_greedily(seen)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert equal(agent.state_dict(), before)
    assert equal([p.grad for p in agent.encoder.parameters()], gradients)
    assert torch.equal(torch.get_rng_state(), global_state)


def test_greedy_action_is_the_mean():
    agent = new_agent()
    seen = observations()
    naive = NaiveDrQV2(agent)
    expected = mean_action(naive.actor, encode(naive.encoder, seen.stack.double(), seen.proprio))
    torch.testing.assert_close(agent.act_greedily(seen).double(), expected.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("agent_step", "std"), [(0, 1.0), (50, 0.55), (100, 0.1), (1000, 0.1)])
def test_noise_decays_with_agent_steps(agent_step, std):
    assert new_agent().std(step(agent_step)).item() == pytest.approx(std)


# ---------------------------------------------------------------------------------------------- repeatability


def trained(agent, updates, first=0):
    for number in range(first, first + updates):
        agent.update(new_batch(seed=number), step(number))
        agent.act(observations(seed=number), agent_step=number)
    return agent


def test_the_same_seed_gives_the_same_weights():
    assert equal(trained(new_agent(7), 5).state_dict(), trained(new_agent(7), 5).state_dict())


def test_another_seed_gives_other_weights_and_other_noise():
    one, other = new_agent(7), new_agent(8)
    assert not torch.equal(one.encoder.convolutions[0].weight, other.encoder.convolutions[0].weight)
    assert not torch.equal(one.actor.policy[0].weight, other.actor.policy[0].weight)
    assert not torch.equal(one.act(observations(), 0), other.act(observations(), 0))


def test_training_neither_reads_nor_moves_the_global_generator():
    one, other = new_agent(), new_agent()
    torch.manual_seed(1)
    trained(one, 3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    trained(other, 3)
    assert equal(one.state_dict(), other.state_dict())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_restored_agent_continues_bit_for_bit():
    original = trained(new_agent(seed=1), 3)
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    restored = trained(new_agent(seed=2), 2)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert equal(restored.state_dict(), original.state_dict())
    trained(original, 4, first=3)
    trained(restored, 4, first=3)
    assert equal(restored.state_dict(), original.state_dict())
    assert torch.equal(restored.act_greedily(observations()), original.act_greedily(observations()))
