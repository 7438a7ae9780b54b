"""The privileged agent: what teacher and student see, who learns from what, and that the student learns."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from observing import without_proprio
from torch import nn

from pixelcontrol.agents import privileged
from pixelcontrol.agents.drqv2 import DrQV2, DrQV2Settings, update_actor, update_critic
from pixelcontrol.agents.privileged import (
    STUDENT_TURN_STEPS,
    Privileged,
    PrivilegedSettings,
    student_worlds,
)
from pixelcontrol.networks import ema_update
from pixelcontrol.types import Agent, Observation, Transitions

CPU = torch.device("cpu")
SHAPE, ACTION, BATCH, KNOWN, PROPRIO = (9, 20, 20), 2, 8, 5, 3
SIZES = {"feature_dim": 6, "hidden_dim": 16, "conv_filters": 4, "stddev_duration": 100}
SMALL = PrivilegedSettings(**SIZES, student_batch_size=4)
NETWORKS = ("actor", "critic", "target_critic", "encoder", "student")
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


# ---------------------------------------------------------------------------------------------- the teacher


def test_the_teacher_is_drqv2_on_numbers_in_place_of_features():
    """The same steps by DrQ-v2's own agent, whose networks are copies of the teacher's."""
    agent, batch = new_agent(proprio=PROPRIO), new_batch(proprio=PROPRIO)
    agent.act(new_batch(3, proprio=PROPRIO).observation, 0)
    other = DrQV2(SHAPE, ACTION, DrQV2Settings(**SIZES), device=CPU, seed=2)
    for name in ("actor", "critic", "target_critic"):
        setattr(other, name, type(getattr(agent, name))(KNOWN + PROPRIO, ACTION, 6, 16, normed=True))
        getattr(other, name).load_state_dict(getattr(agent, name).state_dict())
    adam = partial(torch.optim.Adam, lr=1e-4, fused=True, capturable=True)
    other.critic_optimiser, other.actor_optimiser = (
        adam(other.critic.parameters()),
        adam(other.actor.parameters()),
    )
    other.generator.set_state(agent.generator.get_state())
    known, later = (
        agent.norm(torch.cat([seen.privileged, seen.proprio], dim=1))
        for seen in (batch.observation, batch.next_observation)
    )
    for _ in range(3):
        found = agent.update(batch, STEP, student=False)
        std = other.std(STEP)
        expected = update_critic(other, known, batch, later, std) | update_actor(other, known, std)
        ema_update(other.target_critic.parameters(), other.critic.parameters(), 0.01)
        assert found == expected
    for name in ("actor", "critic", "target_critic"):
        one, two = (getattr(one, name).state_dict() for one in (agent, other))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_teacher_alone_is_what_its_own_update_moves():
    agent, batch = new_agent(), new_batch()
    teacher = {"actor", "critic", "target_critic"}
    assert moved(agent, lambda: agent.update(batch, STEP, student=False)) == teacher
    assert moved(agent, lambda: agent.update(batch, STEP)) == set(NETWORKS)


def test_the_teacher_sees_what_is_privileged_in_one_size_whatever_its_units():
    """Metres or millimetres: the same actions, once both have been shown the same rows."""
    agents = [new_agent(proprio=PROPRIO) for _ in range(2)]
    units = torch.tensor([1.0, 1e3, 1e-3, 50.0, 1.0])
    for number in range(20):
        seen = new_batch(number, proprio=PROPRIO).observation
        in_other_units = seen._replace(privileged=seen.privileged * units + 3.0)
        for agent, what in zip(agents, (seen, in_other_units), strict=True):
            agent.act(what, 0)
    one, other = (agent.known(what) for agent, what in zip(agents, (seen, in_other_units), strict=True))
    torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)
    assert one.abs().max() < 5
    # evaluations and updates show it nothing
    agents[0].act_greedily(seen)
    agents[0].update(new_batch(proprio=PROPRIO), STEP)
    assert agents[0].norm.count == 20 * BATCH


def test_the_student_learns_at_one_update_of_several():
    agent, batch = new_agent(), new_batch()
    told = ["student_error" in update(batch, STEP) for update in agent.update_cycle]
    assert told == [True, False, False, False]


# ---------------------------------------------------------------------------------------------- the student


def test_the_student_alone_is_what_its_loss_moves():
    agent, batch = new_agent(), new_batch()
    agent.critic_optimiser.zero_grad(set_to_none=True)
    assert moved(agent, lambda: agent.update_student(batch.observation)) == {"encoder", "student"}
    teacher = [*agent.actor.parameters(), *agent.critic.parameters(), *agent.target_critic.parameters()]
    assert all(parameter.grad is None for parameter in teacher)


def test_the_students_error_by_hand():
    agent = new_agent(settings=replace(SMALL, student_value_weight=0.0))
    for network, bias in ((agent.actor, [0.5, -1.0]), (agent.student, [0.0, 2.0])):
        nn.init.zeros_(network.policy[-1].weight)
        network.policy[-1].bias.data = torch.tensor(bias)
    error = agent.update_student(new_batch().observation)["student_error"].item()
    apart = np.tanh([0.5, -1.0]) - np.tanh([0.0, 2.0])
    assert error == pytest.approx((apart**2).mean(), rel=1e-6)
    # d loss / d bias = 2 (student - teacher) (1 - tanh²) / 2 controls
    expected = -apart * (1 - np.tanh([0.0, 2.0]) ** 2)
    assert agent.student.policy[-1].bias.grad.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


class Judge(nn.Module):
    """Two critics: of the sum of both controls, one finds less in it."""

    def __init__(self, high):
        super().__init__()
        self.high = nn.Parameter(torch.tensor(high))

    def forward(self, known, action):
        return torch.stack([self.high + action.sum(dim=1), self.high + 2.0 + 3.0 * action.sum(dim=1)])


@pytest.mark.parametrize(("high", "size"), [(-40.0, 40.5), (-0.2, 1.0)])
def test_what_the_critics_make_of_the_student_by_hand(high, size):
    """It agrees with the teacher, so values alone have a gradient: the lower one's, in units of its size."""
    agent = new_agent(settings=replace(SMALL, student_value_weight=2.0))
    agent.target_critic = Judge(high)
    for network in (agent.actor, agent.student):
        nn.init.zeros_(network.policy[-1].weight)
        network.policy[-1].bias.data = torch.tensor([0.0, -0.5]).atanh()
    agent.update_student(new_batch().observation)
    # d loss / d bias = -2 (d value / d action) (1 - tanh²) / size
    expected = [-2.0 / size, -2.0 * 0.75 / size]
    assert agent.student.policy[-1].bias.grad.tolist() == pytest.approx(expected, rel=1e-5)
    assert agent.target_critic.high.grad is None


def test_a_student_with_a_penalty_does_not_saturate_by_hand():
    agent = new_agent(settings=replace(SMALL, student_value_weight=0.0, saturation_penalty=0.1))
    for network in (agent.actor, agent.student):
        nn.init.zeros_(network.policy[-1].weight)
        network.policy[-1].bias.data = torch.tensor([3.5, -1.0])
    metrics = agent.update_student(new_batch().observation)
    # d loss / d bias = 0.1 * 2 bias / 2 controls
    assert agent.student.policy[-1].bias.grad.tolist() == pytest.approx([0.35, -0.1], rel=1e-5)
    assert (metrics["student_error"], metrics["student_saturation"]) == (0.0, 0.5)


def test_the_student_learns_from_images_of_all_parts_of_a_batch():
    """4 of 8, without shifts: the first half may be demonstrations, the second its own."""
    settings = PrivilegedSettings(**SIZES, student_batch_size=4, shift_pad=0)
    seen = new_batch().observation
    losses = [new_agent(settings=settings).update_student(seen)["student_error"].item()]
    for place in range(BATCH):
        stack = seen.stack.clone()
        stack[place] = 255
        other = new_agent(settings=settings).update_student(seen._replace(stack=stack))
        losses.append(other["student_error"].item())
    assert [loss != losses[0] for loss in losses[1:]] == [True, False] * 4


def test_the_student_sees_shifted_images(monkeypatch):
    pads = []
    monkeypatch.setattr(privileged, "random_shift", lambda stack, pad, _: pads.append(pad) or stack)
    agent = new_agent()
    agent.update(new_batch(), STEP)
    assert pads == [agent.settings.shift_pad]


# ---------------------------------------------------------------------------------------------- acting


def test_the_best_actions_follow_from_what_is_seen_alone():
    agent, seen = new_agent(proprio=PROPRIO), new_batch(proprio=PROPRIO).observation
    best = agent.act_greedily(seen)
    nothing = torch.zeros(BATCH, 0)
    assert torch.equal(best, agent.act_greedily(seen._replace(privileged=nothing)))
    assert not torch.equal(best, agent.act_greedily(seen._replace(proprio=-seen.proprio)))
    assert not torch.equal(best, agent.act_greedily(seen._replace(stack=255 - seen.stack)))


def test_the_student_acts_in_a_quarter_of_the_worlds_and_in_each_in_its_turn():
    settings = PrivilegedSettings(**SIZES, exploration_steps=10, stddev_initial=0.0, stddev_final=0.0)
    agent, seen = new_agent(settings=settings), new_batch().observation
    own = agent.act_greedily(seen)

    def students(agent_step):
        return (agent.act(seen, agent_step) - own).abs().amax(dim=1) < 1e-5

    turn = BATCH * STUDENT_TURN_STEPS
    assert students(turn - BATCH).tolist() == [True, False, False, False] * 2
    assert students(turn).tolist() == [False, False, False, True] * 2
    assert sum(students(turn * k) for k in range(1, 5)).tolist() == [1] * BATCH
    # what is not the student's is the teacher's
    taught = agent.actor(agent.known(seen)).tanh()
    torch.testing.assert_close(agent.act(seen, turn)[0], taught[0])
    # at first actions are random
    assert not students(9).any()


def test_noise_is_added_to_the_actions_of_both():
    settings = PrivilegedSettings(**SIZES, exploration_steps=0, stddev_initial=0.1, stddev_final=0.1)
    agent, seen = new_agent(settings=settings), new_batch().observation
    first, second = (agent.act(seen, 0) for _ in range(2))
    apart = (first - second).abs()
    assert (apart > 0).all()
    assert apart.max() < 1


@pytest.mark.parametrize("episode", [250, 500, 1000])
def test_in_one_world_alone_the_student_comes_to_act_in_all_parts_of_an_episode(episode):
    """Agent steps are counted without the rows at the start of episodes."""
    acts = [step for step in range(200 * STUDENT_TURN_STEPS) if student_worlds(step, 1, CPU).item()]
    assert {step % episode for step in acts} == set(range(episode))
    assert len(acts) == 50 * STUDENT_TURN_STEPS


def test_one_world_alone_has_both_act_in_it():
    settings = PrivilegedSettings(**SIZES, exploration_steps=0, stddev_initial=0.0, stddev_final=0.0)
    agent = new_agent(settings=settings)
    seen = Observation(*(part[:1] for part in new_batch().observation))
    own = agent.act_greedily(seen)
    turns = [torch.allclose(agent.act(seen, STUDENT_TURN_STEPS * k), own) for k in range(8)]
    assert turns == [True, False, False, False] * 2


# ---------------------------------------------------------------------------------------------- the whole


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    agents = [new_agent(seed) for seed in (1, 1, 2)]
    for agent in agents:
        for number in range(4):
            agent.update_cycle[number](new_batch(number), STEP)
    first, second, third = map(weights, agents)
    for name in NETWORKS:
        assert torch.equal(first[name], second[name])
        assert not torch.equal(first[name], third[name])


def test_a_restored_agent_goes_on_as_the_first():
    agent, other = new_agent(), new_agent(seed=2)
    agent.act(new_batch().observation, 0)
    agent.update(new_batch(), STEP)
    other.load_state_dict(deepcopy(agent.state_dict()))
    for one in (agent, other):
        one.act(new_batch(2).observation, 0)
        one.update(new_batch(1), STEP)
    assert torch.equal(agent.norm.variance, other.norm.variance)
    assert all(torch.equal(weights(agent)[name], weights(other)[name]) for name in NETWORKS)
    assert torch.equal(agent.generator.get_state(), other.generator.get_state())


def test_it_is_an_agent():
    assert isinstance(new_agent(), Agent)


def test_the_student_learns_what_can_be_seen():
    """Which half of the image is bright, which the teacher is told: its wish is the bright half's sign."""
    g = torch.Generator().manual_seed(0)
    settings = PrivilegedSettings(
        **SIZES, student_batch_size=32, learning_rate=1e-3, shift_pad=1, student_value_weight=0.0
    )
    agent = new_agent(settings=settings)
    agent.actor = nn.Sequential(nn.Linear(KNOWN, ACTION, bias=False))
    agent.actor[0].weight.data = torch.zeros(ACTION, KNOWN).index_fill_(1, torch.tensor([0]), 2.0)

    def scene(count):
        side = torch.randint(0, 2, (count,), generator=g)
        stack = torch.randint(0, 100, (count, *SHAPE), generator=g, dtype=torch.uint8)
        for i, right in enumerate(side.tolist()):
            stack[i, :, :, 10 * right : 10 * right + 10] += 100
        known = torch.zeros(count, KNOWN)
        known[:, 0] = 2.0 * side - 1.0
        return without_proprio(stack)._replace(privileged=known)

    for _ in range(60):
        agent.update_student(scene(32))
    test = scene(100)
    assert ((agent.act_greedily(test) > 0) == (test.privileged[:, :1] > 0)).float().mean() > 0.95
