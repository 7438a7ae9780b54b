"""The replay: a ring of rows in which every image is stored once.

Rows of N worlds are written side by side, one row of each world per agent step, so the ring is a plain
(rows, worlds, ...) array per quantity. Observations are rebuilt from single images by index, and never reach
across the start of an episode: before it, the first image is repeated.

A *start* is a row from which a transition can be drawn. The row n steps behind the newest is examined as each
new row arrives; it becomes a start unless the episode ended there. So every step of every episode is drawn,
those of the running episode too, and all of them equally often.

Departures from the official replay, which loses data by accident: it never draws the last n - 1 starts of an
episode, sees an episode only after its end, and takes each batch from one worker's quarter of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
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


class Replay:
    """Stores rows and samples n-step transitions uniformly over all starts.

    Everything small lives on `device`; the images live where `images` was allocated (see `storage.allocate`).
    Sampling makes no decision on the host, so it can be part of a captured CUDA graph.
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
        self.action = torch.zeros(self.rows, self.worlds, action_dim, device=home)
        self.reward = torch.zeros(self.rows, self.worlds, device=home)
        self.discount = torch.ones(self.rows, self.worlds, device=home)
        self.first = torch.zeros(self.rows, self.worlds, dtype=torch.bool, device=home)

        # Starts, in the order in which they became drawable: a ring of its own, of places row * worlds + world.
        self.starts = torch.zeros(self.rows * self.worlds, dtype=torch.int64, device=home)
        # The device's copy of (starts_removed % size, number of starts), which sampling reads.
        self.drawable = torch.zeros(2, dtype=torch.int64, device=home)
        self.starts_in_row = np.zeros(self.rows, dtype=np.int64)
        # Adding rows reads no device memory, so that it never waits for updates under way.
        self.first_on_host = np.zeros((self.rows, self.worlds), dtype=bool)
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
        self.action[slot] = torch.from_numpy(step.action)
        self.reward[slot] = torch.from_numpy(step.reward)
        self.discount[slot] = torch.from_numpy(step.discount)
        # the images before row 0 are not here, though a resume without replay begins in mid-episode
        first = step.first if row else np.ones_like(step.first)
        self.first[slot] = torch.from_numpy(first)
        self.first_on_host[slot] = first
        self.rows_added += 1
        if row >= self.n_step:
            self._admit_starts(row - self.n_step)
        self.drawable.copy_(torch.tensor([self.starts_removed % len(self.starts), len(self)]))

    def _retire_starts(self, oldest_kept: int) -> None:
        """Forget the starts of all rows before `oldest_kept`: part of their stack will be overwritten."""
        while self.oldest_start_row < oldest_kept:
            self.starts_removed += int(self.starts_in_row[self.oldest_start_row % self.rows])
            self.oldest_start_row += 1

    def _admit_starts(self, row: int) -> None:
        """Make `row` drawable in every world in which the next row belongs to the same episode."""
        slot, following = row % self.rows, (row + 1) % self.rows
        worlds = np.flatnonzero(~self.first_on_host[following])
        count = len(worlds)
        places = (self.starts_added + np.arange(count)) % len(self.starts)
        self.starts[torch.from_numpy(places)] = torch.from_numpy(slot * self.worlds + worlds).to(
            self.starts.device
        )
        self.starts_in_row[slot] = count
        self.starts_added += count

    def sample(self, batch_size: int) -> Transitions:
        """Draw transitions uniformly, with replacement, over all starts.

        Raises:
            ValueError: the replay has no start yet.
        """
        if len(self) == 0:
            raise ValueError(
                f"the replay holds no transition yet: {self.rows_added} rows were added and n_step is "
                f"{self.n_step}; add more before sampling"
            )
        home = self.starts.device
        oldest, count = self.drawable
        # float64: a float32 draw could not tell a million starts apart evenly
        draw = torch.rand(batch_size, generator=self.generator, device=home, dtype=torch.float64)
        start = self.starts[(oldest + (draw * count).long()) % len(self.starts)]
        return self.transitions(start // self.worlds, start % self.worlds)

    def transitions(self, slot: Int64[Tensor, " batch"], world: Int64[Tensor, " batch"]) -> Transitions:
        """Build the transitions that start in these slots of the ring."""
        ahead = torch.arange(1, self.n_step + 1, device=slot.device)
        window = (slot[:, None] + ahead) % self.rows
        lane = world[:, None]
        reward, discount, horizon = n_step_return(
            self.reward[window, lane], self.discount[window, lane], ~self.first[window, lane], self.gamma
        )
        ends = torch.cat([slot, (slot + horizon) % self.rows])
        observation, next_observation = self._stacks(ends, world.repeat(2)).chunk(2)
        batch = Transitions(
            observation=observation,
            action=self.action[window[:, 0], world],
            reward=reward,
            discount=discount,
            next_observation=next_observation,
        )
        return Transitions(*(part.to(self.device, non_blocking=True) for part in batch))

    def _stacks(
        self, slot: Int64[Tensor, " batch"], world: Int64[Tensor, " batch"]
    ) -> UInt8[Tensor, "batch channels height width"]:
        """Gather the images that end in `slot`, oldest first; the episode's first image fills the past."""
        slots = [slot]
        for _ in range(self.frame_stack - 1):
            newest = slots[0]
            earlier = torch.where(self.first[newest, world], newest, (newest - 1) % self.rows)
            slots.insert(0, earlier)
        places = (torch.stack(slots, dim=1) * self.worlds + world[:, None]).flatten()
        images = self.images.flatten(0, 1).index_select(0, places)
        return images.view(len(slot), -1, *self.images.shape[-2:])

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the images, and how many rows of those were ever added."""
        return {
            "action": self.action,
            "reward": self.reward,
            "discount": self.discount,
            "first": self.first,
            "starts": self.starts,
            "starts_in_row": torch.from_numpy(self.starts_in_row),
            "rows_added": self.rows_added,
            "starts_added": self.starts_added,
            "starts_removed": self.starts_removed,
            "oldest_start_row": self.oldest_start_row,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the images are the caller's."""
        for name in ("action", "reward", "discount", "first", "starts"):
            getattr(self, name).copy_(state[name])
        self.starts_in_row[:] = state["starts_in_row"].numpy()
        self.first_on_host[:] = state["first"].cpu().numpy()
        for name in ("rows_added", "starts_added", "starts_removed", "oldest_start_row"):
            setattr(self, name, state[name])
        self.drawable.copy_(torch.tensor([self.starts_removed % len(self.starts), len(self)]))
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
