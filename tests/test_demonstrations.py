"""What was shown is what is drawn, in half of every batch; and files that do not fit are refused."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dreaming import TINY_DREAMER

from pixelcontrol.build import Shapes, build_agent, build_replay
from pixelcontrol.checkpoint import CheckpointError, Checkpoints
from pixelcontrol.cli import main
from pixelcontrol.config import Config, resolve
from pixelcontrol.demonstrations import read_demonstrations, record
from pixelcontrol.envs.render.pixels import PixelRenderer
from pixelcontrol.envs.toy import ToyWorld
from pixelcontrol.envs.vector import VectorEnv
from pixelcontrol.learner import Learner
from pixelcontrol.policy import write_policy
from pixelcontrol.replay import joined
from pixelcontrol.train import train
from pixelcontrol.types import Observation, TimeStep

CPU = torch.device("cpu")
SIZE = 16
SHAPES = Shapes((3, SIZE, SIZE), 2)
SMALL: dict[str, Any] = {
    "image_size": (SIZE,), "envs": 2, "workers": 1, "frames": 300, "batch_size": 8, "hidden_dim": 16,
    "conv_filters": 4, "seed_frames": 100, "eval_episodes": 0, "device": "cpu", "precision": "fp32",
}  # fmt: skip


def small(agent: str = "drqv2", task: str = "toy_reach", **overrides: Any) -> Config:
    settings = SMALL | overrides
    if agent == "dreamerv2":
        settings = {
            name: value for name, value in settings.items() if name not in ("hidden_dim", "conv_filters")
        }
        settings |= TINY_DREAMER
    return resolve(task, agent, **settings)


def episode(steps: int, number: int = 0, proprio: int = 0, ends: bool = False) -> dict[str, np.ndarray]:
    """Return an episode whose images and actions count on from `number`, as do its rewards from 1 on."""
    counted = np.arange(steps + 1)
    arrays = {
        "image": np.broadcast_to((number + counted)[:, None, None, None], (steps + 1, 3, SIZE, SIZE)).astype(
            np.uint8
        ),
        "action": np.stack([(number + counted[:-1]) / 256, -np.ones(steps)], axis=1).astype(np.float32),
        "reward": (1 + counted[:-1]).astype(np.float32),
        "discount": np.ones(steps, np.float32),
    }
    if ends:
        arrays["discount"][-1] = 0.0
    if proprio:
        arrays["proprio"] = np.repeat((number + counted)[:, None], proprio, axis=1).astype(np.float32)
    return arrays


def toy_env() -> VectorEnv:
    world = ToyWorld((SIZE, SIZE), 2)
    renderer = PixelRenderer("own", (3, SIZE, SIZE), "cpu")
    spec = dataclasses.replace(world.spec, privileged_dim=0)
    return VectorEnv(lambda: world, spec, renderer, num_worlds=1, num_workers=0, seed=1)


def replay_of(config: Config, seed: int = 5) -> Any:
    """Return a replay of a run's own, of images of 200 and more and of the action (1, 1)."""
    images = torch.zeros(40, 1, 3, SIZE, SIZE, dtype=torch.uint8)
    replay = build_replay(config, images, SHAPES, CPU, torch.Generator().manual_seed(seed))
    for row in range(40):
        zeros = np.zeros(1, np.float32)
        flags = np.array([row == 0]), np.array([False])
        nothing = np.zeros((1, 0), np.float32)
        image = torch.full((1, 3, SIZE, SIZE), 200 + row, dtype=torch.uint8)
        replay.add(TimeStep(image, np.ones((1, 2), np.float32), zeros, zeros + 1, *flags, nothing, nothing))
    return replay


def shown(folder: Path, *episodes: dict[str, np.ndarray], agent: str = "drqv2", **settings: Any) -> Any:
    folder.mkdir(exist_ok=True)
    for number, arrays in enumerate(episodes):
        np.savez(folder / f"{number}.npz", **arrays)
    config = small(agent, demonstrations=str(folder), **settings)
    return read_demonstrations(config, toy_env()).replay(config, toy_env(), replay_of(config), CPU)


def test_every_step_shown_is_a_transition(tmp_path: Path) -> None:
    """Episodes of 3 steps to a true end and of 2 to a time limit; returns over 3 steps with a discount of 0.5."""
    found = shown(tmp_path, episode(3, 10, ends=True), episode(2, 20), discount=0.5)
    assert len(found) == 5
    batch = found.sample(300)
    first, next_newest = batch.observation.stack[:, -1, 0, 0], batch.next_observation.stack[:, -1, 0, 0]
    seen = {
        (int(a), round(float(b) * 256), float(c), float(d), int(e))
        for a, b, c, d, e in zip(
            first, batch.action[:, 0], batch.reward, batch.discount, next_newest, strict=True
        )
    }
    assert seen == {
        # image, action, 3-step return, discount, image of the bootstrap
        (10, 10, 1 + 2 / 2 + 3 / 4, 0.0, 13),
        (11, 11, 2 + 3 / 2, 0.0, 13),
        (12, 12, 3.0, 0.0, 13),
        (20, 20, 1 + 2 / 2, 0.25, 22),
        (21, 21, 2.0, 0.5, 22),
    }
    stacks = {tuple(stack[::3, 0, 0].tolist()) for stack in batch.observation.stack}
    assert stacks == {(10, 10, 10), (10, 10, 11), (10, 11, 12), (20, 20, 20), (20, 20, 21)}


def test_sequences_shown_are_of_one_episode(tmp_path: Path) -> None:
    found = shown(tmp_path, episode(6, 10), episode(3, 20), episode(4, 30), agent="dreamerv2")
    images = found.sample(100).image[:, :, 0, 0, 0]
    assert {tuple(sequence.tolist()) for sequence in images.T} == {
        (10, 11, 12, 13, 14), (11, 12, 13, 14, 15), (12, 13, 14, 15, 16), (30, 31, 32, 33, 34),
    }  # fmt: skip


@pytest.mark.parametrize("agent", ["drqv2", "dreamerv2"])
def test_half_of_every_batch_is_shown(agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shown(tmp_path, episode(6, 10), agent=agent)

    config = small(agent)
    learning = build_agent(small(), SHAPES, CPU)  # stands for any: it is asked to look alone
    batches: list[Any] = []

    def look(batch: Any, agent_step: torch.Tensor) -> dict[str, torch.Tensor]:
        batches.append(batch)
        return {"loss": torch.zeros(())}

    monkeypatch.setattr(type(learning), "update_cycle", property(lambda _: (look,)))
    learner = Learner(
        learning,
        replay_of(config),
        batch_size=9,
        precision="fp32",
        device=CPU,
        demonstrations=found,
    )
    learner.update(0, 0)
    batch = batches[0]
    images = batch.image[0] if agent == "dreamerv2" else batch.observation.stack
    whose = Counter("shown" if image < 100 else "own" for image in images[:, -1, 0, 0].tolist())
    assert whose == {"shown": 4, "own": 5}
    assert batch.reward.shape == ((5, 9) if agent == "dreamerv2" else (9,))


def test_joined_batches_keep_observations_together() -> None:
    def observation(value: int) -> Observation:
        numbers = torch.full((2, 1), float(value))
        return Observation(torch.full((2, 3, 4, 4), value, dtype=torch.uint8), numbers, -numbers)

    batches = []
    for value in (1, 2):
        numbers = torch.full((2,), float(value))
        batches.append(replay_of(small()).sample(2)._replace(observation=observation(value), reward=numbers))
    together = joined(*batches)
    assert together.observation.stack[:, 0, 0, 0].tolist() == [1, 1, 2, 2]
    assert together.observation.proprio[:, 0].tolist() == together.reward.tolist() == [1, 1, 2, 2]
    assert together.observation.privileged[:, 0].tolist() == [-1, -1, -2, -2]


def spoilt(name: str, **changes: Any) -> dict[str, np.ndarray]:
    arrays = episode(3)
    for part, change in changes.items():
        arrays[part] = change(arrays[part])
    if name:
        del arrays[name]
    return arrays


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (spoilt("discount"), r"0\.npz has no array 'discount'; it must hold image, action, reward, discount"),
        (
            spoilt("", image=lambda a: a[:-1]),
            r"image is uint8 \(3, 3, 16, 16\), but must be uint8 \(4, 3, 16, 16\)",
        ),
        (spoilt("", image=lambda a: a.transpose(0, 2, 3, 1)), r"image is uint8 \(4, 16, 16, 3\)"),
        (spoilt("", image=lambda a: a / 255), "image is float64"),
        (
            spoilt("", image=lambda a: a[..., :12]),
            r"images have 16,12 pixels .*, and this run's 16,16: use --image-size 16,12, or record anew",
        ),
        (spoilt("", image=lambda a: a[0, 0, 0, 0]), r"image is uint8 \(\), but must be uint8 \(4,"),
        (spoilt("", reward=lambda a: a[0]), r"image is uint8 \(4, 3, 16, 16\), but must be uint8 \(2, 3"),
        (spoilt("", action=lambda a: a[:, :1]), r"action is float32 \(3, 1\), but must be float32 \(3, 2\)"),
        (spoilt("", action=lambda a: a * 1.5), r"action holds -1\.5, but must lie from -1 to 1"),
        (spoilt("", reward=lambda a: a * np.inf), "reward holds numbers that are not finite"),
        (spoilt("", discount=lambda a: a - 2), r"discount holds -1\.0, but must lie from 0 to 1"),
        (episode(3, proprio=2), r"proprio is float32 \(4, 2\), but must be float32 \(4, 0\)"),
        (episode(0), "holds no agent step"),
        (episode(3) | {"action_repeat": np.array([1, 2])}, r"its actions were held for \[1 2\] frames, and"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_by_name(
    arrays: dict[str, np.ndarray], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        shown(tmp_path, arrays)


def test_what_is_no_episode_is_refused(tmp_path: Path) -> None:
    config = small(demonstrations=str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"none, but there is no episode in it"):
        read_demonstrations(config, toy_env())
    with pytest.raises(ValueError, match="no episode there has the 5 images of a sequence"):
        shown(tmp_path, episode(3), agent="dreamerv2")
    buffer = io.BytesIO()
    np.savez(buffer, image=np.array([{}], dtype=object))  # would be executed
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    packed = io.BytesIO()
    np.savez_compressed(packed, image=np.zeros(3))
    damaged = bytearray(packed.getvalue())
    damaged[59] ^= 255  # where the deflated numbers begin
    for content in (
        b"no archive", b"", buffer.getvalue(), buffer.getvalue()[:-30], array.getvalue(), bytes(damaged)
    ):  # fmt: skip
        (tmp_path / "0.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"0\.npz cannot be read: .*write it with numpy\.savez"):
            shown(tmp_path)


def towards_target(image: np.ndarray) -> np.ndarray:
    red, green = (np.argwhere(plane).mean(axis=0) for plane in image[:2])
    return np.clip((green - red)[::-1] / 3, -1.0, 1.0)


def test_the_ten_thousandth_episode_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "9999-return-0.npz").touch()
    for _ in range(2):
        record(small(), lambda: towards_target, tmp_path, 1)
    numbers = sorted(int(file.name.partition("-")[0]) for file in tmp_path.iterdir())
    assert numbers == [9_999, 10_000, 10_001]


def test_recorded_episodes_are_what_was_lived(tmp_path: Path) -> None:
    config = small()
    begun: list[int] = []

    def begin() -> Any:
        begun.append(1)
        return towards_target

    returns = record(config, begin, tmp_path, 3)
    next(tmp_path.glob("0002-*")).unlink()
    returns[1:] = [returns[2], *record(config, begin, tmp_path, 1)]
    assert len(begun) == 4
    assert min(returns) > 45  # 29 is standing still
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [
        f"{number:04d}-return-{value:.0f}.npz" for number, value in zip((1, 3, 4), returns, strict=True)
    ]
    episodes = [dict(np.load(file)) for file in files]
    starts = [tuple(arrays["image"][0].ravel()) for arrays in episodes]
    assert len(set(starts)) == 3
    for arrays, value in zip(episodes, returns, strict=True):
        assert arrays["reward"].sum() == pytest.approx(value)
        assert arrays.pop("action_repeat") == 2
        assert str(arrays.pop("about")) == ""  # the toy says nothing of itself
        assert {name: len(array) for name, array in arrays.items()} == {
            "image": 26, "action": 25, "reward": 25, "discount": 25, "proprio": 26,
            "privileged": 26,
        }  # fmt: skip
        for image, action in zip(arrays["image"], arrays["action"], strict=False):
            np.testing.assert_array_equal(action, towards_target(image).astype(np.float32))


def test_actions_that_were_held_for_another_time_are_refused(tmp_path: Path) -> None:
    record(small(), lambda: towards_target, tmp_path / "shown", 1)
    with pytest.raises(
        ValueError, match=r"held for 2 frames, and this run's are for 4: use --action-repeat 2"
    ):
        train(small(action_repeat=4, demonstrations=str(tmp_path / "shown")), tmp_path / "run")


def test_what_is_privileged_is_recorded_and_read_where_it_is_made_use_of(tmp_path: Path) -> None:
    record(small("privileged"), lambda: towards_target, tmp_path / "all", 1)
    record(small(), lambda: towards_target, tmp_path / "seen", 1)
    (file,) = (tmp_path / "all").iterdir()
    given: list[np.ndarray] = []

    def script(image: np.ndarray, privileged: np.ndarray) -> np.ndarray:
        given.append(privileged)
        return np.clip((privileged[2:] - privileged[:2]) * 8.0, -1.0, 1.0)

    (value,) = record(small("privileged"), lambda: script, tmp_path / "scripted", 1)
    assert value > 45  # as one that sees gets
    np.testing.assert_array_equal(given, np.load(next((tmp_path / "scripted").iterdir()))["privileged"][:-1])
    # where the dot is and where the target: what its rewards follow from
    told = np.load(file)["privileged"]
    distance = np.linalg.norm(told[1:, :2] - told[1:, 2:], axis=1)
    assert (np.load(file)["reward"][10:] >= 2 - 2 * distance[10:]).all()
    for agent in ("privileged", "drqv2"):
        train(small(agent, demonstrations=str(tmp_path / "all")), tmp_path / agent)
    with pytest.raises(ValueError, match="holds nothing privileged, which this agent learns with: record it"):
        train(small("privileged", demonstrations=str(tmp_path / "seen")), tmp_path / "without")


def test_an_actor_may_draw_on_its_picture(tmp_path: Path) -> None:
    def draw(image: np.ndarray) -> np.ndarray:
        action = towards_target(image)
        image[:] = 7
        return action

    for folder, act in (("drawn", draw), ("not", towards_target)):
        record(small(), lambda act=act: act, tmp_path / folder, 1)
    drawn, other = (np.load(next((tmp_path / folder).iterdir())) for folder in ("drawn", "not"))
    np.testing.assert_array_equal(drawn["image"], other["image"])


def test_an_actor_sees_proprioception_and_may_end_its_episode_and_the_recording(tmp_path: Path) -> None:
    config = small(task="sensing:make_world", action_repeat=1)
    given: list[np.ndarray] = []

    def once_in_three(image: np.ndarray, proprio: np.ndarray) -> np.ndarray | None:
        given.append(proprio)
        return None if len(given) % 3 == 0 else proprio[2:3]

    begun: list[int] = []

    def begin() -> Any:
        begun.append(1)
        return once_in_three if len(begun) < 3 else lambda image, proprio: None

    assert record(config, begin, tmp_path, 5) == pytest.approx([2.0, 2.0])
    assert len(begun) == 3
    arrays = np.load(sorted(tmp_path.iterdir())[1])
    assert arrays["image"].shape == (3, 3, SIZE, SIZE)
    np.testing.assert_array_equal(arrays["proprio"], given[3:])
    np.testing.assert_array_equal(arrays["discount"], [1, 1])


def final_weights(run_dir: Path) -> dict[str, torch.Tensor]:
    actor: dict[str, torch.Tensor] = Checkpoints(run_dir).load()["agent"]["actor"]
    return actor


def test_a_run_learns_from_them_and_resumes_with_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demos"
    record(small(), lambda: towards_target, folder, 2)
    whole, halves, without = tmp_path / "whole", tmp_path / "halves", tmp_path / "without"
    train(small(demonstrations=str(folder)), whole)
    assert "half of every batch is of demonstrations: 2 episodes" in capsys.readouterr().err
    train(small(demonstrations=str(folder), frames=200), halves)
    train(small(demonstrations=str(folder)), halves, resume=True)
    train(small(), without)
    one, two, other = map(final_weights, (whole, halves, without))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)

    folder.rename(tmp_path / "moved")
    assert main(["train", "--resume", str(halves), "--frames", "400"]) == 2
    assert "there is no episode in it" in capsys.readouterr().err
    moved = ["--demonstrations", str(tmp_path / "moved")]
    assert main(["train", "--resume", str(halves), "--frames", "400", *moved]) == 0

    for run_dir, other in ((halves, ""), (without, moved[1])):
        assert main(["train", "--resume", str(run_dir), "--demonstrations", other]) == 2
        assert "they can be moved, not added or taken away" in capsys.readouterr().err

    capsys.readouterr()
    write_policy(halves, tmp_path / "policy")
    assert main(["train", "--resume", str(tmp_path / "policy"), *moved]) == 1
    assert "holds a policy and no run" in capsys.readouterr().err

    shutil.copy(next((tmp_path / "moved").iterdir()), tmp_path / "moved" / "0003.npz")
    with pytest.raises(
        CheckpointError,
        match=r"was saved with demonstrations .*; resume with the code, and the demonstrations",
    ):
        train(small(demonstrations=moved[1], frames=500), halves, resume=True)


def test_a_batch_of_one_has_no_half() -> None:
    with pytest.raises(ValueError, match="--batch-size is 1, but half of it is to be of --demonstrations"):
        small(demonstrations="demos", batch_size=1)


def test_an_actor_begins_anew_where_its_world_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The world fails once, at the third step."""
    receive, received = VectorEnv.receive, []

    def failing(env: VectorEnv) -> TimeStep:
        step = receive(env)
        received.append(step)
        return dataclasses.replace(step, first=np.array([True])) if len(received) == 4 else step

    monkeypatch.setattr(VectorEnv, "receive", failing)
    begun: list[int] = []

    def begin() -> Any:
        begun.append(len(received))
        return towards_target

    record(small(), begin, tmp_path, 1)
    assert begun == [1, 4]
    assert len(np.load(next(tmp_path.iterdir()))["reward"]) == 25 - 3


def test_a_folder_that_does_not_fit_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no episode in it"):
        train(small(demonstrations=str(tmp_path)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
