"""The replay: a ring of rows in which every image is stored once, and a table of the transitions between them.

Rows of N worlds are written side by side, one row of each world per agent step, so the images are a plain
(rows, worlds, ...) array. A transition is worked out once, on the host, when its last row arrives, and drawn a
hundred times: the table holds the places of its images, its action, n-step return and discount. To sample is to
look up a line of the table, and then the images at its places. Observations never reach across the start of an
episode: before it, the first image is repeated.

The row n steps behind the newest becomes the start of a transition unless the episode ended there. So every step
of every episode is drawn, those of the running episode too, and all of them equally often.

Departures from the official replay, which loses data by accident: it never draws the last n - 1 starts of an
episode, sees an episode only after its end, and takes each batch from one worker's quarter of the data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32, UInt8
from torch import Tensor

from pixelcontrol.returns import n_step_return
from pixelcontrol.types import TimeStep, Transitions

# Rows that start an episode hold no transition: room for them beside `capacity` transitions, for episodes of
# 100 agent steps or more. Shorter episodes leave room for somewhat fewer transitions, never for more memory.
FIRST_ROWS_SHARE = 0.01


def ring_rows(capacity: int, num_worlds: int, n_step: int, frame_stack: int) -> int:
    """Return how many rows per world hold `capacity` transitions over all worlds."""
    per_world = -(-capacity // num_worlds)
    return int(per_world * (1 + FIRST_ROWS_SHARE)) + n_step + frame_stack


class _Row(NamedTuple):
    """What later rows need to know of one: its observations, as places of images, and how the worlds got there."""

    stack: Int32[np.ndarray, "worlds frame_stack"]
    action: Float32[np.ndarray, "worlds action"]
    reward: Float32[np.ndarray, " worlds"]
    discount: Float32[np.ndarray, " worlds"]
    first: Bool[np.ndarray, " worlds"]


class Replay:
    """Stores rows and samples n-step transitions uniformly over all that are complete.

    The table lives where the images were allocated (see `storage.allocate`). Sampling makes no decision on the
    host, so it can be part of a captured CUDA graph; adding reads no device memory, so it never waits for updates
    under way.
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
        seed: int,
    ) -> None:
        """Use `images` as the ring's image memory; its first two sizes are the ring's.

        Args:
            images: uint8 memory on the host or on `device`; its content is not read before it is written.
            action_dim: number of controls.
            n_step: rows that an n-step return spans at most.
            gamma: discount per agent step.
            frame_stack: images per observation.
            device: where batches are wanted.
            seed: of the draws.
        """
        self.rows, self.worlds = images.shape[:2]
        if self.rows <= n_step + frame_stack:
            raise ValueError(
                f"a replay of {self.rows} rows per world cannot hold n_step={n_step} plus "
                f"frame_stack={frame_stack} rows; raise replay_capacity"
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
        # The device's copy of (removed % lines, number of transitions), which sampling reads.
        self.drawable = torch.zeros(2, dtype=torch.int64, device=home)
        # The newest n + 1 rows, on the host.
        self.recent: deque[_Row] = deque(maxlen=n_step + 1)
        self.starts_in_row = np.zeros(self.rows, dtype=np.int64)
        self.rows_added = 0
        self.starts_added = 0
        self.starts_removed = 0
        self.oldest_start_row = 0
        self.generator = torch.Generator(home).manual_seed(seed)

    def __len__(self) -> int:
        """How many transitions can be drawn."""
        return self.starts_added - self.starts_removed

    def add(self, step: TimeStep) -> None:
        """Append one row of every world, over the oldest row when the ring is full.

        A `first` row after one that was not `last` is an episode that was cut off: its rows stay drawable, and
        returns at its end bootstrap from its last image, as at a time limit.
        """
        row = self.rows_added
        slot = row % self.rows
        self._retire_starts(oldest_kept=row - self.rows + self.frame_stack)
        self.images[slot] = step.image
        newest = slot * self.worlds + np.arange(self.worlds, dtype=np.int32)[:, None]
        stack = newest.repeat(self.frame_stack, axis=1)
        if row:  # before row 0 there are no images, though a resume without replay begins in mid-episode
            moved = np.hstack([self.recent[-1].stack[:, 1:], newest])
            stack = np.where(step.first[:, None], stack, moved)
        kept = (part.copy() for part in (step.action, step.reward, step.discount, step.first))
        self.recent.append(_Row(stack, *kept))
        self.rows_added += 1
        if row >= self.n_step:
            self._admit_starts(row - self.n_step)
        self.drawable.copy_(torch.tensor([self.starts_removed % len(self.places), len(self)]))

    def _retire_starts(self, oldest_kept: int) -> None:
        """Forget the starts of all rows before `oldest_kept`: part of their stack will be overwritten."""
        while self.oldest_start_row < oldest_kept:
            self.starts_removed += int(self.starts_in_row[self.oldest_start_row % self.rows])
            self.oldest_start_row += 1

    def _admit_starts(self, row: int) -> None:
        """Enter the transitions that start at `row`, the oldest recent one, where the next row goes on with it."""
        stack, action, reward, discount, first = map(np.stack, zip(*self.recent, strict=True))
        total, through, horizon = n_step_return(reward[1:].T, discount[1:].T, ~first[1:].T, self.gamma)
        ends = stack[horizon, np.arange(self.worlds)]
        starts = ~first[1]
        places = np.stack([stack[0], ends], axis=1)[starts]
        numbers = np.column_stack([total, through, action[1]])[starts]
        lines = (self.starts_added + np.arange(len(places))) % len(self.places)
        line, new_places, new_numbers = (
            torch.from_numpy(part).to(self.places.device) for part in (lines, places, numbers)
        )
        self.places[line], self.numbers[line] = new_places, new_numbers
        self.starts_in_row[row % self.rows] = len(places)
        self.starts_added += len(places)

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
        oldest, count = self.drawable
        # float64: a float32 draw could not tell a million starts apart evenly
        draw = torch.rand(
            batch_size, generator=self.generator, device=self.places.device, dtype=torch.float64
        )
        line = (oldest + (draw * count).long()) % len(self.places)
        places = self.places.index_select(0, line).transpose(0, 1).flatten()
        images = self.images.flatten(0, 1).index_select(0, places).to(self.device, non_blocking=True)
        # the images of a stack follow one another, and so do their channels
        observation, next_observation = images.view(2, batch_size, -1, *images.shape[-2:])
        numbers = self.numbers.index_select(0, line).to(self.device, non_blocking=True)
        return Transitions(
            observation=observation,
            action=numbers[:, 2:],
            reward=numbers[:, 0],
            discount=numbers[:, 1],
            next_observation=next_observation,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the images, and how many rows of those were ever added."""
        return {
            "places": self.places,
            "numbers": self.numbers,
            "recent": [[torch.from_numpy(part) for part in row] for row in self.recent],
            "starts_in_row": torch.from_numpy(self.starts_in_row),
            "rows_added": self.rows_added,
            "starts_added": self.starts_added,
            "starts_removed": self.starts_removed,
            "oldest_start_row": self.oldest_start_row,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the images are the caller's."""
        self.places.copy_(state["places"])
        self.numbers.copy_(state["numbers"])
        self.recent.clear()
        self.recent.extend(_Row(*(part.numpy() for part in parts)) for parts in state["recent"])
        self.starts_in_row[:] = state["starts_in_row"].numpy()
        for name in ("rows_added", "starts_added", "starts_removed", "oldest_start_row"):
            setattr(self, name, state[name])
        self.drawable.copy_(torch.tensor([self.starts_removed % len(self.places), len(self)]))
        self.generator.set_state(state["generator"].cpu())


class FrameStack:
    """Keeps the observation of N worlds while they run: the last images of each, oldest first."""

    def __init__(self, frame_stack: int) -> None:
        self.frame_stack = frame_stack
        self.observation: UInt8[Tensor, "worlds channels height width"] = torch.empty(0)

    def push(self, step: TimeStep) -> UInt8[Tensor, "worlds channels height width"]:
        """Add each world's newest image and return the observations; a `first` image fills its whole stack."""
        filled = step.image.repeat(1, self.frame_stack, 1, 1)
        if step.first.all():
            self.observation = filled
        else:
            moved = torch.cat([self.observation[:, step.image.shape[1] :], step.image], dim=1)
            first = torch.from_numpy(step.first).to(moved.device)
            self.observation = torch.where(first[:, None, None, None], filled, moved)
        return self.observation
