from dataclasses import asdict, fields

import numpy as np
import pytest
import torch
from naive_soft import NaiveAgent
from soft_helpers import (
    ACTIONS,
    BATCH,
    CPU,
    SMALL,
    STEP,
    batch_of,
    changed_parts,
    copied_generator,
    same,
    through_a_file,
    weights_of,
    with_random_biases,
)

from pixelcontrol.agents.drq import DrQ, DrQSettings
from pixelcontrol.agents.sac import SAC, SACSettings


def make(seed=1, proprio=0, **changes):
    settings = DrQSettings(**SMALL | changes)
    return DrQ((9, 16, 16), ACTIONS, settings, device=CPU, seed=seed, proprio_dim=proprio)


def shifted(images, offsets, pad):
    """Crop each edge-padded image, one by one."""
    height, width = images.shape[2:]
    views = []
    for image, (down, right) in zip(images.numpy(), offsets.tolist(), strict=True):
        padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
        views.append(padded[:, pad + down : pad + down + height, pad + right : pad + right + width])
    return torch.from_numpy(np.stack(views))


@pytest.mark.parametrize("settings", [{}, {"delta_orthogonal": True, "encoder_tau": 0.05}])
def test_one_view_without_shift_is_sac(settings):
    """Bit for bit, over two cycles of updates and the actions after them."""
    common = asdict(SACSettings(**asdict_of_sac(DrQSettings(**SMALL | settings))))
    drq = DrQ(
        (9, 16, 16),
        ACTIONS,
        DrQSettings(**common, views=1, target_views=1, shift_pad=0),
        device=CPU,
        seed=3,
    )
    sac = SAC((9, 16, 16), ACTIONS, SACSettings(**common), device=CPU, seed=3)
    assert same(weights_of(drq), weights_of(sac))
    for update in range(4):
        of_drq, of_sac = (agent.update_cycle[update % 2](batch_of(update), STEP) for agent in (drq, sac))
        assert same(of_drq, of_sac)
    assert same(weights_of(drq), weights_of(sac))
    observation = batch_of(9).observation
    for agent_step in (10, 10_000):
        assert torch.equal(drq.act(observation, agent_step), sac.act(observation, agent_step))
    assert torch.equal(drq.act_greedily(observation), sac.act_greedily(observation))


def asdict_of_sac(settings):
    return {item.name: getattr(settings, item.name) for item in fields(SACSettings)}


@pytest.mark.parametrize(("views", "target_views", "proprio"), [(2, 2, 0), (1, 3, 0), (3, 1, 4)])
def test_two_updates_equal_the_naive_ones(views, target_views, proprio):
    agent = make(views=views, target_views=target_views, proprio=proprio, log_std_min=-2.0)
    agent = with_random_biases(agent)
    agent.model.encoder.show(1.0 + 2.0 * torch.randn(64, proprio))
    naive = NaiveAgent(agent, agent.settings)
    for turn in (0, 1):
        batch = batch_of(turn, proprio=proprio)
        g = copied_generator(agent)
        offsets = torch.randint(-4, 5, (views * BATCH, 2), generator=g).split(BATCH)
        next_offsets = torch.randint(-4, 5, (target_views * BATCH, 2), generator=g).split(BATCH)
        noises = torch.randn(target_views * BATCH, ACTIONS, generator=g).split(BATCH)
        losses = naive.update(
            [shifted(batch.observation.stack, offset, 4) for offset in offsets],
            [shifted(batch.next_observation.stack, offset, 4) for offset in next_offsets],
            batch,
            noises,
            torch.randn(BATCH, ACTIONS, generator=g),
            delayed=turn == 0,
        )
        metrics = agent.update_cycle[turn](batch, STEP)
        for name, loss in losses.items():
            assert metrics[name].item() == pytest.approx(loss, rel=1e-5)
        for name, weight in weights_of(agent).items():
            torch.testing.assert_close(weight, naive.weights[name].detach(), rtol=0, atol=1e-5, msg=name)


def test_more_views_steady_the_target():
    """The mean of K values varies less: over 40 draws, by about 1/K."""

    def spread(target_views):
        agent = make(target_views=target_views, shift_pad=4)
        batch = batch_of(0)
        state = weights_of(agent)
        means = []
        for _ in range(40):
            means.append(agent.update_cycle[1](batch, STEP)["target_mean"])
            for part in ("encoder", "critic"):
                prefix = f"{part}."
                getattr(agent.model, part).load_state_dict(
                    {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
                )
        return torch.stack(means).var()

    assert spread(8) < 0.5 * spread(1)


def test_every_second_update_is_the_critics_alone():
    agent = make()
    before = weights_of(agent)
    agent.update_cycle[1](batch_of(0), STEP)
    assert changed_parts(before, weights_of(agent)) == {"encoder", "critic.trunk", "critic.twins"}
    before = weights_of(agent)
    metrics = agent.update_cycle[0](batch_of(1), STEP)
    assert {"actor", "temperature", "target_encoder"} <= changed_parts(before, weights_of(agent))
    assert metrics.keys() == set(DrQ.metric_names)


def test_the_seed_decides_everything():
    def outcome(seed):
        agent = make(seed)
        agent.update(batch_of(0), STEP)
        return weights_of(agent)

    assert same(outcome(3), outcome(3))
    assert not same(outcome(3), outcome(4))


def test_state_round_trip():
    agent, other = make(1), make(2)
    for turn in (0, 1, 0):
        agent.update_cycle[turn](batch_of(turn), STEP)
    other.load_state_dict(through_a_file(agent.state_dict()))
    for one in (agent, other):
        one.update_cycle[1](batch_of(5), STEP)
    assert same(weights_of(agent), weights_of(other))
