import platform
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from pixelcontrol.agents.drqv2 import DrQV2, DrQV2Settings, critic_loss
from pixelcontrol.build import Shapes, build_agent, build_replay
from pixelcontrol.config import AGENTS, resolve
from pixelcontrol.learner import WARM_UP_UPDATES, Learner, NotCaptured, choose_precision, cpu_has_native_bf16
from pixelcontrol.machine import to_device
from pixelcontrol.networks import descend
from pixelcontrol.replay import TransitionReplay
from pixelcontrol.types import Observation, TimeStep

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WORLDS, ACTION, SIZE, BATCH, PROPRIO, PRIVILEGED = 2, 2, 24, 32, 3, 4
SETTINGS = DrQV2Settings(feature_dim=16, hidden_dim=64, conv_filters=8, stddev_duration=200)


def time_step(row, device=CPU, size=SIZE, proprio=0, privileged=0):
    """Return random rows whose content depends on the row's number alone; episodes last 9 and 12 agent steps."""
    g = np.random.default_rng(row)
    return TimeStep(
        image=torch.from_numpy(g.integers(0, 256, (WORLDS, 3, size, size), dtype=np.uint8)).to(device),
        action=g.uniform(-1, 1, (WORLDS, ACTION)).astype(np.float32),
        reward=g.random(WORLDS, dtype=np.float32),
        discount=np.ones(WORLDS, dtype=np.float32),
        first=np.array([row % 10 == 0, row % 13 == 0]),
        last=np.array([row % 10 == 9, row % 13 == 12]),
        proprio=g.random((WORLDS, proprio), dtype=np.float32),
        privileged=g.random((WORLDS, privileged), dtype=np.float32),
    )


def new_replay(device=CPU, images_on=None, rows=60, generator=None):
    """Return a replay of 64 rows that holds `rows` of them."""
    images = torch.zeros(64, WORLDS, 3, SIZE, SIZE, dtype=torch.uint8, device=images_on or device)
    replay = TransitionReplay(
        images,
        action_dim=ACTION,
        n_step=3,
        gamma=0.99,
        frame_stack=3,
        device=device,
        generator=generator or torch.Generator(images.device).manual_seed(1),
    )
    for row in range(rows):
        replay.add(time_step(row, device))
    return replay


def new_agent(device=CPU, seed=1):
    return DrQV2((9, SIZE, SIZE), ACTION, SETTINGS, device=device, seed=seed)


def numbers_beside(name):
    """How many numbers an agent has beside its images: proprioception, and what is privileged."""
    return 0 if name == "dreamerv2" else PROPRIO, PRIVILEGED if name == "privileged" else 0


def any_agent_and_replay(name, device):
    """Return an agent and an empty replay as it wants it, with room for 64 rows."""
    own = {"dreamerv2": {"sequence_length": 10}, "curl": {"image_size": (SIZE,), "crop_size": SIZE}}
    config = resolve("cartpole_swingup", name, **own.get(name, {"image_size": (SIZE,)}))
    shapes = Shapes((3, *config.loop.height_and_width), ACTION, *numbers_beside(name))
    images = torch.zeros(64, WORLDS, *shapes.image_shape, dtype=torch.uint8, device=device)
    return build_agent(config, shapes, device), build_replay(config, images, shapes, device)


def new_learner(precision="fp32", device=CPU, images_on=None, shown=False):
    replay = new_replay(device, images_on)
    demonstrations = new_replay(device, images_on, rows=20, generator=replay.generator) if shown else None
    return Learner(
        new_agent(device),
        replay,
        batch_size=BATCH,
        precision=precision,
        device=device,
        demonstrations=demonstrations,
    )


def weights(agent):
    """Return every weight of the agent in one vector."""
    networks = (agent.encoder, agent.actor, agent.critic, agent.target_critic)
    return torch.cat([p.detach().flatten() for network in networks for p in network.parameters()])


# ---------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(
    ("device", "native", "wanted", "chosen"),
    [
        (CPU, True, "auto", "bf16"),
        (CPU, False, "auto", "fp32"),
        (CPU, True, "fp32", "fp32"),
        (CPU, False, "bf16", "bf16"),
        (CUDA, True, "auto", "bf16"),
        (CUDA, False, "auto", "fp32"),
        (CUDA, True, "tf32", "tf32"),
        (CUDA, True, "fp32", "fp32"),
    ],
)
def test_precision_is_as_asked_or_the_fastest_native_one(monkeypatch, device, native, wanted, chosen):
    def on_gpu(including_emulation=True):
        return native or including_emulation

    monkeypatch.setattr("pixelcontrol.learner.cpu_has_native_bf16", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", on_gpu)
    precision, reason = choose_precision(wanted, device)
    assert precision == chosen
    assert reason


def test_slow_bf16_is_said(monkeypatch):
    monkeypatch.setattr("pixelcontrol.learner.cpu_has_native_bf16", lambda: False)
    assert "emulates it slowly" in choose_precision("bf16", CPU)[1]


def test_tf32_on_a_cpu_is_refused():
    with pytest.raises(
        ValueError, match="tf32 exists on NVIDIA GPUs only; on a CPU choose fp32, bf16 or auto"
    ):
        choose_precision("tf32", CPU)


def test_emulated_bf16_is_not_native(monkeypatch):
    """An AVX-512 CPU without bf16 instructions: oneDNN supports it all the same."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert not cpu_has_native_bf16()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert cpu_has_native_bf16()


# ---------------------------------------------------------------------------------------------- on a CPU


def test_an_update_is_one_batch_and_one_update_of_the_agent():
    learner = new_learner()
    agent, replay = new_agent(), new_replay()
    for update, agent_step in enumerate((10, 12, 150)):
        metrics = learner.update(agent_step, update)
        expected = agent.update(replay.sample(BATCH), torch.tensor(agent_step))
        assert metrics == expected
        # the schedule goes from 1 to 0.1 in 200 agent steps
        assert metrics["std"].item() == pytest.approx(1 - 0.9 * agent_step / 200)
    assert torch.equal(weights(learner.agent), weights(agent))
    assert torch.equal(learner.replay.generator.get_state(), replay.generator.get_state())


def test_bf16_update_is_close_to_fp32():
    full, rounded = new_learner("fp32"), new_learner("bf16")
    expected, metrics = full.update(100, 0), rounded.update(100, 0)
    for name, value in expected.items():
        assert metrics[name].item() == pytest.approx(value.item(), abs=5e-3), name
        assert metrics[name].dtype == torch.float32
    for network in ("encoder", "critic", "actor"):
        gradient, other = (
            torch.cat([p.grad.flatten() for p in getattr(learner.agent, network).parameters()])
            for learner in (full, rounded)
        )
        assert 0 < (gradient - other).norm() < 0.25 * gradient.norm(), network


def test_bf16_keeps_weights_targets_and_optimisers_in_fp32():
    agent = new_learner("bf16").agent
    assert weights(agent).dtype == torch.float32
    for optimiser in (agent.critic_optimiser, agent.actor_optimiser):
        for state in optimiser.state.values():
            assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.float32


class Probe:
    """An update with one weight, which is raised by one between two products with `factor`."""

    def __init__(self):
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.layer.weight)
        self.factor = 1.0

    def __call__(self, batch, agent_step):
        before = self.layer(torch.full((1, 1), self.factor))
        self.layer.weight.data += 1.0
        after = self.layer(torch.full((1, 1), self.factor))
        self.dtype = after.dtype
        return {"before": before.detach().float().squeeze(), "after": after.detach().float().squeeze()}


def probed_learner(precision):
    learner = new_learner(precision)
    learner.agent.update = Probe()
    return learner


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_see_the_weights_as_the_last_step_left_them(precision, dtype):
    """The actor's loss comes after the critic's step, and must be judged by the critic after it."""
    learner = probed_learner(precision)
    assert learner.update(0, 0) == {"before": 1.0, "after": 2.0}
    assert learner.update(0, 1) == {"before": 2.0, "after": 3.0}
    assert learner.agent.update.dtype == dtype


def test_updates_take_turns_by_their_number(monkeypatch):
    """A resumed run goes on in mid-cycle, so the number counts, not how often this learner was called."""
    names = "abc"
    turns = tuple(lambda batch, agent_step, name=name: {name: torch.zeros(())} for name in names)
    monkeypatch.setattr(DrQV2, "update_cycle", turns)
    learner = new_learner()
    assert [next(iter(learner.update(0, update))) for update in (4, 5, 6, 7, 8)] == ["b", "c", "a", "b", "c"]


def test_an_update_that_comes_several_times_in_a_cycle_is_one_of_them(monkeypatch):
    """So a GPU records it once."""
    one, other = (lambda batch, agent_step: {} for _ in range(2))
    monkeypatch.setattr(DrQV2, "update_cycle", (one, one, other, one))
    learner = new_learner()
    for update in range(8):
        assert learner.update(0, update) == {}
    assert learner.updates_run == {0: 6, 2: 2}


@pytest.mark.parametrize(
    ("metric", "words"),
    [(1.0, "as float; expected"), (torch.zeros(1), r"as Tensor of shape \(1,\); expected")],
)
def test_a_metric_that_is_no_single_tensor_is_named(metric, words):
    learner = new_learner()
    learner.agent.update = lambda batch, agent_step: {"loss": metric}
    with pytest.raises(ValueError, match=f"update of DrQV2 returns the metric loss {words} a 0-dim"):
        learner.update(0, 0)


def test_a_metric_that_an_agent_forgot_to_detach_holds_no_graph():
    learner = new_learner()
    weight = torch.ones((), requires_grad=True)
    learner.agent.update = lambda batch, agent_step: {"loss": 2.0 * weight}
    for turn in range(2):
        assert not learner.update(0, turn)["loss"].requires_grad
    assert not learner.sum_of_metrics.requires_grad


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_remembered(factor):
    learner = probed_learner("fp32")
    learner.update(0, 0)
    assert learner.sum_of_metrics.isfinite()
    learner.agent.update.factor = factor
    learner.update(0, 1)
    assert not learner.sum_of_metrics.isfinite()
    learner.agent.update.factor = 1.0
    learner.update(0, 2)
    assert not learner.sum_of_metrics.isfinite()


def test_memory_that_runs_out_in_a_capture_is_called_that(monkeypatch):
    """As a GPU meets it: within the capture, whose end then fails too."""

    class Graph:
        def register_generator_state(self, generator):
            pass

    @contextmanager
    def capture(graph, **_):
        try:
            yield
        finally:
            raise RuntimeError("the capture was invalidated")

    def fail(batch, agent_step):
        raise cause

    learner = new_learner()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(DrQV2, "update_cycle", property(lambda agent: (fail,)))
    cause = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        learner._capture(turn=0)
    cause = RuntimeError("not permitted when stream is capturing")
    with pytest.raises(NotCaptured, match="not permitted when stream is capturing; it may neither wait"):
        learner._capture(turn=0)


# ------------------------------------------------------------------------- on a device that holds no numbers


@pytest.fixture
def no_numbers(monkeypatch):
    """PyTorch's "meta" device, which has shapes but no numbers: to read one, or to mix devices, is an error there.

    A GPU would wait for its host at such a place, and could not be captured.
    """
    device = torch.device("meta")
    for name in ("rand", "randn", "randint"):
        draw = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, draw=draw, generator, **k: draw(*a, **k))

    class HostGenerator(torch.Generator):
        def __new__(cls, device=None):
            return super().__new__(cls)

    monkeypatch.setattr(torch, "Generator", HostGenerator)
    # which know no such device
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())
    optimizer = import_module("torch.optim.optimizer")
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta"])
    return device


@pytest.mark.parametrize("name", AGENTS)
def test_no_update_reads_its_device(name, no_numbers):
    """Sampling included; `len(replay)` is counted on the host."""
    agent, replay = any_agent_and_replay(name, no_numbers)
    replay.starts.added = 10
    learner = Learner(agent, replay, batch_size=BATCH, precision="fp32", device=no_numbers)
    for number in range(len(agent.update_cycle)):
        for metric in learner.update(10, number).values():
            assert metric.is_meta
    assert learner.sum_of_metrics.is_meta


@pytest.mark.parametrize("name", AGENTS)
def test_what_was_learned_on_a_gpu_goes_on_without_its_generators(name):
    """Whose state is 16 bytes there, and none that a CPU's could take."""
    agent, replay = any_agent_and_replay(name, CPU)
    for part in (agent, replay):
        state = deepcopy(part.state_dict()) | {"generator": torch.zeros(16, dtype=torch.uint8)}
        before = part.generator.get_state()
        part.load_state_dict(state)
        assert torch.equal(part.generator.get_state(), before)
        part.load_state_dict(state | {"generator": torch.Generator().manual_seed(77).get_state()})
        assert not torch.equal(part.generator.get_state(), before)


@pytest.mark.parametrize("name", sorted(AGENTS.keys() - {"dreamerv2"}))
def test_units_of_what_is_told_beside_images_do_not_matter(name):
    """Metres, or millimetres from elsewhere."""
    agents = [any_agent_and_replay(name, CPU)[0] for _ in range(2)]
    actions = []
    for agent, told in zip(agents, (lambda x: x, lambda x: 1000.0 * x - 300.0), strict=True):
        for row in range(5):
            step = time_step(row, CPU, SIZE, *numbers_beside(name))
            stack = step.image.repeat(1, 3, 1, 1)
            beside = (told(torch.from_numpy(numbers)) for numbers in (step.proprio, step.privileged))
            agent.act(observation := Observation(stack, *beside), 0)
        actions.append(agent.act_greedily(observation))
    torch.testing.assert_close(*actions, rtol=0, atol=1e-4)
    assert not torch.equal(actions[0][0], actions[0][1])


class NoWaiting(TorchDispatchMode):
    """Refuses copies between the host and a device for which the host would wait."""

    def __init__(self):
        super().__init__()
        self.sent = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        name = operation._schema.name
        if name in ("aten::_to_copy", "aten::copy_"):
            source = args[0] if name == "aten::_to_copy" else args[1]
            if source.device != result.device:
                assert not source.is_meta, "something of the device was read"
                waits = not (kwargs.get("non_blocking") or (name == "aten::copy_" and args[2:3] == (True,)))
                assert not waits, f"{name} of {tuple(source.shape)} {source.dtype} waits for the device"
                self.sent += 1
        return result


@pytest.mark.parametrize("name", AGENTS)
def test_storing_a_row_and_choosing_actions_wait_for_no_updates(name, no_numbers):
    agent, replay = any_agent_and_replay(name, no_numbers)
    memory = agent.memory(agent.generator)
    numbers = numbers_beside(name)
    steps = [time_step(row, no_numbers, replay.images.shape[-1], *numbers) for row in range(20)]
    with NoWaiting() as copies:
        for row, step in enumerate(steps):
            replay.add(step)
            for agent_step in (0, 100_000):  # random at first
                action = agent.act(memory.observation, agent_step) if row else None
            memory.push(step)
    assert action.shape == (WORLDS, ACTION)
    assert action.is_meta
    assert copies.sent > 60


# ---------------------------------------------------------------------------------------------- on a GPU


@pytest.fixture
def repeatable_gpu():
    """Allow only algorithms that add in the same order at every run: Adam makes a step of every rounding error."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@pytest.mark.usefixtures("repeatable_gpu")
@pytest.mark.parametrize(("precision", "shown"), [("fp32", False), ("bf16", False), ("fp32", True)])
def test_captured_updates_equal_eager_ones(precision, shown):
    """100 updates between which the replay grows, wraps around and the noise decays; half of it shown or none."""
    captured, eager = (new_learner(precision, CUDA, shown=shown) for _ in range(2))
    torch.backends.cudnn.benchmark = False  # it may choose other algorithms for the second learner
    eager.capturable = False
    start = weights(eager.agent).clone()
    for number in range(100):
        for learner in (captured, eager):
            learner.replay.add(time_step(60 + number, CUDA))
        one, other = captured.update(2 * number, number), eager.update(2 * number, number)
        for name, value in other.items():
            tolerance = 1e-4 if precision == "fp32" else 2e-2
            assert one[name].item() == pytest.approx(value.item(), abs=tolerance), f"update {number}: {name}"
    assert list(captured.graphs) == [0]
    assert not eager.graphs
    assert captured.sum_of_metrics.isfinite()
    difference = (weights(captured.agent) - weights(eager.agent)).abs()
    assert (weights(eager.agent) - start).abs().max() > 1e-3
    if precision == "fp32":
        assert difference.max() < 1e-5
    else:
        # bf16 has 8 bits: one rounding is at most 2^-8 of a number
        assert (difference <= 2**-8 * weights(eager.agent).abs().clamp(min=1.0)).all()


@pytest.mark.gpu
@pytest.mark.usefixtures("repeatable_gpu")
def test_each_turn_of_a_cycle_has_its_own_graph(monkeypatch):
    """The second turn is the critic's alone."""

    def critic_alone(agent, batch, agent_step):
        features = agent.encoder(*batch.observation.seen)
        following = features.detach()
        loss, metrics = critic_loss(agent, features, batch, following, following, agent.std(agent_step))
        descend(loss, agent.critic_optimiser)
        return metrics

    cycle = property(lambda agent: (agent.update, partial(critic_alone, agent)))
    monkeypatch.setattr(DrQV2, "update_cycle", cycle)
    captured, eager = new_learner("fp32", CUDA), new_learner("fp32", CUDA)
    torch.backends.cudnn.benchmark = False
    eager.capturable = False
    for number in range(20):
        one, other = captured.update(number, number), eager.update(number, number)
        assert one.keys() == other.keys()
    assert sorted(captured.graphs) == [0, 1]
    assert (weights(captured.agent) - weights(eager.agent)).abs().max() < 1e-5


@pytest.mark.gpu
@pytest.mark.usefixtures("repeatable_gpu")
@pytest.mark.parametrize("name", AGENTS)
def test_every_agents_captured_updates_equal_eager_ones(name):
    captured, eager = (
        Learner(*any_agent_and_replay(name, CUDA), batch_size=BATCH, precision="fp32", device=CUDA)
        for _ in range(2)
    )
    for learner in (captured, eager):
        for row in range(60):
            size = learner.replay.images.shape[-1]
            learner.replay.add(time_step(row, CUDA, size, *numbers_beside(name)))
    torch.backends.cudnn.benchmark = False
    eager.capturable = False
    told, expected = {}, {}
    for number in range(40):
        if name != "dreamerv2" and number % 5 == 0:  # what they norm by changes as they act
            for learner in (captured, eager):
                learner.agent.act(learner.replay.sample(BATCH).observation, 0)
        one, other = captured.update(500, number), eager.update(500, number)
        assert one.keys() == other.keys()
        told |= one
        expected |= other
    # read after later turns ran, as a run does
    torch.testing.assert_close(told, expected, rtol=1e-3, atol=1e-4)
    assert len(captured.graphs) == len(set(captured.agent.update_cycle))
    assert not eager.graphs
    one, other = captured.agent.state_dict(), eager.agent.state_dict()
    for part in one.keys() - {"generator"}:
        if not isinstance(one[part], dict) or "param_groups" not in one[part]:
            torch.testing.assert_close(one[part], other[part], rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_capturing_changes_nothing():
    learner = new_learner("fp32", CUDA)
    for number in range(WARM_UP_UPDATES):
        learner.update(number, number)

    def everything():
        state = learner.agent.state_dict()
        optimisers = (state["critic_optimiser"]["state"], state["actor_optimiser"]["state"])
        generators = (state["generator"], learner.replay.generator.get_state())
        return deepcopy((weights(learner.agent), optimisers, generators))

    before = everything()
    learner._capture(turn=0)
    torch.testing.assert_close(everything(), before, rtol=0, atol=0)


@pytest.mark.gpu
def test_an_update_that_waits_for_the_gpu_is_told_how_to_run():
    """In a process of its own, which a failed capture spoils."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_learner import *
class Waiting(DrQV2):
    def update(self, batch, agent_step):
        metrics = super().update(batch, agent_step)
        assert metrics["critic_loss"].item() >= 0.0
        return metrics
for capture in (False, True):
    agent = Waiting((9, SIZE, SIZE), ACTION, SETTINGS, device=CUDA, seed=1)
    learner = Learner(
        agent, new_replay(CUDA), batch_size=BATCH, precision="fp32", device=CUDA, capture=capture
    )
    for number in range(WARM_UP_UPDATES + 1):
        learner.update(number, number)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "NotCaptured: an update of Waiting cannot be recorded as a CUDA graph: " in said
    assert "--cuda-graph no runs it step by step" in said


@pytest.mark.gpu
def test_images_in_ram_give_the_gpu_what_was_stored():
    """Images cross to the host as they are added, and batches cross back."""
    learner = new_learner("fp32", CUDA, images_on=CPU)
    expected = new_replay(CPU)
    assert torch.equal(learner.replay.images, expected.images)
    drawn, wanted = learner.replay.sample(BATCH).observation, expected.sample(BATCH).observation
    assert torch.equal(drawn.stack.cpu(), wanted.stack)
    for number in range(WARM_UP_UPDATES + 2):
        learner.update(number, number)
    assert not learner.graphs
    assert learner.sum_of_metrics.isfinite()


@pytest.mark.gpu
def test_a_gpu_update_is_close_to_the_cpus(monkeypatch):
    """The first weights are the same; the random numbers are not, so none are used."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    still = replace(SETTINGS, shift_pad=0, stddev_initial=0.0, stddev_final=0.0)
    batch = new_replay().sample(BATCH)
    metrics = {}
    for device in (CPU, CUDA):
        agent = DrQV2((9, SIZE, SIZE), ACTION, still, device=device, seed=1)
        assert torch.equal(weights(agent).cpu(), weights(new_agent()))
        moved = tree_map(partial(torch.Tensor.to, device=device), batch)
        metrics[device] = agent.update(moved, torch.tensor(100, device=device))
    for name, value in metrics[CPU].items():
        assert metrics[CUDA][name].item() == pytest.approx(value.item(), rel=1e-3, abs=1e-4), name


@pytest.mark.gpu
def test_a_small_array_is_sent_without_waiting_for_queued_work():
    to_device(np.arange(100), CUDA)  # its memory is taken before, which may wait
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(2_000_000_000)  # clock cycles
    done.record()
    sent = to_device(np.arange(100), CUDA)
    assert not done.query()
    assert sent.tolist() == list(range(100))
    assert done.query()
