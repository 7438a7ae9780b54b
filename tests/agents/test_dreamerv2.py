import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from naive_dreamerv2 import NaiveDreamerV2

from pixelcontrol.agents.dreamerv2 import DreamerV2, DreamerV2Settings, policy_of
from pixelcontrol.distributions import truncated_normal
from pixelcontrol.types import Sequences, TimeStep

CPU = torch.device("cpu")
LENGTH, BATCH, ACTION = 3, 2, 2
SHAPE = (3, 64, 64)
SMALL = {
    "deter_dim": 5,
    "latent_groups": 3,
    "latent_classes": 4,
    "model_dim": 6,
    "head_dim": 7,
    "conv_depth": 2,
    "imagined_states": 4,
    "imagined_discount": 0.9,
    "return_lambda": 0.8,
    "entropy_weight": 0.1,
    "target_every_updates": 2,
    "gradient_clip": 0.5,
    "weight_decay": 1e-3,
    "free_nats": 0.01,
    "model_learning_rate": 1e-3,
    "actor_learning_rate": 1e-3,
    "critic_learning_rate": 2e-3,
    "exploration_steps": 10,
}
MODEL = {"encoder", "transition", "prior", "posterior", "decoder", "reward"}
ALL = MODEL | {"actor", "critic", "slow_critic"}  # and "survival", where ends are foreseen


def new_agent(seed=1, **settings):
    return DreamerV2(SHAPE, ACTION, DreamerV2Settings(**(SMALL | settings)), device=CPU, seed=seed)


def new_batch(seed=0, length=LENGTH, batch=BATCH):
    g = torch.Generator().manual_seed(seed)
    return Sequences(
        image=torch.randint(0, 256, (length, batch, *SHAPE), generator=g, dtype=torch.uint8),
        action=2 * torch.rand(length, batch, ACTION, generator=g) - 1,
        reward=torch.rand(length, batch, generator=g),
        discount=torch.ones(length, batch),
    )


def step(number=50):
    return torch.tensor(number)


def weights(agent):
    """Return {network.parameter: copy} of all networks."""
    return {
        f"{name}.{key}": value.clone()
        for name in sorted(ALL | {"survival"})
        for key, value in getattr(agent, name).state_dict().items()
    }


def changed(before, after):
    """Return the networks of which any weight changed."""
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}


def next_draws(agent):
    """Draw what the agent's next update will draw, without advancing its generator."""
    g = torch.Generator()
    g.set_state(agent.generator.get_state())
    steps, states = agent.settings.imagined_states - 1, LENGTH * BATCH
    return {
        "seen": torch.rand(LENGTH, BATCH, *agent.latent_shape, generator=g),
        "imagined": torch.rand(steps, states, *agent.latent_shape, generator=g),
        "action": torch.rand(steps, states, ACTION, generator=g),
    }


def time_step(number, worlds=2, first=False):
    g = np.random.default_rng(number)
    return TimeStep(
        image=torch.from_numpy(g.integers(0, 256, (worlds, *SHAPE), dtype=np.uint8)),
        action=g.uniform(-1, 1, (worlds, ACTION)).astype(np.float32),
        reward=np.zeros(worlds, np.float32),
        discount=np.ones(worlds, np.float32),
        first=np.broadcast_to(np.array(first), worlds).copy(),
        last=np.zeros(worlds, bool),
        proprio=np.zeros((worlds, 0), np.float32),
        privileged=np.zeros((worlds, 0), np.float32),
    )


def draws(seed=3):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------- one update


@pytest.mark.parametrize(("seed", "foresee_ends"), [(1, False), (2, True)])
def test_updates_equal_the_naive_reference(seed, foresee_ends):
    agent = new_agent(seed, foresee_ends=foresee_ends)
    naive = NaiveDreamerV2(agent)
    for number in range(4):
        batch, uniform = new_batch(seed=100 * seed + number), next_draws(agent)
        batch.discount[-1, 0] = 0.0
        metrics = agent.update(batch, step())
        for name, value in naive.update(batch, uniform).items():
            assert metrics[name].item() == pytest.approx(value, rel=1e-5, abs=1e-5), name
        for network, name, value in naive.weights():
            worst = (getattr(agent, network).state_dict()[name] - value).abs().max().item()
            assert worst < 1e-5, f"update {number}: {network}.{name} is off by {worst:.2e}"


def test_each_loss_moves_its_own_networks_and_no_others():
    agent = new_agent(weight_decay=0.0)  # which moves a weight that no loss reaches
    start = weights(agent)
    features, _ = agent.update_model(new_batch())
    between = weights(agent)
    assert changed(start, between) == MODEL
    agent.update_behaviour(features)
    assert changed(between, weights(agent)) == {"actor", "critic", "slow_critic"}


@pytest.mark.parametrize(("rate", "still"), [("actor", {"actor"}), ("critic", {"critic", "slow_critic"})])
def test_actor_and_critic_have_optimisers_of_their_own(rate, still):
    agent = new_agent(**{f"{rate}_learning_rate": 0.0})
    start = weights(agent)
    agent.update(new_batch(), step())
    assert changed(start, weights(agent)) == ALL - still


def test_the_slow_critic_is_copied_at_the_first_and_every_second_update():
    agent = new_agent()
    for number in range(5):
        before = weights(agent)
        agent.update(new_batch(number), step())
        after = weights(agent)
        assert ("slow_critic" in changed(before, after)) == (number % 2 == 0)
        if number % 2 == 0:
            for slow, fast in zip(agent.slow_critic.parameters(), agent.critic.parameters(), strict=True):
                assert torch.equal(slow, fast)


LEARNING = {
    "gradient_clip": 100.0, "deter_dim": 32, "model_dim": 32, "head_dim": 32, "weight_decay": 0.0,
    "entropy_weight": 0.0, "model_learning_rate": 3e-3, "actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3,
    "free_nats": 0.0, "imagined_states": 3,
}  # fmt: skip


def test_what_images_say_is_rewarded_is_sought():
    """In a dark world one way is right, in a bright one the other."""
    agent = new_agent(**LEARNING)
    g = torch.Generator().manual_seed(1)
    action = 2 * torch.rand(4, 16, ACTION, generator=g) - 1
    bright = torch.arange(16) % 2 == 0
    image = torch.where(bright[:, None, None, None], 230, 30).to(torch.uint8).expand(4, 16, *SHAPE)
    reward = torch.where(bright, 1.0, -1.0) * action[..., 0]
    batch = Sequences(image, action, reward, torch.ones(4, 16))
    for _ in range(250):
        agent.update(batch, step())
    first = time_step(0, first=True)
    best = agent.act_greedily(agent.memory(draws()).push(replace(first, image=image[0, :2])))
    assert best[0, 0] > 0.5
    assert best[1, 0] < -0.5


def test_nothing_is_imagined_beyond_an_end_that_is_foreseen():
    """The same rows, said to be true ends or not: where they are, a state is worth its own reward."""
    worth = {}
    for discount in (0.0, 1.0):
        agent = new_agent(**LEARNING, foresee_ends=True)
        batch = new_batch(length=2, batch=8)
        batch = batch._replace(reward=torch.ones(2, 8), discount=torch.full((2, 8), discount))
        for _ in range(60):
            metrics = agent.update(batch, step())
        assert set(metrics) == set(agent.metric_names)
        assert metrics["ending_loss"] < 0.1
        worth[discount] = metrics["target_mean"].item()
    assert worth[0.0] == pytest.approx(1.0, abs=0.3)
    assert worth[1.0] > 2.0


def test_in_bf16_an_update_is_nearly_the_same():
    """Draws of the latents may fall otherwise, so losses agree on average alone."""
    exact, rough = new_agent(), new_agent()
    batch = new_batch(length=8, batch=16)
    one = exact.update(batch, step())
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        other = rough.update(batch, step())
    for name in ("image_loss", "reward_loss", "kl_loss", "critic_loss", "entropy"):
        assert one[name].item() == pytest.approx(other[name].item(), rel=0.1, abs=0.02), name
    for parameter in (*rough.encoder.parameters(), *rough.actor.parameters()):
        assert parameter.dtype == torch.float32


def test_the_same_seed_gives_the_same_weights_and_another_others():
    one, other, third = new_agent(1), new_agent(1), new_agent(2)
    for agent in (one, other, third):
        agent.update(new_batch(), step())
    assert changed(weights(one), weights(other)) == set()
    assert changed(weights(one), weights(third)) == ALL


# ---------------------------------------------------------------------------------------------- memory and actions


def test_memory_follows_an_episode_and_forgets_it_at_the_next():
    agent = new_agent()
    memory = agent.memory(draws())
    memory.push(time_step(0, first=True))
    memory.push(time_step(1))
    memory.generator = draws(7)
    observation = memory.push(time_step(2, first=[False, True]))

    fresh = agent.memory(draws(7))
    expected = fresh.push(time_step(2, first=True))
    assert torch.equal(observation[1], expected[1])

    undisturbed = agent.memory(draws())
    undisturbed.push(time_step(0, first=True))
    undisturbed.push(time_step(1))
    undisturbed.generator = draws(7)
    assert torch.equal(observation[0], undisturbed.push(time_step(2))[0])
    assert torch.equal(memory.observation, observation)


def test_memory_is_what_an_update_sees():
    """Row by row with the memory, or as one sequence: the same states, given the same draws."""
    agent = new_agent()
    steps = [time_step(number, first=number == 0) for number in range(4)]
    noise = torch.rand(4, 2, *agent.latent_shape, generator=draws())
    memory = agent.memory(draws())
    pushed = [memory.push(row) for row in steps]

    seen = agent.encoder(torch.cat([row.image for row in steps])).unflatten(0, (4, 2))
    latent, deter = agent.split(agent.no_features(2))
    for t, row in enumerate(steps):
        action = torch.from_numpy(row.action) * float(t > 0)
        deter = agent.transition(latent, action, deter)
        logits = agent.posterior(torch.cat([deter, seen[t]], dim=1))
        classes = (logits - (-noise[t].log()).log()).argmax(dim=-1)
        latent = torch.nn.functional.one_hot(classes, 4).float().flatten(1)
        assert torch.allclose(pushed[t], torch.cat([latent, deter], dim=1), atol=1e-6)


def test_actions_are_random_then_drawn_and_the_best_is_the_mean():
    agent = new_agent()
    features = agent.no_features(4000)
    early, draw = agent.act(features, 9), agent.generator.clone_state()
    late = agent.act(features, 10)
    assert early.abs().max() <= 1
    # uniform numbers in [-1, 1] have the variance 1/3
    assert early.mean(dim=0).abs().max() < 0.05
    assert early.var().item() == pytest.approx(1 / 3, abs=0.03)
    assert late.abs().max() < 1
    mean, std = policy_of(agent.actor(features))
    best = agent.act_greedily(features)
    assert torch.equal(best, mean)
    assert (std > 0.1).all()
    assert (std < 2.1).all()
    uniform = torch.rand(late.shape, generator=draw)
    assert torch.equal(late, truncated_normal(mean, std, uniform)[0])


def test_acting_greedily_and_remembering_leave_no_trace():
    agent = new_agent()
    before, state = weights(agent), agent.generator.get_state()
    memory = agent.memory(draws())
    agent.act_greedily(memory.push(time_step(0, first=True)))
    assert changed(before, weights(agent)) == set()
    assert torch.equal(state, agent.generator.get_state())


# ---------------------------------------------------------------------------------------------- state and errors


@pytest.mark.parametrize("foresee_ends", [False, True])
def test_a_restored_agent_goes_on_identically(foresee_ends):
    original, restored = (new_agent(seed, foresee_ends=foresee_ends) for seed in (1, 2))
    for number in range(3):
        original.update(new_batch(number), step())
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    for number in range(3, 6):
        for agent in (original, restored):
            agent.update(new_batch(number), step())
    assert changed(weights(original), weights(restored)) == set()


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="these have 84x84; use --image-size 64"):
        DreamerV2((3, 84, 84), ACTION, DreamerV2Settings(), device=CPU, seed=1)
