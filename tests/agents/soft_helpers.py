"""Small agents and batches for the tests of SAC, DrQ and CURL."""

import io

import numpy as np
import torch

from pixelcontrol.replay import TransitionReplay
from pixelcontrol.types import Observation, TimeStep, Transitions

ACTIONS = 3
BATCH = 6
CPU = torch.device("cpu")
SMALL = {"feature_dim": 5, "hidden_dim": 16, "conv_filters": 4, "conv_strides": (2, 1)}
STEP = torch.tensor(7)
MODULES = ("encoder", "actor", "critic", "temperature", "target_encoder", "target_critic", "similarity")


def images(generator, size, count=BATCH):
    return torch.randint(0, 256, (count, 9, size, size), generator=generator, dtype=torch.uint8)


def batch_of(seed, size=16, proprio=0):
    """Random transitions, some of which are true ends."""
    g = torch.Generator().manual_seed(seed)

    def observation():
        return Observation(images(g, size), torch.randn(BATCH, proprio, generator=g), torch.zeros(BATCH, 0))

    return Transitions(
        observation=observation(),
        action=2 * torch.rand(BATCH, ACTIONS, generator=g) - 1,
        reward=torch.randn(BATCH, generator=g),
        discount=torch.tensor([0.99, 0.0, 0.99, 0.99, 0.0, 0.99]),
        next_observation=observation(),
    )


def with_random_biases(agent):
    """Biases start at zero, where a forgotten one would not be seen; slow copies start equal to their source."""
    g = torch.Generator().manual_seed(99)
    for name in ("encoder", "actor", "critic", "target_encoder", "target_critic"):
        for kind, parameter in getattr(agent.model, name).named_parameters():
            if parameter.ndim == 1 or kind.endswith("bias"):
                parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=g))
    return agent


def copied_generator(agent):
    return torch.Generator().set_state(agent.generator.get_state())


def weights_of(agent):
    """Return a copy of every weight by name, slow copies and temperature among them."""
    state = agent.state_dict()
    return {
        f"{part}.{name}": value.clone()
        for part in MODULES
        if part in state
        for name, value in state[part].items()
    }


def through_a_file(state):
    """Save and load a state as a checkpoint does."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def changed_parts(before, after):
    """Return what changed: a module, or one child of the critics."""

    def part(name):
        first, second = name.split(".")[:2]
        return f"{first}.{second}" if first.endswith("critic") else first

    moved, stayed = set(), set()
    for name in before:
        (stayed if torch.equal(before[name], after[name]) else moved).add(part(name))
    assert not moved & stayed, "a module changed in part"
    return moved


def parts_with_gradient(agent):
    """Return the modules (or children of the critics) all of whose parameters hold a gradient."""
    parts = vars(agent.model) | vars(agent)
    having, lacking = set(), set()
    for name in MODULES:
        if name not in parts:
            continue
        children = parts[name].named_children() if name.endswith("critic") else [(None, parts[name])]
        for child, module in children:
            for parameter in module.parameters():
                full = name if child is None else f"{name}.{child}"
                (lacking if parameter.grad is None else having).add(full)
    assert not having & lacking, "a module got gradient in part"
    return having


def tiny_replay(size=16):
    """Return a replay of 10 random rows of two worlds in mid-episode."""
    memory = torch.zeros(12, 2, 3, size, size, dtype=torch.uint8)
    replay = TransitionReplay(
        memory,
        action_dim=ACTIONS,
        n_step=1,
        gamma=0.99,
        frame_stack=3,
        device=CPU,
        generator=torch.Generator().manual_seed(1),
    )
    draw = np.random.default_rng(1)
    for row in range(10):
        replay.add(
            TimeStep(
                image=torch.from_numpy(draw.integers(0, 256, (2, 3, size, size), dtype=np.uint8)),
                action=draw.uniform(-1, 1, (2, ACTIONS)).astype(np.float32),
                reward=draw.normal(size=2).astype(np.float32),
                discount=np.ones(2, dtype=np.float32),
                first=np.full(2, row == 0),
                last=np.zeros(2, dtype=bool),
                proprio=np.zeros((2, 0), dtype=np.float32),
                privileged=np.zeros((2, 0), dtype=np.float32),
            )
        )
    return replay
