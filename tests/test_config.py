"""Which choice wins, and how a wrong one is answered."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from pixelcontrol.agents.drqv2 import DrQV2, DrQV2Settings
from pixelcontrol.agents.sac import SAC, SACSettings
from pixelcontrol.config import (
    AGENTS,
    AgentKind,
    LoopSettings,
    read_config,
    reserve_bytes,
    resolve,
    setting_fields,
    split_agent,
    stored_changes,
)
from pixelcontrol.envs.tasks import PAPER_TASKS
from pixelcontrol.settings import check, setting
from pixelcontrol.storage import RESERVE_BYTES


def test_the_paper_preset_is_table_2() -> None:
    config = resolve("acrobot_swingup")
    loop, agent = config.loop, config.agent_settings
    assert (loop.replay_capacity, loop.action_repeat, loop.seed_frames) == (1_000_000, 2, 4_000)
    assert (agent.exploration_steps, loop.n_step, loop.batch_size, loop.discount) == (2_000, 3, 256, 0.99)
    assert (agent.learning_rate, loop.update_every_agent_steps, agent.critic_tau) == (1e-4, 2, 0.01)
    assert (agent.feature_dim, agent.hidden_dim, agent.stddev_clip) == (50, 1024, 0.3)
    assert (agent.stddev_initial, agent.stddev_final, agent.stddev_duration) == (1.0, 0.1, 500_000)
    assert (loop.frames, loop.eval_every_frames, loop.eval_episodes) == (3_000_000, 20_000, 10)


def test_dreamerv2s_paper_preset_is_the_official_code_of_june_2021() -> None:
    config = resolve("walker_walk", "dreamerv2")
    loop, agent = config.loop, config.agent_settings
    assert (loop.batch_size, agent.sequence_length, loop.replay_capacity) == (50, 50, 2_000_000)
    assert (loop.update_every_agent_steps, loop.catch_up_updates, loop.seed_frames) == (5, 101, 5_000)
    assert (loop.action_repeat, loop.image_size, loop.frame_stack) == (2, (64,), 1)
    rates = agent.model_learning_rate, agent.actor_learning_rate, agent.critic_learning_rate
    assert (*rates, agent.weight_decay, agent.gradient_clip) == (3e-4, 8e-5, 8e-5, 1e-6, 100.0)
    assert (agent.deter_dim, agent.latent_groups, agent.latent_classes, agent.conv_depth) == (200, 32, 32, 48)
    assert (agent.kl_balance, agent.free_nats, agent.imagined_states, agent.return_lambda) == (
        0.8,
        1.0,
        15,
        0.95,
    )
    assert (agent.imagined_discount, agent.entropy_weight, agent.target_every_updates) == (0.99, 1e-4, 100)
    assert not agent.foresee_ends


def test_memory_beside_the_replay_goes_by_the_batch() -> None:
    paper, quick = (reserve_bytes(resolve("walker_walk", "dreamerv2", name)) for name in ("paper", "quick"))
    assert quick == reserve_bytes(resolve("cheetah_run")) == RESERVE_BYTES
    assert reserve_bytes(resolve("walker_walk")) == 2 * RESERVE_BYTES  # its batches are of 512
    assert 8e9 < paper < 9e9


@pytest.mark.parametrize(
    ("agent", "name", "value"),
    [
        ("sac", "critic_tau", 7.0), ("sac", "encoder_tau", float("nan")), ("drq", "encoder_tau", -0.1),
        ("drq", "learning_rate", float("nan")), ("curl", "temperature_learning_rate", -1.0),
    ],
)  # fmt: skip
def test_rates_of_every_agent_have_bounds(agent: str, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} is "):
        resolve("walker_walk", agent, **{name: value})


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("walker_run", {"n_step": 1, "batch_size": 512, "stddev_duration": 500_000}),
        ("quadruped_run", {"replay_capacity": 100_000}),
        ("humanoid_run", {"learning_rate": 8e-5, "feature_dim": 100, "stddev_duration": 2_000_000}),
        ("cartpole_swingup", {"stddev_duration": 100_000, "frames": 1_000_000}),
    ],
)
def test_tasks_deviate_as_appendix_b_says(task: str, expected: dict[str, float]) -> None:
    flat = resolve(task).flat()
    assert {name: flat[name] for name in expected} == expected


def test_deviations_are_drqv2s_alone() -> None:
    assert resolve("walker_run", "drq").loop.batch_size == 256


def test_command_line_beats_preset_beats_task_beats_default() -> None:
    assert resolve("walker_run").loop.batch_size == 512
    assert resolve("walker_run", preset="quick").loop.batch_size == 128
    for task, repeat, every in (("cheetah_run", 4, 4), ("finger_spin", 2, 8), ("cheetah:make", 2, 8)):
        loop = resolve(task, preset="quick").loop
        assert (loop.action_repeat, loop.update_every_agent_steps) == (repeat, every)
    assert resolve("walker_run", preset="quick", batch_size=7).loop.batch_size == 7


def test_the_last_ablation_is_drqv2() -> None:
    for task in PAPER_TASKS:
        last, paper = resolve(task.name, preset="ablation-d"), resolve(task.name)
        assert dataclasses.replace(last, preset="paper") == paper


def test_no_two_ablations_are_one() -> None:
    """Also where DrQ-v2 itself has one-step returns (walker) or a small replay (quadruped_run)."""
    names = [f"ablation-{row}" for row in "abcd"]
    for task in PAPER_TASKS:
        runs = [resolve(task.name, preset=name) for name in names]
        for run, other in combinations(runs, 2):
            assert dataclasses.replace(run, preset=other.preset) != other, (
                task.name,
                run.preset,
                other.preset,
            )
        assert [run.loop.n_step for run in runs[:3]] == [1, 3, 3]
        assert [run.loop.replay_capacity for run in runs[:3]] == [100_000, 100_000, 1_000_000]


def test_curl_learns_the_cheetah_slowly() -> None:
    rates = [resolve(task, "curl").agent_settings.learning_rate for task in ("cheetah_run", "walker_walk")]
    assert rates == [2e-4, 1e-3]


@pytest.mark.parametrize("agent", ["sac", "curl"])
@pytest.mark.parametrize(("task", "repeat"), [("cartpole_swingup", 8), ("walker_walk", 2), ("cup_catch", 4)])
def test_authors_choose_action_repeat_by_task(agent: str, task: str, repeat: int) -> None:
    loop = resolve(task, agent, "author").loop
    assert (loop.action_repeat, loop.seed_frames) == (repeat, 1_000 * repeat)
    assert resolve(task, agent, "author", action_repeat=1).loop.action_repeat == 1


@pytest.mark.parametrize(("task", "rate"), [("cheetah_run", 2e-4), ("hopper_hop", 1e-3)])
def test_curls_author_learns_slowly_on_the_cheetah_alone(task: str, rate: float) -> None:
    assert resolve(task, "curl", "author").agent_settings.learning_rate == rate
    assert resolve(task, "curl", "author", learning_rate=0.5).agent_settings.learning_rate == 0.5


@pytest.mark.parametrize("agent", AGENTS)
def test_every_preset_of_every_agent_resolves(agent: str) -> None:
    for preset, chosen in AGENTS[agent].presets.items():
        config = resolve("reacher_easy", agent, preset)
        assert config.preset == preset
        assert chosen.keys() <= setting_fields(agent).keys()


@pytest.mark.parametrize("agent", AGENTS)
def test_no_setting_has_two_meanings(agent: str) -> None:
    names = {item.name for item in dataclasses.fields(LoopSettings)}
    assert not names & {item.name for item in dataclasses.fields(AGENTS[agent].settings)}


@pytest.mark.parametrize("agent", AGENTS)
def test_every_setting_says_what_it_is_and_where_it_comes_from(agent: str) -> None:
    for item in setting_fields(agent).values():
        assert item.metadata["help"]
        assert item.metadata["source"]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"task": "cheetha_run"}, "'cheetah_run'"),
        ({"agent": "drqv3"}, "did you mean 'drqv2'"),
        ({"agent": "nowhere:KIND"}, "agent 'nowhere:KIND': No module named 'nowhere'; is it on PYTHONPATH?"),
        (
            {"agent": "imports_nothing:KIND"},
            "No module named 'no_such_library'; imports_nothing imports it, so",
        ),
        ({"agent": "drqv3:quick"}, "is it on PYTHONPATH? Or did you mean 'drqv2'?"),
        ({"task": "reach_duplo", "proprio": ("arm",)}, "--proprio is for dm_control's suite; reach_duplo is"),
        ({"agent": "restless:KINDS"}, "agent 'restless:KINDS': module 'restless' has nothing named 'KINDS'"),
        ({"agent": "restless:Restless"}, "must be a pixelcontrol.config.AgentKind, and is type"),
        ({"agent": "restless:KIND:quick"}, "give the preset apart, --agent restless:KIND --preset quick"),
        (
            {"agent": "odd_agents:LIKE_THE_LOOPS"},
            "its setting 'n_step' has the name of one that every run has",
        ),
        ({"agent": "odd_agents:LIKE_A_FLAG"}, "its setting 'out' has the name of one that every run has"),
        ({"agent": "odd_agents:UNDECLARED"}, "its setting 'width' must be declared by pixelcontrol.settings"),
        ({"agent": "odd_agents:NO_DATACLASS"}, "its settings must be a dataclass, and are <class 'dict'>"),
        ({"agent": "odd_agents:NO_DEFAULT"}, "its presets are mine; one must be 'paper', the default"),
        (
            {"agent": "odd_agents:NO_OTHER", "task": "walker_walk"},
            "its preset 'paper' has 'action_repeat' by domain, without one for 'other'",
        ),
        (
            {"agent": "odd_agents:NO_LENGTH"},
            "it learns from sequences, and its settings lack conv_depth, foresee_ends, sequence_length",
        ),
        ({"agent": "odd_agents:MISSPELT"}, "learns_from 'Sequences' is unknown; did you mean 'sequences'?"),
        ({"preset": "papr"}, "did you mean 'paper'"),
        ({"batch_sice": 3}, "did you mean 'batch_size'"),
        ({"batch_size": 0}, "--batch-size is 0, but must be at least 1"),
        ({"image_size": (8,)}, "--image-size is 8, but must be at least 16 and at most 1024"),
        (
            {"image_size": (96, 128, 96)},
            "--image-size is 96,128,96, but must be one number, or height and width",
        ),
        ({"discount": 1.5}, "--discount is 1.5, but must be at least 0 and at most 1"),
        ({"frames": 1001}, "--frames is 1001 frames, but an agent step is --action-repeat 2"),
        ({"seed": -1}, "--seed is -1"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"agent": "dreamerv2", "n_step": 3}, "--n-step is for agents that learn from transitions"),
        ({"agent": "dreamerv2", "frame_stack": 3}, "--frame-stack is for agents"),
    ],
)
def test_a_wrong_choice_is_named_with_its_remedy(choices: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        resolve(**({"task": "cheetah_run"} | choices))
    assert "\n" not in str(error.value)


def test_a_task_with_images_of_its_own_takes_no_camera() -> None:
    assert resolve("cheetah_run", camera=("0", "back"), depth=8.0).loop.camera == ("0", "back")
    for choice in ({"camera": ("0",)}, {"depth": 8.0}, {"proprio": ("position",)}):
        with pytest.raises(ValueError, match="toy_reach chooses for itself"):
            resolve("toy_reach", **choice)


def test_a_stored_configuration_comes_back_the_same(tmp_path: Path) -> None:
    config = resolve("cheetah_run", seed=4, conv_strides=(2, 2))
    stored = {
        "agent": "drqv2",
        "task": "cheetah_run",
        "preset": "paper",
        "seed": 4,
        "settings": config.flat(),
    }
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert read_config(tmp_path) == config
    stored["settings"] = config.flat() | {"colour": 3}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="colour"):
        read_config(tmp_path)
    stored["settings"] = {name: value for name, value in config.flat().items() if name != "depth"}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.warns(UserWarning, match=r"takes for what is newer: --depth 0\.0"):
        assert read_config(tmp_path) == config
    with pytest.raises(ValueError, match="holds no run"):
        read_config(tmp_path / "elsewhere")
    for content, words in {"": "not JSON", "[3]": "no JSON object", '{"seed": 3}': "lacks agent"}.items():
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=f"config.json .*{words}"):
            read_config(tmp_path)


def test_one_number_where_a_tuple_belongs_is_named() -> None:
    @dataclasses.dataclass
    class Sizes:
        conv_strides: Any = setting((2, 1), "strides", "here", low=1)

    check(Sizes((3,)))
    with pytest.raises(ValueError, match=r"conv_strides is 3, but must be a tuple, such as \(2, 1\)"):
        check(Sizes(3))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"count": 2.5}, "count is 2.5, but must be a whole number"),
        ({"count": True}, "count is True, but must be a whole number"),
        ({"count": "8"}, "count is '8', but must be a whole number"),
        ({"sizes": (84.0,)}, "sizes is 84.0, but must be a whole number"),
        ({"share": "high"}, "share is 'high', but must be a number"),
        ({"switch": 1}, "switch is 1, but must be True or False"),
        ({"folder": Path("runs/walk")}, "folder is .*, but must be a string"),
        ({"names": (0,)}, "names is 0, but must be a string"),
    ],
)
def test_from_python_a_value_of_another_type_is_named(given: dict[str, Any], words: str) -> None:
    @dataclasses.dataclass
    class Settings:
        count: Any = setting(3, "a count", "here", low=1)
        sizes: Any = setting((84,), "sizes", "here", low=1)
        share: Any = setting(0.5, "a share", "here", low=0.0)
        switch: Any = setting(False, "a switch", "here")
        folder: Any = setting("", "a folder", "here")
        names: Any = setting((), "names", "here")
        odd: Any = setting(None, "of a type that only its owner knows", "here")

    check(Settings(share=1, names=("back",), odd=3.0))
    with pytest.raises(ValueError, match=words):
        check(Settings(**given))


def test_settings_of_a_stored_run_are_compared_with_its_presets_or_else_as_they_were_then() -> None:
    run = {"task": "cheetah_run", "agent": "drqv2", "preset": "paper"}
    assert stored_changes(run | {"settings": {"n_step": 1, "envs": 16}, "changed": {}}) == {"n_step": 1}
    gone = run | {"agent": "no_such_module:KIND", "settings": {"gain": 2.0, "envs": 16}}
    assert stored_changes(gone | {"changed": {"conv_strides": [2, 2]}}) == {"conv_strides": (2, 2)}
    assert stored_changes(gone) == stored_changes({}) == {}


@pytest.mark.parametrize(
    ("word", "agent", "preset"),
    [
        ("drq", "drq", "paper"),
        ("drqv2:quick", "drqv2", "quick"),
        ("mine:KIND", "mine:KIND", "paper"),
        ("my.agents:KIND:quick", "my.agents:KIND", "quick"),
    ],
)
def test_agent_and_preset_of_a_word(word: str, agent: str, preset: str) -> None:
    assert split_agent(word) == (agent, preset)


@dataclass(frozen=True)
class OfDrQV2(DrQV2Settings):
    """Settings of an agent that somebody made of DrQ-v2."""


OWN = AgentKind(DrQV2, OfDrQV2, {"paper": {}, "odd": {"lerning_rate": 1.0}})
OF_SAC = AgentKind(SAC, SACSettings, {"paper": {}})


@pytest.mark.parametrize("task", ["walker_walk", "humanoid_run", "quadruped_run", "cartpole_swingup"])
def test_what_is_made_of_drqv2_has_its_exceptions_for_single_tasks(task):
    """Else a comparison of both would be one of batch sizes."""
    mine, theirs = (resolve(task, agent).flat() for agent in (f"{__name__}:OWN", "drqv2"))
    assert mine == theirs
    assert resolve(task, f"{__name__}:OF_SAC").loop.batch_size == 256


def test_a_preset_with_a_misspelt_setting_is_refused():
    with pytest.raises(
        ValueError, match=r"setting of the preset odd .* 'lerning_rate' is unknown; did you mean 'l"
    ):
        resolve("toy_reach", f"{__name__}:OWN", "odd")
