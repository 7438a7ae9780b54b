"""`DmcWorld` is dm_control, no more and no less, and repeats an episode from its seed and actions."""

import subprocess
import sys

import dm_env
import numpy as np
import pytest
from dm_control import manipulation, suite
from dm_control.suite.wrappers import action_scale

from pixelcontrol.envs.dmc import DmcWorld, load_environment, make_dmc_world
from pixelcontrol.envs.tasks import PAPER_TASKS, find_task
from pixelcontrol.errors import WorldMistake

NAMES = [task.name for task in PAPER_TASKS]


def world(name, renderer="warp", action_repeat=2, image_size=(84, 84)):
    return make_dmc_world(find_task(name), renderer, image_size, action_repeat)


def bare(name, seed, manipulation_observables="features"):
    """dm_control itself, with its own wrapper for actions in [-1, 1]."""
    task = find_task(name)
    if task.source == "suite":
        environment = suite.load(task.domain, task.task, task_kwargs={"random": seed})
    else:
        environment = manipulation.load(f"{task.domain}_{manipulation_observables}", seed=seed)
    return action_scale.Wrapper(environment, minimum=-1.0, maximum=1.0)


def random_actions(count, action_dim, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, action_dim)).astype(np.float32)


def observed(a_world):
    out = np.zeros(a_world.spec.payload_shape, a_world.spec.payload_dtype)
    a_world.observe(out)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_episode_is_dm_controls_own(name):
    task, ours, theirs = find_task(name), world(name), bare(name, seed=11)
    for action in random_actions(5, task.action_dim, seed=1):  # a past, which must not matter
        ours.step(action)
    ours.reset(seed=11)
    theirs.reset()
    spec = ours.spec
    assert (spec.action_dim, spec.action_repeat) == (task.action_dim, 2)
    assert spec.episode_frames == (250 if name == "reach_duplo" else 1000)
    first = observed(ours)
    assert np.isfinite(first).all()

    frames = 0
    for action in random_actions(500, task.action_dim):
        reward, discount, last = ours.step(action)
        both = [theirs.step(action.astype(np.float64)) for _ in range(2)]
        frames += 2
        assert reward == both[0].reward + both[1].reward
        assert discount == both[0].discount * both[1].discount == 1.0
        assert last == both[1].last()
        if last:
            break
    assert frames == spec.episode_frames
    assert both[1].last()
    assert not np.array_equal(observed(ours), first)
    ours.close()


def test_reach_duplo_has_the_rewards_of_the_vision_environment():
    ours, theirs = world("reach_duplo"), bare("reach_duplo", seed=3, manipulation_observables="vision")
    ours.reset(seed=3)
    theirs.reset()
    for action in random_actions(5, 9):
        assert ours.step(action)[0] == theirs.step(action).reward + theirs.step(action).reward


@pytest.mark.parametrize(
    "name",
    [
        "quadruped_run",
        "reacher_hard",
        "finger_turn_hard",
        "manipulator_bring_ball",
        "reach_duplo",
        "cup_catch",
        "cheetah_run",
        "swimmer_swimmer15",
    ],
)
def test_an_episode_is_a_function_of_its_seed_and_actions(name):
    a, b = world(name), world(name)
    actions = random_actions(60, a.spec.action_dim)
    a.reset(seed=1)
    for action in actions:
        a.step(action)
    a.reset(seed=2)
    b.reset(seed=2)
    for action in actions[::-1]:
        np.testing.assert_array_equal(observed(a), observed(b))
        assert a.step(action) == b.step(action)
    np.testing.assert_array_equal(observed(a), observed(b))
    b.reset(seed=3)
    assert not np.array_equal(observed(a), observed(b))


@pytest.mark.parametrize("name", ["reacher_hard", "reach_duplo"])
def test_pictures_follow_episodes_and_repeat(name):
    """reacher moves its target, reach_duplo compiles a new model, when an episode starts."""
    a, b = world(name, "opengl", image_size=(60, 84)), world(name, "opengl", image_size=(60, 84))
    a.reset(seed=1)
    before = observed(a)
    assert before.shape == (3, 60, 84)
    a.reset(seed=2)
    b.reset(seed=2)
    np.testing.assert_array_equal(observed(a), observed(b))
    assert not np.array_equal(observed(a), before)
    a.close(), b.close()


@pytest.mark.parametrize(("action_repeat", "agent_steps"), [(1, 250), (3, 84), (8, 32)])
def test_the_last_agent_step_is_cut_short_at_the_end(action_repeat, agent_steps):
    ours, theirs = world("reach_duplo", action_repeat=action_repeat), bare("reach_duplo", seed=0)
    ours.reset(seed=0)
    theirs.reset()
    actions = random_actions(agent_steps, 9)
    steps = [ours.step(action) for action in actions]
    assert [last for _, _, last in steps] == [False] * (agent_steps - 1) + [True]
    frame_rewards = [theirs.step(actions[i // action_repeat]).reward for i in range(250)]
    for i, (reward, _, _) in enumerate(steps):
        total = 0.0
        for frame_reward in frame_rewards[i * action_repeat : (i + 1) * action_repeat]:
            total += frame_reward  # as the world does; from Python 3.12 on `sum` rounds once
        assert reward == total


class Countdown:
    """A dm_env that ends truly at its third frame, with actions in [-3, 5]."""

    def __init__(self, minimum=-3.0):
        from dm_env import specs

        self.spec = specs.BoundedArray((2,), np.float64, minimum, 5.0)
        self.task = self
        self.random = np.random.RandomState()
        self.controls = []

    def action_spec(self):
        return self.spec

    def reset(self):
        import dm_env

        self.controls = []
        return dm_env.restart(observation=None)

    def step(self, control):
        import dm_env

        self.controls.append(control)
        if len(self.controls) == 3:
            return dm_env.termination(reward=7.0, observation=None)
        return dm_env.transition(reward=1.0, observation=None)


def countdown(environment):
    return DmcWorld(environment, 0, "opengl", (8, 8), action_repeat=2)


def test_a_true_end_keeps_its_discount_of_zero_and_actions_are_rescaled():
    environment = Countdown()
    ours = countdown(environment)
    ours.reset(seed=0)
    assert ours.step(np.float32([-1.0, 1.0])) == (2.0, 1.0, False)
    assert ours.step(np.float32([0.0, 0.5])) == (7.0, 0.0, True)
    np.testing.assert_array_equal(environment.controls, [[-3, 5], [-3, 5], [1, 3]])
    assert environment.controls[0].dtype == np.float64


@pytest.mark.parametrize("bound", [-np.inf, -1e10])
def test_actions_without_bounds_are_refused(bound):
    with pytest.raises(ValueError, match=r"no finite bounds.* a ctrlrange"):
        countdown(Countdown(minimum=bound))


def test_a_depth_behind_the_camera_is_refused():
    with pytest.raises(ValueError, match=r"depth -1\.0, but must be 'warp' or 'opengl', and at least 0"):
        DmcWorld(Countdown(), 0, "opengl", (8, 8), action_repeat=2, depth=-1.0)


def test_a_task_without_randomness_of_its_own_is_refused():
    environment = Countdown()
    del environment.random
    with pytest.raises(ValueError, match="Countdown has no `random`, a numpy"):
        countdown(environment)


def test_cameras_may_come_in_a_list():
    cameras = DmcWorld(Countdown(), ["front", "back"], "opengl", (8, 8), action_repeat=2, depth=2.0)
    assert (cameras.spec.payload_shape, cameras.spec.camera_channels) == ((8, 8, 8), 4)
    assert "of camera front, then of camera back" in cameras.spec.about


def sensed(a_world):
    out = np.zeros(a_world.spec.proprio_dim, np.float32)
    a_world.sense(out)
    return out


@pytest.mark.parametrize(("entry", "numbers"), [("orientations", 14), ("height", 1)])
def test_an_entry_of_the_observations_is_sensed(entry, numbers):
    environment, theirs = load_environment(find_task("walker_walk")), bare("walker_walk", seed=3)
    ours = DmcWorld(environment, 0, "warp", (8, 8), action_repeat=2, proprio=entry)
    assert ours.spec.proprio_dim == numbers
    ours.reset(seed=3)
    now = theirs.reset()
    np.testing.assert_array_equal(sensed(ours), np.float32(np.ravel(now.observation[entry])))
    for action in random_actions(3, 6):
        ours.step(action)
        for _ in range(2):
            now = theirs.step(action)
        np.testing.assert_array_equal(sensed(ours), np.float32(np.ravel(now.observation[entry])))
    assert world("walker_walk").spec.proprio_dim == 0


def disclosed(a_world):
    out = np.zeros(a_world.spec.privileged_dim, np.float32)
    a_world.disclose(out)
    return out


def test_a_task_of_the_suite_discloses_all_that_it_observes():
    ours, theirs = world("walker_walk"), bare("walker_walk", seed=3)
    assert ours.spec.privileged_dim == 14 + 1 + 9
    ours.reset(seed=3)
    now = theirs.reset().observation
    for action in random_actions(3, 6):
        expected = np.float32([*now["orientations"], now["height"], *now["velocity"]])
        np.testing.assert_array_equal(disclosed(ours), expected)
        ours.step(action)
        for _ in range(2):
            now = theirs.step(action).observation


def test_an_own_environment_discloses_only_if_told_to():
    environment = load_environment(find_task("walker_walk"))
    assert DmcWorld(environment, 0, "warp", (8, 8), action_repeat=2).spec.privileged_dim == 0


def test_an_environment_that_observes_nothing_has_nothing_to_disclose():
    environment = load_environment(find_task("walker_walk"))
    environment.task.get_observation = lambda physics: {}
    with pytest.raises(
        ValueError, match=r"privileged is True, .* but the arrays of the observations are \{\}"
    ):
        DmcWorld(environment, 0, "warp", (8, 8), action_repeat=2, privileged=True)


def test_several_entries_lie_behind_one_another():
    environment = load_environment(find_task("walker_walk"))
    ours = DmcWorld(environment, 0, "warp", (8, 8), action_repeat=2, proprio=("height", "velocity"))
    ours.reset(seed=3)
    seen = environment.task.get_observation(environment.physics)
    np.testing.assert_array_equal(sensed(ours), np.float32([seen["height"], *seen["velocity"]]))


@pytest.mark.parametrize("task", ["pendulum_swingup", "reach_duplo"])
def test_a_time_limit_is_the_environments_own(task):
    known = find_task(task)
    ours = DmcWorld(load_environment(known), 0, "warp", (8, 8), action_repeat=3)
    assert ours.spec.episode_frames == known.episode_frames
    assert countdown(Countdown()).spec.episode_frames is None


@pytest.mark.parametrize("own_limit", [np.inf, 20.0])
def test_a_time_limit_ends_an_environment_that_would_go_on(own_limit):
    """Of 4 frames, 3 to a step; an environment's own is 0.01 s each."""
    from dm_control.rl import control
    from dm_control.suite import pendulum

    physics = pendulum.Physics.from_xml_string(*pendulum.get_model_and_assets())
    environment = control.Environment(physics, pendulum.SwingUp(), time_limit=own_limit)
    ours = DmcWorld(environment, 0, "warp", (8, 8), action_repeat=3, episode_frames=4)
    assert ours.spec.episode_frames == 4
    for _ in range(2):
        ours.reset(seed=0)
        start = environment.physics.time()
        assert ours.step(np.float32([0.0]))[1:] == (1.0, False)
        assert ours.step(np.float32([0.0]))[1:] == (1.0, True)
        np.testing.assert_allclose(environment.physics.time() - start, 4 * environment.control_timestep())


def test_an_episode_is_a_success_once_its_physics_was():
    asked = []

    def at_the_third_frame(physics):
        asked.append(physics.time())
        return len(asked) == 3

    environment = load_environment(find_task("cup_catch"))
    ours = DmcWorld(environment, 0, "warp", (8, 8), action_repeat=2, success=at_the_third_frame)
    assert ours.spec.tells_success
    asked.clear()  # it was tried out
    ours.reset(seed=3)
    told = [ours.success]
    for _ in range(3):
        ours.step(np.zeros(2, np.float32))
        told.append(ours.success)
    assert told == [False, False, True, True]
    np.testing.assert_allclose(np.diff(asked), 0.02)  # once a frame
    ours.reset(seed=4)
    assert not ours.success
    assert not world("cup_catch").spec.tells_success


def test_a_success_that_cannot_be_asked_is_refused_at_once():
    environment = load_environment(find_task("cup_catch"))
    with pytest.raises(WorldMistake, match=r"`success` was asked of the physics, and raised KeyError: .*box"):
        DmcWorld(environment, 0, "opengl", (8, 8), 1, success=lambda physics: physics.named.data.xpos["box"])


def test_a_reward_that_is_none_is_refused():
    environment = Countdown()
    ours = countdown(environment)
    ours.reset(seed=0)
    environment.step = lambda control: dm_env.transition(reward=None, observation=None)
    with pytest.raises(WorldMistake, match="reward is None, but must be one number"):
        ours.step(np.zeros(2, np.float32))


def test_what_cannot_be_sensed_is_refused():
    environment = load_environment(find_task("walker_walk"))
    words = r"proprio has 'smell', but the arrays of the observations are \{'orientations': \(14,\), 'height'"
    with pytest.raises(ValueError, match=words):
        DmcWorld(environment, 0, "warp", (8, 8), action_repeat=2, proprio="smell")


def test_manipulation_computes_no_observables_nobody_reads():
    environment = load_environment(find_task("reach_duplo"))
    assert environment.reset().observation == {}


def test_loading_a_task_says_nothing():
    """The cheetah's model makes MuJoCo warn; a process of its own, because pytest has its hands in logging."""
    code = """if True:
        from pixelcontrol.envs.dmc import make_dmc_world
        from pixelcontrol.envs.tasks import find_task
        make_dmc_world(find_task("cheetah_run"), "warp", (8, 8), 2)"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout + run.stderr == ""
