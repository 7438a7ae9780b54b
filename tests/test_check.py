"""`pixelcontrol check`: what it finds in a task, and that it names what makes learning impossible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import pytest

from pixelcontrol.cli import main

OWN_TASKS = Path(__file__).parent / "envs"

Check = Callable[..., str]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return tmp_path / "films" / "check.gif"


@pytest.fixture
def check(film: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check a task, and return what was printed."""
    monkeypatch.syspath_prepend(OWN_TASKS)

    def run(task: str, *settings: str) -> str:
        small = f"--image-size 24 --action-repeat 1 --device cpu --film {film}".split()
        assert main(["check", task, *small, *settings]) == 0
        return capsys.readouterr().out

    return run


def test_it_says_what_a_task_is_like_and_films_it(check: Check, film: Path) -> None:
    words = check("toy_reach")
    assert "images of 3 planes, 24x24 pixels, by renderer own; 2 actions, each for 1 frames\n" in words
    assert "  episode      50 agent steps, to a time limit\n" in words
    assert "  repeats      yes" in words
    assert "warning" not in words
    assert len(imageio.imread(film)) == 51


def test_an_agent_that_is_told_more_is_shown_more(check: Check) -> None:
    words = check("toy_reach", "--agent", "privileged")
    assert ", 4 numbers of privileged; " in words
    (told,) = [line for line in words.splitlines() if line.startswith("  privileged  ")]
    assert told.count(" to ") == 4


def test_every_camera_is_filmed_and_judged(check: Check, film: Path) -> None:
    words = check("odd_worlds:HalfBlind", "--action-repeat", "1")
    assert "  camera 0     brightness " in words
    assert "  camera 1     brightness 0 of 255, from 0 to 0\n" in words
    assert "warning: camera 1: all images of the episode are the same" in words
    assert "camera 0: " not in words
    # enlarged by a whole number: two cameras side by side, the fourth channel below
    _, height, width, _ = imageio.imread(film).shape
    assert height == width >= 48


def test_rewards_success_and_a_true_end_are_told(check: Check) -> None:
    # a slider that moves by up to 6 and is rewarded with its place: it falls off beyond 20, so with a true end the
    # highest reward is from there to 26
    words = check("my_robot:make_judging_world", "--seed", "1")
    assert ", to a true end\n" in words
    assert "  success      yes\n" in words
    _, _, highest, *_ = words.partition("  rewards")[2].split()
    assert 20 < float(highest) < 26


@pytest.mark.parametrize(
    ("world", "named"),
    [
        ("odd_worlds:Frozen", "warning: all images of the episode are the same"),
        ("odd_worlds:Foggy", "warning: images are of one colour"),
        ("odd_worlds:Idle", "warning: random actions met no reward"),
        ("odd_worlds:Idle", "tell no time limit"),
        ("odd_worlds:Hopeless", "warning: every reward was -2, whatever was done"),
        ("odd_worlds:Lavish", "warning: rewards of up to"),
        ("odd_worlds:Whimsical", "  repeats      NO"),
        ("odd_worlds:Numb", "  repeats      NO"),
    ],
)
def test_what_is_odd_is_named(check: Check, world: str, named: str) -> None:
    assert named in check(world)


def test_a_real_robot_is_opened_once(check: Check) -> None:
    words = check("my_robot:make_real_robot", "--eval-episodes", "0")
    assert "  repeats      not, as its spec says" in words


def test_what_a_world_raises_is_not_mended(check: Check) -> None:
    with pytest.raises(ZeroDivisionError):
        check("odd_worlds:Failing")
    with pytest.raises(BrokenPipeError, match="the robot is gone"):  # which is no closed `| head`
        check("odd_worlds:Gone")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("toy_reach --seed-frames 2", "fewer than 4 images (--n-step and one) of each of 1 worlds"),
        ("toy_reach --envs 16 --seed-frames 40", "of each of 16 worlds"),
        ("toy_reach --demonstrations nowhere", "--demonstrations is nowhere"),
        ("toy_reach --start-from nowhere", "nowhere holds no run"),
        ("toy_reach --image-size 16 --conv-strides 2,2,2,2", "vanish in 4 convolutions"),
        ("cheetah_run --proprio nothing", "proprio has 'nothing'"),
        ("my_robot:make_real_robot", "use --eval-episodes 0"),
        ("my_robot:make_real_robot --envs 2 --eval-episodes 0", "use --envs 1"),
        ("my_robot:make_world --agent privileged", "discloses nothing"),
    ],
)
def test_what_a_run_would_be_refused_for_is_refused(
    settings: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(OWN_TASKS)
    given = [*settings.split(), "--device", "cpu"]
    answers = []
    for verb in ("check", "train"):
        assert main([verb, *given]) == 2
        answers.append(capsys.readouterr().err.partition(": ")[2].splitlines()[-1])
    assert words in answers[0]
    assert answers[0] == answers[1]
    assert not list(tmp_path.iterdir())
