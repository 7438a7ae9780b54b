"""Rows, seeds, states and faults of `VectorEnv`, with worlds that do what they are told."""

import logging
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scripted_worlds
import torch
from scripted_worlds import (
    DIE,
    DISCONNECT,
    DISCOUNT_OF_TWO,
    END,
    HANG,
    MISTAKE,
    NAN_PAYLOAD,
    NAN_PRIVILEGED,
    NAN_PROPRIO,
    NAN_REWARD,
    RAISE,
    ScriptedWorld,
)

from pixelcontrol.envs import hosts, vector
from pixelcontrol.envs.render.pixels import PixelRenderer
from pixelcontrol.envs.toy import ToyWorld
from pixelcontrol.envs.vector import MAX_FAULTS, VectorEnv, WorkerError


class PayloadAsImage:
    """The three float32 numbers of a `ScriptedWorld`, each as the 4 bytes of one channel."""

    name = "payload"
    image_shape = (3, 1, 4)

    def images(self, payload):
        return torch.from_numpy(payload.copy().view(np.uint8).reshape(len(payload), 3, 1, 4))


MADE = []


@pytest.fixture(autouse=True)
def _close_all():
    yield
    while MADE:
        MADE.pop().close()


def made(env):
    MADE.append(env)
    return env


def scripted(num_worlds=1, num_workers=0, make_world=ScriptedWorld, seed=7, repeats=True, **kwargs):
    return made(
        VectorEnv(
            make_world,
            replace(ScriptedWorld().spec, repeats=repeats),
            PayloadAsImage(),
            num_worlds=num_worlds,
            num_workers=num_workers,
            seed=seed,
            **kwargs,
        )
    )


def toys(num_worlds=2, num_workers=0, seed=7, stream=0):
    make_world = partial(ToyWorld, (20, 24))
    return made(
        VectorEnv(
            make_world,
            make_world().spec,
            PixelRenderer("own", (3, 20, 24), "cpu"),
            num_worlds=num_worlds,
            num_workers=num_workers,
            seed=seed,
            stream=stream,
        )
    )


def payload(time_step):
    return time_step.image.numpy().reshape(len(time_step.image), -1).view(np.float32)


def step(env, *controls):
    env.send(np.array(controls, np.float32).reshape(env.num_worlds, -1))
    return env.receive()


def assert_same(a, b):
    assert torch.equal(a.image, b.image)
    for name in ("action", "reward", "discount", "first", "last", "proprio"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def roll(env, steps, seed=0):
    """Random actions: a fixed sequence per world, whatever the number of worlds."""
    actions = np.stack(
        [
            np.random.default_rng((seed, i)).uniform(-1, 1, (steps, env.spec.action_dim))
            for i in range(env.num_worlds)
        ],
        axis=1,
    ).astype(np.float32)
    rows = []
    for action in actions:
        env.send(action)
        rows.append(env.receive())
    return rows


# --- rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 1])
def test_rows_of_an_episode_and_of_the_next_reset(num_workers):
    env = scripted(num_workers=num_workers)
    rows = [env.reset()] + [step(env, a) for a in (0.7, -0.7, 0.8, 0.9, -0.9)]
    assert [row.first.item() for row in rows] == [True, False, False, False, True, False]
    assert [row.last.item() for row in rows] == [False, False, False, True, False, False]
    assert [row.reward.item() for row in rows] == [0, 10, 20, 30, 0, 10]
    assert [row.discount.item() for row in rows] == [1, 1, 1, 1, 1, 1]
    # 0.9 met a world whose episode was over: it is ignored, and the row says 0.
    np.testing.assert_array_equal(
        np.concatenate([row.action[0] for row in rows]), np.float32([0, 0.7, -0.7, 0.8, 0, -0.9])
    )
    assert [payload(row)[0, 1] for row in rows] == [0, 1, 2, 3, 0, 1]
    sensed = np.concatenate([row.proprio for row in rows])
    np.testing.assert_allclose(sensed[:, 0] * 2.0**32, [payload(row)[0, 0] for row in rows], rtol=1e-6)
    np.testing.assert_array_equal(sensed[:, 1], np.float32([0, 0.1, 0.2, 0.3, 0, 0.1]))
    np.testing.assert_array_equal([row.privileged.item() for row in rows], [0, -1, -2, -3, 0, -1])
    small = [(row.reward, row.discount, row.action, row.proprio, row.privileged) for row in rows]
    assert {part.dtype for parts in small for part in parts} == {np.dtype(np.float32)}


def test_a_true_end_has_discount_zero_and_only_its_own_world_begins_anew():
    env = scripted(num_worlds=2)
    env.reset()
    ended = step(env, END, 0.0)
    after = step(env, 0.0, 0.0)
    assert ended.discount.tolist() == [0.0, 1.0]
    assert ended.last.tolist() == [True, False]
    assert after.first.tolist() == [True, False]
    assert after.discount.tolist() == [1.0, 1.0]


def test_rows_are_the_callers_own():
    for env in (toys(), scripted()):
        first = env.reset()
        image, reward = first.image.clone(), first.reward.copy()
        proprio, privileged = first.proprio.copy(), first.privileged.copy()
        roll(env, 2)
        assert torch.equal(first.image, image)
        np.testing.assert_array_equal(first.reward, reward)
        np.testing.assert_array_equal(first.proprio, proprio)
        np.testing.assert_array_equal(first.privileged, privileged)


def test_without_proprioception_there_are_no_columns():
    row = toys().reset()
    assert (row.proprio.shape, row.proprio.dtype) == ((2, 0), np.float32)


def test_reset_starts_another_episode_in_every_world():
    env = scripted(num_worlds=2)
    before = payload(env.reset())
    step(env, 0.0, 0.0)
    again = env.reset()
    assert again.first.all()
    assert (payload(again)[:, 0] != before[:, 0]).all()


@pytest.mark.parametrize("num_workers", [1, 2, 3, 9])
def test_the_number_of_workers_changes_nothing(num_workers):
    one, other = toys(3, 0), toys(3, num_workers)
    assert_same(one.reset(), other.reset())
    for a, b in zip(roll(one, 30), roll(other, 30), strict=True):
        assert_same(a, b)


# --- misuse -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros((2, 2), np.float32), r"shape \(3, 2\), got \(2, 2\)"),
        (np.float32([[0, 0], [0, np.nan], [0, 0]]), "world 1"),
        (np.float32([[0, 0], [0, 0], [0, 1.01]]), "world 2"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(action, message):
    env, twin = toys(3), toys(3)
    env.reset(), twin.reset()
    with pytest.raises(ValueError, match=message):
        env.send(action)
    assert_same(roll(env, 1)[0], roll(twin, 1)[0])


def test_calls_out_of_order_are_refused():
    env = toys()
    with pytest.raises(RuntimeError, match="reset"):
        env.send(np.zeros((2, 2), np.float32))
    with pytest.raises(RuntimeError, match="send"):
        env.receive()
    env.reset()
    env.send(np.zeros((2, 2), np.float32))
    for call in (
        env.reset,
        partial(env.load_state_dict, env.state_dict()),
        partial(env.send, np.zeros((2, 2), np.float32)),
    ):
        with pytest.raises(RuntimeError, match="receive"):
            call()


@pytest.mark.parametrize("wrong", [{"num_worlds": 0}, {"num_workers": -1}, {"seed": -1}, {"stream": -1}])
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="num_worlds >= 1"):
        scripted(**wrong)


# --- seeds --------------------------------------------------------------------------------------------------


def test_what_a_world_lives_through_does_not_depend_on_how_many_there_are():
    two, three = toys(2), toys(3)
    assert torch.equal(two.reset().image, three.reset().image[:2])
    for a, b in zip(roll(two, 30), roll(three, 30), strict=True):
        assert torch.equal(a.image, b.image[:2])
        np.testing.assert_array_equal(a.reward, b.reward[:2])


def test_every_seed_stream_world_and_episode_has_its_own_seed():
    seeds = []
    for seed in (7, 8):
        for stream in (0, 1):
            env = scripted(num_worlds=2, seed=seed, stream=stream)
            seeds += [payload(env.reset())[:, 0] for _ in range(2)]
    seeds = np.concatenate(seeds)
    assert len(seeds) == len(np.unique(seeds)) == 16


# --- states -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("steps", [0, 1, 25, 26, 40], ids=lambda n: {25: "at last", 26: "after reset"}.get(n))
def test_continues_exactly_from_a_state(num_workers, steps, tmp_path):
    env = toys(num_workers=num_workers)
    rows = [env.reset(), *roll(env, steps)]
    assert rows[-1].last.all() == (steps == 25)  # 50 frames of 2 per agent step
    torch.save(env.state_dict(), tmp_path / "state.pt")
    other = toys(num_workers=num_workers)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for a, b in zip(roll(env, 60, seed=1), roll(other, 60, seed=1), strict=True):
        assert_same(a, b)
    assert str(env.state_dict()) == str(other.state_dict())


@pytest.mark.parametrize("steps", [3, 25], ids=["in mid-episode", "over a reset"])
def test_a_state_is_that_of_the_row_last_received(steps):
    env = toys()
    env.reset()
    roll(env, steps)
    received = str(env.state_dict())
    env.send(np.zeros((2, 2), np.float32))
    assert str(env.state_dict()) == received
    env.receive()
    assert str(env.state_dict()) != received


def test_a_state_is_to_be_had_after_a_failure():
    env, other = scripted(num_workers=1), scripted(num_workers=1)
    env.reset()
    step(env, 0.7)
    for _ in range(MAX_FAULTS):
        step(env, RAISE)
    with pytest.raises(WorkerError):
        step(env, RAISE)
    other.load_state_dict(env.state_dict())
    assert payload(step(other, 0.7))[0, 1] == 1.0  # one step after the `first` row that came last


def test_worlds_at_different_moments_continue_exactly():
    env, other = scripted(num_worlds=3), scripted(num_worlds=3)
    env.reset()
    step(env, END, 0.0, 0.0)
    step(env, 0.0, END, 0.0)  # now: first, last, 2nd step
    other.load_state_dict(env.state_dict())
    for controls in ((0.7, 0.8, 0.9), (0.6 / 0.7, 0.0, 0.0), (0.0, 0.0, 0.0)):
        assert_same(step(env, *controls), step(other, *controls))


def test_a_state_taken_before_the_first_reset_can_be_loaded():
    env, other = toys(), toys()
    other.load_state_dict(env.state_dict())
    assert_same(env.reset(), other.reset())


@pytest.mark.parametrize("other", [{"seed": 8}, {"stream": 1}, {"num_worlds": 3}])
def test_a_state_of_another_run_is_refused(other):
    env = toys()
    env.reset()
    with pytest.raises(ValueError, match="seed, stream, worlds"):
        toys(**other).load_state_dict(env.state_dict())


@pytest.mark.parametrize(("part", "change"), [("reward", 0.125), ("payload", 1)])
def test_an_episode_that_does_not_repeat_itself_is_dropped_aloud(part, change, caplog):
    env, other, undisturbed = toys(), toys(), toys()
    env.reset()
    roll(env, 3)
    state = env.state_dict()
    undisturbed.load_state_dict(state)
    state[part][1] += change
    other.load_state_dict(state)
    assert "world 1 (episode 0" in caplog.text
    assert "does not repeat itself" in caplog.text
    assert "world 0" not in caplog.text
    now, expected = roll(other, 1)[0], roll(undisturbed, 1)[0]
    assert now.first.tolist() == [False, True]
    assert torch.equal(now.image[0], expected.image[0])
    assert now.reward.tolist() == [expected.reward[0], 0.0]


def test_an_episode_that_ends_earlier_when_it_is_repeated_is_dropped_aloud(caplog):
    env, other = scripted(num_worlds=2), scripted(num_worlds=2)
    env.reset()
    for _ in range(2):
        step(env, 0.7, 0.8)
    state = env.state_dict()
    state["actions"][1][0] = END  # as if another version of the world ended here
    other.load_state_dict(state)
    assert "world 1 (episode 0" in caplog.text
    assert step(other, 0.7, 0.7).first.tolist() == [False, True]


def test_a_fault_in_the_first_agent_step_after_a_resume_is_mended():
    env, other = scripted(num_workers=1), scripted(num_workers=1)
    env.reset()
    step(env, 0.7)
    other.load_state_dict(env.state_dict())
    assert step(other, RAISE).first.tolist() == [True]
    assert other.faults == 1


def test_a_world_that_cannot_repeat_itself_is_not_asked_to(caplog):
    """A real robot must not make the moves of its last episode again."""
    env, other = scripted(), scripted()
    env.reset()
    step(env, 0.7)
    other.spec = replace(other.spec, repeats=False)
    other.load_state_dict(env.state_dict())
    assert payload(step(other, 0.7))[:, 1].tolist() == [0.0] * env.num_worlds
    assert not caplog.text


# --- faults -------------------------------------------------------------------------------------------------


def test_a_hurry_ends_the_wait_for_a_hung_worker_and_for_no_other(monkeypatch):
    monkeypatch.setattr(hosts, "HURRIED_TIMEOUT", 5.0)
    monkeypatch.setattr(vector, "STEP_TIMEOUT", 3600.0)
    env = scripted(num_worlds=2, num_workers=2)
    env.reset()
    env.hurry()
    assert step(env, 0.0, 0.0).reward.tolist() == [10.0, 10.0]
    with pytest.raises(
        WorkerError, match=r"(?s)worker 1 failed as the run was to stop, at world 1 .* within 5 s"
    ):
        step(env, 0.0, HANG)
    assert len(env.state_dict()["actions"][1]) == 1  # the step before


def test_a_hurry_while_a_worker_is_replaced_reaches_the_new_one(monkeypatch):
    monkeypatch.setattr(hosts, "HURRIED_TIMEOUT", 1.0)
    monkeypatch.setattr(vector, "START_TIMEOUT", 3600.0)
    env = scripted(num_workers=1)
    env.reset()
    step(env, 0.0)
    host, end = env._host, env._hosts[0].end

    def hang(*args, **kwargs):
        new = host(*args, **kwargs)
        new.send = lambda order: None  # it never hears of an order, and so never answers
        return new

    monkeypatch.setattr(env, "_host", hang)
    monkeypatch.setattr(env._hosts[0], "end", lambda: (end(), env.hurry()))
    with pytest.raises(WorkerError, match=r"(?s)failed as the run was to stop.*did not answer within"):
        step(env, DIE)


def test_time_in_which_all_were_stopped_is_no_delay(monkeypatch):
    """By Ctrl-Z, or in a frozen container: the clock runs on, and no process does."""
    clock = [100.0]
    monkeypatch.setattr(hosts.time, "monotonic", lambda: clock[0])
    worker = hosts.Worker.__new__(hosts.Worker)
    worker._ordered, worker._hurried, worker._hurried_timeout = 100.0, math.inf, 10.0
    waits = []

    class Connection:
        def poll(self, seconds):
            waits.append(seconds)
            clock[0] += 1000.0 if len(waits) == 2 else seconds
            return False

    worker._connection = Connection()
    assert worker.answer(5.0) == "did not answer within 5 s"
    assert len(waits) >= 5


def test_a_world_that_does_not_repeat_itself_may_take_its_time(monkeypatch):
    monkeypatch.setattr(vector, "STEP_TIMEOUT", 0.0)
    env = scripted(num_workers=1, repeats=False)
    env.reset()
    assert step(env, 0.0).reward.tolist() == [10.0]
    assert env.faults == 0


class Arm(ScriptedWorld):
    """Parks before it is done."""

    parked = None

    def close(self):
        time.sleep(1.0)
        Path(self.parked).touch()


def park(file):
    world = Arm()
    world.parked = file
    return world


@pytest.mark.parametrize("repeats", [True, False])
def test_a_robot_has_the_time_to_park(repeats, tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "CLOSE_TIMEOUT", 0.1)
    file = tmp_path / "parked"
    env = scripted(num_workers=1, make_world=partial(park, str(file)), repeats=repeats)
    env.reset()
    env.close()
    assert file.exists() != repeats


@pytest.mark.parametrize(
    ("control", "words"),
    [
        (RAISE, "the world is out of joint"),
        (DISCONNECT, "ConnectionResetError: the robot hung up"),
        (DIE, "died of SIGKILL (Killed)"),
        (HANG, "did not answer within 10 s"),
    ],
)
def test_a_failed_worker_is_named_and_replaced_and_its_episode_discarded(control, words, caplog, monkeypatch):
    if control == HANG:
        monkeypatch.setattr(vector, "STEP_TIMEOUT", 10.0)
    env = scripted(num_worlds=2, num_workers=2)
    before = env.reset()
    step(env, 0.0, 0.0)
    with caplog.at_level(logging.WARNING):
        row = step(env, 0.0, control)
    assert words in caplog.text
    seed = int(env._episode_seed(1))
    assert "world 1 (episode 0 with seed" in caplog.text
    assert "agent step 2" in caplog.text
    assert env.faults == 1
    # World 1 stands at the first row of its next episode; world 0 noticed nothing.
    assert row.first.tolist() == [False, True]
    assert row.last.tolist() == [False, False]
    assert row.reward.tolist() == [20.0, 0.0]
    assert row.discount.tolist() == [1.0, 1.0]
    assert row.action[1].item() == 0.0
    assert payload(row)[1].tolist() == [np.float32(seed), 0.0, 0.0]
    assert payload(before)[1, 0] != payload(row)[1, 0]
    assert step(env, 0.0, 0.0).reward.tolist() == [30.0, 10.0]


def test_a_state_after_a_fault_continues_exactly():
    env, other = scripted(num_workers=1), scripted(num_workers=1)
    env.reset()
    step(env, 0.0)
    step(env, RAISE)
    step(env, 0.7)
    other.load_state_dict(env.state_dict())
    for control in (0.7, 0.8, 0.9):
        assert_same(step(env, control), step(other, control))


def test_repeated_failure_ends_with_the_original_traceback_and_is_told_in_full_once(caplog):
    env = scripted(num_workers=1)
    env.reset()
    step(env, 0.0)
    for fault in range(MAX_FAULTS):
        assert step(env, RAISE).first.all()
        assert env.faults == fault + 1
    assert caplog.text.count("Traceback") == 1
    assert "agent step 1) it raised ArithmeticError: the world is out of joint\n" in caplog.text
    with pytest.raises(WorkerError, match=r"(?s)failed 4 times.*world 0.*ArithmeticError: the world is out"):
        step(env, RAISE)


def test_what_a_world_raises_in_its_first_agent_step_is_final():
    env = scripted(num_worlds=2, num_workers=1)
    env.reset()
    with pytest.raises(
        WorkerError, match=r"(?s)could not make one agent step: world 1 .*ArithmeticError: the w"
    ):
        step(env, 0.0, RAISE)
    assert env.faults == 0


def test_failures_are_forgiven_after_many_steps_whatever_ends_in_between(monkeypatch):
    monkeypatch.setattr(vector, "FAULT_STEPS", 3 * MAX_FAULTS)
    env = scripted(num_workers=1)
    env.reset()
    for _ in range(MAX_FAULTS + 2):
        for control in (END, 0.0, RAISE):
            step(env, control)
    assert env.faults == MAX_FAULTS + 2
    monkeypatch.setattr(vector, "FAULT_STEPS", 3 * MAX_FAULTS + 1)
    step(env, END)
    step(env, 0.0)
    with pytest.raises(
        WorkerError, match="failed 4 times within 10 agent steps of each world, the last time at w"
    ):
        step(env, RAISE)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_mistake_that_would_happen_again_is_told_in_one_line_and_mended_by_nobody(num_workers):
    env = scripted(num_worlds=2, num_workers=num_workers)
    env.reset()
    step(env, 0.0, 0.0)
    with pytest.raises(WorkerError) as told:
        step(env, 0.0, MISTAKE)
    assert str(told.value) == (
        f"world 1 (episode 0 with seed {env._episode_seed(1)}, agent step 2) is not as it must be: `step` "
        "returned (1.0, None), but must return a reward, a discount and a truth value"
    )
    assert env.faults == 0
    assert len(env.state_dict()["actions"][1]) == 1


def test_a_long_wait_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr(hosts, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(hosts, "TICK_SECONDS", 0.1)
    monkeypatch.setattr(hosts, "REAL_TIMEOUT", 1.0)
    env = scripted(num_workers=1, repeats=False)
    env.reset()
    caplog.clear()
    monkeypatch.setattr(env._hosts[0], "_ordered", time.monotonic())
    threading.Timer(1.0, env.hurry).start()
    with pytest.raises(WorkerError, match="failed as the run was to stop"):
        step(env, HANG)
    assert [record.getMessage() for record in caplog.records] == [
        "still waiting for world 0, for 0 s now; it may take as long as it likes"
    ]


def test_an_unbuildable_world_is_reported_with_its_traceback():
    with pytest.raises(WorkerError, match=r"(?s)worlds 0 to 1 could not be built.*OSError: no such robot"):
        scripted(num_worlds=2, num_workers=1, make_world=scripted_worlds.unbuildable)
    assert multiprocessing.active_children() == []


def one_alone(file):
    if Path(file).exists():
        raise BrokenPipeError("the robot has one plug")
    Path(file).touch()
    return park(file + " parked")


def test_worlds_that_were_built_before_one_could_not_be_are_closed(tmp_path):
    file = tmp_path / "plugged"
    with pytest.raises(WorkerError, match=r"(?s)could not be built.*BrokenPipeError: the robot has one plug"):
        scripted(num_worlds=2, num_workers=1, make_world=partial(one_alone, str(file)), repeats=False)
    assert Path(f"{file} parked").exists()


def test_without_workers_what_a_world_raises_comes_out_as_it_is():
    env = scripted()
    env.reset()
    with pytest.raises(ArithmeticError, match="out of joint"):
        step(env, RAISE)


@pytest.mark.parametrize(
    ("control", "name"),
    [
        (NAN_REWARD, "reward"),
        (NAN_PAYLOAD, "payload"),
        (NAN_PROPRIO, "proprio"),
        (NAN_PRIVILEGED, "privileged"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(control, name):
    env = scripted(num_worlds=2)
    env.reset()
    with pytest.raises(WorkerError, match=rf"{name} of world 1 \(episode 0 with seed \d+, agent step 1\)"):
        step(env, 0.0, control)


def test_a_discount_that_is_none_is_refused():
    env = scripted(num_worlds=2)
    env.reset()
    with pytest.raises(
        WorkerError, match=r"discount of world 1 .* is 2\.0, but must lie from 0, at a true end, to 1"
    ):
        step(env, 0.0, DISCOUNT_OF_TWO)


# --- processes ----------------------------------------------------------------------------------------------


def test_workers_load_no_torch_ignore_ctrl_c_and_end_with_close():
    env = scripted(num_worlds=3, num_workers=2)
    assert payload(env.reset())[:, 2].tolist() == [0.0, 0.0, 0.0]
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
    step(env, 0.0, 0.0, 0.0)
    assert env.faults == 0
    env.close()
    assert multiprocessing.active_children() == []


PARENT = """
import multiprocessing, sys, time
import numpy as np
sys.path.insert(0, {tests!r})
from scripted_worlds import HANG
from test_vector import scripted
if __name__ == "__main__":
    env = scripted(num_worlds=2, num_workers=2)
    env.reset()
    env.send(np.float32([[HANG], [0.0]]))
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(3600)
"""


def test_a_killed_parent_leaves_no_worker_behind_not_even_a_hung_one(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=str(Path(__file__).parent)))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(is_running(pid) for pid in pids)
    parent.kill()
    parent.wait()
    while any(is_running(pid) for pid in pids):  # pytest's time limit ends it where one stays
        time.sleep(0.1)


@pytest.mark.parametrize("action", ["0.0", "HANG"])
def test_an_environment_that_nobody_closes_does_not_keep_python_from_ending(tmp_path, action):
    script = tmp_path / "parent.py"
    ending = PARENT.format(tests=str(Path(__file__).parent)).replace(
        "time.sleep(3600)", "raise SystemExit(7)"
    )
    script.write_text(ending.replace("[HANG]", f"[{action}]"))
    ended = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 7
    assert not any(is_running(int(pid)) for pid in ended.stdout.split())


def test_a_script_without_its_guard_is_told_of_it(tmp_path):
    script = tmp_path / "parent.py"
    unguarded = PARENT.format(tests=str(Path(__file__).parent)).replace('__name__ == "__main__"', "True")
    script.write_text(unguarded)
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1].endswith("it needs `if __name__ == '__main__':`")


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
