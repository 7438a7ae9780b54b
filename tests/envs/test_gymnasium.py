"""Users' gymnasium environments: pictures, ends, action scales."""

import re

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from my_robot import Slider
from sensing import Blind

from pixelcontrol.envs.gymnasium import GymnasiumWorld
from pixelcontrol.errors import WorldMistake


def observed(world):
    out = np.full(world.spec.payload_shape, 77, np.uint8)
    world.observe(out)
    return out


@pytest.mark.parametrize(
    "env",
    [
        Slider("height first"),
        Slider("channels first"),
        Slider("state", render_mode="rgb_array"),
    ],
    ids=lambda env: env.observe,
)
def test_images_come_from_observations_or_from_render(env):
    world = GymnasiumWorld(env, (40, 30))
    world.reset(seed=0)
    world.step(np.float32([0.3]))
    image = observed(world)
    np.testing.assert_array_equal(image, env.render().transpose(2, 0, 1))
    assert image[0].max() == 255
    assert image[2].max() == 100


def test_other_sizes_are_averaged():
    world = GymnasiumWorld(Slider(), (20, 10))
    world.reset(seed=0)
    image = observed(world)
    assert image.shape == (3, 20, 10)
    lit = np.flatnonzero(image[0].any(axis=1))
    assert len(lit) == 1
    assert set(image[0, lit[0]]) <= {127, 128}  # one of two rows is lit
    assert set(image[2, lit[0]]) == {50}


def test_actions_are_rescaled_and_rewards_summed():
    env = Slider()
    world = GymnasiumWorld(env, (40, 30), action_repeat=3)
    world.reset(seed=0)
    start = env.place
    assert world.step(np.float32([-1.0])) == (3 * start - 2 - 4 - 6, 1.0, False)  # -1 is -2
    start = env.place
    assert world.step(np.float32([0.0])) == (3 * start + 2 + 4 + 6, 1.0, False)  # 0 is 2


def test_every_frame_gets_the_action_itself_and_it_stays_within_its_bounds():
    class Clipping(Slider):
        action_space = Box(np.float64([-1.6]), np.float64([1.3]), dtype=np.float64)

        def step(self, action):
            assert self.action_space.contains(action)
            seen.append(float(action[0]))
            action *= 0.5
            return super().step(action)

    seen: list[float] = []
    world = GymnasiumWorld(Clipping(), (40, 30), action_repeat=2)
    world.reset(seed=0)
    world.step(np.float32([1.0]))
    world.step(np.float32([-1.0]))
    assert seen == [1.3, 1.3, -1.6, -1.6]


def test_terminated_has_discount_zero_and_truncated_one():
    world = GymnasiumWorld(Slider(), (40, 30), action_repeat=4)
    world.reset(seed=0)
    still = np.float32([-0.5])
    assert [world.step(still)[1:] for _ in range(3)] == [(1.0, False), (1.0, False), (1.0, True)]
    world.reset(seed=0)
    assert world.step(np.float32([1.0]))[1:] == (0.0, True)


def test_an_episode_is_a_success_once_it_was():
    world = GymnasiumWorld(Slider(), (40, 30), action_repeat=2, success="near")
    assert world.spec.tells_success
    for _ in range(2):
        world.reset(seed=0)
        world.step(np.float32([-0.5]))
        assert (world.success, 2.0 < world._env.place < 5.0) == (False, True)
        world.step(np.float32([1.0]))  # near after one of two frames
        assert (world.success, world._env.place > 14.0) == (True, True)
        world.step(np.float32([-0.5]))
        assert world.success
    assert not GymnasiumWorld(Slider(), (40, 30)).spec.tells_success


def test_success_may_be_told_at_the_end_alone():
    for told, success in ((1.0, True), (np.array([False]), False)):
        env = Slider()
        infos = iter([*[{}] * 9, {"done well": told}])
        env.told = infos.__next__
        world = GymnasiumWorld(env, (40, 30), action_repeat=5, success="done well")
        world.reset(seed=0)
        assert [world.step(np.float32([-0.5]))[2] for _ in range(2)] == [False, True]
        assert world.success == success


@pytest.mark.parametrize(
    ("key", "told", "words"),
    [
        ("is_success", {"near": True}, r"success is 'is_success', but info has only \['near'\]; name one"),
        (
            "near",
            {"near": {"task": False}},
            r"success is 'near', but info has no truth value there: \{'task'",
        ),
        ("near", {"near": np.nan}, "no truth value there: nan"),
    ],
)
def test_an_info_that_tells_no_success_is_refused(key, told, words):
    env = Slider()
    env.told = lambda: told
    world = GymnasiumWorld(env, (40, 30), action_repeat=10, success=key)
    world.reset(seed=0)
    with pytest.raises(WorldMistake, match=words):
        world.step(np.float32([-0.5]))


def test_an_episode_is_a_function_of_its_seed():
    world = GymnasiumWorld(Slider(), (40, 30))
    rewards = []
    for seed in (1, 2, 1):
        world.reset(seed)
        rewards.append([world.step(np.float32([a]))[0] for a in (0.1, -0.7, 0.3)])
    assert rewards[0] == rewards[2] != rewards[1]


def test_time_limit_is_known_where_gymnasium_knows_it():
    assert GymnasiumWorld(Slider(), (40, 30)).spec.episode_frames is None
    pendulum = gymnasium.make("Pendulum-v1", render_mode="rgb_array")
    assert GymnasiumWorld(pendulum, (40, 30), 2).spec.episode_frames == 200
    assert GymnasiumWorld(gymnasium.wrappers.TimeLimit(Slider(), 7), (40, 30)).spec.episode_frames == 7


def test_environments_without_images_or_continuous_actions_are_refused():
    with pytest.raises(ValueError, match='render_mode="rgb_array"'):
        GymnasiumWorld(Slider("state"))
    for space in (Discrete(3), Box(-np.inf, 1.0, (2,)), Box(-1.0, 1.0, (2, 2))):
        env = Slider()
        env.action_space = space
        with pytest.raises(ValueError, match="1-dimensional Box with finite bounds") as refused:
            GymnasiumWorld(env)
        assert ("TransformAction(env, " in str(refused.value)) == isinstance(space, Box)


def test_pictures_of_another_kind_are_refused():
    for picture, words in (
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
        (np.full((4, 4, 3), np.nan), r"float64 \(4, 4, 3\)"),
        (None, "None"),
    ):
        env = Slider("state", render_mode="rgb_array")
        env.render = lambda picture=picture: picture
        world = GymnasiumWorld(env)
        world.reset(seed=0)
        with pytest.raises(
            WorldMistake, match=rf"of what render\(\) shows is {words}, but must be uint8 \(h"
        ):
            observed(world)


def test_a_part_of_the_observations_is_sensed():
    env = Blind()
    world = GymnasiumWorld(env, (16, 16), proprio="arm")
    assert world.spec.proprio_dim == 4
    for begin in (lambda: world.reset(seed=3), lambda: world.step(np.float32([0.5]))):
        begin()
        out = np.zeros(4, np.float32)
        world.sense(out)
        (first, second), (third, fourth) = env.arm
        np.testing.assert_array_equal(out, np.float32([first, second, third, fourth]))
    assert GymnasiumWorld(env, (16, 16)).spec.proprio_dim == 0


def test_what_senses_more_or_less_than_its_space_says_is_refused():
    world = GymnasiumWorld(Blind(), (16, 16), proprio="arm")
    world.reset(seed=0)
    for numbers, words in (
        (np.zeros(1), r"float64 \(1,\)"),
        (np.zeros(5), r"float64 \(5,\)"),
        (None, "None"),
        ("abcd", "'abcd'"),
    ):
        world._observation = {"arm": numbers}
        with pytest.raises(
            WorldMistake, match=f"'arm' is {words}, but must be 4 numbers, as its space or spec"
        ):
            world.sense(np.zeros(4, np.float32))


def test_an_observation_that_lacks_a_part_is_refused_by_name():
    world = GymnasiumWorld(Cameras(), (10, 10), images="front", proprio="arm")
    for look in (lambda: observed(world), lambda: world.sense(np.zeros(4, np.float32))):
        world._observation = {"Front": 1, "ARM": 2}
        with pytest.raises(
            WorldMistake, match=r"has no '(front|arm)', only 'Front', 'ARM', but must have all"
        ):
            look()
        world._observation = np.zeros(3)
        words = r"observation is float64 \(3,\), but must be a dictionary that has '(front|arm)'"
        with pytest.raises(WorldMistake, match=words):
            look()


@pytest.mark.parametrize(
    ("method", "returned", "words"),
    [
        (
            "step",
            (None, 0.0, False, {}),
            r"`step` returned 4 values, but must return 5, as Gymnasium's .*trunc",
        ),
        ("step", None, "`step` returned None, but must return 5"),
        ("step", (None, None, False, False, {}), "reward is None, but must be one number"),
        ("step", (None, np.zeros(2), False, False, {}), r"reward is float64 \(2,\), but must be one number"),
        ("reset", {"arm": 1, "mode": 0}, "`reset` returned {.*}, but must return 2, .*: observation, info"),
    ],
)
def test_what_is_not_returned_as_gymnasium_does_is_refused(method, returned, words):
    env = Blind()
    world = GymnasiumWorld(env, (16, 16))
    world.reset(seed=0)
    setattr(env, method, lambda *_, **__: returned)
    with pytest.raises(WorldMistake, match=words):
        world.step(np.zeros(1, np.float32)) if method == "step" else world.reset(seed=0)


def test_a_reward_may_be_an_array_of_one():
    env = Blind()
    world = GymnasiumWorld(env, (16, 16))
    env.step = lambda action: (None, np.float32([0.5]), False, False, {})
    assert world.step(np.zeros(1, np.float32)) == (0.5, 1.0, False)


@pytest.mark.parametrize(
    ("env", "proprio", "arrays"),
    [
        (Blind(), "leg", "{'arm': (2, 2), 'mode': ()}"),
        (Blind(), ("arm", "leg"), "{'arm': (2, 2), 'mode': ()}"),
        (Slider("state", "rgb_array"), "leg", "{'observation': (1,)}"),
    ],
)
def test_what_cannot_be_sensed_is_refused(env, proprio, arrays):
    for which in ("proprio", "privileged"):
        words = rf"{which} has 'leg', but the arrays of the observations are {re.escape(arrays)}"
        with pytest.raises(ValueError, match=words):
            GymnasiumWorld(env, (16, 16), **{which: proprio})


class Gripping(Blind):
    """Tells contacts and whether its gripper is shut, as numbers of their own kinds."""

    observation_space = Dict(arm=Box(-1.0, 1.0, (2, 2), np.float64), shut=Discrete(2), contact=MultiBinary(3))

    def sense(self):
        super().sense()
        return {"arm": self.arm, "shut": 1, "contact": np.array([0, 1, 0], np.int8)}


def test_contacts_and_choices_are_numbers_too():
    world = GymnasiumWorld(Gripping(), (16, 16), proprio=("shut", "contact"), privileged="arm")
    assert (world.spec.proprio_dim, world.spec.privileged_dim) == (4, 4)
    world.reset(seed=3)
    out = np.zeros(4, np.float32)
    world.sense(out)
    np.testing.assert_array_equal(out, [1, 0, 1, 0])
    world.disclose(out)
    np.testing.assert_array_equal(out, world._observation["arm"].ravel().astype(np.float32))
    assert GymnasiumWorld(Gripping(), (16, 16), privileged=True).spec.privileged_dim == 8


def test_whole_numbers_are_commanded_to_the_nearest():
    env = Slider()
    env.action_space = Box(0, 4, (1,), np.int64)
    world, given = GymnasiumWorld(env), []
    env.step = lambda action: given.append(int(action[0])) or (env.picture(), 0.0, False, False, {})
    world.reset(seed=0)
    for action in (-1.0, -0.8, -0.7, 0.0, 0.3, 0.99):  # 0, 0.4, 0.6, 2, 2.6, 3.98
        world.step(np.array([action], np.float32))
    assert given == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ((0.0, np.array([True, False]), False, {}), r"terminated is bool \(2,\), but must be one number"),
        ((0.0, False, None, {}), "truncated is None, but must be one number"),
        ((0.0, False, False, None), "info is None, but must be a dictionary"),
    ],
)
def test_ends_and_infos_of_another_kind_are_named(returned, words):
    env = Slider()
    world = GymnasiumWorld(env, success="near")
    world.reset(seed=0)
    env.step = lambda action: (env.picture(), *returned)
    with pytest.raises(WorldMistake, match=words):
        world.step(np.zeros(1, np.float32))


def test_what_takes_no_seed_is_told_how_to():
    env = Slider()
    env.reset = lambda: None
    with pytest.raises(WorldMistake, match="`reset` takes no `seed`: write it as Gymnasium's"):
        GymnasiumWorld(env).reset(seed=0)
    env.reset = lambda seed: "seed" + 1
    with pytest.raises(TypeError, match="concatenate"):
        GymnasiumWorld(env).reset(seed=0)


def test_what_finds_no_opengl_is_told_of_the_flag():
    env = Slider("state", render_mode="rgb_array")
    world = GymnasiumWorld(env)
    world.reset(seed=0)

    def render():
        raise RuntimeError("an OpenGL platform library has not been loaded into this process")

    env.render = render
    with pytest.raises(
        WorldMistake, match=r"`render` raised an OpenGL platform .*: with --renderer opengl it"
    ):
        observed(world)


class Cameras(Blind):
    """Two cameras, and the arm's state."""

    observation_space = Dict(
        front=Box(0, 255, (20, 30, 3), np.uint8), wrist=Box(0, 255, (3, 10, 10), np.uint8),
        arm=Box(-1.0, 1.0, (2, 2), np.float64), speed=Box(-9.0, 9.0, ()),
    )  # fmt: skip
    render_mode = None

    def sense(self):
        front = np.full((20, 30, 3), [1, 2, 3], np.uint8)
        return super().sense() | {"front": front, "wrist": np.full((3, 10, 10), 9, np.uint8), "speed": 7.0}


class Shown(Cameras):
    """Whose pictures nobody asked for."""

    render_mode = "rgb_array"


def test_several_parts_lie_behind_one_another():
    world = GymnasiumWorld(Cameras(), (10, 10), images="front", proprio=("speed", "arm"))
    assert world.spec.proprio_dim == 5
    world.reset(seed=0)
    out = np.zeros(5, np.float32)
    world.sense(out)
    np.testing.assert_array_equal(out, np.float32([7.0, *world._env.arm.flatten()]))


@pytest.mark.parametrize(
    ("world", "words"),
    [
        (
            lambda: GymnasiumWorld(Cameras(), images=("wrist", "front"), proprio=("speed", "arm")),
            "red, green, blue of 'wrist', then of 'front'; proprio is speed (1), arm (4), in this order; actions ",
        ),
        (
            lambda: GymnasiumWorld(Blind(), proprio="arm"),
            "of what render() shows; proprio is arm (4), in this order",
        ),
        (
            lambda: GymnasiumWorld(Shown()),
            "of what render() shows (and not of 'arm', 'front', 'wrist'); actions are in",
        ),
    ],
)
def test_what_is_seen_is_said(world, words):
    about = world().spec.about
    assert words in about
    assert about.endswith("actions are in [-1, 1], for controls from -1 to 1")
    assert GymnasiumWorld(Slider()).spec.about == (
        "the planes of an image are red, green, blue of what is observed; actions are in [-1, 1], for controls "
        "from -2 to 6"
    )


def disclosed(world):
    out = np.zeros(world.spec.privileged_dim, np.float32)
    world.disclose(out)
    return out


def test_all_numbers_of_the_observations_are_disclosed_and_no_picture():
    world = GymnasiumWorld(Cameras(), (10, 10), images="front", privileged=True)
    world.reset(seed=0)
    np.testing.assert_array_equal(disclosed(world), np.float32([*world._env.arm.flatten(), 7.0]))
    assert GymnasiumWorld(Cameras(), (10, 10), images="front").spec.privileged_dim == 0


def test_an_observation_that_is_a_vector_is_disclosed_or_sensed_as_a_whole():
    env = Slider("state", "rgb_array")
    world = GymnasiumWorld(env, (10, 10), proprio="observation", privileged=True)
    world.reset(seed=0)
    world.step(np.float32([0.5] * world.spec.action_dim))
    sensed = np.zeros(world.spec.proprio_dim, np.float32)
    world.sense(sensed)
    np.testing.assert_array_equal(disclosed(world), np.float32([env.place]))
    np.testing.assert_array_equal(sensed, np.float32([env.place]))


def test_an_environment_of_pictures_alone_has_nothing_to_disclose():
    words = (
        r"privileged is True, .* fewer than three dim.*, but the arrays .* \{'observation': \(40, 30, 3\)\}"
    )
    with pytest.raises(ValueError, match=words):
        GymnasiumWorld(Slider(), (10, 10), privileged=True)


def test_several_cameras_of_an_observation_lie_behind_one_another():
    world = GymnasiumWorld(Cameras(), (10, 10), images=("wrist", "front"), proprio="arm")
    assert (world.spec.payload_shape, world.spec.proprio_dim) == ((6, 10, 10), 4)
    world.reset(seed=0)
    assert [set(plane.flatten()) for plane in observed(world)] == [{9}, {9}, {9}, {1}, {2}, {3}]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (("arm",), r"images has 'arm', which must be a uint8 Box .*; they are Dict\(.*'arm': Box\(-1"),
        (
            ("front", "back"),
            r"images has 'back', which must be a uint8 Box .*; they are Dict\('front': Box",
        ),
        (
            (),
            r"are a Dict, .* name pictures among front, wrist, arm, speed by images=\(\.\.\.\), or make",
        ),
    ],
)
def test_pictures_that_no_observation_has_are_refused(images, words):
    with pytest.raises(ValueError, match=words):
        GymnasiumWorld(Cameras(), (10, 10), images=images)
