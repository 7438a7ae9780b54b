"""The privileged agent: who is told what, who learns from what, and that what can be seen is guessed."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from pixelcontrol.agents.drqv2 import DrQV2, DrQV2Settings
from pixelcontrol.agents.privileged import Privileged, PrivilegedSettings
from pixelcontrol.types import Agent, Observation, Transitions

CPU = torch.device("cpu")
SHAPE, ACTION, BATCH, KNOWN, PROPRIO = (9, 20, 20), 2, 8, 5, 3
SIZES = {"feature_dim": 6, "hidden_dim": 16, "conv_filters": 4, "stddev_duration": 100}
SMALL = PrivilegedSettings(**SIZES)
NETWORKS = ("encoder", "guesser", "actor", "critic", "target_critic")
STEP = torch.tensor(50)


def new_agent(seed=1, proprio=0, settings=SMALL):
    return Privileged(
        SHAPE, ACTION, settings, device=CPU, seed=seed, privileged_dim=KNOWN, proprio_dim=proprio
    )


def observation(g, count=BATCH, proprio=0):
    stack = torch.randint(0, 256, (count, *SHAPE), generator=g, dtype=torch.uint8)
    return Observation(
        stack, torch.randn(count, proprio, generator=g), torch.randn(count, KNOWN, generator=g)
    )


def new_batch(seed=0, proprio=0):
    g = torch.Generator().manual_seed(seed)
    return Transitions(
        observation=observation(g, proprio=proprio),
        action=2 * torch.rand(BATCH, ACTION, generator=g) - 1,
        reward=torch.rand(BATCH, generator=g),
        discount=torch.tensor([0.97, 0.0]).repeat(BATCH // 2),
        next_observation=observation(g, proprio=proprio),
    )


def weights(agent):
    """Return all weights of each network in one row."""
    return {
        name: torch.cat([weight.detach().flatten() for weight in getattr(agent, name).parameters()])
        for name in NETWORKS
    }


def moved(agent, update):
    """Return the networks that an update changes."""
    before = weights(agent)
    update()
    return {name for name, row in weights(agent).items() if not torch.equal(row, before[name])}


class Oracle(nn.Module):
    """Guesses what it is given beforehand, whatever it sees."""

    def __init__(self, *guesses):
        super().__init__()
        self.guesses = list(guesses)

    def forward(self, features):
        return self.guesses.pop(0)


# ---------------------------------------------------------------------------------------------- what is learned


def test_one_that_guesses_right_is_drqv2_that_is_told():
    """Bit for bit, where DrQ-v2 has as proprioception what is privileged here."""
    agent = new_agent(settings=replace(SMALL, guess_weight=0.0))
    told = DrQV2(SHAPE, ACTION, DrQV2Settings(**SIZES), device=CPU, seed=1, proprio_dim=KNOWN)
    shown = new_batch(9).observation
    agent.norm.show(shown.privileged)
    told.encoder.show(shown.privileged)
    for number in range(3):
        batch = new_batch(number)
        agent.guesser = Oracle(*(agent.norm(seen.privileged) for seen in batch[:1] + batch[-1:]))
        metrics = agent.update(batch, STEP)
        now, then = (
            seen._replace(proprio=seen.privileged) for seen in (batch.observation, batch.next_observation)
        )
        expected = told.update(batch._replace(observation=now, next_observation=then), STEP)
        assert metrics.pop("guess_error") == 0.0
        assert metrics == expected
    for name in ("encoder", "actor", "critic", "target_critic"):
        one, two = (list(getattr(one, name).parameters()) for one in (agent, told))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_an_update_moves_all_networks_and_the_guess_its_own_alone():
    agent, batch = new_agent(), new_batch()
    assert moved(agent, lambda: agent.update(batch, STEP)) == set(NETWORKS)
    without = new_agent(settings=replace(SMALL, guess_weight=0.0))
    # neither critics nor actor teach what to guess
    assert moved(without, lambda: without.update(batch, STEP)) == set(NETWORKS) - {"guesser"}


@pytest.mark.parametrize("scale", [0.0, 100.0])
def test_the_guess_is_learned_in_units_of_the_critics_loss_by_hand(scale):
    """With a scale of 0 that is below 1, and counts as 1."""
    agent = new_agent(settings=replace(SMALL, guess_weight=3.0))
    last = agent.guesser[-1][-1]
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.5, 0.0, 0.0, 0.0, -1.0])
    batch = new_batch()
    batch = batch._replace(reward=batch.reward * scale, discount=0.0 * batch.discount)
    metrics = agent.update(batch, STEP)
    apart = torch.tensor([0.5, 0.0, 0.0, 0.0, -1.0]) - agent.norm(batch.observation.privileged)
    assert metrics["guess_error"].item() == pytest.approx(apart.square().mean().item(), rel=1e-5)
    size = max(1.0, metrics["critic_loss"].item())
    assert (size == 1.0) == (scale == 0.0)
    # d loss / d bias = 3 size * 2 (guess - truth), averaged over batch and numbers
    expected = 3.0 * size * 2.0 * apart.mean(dim=0) / KNOWN
    torch.testing.assert_close(last.bias.grad, expected, rtol=1e-4, atol=1e-5)


def test_the_encoder_learns_from_the_guess():
    """Where nothing is rewarded and critics are silent, it alone says what to see."""
    agents = [new_agent(settings=replace(SMALL, guess_weight=weight)) for weight in (0.0, 1.0)]
    batch = new_batch()
    batch = batch._replace(reward=0.0 * batch.reward)
    for agent in agents:
        for critic in (agent.critic, agent.target_critic):
            for weight in critic.parameters():
                nn.init.zeros_(weight)
    found = ["encoder" in moved(agent, partial(agent.update, batch, STEP)) for agent in agents]
    assert found == [False, True]


def test_what_is_privileged_has_one_size_whatever_its_units():
    """Metres or millimetres: the same, once both have been shown the same rows."""
    agents = [new_agent() for _ in range(2)]
    units = torch.tensor([1.0, 1e3, 1e-3, 50.0, 1.0])
    for number in range(20):
        seen = new_batch(number).observation
        in_other_units = seen._replace(privileged=seen.privileged * units + 3.0)
        for agent, what in zip(agents, (seen, in_other_units), strict=True):
            agent.act(what, 0)
    one, other = (
        agent.norm(what.privileged) for agent, what in zip(agents, (seen, in_other_units), strict=True)
    )
    torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)
    assert one.abs().max() < 5
    # evaluations and updates show it nothing
    agents[0].act_greedily(seen)
    agents[0].update(new_batch(), STEP)
    assert agents[0].norm.count == 20 * BATCH


def test_what_can_be_seen_is_guessed_and_acted_on():
    """Which half of the image is bright; the action that is rewarded has its sign."""
    g = torch.Generator().manual_seed(0)
    settings = PrivilegedSettings(**SIZES, learning_rate=3e-3, shift_pad=1, stddev_initial=0.1)
    agent = new_agent(settings=settings)

    def scene(count):
        side = torch.randint(0, 2, (count,), generator=g)
        stack = torch.randint(0, 100, (count, *SHAPE), generator=g, dtype=torch.uint8)
        for i, right in enumerate(side.tolist()):
            stack[i, :, :, 10 * right : 10 * right + 10] += 100
        known = torch.zeros(count, KNOWN)
        known[:, 0] = 2.0 * side - 1.0
        return Observation(stack, torch.zeros(count, 0), known)

    for _ in range(150):
        seen, action = scene(64), 2 * torch.rand(64, ACTION, generator=g) - 1
        reward = action[:, 0] * seen.privileged[:, 0]
        metrics = agent.update(Transitions(seen, action, reward, torch.zeros(64), seen), STEP)
    assert metrics["guess_error"] < 0.05
    test = scene(100)
    assert (agent.act_greedily(test)[:, 0].sign() == test.privileged[:, 0]).float().mean() > 0.95


# ---------------------------------------------------------------------------------------------- acting


def test_actions_follow_from_what_is_seen_alone():
    agent, seen = new_agent(proprio=PROPRIO), new_batch(proprio=PROPRIO).observation
    best = agent.act_greedily(seen)
    nothing = torch.zeros(BATCH, 0)
    assert torch.equal(best, agent.act_greedily(seen._replace(privileged=nothing)))
    assert not torch.equal(best, agent.act_greedily(seen._replace(proprio=-seen.proprio)))
    assert not torch.equal(best, agent.act_greedily(seen._replace(stack=255 - seen.stack)))
    agent.guesser[-1][-1].bias.data += 1.0  # guesses of something else
    assert not torch.equal(best, agent.act_greedily(seen))


def test_exploration_is_drqv2s():
    """Random, then the policy's with noise."""
    settings = PrivilegedSettings(**SIZES, exploration_steps=10, stddev_initial=0.0, stddev_final=0.0)
    agent, seen = new_agent(settings=settings), new_batch().observation
    own = agent.act_greedily(seen)
    assert (agent.act(seen, 9) - own).abs().max() > 0.1
    torch.testing.assert_close(agent.act(seen, 10), own)
    noisy = new_agent(settings=replace(settings, stddev_initial=0.5, stddev_final=0.5))
    assert 0.1 < (noisy.act(seen, 10) - own).std() < 1.0


# ---------------------------------------------------------------------------------------------- the whole


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    agents = [new_agent(seed) for seed in (1, 1, 2)]
    for agent in agents:
        for number in range(3):
            agent.update(new_batch(number), STEP)
    first, second, third = map(weights, agents)
    for name in NETWORKS:
        assert torch.equal(first[name], second[name])
        assert not torch.equal(first[name], third[name])


def test_a_restored_agent_goes_on_as_the_first():
    agent, other = new_agent(proprio=PROPRIO), new_agent(seed=2, proprio=PROPRIO)
    agent.act(new_batch(proprio=PROPRIO).observation, 0)
    agent.update(new_batch(proprio=PROPRIO), STEP)
    other.load_state_dict(deepcopy(agent.state_dict()))
    for one in (agent, other):
        one.act(new_batch(2, proprio=PROPRIO).observation, 0)
        one.update(new_batch(1, proprio=PROPRIO), STEP)
    assert torch.equal(agent.norm.variance, other.norm.variance)
    assert torch.equal(agent.encoder.norm.variance, other.encoder.norm.variance)
    assert all(torch.equal(weights(agent)[name], weights(other)[name]) for name in NETWORKS)
    assert torch.equal(agent.generator.get_state(), other.generator.get_state())


def test_it_is_an_agent():
    assert isinstance(new_agent(), Agent)
