"""A run as a whole, on the toy task: what it leaves, what it repeats exactly, and that it learns."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from dreaming import TINY_DREAMER
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import (
    TINY,
    assert_same,
    assert_same_dreams,
    dreaming,
    rows,
    sensing,
    tiny,
    train_and_stop,
    weights,
)

import pixelcontrol
from pixelcontrol.agents.drqv2 import DrQV2
from pixelcontrol.build import choose_hardware, learned
from pixelcontrol.checkpoint import CheckpointError, Checkpoints
from pixelcontrol.cli import main
from pixelcontrol.config import read_config, resolve
from pixelcontrol.experiments.runs import read_runs
from pixelcontrol.loop import TrainingRun
from pixelcontrol.settings import flag, spell
from pixelcontrol.train import OutOfMemory, holds_run, train


def test_a_run_leaves_everything_it_promises(finished: Path) -> None:
    assert {
        "config.json",
        "train.csv",
        "eval.csv",
        "eval.mp4",
        "curve.png",
        "tensorboard",
        "checkpoint",
        "best",
    } <= {path.name for path in finished.iterdir()}
    config = json.loads((finished / "config.json").read_text())
    assert (config["task"], config["agent"], config["settings"]["frames"]) == ("toy_reach", "drqv2", 600)
    assert config["versions"]["torch"] == torch.__version__


def test_rows_count_frames_steps_updates_and_episodes(finished: Path) -> None:
    # 600 frames are 300 agent steps; updates start after 50 of them, 5 at once, then every second one: 5 + 125.
    # Episodes of 50 frames end in both worlds at once: 12 of them.
    table = rows(finished / "train.csv")
    assert [int(row["episode"]) for row in table] == list(range(1, 13))
    assert {row["episode_frames"] for row in table} == {"50"}
    assert (table[-1]["frame"], table[-1]["agent_step"], table[-1]["update"]) == ("600", "300", "130")
    assert [row["frame"] for row in rows(finished / "eval.csv")] == ["0", "200", "400", "600"]


def test_the_same_seed_gives_the_same_run(finished: Path, tmp_path: Path) -> None:
    train(tiny(), tmp_path)
    assert_same(finished, tmp_path)
    assert rows(finished / "eval.csv") == rows(tmp_path / "eval.csv")


def test_another_seed_gives_another_run(finished: Path, tmp_path: Path) -> None:
    train(tiny(seed=2, eval_episodes=0), tmp_path)
    assert rows(finished / "train.csv") != rows(tmp_path / "train.csv")


@pytest.mark.parametrize("rounds", [23, 28, 90])
def test_stopped_and_resumed_equals_undisturbed(
    rounds: int, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mid-episode, and between the updates that catch up: 25 rounds of 4 frames come before those five."""
    train_and_stop(tiny(), tmp_path, rounds, monkeypatch)
    assert len(rows(tmp_path / "train.csv")) < 12
    train(tiny(), tmp_path, resume=True)
    assert_same(finished, tmp_path)
    assert rows(finished / "eval.csv") == rows(tmp_path / "eval.csv")


def test_two_cameras_and_depth_are_learned_from_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {"task": "cheetah_run", "camera": ("0", "back"), "depth": 8.0, "proprio": ("position",)}
    config = tiny(**seen, frames=200, eval_episodes=0)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(config, whole)
    train_and_stop(config, halves, 40, monkeypatch)
    train(config, halves, resume=True)
    assert_same(whole, halves)
    said = pixelcontrol.load(halves).description()
    assert "distance (255 at 8 m) of camera 0, then of camera back; proprio is position (8)" in said


@pytest.mark.parametrize("rounds", [28, 60])
def test_an_agent_that_remembers_resumes_exactly_too(
    rounds: int, dreamt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the updates that catch up, which follow 25 rounds, and in mid-episode."""
    train_and_stop(dreaming(), tmp_path, rounds, monkeypatch)
    train(dreaming(), tmp_path, resume=True)
    assert_same_dreams(dreamt, tmp_path)
    assert rows(dreamt / "eval.csv") == rows(tmp_path / "eval.csv")


@pytest.mark.parametrize("agent", ["drqv2", "privileged"])
def test_an_agent_with_numbers_beside_its_images_resumes_exactly_too(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mid-episode: 5 rounds catch up, and an episode's 20 agent steps and its reset take 21 each."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    config = sensing(agent, "make_disclosing_world")
    train(config, whole)
    train_and_stop(config, stopped, 5 + 4 * 21 + 3, monkeypatch)
    train(config, stopped, resume=True)
    assert_same(whole, stopped)
    assert rows(whole / "eval.csv") == rows(stopped / "eval.csv")


def test_a_users_own_agent_is_trained_resumed_evaluated_and_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = " ".join(f"{flag(name)} {spell(value)}" for name, value in (TINY | {"frames": 200}).items())
    command = f"train toy_reach --agent restless:KIND {settings} --out {tmp_path}"
    assert main(command.split()) == 0, capsys.readouterr().err
    assert rows(tmp_path / "train.csv")[-1]["std"] == "0.2"
    assert main(["train", "--resume", str(tmp_path), "--frames", "300"]) == 0
    assert main(["eval", str(tmp_path), "--episodes", "1"]) == 0
    assert type(pixelcontrol.load(tmp_path).agent).__name__ == "Restless"
    (run,) = read_runs([tmp_path])
    assert run.agent.startswith("restless:KIND image_size=24 ")
    assert json.loads((tmp_path / "config.json").read_text())["changed"]["image_size"] == [24]


def test_what_a_users_own_agent_does_now_and_then_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resets.RESET_EVERY", 100)
    config = tiny(agent="resets:KIND")
    train(config, tmp_path / "whole")
    train_and_stop(config, tmp_path / "stopped", 60, monkeypatch)
    train(config, tmp_path / "stopped", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    assert (
        Checkpoints(tmp_path / "whole").load()["agent"]["resets"] == 2
    )  # the third is due at its end, frame 600


def test_networks_of_a_users_own_come_from_the_seed_and_resume_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(agent="foresight:KIND")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(config, whole)
    train_and_stop(config, stopped, 60, monkeypatch)
    train(config, stopped, resume=True)
    assert_same(whole, stopped)
    state = Checkpoints(whole).load()["agent"]
    assert {"foresight", "goal", "foresight_optimiser", "encoder", "actor_optimiser"} < state.keys()
    assert "foresight_optimiser" not in learned(state)


def test_what_a_users_own_agent_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="odd_agents:MUTE has no generator, no update_cycle, no memory, no act"
    ):
        train(tiny(agent="odd_agents:MUTE"), tmp_path)


def test_an_agent_of_images_alone_refuses_proprioception(tmp_path: Path) -> None:
    words = (
        r"sensing:make_world gives proprioception \(4 numbers\), and dreamerv2 learns from images alone; use "
        r"--agent drqv2, drq, curl, sac or privileged"
    )
    config = resolve("sensing:make_world", "dreamerv2", **TINY_DREAMER, action_repeat=1, eval_episodes=0)
    with pytest.raises(ValueError, match=words):
        train(config, tmp_path)


def test_nothing_is_disclosed_where_a_policy_is_judged(tmp_path: Path) -> None:
    config = sensing("privileged", "make_disclosing_world")
    run = TrainingRun(config, tmp_path, choose_hardware(config), resume=False)
    try:
        assert run.eval_env is not None
        assert (run.env.spec.privileged_dim, run.eval_env.spec.privileged_dim) == (5, 0)
    finally:
        run.close()


def test_a_privileged_agent_refuses_worlds_that_disclose_nothing(tmp_path: Path) -> None:
    words = (
        "privileged learns with what the simulator knows, and sensing:make_world discloses nothing; the suite's "
        "tasks do, and own worlds that were made with privileged=True"
    )
    with pytest.raises(ValueError, match=words):
        train(sensing("privileged"), tmp_path)


def test_a_broken_sensor_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = "--image-size 16 --action-repeat 1 --device cpu --envs 2 --eval-episodes 0"
    command = ["train", "sensing:make_broken_world", "--out", str(tmp_path / "run"), *settings.split()]
    assert main(command) == 1
    assert "proprio of world 0 (episode 0 with seed " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"sequence_length": 27},
            "--sequence-length is 27 images, but an episode of toy_reach has 26",
        ),
        ({"seed_frames": 14}, "of each of 2 worlds; raise it to 16"),
    ],
)
def test_sequences_that_can_never_be_whole_are_refused_at_once(
    overrides: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        train(dreaming(**overrides), tmp_path)


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "bf16"),  # in fp32 a CPU always is
        *(pytest.param("cuda", precision, marks=pytest.mark.gpu) for precision in ("fp32", "bf16")),
    ],
)
def test_a_deterministic_run_resumes_bit_for_bit(device: str, precision: str, tmp_path: Path) -> None:
    config = tiny(device=device, precision=precision, deterministic=True, save_every_frames=224)
    train(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for path in (tmp_path / "resumed" / "checkpoint").glob("00000003*"):
        path.unlink()  # the checkpoint of the end; the one before is of frame 448, in mid-episode
    assert Checkpoints(tmp_path / "resumed").load()["counters"]["agent_step"] == 224
    train(config, tmp_path / "resumed", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "resumed")
    assert rows(tmp_path / "whole" / "eval.csv") == rows(tmp_path / "resumed" / "eval.csv")
    train(tiny(frames=100, eval_episodes=0), tmp_path / "another")
    assert not torch.are_deterministic_algorithms_enabled()


def test_tensorboard_keeps_what_was_noted_at_the_last_frame(tmp_path: Path) -> None:
    train(tiny(frames=400), tmp_path)
    train(tiny(), tmp_path, resume=True)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [at.step for at in board.Scalars("eval/episode_return")] == [0, 200, 400, 600]
    assert [at.step for at in board.Scalars("train/episode")] == [
        int(row["frame"]) for row in rows(tmp_path / "train.csv")
    ]


def test_a_first_start_that_came_to_nothing_leaves_the_directory_free(tmp_path: Path) -> None:
    assert not holds_run(tmp_path)
    train(tiny(frames=200), tmp_path)
    table = (tmp_path / "train.csv").read_bytes()
    with pytest.raises(
        ValueError, match=r"already holds a run; continue it with --resume .*, or choose another"
    ):
        train(tiny(frames=200), tmp_path)
    assert (tmp_path / "train.csv").read_bytes() == table
    shutil.rmtree(tmp_path / "checkpoint")
    assert holds_run(tmp_path)  # there are evaluations
    for table in ("train.csv", "eval.csv"):
        header = (tmp_path / table).read_text().partition("\n")[0]
        (tmp_path / table).write_text(header + "\n")
    assert not holds_run(tmp_path)


def test_a_run_may_go_on_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny(frames=200, eval_episodes=0), tmp_path)
    elsewhere = ["--precision", "bf16", "--workers", "2", "--device", "cpu", "--cuda-graph", "no"]
    status = main(["train", "--resume", str(tmp_path), "--frames", "400", *elsewhere])
    said = capsys.readouterr().err
    assert status == 0, said
    assert rows(tmp_path / "train.csv")[-1]["frame"] == "400"
    threads = f"(threads: {torch.get_num_threads()})"
    assert f"so far this run was on cpu in fp32 {threads}; on cpu in bf16 {threads} it goes on" in said
    # a resume need not be told again
    assert main(["train", "--resume", str(tmp_path), "--frames", "600"]) == 0
    loop = read_config(tmp_path).loop
    assert (loop.frames, loop.precision, loop.workers, loop.device, loop.cuda_graph) == (
        600,
        "bf16",
        2,
        "cpu",
        False,
    )
    assert rows(tmp_path / "train.csv")[-1]["frame"] == "600"
    # and keeps what "auto" came to here, as at its start
    assert main(["train", "--resume", str(tmp_path), "--precision", "auto"]) == 0
    assert read_config(tmp_path).loop.precision in ("fp32", "bf16")


def test_a_run_keeps_its_number_of_threads_unless_another_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sums depend on it. The environment variable is how sweeps, and people, ask."""
    ours = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    try:
        torch.set_num_threads(2)
        train(tiny(frames=200, eval_episodes=0), tmp_path)
        torch.set_num_threads(1)
        train(tiny(frames=300, eval_episodes=0), tmp_path, resume=True)
        assert torch.get_num_threads() == 2
        assert "bit for bit" not in capsys.readouterr().err
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        train(tiny(frames=400, eval_episodes=0), tmp_path, resume=True)
        assert torch.get_num_threads() == 1
        assert "was on cpu in fp32 (threads: 2); on cpu in fp32 (threads: 1) it" in capsys.readouterr().err
    finally:
        torch.set_num_threads(ours)


def test_a_lengthened_run_equals_one_that_was_so_long_from_the_start(finished: Path, tmp_path: Path) -> None:
    train(tiny(frames=400), tmp_path)
    train(tiny(), tmp_path, resume=True)
    assert read_config(tmp_path).loop.frames == 600
    assert_same(finished, tmp_path)
    assert rows(finished / "eval.csv") == rows(tmp_path / "eval.csv")


def test_a_run_of_the_shortest_episodes_can_be_lengthened_too(tmp_path: Path) -> None:
    """Each agent step takes two rows."""
    long, lengthened = tmp_path / "long", tmp_path / "lengthened"
    train(sensing(world="make_brief_world", frames=400), long)
    train(sensing(world="make_brief_world", frames=200), lengthened)
    train(sensing(world="make_brief_world", frames=400), lengthened, resume=True)
    assert_same(long, lengthened)


def test_a_run_resumes_though_more_workers_were_asked_for_than_there_are_worlds(tmp_path: Path) -> None:
    train(tiny(frames=200, envs=0, workers=3), tmp_path)
    assert main(["train", "--resume", str(tmp_path), "--frames", "300"]) == 0
    assert rows(tmp_path / "train.csv")[-1]["frame"] == "300"


def test_the_best_policy_so_far_is_kept(finished: Path) -> None:
    """The rows of `eval.csv` have that return; the policy is a run of its own, though without replay."""
    best = max(rows(finished / "eval.csv"), key=lambda row: float(row["episode_return"]))
    policy = pixelcontrol.load(finished / "best")
    assert policy.frame == int(best["frame"])
    assert policy.config == pixelcontrol.load(finished).config
    # the evaluation's own episodes lie behind those of the evaluations before it
    later = policy.evaluate(2 * len(rows(finished / "eval.csv"))).returns
    assert later.min() <= float(best["episode_return"]) <= later.max()


def test_what_a_run_left_as_best_that_never_saved_is_not_another_runs(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "best", tmp_path / "best")
    train(tiny(frames=200, seed=2), tmp_path)
    best = Checkpoints(tmp_path / "best").load()["episode_return"]
    assert best == pytest.approx(
        max(float(row["episode_return"]) for row in rows(tmp_path / "eval.csv")), rel=1e-5
    )
    assert pixelcontrol.load(tmp_path / "best").config.seed == 2


def test_a_best_policy_is_no_run_that_could_go_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished / "best", tmp_path / "best")
    before = sorted((tmp_path / "best").rglob("*"))
    assert main(["train", "--resume", str(tmp_path / "best")]) == 1
    assert "holds a policy and no run; resume the run that it is of, or begin one" in capsys.readouterr().err
    assert [path for path in sorted((tmp_path / "best").rglob("*")) if path.name != "lock"] == before


def test_a_resumed_run_remembers_its_best_policy(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train(tiny(frames=400), run_dir)
    best = Checkpoints(run_dir / "best")
    unbeatable = best.load() | {"episode_return": 1e9}
    best.save(unbeatable, None)
    train(tiny(), run_dir, resume=True)
    assert Checkpoints(run_dir / "best").load()["episode_return"] == 1e9


def test_a_run_may_begin_with_the_networks_of_another(finished: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(finished, source)
    config = tiny(start_from=str(source), seed=2, exploration_steps=0)
    train(config.with_loop(frames=100), tmp_path / "run")
    # 100 frames are seed frames: nothing was learned yet
    before, now = weights(source), weights(tmp_path / "run")
    assert all(torch.equal(before[name], now[name]) for name in before)
    state = Checkpoints(tmp_path / "run").load()
    assert state["agent"]["critic_optimiser"]["state"] == {}
    assert state["counters"]["agent_step"] == 50
    shutil.rmtree(source)
    train(config, tmp_path / "run", resume=True)
    assert not torch.equal(weights(tmp_path / "run")["actor.policy.0.bias"], now["actor.policy.0.bias"])


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"hidden_dim": 7}, r"have other settings, some of which matter: --hidden-dim 16, here 7$"),
        ({"agent": "sac"}, r"are of drqv2, and this run's of sac$"),
        (
            {"image_size": (32,)},
            r"image_shape \(3, 24, 24\), and here it is \(3, 32, 32\); .* --image-size",
        ),
    ],
)
def test_networks_of_another_kind_are_refused(
    other: dict[str, Any], named: str, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=named):
        train(tiny(start_from=str(finished), **other), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_agent_that_is_built_otherwise_since_is_told_of(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    build = DrQV2.__init__

    def with_norm(self: DrQV2, *shapes: Any, **how: Any) -> None:
        build(self, *shapes, **how)
        self.norm = torch.nn.LayerNorm(1)  # type: ignore[attr-defined]

    monkeypatch.setattr(DrQV2, "__init__", with_norm)
    with pytest.raises(
        CheckpointError, match=r"no state of DrQV2 as it is here: KeyError: 'norm'; resume with"
    ):
        train(tiny(frames=2_000), tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match=r"--start-from is .*KeyError: 'norm'"):
        train(tiny(start_from=str(finished)), tmp_path / "other")


def test_memory_that_runs_out_while_an_agent_is_restored_is_not_blamed_on_the_agent(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(self: DrQV2, state: Any) -> None:
        raise torch.OutOfMemoryError("no more of it")

    shutil.copytree(finished, tmp_path / "run")
    monkeypatch.setattr(DrQV2, "load_state_dict", run_out)
    with pytest.raises(OutOfMemory, match="memory ran out"):
        train(tiny(frames=2_000), tmp_path / "run", resume=True)


def test_images_need_not_be_square(tmp_path: Path) -> None:
    train(tiny(frames=200, image_size=(24, 32)), tmp_path)
    policy = pixelcontrol.load(tmp_path)
    assert policy.image_shape == (3, 24, 32)
    # strides 2, 1, 1, 1 of 3x3 without padding
    assert weights(tmp_path)["actor.trunk.0.weight"].shape[1] == 4 * 5 * 9
    train(tiny(frames=300, image_size=(24, 32)), tmp_path, resume=True)
    assert rows(tmp_path / "train.csv")[-1]["frame"] == "300"


def test_a_run_that_is_never_evaluated_has_a_curve_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny(frames=100, eval_episodes=0), tmp_path)
    assert "warning: nothing will be learned" in capsys.readouterr().err
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert not (tmp_path / "eval.mp4").exists()


def test_on_another_machine_a_run_keeps_what_auto_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(envs=0, precision="auto", replay_capacity=100, eval_episodes=0)
    gpu_like = dataclasses.replace(choose_hardware(config), envs=3, precision="fp32")
    with monkeypatch.context() as patch:
        patch.setattr("pixelcontrol.train.choose_hardware", lambda config: gpu_like)
        train(config.with_loop(frames=300), tmp_path)
    resumed = read_config(tmp_path)
    assert (resumed.loop.envs, resumed.loop.precision) == (3, "fp32")

    load = Checkpoints.load
    monkeypatch.setattr(Checkpoints, "load", lambda *given: load(*given) | {"device": "cuda"})
    train(
        resumed.with_loop(frames=600),
        tmp_path,
        resume=True,
    )
    assert "so far this run was on cuda" in capsys.readouterr().err
    assert rows(tmp_path / "train.csv")[-1]["frame"] == "600"


def test_where_memory_runs_out_one_line_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = DrQV2.update

    def fail_late(self: DrQV2, batch: Any, agent_step: torch.Tensor) -> dict[str, torch.Tensor]:
        if agent_step >= 120:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nSee documentation")
        return learn(self, batch, agent_step)

    monkeypatch.setattr(DrQV2, "update", fail_late)
    with pytest.raises(
        OutOfMemory, match=r"^memory ran out \(.+\); .* --batch-size, --replay-capacity"
    ) as told:
        train(tiny(eval_episodes=0), tmp_path)
    assert "\n" not in str(told.value)
    assert Checkpoints(tmp_path).load()["counters"]["agent_step"] == 100


def test_other_errors_are_not_taken_for_memory_that_ran_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(TrainingRun, "_learn", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(tiny(eval_episodes=0), tmp_path)


@pytest.mark.parametrize(
    ("agent", "own"),
    [
        ("drqv2", {"shift_pad": 2, "stddev_duration": 1_000}),
        ("sac", {}),
        ("drq", {"shift_pad": 2}),
        ("curl", {"image_size": (28,), "crop_size": 24}),
        ("privileged", {"shift_pad": 2, "stddev_duration": 1_000}),
    ],
)
def test_it_learns_the_toy_task(agent: str, own: dict[str, Any], tmp_path: Path) -> None:
    small = {
        "frames": 4_800, "envs": 4, "workers": 1, "image_size": (24,), "batch_size": 32, "hidden_dim": 64,
        "conv_filters": 8, "conv_strides": (2, 1), "feature_dim": 32, "learning_rate": 1e-3, "seed_frames": 800,
        "exploration_steps": 400, "update_every_agent_steps": 1, "eval_every_frames": 4_800, "eval_episodes": 20,
        "discount": 0.9, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    train(resolve("toy_reach", agent, **(small | own)), tmp_path)
    before, after = (float(row["episode_return"]) for row in rows(tmp_path / "eval.csv"))
    assert before < 34  # standing still returns 29 on average, straight to the target 48
    assert after > 35


@pytest.mark.parametrize(
    ("agent", "world", "own"),
    [
        ("drqv2", "make_world", {"stddev_initial": 0.2, "stddev_final": 0.2}),
        ("drqv2", "make_numb_world", {"stddev_initial": 0.2, "stddev_final": 0.2}),
        ("sac", "make_world", {}),  # DrQ and CURL see by the same functions
    ],
)
def test_it_learns_what_can_only_be_sensed(
    agent: str, world: str, own: dict[str, Any], tmp_path: Path
) -> None:
    small = {
        "frames": 1_200, "envs": 4, "batch_size": 64, "hidden_dim": 32, "conv_strides": (2, 1), "feature_dim": 8,
        "learning_rate": 1e-3, "seed_frames": 400, "catch_up_updates": 0, "exploration_steps": 400,
        "update_every_agent_steps": 1, "eval_every_frames": 1_200, "eval_episodes": 20, "discount": 0.0,
        "n_step": 1,
    }  # fmt: skip
    train(sensing(agent, world, **(small | own)), tmp_path)
    before, after = (float(row["episode_return"]) for row in rows(tmp_path / "eval.csv"))
    assert before < 12  # who does not sense gets 10 at best, and all there is to get is 20
    assert (after > 16) == (world == "make_world")
    assert (after < 12) == (world == "make_numb_world")


def test_hardware_is_chosen_and_refused_by_name() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="--device is cuda, but torch sees no GPU"):
            choose_hardware(tiny(device="cuda"))
    with pytest.raises(ValueError, match="tf32"):
        choose_hardware(tiny(precision="tf32"))


def test_a_real_robot_is_not_evaluated_beside_its_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluations would open another: use --eval-episodes 0"):
        train(tiny(task="sensing:make_real_world", envs=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_world_that_cannot_make_a_step_leaves_the_directory_free(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"world 0 .* is not as it must be: `step` returned 4 values, but must"
    ):
        train(tiny(task="sensing:make_old_world"), tmp_path)
    assert not holds_run(tmp_path)
    train(tiny(frames=100, eval_episodes=0), tmp_path)
