"""The data that flows through the project, and the protocols its parts keep to.

Time alignment. One *row* is what one agent step leaves behind, for each of N worlds at once. A row holds the
image *after* the action, and the action, reward and discount that led to it::

    row        0          1          2                L        (0)
    image      o0         o1         o2               oL       o0'      o0' starts the next episode
    action     0     a0 ->     a1 ->      ...         a(L-1)   0
    reward     0          r1         r2               rL       0
    discount   1          1          1                dL       1        dL = 0 at a true end, 1 at a time limit
    first      True       False      False            False    True
    last       False      False      False            True     False

A transition that starts at row t therefore uses image t, action and reward t+1, discount t+1 and image t+1.
Discount is data: nothing in the project asks whether an episode is "done" before it bootstraps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class WorldSpec:
    """What one world looks like from outside.

    Attributes:
        action_dim: number of controls; every control is in [-1, 1], the world rescales.
        payload_shape: shape of what `World.observe` writes.
        payload_dtype: its NumPy dtype: "float32" for poses that a renderer turns into images, "uint8" for
            finished images of shape (channels, height, width).
        action_repeat: frames per agent step.
        episode_frames: frames until the time limit, or None when the world has none.
        repeats: whether an episode is a function of its seed and its actions. One that is not, such as a real
            robot's, is dropped when a run resumes: its actions are not repeated.
        proprio_dim: how many numbers of proprioception it gives beside its images (see `SensingWorld`).
        privileged_dim: how many numbers it discloses in training alone (see `DisclosingWorld`).
        tells_success: whether it knows when its task is achieved (see `JudgingWorld`).
        about: what whoever acts in it elsewhere must know of its images, proprioception and actions, in words.
        camera_channels: channels per camera, of which an image has several where it is of several cameras.
    """

    action_dim: int
    payload_shape: tuple[int, ...]
    payload_dtype: str
    action_repeat: int
    episode_frames: int | None
    repeats: bool = True
    proprio_dim: int = 0
    privileged_dim: int = 0
    tells_success: bool = False
    about: str = ""
    camera_channels: int = 3


@runtime_checkable
class World(Protocol):
    """One simulated environment, stepped in a worker process. It knows no other world, no agent, no device.

    A world is a deterministic function of the seed of its episode and the actions since, unless its spec says
    otherwise: this is what makes an exact resume possible for every simulator (reset with the same seed, repeat
    the same actions).
    """

    spec: WorldSpec

    def reset(self, seed: int) -> None:
        """Start a new episode whose every random draw comes from `seed` (0 <= seed < 2**32)."""

    def step(self, action: np.ndarray) -> tuple[float, float, bool]:
        """Advance one agent step (`action_repeat` frames, fewer at an episode's end).

        Args:
            action: float32 (action_dim,), in [-1, 1].

        Returns:
            reward: sum over the frames; discount: 0.0 only at a true end, else above 0 and at most 1; last: the
            episode is over.
        """

    def observe(self, out: np.ndarray) -> None:
        """Write the payload of the present moment into `out` (payload_shape, payload_dtype)."""

    def close(self) -> None:
        """Release what the simulator holds."""


@runtime_checkable
class SensingWorld(World, Protocol):
    """A world with proprioception: its `spec.proprio_dim` is not 0."""

    def sense(self, out: np.ndarray) -> None:
        """Write what the body senses at the present moment, such as joint angles and the gripper's state.

        Args:
            out: float32 (proprio_dim,), in any units: agents norm them.
        """


@runtime_checkable
class DisclosingWorld(World, Protocol):
    """A world with privileged information: its `spec.privileged_dim` is not 0."""

    def disclose(self, out: np.ndarray) -> None:
        """Write what the simulator knows of the present moment and a trained policy will not: positions, speeds.

        Args:
            out: float32 (privileged_dim,).
        """


@runtime_checkable
class JudgingWorld(World, Protocol):
    """A world that knows when its task is achieved: its `spec.tells_success` is True.

    Attributes:
        success: whether it has been, at this moment or before in the episode. Nothing learns from it.
    """

    success: bool


@runtime_checkable
class Renderer(Protocol):
    """Turns the payloads of N worlds into N images, on the device where the agent lives.

    Attributes:
        name: what results are filed under.
        image_shape: (channels, height, width).
    """

    name: str
    image_shape: tuple[int, int, int]

    def images(self, payload: np.ndarray) -> UInt8[Tensor, "worlds channels height width"]:
        """Draw (N, *payload_shape) payloads. The result is a fresh tensor on the renderer's device."""


@dataclass(frozen=True)
class TimeStep:
    """One row for each of N worlds (see the module docstring for the time alignment).

    The image is on the agent's device; the small fields are NumPy on the host, because the loop reads them
    at every step and a device read there would stall the device. Like the image, `proprio` and `privileged` are of
    the moment after the action; they have no columns where the worlds give none, or the agent makes no use of what
    is privileged. `success` is None where the worlds do not tell it.
    """

    image: UInt8[Tensor, "worlds channels height width"]
    action: Float32[np.ndarray, "worlds action"]
    reward: Float32[np.ndarray, " worlds"]
    discount: Float32[np.ndarray, " worlds"]
    first: Bool[np.ndarray, " worlds"]
    last: Bool[np.ndarray, " worlds"]
    proprio: Float32[np.ndarray, "worlds proprio"]
    privileged: Float32[np.ndarray, "worlds privileged"]
    success: Bool[np.ndarray, " worlds"] | None = None


class Observation(NamedTuple):
    """What an agent that learns from transitions acts on, for a batch of moments.

    The stack is the last `frame_stack` images on the channel axis, oldest first (paper, section 4.1).
    Proprioception is that of the newest moment alone, and has no columns where the worlds give none; so has
    what is privileged, which in training alone is there, for agents that make use of it (`AgentKind.privileged`).
    """

    stack: UInt8[Tensor, "batch channels height width"]
    proprio: Float32[Tensor, "batch proprio"]
    privileged: Float32[Tensor, "batch privileged"]

    @property
    def seen(self) -> tuple[Tensor, Tensor]:
        """What a policy may act on: the stack, and proprioception."""
        return self.stack, self.proprio


class Transitions(NamedTuple):
    """A batch of n-step transitions. `target = reward + discount * V(next_observation)`."""

    observation: Observation
    action: Float32[Tensor, "batch action"]
    reward: Float32[Tensor, " batch"]
    discount: Float32[Tensor, " batch"]
    next_observation: Observation


class Sequences(NamedTuple):
    """A batch of stretches of `length` rows, each of one episode; at row t the action that led to image t."""

    image: UInt8[Tensor, "length batch channels height width"]
    action: Float32[Tensor, "length batch action"]
    reward: Float32[Tensor, "length batch"]
    discount: Float32[Tensor, "length batch"]


@runtime_checkable
class Replay(Protocol):
    """Keeps the rows of N worlds and draws batches of them.

    Attributes:
        images: uint8 (rows, worlds, channels, height, width), a ring of rows; on the host or on the device.
        rows: of that ring.
        worlds: of each row.
        rows_added: since the run began; row r lies at `images[r % rows]`.
        generator: where the images are; every draw comes from it.
    """

    images: UInt8[Tensor, "rows worlds channels height width"]
    rows: int
    worlds: int
    rows_added: int
    generator: torch.Generator

    def __len__(self) -> int:
        """How many lines of its table a batch is drawn from.

        A sequence at an episode's end may have several, and is drawn so many times as often.
        """

    def add(self, step: TimeStep) -> None:
        """Append one row of every world, over the oldest row when the ring is full.

        Where the images lie on the learner's device, it must not wait for that.
        """

    def sample(self, batch_size: int) -> Any:
        """Draw a batch, uniformly and with replacement; a captured CUDA graph may hold this."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the images."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, of fewer rows perhaps; the images are the caller's."""


@runtime_checkable
class Memory(Protocol):
    """What an agent keeps of the running episodes of N worlds, and acts on.

    Attributes:
        observation: all that is kept, a tensor or an `Observation`, of every world; None before the first `push`.
    """

    observation: Any

    def push(self, step: TimeStep) -> Any:
        """Take in one row of every world, and return the new observation; `first` rows forget what was before."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the parts of the observation by name; none before the first `push`."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, whose tensors are on the agent's device."""


# What `Agent.update` does: learn from a batch at an agent step, and return metrics.
Update = Callable[[Any, Int64[Tensor, ""]], dict[str, Tensor]]


@runtime_checkable
class Agent(Protocol):
    """What the training loop needs of an agent. An agent knows no replay, logger, clock or file.

    What it learns from, `Transitions` or `Sequences`, stands in its `pixelcontrol.config.AgentKind`.

    Attributes:
        generator: on the agent's device; every random number that the agent draws comes from it.
        metric_names: of all that the updates of a cycle return; each is a column of `train.csv`.
    """

    generator: torch.Generator
    metric_names: tuple[str, ...]

    @property
    def update_cycle(self) -> tuple[Update, ...]:
        """The updates that a run makes in turn, over and over; just `update` where all are alike.

        Some agents update some of their networks less often than others. Whose turn it is, is known on the host
        by counting, so a GPU records each as a graph of its own.
        """

    def memory(self, generator: torch.Generator) -> Memory:
        """Return a memory for worlds that are about to start; what it has to draw comes from `generator`."""

    def act(self, observation: Any, agent_step: int) -> Float32[Tensor, "worlds action"]:
        """Choose exploring actions in [-1, 1] at this point of training, given a memory's observation."""

    def act_greedily(self, observation: Any) -> Float32[Tensor, "worlds action"]:
        """Choose the actions used in evaluation; deterministic, and leaves no trace in the agent."""

    def update(self, batch: Any, agent_step: Int64[Tensor, ""]) -> dict[str, Tensor]:
        """Learn from one batch. The metrics stay on the device as 0-dimensional tensors.

        Nothing here may wait for the device or branch on a tensor: a GPU records this method as one graph.
        """

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers and random state, as `torch.load(weights_only=True)` can read them."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
