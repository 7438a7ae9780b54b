"""The replay, against an obvious one: a list of episodes per world, each a list of rows, walked step by step.

Images tell where they come from: every pixel of a row's image holds the row's number (low byte, high byte) and
its world, so a stack of images can be read back as row numbers. So does what a world senses.
"""

import io
from collections import Counter
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pixelcontrol.memory import FrameStack
from pixelcontrol.replay import SequenceReplay, TransitionReplay, ring_rows
from pixelcontrol.types import TimeStep

CPU = torch.device("cpu")
STACK = 3
GAMMA = 0.5


@dataclass(frozen=True)
class Row:
    """One world's share of a `TimeStep`; `number` counts the rows of this world."""

    number: int
    world: int
    reward: float
    discount: float
    first: bool
    last: bool

    @property
    def action(self):
        """Zero on a `first` row; otherwise it tells its row and world."""
        return [0.0, 0.0] if self.first else [self.number / 1024, self.world / 1024]


def rows_of_world(world, episodes):
    """Lay out episodes, each (agent steps, how it ends), as the rows of one world."""
    rows = []
    for length, ending in episodes:
        for step in range(length + 1):
            last = step == length and ending != "cut off"
            discount = 0.0 if last and ending == "true end" else 1.0
            # a different reward at every row; 0 on a first row
            reward = 0.0 if step == 0 else 1.0 + len(rows) / 64 + world / 8
            rows.append(Row(len(rows), world, reward, discount, step == 0, last))
    return rows


def time_step(rows):
    """Put one row of each world together."""
    pixels = [[row.number % 256, row.number // 256, row.world] for row in rows]
    return TimeStep(
        image=torch.tensor(pixels, dtype=torch.uint8)[:, :, None, None].expand(-1, 3, 2, 4).contiguous(),
        action=np.array([row.action for row in rows], dtype=np.float32),
        reward=np.array([row.reward for row in rows], dtype=np.float32),
        discount=np.array([row.discount for row in rows], dtype=np.float32),
        first=np.array([row.first for row in rows]),
        last=np.array([row.last for row in rows]),
        proprio=np.array([[row.number, row.world] for row in rows], dtype=np.float32),
        privileged=np.array([[-row.number] for row in rows], dtype=np.float32),
    )


def time_steps(worlds):
    """Lay out the episodes of every world side by side, as long as all worlds have rows."""
    columns = [rows_of_world(world, episodes) for world, episodes in enumerate(worlds)]
    return [time_step(rows) for rows in zip(*columns, strict=False)]


def new_replay(rows, worlds, n_step=3, stack=STACK, seed=0):
    # old memory is not empty; whatever is read before it is written shows as row 65535
    images = torch.full((rows, worlds, 3, 2, 4), 255, dtype=torch.uint8)
    return TransitionReplay(
        images,
        action_dim=2,
        n_step=n_step,
        gamma=GAMMA,
        frame_stack=stack,
        device=CPU,
        generator=torch.Generator().manual_seed(seed),
        proprio_dim=2,
        privileged_dim=1,
    )


@dataclass(frozen=True)
class Transition:
    """One transition with its images replaced by the numbers of their rows."""

    world: int
    images: tuple[int, ...]
    action: tuple[float, ...]
    reward: float
    discount: float
    next_images: tuple[int, ...]


def read_images(stack):
    """Return each sample's world and the row numbers of its images, oldest first."""
    assert (stack == stack[:, :, :1, :1]).all(), "pixels of different images were mixed"
    low, high, world = stack[:, :, 0, 0].long().unflatten(1, (-1, 3)).unbind(dim=2)
    assert (world == world[:, :1]).all(), "images of different worlds were mixed"
    return world[:, 0].tolist(), [tuple(rows) for rows in (low + 256 * high).tolist()]


def read_observation(observation):
    """Return the same of an observation, once the numbers beside it are of the newest image's moment."""
    world, images = read_images(observation.stack)
    sensed = [[rows[-1], w] for rows, w in zip(images, world, strict=True)]
    assert observation.proprio.tolist() == sensed
    assert observation.privileged.tolist() == [[-rows[-1]] for rows in images]
    return world, images


def read(batch):
    """Turn a batch into `Transition`s."""
    world, images = read_observation(batch.observation)
    next_world, next_images = read_observation(batch.next_observation)
    assert next_world == world
    numbers = (batch.action.tolist(), batch.reward.tolist(), batch.discount.tolist())
    return [
        Transition(w, stack, tuple(action), reward, discount, next_stack)
        for w, stack, action, reward, discount, next_stack in zip(
            world, images, *numbers, next_images, strict=True
        )
    ]


def every_transition(replay):
    """Sample with evenly spread draws in place of random ones, so that each start is drawn exactly once."""
    count = len(replay)
    if count == 0:
        return []
    evenly = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    with patch("torch.rand", return_value=evenly):
        return read(replay.sample(count))


class SlowReplay:
    """Everything that ever happened, as lists; what a ring of `rows` rows should know of it is worked out anew."""

    def __init__(self, rows, worlds, n_step, stack):
        self.rows, self.n_step, self.stack = rows, n_step, stack
        self.episodes = [[] for _ in range(worlds)]
        self.rows_added = 0

    def add(self, rows):
        for episodes, row in zip(self.episodes, rows, strict=True):
            if row.first:
                episodes.append([])
            episodes[-1].append(row)
        self.rows_added += 1

    def images(self, episode, index):
        return tuple(episode[max(index - back, 0)].number for back in reversed(range(self.stack)))

    def transition(self, episode, index):
        reward, weight = 0.0, 1.0
        for row in episode[index + 1 : index + 1 + self.n_step]:
            reward += weight * row.reward
            weight *= GAMMA * row.discount
            end = row
        return Transition(
            world=end.world,
            images=self.images(episode, index),
            action=tuple(episode[index + 1].action),
            reward=reward,
            discount=weight,
            next_images=self.images(episode, end.number - episode[0].number),
        )

    def transitions(self):
        """Return every transition that is complete: its stack still in the ring, its n rows already there."""
        newest, oldest = self.rows_added - 1, max(0, self.rows_added - self.rows)
        return [
            self.transition(episode, index)
            for episodes in self.episodes
            for episode in episodes
            for index in range(len(episode) - 1)
            if self.images(episode, index)[0] >= oldest and episode[index].number + self.n_step <= newest
        ]


def assert_same_as_slow(replay, slow):
    """All that is drawn is valid, and all that is valid is drawn, except at the ring's oldest edge."""
    drawn, valid = Counter(every_transition(replay)), Counter(slow.transitions())
    assert not drawn - valid
    lost = valid - drawn
    # Documented: a row is given up when the stack - 1 rows before it are, though at an episode's start, where the
    # first image is repeated, they are not needed.
    edge = slow.rows_added - slow.rows + slow.stack - 1
    assert all(transition.images[-1] < edge for transition in lost)
    assert len(replay) == drawn.total()


# ---------------------------------------------------------------------------------------------- by hand


def test_rows_align_in_time():
    """The picture in `types`: image t goes with action, reward, discount and image t + 1."""
    replay = new_replay(rows=10, worlds=1, n_step=1)
    rows = [
        Row(0, 0, 0.0, 1.0, True, False),
        Row(1, 0, 10.0, 1.0, False, False),
        Row(2, 0, 20.0, 0.0, False, True),
        Row(3, 0, 0.0, 1.0, True, False),
        Row(4, 0, 40.0, 1.0, False, False),
    ]
    for row in rows:
        replay.add(time_step([row]))
    assert every_transition(replay) == [
        Transition(0, (0, 0, 0), (1 / 1024, 0.0), 10.0, 0.5, (0, 0, 1)),
        Transition(0, (0, 0, 1), (2 / 1024, 0.0), 20.0, 0.0, (0, 1, 2)),
        Transition(0, (3, 3, 3), (4 / 1024, 0.0), 40.0, 0.5, (3, 3, 4)),
    ]


def test_proprioception_is_that_of_the_newest_image():
    """At 3 steps, at both ends of an episode and of the ring, whose oldest rows are overwritten here."""
    replay = new_replay(rows=8, worlds=1)
    for step in time_steps([[(4, "true end"), (9, "cut off")]])[:11]:
        replay.add(replace(step, proprio=step.proprio * 10))
    # rows 0 to 4 and 5 to 10 are episodes; rows 3 to 10 are in memory, and 3 and 4 lack part of their stacks
    with patch("torch.rand", return_value=torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)):
        batch = replay.sample(3)
    assert len(replay) == 3
    assert batch.observation.proprio.tolist() == [[50.0, 0.0], [60.0, 0.0], [70.0, 0.0]]
    assert batch.next_observation.proprio.tolist() == [[80.0, 0.0], [90.0, 0.0], [100.0, 0.0]]
    replay = new_replay(rows=20, worlds=1)
    for step in time_steps([[(4, "true end"), (9, "cut off")]])[:9]:
        replay.add(replace(step, proprio=step.proprio * 10))
    with patch("torch.rand", return_value=torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)):
        batch = replay.sample(5)
    # starts 0, 1, 2 and 3, whose third rows are 3, and the end, 4; then start 5
    assert batch.observation.proprio[:, 0].tolist() == [0.0, 10.0, 20.0, 30.0, 50.0]
    assert batch.next_observation.proprio[:, 0].tolist() == [30.0, 40.0, 40.0, 40.0, 80.0]


@pytest.mark.parametrize(("ending", "value"), [("true end", 0.0), ("time limit", 1.0), ("cut off", 1.0)])
def test_three_step_returns_at_an_episodes_end(ending, value):
    replay = new_replay(rows=20, worlds=1)
    for step in time_steps([[(4, ending), (9, "cut off")]]):
        replay.add(replace(step, reward=np.array([2.0 ** step.image[0, 0, 0, 0].item()], dtype=np.float32)))
    # the reward of row t is 2^t, so with γ = 1/2 every row of a return from row 0 on counts 2
    first, second, third, fourth = every_transition(replay)[:4]
    assert (first.reward, first.discount, first.next_images) == (6.0, 1 / 8, (1, 2, 3))
    assert (second.reward, second.discount, second.next_images) == (12.0, value / 8, (2, 3, 4))
    assert (third.reward, third.discount, third.next_images) == (16.0, value / 4, (2, 3, 4))
    assert (fourth.reward, fourth.discount, fourth.next_images) == (16.0, value / 2, (2, 3, 4))


def test_the_running_episode_is_drawn():
    replay = new_replay(rows=20, worlds=1)
    lengths = []
    for step in time_steps([[(10, "cut off")]]):
        replay.add(step)
        lengths.append(len(replay))
    assert lengths == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_every_start_of_a_finished_episode_is_drawn():
    replay = new_replay(rows=30, worlds=1)
    for step in time_steps([[(7, "time limit"), (4, "cut off")]]):
        replay.add(step)
    first_episode = [t.images[-1] for t in every_transition(replay) if t.images[-1] < 8]
    assert first_episode == [0, 1, 2, 3, 4, 5, 6]


def test_old_rows_make_room_for_new_ones():
    replay = new_replay(rows=8, worlds=1, n_step=1)
    for step in time_steps([[(100, "cut off")]]):
        replay.add(step)
    # rows 93..100 are in memory; 93 and 94 lack part of their stacks, 100 has no next row
    assert [t.images for t in every_transition(replay)] == [(r - 2, r - 1, r) for r in range(95, 100)]


def test_a_ring_that_begins_in_mid_episode_repeats_its_oldest_image():
    replay = new_replay(rows=20, worlds=1, n_step=1)
    for step in time_steps([[(9, "cut off")]])[4:8]:
        replay.add(step)
    assert [t.images for t in every_transition(replay)] == [(4, 4, 4), (4, 4, 5), (4, 5, 6)]


def test_worlds_keep_apart():
    replay = new_replay(rows=20, worlds=3)
    for step in time_steps([[(2, "true end")] * 9, [(5, "time limit")] * 9, [(30, "cut off")]])[:14]:
        replay.add(step)
    drawn = Counter((t.world, t.images[-1]) for t in every_transition(replay))
    # rows 0..10 are three rows behind the newest, 13; starts are those whose next row is not a first one
    firsts = {0: {0, 3, 6, 9, 12}, 1: {0, 6, 12}, 2: {0}}
    assert drawn == Counter((w, r) for w in range(3) for r in range(11) if r + 1 not in firsts[w])


# ---------------------------------------------------------------------------------------------- sampling


def filled_replay(seed=0):
    replay = new_replay(rows=12, worlds=2, seed=seed)
    for step in time_steps([[(4, "time limit")] * 8, [(1, "true end"), (6, "cut off")] * 6]):
        replay.add(step)
    return replay


def test_sampling_is_uniform_over_all_starts():
    replay = filled_replay()
    starts = [(t.world, t.images[-1]) for t in every_transition(replay)]
    assert len(set(starts)) == len(starts) == len(replay)
    draws = 20_000
    world, images = read_observation(replay.sample(draws).observation)
    counts = Counter((w, stack[-1]) for w, stack in zip(world, images, strict=True))
    assert set(counts) == set(starts)
    expected = draws / len(starts)
    chi_square = sum((counts[start] - expected) ** 2 / expected for start in starts)
    freedom = len(starts) - 1
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("draw", [0.0, 1.0 - 2.0**-53])
def test_the_smallest_and_largest_draws_are_starts(draw):
    replay = filled_replay()
    every = every_transition(replay)
    with patch("torch.rand", return_value=torch.full((1,), draw, dtype=torch.float64)):
        (transition,) = read(replay.sample(1))
    assert transition == (every[0] if draw == 0.0 else every[-1])


def test_batches_depend_on_the_seed_alone():
    def batches(seed):
        replay = filled_replay(seed)
        return [read(replay.sample(16)) for _ in range(3)]

    state = torch.get_rng_state()
    assert batches(1) == batches(1)
    assert batches(1) != batches(2)
    assert batches(1)[0] != batches(1)[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_sampling_too_early_is_refused():
    replay = new_replay(rows=12, worlds=2)
    for step in time_steps([[(9, "cut off")]] * 2)[:3]:
        replay.add(step)
    with pytest.raises(ValueError, match="no transition yet: 3 rows were added and n_step is 3"):
        replay.sample(1)


def test_a_ring_too_small_for_one_transition_is_refused():
    with pytest.raises(ValueError, match="6 rows per world cannot hold n_step=3 plus frame_stack=3"):
        new_replay(rows=6, worlds=1)


# ---------------------------------------------------------------------------------------------- size


def test_a_million_transitions_take_at_most_22_gigabytes():
    for worlds in (1, 16, 64):
        assert ring_rows(1_000_000, worlds, 6) * worlds * 3 * 84 * 84 <= 22e9


@pytest.mark.parametrize("worlds", [1, 2, 7])
@pytest.mark.parametrize("episode_agent_steps", [5, 100])
def test_a_full_ring_holds_the_announced_capacity(worlds, episode_agent_steps):
    capacity = 1000
    replay = new_replay(ring_rows(capacity, worlds, 6, episode_agent_steps), worlds)
    steps = time_steps([[(episode_agent_steps, "time limit")] * (2300 // episode_agent_steps)] * worlds)
    assert len(steps) > 2 * replay.rows
    lengths = []
    for step in steps:
        replay.add(step)
        lengths.append(len(replay))
    assert min(lengths[replay.rows :]) >= capacity


# ---------------------------------------------------------------------------------------------- FrameStack


@pytest.mark.parametrize("stack", [1, 2, 3, 4])
def test_the_acting_stack_is_the_stored_one(stack):
    steps = time_steps([[(4, "time limit")] * 8, [(1, "true end"), (7, "cut off")] * 6])
    replay, frames = new_replay(rows=50, worlds=2, stack=stack), FrameStack(3 * stack)
    acting = {}
    for step in steps:
        replay.add(step)
        for world, images in zip(*read_observation(frames.push(step)), strict=True):
            acting[world, images[-1]] = images
    stored = every_transition(replay)
    assert len(stored) > 40
    for transition in stored:
        assert transition.images == acting[transition.world, transition.images[-1]]
        assert transition.next_images == acting[transition.world, transition.next_images[-1]]


# ---------------------------------------------------------------------------------------------- state


def saved_and_restored(replay, seed):
    """Send the state through a file, into a new replay whose images are a copy."""
    file = io.BytesIO()
    torch.save(replay.state_dict(), file)
    file.seek(0)
    other = new_replay(replay.rows, replay.worlds, replay.n_step, replay.frame_stack, seed=seed)
    other.images.copy_(replay.images)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize("rows_before", [0, 2, 9, 30])
def test_a_restored_replay_continues_identically(rows_before):
    steps = time_steps([[(4, "time limit")] * 12, [(1, "true end"), (6, "cut off")] * 6])
    original = new_replay(rows=12, worlds=2, seed=1)
    for step in steps[:rows_before]:
        original.add(step)
    if len(original):
        original.sample(5)
    restored = saved_and_restored(original, seed=2)
    assert every_transition(restored) == every_transition(original)
    for step in steps[rows_before:]:
        original.add(step)
        restored.add(step)
        assert len(restored) == len(original)
        if len(original):
            assert read(restored.sample(8)) == read(original.sample(8))


# ---------------------------------------------------------------------------------------------- any history

episode = st.tuples(st.integers(1, 9), st.sampled_from(["true end", "time limit", "cut off"]))
history = st.integers(1, 3).flatmap(
    lambda worlds: st.lists(st.lists(episode, min_size=1, max_size=8), min_size=worlds, max_size=worlds)
)


@settings(max_examples=300)
@given(
    worlds=history,
    n_step=st.integers(1, 4),
    stack=st.integers(1, 4),
    spare_rows=st.integers(1, 12),
    saves=st.sets(st.integers(0, 70), max_size=2),
)
@example(worlds=[[(1, "cut off")] * 20], n_step=3, stack=3, spare_rows=1, saves=set())
@example(worlds=[[(1, "true end"), (9, "cut off")] * 8] * 2, n_step=4, stack=4, spare_rows=1, saves={30})
def test_any_history_yields_only_valid_windows_and_loses_none(worlds, n_step, stack, spare_rows, saves):
    columns = [rows_of_world(world, episodes) for world, episodes in enumerate(worlds)]
    rows = n_step + stack + spare_rows
    replay = new_replay(rows, len(worlds), n_step, stack)
    slow = SlowReplay(rows, len(worlds), n_step, stack)
    for number, row in enumerate(zip(*columns, strict=False)):
        replay.add(time_step(row))
        slow.add(row)
        if number in saves:
            replay = saved_and_restored(replay, seed=number)
        assert_same_as_slow(replay, slow)


# ---------------------------------------------------------------------------------------------- sequences


def new_sequences(rows, worlds, length, seed=0, **choices):
    images = torch.full((rows, worlds, 3, 2, 4), 255, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    return SequenceReplay(images, action_dim=2, length=length, device=CPU, generator=generator, **choices)


def read_sequences(batch):
    """Turn a batch into (world, numbers of rows), having checked that every row's numbers are its own."""
    world, numbers = read_images(batch.image.flatten(0, 1))
    length, count = batch.reward.shape
    sequences = []
    for sample in range(count):
        rows = [numbers[t * count + sample][0] for t in range(length)]
        sequences.append((world[sample], tuple(rows)))
        for t in range(length):
            assert world[t * count + sample] == world[sample]
            assert batch.reward[t, sample].item() in (0.0, 1 + rows[t] / 64 + world[sample] / 8)
            assert batch.action[t, sample].tolist() in ([0.0, 0.0], [rows[t] / 1024, world[sample] / 1024])
    return sequences


def every_sequence(replay):
    """Sample so that each sequence is drawn exactly once."""
    count = len(replay)
    if count == 0:
        return []
    with patch("torch.rand", return_value=(torch.arange(count, dtype=torch.float64) + 0.5) / count):
        return read_sequences(replay.sample(count))


def complete_sequences(columns, rows_added, rows, length):
    """Work out anew which sequences a ring of `rows` rows holds."""
    found = []
    for world, column in enumerate(columns):
        for start in range(max(0, rows_added - rows), rows_added - length + 1):
            sequence = column[start : start + length]
            if not any(row.first for row in sequence[1:]):
                found.append((world, tuple(row.number for row in sequence)))
    return found


def test_a_row_of_a_sequence_has_its_own_numbers():
    replay = new_sequences(rows=9, worlds=2, length=4)
    columns = [rows_of_world(0, [(6, "true end")]), rows_of_world(1, [(2, "time limit"), (5, "time limit")])]
    for rows in zip(*columns, strict=False):
        replay.add(time_step(rows))
    batch = replay.sample(200)
    for sample, (world, numbers) in enumerate(read_sequences(batch)):
        for t, number in enumerate(numbers):
            row = columns[world][number]
            assert batch.action[t, sample].tolist() == row.action
            assert batch.reward[t, sample].item() == row.reward
            assert batch.discount[t, sample].item() == row.discount
    assert 0.0 in batch.discount  # the true end is the last row of a sequence


@settings(max_examples=200)
@given(
    worlds=history,
    length=st.integers(1, 5),
    spare_rows=st.integers(0, 12),
    saves=st.sets(st.integers(0, 70), max_size=2),
)
@example(worlds=[[(9, "cut off")] * 6] * 2, length=5, spare_rows=0, saves={20})
def test_any_history_yields_each_whole_sequence_once(worlds, length, spare_rows, saves):
    columns = [rows_of_world(world, episodes) for world, episodes in enumerate(worlds)]
    rows = length + spare_rows
    replay = new_sequences(rows, len(worlds), length)
    for number, row in enumerate(zip(*columns, strict=False)):
        replay.add(time_step(row))
        if number in saves:
            file = io.BytesIO()
            torch.save(replay.state_dict(), file)
            file.seek(0)
            other = new_sequences(rows, len(worlds), length, seed=9)
            other.images.copy_(replay.images)
            other.load_state_dict(torch.load(file, weights_only=True))
            assert torch.equal(other.generator.get_state(), replay.generator.get_state())
            replay = other
        expected = complete_sequences(columns, number + 1, rows, length)
        assert sorted(every_sequence(replay)) == sorted(expected)
        assert len(replay) == len(expected)


def test_sequences_are_drawn_equally_often():
    replay = new_sequences(rows=40, worlds=2, length=3)
    for step in time_steps([[(9, "time limit")] * 6, [(4, "time limit")] * 12]):
        replay.add(step)
    counts = Counter(read_sequences(replay.sample(40_000)))
    assert len(counts) == len(replay)
    expected = 40_000 / len(replay)
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_ends_are_seen_as_often_as_other_rows_where_they_are_foreseen():
    """Each episode of 10 rows gives 8 sequences of 3; its last one stands for 3."""
    replay = new_sequences(rows=40, worlds=2, length=3, oversample_ends=True)
    for step in time_steps([[(9, "true end")] * 12] * 2):
        replay.add(step)
    counts = Counter(every_sequence(replay))
    assert set(counts.values()) == {1, 3}
    for (_, numbers), count in counts.items():
        assert (count == 3) == (numbers[-1] % 10 == 9)
    for step in time_steps([[(9, "true end")] * 40] * 2)[:100]:
        replay.add(step)
    assert len(replay) <= 40 * 2


def test_draws_tell_a_million_starts_apart():
    replay = new_sequences(rows=9, worlds=1, length=3)
    for step in time_steps([[(9, "time limit")]]):
        replay.add(step)
    with patch("torch.rand", wraps=torch.rand) as rand:
        replay.sample(4)
    assert rand.call_args.kwargs["dtype"] == torch.float64


def test_a_replay_without_a_whole_sequence_says_so():
    replay = new_sequences(rows=9, worlds=1, length=5)
    for step in time_steps([[(3, "time limit")] * 2]):
        replay.add(step)
    with pytest.raises(
        ValueError, match=r"no sequence of 5 rows of one episode yet: 8 rows of .* lower --sequence-length"
    ):
        replay.sample(1)
    with pytest.raises(ValueError, match="4 rows per world cannot hold a sequence of 5"):
        new_sequences(rows=4, worlds=1, length=5)
