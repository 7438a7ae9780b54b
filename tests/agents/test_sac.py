from dataclasses import replace
from math import log

import pytest
import torch
from naive_soft import NaiveAgent
from observing import without_proprio
from soft_helpers import (
    ACTIONS,
    BATCH,
    CPU,
    SMALL,
    STEP,
    batch_of,
    changed_parts,
    copied_generator,
    images,
    parts_with_gradient,
    same,
    through_a_file,
    tiny_replay,
    weights_of,
    with_random_biases,
)

from pixelcontrol.agents.sac import (
    SAC,
    SACModel,
    SACSettings,
    soft_value,
    update_actor,
    update_critic,
    update_targets,
    update_temperature,
)
from pixelcontrol.learner import Learner


def make(seed=1, size=16, proprio=0, **changes):
    settings = SACSettings(**SMALL | changes)
    return SAC((9, size, size), ACTIONS, settings, device=CPU, seed=seed, proprio_dim=proprio)


@pytest.mark.parametrize("proprio", [0, 4])
def test_three_updates_equal_the_naive_ones(proprio):
    # a long step of the temperature, or its own moments would not show
    agent = with_random_biases(make(proprio=proprio, log_std_min=-2.0, temperature_learning_rate=0.05))
    agent.model.encoder.show(1.0 + 2.0 * torch.randn(64, proprio))
    naive = NaiveAgent(agent, agent.model.settings)
    for update in range(3):
        turn = update % 2
        batch = batch_of(update, proprio=proprio)
        g = copied_generator(agent)
        noise = [torch.randn(BATCH, ACTIONS, generator=g) for _ in range(2)]
        delayed = turn == 0
        losses = naive.update(
            [batch.observation.stack],
            [batch.next_observation.stack],
            batch,
            noise[:1],
            noise[1],
            delayed=delayed,
        )
        metrics = agent.update_cycle[turn](batch, STEP)
        for name, loss in losses.items():
            assert metrics[name].item() == pytest.approx(loss, rel=1e-5)
        for name, weight in weights_of(agent).items():
            torch.testing.assert_close(weight, naive.weights[name].detach(), rtol=0, atol=1e-5, msg=name)


def test_the_target_is_worked_out_by_hand():
    model = make().model
    for critic in (model.target_critic, model.critic):
        torch.nn.init.zeros_(critic.twins[4].weight)
        critic.twins[4].bias.data = torch.tensor([[[3.0]], [[2.0]]])
    torch.nn.init.zeros_(model.actor.policy[4].weight)  # u = 0 + σ·z, log σ = (-10 + 2)/2 = -4
    z = torch.randn(BATCH, ACTIONS, generator=torch.Generator().manual_seed(3))
    u = z * torch.tensor(-4.0).exp()
    log_prob = (-(z**2) / 2 + 4 - log(2 * torch.pi) / 2 - (1 - u.tanh() ** 2).log()).sum(1)
    value = soft_value(model, batch_of(0).observation, torch.Generator().manual_seed(3))
    torch.testing.assert_close(value, 2.0 - 0.1 * log_prob)


def test_the_critics_loss_reaches_critic_and_encoder():
    agent, batch = make(), batch_of(0)
    before = weights_of(agent)
    update_critic(agent.model, batch.observation, batch.action, batch.reward)
    learned = {"encoder", "critic.trunk", "critic.twins"}
    assert parts_with_gradient(agent) == learned
    assert changed_parts(before, weights_of(agent)) == learned


def test_the_actors_losses_reach_actor_and_temperature():
    agent, batch = make(), batch_of(0)
    before = weights_of(agent)
    update_actor(agent.model, batch.observation, agent.generator)
    assert parts_with_gradient(agent) == {"actor", "temperature"}
    assert changed_parts(before, weights_of(agent)) == {"actor", "temperature"}


def test_the_temperatures_loss_reaches_it_alone():
    agent = make()
    update_temperature(agent.model, torch.tensor(1.0))
    assert parts_with_gradient(agent) == {"temperature"}


def test_targets_follow_at_their_own_rates():
    agent = make(critic_tau=0.25, encoder_tau=0.5)
    model = agent.model
    for parameter in (*model.encoder.parameters(), *model.critic.parameters()):
        parameter.data.fill_(1.0)
    for parameter in (*model.target_encoder.parameters(), *model.target_critic.parameters()):
        parameter.data.zero_()
    update_targets(model)
    assert all((p == 0.5).all() for p in model.target_encoder.parameters())
    assert all((p == 0.5).all() for p in model.target_critic.trunk.parameters())
    assert all((p == 0.25).all() for p in model.target_critic.twins.parameters())


@pytest.mark.parametrize(("log_prob", "rises"), [(ACTIONS + 0.5, True), (ACTIONS - 0.5, False)])
def test_temperature_rises_where_entropy_is_below_its_goal(log_prob, rises):
    model = make().model  # the goal: an entropy of -3 nats for 3 controls
    assert model.temperature().item() == pytest.approx(0.1)
    metrics = update_temperature(model, torch.tensor(log_prob))
    assert metrics["entropy"].item() == -log_prob
    # Adam's first step has the length of its rate, 1e-4, in log α
    expected = 0.1 * torch.tensor(1e-4 if rises else -1e-4).exp()
    assert model.temperature().item() == pytest.approx(expected.item(), rel=1e-6)


def test_every_second_update_is_the_critics_alone():
    agent = make()
    first, second = agent.update_cycle
    for update, learned in (
        (second, {"encoder", "critic.trunk", "critic.twins"}),
        (first, {"encoder", "critic.trunk", "critic.twins", "actor", "temperature",
                 "target_encoder", "target_critic.trunk", "target_critic.twins"}),
    ):  # fmt: skip
        before = weights_of(agent)
        metrics = update(batch_of(1), STEP)
        assert changed_parts(before, weights_of(agent)) == learned
        assert metrics.keys() <= set(SAC.metric_names)
    assert metrics.keys() == set(SAC.metric_names)


def test_the_learner_gives_each_update_of_the_cycle_its_turn():
    agent, replay = make(), tiny_replay()
    learner = Learner(agent, replay, batch_size=BATCH, precision="fp32", device=CPU)
    for update, with_actor in ((0, True), (1, False), (2, True), (1001, False)):
        before = weights_of(agent)
        learner.update(agent_step=3000, turn=update)
        assert ("actor" in changed_parts(before, weights_of(agent))) == with_actor


def test_acting():
    agent = make(exploration_steps=100)
    observation = without_proprio(images(torch.Generator().manual_seed(1), 16, 400))
    uniform = agent.act(observation, 99)
    assert uniform.shape == (400, ACTIONS)
    # uniform in [-1, 1]: mean 0 and mean square 1/3, to within four standard errors
    assert uniform.abs().max() <= 1
    assert abs(uniform.mean().item()) < 4 * (1 / 3 / 1200) ** 0.5
    assert abs(uniform.square().mean().item() - 1 / 3) < 4 * (4 / 45 / 1200) ** 0.5

    drawn = agent.act(observation, 100)
    best = agent.act_greedily(observation)
    assert drawn.abs().max() <= 1
    assert not torch.equal(drawn, agent.act(observation, 100))
    state = agent.generator.get_state()
    assert torch.equal(best, agent.act_greedily(observation))
    assert torch.equal(state, agent.generator.get_state())
    # log σ is -4 in the middle of its range, so draws stay near the median
    assert (drawn - best).abs().mean() < 0.1


def test_the_seed_decides_everything():
    def outcome(seed):
        agent = make(seed)
        agent.update(batch_of(0), STEP)
        return weights_of(agent), agent.act(batch_of(1).observation, 5000)

    weights, action = outcome(3)
    again, action_again = outcome(3)
    assert same(weights, again)
    assert torch.equal(action, action_again)
    assert not same(weights, outcome(4)[0])


def test_state_round_trip():
    agent = make(1)
    for turn in (0, 1, 0):
        agent.update_cycle[turn](batch_of(turn), STEP)
    other = make(2)
    other.load_state_dict(through_a_file(agent.state_dict()))
    for turn in (1, 0):
        for one in (agent, other):
            one.update_cycle[turn](batch_of(5 + turn), STEP)
    assert same(weights_of(agent), weights_of(other))
    observation = batch_of(9).observation
    assert torch.equal(agent.act(observation, 5000), other.act(observation, 5000))


def test_slow_copies_start_equal_and_do_not_learn():
    model = make().model
    for slow, fast in ((model.target_encoder, model.encoder), (model.target_critic, model.critic)):
        for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
            assert torch.equal(one, other)
            assert one.data_ptr() != other.data_ptr()
            assert not one.requires_grad


def test_the_critic_fits_what_it_is_told():
    model = SACModel((9, 16, 16), ACTIONS, SACSettings(**SMALL), CPU, torch.Generator().manual_seed(1), 0)
    batch = batch_of(0)
    losses = [
        update_critic(model, batch.observation, batch.action, batch.reward)["critic_loss"].item()
        for _ in range(150)
    ]
    assert losses[-1] < 0.05 * losses[0]


def test_the_actor_finds_the_best_action():
    """A judge that prefers a certain action is obeyed: Q = -|a - 0.5|², without weight on entropy."""
    model = make(temperature_initial=1e-6).model
    model.critic.forward = lambda features, action: -((action - 0.5) ** 2).sum(1).expand(2, -1)
    observation, g = batch_of(0).observation, torch.Generator().manual_seed(1)
    for _ in range(200):
        update_actor(model, observation, g)
    mean, _ = model.actor(model.encoder(*observation.seen))
    torch.testing.assert_close(mean.tanh(), torch.full((BATCH, ACTIONS), 0.5), rtol=0, atol=0.1)


def test_settings_choose_trunk_and_first_weights():
    squashed = make(trunk_tanh=True).model.actor.trunk(torch.randn(4, 100))
    free = make(trunk_tanh=False).model.actor.trunk(torch.randn(4, 100))
    assert squashed.abs().max() <= 1 < free.abs().max()
    centred = make().model.encoder.convolutions[0].weight
    full = make(delta_orthogonal=False).model.encoder.convolutions[0].weight
    assert centred.count_nonzero() == 4 * 9
    assert full.count_nonzero() == 4 * 81


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        SACSettings().critic_tau = 1.0
    assert replace(SACSettings(), critic_tau=1.0).critic_tau == 1.0
