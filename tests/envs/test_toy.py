"""The toy: rewards by hand, pictures, episodes."""

import numpy as np

from pixelcontrol.envs.toy import ToyWorld


def observed(world):
    out = np.full(world.spec.payload_shape, 77, np.uint8)
    world.observe(out)
    return out


def seek(world):
    """The best policy: straight to the target, no faster than allowed."""
    return np.clip((world._target - world._dot) / (0.1 * world.spec.action_repeat), -1, 1).astype(np.float32)


def test_reward_is_one_minus_half_the_distance_summed_over_frames():
    world = ToyWorld((24, 24), action_repeat=2)
    world.reset(seed=0)
    world._dot, world._target = np.zeros(2), np.array([0.6, 0.0])
    reward, discount, last = world.step(np.float32([1.0, 0.0]))  # 0.5, then 0.4 away
    np.testing.assert_allclose(reward, 0.75 + 0.8, rtol=1e-12)
    assert (discount, last) == (1.0, False)
    world._dot[:] = [-1.0, 0.0]
    np.testing.assert_allclose(world.step(np.float32([-1.0, 0.0]))[0], 2 * (1 - 1.6 / 2), rtol=1e-12)


def test_episodes_last_50_frames_whatever_the_action_repeat():
    for action_repeat, agent_steps in ((1, 50), (2, 25), (4, 13)):
        world = ToyWorld((24, 24), action_repeat)
        world.reset(seed=0)
        ends = [world.step(np.zeros(2, np.float32))[2] for _ in range(agent_steps)]
        assert ends == [False] * (agent_steps - 1) + [True]


def test_the_picture_shows_dot_and_target_where_they_are():
    world = ToyWorld((36, 48))
    world.reset(seed=0)
    world._dot, world._target = np.array([-1.0, -1.0]), np.array([1.0, 0.0])
    red, green, blue = observed(world)
    assert not blue.any()
    for channel, centre in ((red, (0.2 / 2.4, 0.2 / 2.4)), (green, (0.5, 2.2 / 2.4))):
        rows, columns = np.nonzero(channel)
        np.testing.assert_allclose([rows.mean() / 35, columns.mean() / 47], centre, atol=0.02)
    assert observed(ToyWorld()).shape == (3, 84, 84)


def test_every_position_of_the_dot_can_be_told_apart():
    """The smallest picture that tests use still shows a frame's full move."""
    world = ToyWorld((24, 24), action_repeat=1)
    world.reset(seed=0)
    before = observed(world)
    world.step(np.float32([1.0, 0.0]))
    assert not np.array_equal(observed(world), before)


def test_returns_of_standing_still_and_of_going_straight():
    still, straight = [], []
    for seed in range(200):
        world = ToyWorld((24, 24))
        world.reset(seed)
        still.append(sum(world.step(np.zeros(2, np.float32))[0] for _ in range(25)))
        world.reset(seed)
        straight.append(sum(world.step(seek(world))[0] for _ in range(25)))
    assert 26 < np.mean(still) < 31
    assert np.mean(straight) > 46


def test_an_episode_is_a_function_of_its_seed():
    a, b = ToyWorld((24, 24)), ToyWorld((24, 24))
    a.reset(seed=1)
    a.reset(seed=5)
    b.reset(seed=5)
    np.testing.assert_array_equal(observed(a), observed(b))
    b.reset(seed=6)
    assert not np.array_equal(observed(a), observed(b))
