"""Whole environments, from a task's name to images: both renderers, workers, states, users' own worlds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dm_control import suite

from pixelcontrol.envs.make import make_env
from pixelcontrol.envs.tasks import find_task


def make(task, num_worlds=2, num_workers=0, renderer="warp", image_size=(84, 84), **kwargs):
    return make_env(
        find_task(task) if isinstance(task, str) else task,
        num_worlds=num_worlds,
        num_workers=num_workers,
        renderer=renderer,
        image_size=image_size,
        device="cpu",
        **{"seed": 5, "stream": 0, **kwargs},
    )


def random_action(env, seed=0):
    return (
        np.random.default_rng(seed).uniform(-1, 1, (env.num_worlds, env.spec.action_dim)).astype(np.float32)
    )


@pytest.mark.parametrize("renderer", ["warp", "opengl"])
@pytest.mark.parametrize("name", ["cheetah_run", "reach_duplo"])
def test_a_suite_task_and_a_manipulation_task_give_images(name, renderer):
    """That every task does is seen in `render/test_opengl.py`, and what images, in `render/test_compare.py`."""
    env = make(name, renderer=renderer)
    assert env.image_shape == (3, 84, 84)
    assert env.renderer.name == renderer
    first = env.reset()
    env.send(random_action(env))
    second = env.receive()
    env.close()
    for row in (first, second):
        assert row.image.shape == (2, 3, 84, 84)
        assert row.image.dtype == torch.uint8
        assert row.image.float().std() > 5  # something is to be seen
    assert not torch.equal(first.image, second.image)
    assert first.first.all()
    assert not second.first.any()


@pytest.mark.parametrize("renderer", ["warp", "opengl"])
def test_workers_give_the_same_as_no_workers(renderer):
    here, there = make("reacher_easy", 2, 0, renderer), make("reacher_easy", 2, 2, renderer)
    assert torch.equal(here.reset().image, there.reset().image)
    action = random_action(here)
    for env in (here, there):
        env.send(action)
    one, other = here.receive(), there.receive()
    here.close(), there.close()
    assert torch.equal(one.image, other.image)
    np.testing.assert_array_equal(one.reward, other.reward)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("renderer", ["warp", "opengl"])
def test_several_cameras_and_their_distances(renderer, num_workers):
    """The first camera's colours are those it has alone."""
    alone = make("cheetah_run", renderer=renderer, image_size=(20, 30))
    task = replace(find_task("cheetah_run"), camera=(0, "back"), depth=8.0)
    env = make(task, 2, num_workers, renderer, image_size=(20, 30))
    row, row_alone = env.reset(), alone.reset()
    env.close(), alone.close()
    assert env.image_shape == (8, 20, 30)
    assert row.image.shape == (2, 8, 20, 30)
    assert torch.equal(row.image[:, :3], row_alone.image)
    assert (row.image[:, 3] == 255).any()  # the sky
    assert (row.image[:, 3] < 255).any()  # the cheetah


def test_a_body_is_sensed_as_dm_control_observes_it():
    task = replace(find_task("cheetah_run"), proprio=("velocity", "position"))
    env = make(task, image_size=(20, 30))
    row, seed = env.reset(), env._episode_seed(0)
    env.close()
    bare = suite.load("cheetah", "run", task_kwargs={"random": seed}).reset().observation
    np.testing.assert_allclose(row.proprio[0], [*bare["velocity"], *bare["position"]], rtol=1e-6)


def test_the_opengl_image_is_dm_controls():
    env = make("cheetah_run", 1, 0, "opengl")
    image = env.reset().image[0].numpy()
    env.close()
    bare = suite.load("cheetah", "run", task_kwargs={"random": env._episode_seed(0)})
    bare.reset()
    np.testing.assert_array_equal(image, bare.physics.render(84, 84, camera_id=0).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("reach_duplo", 30),
        ("reach_duplo", 125),
        ("reach_duplo", 126),
        ("quadruped_run", 20),
        ("humanoid_walk", 20),
    ],
)
def test_physics_continues_exactly_in_mid_episode(name, steps):
    env, other = make(name), make(name)
    env.reset()
    for t in range(steps):
        env.send(random_action(env, t))
        row = env.receive()
    assert row.last.all() == (steps == 125)
    other.load_state_dict(env.state_dict())
    for t in range(5):
        for e in (env, other):
            e.send(random_action(e, 1000 + t))
        a, b = env.receive(), other.receive()
        assert torch.equal(a.image, b.image)
        np.testing.assert_array_equal(a.reward, b.reward)
        np.testing.assert_array_equal(env._rows.payload, other._rows.payload)
    env.close(), other.close()


@pytest.mark.parametrize(
    "name", ["fish_swim", "manipulator_bring_peg", "point_mass_easy", "humanoid_CMU_run"]
)
def test_other_tasks_of_the_suite(name):
    env = make(name, 1, image_size=(64, 48))
    env.reset()
    env.send(random_action(env))
    assert env.receive().image.shape == (1, 3, 64, 48)
    env.close()


def test_a_task_that_warp_cannot_draw_is_refused():
    with pytest.raises(ValueError, match="renderer 'opengl'"):
        make("dog_run")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_users_own_world(num_workers):
    env = make("my_robot:make_world", 3, num_workers, image_size=(20, 30), action_repeat=3)
    assert env.renderer.name == "own"
    row = env.reset()
    lengths = np.zeros(3, int)
    while not row.last.any():
        lengths += 1
        env.send(np.full((3, 1), -0.5, np.float32))
        row = env.receive()
    env.close()
    assert row.image.shape == (3, 3, 20, 30)
    assert lengths.tolist() == [4, 4, 4]  # 10 frames, 3 by 3
    assert row.discount.tolist() == [1.0, 1.0, 1.0]


def test_whether_a_users_own_world_is_achieved_is_told():
    """Through worker processes, of each world; a new episode has achieved nothing."""
    env = make("my_robot:make_judging_world", 3, 2, image_size=(20, 30), action_repeat=1)
    assert not env.reset().success.any()
    rows = []
    for up in (True, True, *[False] * 9):
        env.send(np.float32([[1.0 if up else -0.5], [-0.5], [1.0 if up else -0.5]]))
        rows.append(env.receive())
    env.close()
    assert [row.success.tolist() for row in rows] == [[True, False, True]] * 10 + [[False] * 3]
    assert rows[-1].first.all()


def test_what_a_users_own_world_senses_is_that_of_its_image():
    """Through worker processes: the reward of an action tells the number that was sensed before."""
    env = make("sensing:make_world", 3, 2, image_size=(16, 16), action_repeat=1)
    row = env.reset()
    for _ in range(25):  # over the end of an episode
        assert row.proprio.shape == (3, 4)
        env.send(row.proprio[:, 2:3])
        row = env.receive()
        np.testing.assert_allclose(row.reward, np.where(row.first, 0.0, 1.0), atol=1e-6)
    env.close()


def test_worlds_disclose_to_those_alone_who_make_use_of_it():
    for privileged, numbers in ((True, 5), (False, 0)):
        env = make(
            "sensing:make_disclosing_world", 3, 2, image_size=(16, 16), action_repeat=1, privileged=privileged
        )
        rows = [env.reset()]
        for _ in range(3):
            env.send(np.zeros((3, 1), np.float32))
            rows.append(env.receive())
        env.close()
        assert env.spec.privileged_dim == numbers
        for count, row in enumerate(rows):
            told = np.column_stack([row.proprio, np.full(3, np.float32(count / 20))])
            np.testing.assert_array_equal(row.privileged, told[:, :numbers])


def test_a_users_own_dm_control_task_is_drawn_by_warp():
    env = make("my_robot:make_dm_control_world", action_repeat=10)
    assert env.renderer.name == "warp"
    assert env.spec.episode_frames == 50
    row, steps = env.reset(), 0
    assert row.image.float().std() > 5
    while not row.last.any():
        env.send(random_action(env))
        row, steps = env.receive(), steps + 1
    assert steps == 5  # 1 second at 50 frames/s
    assert row.discount.tolist() == [1.0, 1.0]


def test_a_users_factory_may_ask_which_renderer_is_wanted(monkeypatch):
    from pixelcontrol.envs.user import build_world

    given = [
        build_world("my_robot:make_dm_control_world", (8, 8), 2, name).scene for name in ("warp", "opengl")
    ]
    assert [scene is not None for scene in given] == [True, False]


def test_a_real_robot_is_not_made_to_repeat_its_moves():
    envs = [make("my_robot:make_real_robot", 1, image_size=(20, 30), action_repeat=1) for _ in range(2)]
    env, resumed = envs
    env.reset()
    env.send(np.zeros((1, 1), np.float32))
    env.receive()
    resumed.load_state_dict(env.state_dict())
    resumed.send(np.zeros((1, 1), np.float32))
    assert resumed.receive().first.all()
    for one in envs:
        one.close()


def test_there_is_one_of_a_real_robot():
    with pytest.raises(
        ValueError, match=r"does not repeat, as a robot of which there is one, .* use --envs 1"
    ):
        make("my_robot:make_real_robot", 2, image_size=(20, 30), action_repeat=1)


def test_a_world_that_discloses_nothing_though_its_spec_promises_it_is_named():
    words = "sensing:SecretiveWorld: its spec has privileged_dim 4, but it has no method `disclose`"
    with pytest.raises(ValueError, match=words):
        make("sensing:SecretiveWorld", privileged=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:make_world", "No module named 'no_such_module'"),
        ("my_robot:no_such_function", "module 'my_robot' has no function 'no_such_function'"),
        (
            "sensing:PromisingWorld",
            "sensing:PromisingWorld: its spec has proprio_dim 2, .* no method `sense`",
        ),
        ("sensing:make_world_without_a_judge", "its spec has tells_success True, .* no attribute `success`"),
        (
            "my_robot:make_world_without_arguments",
            "called with image_size and action_repeat, but got",
        ),
        (
            "my_robot:make_bare_environment",
            "returned Slider, but must return a World; wrap a Gymnasium",
        ),
        ("my_robot:make_dm_control_environment", "returned Environment, .*, one of dm_control in .*DmcWorld"),
        (
            "my_robot:make_opengl_world",
            "draws with opengl, and --renderer is warp: give it an argument `renderer`, .* --renderer opengl",
        ),
        ("my_robot:make_world_of_another_size", r"must have \(channels, 84, 84\), 'uint8' and 2"),
    ],
)
def test_a_users_mistakes_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        make(name)
