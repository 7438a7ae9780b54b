"""What a run is made of: every choice, its default, its source, and the order in which choices override.

A value is taken from the first of these that names it: the command line; the preset; the task's own deviation
(paper, appendix B); the default. `resolve` does that once, and the result is written to `config.json`.
"""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pixelcontrol.agents import curl, dreamerv2, drq, drqv2, privileged, sac
from pixelcontrol.envs.dmc import RendererName
from pixelcontrol.envs.tasks import find_task
from pixelcontrol.envs.user import find_own
from pixelcontrol.learner import PRECISIONS
from pixelcontrol.rundir import read_json, write_json
from pixelcontrol.settings import check, flag, setting, spell, unknown
from pixelcontrol.storage import RESERVE_BYTES
from pixelcontrol.types import Agent

LearnsFrom = Literal["transitions", "sequences"]
"""What an agent's batches hold."""


class AgentKind(NamedTuple):
    """One system: its class, the dataclass of its settings, its presets (overrides by preset's name), its replay.

    The class is called with the shape of a stack of images, (channels, height, width), the number of controls, the
    settings, and by name `device`, `seed` and, where there is proprioception, `proprio_dim`. One that is
    `privileged` learns with numbers that its policy does not see, and is called with `privileged_dim`, too. One
    that learns from sequences has settings `sequence_length`, `foresee_ends` and `conv_depth`. What a preset
    overrides with is a value, or a mapping to values from dm_control's domains and "other". `acts_with` names what
    of the agent's state its policy needs; where it names nothing, that is all that was learned.
    """

    build: Callable[..., Agent]
    settings: type[Any]
    presets: Mapping[str, Mapping[str, Any]]
    learns_from: LearnsFrom = "transitions"
    privileged: bool = False
    acts_with: tuple[str, ...] = ()


ACTOR = ("encoder", "actor")
AGENTS = {
    "drqv2": AgentKind(drqv2.DrQV2, drqv2.DrQV2Settings, drqv2.PRESETS, acts_with=ACTOR),
    "drq": AgentKind(drq.DrQ, drq.DrQSettings, drq.PRESETS, acts_with=ACTOR),
    "curl": AgentKind(curl.CURL, curl.CURLSettings, curl.PRESETS, acts_with=ACTOR),
    "sac": AgentKind(sac.SAC, sac.SACSettings, sac.PRESETS, acts_with=ACTOR),
    "privileged": AgentKind(
        privileged.Privileged, privileged.PrivilegedSettings, privileged.PRESETS, privileged=True,
        acts_with=("encoder", "guesser", "actor"),
    ),
    "dreamerv2": AgentKind(
        dreamerv2.DreamerV2, dreamerv2.DreamerV2Settings, dreamerv2.PRESETS, learns_from="sequences",
        acts_with=("encoder", "transition", "posterior", "actor"),
    ),
}  # fmt: skip


def split_agent(word: str) -> tuple[str, str]:
    """Return agent and preset of "drqv2", "drqv2:quick", "my_agent:KIND" or "my_agent:KIND:quick"."""
    parts = word.split(":")
    names = 1 if parts[0] in AGENTS else 2  # a user's own has a colon in its name
    return ":".join(parts[:names]), ":".join(parts[names:]) or "paper"


def agent_kind(name: str) -> AgentKind:
    """Return what belongs to an agent: one of `AGENTS`, or a user's own, an `AgentKind` named "module:KIND".

    Raises:
        ValueError: there is no such agent.
    """
    if name in AGENTS:
        return AGENTS[name]
    if ":" not in name:
        raise ValueError(f"{unknown('agent', name, AGENTS)}, or one of your own, as my_agent:KIND")
    module, _, attribute = name.partition(":")
    try:
        kind = find_own("agent", name, "my_agent:KIND")
    except ValueError as error:
        near = difflib.get_close_matches(module, AGENTS, n=1)
        raise ValueError(f"{error}{f' Or did you mean {near[0]!r}?' if near else ''}") from error
    attribute, _, preset = attribute.partition(":")
    if preset:
        raise ValueError(
            f"agent {name!r}: give the preset apart, --agent {module}:{attribute} --preset {preset}"
        )
    if kind is None:
        raise ValueError(f"agent {name!r}: module {module!r} has nothing named {attribute!r}")
    if not isinstance(kind, AgentKind):
        raise ValueError(
            f"agent {name!r}: must be a pixelcontrol.config.AgentKind, and is {type(kind).__name__}"
        )
    _check_own(name, kind)
    return kind


def _check_own(name: str, kind: AgentKind) -> None:
    """Refuse a user's own agent whose settings could not become flags, or would be taken for others."""
    if not dataclasses.is_dataclass(kind.settings):
        raise ValueError(f"agent {name!r}: its settings must be a dataclass, and are {kind.settings!r}")
    taken = {item.name for item in dataclasses.fields(LoopSettings)} | FLAGS
    for item in dataclasses.fields(kind.settings):
        if item.name in taken:
            raise ValueError(
                f"agent {name!r}: its setting {item.name!r} has the name of one that every run has; call it "
                "otherwise, or give that one another value in the presets"
            )
        if "help" not in item.metadata:
            raise ValueError(
                f"agent {name!r}: its setting {item.name!r} must be declared by pixelcontrol.settings.setting"
            )
    if "paper" not in kind.presets:
        raise ValueError(
            f"agent {name!r}: its presets are {', '.join(kind.presets) or 'none'}; "
            "one must be 'paper', the default"
        )
    for preset, values in kind.presets.items():
        for key, value in values.items():
            if isinstance(value, Mapping) and "other" not in value:
                raise ValueError(
                    f"agent {name!r}: its preset {preset!r} has {key!r} by domain, without one for 'other'"
                )
    if kind.learns_from not in get_args(LearnsFrom):
        raise ValueError(f"agent {name!r}: {unknown('learns_from', kind.learns_from, get_args(LearnsFrom))}")
    if kind.learns_from == "sequences":
        fields = {item.name for item in dataclasses.fields(kind.settings)}
        if lacking := {"sequence_length", "foresee_ends", "conv_depth"} - fields:
            raise ValueError(
                f"agent {name!r}: it learns from sequences, and its settings lack {', '.join(sorted(lacking))}"
            )


# Settings of the loop that mean nothing to an agent that learns from sequences.
OF_TRANSITIONS = {"frame_stack", "n_step", "discount"}
# What a resume may choose anew: another machine's ways, the run's end, and where the same demonstrations lie now.
MOVABLE = {"device", "precision", "cuda_graph", "workers", "keep_replay", "frames", "demonstrations"}
# What makes a run no other experiment: where it runs, how long, how often it is evaluated and saved.
INCIDENTAL = (MOVABLE - {"demonstrations"}) | {
    "envs", "renderer", "deterministic", "eval_every_frames", "eval_episodes", "save_every_frames"
}  # fmt: skip
# Flags of `train`, `check` and `sweep` beside those of settings.
FLAGS = {"task", "agent", "preset", "seed", "seeds", "resume", "out", "help", "film"} | {
    "tasks", "agents", "jobs", "ray", "cpus_per_run", "gpus_per_run", "dry_run"
}  # fmt: skip
RENDERERS: tuple[RendererName, ...] = get_args(RendererName)
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class LoopSettings:
    """What can be chosen about worlds, replay and training loop, whatever the agent."""

    frames: int = setting(
        0, "environment frames to train; 0 takes the preset's, else the task's", "Table 1", low=0
    )
    envs: int = setting(
        0, "worlds stepped together; 0 takes 1 on a CPU, 16 on a GPU; 1 is the paper's loop", "ours", low=0
    )
    workers: int = setting(
        0, "processes that step the worlds; 0 takes one per core, at most one per world", "ours", low=0
    )
    renderer: RendererName = setting(
        "warp", "what draws the images", "ours; opengl is dm_control's", choices=RENDERERS
    )
    device: str = setting("auto", "where the agent learns", "ours", choices=DEVICES)
    precision: str = setting(
        "auto", "of convolutions and matrix products; weights stay fp32", "ours", choices=PRECISIONS
    )
    cuda_graph: bool = setting(
        True, "on a GPU, record each update as one CUDA graph; otherwise it runs step by step, slower", "ours"
    )
    deterministic: bool = setting(
        False, "on a GPU, compute the same bits at every run; slower (a CPU always does)", "ours"
    )
    image_size: tuple[int, ...] = setting(
        (84,), "height and width of an image, pixels; one number for both", "section 4.1", low=16, high=1024
    )
    camera: tuple[str, ...] = setting(
        (), "ids or names of the cameras that the agent sees through; the task's when left out", "ours"
    )
    depth: float = setting(
        0.0, "metres that a fourth channel of each camera shows; 0 has none", "ours", low=0.0
    )
    proprio: tuple[str, ...] = setting(
        (),
        "what dm_control observes of the body that the agent is told beside images: position,velocity",
        "ours",
    )
    frame_stack: int = setting(3, "images per observation", "section 4.1", low=1)
    action_repeat: int = setting(2, "frames per agent step", "Table 2", low=1)
    replay_capacity: int = setting(1_000_000, "transitions kept", "Table 2", low=100)
    seed_frames: int = setting(4_000, "frames before the first update", "Table 2", low=0)
    batch_size: int = setting(256, "transitions, or sequences, per update", "Table 2", low=1)
    n_step: int = setting(3, "rewards summed before bootstrapping", "Table 2", low=1)
    discount: float = setting(0.99, "gamma, per agent step", "Table 2", low=0.0, high=1.0)
    update_every_agent_steps: int = setting(2, "agent steps per update", "Table 2", low=1)
    catch_up_updates: int = setting(
        0, "updates made at once after the seed frames, beside the usual ones", "SAC-AE has some", low=0
    )
    eval_every_frames: int = setting(20_000, "frames between evaluations", "section 4.1", low=1)
    eval_episodes: int = setting(10, "episodes per evaluation; 0 never evaluates", "section 4.1", low=0)
    save_every_frames: int = setting(100_000, "frames between checkpoints", "ours", low=1)
    start_from: str = setting(
        "", "run whose networks to begin with, such as runs/walk, or runs/walk/best", 'ours; "" draws them'
    )
    demonstrations: str = setting(
        "", "folder of recorded episodes, of which half of every batch is made", 'ours; "" takes none'
    )
    keep_replay: bool = setting(
        True, "keep the replay beside the checkpoint, so that a resumed run is the same run", "ours"
    )

    @property
    def height_and_width(self) -> tuple[int, int]:
        """Of an image, in pixels."""
        return self.image_size[0], self.image_size[-1]


@dataclass(frozen=True)
class Config:
    """One run, completely: what is asked for, with every default filled in."""

    task: str
    agent: str
    preset: str
    seed: int
    loop: LoopSettings
    agent_settings: Any

    @property
    def of_sequences(self) -> bool:
        """Whether the agent learns from sequences, and not from transitions."""
        return agent_kind(self.agent).learns_from == "sequences"

    def with_loop(self, **changes: Any) -> Config:
        """Return this with other settings of the loop."""
        return replace(self, loop=replace(self.loop, **changes))

    def flat(self) -> dict[str, Any]:
        """Return every setting of loop and agent by its name; no name occurs in both."""
        return dataclasses.asdict(self.loop) | dataclasses.asdict(self.agent_settings)


def transitions_kept(config: Config, num_worlds: int = 1) -> int:
    """Return how many transitions the replay of a run has room for.

    A short run never fills a large replay, so that it can be made longer and have missed nothing. An episode's
    start takes room too, and a user's own may be an agent step long.
    """
    per_agent_step = 2 if find_task(config.task).source == "factory" else 1
    agent_steps = config.loop.frames // config.loop.action_repeat
    return min(config.loop.replay_capacity, per_agent_step * agent_steps + num_worlds)


def reserve_bytes(config: Config) -> int:
    """Return what a run needs beside its replay, in bytes (see `storage.choose`)."""
    loop = config.loop
    if not config.of_sequences:
        height, width = loop.height_and_width
        return max(RESERVE_BYTES, RESERVE_BYTES * loop.batch_size * height * width // (256 * 84 * 84))
    # activations that the backward pass needs: 72,000 bytes per image and channel of the encoder's first layer,
    # with the steps imagined from it; 8.6 GB in the paper's batches
    images = loop.batch_size * config.agent_settings.sequence_length
    return max(RESERVE_BYTES, images * config.agent_settings.conv_depth * 72_000)


def setting_fields(agent: str) -> dict[str, dataclasses.Field[Any]]:
    """Return all settings that a run of this agent has, by name."""
    fields = [*dataclasses.fields(LoopSettings), *dataclasses.fields(agent_kind(agent).settings)]
    return {item.name: item for item in fields}


def resolve(
    task: str, agent: str = "drqv2", preset: str = "paper", seed: int = 1, **overrides: Any
) -> Config:
    """Fill in everything that `overrides` leaves open, and check it.

    Raises:
        ValueError: a name is unknown or a value impossible; says which, what is allowed, the nearest match.
    """
    kind = agent_kind(agent)
    if preset not in kind.presets:
        raise ValueError(unknown(f"preset of {agent}", preset, kind.presets))
    known = find_task(task)
    fields = setting_fields(agent)
    for name in overrides:
        if name not in fields:
            if owners := [other for other in AGENTS if name in setting_fields(other)]:
                raise ValueError(
                    f"{flag(name)} is a setting of {', '.join(owners)}, and not of {agent} (a sweep takes those "
                    f'of one agent alone in quotes: "{owners[0]} {flag(name)} ...")'
                )
            raise ValueError(unknown(f"setting of {agent}", name, fields))
    if not 0 <= seed < 2**31:
        raise ValueError(f"--seed is {seed}, but must be at least 0 and below 2**31")

    chosen: dict[str, Any] = {"frames": known.train_frames}
    if issubclass(kind.settings, drqv2.DrQV2Settings):  # the paper's own hyper-parameters, not its opponents'
        chosen |= {"stddev_duration": known.stddev_duration, **known.deviations}
    # the module of a user's own world may be named like a domain
    domain = "other" if known.source == "factory" else known.domain
    for name, value in kind.presets[preset].items():
        if name not in fields:
            raise ValueError(unknown(f"setting of the preset {preset} of {agent}", name, fields))
        chosen[name] = value.get(domain, value["other"]) if isinstance(value, Mapping) else value
    chosen |= {name: value for name, value in overrides.items() if (name, value) != ("frames", 0)}

    if known.source in ("toy", "factory") and {"camera", "depth", "proprio"} & overrides.keys():
        raise ValueError(
            f"--camera, --depth and --proprio are for dm_control's own tasks; {task} chooses for itself"
        )
    if known.source == "manipulation" and overrides.get("proprio"):
        raise ValueError(f"--proprio is for dm_control's suite; {task} is of its manipulation tasks")
    strange = OF_TRANSITIONS & overrides.keys()
    if kind.learns_from == "sequences" and strange:
        raise ValueError(
            f"{flag(min(strange))} is for agents that learn from transitions; {agent} learns from sequences: "
            "leave it out"
        )
    if kind.learns_from == "sequences":
        chosen["frame_stack"] = 1
    config = _config(task, agent, preset, seed, chosen)
    _check(config)
    return config


def _config(task: str, agent: str, preset: str, seed: int, values: Mapping[str, Any]) -> Config:
    """Split settings into those of the loop and those of the agent."""

    def of(kind: type) -> Any:
        names = {item.name for item in dataclasses.fields(kind)}
        return kind(**{name: value for name, value in values.items() if name in names})

    return Config(task, agent, preset, seed, of(LoopSettings), of(agent_kind(agent).settings))


def _check(config: Config) -> None:
    """Check each field, and what no field can check alone."""
    loop = config.loop
    check(loop)
    check(config.agent_settings)
    if len(loop.image_size) not in (1, 2):
        raise ValueError(
            f"--image-size is {spell(loop.image_size)}, but must be one number, or height and width: 96,128"
        )
    if loop.demonstrations and loop.batch_size < 2:
        raise ValueError("--batch-size is 1, but half of it is to be of --demonstrations; raise it")
    for name in ("frames", "seed_frames", "eval_every_frames", "save_every_frames"):
        value = getattr(loop, name)
        if value % loop.action_repeat:
            raise ValueError(
                f"{flag(name)} is {value} frames, but an agent step is --action-repeat {loop.action_repeat} "
                "frames; choose a multiple of it"
            )


def _values(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they were before JSON, which has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}


def read_config(run_dir: Path) -> Config:
    """Rebuild the configuration of a run from its `config.json`, exactly as it was resolved.

    A setting that is newer than the run has its default, which a warning says.

    Raises:
        ValueError: there is no run, or a stored setting is impossible or does not exist in this version.
    """
    path = run_dir / "config.json"
    if not path.exists():
        raise ValueError(f"{run_dir} holds no run: there is no {path}")
    stored = read_json(path)
    if missing := {"agent", "task", "preset", "seed", "settings"} - stored.keys():
        raise ValueError(f"{path} is not of a run: it lacks {', '.join(sorted(missing))}")
    agent = stored["agent"]
    fields = setting_fields(agent)
    values = _values(stored["settings"])
    of_commit = f"commit {stored.get('commit', 'unknown')}"
    if strange := sorted(values.keys() - fields.keys()):
        raise ValueError(
            f"{path} has settings that this version of pixelcontrol does not know, {', '.join(strange)}; use that "
            f"of {of_commit}"
        )
    if newer := [f"{flag(name)} {fields[name].default!r}" for name in fields.keys() - values.keys()]:
        warnings.warn(
            f"{path}, of {of_commit}, takes for what is newer: {', '.join(sorted(newer))}", stacklevel=2
        )
    config = _config(stored["task"], agent, stored["preset"], stored["seed"], values)
    _check(config)
    return config


def read_resumed(run_dir: Path, overrides: Mapping[str, Any]) -> Config:
    """Read the configuration of a run that is to go on, with what may change then (see `MOVABLE`).

    Args:
        run_dir: of the run.
        overrides: values by name, of settings or of what else makes a run, such as its task.

    Raises:
        ValueError: there is no run; or an override is fixed, impossible, or makes the run shorter.
    """
    config = read_config(run_dir)
    if fixed := sorted(overrides.keys() - MOVABLE):
        names = ", ".join(name if name == "task" else flag(name) for name in fixed)
        raise ValueError(
            f"--resume continues a run with its own settings, but {names} was given; leave it out, or start a "
            "new run"
        )
    before = config.loop
    config = config.with_loop(**overrides)
    _check(config)
    if config.loop.frames < before.frames:
        raise ValueError(
            f"--frames is {config.loop.frames}, but the run is of {before.frames:,}: it can be made longer, not "
            "shorter"
        )
    if bool(config.loop.demonstrations) != bool(before.demonstrations):
        raise ValueError(
            f"--demonstrations is {config.loop.demonstrations!r}, but the run's are {before.demonstrations!r}: "
            "they can be moved, not added or taken away; leave it out, or start a new run"
        )
    return config


def changed_settings(config: Config) -> dict[str, Any]:
    """Return the settings, by name, that matter for learning and are not those of the run's preset."""
    return _changed(config.task, config.agent, config.preset, config.flat())


def _changed(task: str, agent: str, preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    usual = resolve(task, agent, preset).flat()
    return {
        name: value
        for name, value in settings.items()
        if name in usual.keys() - INCIDENTAL and value != usual[name]
    }


def stored_changes(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return `changed_settings` of a stored run, against its preset as it is now; else what was stored of them.

    Args:
        run: what its `config.json` holds.
    """
    settings = _values(run.get("settings", {}))
    try:
        return _changed(run["task"], run["agent"], run["preset"], settings)
    except Exception:  # noqa: BLE001  a user's own agent is not here, or its module raises whatever it likes
        return _values(run.get("changed", {}))


def store_resumed(run_dir: Path, settings: Mapping[str, Any]) -> None:
    """Keep what a stored run is resumed with (see `MOVABLE`), so that the next resume need not be told again.

    Args:
        run_dir: of the run.
        settings: all that the run has now, by name.
    """
    content = read_json(run_dir / "config.json")
    now = content["settings"] | {name: value for name, value in settings.items() if name in MOVABLE}
    if content["settings"] != now:
        write_json(run_dir / "config.json", content | {"settings": now})
