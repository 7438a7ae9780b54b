"""When the loop acts, learns, evaluates and saves; what it refuses to go on with."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import (
    TINY,
    assert_same,
    assert_same_dreams,
    dreaming,
    rows,
    tiny,
)

from pixelcontrol import learner, loop
from pixelcontrol.agents.drqv2 import DrQV2
from pixelcontrol.checkpoint import CheckpointNotSaved, Checkpoints
from pixelcontrol.config import resolve
from pixelcontrol.envs.vector import VectorEnv, WorkerError
from pixelcontrol.errors import Interrupted
from pixelcontrol.evaluate import evaluate
from pixelcontrol.loop import Counters, NotFinite, TrainingRun
from pixelcontrol.train import train


def test_work_may_be_queued_before_actions_are_awaited(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU's order of asking, on a CPU: the same run."""
    order: list[str] = []

    def noted(owner: Any, method: str) -> None:
        original = getattr(owner, method)
        monkeypatch.setattr(owner, method, lambda *a, **k: (order.append(method), original(*a, **k))[1])

    noted(TrainingRun, "_learn")
    noted(TrainingRun, "_checked")
    build = TrainingRun.__init__

    def queueing(self: TrainingRun, *arguments: Any, **options: Any) -> None:
        build(self, *arguments, **options)
        self.learner.capturable = True

    monkeypatch.setattr(TrainingRun, "__init__", queueing)
    monkeypatch.setattr(learner, "WARM_UP_UPDATES", 10**6)  # a CPU has no graphs
    train(tiny(), tmp_path)
    assert_same(finished, tmp_path)
    assert order[:4] == ["_learn", "_checked", "_learn", "_checked"]


def test_all_updates_that_catch_up_are_of_the_first_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []
    update = learner.Learner.update
    monkeypatch.setattr(
        learner.Learner, "update", lambda self, step, turn: (turns.append(turn), update(self, step, turn))[1]
    )
    # 16 worlds reach the agent step from which on updates are due in mid-round
    for worlds in (1, 2, 16):
        turns.clear()
        config = resolve("toy_reach", "sac", **(TINY | {"eval_episodes": 0, "frames": 320, "envs": worlds}))
        train(config, tmp_path / str(worlds))
        assert turns[:5] == [0] * 5
        assert turns[5:] == list(range(len(turns) - 5))
        assert len(turns) > 20


def test_evaluation_does_not_disturb_training(finished: Path, tmp_path: Path) -> None:
    train(tiny(eval_episodes=0), tmp_path)
    assert_same(finished, tmp_path)
    assert rows(tmp_path / "eval.csv") == []


def test_evaluation_does_not_disturb_what_an_agent_remembers(dreamt: Path, tmp_path: Path) -> None:
    train(dreaming(eval_episodes=0), tmp_path)
    assert_same_dreams(dreamt, tmp_path)


def test_episodes_of_an_evaluation_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end one by one, and worlds that have ended begin others meanwhile, which are nobody's."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "envs")
    train(tiny(task="my_robot:make_world", frames=200, image_size=(24,), eval_episodes=3), tmp_path)
    state = Checkpoints(tmp_path).load()["eval_env"]
    assert any(len(actions) > 0 for actions in state["actions"])
    assert state["last"] == [True, True, True]


def test_a_metric_that_an_agent_does_not_list_is_named_at_its_first_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DrQV2, "metric_names", ("critic_loss", "q_mean", "target_mean", "std"))
    words = "drqv2 returns the metrics actor_loss, saturation, for which .* add them to its `metric_names`"
    with pytest.raises(ValueError, match=words):
        train(tiny(), tmp_path)
    assert {row["update"] for row in rows(tmp_path / "train.csv")} == {"0"}


@pytest.mark.parametrize("broken_off", [0, 1, 3], ids=["first", "second", "last"])
def test_an_evaluation_broken_off_by_a_signal_is_made_again(
    broken_off: int, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = 0

    def interrupted(*arguments: Any, before_step: Callable[[], None]) -> Any:
        nonlocal begun
        steps, disturb = itertools.count(), begun == broken_off
        begun += 1

        def step() -> None:
            if disturb and next(steps) == 7:  # of 25 agent steps
                os.kill(os.getpid(), signal.SIGTERM)
            before_step()

        return evaluate(*arguments, before_step=step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", interrupted)
        with pytest.raises(Interrupted):
            train(tiny(), tmp_path)
    assert len(rows(tmp_path / "eval.csv")) == broken_off
    train(tiny(), tmp_path, resume=True)
    assert_same(finished, tmp_path)
    assert rows(finished / "eval.csv") == rows(tmp_path / "eval.csv")


def full_disk(*_: object) -> None:
    raise CheckpointNotSaved("no space")


def test_a_save_in_between_that_fails_is_told_and_the_last_one_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Checkpoints, "begin_save", full_disk)
    with pytest.raises(CheckpointNotSaved, match="no space"):
        train(tiny(frames=400, eval_episodes=0), tmp_path)
    assert capsys.readouterr().err.count("warning: no space") == 2
    assert rows(tmp_path / "train.csv")[-1]["frame"] == "400"


def test_where_the_replay_has_no_room_the_weights_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Checkpoints.begin_save

    def without_room(self: Checkpoints, state: Any, replay: Any) -> None:
        if replay is not None:
            raise CheckpointNotSaved("no space")
        begin(self, state, replay)

    monkeypatch.setattr(Checkpoints, "begin_save", without_room)
    with pytest.raises(CheckpointNotSaved, match="no space; all but the replay was saved"):
        train(tiny(frames=200, eval_episodes=0), tmp_path)
    assert Checkpoints(tmp_path).load()["counters"]["agent_step"] == 100


def test_losses_are_logged_between_the_ends_of_episodes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "METRICS_EVERY_FRAMES", 50)
    train(tiny(frames=320, eval_episodes=0), tmp_path)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    steps = [at.step for at in board.Scalars("learn/critic_loss")]
    assert [step // 50 for step in steps] == [3, 4, 5, 6]  # at 100 nothing was learned yet


def test_updates_made_before_a_world_failed_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, failing = tmp_path / "whole", tmp_path / "failing"
    config = tiny(eval_episodes=0, envs=6, frames=900)
    train(config, whole)
    receive, received = VectorEnv.receive, itertools.count()

    def fail_once(env: VectorEnv) -> Any:
        step = receive(env)
        if next(received) == 50:
            raise WorkerError("a world failed for good")
        return step

    monkeypatch.setattr(VectorEnv, "receive", fail_once)
    with pytest.raises(
        WorkerError, match=r"failed for good; all is saved: continue with: .* --resume .*failing"
    ):
        train(config, failing)
    train(config, failing, resume=True)
    counts = [Checkpoints(run_dir).load()["counters"] for run_dir in (whole, failing)]
    assert counts[0]["update"] == counts[1]["update"] > 100
    assert counts[0]["agent_step"] == counts[1]["agent_step"] == 450


def test_a_run_saves_every_half_hour_however_slow_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = set()
    monkeypatch.setattr(TrainingRun, "save", lambda self, wait=True: saved.add(self.frame))
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", 0.0)
    train(tiny(frames=200, save_every_frames=100_000, eval_episodes=0), tmp_path)
    assert saved == set(range(4, 201, 4))


def test_a_run_of_a_real_robot_saves_every_few_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    monkeypatch.setattr(TrainingRun, "save", lambda self, wait=True: saved.append(self.frame))
    monkeypatch.setattr(loop, "SAVE_ROBOT_EVERY_SECONDS", 0.0)
    robot = tiny(
        task="sensing:make_real_world", frames=200, envs=1, save_every_frames=100_000, eval_episodes=0
    )
    train(robot, tmp_path)
    assert len(saved) > 50


def test_a_run_ends_with_an_evaluation_which_is_no_part_of_a_longer_one(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluations are due at every 200 frames."""
    train(tiny(frames=500), tmp_path)
    said = capsys.readouterr().err
    assert "trained to frame 500 in" in said
    assert f"longer with: pixelcontrol train --resume {tmp_path} --frames 1000" in said
    assert [row["frame"] for row in rows(tmp_path / "eval.csv")] == ["0", "200", "400", "500"]
    train(tiny(), tmp_path, resume=True)
    assert_same(finished, tmp_path)
    *before, last, end = rows(tmp_path / "eval.csv")
    assert last["frame"] == "500"
    assert [*before, end] == rows(finished / "eval.csv")


def test_without_its_replay_one_that_learns_from_sequences_refills_over_an_end(tmp_path: Path) -> None:
    """An episode of the toy has 26 images: the seed frames after a resume give no whole sequence of 20."""
    config = dreaming(
        keep_replay=False, eval_episodes=0, sequence_length=20, seed_frames=40, envs=1, workers=1
    )
    train(config.with_loop(frames=140), tmp_path)
    train(config, tmp_path, resume=True)
    assert int(rows(tmp_path / "train.csv")[-1]["update"]) > 0


def test_without_its_replay_a_resumed_run_refills_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(keep_replay=False, eval_episodes=0)
    train(config.with_loop(frames=300), tmp_path)
    train(config, tmp_path, resume=True)
    assert "refilling" in capsys.readouterr().err
    # 300 frames: 150 agent steps, 100 of them after the seed frames; then 50 to refill and 100 to learn from.
    # What was caught up on once is not again.
    assert rows(tmp_path / "train.csv")[-1]["update"] == "105"


def break_losses_from(agent_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = DrQV2.update

    def break_down(self: DrQV2, batch: Any, now: torch.Tensor) -> dict[str, torch.Tensor]:
        metrics = learn(self, batch, now)
        if now < agent_step:
            return metrics
        with torch.no_grad():
            for weight in self.actor.parameters():
                weight.fill_(torch.nan)
        return metrics | {"critic_loss": metrics["critic_loss"] * torch.nan}

    monkeypatch.setattr(DrQV2, "update", break_down)


@pytest.mark.parametrize(
    ("agent_step", "choices"),
    [(220, {"eval_episodes": 0}), (298, {"eval_episodes": 0}), (220, {"eval_every_frames": 444})],
    ids=["in between", "in the round that ends with a save", "in the round before an evaluation"],
)
def test_a_loss_that_is_not_finite_stops_the_run(
    agent_step: int, choices: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_losses_from(agent_step, monkeypatch)
    with pytest.raises(NotFinite, match=r"critic_loss nan.*--learning-rate, or --precision fp32"):
        train(tiny(**choices), tmp_path)
    assert (tmp_path / "not_finite.pt").exists()
    assert Checkpoints(tmp_path).load()["counters"]["agent_step"] == 200


@pytest.mark.parametrize("worlds", [1, 2, 3, 16])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_any_number_of_worlds_makes_the_same_updates(worlds: int, every: int) -> None:
    """One world's loop, written out: after `learn_from` agent steps, before every `every`-th one."""
    learn_from, total = 20, 480
    expected = [step for step in range(total) if step >= learn_from and step % every == 0]
    run = object.__new__(TrainingRun)
    run.config = tiny(update_every_agent_steps=every)
    run.counters = Counters(learn_from=learn_from)
    made = 0
    while run.counters.agent_step < total:
        made += run._updates_due(worlds)
        run.counters.agent_step += worlds
    assert made == len(expected)
