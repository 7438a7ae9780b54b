"""The replay: a ring of rows in which every image is stored once, and a table of what can be drawn from them.

Rows of N worlds are written side by side, one row of each world per agent step, so the images are a plain
(rows, worlds, ...) array. A transition is worked out once, on the host, when its last row arrives, and drawn a
hundred times: the table holds the places of its images, its action, n-step return and discount. To sample is to
look up a line of the table, then the images at its places, and the numbers beside the newest of each stack.
Observations never reach across the start of an episode: before it, the first image is repeated.

The row n steps behind the newest becomes the start of a transition unless the episode ended there. So every step
of every episode is drawn, those of the running episode too, and all of them equally often.

Departures from the official replay, which loses data by accident: it never draws the last n - 1 starts of an
episode, sees an episode only after its end, and takes each batch from one worker's quarter of the data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Int32, Int64, UInt8
from torch import Tensor

from pixelcontrol.machine import restore_generator, to_device
from pixelcontrol.returns import n_step_return
from pixelcontrol.types import Observation, Sequences, TimeStep, Transitions

Batch = TypeVar("Batch", Transitions, Sequences)


def joined(batch: Batch, other: Batch) -> Batch:
    """Return one batch of what two hold, in their order."""
    axis = 1 if isinstance(batch, Sequences) else 0

    def join(one: Any, two: Any) -> Any:
        if isinstance(one, Tensor):
            return torch.cat([one, two], axis)
        return type(one)(*(join(*parts) for parts in zip(one, two, strict=True)))

    joint: Batch = join(batch, other)
    return joint


def ring_rows(capacity: int, num_worlds: int, reach: int, episode_agent_steps: int = 100) -> int:
    """Return how many rows per world hold `capacity` transitions over all worlds.

    Args:
        capacity: transitions.
        num_worlds: worlds.
        reach: rows that one element of a batch spans.
        episode_agent_steps: length of an episode, whose first row holds no transition. If episodes are shorter,
            the ring holds fewer transitions: half of them where each is one agent step long.
    """
    per_world = -(-capacity // num_worlds)
    return int(per_world * (1 + 1 / episode_agent_steps)) + 1 + reach


class _Starts:
    """Which rows of the ring start something that can be drawn, and draws among those starts uniformly.

    Each start has a line in its replay's table, which is a ring of its own: lines are taken in turn, and given
    back in the same order, when the ring of rows goes over the row that starts there.
    """

    def __init__(self, rows: int, lines: int, generator: torch.Generator) -> None:
        self.lines = lines
        self.in_row = np.zeros(rows, dtype=np.int64)
        self.added = self.removed = 0
        self.oldest_row = 0
        # The device's copy of (removed % lines, number of starts), which sampling reads.
        self.drawable = torch.zeros(2, dtype=torch.int64, device=generator.device)
        self.generator = generator

    def __len__(self) -> int:
        return self.added - self.removed

    def retire(self, oldest_kept: int) -> None:
        """Forget the starts of all rows before `oldest_kept`: images that they need will be overwritten."""
        while self.oldest_row < oldest_kept:
            self.removed += int(self.in_row[self.oldest_row % len(self.in_row)])
            self.oldest_row += 1

    def admit(self, row: int, count: int) -> Int64[np.ndarray, " count"]:
        """Return the lines of `count` new starts at `row`."""
        lines = (self.added + np.arange(count)) % self.lines
        self.in_row[row % len(self.in_row)] = count
        self.added += count
        return lines

    def publish(self) -> None:
        """Let the device know what can be drawn now."""
        self.drawable.copy_(torch.tensor([self.removed % self.lines, len(self)]), non_blocking=True)

    def draw(self, count: int) -> Int64[Tensor, " count"]:
        """Draw lines uniformly, with replacement."""
        oldest, number = self.drawable
        # float64: a float32 draw could not tell a million starts apart evenly
        draw = torch.rand(count, generator=self.generator, device=self.drawable.device, dtype=torch.float64)
        return (oldest + (draw * number).long()) % self.lines

    def state_dict(self) -> dict[str, Any]:
        return {
            "starts_in_row": torch.from_numpy(self.in_row),
            "starts_added": self.added,
            "starts_removed": self.removed,
            "oldest_start_row": self.oldest_row,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _restore_lines(torch.from_numpy(self.in_row), state["starts_in_row"])
        self.added, self.removed = state["starts_added"], state["starts_removed"]
        self.oldest_row = state["oldest_start_row"]
        self.publish()
        restore_generator(self.generator, state["generator"])


def _restore_lines(table: Tensor, kept: Tensor) -> None:
    """Fill a table with what was kept of it; its first lines alone where the run was lengthened since."""
    table[: len(kept)].copy_(kept)


def _gather(
    images: UInt8[Tensor, "rows worlds channels height width"],
    places: Int[Tensor, " n"],
    device: torch.device,
) -> UInt8[Tensor, "n channels height width"]:
    """Return the images at `places`; from the host to a GPU by way of pinned memory, so that nobody waits."""
    ring = images.flatten(0, 1)
    if images.device.type == device.type:
        return ring.index_select(0, places)
    pinned = torch.empty((len(places), *ring.shape[1:]), dtype=torch.uint8, pin_memory=True)
    return torch.index_select(ring, 0, places, out=pinned).to(device, non_blocking=True)


class _Row(NamedTuple):
    """What later rows need to know of one: its observations, as places of images, and how the worlds got there."""

    stack: Int32[np.ndarray, "worlds frame_stack"]
    action: Float32[np.ndarray, "worlds action"]
    reward: Float32[np.ndarray, " worlds"]
    discount: Float32[np.ndarray, " worlds"]
    first: Bool[np.ndarray, " worlds"]


class TransitionReplay:
    """Stores rows and samples n-step transitions uniformly over all that are complete.

    The table lives where the images were allocated (see `storage.allocate`). On a GPU sampling makes no decision
    on the host, so it can be part of a captured CUDA graph, and adding reads no device memory, so it never waits
    for updates under way. Where images lie in RAM or on disk, a GPU's batches are gathered on the host.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "rows worlds channels height width"],
        *,
        action_dim: int,
        n_step: int,
        gamma: float,
        frame_stack: int,
        device: torch.device,
        generator: torch.Generator,
        proprio_dim: int = 0,
        privileged_dim: int = 0,
    ) -> None:
        """Use `images` as the ring's image memory; its first two sizes are the ring's.

        Args:
            images: uint8 memory on the host or on `device`; its content is not read before it is written.
            action_dim: number of controls.
            n_step: rows that an n-step return spans at most.
            gamma: discount per agent step.
            frame_stack: images per observation.
            device: where batches are wanted.
            generator: where the images are; every draw comes from it.
            proprio_dim: numbers of proprioception per row and world.
            privileged_dim: privileged numbers per row and world.
        """
        self.rows, self.worlds = images.shape[:2]
        if self.rows <= n_step + frame_stack:
            raise ValueError(
                f"a replay of {self.rows} rows per world cannot hold n_step={n_step} plus "
                f"frame_stack={frame_stack} rows; raise --replay-capacity"
            )
        self.images = images
        self.n_step, self.gamma, self.frame_stack = n_step, gamma, frame_stack
        self.device = device
        # Indices are computed where the images are, so that no index crosses to another device.
        home = images.device
        lines = self.rows * self.worlds
        # The table, a ring of its own: where the images of observation and next observation lie, as row * worlds +
        # world; and return, discount, action.
        self.places = torch.zeros(lines, 2, frame_stack, dtype=torch.int32, device=home)
        self.numbers = torch.zeros(lines, 2 + action_dim, device=home)
        # Proprioception of every row and what is privileged, at the place of its image.
        self.beside_dims = [proprio_dim, privileged_dim]
        self.beside = torch.zeros(lines, sum(self.beside_dims), device=home)
        # The newest n + 1 rows, on the host.
        self.recent: deque[_Row] = deque(maxlen=n_step + 1)
        self.starts = _Starts(self.rows, lines, generator)
        self.generator = generator
        self.rows_added = 0

    def __len__(self) -> int:
        """How many transitions can be drawn."""
        return len(self.starts)

    def add(self, step: TimeStep) -> None:
        """Append one row of every world, over the oldest row when the ring is full.

        A `first` row after one that was not `last` is an episode that was cut off: its rows stay drawable, and
        returns at its end bootstrap from its last image, as at a time limit.
        """
        row = self.rows_added
        slot = row % self.rows
        self.starts.retire(oldest_kept=row - self.rows + self.frame_stack)
        self.images[slot] = step.image
        beside = np.hstack([step.proprio, step.privileged])
        self.beside.view(self.rows, self.worlds, -1)[slot] = to_device(beside, self.beside.device)
        newest = slot * self.worlds + np.arange(self.worlds, dtype=np.int32)[:, None]
        stack = newest.repeat(self.frame_stack, axis=1)
        if row:  # before row 0 there are no images, though a resume without replay begins in mid-episode
            moved = np.hstack([self.recent[-1].stack[:, 1:], newest])
            stack = np.where(step.first[:, None], stack, moved)
        kept = (part.copy() for part in (step.action, step.reward, step.discount, step.first))
        self.recent.append(_Row(stack, *kept))
        self.rows_added += 1
        if row >= self.n_step:
            self._admit(row - self.n_step)
        self.starts.publish()

    def _admit(self, row: int) -> None:
        """Enter the transitions that start at `row`, the oldest recent one, where the next row goes on with it."""
        stack, action, reward, discount, first = map(np.stack, zip(*self.recent, strict=True))
        total, through, horizon = n_step_return(reward[1:].T, discount[1:].T, ~first[1:].T, self.gamma)
        ends = stack[horizon, np.arange(self.worlds)]
        starts = ~first[1]
        places = np.stack([stack[0], ends], axis=1)[starts]
        numbers = np.column_stack([total, through, action[1]])[starts]
        lines = self.starts.admit(row, len(places))
        line, new_places, new_numbers = (
            to_device(part, self.places.device) for part in (lines, places, numbers)
        )
        self.places[line], self.numbers[line] = new_places, new_numbers

    def sample(self, batch_size: int) -> Transitions:
        """Draw transitions uniformly, with replacement.

        Raises:
            ValueError: the replay has no transition yet.
        """
        if len(self) == 0:
            raise ValueError(
                f"the replay holds no transition yet: {self.rows_added} rows were added and n_step is "
                f"{self.n_step}; add more before sampling"
            )
        line = self.starts.draw(batch_size)
        places = self.places.index_select(0, line).transpose(0, 1)
        newest = places[:, :, -1].flatten()
        images = _gather(self.images, places.flatten(), self.device)
        beside, numbers = (
            part.to(self.device, non_blocking=True)
            for part in (self.beside.index_select(0, newest), self.numbers.index_select(0, line))
        )
        # the images of a stack follow one another, and so do their channels
        stack, next_stack = images.view(2, batch_size, -1, *images.shape[-2:])
        now, later = beside.unflatten(0, (2, batch_size))
        return Transitions(
            observation=Observation(stack, *now.split(self.beside_dims, dim=1)),
            action=numbers[:, 2:],
            reward=numbers[:, 0],
            discount=numbers[:, 1],
            next_observation=Observation(next_stack, *later.split(self.beside_dims, dim=1)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the images, and how many rows of those were ever added."""
        return {
            "places": self.places,
            "numbers": self.numbers,
            "beside": self.beside,
            "recent": [[torch.from_numpy(part) for part in row] for row in self.recent],
            "rows_added": self.rows_added,
            **self.starts.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the images are the caller's."""
        for name in ("places", "numbers", "beside"):
            _restore_lines(getattr(self, name), state[name])
        self.recent.clear()
        self.recent.extend(_Row(*(part.numpy() for part in parts)) for parts in state["recent"])
        self.rows_added = state["rows_added"]
        self.starts.load_state_dict(state)


class SequenceReplay:
    """Stores rows and samples sequences of `length` rows of one episode, uniformly over all that are complete.

    Reward, discount and action of a row lie beside its image; the table holds where each sequence begins: at every
    row of an episode but its last `length - 1`. Episodes of fewer rows are never drawn.

    Departure from Dreamer-v2's replay, which draws an episode and then a sequence of it, and no running episode:
    where all episodes are equally long, as in the paper's tasks, both draw every sequence equally often.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "rows worlds channels height width"],
        *,
        action_dim: int,
        length: int,
        device: torch.device,
        generator: torch.Generator,
        oversample_ends: bool = False,
    ) -> None:
        """Use `images` as the ring's image memory; its first two sizes are the ring's.

        Args:
            images: uint8 memory on the host or on `device`; its content is not read before it is written.
            action_dim: number of controls.
            length: rows of a sequence.
            device: where batches are wanted.
            generator: where the images are; every draw comes from it.
            oversample_ends: draw an episode's last sequence `length` times as often as another, so that ends are
                seen as often as other rows (the official code's `oversample_ends`).
        """
        self.rows, self.worlds = images.shape[:2]
        if self.rows < length:
            raise ValueError(
                f"a replay of {self.rows} rows per world cannot hold a sequence of {length}; raise "
                "--replay-capacity or lower --sequence-length"
            )
        self.images = images
        self.length, self.oversample_ends = length, oversample_ends
        self.device = device
        home = images.device
        lines = self.rows * self.worlds
        # Where the first image of each sequence lies, as row * worlds + world.
        self.places = torch.zeros(lines, dtype=torch.int32, device=home)
        # Reward, discount and action of every row, at the place of its image.
        self.numbers = torch.zeros(lines, 2 + action_dim, device=home)
        self.onwards = self.worlds * torch.arange(length, device=home)[:, None]
        # Rows of each running episode so far.
        self.episode_rows = np.zeros(self.worlds, dtype=np.int64)
        self.starts = _Starts(self.rows, lines, generator)
        self.generator = generator
        self.rows_added = 0

    def __len__(self) -> int:
        """How many sequences can be drawn; an episode's last counts `length` times with `oversample_ends`."""
        return len(self.starts)

    def add(self, step: TimeStep) -> None:
        """Append one row of every world, over the oldest row when the ring is full."""
        row = self.rows_added
        slot = row % self.rows
        self.starts.retire(oldest_kept=row - self.rows + 1)
        self.images[slot] = step.image
        numbers = np.column_stack([step.reward, step.discount, step.action])
        home = slice(slot * self.worlds, (slot + 1) * self.worlds)
        self.numbers[home] = to_device(numbers, self.numbers.device)
        self.episode_rows = np.where(step.first, 1, self.episode_rows + 1)
        self.rows_added += 1
        if self.rows_added >= self.length:
            self._admit(self.rows_added - self.length, step.last)
        self.starts.publish()

    def _admit(self, row: int, last: Bool[np.ndarray, " worlds"]) -> None:
        """Enter the sequences that start at `row`, where the episode reached the newest row, its last or not."""
        worlds = np.flatnonzero(self.episode_rows >= self.length)
        if self.oversample_ends:
            worlds = worlds.repeat(np.where(last[worlds], self.length, 1))
        lines = self.starts.admit(row, len(worlds))
        places = (row % self.rows * self.worlds + worlds).astype(np.int32)
        line, new_places = (to_device(part, self.places.device) for part in (lines, places))
        self.places[line] = new_places

    def sample(self, batch_size: int) -> Sequences:
        """Draw sequences uniformly, with replacement.

        Raises:
            ValueError: the replay has no whole sequence yet.
        """
        if len(self) == 0:
            raise ValueError(
                f"the replay holds no sequence of {self.length} rows of one episode yet: {self.rows_added} rows "
                "of each world were added; raise --seed-frames, or lower --sequence-length to what episodes have"
            )
        first = self.places.index_select(0, self.starts.draw(batch_size))
        places = ((first + self.onwards) % len(self.places)).flatten()
        images = _gather(self.images, places, self.device)
        numbers = self.numbers.index_select(0, places).to(self.device, non_blocking=True)
        numbers = numbers.view(self.length, batch_size, -1)
        return Sequences(
            image=images.view(self.length, batch_size, *images.shape[1:]),
            action=numbers[..., 2:],
            reward=numbers[..., 0],
            discount=numbers[..., 1],
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the images, and how many rows of those were ever added."""
        return {
            "places": self.places,
            "numbers": self.numbers,
            "episode_rows": torch.from_numpy(self.episode_rows),
            "rows_added": self.rows_added,
            **self.starts.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the images are the caller's."""
        for name in ("places", "numbers"):
            _restore_lines(getattr(self, name), state[name])
        self.episode_rows[:] = state["episode_rows"].numpy()
        self.rows_added = state["rows_added"]
        self.starts.load_state_dict(state)
