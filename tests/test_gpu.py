"""The whole on a GPU: images, and runs of every agent. All of it is skipped where there is none."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dreaming import TINY_DREAMER

import pixelcontrol
from pixelcontrol.build import TRAIN_STREAM, build_env, choose_hardware
from pixelcontrol.config import AGENTS, Config, resolve
from pixelcontrol.train import train

pytestmark = pytest.mark.gpu

WORLDS, SIZE = 4, 36
SMALL: dict[str, Any] = {
    "envs": WORLDS, "workers": 2, "image_size": (SIZE,), "batch_size": 16, "hidden_dim": 32, "conv_filters": 8,
    "seed_frames": 400, "exploration_steps": 100, "device": "cuda",
}  # fmt: skip


def small(task: str, agent: str = "drqv2", **overrides: Any) -> Config:
    settings = SMALL | ({"crop_size": 30} if agent == "curl" else {})
    if agent == "dreamerv2":
        for name in ("image_size", "hidden_dim", "conv_filters"):
            del settings[name]
        settings |= TINY_DREAMER
    return resolve(task, agent, **(settings | overrides))


@pytest.mark.parametrize(
    "task", ["cheetah_run", "reacher_easy", "finger_turn_hard", "cup_catch", "reach_duplo"]
)
def test_a_gpu_draws_what_a_cpu_draws(task: str) -> None:
    images = []
    for device in ("cpu", "cuda"):
        config = small(task, device=device)
        env = build_env(config, choose_hardware(config), WORLDS, TRAIN_STREAM)
        random = np.random.default_rng(1)
        try:
            drawn = [env.reset().image]
            for _ in range(5):
                env.send(random.uniform(-1, 1, (WORLDS, env.spec.action_dim)).astype(np.float32))
                drawn.append(env.receive().image)
        finally:
            env.close()
        images.append(torch.cat(drawn).cpu().int())
    difference = (images[0] - images[1]).abs()
    assert difference.float().mean() < 0.05
    assert (difference > 16).float().mean() < 1e-3
    assert (images[0][0] - images[0][-1]).abs().float().mean() > 0.05  # the body has moved


@pytest.mark.parametrize("name", AGENTS)
def test_a_run_trains_resumes_and_its_policy_acts_on_a_cpu(name: str, tmp_path: Path) -> None:
    loop = {
        "replay_capacity": 500,
        "eval_every_frames": 1_000,
        "eval_episodes": 2,
        "save_every_frames": 1_000,
    }
    train(small("cheetah_run", name, frames=1_000, **loop), tmp_path)
    train(small("cheetah_run", name, frames=2_000, **loop), tmp_path, resume=True)
    with (tmp_path / "eval.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == [0, 1_000, 2_000]
    assert all(np.isfinite(float(row["episode_return"])) for row in rows)
    assert pixelcontrol.load(tmp_path).evaluate(1).returns.shape == (1,)
