"""The three-line use from Python."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from dreaming import TINY_DREAMER

import pixelcontrol
from pixelcontrol import policy as policies
from pixelcontrol.build import EVAL_STREAM, Shapes, build_agent, build_env, choose_hardware
from pixelcontrol.checkpoint import CheckpointNotSaved, Checkpoints
from pixelcontrol.cli import main
from pixelcontrol.config import AGENTS, read_config, resolve
from pixelcontrol.demonstrations import record
from pixelcontrol.train import train, write_config


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("load")
    config = resolve(
        "toy_reach", frames=200, envs=1, image_size=(24,), batch_size=4, hidden_dim=8, conv_filters=4,
        seed_frames=100, exploration_steps=20, eval_every_frames=200, eval_episodes=3, device="cpu",
    )  # fmt: skip
    train(config, path)
    return path


@pytest.fixture(scope="module")
def dreamer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dreamer")
    small = {"frames": 200, "envs": 1, "seed_frames": 100, "exploration_steps": 20, "eval_episodes": 0}
    config = resolve("toy_reach", "dreamerv2", device="cpu", **(TINY_DREAMER | small))
    train(config, path)
    return path


@pytest.fixture(scope="module")
def sensing_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sensing") / "run"
    settings = (
        "--frames 60 --envs 1 --image-size 16 --action-repeat 1 --batch-size 4 --hidden-dim 8 --conv-filters 4 "
        "--seed-frames 20 --exploration-steps 20 --eval-episodes 0 --device cpu"
    )
    assert main(["train", "sensing:make_world", "--out", str(path), *settings.split()]) == 0
    return path


def test_loading_a_policy_leaves_the_callers_random_numbers_as_they_were(run_dir: Path) -> None:
    before = torch.get_rng_state()
    pixelcontrol.load(run_dir)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_episode_with_proprioception_is_that_of_its_stacks(sensing_dir: Path) -> None:
    policy = pixelcontrol.load(sensing_dir)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
    sensed = draw.normal(size=(5, 4))  # float64, as robots give it
    act = policy.episode()
    for now, image in enumerate(images):
        stack = np.concatenate([images[max(0, now - back)] for back in (2, 1, 0)])
        action = act(image, sensed[now])
        assert np.array_equal(action, policy(stack, sensed[now]))
        assert not np.array_equal(action, policy(stack, -sensed[now]))
    assert np.allclose(policy(np.stack([stack, stack]), sensed[-2:])[1], action, atol=1e-5)


def test_what_has_another_shape_than_what_was_learned_from_is_refused(
    run_dir: Path, sensing_dir: Path
) -> None:
    policy, image, sensed = pixelcontrol.load(sensing_dir), np.zeros((3, 16, 16), np.uint8), np.zeros(4)
    act = policy.episode()
    with pytest.raises(ValueError, match=r"shape \(4,\), and was given \(0,\); .* act\(image, proprio\)"):
        act(image)
    with pytest.raises(ValueError, match=r"proprioception of shape \(4,\), and was given \(3,\)"):
        policy(np.zeros((9, 16, 16), np.uint8), sensed[:3])
    with pytest.raises(ValueError, match=r"and was given \(16, 16, 3\); .* image.transpose\(2, 0, 1\)"):
        act(image.transpose(1, 2, 0), sensed)
    with pytest.raises(ValueError, match=r"images of shape \(9, 16, 16\), and was given \(3, 16, 16\)"):
        policy(image, sensed)
    with pytest.raises(ValueError, match=r"proprioception of shape \(0,\), and was given \(4,\)"):
        pixelcontrol.load(run_dir).episode()(np.zeros((3, 24, 24), np.uint8), sensed)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["eval"], "'proprio_dim': 4, 'privileged_dim': 0}, and sensing:make_bare_world now has {"),
        (
            ["train", "--frames", "80", "--resume"],
            "it was saved with proprio_dim 4, and here it is 0; resume with the code",
        ),
    ],
    ids=["eval", "resume"],
)
def test_worlds_that_changed_since_training_are_refused(
    command: list[str], words: str, sensing_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "run"
    shutil.copytree(sensing_dir, changed)
    move_to("make_bare_world", changed)
    assert main([*command, str(changed)]) != 0
    assert words in capsys.readouterr().err


def move_to(world: str, run_dir: Path) -> None:
    config = run_dir / "config.json"
    config.write_text(config.read_text().replace("sensing:make_world", f"sensing:{world}"))


def test_another_meaning_of_the_same_numbers_is_told(
    sensing_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(sensing_dir, tmp_path / "run")
    move_to("make_strong_world", tmp_path / "run")
    with pytest.warns(UserWarning, match=r"trained in, where .* from -1 to 1; now .* from -2 to 2"):
        assert main(["eval", str(tmp_path / "run")]) == 0
    assert main(["train", "--frames", "80", "--resume", str(tmp_path / "run")]) == 1
    assert re.search(
        r"with world .* from -1 to 1, and here .* from -2 to 2; resume with", capsys.readouterr().err
    )
    config = read_config(sensing_dir)
    loop = replace(config.loop, start_from=str(sensing_dir), frames=20)
    train(replace(config, task="sensing:make_strong_world", loop=loop), tmp_path / "new")
    assert re.search(r"note: where those networks come from, .* from -1 to 1\n", capsys.readouterr().err)


def test_demonstrations_of_another_world_are_told_of(sensing_dir: Path, tmp_path: Path) -> None:
    config = read_config(sensing_dir)
    record(config, lambda: lambda image, proprio: proprio[2:3], tmp_path / "demos", 1)
    (file,) = (tmp_path / "demos").iterdir()
    assert file.name.endswith("-success.npz")
    loop = replace(config.loop, demonstrations=str(tmp_path / "demos"), frames=20)
    with pytest.warns(
        UserWarning, match=r"is of another world than this run's, where .* -2 to 2: .* -1 to 1"
    ):
        train(replace(config, task="sensing:make_strong_world", loop=loop), tmp_path / "new")


def test_one_with_proprioception_is_evaluated_filmed_and_exported(
    sensing_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film, exported = tmp_path / "film.gif", tmp_path / "policy.pt2"
    assert main(["eval", str(sensing_dir), "--episodes", "2"]) == 0
    assert "over 2 episodes, success in" in capsys.readouterr().out
    with (sensing_dir / "train.csv").open() as table:
        assert {row["success"] for row in csv.DictReader(table)} <= {"0", "1"}
    assert main(["play", str(sensing_dir), "--video", str(film)]) == 0
    assert film.exists()
    capsys.readouterr()
    assert main(["export", str(sensing_dir), "-o", str(exported)]) == 0
    takes = "observations: uint8 (batch, 9, 16, 16), proprio: float32 (batch, 4)"
    printed = capsys.readouterr().out
    assert printed.startswith(f"{exported} takes {takes}; observations are the last 3 images, oldest first")
    assert (
        "red, green, blue of what render() shows; proprio is arm (4), in this order; actions are in"
        in printed
    )
    notes = {"description.txt": ""}
    act, policy = torch.export.load(exported, extra_files=notes).module(), pixelcontrol.load(sensing_dir)
    assert notes["description.txt"] == printed.strip().removeprefix(f"{exported} ")
    draw = torch.Generator().manual_seed(1)
    for count in (1, 5):
        stack = torch.randint(0, 256, (count, 9, 16, 16), dtype=torch.uint8, generator=draw)
        sensed = torch.randn(count, 4, generator=draw)
        assert np.allclose(act(stack, sensed).numpy(), policy(stack.numpy(), sensed.numpy()), atol=1e-6)


def test_a_robot_is_not_told_what_follows_from_nan(sensing_dir: Path) -> None:
    act = pixelcontrol.load(sensing_dir).episode()
    image = np.zeros((3, 16, 16), dtype=np.uint8)
    with pytest.raises(ValueError, match="proprioception must be finite, and was"):
        act(image, np.array([0.0, np.nan, 0.0, 0.0]))
    assert np.isfinite(act(image, np.zeros(4))).all()


def test_of_a_users_own_world_no_more_exist_than_when_it_was_trained(
    sensing_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A robot can be connected to once."""
    build, built = policies.build_env, []

    def counted(config: Any, hardware: Any, num_worlds: int, *others: Any, **options: Any) -> Any:
        built.append(num_worlds)
        return build(config, hardware, num_worlds, *others, **options)

    monkeypatch.setattr(policies, "build_env", counted)
    policy = pixelcontrol.load(sensing_dir)
    with pytest.warns(UserWarning, match="tell no time limit"):
        assert len(policy.evaluate(4).returns) == 4
    assert built == [policy.config.loop.envs]


def test_an_episode_of_single_images_is_that_of_their_stacks(run_dir: Path) -> None:
    policy = pixelcontrol.load(run_dir)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 24, 24), dtype=np.uint8)
    act = policy.episode()
    for now, image in enumerate(images):
        stack = np.concatenate([images[max(0, now - back)] for back in (2, 1, 0)])
        assert np.array_equal(act(image), policy(stack))


def test_an_action_may_be_changed_by_who_gets_it(dreamer_dir: Path) -> None:
    policy = pixelcontrol.load(dreamer_dir)
    one, other = policy.episode(), policy.episode()
    for value in (10, 200, 90):
        image = np.full((3, 64, 64), value, np.uint8)
        action = one(image)
        assert np.array_equal(action, other(image))
        action *= -50.0


def test_an_agent_that_remembers_acts_on_what_it_saw(dreamer_dir: Path) -> None:
    policy = pixelcontrol.load(dreamer_dir)
    one, other, image = (np.full((3, 64, 64), value, np.uint8) for value in (0, 255, 128))
    episodes = [policy.episode() for _ in range(3)]
    firsts = [act(seen) for act, seen in zip(episodes, (one, one, other), strict=True)]
    seconds = [act(image) for act in episodes]
    assert np.array_equal(firsts[0], firsts[1])
    assert np.array_equal(seconds[0], seconds[1])
    assert not np.array_equal(seconds[0], seconds[2])
    with pytest.raises(ValueError, match=r"dreamerv2 remembers its episode.*policy.episode\(\)"):
        policy(image)
    assert policy.evaluate(2).returns.shape == (2,)


def test_an_own_agent_with_an_own_memory_acts_in_episodes_alone(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = pixelcontrol.load(run_dir)
    monkeypatch.setattr(policy.agent, "memory", lambda generator: object())
    with pytest.raises(ValueError, match=r"remembers its episode.*policy.episode\(\)"):
        policy(np.zeros((9, 84, 84), np.uint8))
    with pytest.raises(ValueError, match="has a memory of its own, which no exported program knows"):
        policy.export(tmp_path / "policy.pt2")
    assert not (tmp_path / "policy.pt2").exists()


def test_an_exported_dreamer_goes_on_from_its_memory(dreamer_dir: Path, tmp_path: Path) -> None:
    policy = pixelcontrol.load(dreamer_dir)
    takes = policy.export(tmp_path / "policy.pt2")
    assert takes == (
        "images: uint8 (batch, 3, 64, 64), last_actions: float32 (batch, 2), memory: float32 (batch, 20) "
        "(zeros at an episode's start, then what is returned beside the actions, as memory_after)"
    )
    assert policy.export(tmp_path / "policy.onnx") == takes
    act = torch.export.load(tmp_path / "policy.pt2").module()
    onnx = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    draw = torch.Generator().manual_seed(1)
    action, memory = torch.zeros(3, 2), torch.zeros(3, 20)
    likely = torch.zeros(3, *policy.agent.latent_shape)
    expected = memory
    for _ in range(4):
        image = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=draw)
        expected = policy.agent.remember(expected, action, image, likely)
        given = dict(zip(("images", "last_actions", "memory"), (image, action, memory), strict=True))
        other = onnx.run(None, {name: part.numpy() for name, part in given.items()})
        action, memory = act(image, action, memory)
        for one, two in zip(other, (action, memory), strict=True):
            np.testing.assert_allclose(one, two.numpy(), atol=1e-5)
        assert torch.allclose(memory, expected, atol=1e-6)
        assert torch.allclose(action, policy.agent.act_greedily(expected), atol=1e-6)


def test_three_lines_give_an_action(run_dir: Path) -> None:
    policy = pixelcontrol.load(run_dir)
    observation = np.random.default_rng(0).integers(0, 256, (9, 24, 24), dtype=np.uint8)
    action = policy(observation)
    assert (action.shape, action.dtype) == ((2,), np.float32)
    assert np.abs(action).max() <= 1
    batch = policy(np.stack([observation, observation]))
    assert np.allclose(batch, np.stack([action, action]), atol=1e-5)


WITHOUT_THE_PACKAGE = """
import sys, torch
act = torch.export.load(sys.argv[1]).module()
torch.save([act(batch) for batch in torch.load(sys.argv[2])], sys.argv[2])
assert "pixelcontrol" not in sys.modules
"""


def test_an_exported_policy_acts_alike_without_this_package(run_dir: Path, tmp_path: Path) -> None:
    exported, batches_file = tmp_path / "policy.pt2", tmp_path / "batches.pt"
    assert main(["export", str(run_dir), "-o", str(exported)]) == 0
    draw = torch.Generator().manual_seed(1)
    batches = [torch.randint(0, 256, (n, 9, 24, 24), dtype=torch.uint8, generator=draw) for n in (1, 5)]
    torch.save(batches, batches_file)
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(exported), str(batches_file)]
    subprocess.run(command, check=True)
    policy = pixelcontrol.load(run_dir)
    for batch, action in zip(batches, torch.load(batches_file), strict=True):
        assert np.allclose(action.numpy(), policy(batch.numpy()), atol=1e-6)
    assert "the planes of an image are the 3 that toy_reach gave in training; actions" in policy.description()


def test_an_exported_policy_acts_alike_in_onnx_runtime(run_dir: Path, tmp_path: Path) -> None:
    exported = tmp_path / "policy.onnx"
    assert main(["export", str(run_dir), "-o", str(exported)]) == 0
    policy, session = pixelcontrol.load(run_dir), onnxruntime.InferenceSession(exported)
    for count in (1, 5):
        batch = np.random.default_rng(count).integers(0, 256, (count, 9, 24, 24), dtype=np.uint8)
        (action,) = session.run(["actions"], {"observations": batch})
        np.testing.assert_allclose(action, policy(batch), atol=1e-5)
    notes = session.get_modelmeta().custom_metadata_map
    assert notes["description"] == f"takes observations: uint8 (batch, 9, 24, 24); {policy.description()}"


def test_an_onnx_file_needs_onnx(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"needs ONNX: pip install .*\[onnx\]"):
        pixelcontrol.load(run_dir).export(tmp_path / "policy.onnx")
    assert not (tmp_path / "policy.onnx").exists()


def test_a_policy_of_a_privileged_agent_acts_on_images_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = resolve(
        "toy_reach", "privileged", frames=200, envs=1, image_size=(24,), batch_size=4, hidden_dim=8,
        conv_filters=4, seed_frames=100, exploration_steps=20, eval_episodes=0, device="cpu",
    )  # fmt: skip
    run, exported = tmp_path / "run", tmp_path / "policy.pt2"
    train(config, run)
    assert main(["eval", str(run), "--episodes", "2"]) == 0
    capsys.readouterr()
    assert main(["export", str(run), "-o", str(exported)]) == 0
    assert " takes observations: uint8 (batch, 9, 24, 24); obs" in capsys.readouterr().out
    policy, act = pixelcontrol.load(run), torch.export.load(exported).module()
    image = np.random.default_rng(0).integers(0, 256, (3, 24, 24), dtype=np.uint8)
    action = policy.episode()(image)
    stack = torch.from_numpy(np.tile(image, (1, 3, 1, 1)))
    np.testing.assert_allclose(act(torch.cat([stack, stack]))[0].numpy(), action, atol=1e-5)
    assert (action != policy.episode()(255 - image)).all()


def test_a_policy_learned_on_a_gpu_acts_here(run_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run_dir, tmp_path / "from a GPU")
    stored = json.loads((copy / "config.json").read_text())
    stored["settings"] |= {"device": "cuda", "precision": "tf32"}
    (copy / "config.json").write_text(json.dumps(stored))
    assert pixelcontrol.load(copy).evaluate(1).returns.shape == (1,)


def test_acting_leaves_no_trace(run_dir: Path) -> None:
    policy = pixelcontrol.load(run_dir)
    before = policy.agent.generator.get_state()
    policy(np.zeros((9, 24, 24), dtype=np.uint8))
    assert torch.equal(before, policy.agent.generator.get_state())


def test_evaluation_is_repeatable_and_as_in_training(run_dir: Path) -> None:
    policy = pixelcontrol.load(run_dir)
    one, other = policy.evaluate(4, seed=5), policy.evaluate(4, seed=5)
    assert np.array_equal(one.returns, other.returns)
    assert not np.array_equal(one.returns, policy.evaluate(4, seed=6).returns)
    assert one.video.shape == (26, 24, 24, 3)  # 50 frames are 25 agent steps, and the first image


def test_a_loaded_policy_has_the_weights_that_were_saved(run_dir: Path) -> None:
    kept, loaded = Checkpoints(run_dir).load()["agent"], pixelcontrol.load(run_dir).agent.state_dict()
    torch.testing.assert_close(loaded, kept, rtol=0, atol=0)


def test_an_evaluation_is_one_episode_after_another(dreamer_dir: Path) -> None:
    """An agent that remembers must be told its own last actions, too."""
    policy = pixelcontrol.load(dreamer_dir)
    env = build_env(policy.config, choose_hardware(policy.config), 1, EVAL_STREAM)
    try:
        act, step, total = policy.episode(), env.reset(), 0.0
        while not step.last.any():
            env.send(act(step.image[0].numpy())[None])
            step = env.receive()
            total += float(step.reward[0])
    finally:
        env.close()
    assert policy.evaluate(1).returns.tolist() == pytest.approx([total], abs=1e-4)


def test_an_evaluation_is_drawn_as_asked(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    build = policies.build_env

    def build_and_note(*arguments: Any, renderer: str | None) -> Any:
        asked.append(renderer)
        return build(*arguments, renderer=renderer)

    monkeypatch.setattr(policies, "build_env", build_and_note)
    pixelcontrol.load(run_dir).evaluate(1, renderer="opengl")
    pixelcontrol.load(run_dir).evaluate(1)
    assert asked == ["opengl", None]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((24, 24, 3), np.uint8), r"images of shape \(3, 24, 24\), and was given \(24, 24, 3\)"),
        (np.zeros((3, 48, 48), np.uint8), r"images of shape \(3, 24, 24\), and was given \(3, 48, 48\)"),
    ],
)
def test_images_of_another_kind_are_refused(image: np.ndarray, words: str, run_dir: Path) -> None:
    with pytest.raises(ValueError, match=words):
        pixelcontrol.load(run_dir).episode()(image)


def test_tensors_are_taken_and_scaled_images_refused(run_dir: Path) -> None:
    # in a process of its own: under the tests' type checks they would not get as far
    code = """
import sys, numpy, torch, pixelcontrol
policy, image = pixelcontrol.load(sys.argv[1]), numpy.zeros((3, 24, 24), numpy.uint8)
assert (policy.episode()(torch.from_numpy(image), []) == policy.episode()(image)).all()
policy.episode()(image.astype(numpy.float32))
"""
    ended = subprocess.run([sys.executable, "-c", code, run_dir], capture_output=True, text=True, check=False)
    assert "ValueError: images must be uint8, with values from 0 to 255, and not float32" in ended.stderr


SMALL = {"image_size": (24,), "batch_size": 4, "hidden_dim": 8, "conv_filters": 4}
SMALL_BY_AGENT = {"dreamerv2": TINY_DREAMER | {"image_size": (64,)}, "curl": SMALL | {"crop_size": 20}}


def untrained_run(name: str, run_dir: Path) -> Path:
    """Write of a run what a policy is read from; critics of all networks are as large as actors."""
    config = resolve("toy_reach", name, device="cpu", **SMALL_BY_AGENT.get(name, SMALL))
    size = config.loop.image_size[0]
    shapes = Shapes((3, size, size), action_dim=2, privileged_dim=2 if name == "privileged" else 0)
    agent = build_agent(config, shapes, torch.device("cpu"))
    run_dir.mkdir()
    env = build_env(config, choose_hardware(config), 1, EVAL_STREAM)
    write_config(config, run_dir, choose_hardware(config), env)
    env.close()
    state = asdict(shapes) | {"counters": {"agent_step": 7}, "agent": agent.state_dict(), "env": {}}
    Checkpoints(run_dir).save(state, None)
    return run_dir


@pytest.mark.parametrize("name", AGENTS)
def test_a_policy_alone_acts_as_its_run_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, alone = untrained_run(name, tmp_path / "run"), tmp_path / "alone"
    assert main(["export", str(run), "-o", str(alone)]) == 0
    # whatever is not in the file is drawn anew
    monkeypatch.setattr(policies, "read_config", lambda run_dir: replace(read_config(run_dir), seed=77))
    acts = [pixelcontrol.load(folder).episode() for folder in (run, alone)]
    size = {"dreamerv2": 64}.get(name, 24)
    for image in np.random.default_rng(0).integers(0, 256, (5, 3, size, size), dtype=np.uint8):
        one, other = (act(image) for act in acts)
        assert np.array_equal(one, other)
    kept = Checkpoints(alone).load()["agent"]
    assert kept.keys() == set(AGENTS[name].acts_with)


def test_a_policy_alone_is_no_run(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "deep" / "alone"
    assert main(["export", str(run_dir), "-o", str(alone)]) == 0
    assert capsys.readouterr().out.startswith(f"{alone} is for play, eval, export and pixelcontrol.load; obs")
    size = sum(path.stat().st_size for path in alone.rglob("*"))
    assert size < sum(path.stat().st_size for path in (run_dir / "best").rglob("*"))
    assert main(["eval", str(alone), "--episodes", "1"]) == 0
    assert main(["export", str(alone), "-o", str(tmp_path / "policy.pt2")]) == 0
    assert main(["export", str(run_dir), "-o", str(alone)]) == 2
    assert f"{alone} is there already; name a folder that can be made" in capsys.readouterr().err

    def full(*_: object) -> None:
        raise CheckpointNotSaved("the disk is full")

    with monkeypatch.context() as disk:
        disk.setattr(Checkpoints, "save", full)
        with pytest.raises(CheckpointNotSaved):
            main(["export", str(run_dir), "-o", str(tmp_path / "next")])
    assert main(["export", str(run_dir), "-o", str(tmp_path / "next")]) == 0
    assert main(["train", "--resume", str(alone)]) == 1
    command = ["train", "toy_reach", "--start-from", str(alone), "--out", str(tmp_path / "run")]
    assert main([*command, "--image-size", "24", "--hidden-dim", "8", "--conv-filters", "4"]) == 2
    assert "a policy without critics; name the run that it is of" in capsys.readouterr().err
