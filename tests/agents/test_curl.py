from dataclasses import asdict
from functools import partial

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
    weights_of,
    with_random_biases,
)

from pixelcontrol.agents.curl import CURL, PRESETS, CURLSettings
from pixelcontrol.agents.sac import SAC, SACSettings
from pixelcontrol.config import resolve


def make(seed=1, size=20, proprio=0, **changes):
    settings = CURLSettings(**SMALL | {"crop_size": 16} | changes)
    return CURL((9, size, size), ACTIONS, settings, device=CPU, seed=seed, proprio_dim=proprio)


def cropped(observation, tops, lefts, size):
    """Cut each image, one by one."""
    views = [
        image[:, top : top + size, left : left + size]
        for image, top, left in zip(
            observation, tops.flatten().tolist(), lefts.flatten().tolist(), strict=True
        )
    ]
    return torch.stack(views)


def test_without_contrast_and_crop_it_is_sac():
    """Bit for bit, over two cycles of updates and the actions after them."""
    common = asdict(SACSettings(**SMALL, trunk_tanh=False))
    curl = CURL(
        (9, 16, 16), ACTIONS, CURLSettings(**common, crop_size=16, contrast=False), device=CPU, seed=3
    )
    sac = SAC((9, 16, 16), ACTIONS, SACSettings(**common), device=CPU, seed=3)
    of_curl, of_sac = weights_of(curl), weights_of(sac)
    similarity = of_curl.pop("similarity.weight")
    assert same(of_curl, of_sac)
    for update in range(4):
        metrics, expected = (agent.update_cycle[update % 2](batch_of(update), STEP) for agent in (curl, sac))
        assert same({name: metrics[name] for name in expected}, expected)
    of_curl = weights_of(curl)
    assert torch.equal(of_curl.pop("similarity.weight"), similarity)
    assert same(of_curl, weights_of(sac))
    observation = batch_of(9).observation
    for agent_step in (10, 10_000):
        assert torch.equal(curl.act(observation, agent_step), sac.act(observation, agent_step))
    assert torch.equal(curl.act_greedily(observation), sac.act_greedily(observation))


@pytest.mark.parametrize("proprio", [0, 4])
def test_two_updates_equal_the_naive_ones(proprio):
    agent = make(proprio=proprio, log_std_min=-2.0)
    agent = with_random_biases(agent)
    agent.model.encoder.show(1.0 + 2.0 * torch.randn(64, proprio))
    naive = NaiveAgent(agent, agent.settings)
    for turn in (0, 1):
        batch = batch_of(turn, size=20, proprio=proprio)
        g = copied_generator(agent)
        anchors, positives, next_views = (
            cropped(source, *(torch.randint(0, 5, (BATCH, 1), generator=g) for _ in "yx"), 16)
            for source in (
                batch.observation.stack,
                batch.observation.stack,
                batch.next_observation.stack,
            )
        )
        noise = [torch.randn(BATCH, ACTIONS, generator=g) for _ in range(2)]
        losses = naive.update([anchors], [next_views], batch, noise[:1], noise[1], delayed=turn == 0)
        losses["contrast_loss"] = naive.learn_contrast(anchors, positives)
        metrics = agent.update_cycle[turn](batch, STEP)
        for name, loss in losses.items():
            assert metrics[name].item() == pytest.approx(loss, rel=1e-5)
        for name, weight in weights_of(agent).items():
            torch.testing.assert_close(weight, naive.weights[name].detach(), rtol=0, atol=1e-5, msg=name)


def test_the_contrastive_loss_reaches_encoder_trunk_and_similarity():
    agent, batch = make(), batch_of(0)
    before = weights_of(agent)
    agent.update_contrast(batch.observation.stack, batch.observation.stack)
    learned = {"encoder", "critic.trunk", "similarity"}
    assert parts_with_gradient(agent) == learned
    assert changed_parts(before, weights_of(agent)) == learned


def test_contrast_tells_observations_apart():
    agent, g = make(feature_dim=16, learning_rate=5e-3), torch.Generator().manual_seed(5)
    observation = images(g, 16)
    first = agent.update_contrast(observation, observation)
    for _ in range(300):
        last = agent.update_contrast(observation, observation)
    assert last["contrast_loss"] < 0.2 * first["contrast_loss"]
    assert last["contrast_accuracy"] == 1.0


def test_every_second_update_leaves_out_the_actor_but_not_the_contrast():
    agent = make()
    before = weights_of(agent)
    agent.update_cycle[1](batch_of(0, size=20), STEP)
    learned = {"encoder", "critic.trunk", "critic.twins", "similarity"}
    assert changed_parts(before, weights_of(agent)) == learned
    metrics = agent.update_cycle[0](batch_of(1, size=20), STEP)
    assert metrics.keys() == set(CURL.metric_names)


def test_acting_sees_the_centre_alone():
    # delta-orthogonal filters of stride 2 do not see every pixel
    agent = make(exploration_steps=0, delta_orthogonal=False)
    observation = images(torch.Generator().manual_seed(1), 20)
    border, middle = observation.clone(), observation.clone()
    border[:, :, :2], border[:, :, -2:], border[:, :, :, :2], border[:, :, :, -2:] = 0, 0, 0, 0
    middle[:, :, 2], middle[:, :, :, 17] = 0, 0
    observation, border, middle = map(without_proprio, (observation, border, middle))
    for act in (agent.act_greedily, partial(act_from_one_state, agent)):
        assert torch.equal(act(observation), act(border))
        assert not torch.equal(act(observation), act(middle))


def act_from_one_state(agent, observation):
    agent.generator.manual_seed(4)
    return agent.act(observation, 0)


def test_first_similarities_are_uniform_between_zero_and_one():
    weight = make(feature_dim=50).similarity.weight
    assert weight.min() >= 0
    assert weight.max() <= 1
    assert abs(weight.mean().item() - 0.5) < 4 * (1 / 12 / 2500) ** 0.5


def test_a_crop_larger_than_the_images_is_refused():
    with pytest.raises(ValueError, match="--crop-size is 84, but images have 20x20 pixels"):
        make(crop_size=84)


def test_the_seed_decides_everything():
    def outcome(seed):
        agent = make(seed)
        agent.update(batch_of(0, size=20), STEP)
        return weights_of(agent)

    assert same(outcome(3), outcome(3))
    assert not same(outcome(3), outcome(4))


def test_state_round_trip():
    agent, other = make(1), make(2)
    for turn in (0, 1, 0):
        agent.update_cycle[turn](batch_of(turn, size=20), STEP)
    other.load_state_dict(through_a_file(agent.state_dict()))
    for one in (agent, other):
        one.update_cycle[1](batch_of(5, size=20), STEP)
    assert same(weights_of(agent), weights_of(other))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_crop_what_they_draw(preset):
    chosen = resolve("reacher_easy", "curl", preset).flat()
    assert chosen["crop_size"] < chosen["image_size"][0]
