"""Demonstrations: episodes that somebody else acted, a person or a program, of which half of every batch is made.

Source of the halves: Ball et al., *Efficient Online Reinforcement Learning with Offline Data*, 2023
(arXiv:2302.02948), "symmetric sampling". The other half is what the agent does itself, as always.

An episode of T agent steps is one file, as `numpy.savez` writes it, in a folder of them::

    image       uint8 (T + 1, channels, height, width)  as the agent will see them
    action      float32 (T, action_dim), in [-1, 1]     action[t] led from image[t] to image[t + 1]
    reward      float32 (T,)                            reward[t] is what that gave
    discount    float32 (T,)                            0 at a true end, else 1
    proprio     float32 (T + 1, proprio_dim)            where the world gives proprioception
    privileged  float32 (T + 1, privileged_dim)         where the agent makes use of what the world discloses
    action_repeat  int64 ()                             frames for which each action was held; may be left out
    about          str ()                               what images and numbers are; may be left out

`record` writes them; so may any other program.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import numpy as np
import torch

from pixelcontrol.build import Shapes, build_env, build_replay, choose_hardware, reach
from pixelcontrol.config import Config
from pixelcontrol.envs.vector import VectorEnv
from pixelcontrol.machine import to_device
from pixelcontrol.types import Replay, TimeStep, WorldSpec

# Random streams of recorded episodes: each is numbered on from those of training and evaluation.
FIRST_STREAM = 2

# From the image of now, and proprioception where the world gives some, to an action; None ends the episode.
Act = Callable[..., np.ndarray | None]


@dataclass(frozen=True)
class Demonstrations:
    """A folder's episodes, in the host's memory.

    Attributes:
        folder: where they were found.
        episodes: the arrays of each file, all six of them.
        sha256: of the files, so that a resumed run is known to go on with the same.
    """

    folder: Path
    episodes: list[Mapping[str, np.ndarray]]
    sha256: str

    @property
    def size_bytes(self) -> int:
        """What the images take."""
        return sum(episode["image"].nbytes for episode in self.episodes)

    @property
    def description(self) -> str:
        """What this is, for people."""
        agent_steps = sum(len(episode["reward"]) for episode in self.episodes)
        return (
            f"{len(self.episodes)} episodes of {self.folder}, {agent_steps:,} agent steps, "
            f"{self.size_bytes / 1e9:.2f} GB"
        )

    def replay(self, config: Config, env: VectorEnv, own: Replay, device: torch.device) -> Replay:
        """Return a replay of them, to which nothing is to be added.

        Args:
            config: of the run.
            env: its worlds.
            own: its own replay: images lie on the same device, and all draws come from one generator.
            device: where batches are wanted.

        Raises:
            ValueError: no episode is as long as a sequence.
        """
        # what the last return waits for, and what a ring holds back
        waited = config.loop.n_step - 1
        rows = sum(len(episode["image"]) for episode in self.episodes) + waited + reach(config)
        images = torch.empty(rows, 1, *env.image_shape, dtype=torch.uint8, device=own.images.device)
        replay = build_replay(config, images, Shapes.of(env), device, own.generator)
        for episode in self.episodes:
            for step in _rows(episode, images.device):
                replay.add(step)
        for _ in range(waited):
            replay.add(next(_rows(self.episodes[-1], images.device)))
        if not len(replay):
            raise ValueError(
                f"--demonstrations is {self.folder}, but no episode there has the {reach(config)} images of a "
                "sequence"
            )
        return replay


def read_demonstrations(config: Config, env: VectorEnv) -> Demonstrations:
    """Read the folder `config.loop.demonstrations`, for worlds as those of `env`.

    Raises:
        ValueError: there are none, or one does not fit the worlds; names the file, and what it must hold.
    """
    folder = Path(config.loop.demonstrations)
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise ValueError(f"--demonstrations is {folder}, but there is no episode in it, such as 1.npz")
    digest = hashlib.sha256()
    episodes = []
    for file in files:
        content = file.read_bytes()
        digest.update(content)
        episodes.append(_read(file, content, env))
    return Demonstrations(folder, episodes, digest.hexdigest())


def _read(file: Path, content: bytes, env: VectorEnv) -> Mapping[str, np.ndarray]:
    """Return an episode's arrays, all six, once they are what `env` would give.

    Raises:
        ValueError: they are not.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            episode = dict(arrays)
    except Exception as error:  # NumPy, zip and their decoders raise whatever they like
        raise ValueError(f"{file} cannot be read: {error}; write it with numpy.savez") from error
    _compare_worlds(file, episode.pop("about", None), episode.pop("action_repeat", None), env.spec)
    steps = episode["reward"].size if "reward" in episode else 0
    nothing = np.zeros((steps + 1, 0), dtype=np.float32)
    episode = {"proprio": nothing, "privileged": nothing} | episode
    if not env.spec.privileged_dim:  # recorded for another agent, which makes use of it
        episode["privileged"] = nothing
    _refuse_other_arrays(file, episode, steps, env)
    _refuse_out_of_bounds(file, episode)
    if steps == 0:
        raise ValueError(f"{file} holds no agent step")
    return episode


def _compare_worlds(file: Path, about: np.ndarray | None, held: np.ndarray | None, spec: WorldSpec) -> None:
    """Compare what an episode says of its world, if it does, with the run's; only the words may differ."""
    if about is not None and str(about) != spec.about:
        warnings.warn(
            f"{file} is of another world than this run's, where {spec.about}: {about}", stacklevel=2
        )
    if held is not None and not np.array_equal(held, spec.action_repeat):
        raise ValueError(
            f"{file}: its actions were held for {held} frames, and this run's are for {spec.action_repeat}: use "
            f"--action-repeat {held}, or record anew"
        )


def _refuse_other_arrays(file: Path, episode: Mapping[str, np.ndarray], steps: int, env: VectorEnv) -> None:
    """Refuse an episode of `steps` agent steps whose arrays are not what the run's worlds give."""
    spec = env.spec
    if spec.privileged_dim and not episode["privileged"].size:
        raise ValueError(
            f"{file} holds nothing privileged, which this agent learns with: record it for such an agent, as by "
            "resolve(task, 'privileged', ...)"
        )
    wanted = {
        "image": (np.uint8, (steps + 1, *env.image_shape)),
        "action": (np.float32, (steps, spec.action_dim)),
        "reward": (np.float32, (steps,)),
        "discount": (np.float32, (steps,)),
        "proprio": (np.float32, (steps + 1, spec.proprio_dim)),
        "privileged": (np.float32, (steps + 1, spec.privileged_dim)),
    }
    for name, (dtype, shape) in wanted.items():
        if name not in episode:
            raise ValueError(f"{file} has no array {name!r}; it must hold {', '.join(wanted)}")
        array = episode[name]
        if name == "image" and array.shape[:-2] == shape[:-2] and array.shape != shape:
            size = ",".join(map(str, array.shape[-2:]))
            raise ValueError(
                f"{file}: its images have {size} pixels (height, width), and this run's {env.image_shape[1]},"
                f"{env.image_shape[2]}: use --image-size {size}, or record anew"
            )
        if (array.dtype, array.shape) != (dtype, shape):
            raise ValueError(
                f"{file}: {name} is {array.dtype} {array.shape}, but must be {np.dtype(dtype)} {shape}: an "
                f"episode of T agent steps has T rewards, here {steps}, and T + 1 images as this run's worlds give"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{file}: {name} holds numbers that are not finite")


def _refuse_out_of_bounds(file: Path, episode: Mapping[str, np.ndarray]) -> None:
    """Refuse actions that no agent takes, and discounts that no world gives."""
    for name, low in (("action", -1.0), ("discount", 0.0)):
        outside = episode[name][(episode[name] < low) | (episode[name] > 1.0)]
        if outside.size:
            raise ValueError(f"{file}: {name} holds {outside[0]}, but must lie from {low:g} to 1")


def _rows(episode: Mapping[str, np.ndarray], device: torch.device) -> Iterator[TimeStep]:
    """Lay out an episode as the rows of one world (see `types`)."""
    steps = len(episode["reward"])
    no_action = np.zeros((1, episode["action"].shape[1]), dtype=np.float32)
    for t in range(steps + 1):
        past = slice(t - 1, t)  # the step that led to this image
        yield TimeStep(
            image=to_device(episode["image"][t : t + 1], device),
            action=episode["action"][past] if t else no_action,
            reward=episode["reward"][past] if t else np.zeros(1, dtype=np.float32),
            discount=episode["discount"][past] if t else np.ones(1, dtype=np.float32),
            first=np.array([t == 0]),
            last=np.array([t == steps]),
            proprio=episode["proprio"][t : t + 1],
            privileged=episode["privileged"][t : t + 1],
        )


def record(config: Config, begin: Callable[[], Act], folder: str | Path, episodes: int) -> list[float]:
    """Run episodes of a task in which somebody else chooses the actions, and write each to a file of its own.

    Episodes begin otherwise than those which the folder holds already. The world runs in a process of its own,
    which imports the script that asks for it: call this under `if __name__ == "__main__":` there.

    Args:
        config: names the task and what its worlds are like; the run that learns from this must have the same.
        begin: called before each episode; returns what chooses its actions, given the image of now, uint8
            (channels, height, width), and, where the world gives some, proprioception: `policy.episode`, say, or
            `lambda: joystick`. One with an argument `privileged` is given what the world discloses, if the agent
            that is to learn from it makes use of that, by name. An action is (action_dim,), in [-1, 1], held for
            `action_repeat` frames; None ends the episode there, and all recording where it comes before the first
            action.
        folder: made if need be.
        episodes: how many.

    Returns:
        The return of each, undiscounted.

    Raises:
        ValueError: an action of another shape or outside [-1, 1], or the task cannot be built.
        WorkerError: the world failed beyond mending; the episodes before are written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    before = [file.name.partition("-")[0] for file in folder.glob("*-return-*.npz")]
    number = max((int(name) for name in before if name.isdecimal()), default=0)
    env = build_env(config, choose_hardware(config), 1, FIRST_STREAM + number)
    returns: list[float] = []
    try:
        while len(returns) < episodes:
            rows = _run_episode(env, begin)
            if len(rows) == 1:
                break
            number += 1
            returns.append(sum(float(row.reward[0]) for row in rows))
            told = [row.success[0] for row in rows[1:] if row.success is not None]
            success = ("-success" if any(told) else "-failure") if told else ""
            name = f"{number:04d}-return-{returns[-1]:.0f}{success}.npz"
            _write(folder / name, rows, env.spec)
    finally:
        env.close()
    return returns


def _run_episode(env: VectorEnv, begin: Callable[[], Act]) -> list[TimeStep]:
    """Return the rows of one episode of the one world, from its first to where it ends or its actor ends it."""
    rows, act = [env.reset()], begin()
    while not rows[-1].last[0]:
        # copies, for an actor may draw on its picture
        sensed = (rows[-1].proprio[0].copy(),) if env.spec.proprio_dim else ()
        told = (
            {"privileged": rows[-1].privileged[0].copy()} if "privileged" in signature(act).parameters else {}
        )
        action = act(rows[-1].image[0].cpu().numpy().copy(), *sensed, **told)
        if action is None:
            break
        env.send(np.asarray(action, dtype=np.float32)[None])
        step = env.receive()
        if step.first[0]:  # the world failed, and begins a new episode
            rows, act = [], begin()
        rows.append(step)
    return rows


def _write(path: Path, rows: list[TimeStep], spec: WorldSpec) -> None:
    """Write an episode; a file of this name is whole or not there."""
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("wb") as file:
        np.savez_compressed(
            file,
            image=torch.cat([row.image for row in rows]).cpu().numpy(),
            action=np.concatenate([row.action for row in rows[1:]]),
            reward=np.concatenate([row.reward for row in rows[1:]]),
            discount=np.concatenate([row.discount for row in rows[1:]]),
            proprio=np.concatenate([row.proprio for row in rows]),
            privileged=np.concatenate([row.privileged for row in rows]),
            action_repeat=np.int64(spec.action_repeat),
            about=np.str_(spec.about),
        )
    unfinished.rename(path)
