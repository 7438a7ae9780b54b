"""The loop as a whole, on the toy task: what it leaves, what it repeats exactly, and that it learns."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from pixelcontrol import train as loop
from pixelcontrol.checkpoint import Checkpoints
from pixelcontrol.config import Config, resolve
from pixelcontrol.experiments.published import Published
from pixelcontrol.logger import Progress
from pixelcontrol.train import Counters, Interrupted, NotFinite, Run, train

TINY: dict[str, Any] = {
    "frames": 600,
    "envs": 2,
    "workers": 1,
    "image_size": 24,
    "batch_size": 8,
    "hidden_dim": 16,
    "conv_filters": 4,
    "seed_frames": 100,
    "exploration_steps": 40,
    "eval_every_frames": 200,
    "eval_episodes": 2,
    "save_every_frames": 200,
    "device": "cpu",
    "precision": "fp32",
}


def tiny(**overrides: Any) -> Config:
    seed = overrides.pop("seed", 1)
    return resolve("toy_reach", seed=seed, **(TINY | overrides))[0]


def rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV without the columns that a clock fills."""
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    for row in table:
        row.pop("hour")
        row.pop("frames_per_second", None)
    return table


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    agent = Checkpoints(run_dir).load()["agent"]
    return {
        f"{part}.{name}": value
        for part in ("encoder", "actor", "critic", "target_critic")
        for name, value in agent[part].items()
    }


def assert_same(one: Path, other: Path) -> None:
    assert rows(one / "train.csv") == rows(other / "train.csv")
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("finished")
    train(tiny(), run_dir)
    return run_dir


def test_a_run_leaves_everything_it_promises(finished: Path) -> None:
    assert {"config.json", "train.csv", "eval.csv", "eval.mp4", "curve.png", "tensorboard", "checkpoint"} <= {
        path.name for path in finished.iterdir()
    }
    config = json.loads((finished / "config.json").read_text())
    assert (config["task"], config["agent"], config["frames"]) == ("toy_reach", "drqv2", 600)
    assert config["versions"]["torch"] == torch.__version__


def test_rows_count_frames_steps_updates_and_episodes(finished: Path) -> None:
    # 600 frames are 300 agent steps; updates start after 50 of them and take every second one: 125.
    # Episodes of 50 frames end in both worlds at once: 12 of them.
    table = rows(finished / "train.csv")
    assert [int(row["episode"]) for row in table] == list(range(1, 13))
    assert {row["episode_frames"] for row in table} == {"50"}
    assert (table[-1]["frame"], table[-1]["agent_step"], table[-1]["update"]) == ("600", "300", "125")
    assert [row["frame"] for row in rows(finished / "eval.csv")] == ["0", "200", "400", "600"]


def test_the_same_seed_gives_the_same_run(finished: Path, tmp_path: Path) -> None:
    train(tiny(), tmp_path)
    assert_same(finished, tmp_path)
    assert rows(finished / "eval.csv") == rows(tmp_path / "eval.csv")


def test_another_seed_gives_another_run(finished: Path, tmp_path: Path) -> None:
    train(tiny(seed=2, eval_episodes=0), tmp_path)
    assert rows(finished / "train.csv") != rows(tmp_path / "train.csv")


def test_evaluation_does_not_disturb_training(finished: Path, tmp_path: Path) -> None:
    train(tiny(eval_episodes=0), tmp_path)
    assert_same(finished, tmp_path)
    assert rows(tmp_path / "eval.csv") == []


@pytest.mark.parametrize("stop_at", [90, 326])
def test_stopped_and_resumed_equals_undisturbed(
    stop_at: int, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in mid-episode: episodes end at multiples of 100 frames here."""
    show = Progress.frame

    def stop(self: Progress, frame: int, speed: float) -> None:
        show(self, frame, speed)
        if frame >= stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "frame", stop)
        with pytest.raises(Interrupted) as stopped:
            train(tiny(), tmp_path)
    assert stopped.value.exit_status == 128 + signal.SIGTERM
    assert len(rows(tmp_path / "train.csv")) < 12
    train(tiny(), tmp_path, resume=True)
    assert_same(finished, tmp_path)
    assert rows(finished / "eval.csv") == rows(tmp_path / "eval.csv")


def test_without_its_replay_a_resumed_run_refills_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(keep_replay=False, eval_episodes=0)
    train(dataclasses.replace(config, loop=dataclasses.replace(config.loop, frames=300)), tmp_path)
    train(config, tmp_path, resume=True)
    assert "refilling" in capsys.readouterr().err
    # 300 frames: 150 agent steps, 100 of them after the seed frames; then 50 to refill and 100 to learn from.
    assert rows(tmp_path / "train.csv")[-1]["update"] == "100"


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pixelcontrol.agents.drqv2 import DrQV2

    learn = DrQV2.update

    def break_down(self: DrQV2, batch: Any, agent_step: torch.Tensor) -> dict[str, torch.Tensor]:
        metrics = learn(self, batch, agent_step)
        return metrics | {"critic_loss": metrics["critic_loss"] * (torch.nan if agent_step >= 220 else 1.0)}

    monkeypatch.setattr(DrQV2, "update", break_down)
    with pytest.raises(NotFinite, match="critic_loss nan"):
        train(tiny(eval_episodes=0), tmp_path)
    assert (tmp_path / "not_finite.pt").exists()
    assert Checkpoints(tmp_path).load()["counters"]["agent_step"] == 200


@pytest.mark.parametrize("worlds", [1, 2, 3, 16])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_any_number_of_worlds_makes_the_same_updates(worlds: int, every: int) -> None:
    """One world's loop, written out: after `learn_from` agent steps, before every `every`-th one."""
    learn_from, total = 20, 480
    expected = [step for step in range(total) if step >= learn_from and step % every == 0]
    run = object.__new__(Run)
    run.config = tiny(update_every_agent_steps=every)
    run.counters = Counters(learn_from=learn_from)
    made = 0
    while run.counters.agent_step < total:
        made += run._updates_due(worlds)
        run.counters.agent_step += worlds
    assert made == len(expected)


def test_it_learns_the_toy_task(tmp_path: Path) -> None:
    config = resolve(
        "toy_reach", frames=6_000, envs=4, workers=1, image_size=32, batch_size=64, hidden_dim=128,
        conv_filters=16, shift_pad=2, learning_rate=1e-3, seed_frames=800, exploration_steps=400,
        stddev_duration=2_000, update_every_agent_steps=1, eval_every_frames=6_000, device="cpu",
    )[0]  # fmt: skip
    train(config, tmp_path)
    before, after = (float(row["episode_return"]) for row in rows(tmp_path / "eval.csv"))
    assert before < 28  # standing still returns about 24
    assert after > 34


def test_hardware_is_chosen_and_refused_by_name() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="--device is cuda, but torch sees no GPU"):
            loop.choose_hardware(tiny(device="cuda"))
    with pytest.raises(ValueError, match="tf32"):
        loop.choose_hardware(tiny(precision="tf32"))


def test_a_dead_seed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cited = Published(
        "drqv2", "toy_reach", 200, mean=400.0, std=1.0, seeds=10, frames_per_second=None, source="a test"
    )
    monkeypatch.setattr(loop, "published_at", lambda agent, task, frame: cited if frame >= 200 else None)
    train(tiny(frames=200), tmp_path)
    said = capsys.readouterr().err
    assert said.count("this seed looks dead: DrQ-v2 is published with 400 at frame 200") == 1
