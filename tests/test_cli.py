"""The command line as people meet it: help, mistakes, and the verbs on a finished run."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from pixelcontrol.cli import VERBS, main
from pixelcontrol.config import AGENTS, FLAGS, setting_fields
from pixelcontrol.policy import load

TINY_RUN = (  # noqa: SIM905
    "train toy_reach --frames 200 --envs 2 --workers 1 --image-size 24 --batch-size 4 --hidden-dim 8 "
    "--conv-filters 4 --seed-frames 100 --exploration-steps 20 --eval-every-frames 100 --eval-episodes 2 "
    "--device cpu"
).split()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "a run ä"
    assert main([*TINY_RUN, "--out", str(path)]) == 0
    return path


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_help_of_train_gives_default_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "--learning-rate X" in words
    assert "(default: 0.0001; Table 2)" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("trian", "did you mean 'train'"),
        ("train cheetha_run", "'cheetah_run'"),
        ("train cheetah_run --agent drqv1", "did you mean 'drqv2'"),
        ("train cheetah_run --batch-sise 3", "did you mean --batch-size"),
        ("train cheetah_run --batch-size many", "'many'"),
        ("train cheetah_run --batch-size 2.5", "expected a whole number, got '2.5'"),
        ("train cheetah_run --device gpu", "--device 'gpu' is unknown"),
        ("train cheetah_run --precision tf32 --device cpu", "tf32 exists on NVIDIA GPUs only"),
        ("train", "which task?"),
        ("train --resume nowhere", "holds no run"),
        ("train cheetah_run --seeds 4-1", "expected numbers and rising ranges"),
        ("train cheetah_run --seeds 1-4 --resume nowhere", "not allowed with argument"),
        ("train --resume nowhere --seed 1", "not allowed with argument"),  # 1 is the default, too
        ("train toy_reach --agent sac --log-std-min 3", "must be below --log-std-max"),
        ("train no_such_module:make_world", "is it on PYTHONPATH?"),
        (
            "train ./my_robot:make_world",
            "'./my_robot' is no module's name; write my_robot:make_world, and run",
        ),
        ("train my_robot.py:make_world", "write my_robot:make_world, and run where my_robot.py lies"),
        ("compare-renderers toy_reach", "toy_reach: only dm_control's tasks and an own model in a DmcWorld"),
        ("train toy_reach --frames inf", "--frames"),
        ("train toy_reach --seed-frames 2", "fewer than 4 images (--n-step and one)"),
        ("train toy_reach --learning-rate inf", "--learning-rate is inf, but must be finite"),
        (
            "train toy_reach --image-size 100000",
            "must be at least 16 and at most 1024",
        ),
        ("sweep --tasks toy_reach --out x --preset quick", "write, for example, --agents drqv2:quick"),
        ("compare-renderers cheetha_run", "'cheetah_run'"),
        ("sweep toy_reach --seeds 0 --jobs -1", "--jobs: must be at least 0, got '-1'"),
        ("eval nowhere", "holds no run"),
        ("eval nowhere --episodes 0", "--episodes: must be at least 1, got '0'"),
        ("play nowhere --video film.avi", "must end in .mp4 or .gif"),
        ("export nowhere -o policy.onxx", "must end in .pt2 or .onnx, or be a folder's name without a dot"),
        ("train cheetah_run --lr 1", "unknown argument '--lr' (see"),
        ("train cheetah_run --framse 1", "did you mean --frames?"),
        (
            "sweep --tasks toy_reach --out x --agents drqv2 drq --views 3",
            "--views is a setting of drq, and not of drqv2 (a sweep takes those of one agent alone in quotes: "
            '"drq --views ...")',
        ),
        (
            "sweep --tasks toy_reach --out x --agents drqv2 'drqv2:quick --n-stpe 1'",
            "unknown argument '--n-stpe'; did you mean --n-step?",
        ),
        ("sweep --tasks toy_reach --out x --agents 'drqv2 --n-step 0'", "--n-step is 0, but must be"),
        (
            "sweep --tasks toy_reach --out x --agents 'drqv2 --n-step 0.5'",
            "sweep: --agents 'drqv2 --n-step 0.5': argument --n-step: expected a whole number",
        ),
        (
            "sweep --tasks toy_reach --out x --agents 'drqv2 quick'",
            "--agents 'drqv2 quick': unknown argument 'quick' (",
        ),
        (
            "sweep --tasks toy_reach --out x --agents 'drqv2 --seed 1'",
            "--seed is no setting of an agent; write a",
        ),
        ("sweep --tasks toy_reach --out x --agents drqv2 --agents drqv2", "would be one in figures, 'drqv2'"),
        ("train cheetah_run --camera 0,", "expected words between commas, got '0,'"),
        ('sweep --tasks toy_reach --out x --agents "drqv2 \'"', '--agents "drqv2 \'": No closing quotation'),
        ("bench uptade", "did you mean 'update'"),
    ],
)
def test_a_mistake_is_answered_in_one_line_and_creates_nothing(
    arguments: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(shlex.split(arguments))
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr().err
    assert status == 2
    assert words in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["my_robot", "my_robot.py"])
def test_a_file_that_lies_there_is_known(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_robot.py").touch()
    assert main(["train", name]) == 2
    assert "is written my_robot:FUNCTION, such as my_robot:make_world\n" in capsys.readouterr().err


def test_a_finished_run_can_be_evaluated_and_filmed(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run_dir), "--episodes", "3"]) == 0
    assert "over 3 episodes, renderer own, frame 200" in capsys.readouterr().out
    for name in ("film.mp4", "film.gif"):
        assert main(["play", str(run_dir), "--video", str(tmp_path / "films" / name)]) == 0
        assert (tmp_path / "films" / name).stat().st_size > 1000


def test_a_run_may_see_through_two_cameras_and_their_distances_and_sense_its_body(tmp_path: Path) -> None:
    # few agent steps in an episode: two cameras take their time
    choices = ["--camera", "0,back", "--depth", "8", "--proprio", "position"]
    run, times = str(tmp_path / "run"), ["--action-repeat", "20", "--seed-frames", "120"]
    assert main(["train", "cheetah_run", *TINY_RUN[2:], *choices, *times, "--out", run]) == 0
    policy = load(tmp_path / "run")
    assert policy(np.zeros((24, 24, 24), np.uint8), np.zeros(8, np.float32)).shape == (6,)
    assert policy.description().endswith(
        "the planes of an image are red, green, blue, distance (255 at 8 m) of camera 0, then of camera back; "
        "proprio is position (8), in this order; actions are in [-1, 1], for controls from -1 to 1, held "
        "for 20 frames"
    )
    assert main(["play", run, "--video", str(tmp_path / "film.gif")]) == 0


OWN_AGENT = """
from __future__ import annotations

from dataclasses import dataclass

from pixelcontrol.agents.drqv2 import PRESETS, DrQV2, DrQV2Settings
from pixelcontrol.config import AgentKind
from pixelcontrol.settings import setting


@dataclass(frozen=True)
class Settings(DrQV2Settings):
    gain: float = setting(1.0, "of its own", "ours")
    mood: Literal["calm", "wild"] = setting("calm", "of its own", "ours", choices=("calm", "wild"))


@dataclass(frozen=True)
class OddSettings(DrQV2Settings):
    gain: complex = setting(1j, "of its own", "ours")


KIND = AgentKind(DrQV2, Settings, PRESETS)
ODD = AgentKind(DrQV2, OddSettings, PRESETS)
"""


def test_settings_of_an_own_agent_are_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent_with_settings.py").write_text(OWN_AGENT)
    monkeypatch.syspath_prepend(tmp_path)
    own = "agent_with_settings:KIND"
    sweep = f"sweep --tasks toy_reach --agents drqv2:quick {own}:quick --dry-run --out {tmp_path / 'runs'}"
    with pytest.raises(SystemExit):
        main(["train", "--agent", own, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "--gain X of its own (default: 1.0; ours)" in printed
    assert "--mood calm|wild" in printed
    # DrQ-v2, in the same sweep, has no such setting
    assert main([*sweep.split(), "--gain", "2"]) == 2
    assert "setting of drqv2 'gain' is unknown" in capsys.readouterr().err
    assert main([*sweep.replace("drqv2:quick", "").split(), "--gain", "2", "--mood", "wild"]) == 0
    assert main(["train", "toy_reach", "--agent", "agent_with_settings:ODD"]) == 2
    assert (
        "setting 'gain' of an agent is declared as complex, and must be one of int" in capsys.readouterr().err
    )


def test_a_sweep_takes_settings_of_one_agent_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agents = ["drqv2:quick", "drqv2:quick --n-step 1 --conv-strides 2,2", "sac:quick --feature-dim 20"]
    sweep = ["sweep", "--tasks", "toy_reach", "--seeds", "1", "--dry-run", "--out", str(tmp_path / "runs")]
    assert main([*sweep, "--agents", *agents]) == 0
    said = capsys.readouterr().out
    assert "3 runs: 3 new" in said
    assert "drqv2-quick-conv_strides=2,2-n_step=1_toy_reach_1" in said
    assert "sac-quick-feature_dim=20_toy_reach_1" in said


def test_an_own_agents_setting_can_take_the_place_of_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("train", "check", "sweep"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
    flags = re.findall(r"(?m)^  (?:-h, )?--([\w-]+)", capsys.readouterr().out)
    settings = {name for agent in AGENTS for name in setting_fields(agent)}
    assert {flag.replace("-", "_") for flag in flags} - settings == FLAGS - {"task"}  # which is no flag


def test_a_run_is_not_overwritten(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY_RUN, "--out", str(run_dir)]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_a_finished_run_resumes_to_nothing(run_dir: Path) -> None:
    before = (run_dir / "train.csv").read_text(), (run_dir / "eval.csv").read_text()
    assert main(["train", "--resume", str(run_dir)]) == 0
    assert ((run_dir / "train.csv").read_text(), (run_dir / "eval.csv").read_text()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--batch-size 8", "--batch-size was given"),
        ("walker_walk", "task was given"),
        ("--agent curl --preset author --out elsewhere", "--agent, --out, --preset was given"),
        ("--frames 100", "can be made longer, not shorter"),
        ("--precision bf61", "did you mean 'bf16'"),
        ("--workers -1", "--workers is -1, but must be at least 0"),
        ("--frames 401", "an agent step is --action-repeat 2 frames"),
    ],
)
def test_settings_cannot_change_on_resume(
    arguments: str, words: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--resume", str(run_dir), *arguments.split()]) == 2
    assert words in capsys.readouterr().err


def test_a_users_module_is_found_where_the_command_is_given(tmp_path: Path) -> None:
    (tmp_path / "robot_here.py").write_text("def make_world(image_size, action_repeat):\n    return 3\n")
    command = [
        sys.executable,
        "-c",
        "import sys, pixelcontrol.cli as c; sys.path.remove(''); sys.exit(c.main())",
    ]
    ended = subprocess.run(
        [*command, "train", "robot_here:make_world"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "robot_here:make_world returned int, but must return a World" in ended.stderr


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("pixelcontrol")


def test_tasks_lists_the_papers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    shown = capsys.readouterr().out
    assert "reach_duplo" in shown
    assert "n_step=1 batch_size=512" in shown


def test_renderers_are_compared_in_a_table_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("pendulum_swingup", "reacher_easy")
    assert (
        main(["compare-renderers", *names, "--states", "1", "--image-size", "16", "--out", str(tmp_path)])
        == 0
    )
    head, rule, *rows = capsys.readouterr().out.splitlines()
    for name, row in zip(names, rows, strict=True):
        assert row.startswith(f"| {name} | ")
        assert row.count("|") == head.count("|") == rule.count("|")
        assert (tmp_path / f"{name}.png").exists()


def test_an_own_model_is_compared_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "envs")
    size = ["--states", "1", "--image-size", "16", "--out", str(tmp_path)]
    assert main(["compare-renderers", "my_robot:make_dm_control_world", *size]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("| my_robot:make_dm_control_world | ")
    assert (tmp_path / "my_robot.make_dm_control_world.png").exists()
    assert main(["compare-renderers", "my_robot:make_judging_world", *size]) == 2
    assert capsys.readouterr().out == ""


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m pixelcontrol tasks | head -0; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 128 + signal.SIGPIPE)  # 0 where it was quicker than its reader
    assert ended.stderr == ""


def test_an_unknown_renderer_is_answered_too() -> None:
    # in a process of its own: under the tests' type checks the word would not get as far
    command = [sys.executable, "-m", "pixelcontrol", "train", "cheetah_run", "--renderer", "wrap"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "did you mean 'warp'" in ended.stderr


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, pixelcontrol.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("where", ["make_world", "update"])
def test_what_a_users_own_code_raises_keeps_its_traceback(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shape errors of NumPy and torch are ValueErrors and RuntimeErrors, as mistakes in arguments are."""
    code = """
        import numpy as np
        from pixelcontrol.agents.drqv2 import PRESETS, DrQV2, DrQV2Settings
        from pixelcontrol.config import AgentKind

        def make_world(image_size, action_repeat):
            return np.zeros(2).reshape(3)

        class Broken(DrQV2):
            def update(self, batch, agent_step):
                return np.zeros(3) + np.zeros(4)

        KIND = AgentKind(Broken, DrQV2Settings, PRESETS)
    """
    (tmp_path / "my_broken.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    small = ["--preset=quick", "--image-size=24", "--frames=1000", "--seed-frames=400", "--eval-episodes=0"]
    wanted = ["my_broken:make_world"] if where == "make_world" else ["toy_reach", "--agent=my_broken:KIND"]
    with pytest.raises(ValueError, match=r"reshape|broadcast") as raised:
        main(["train", *wanted, *small, f"--out={tmp_path / 'run'}"])
    assert raised.traceback[-1].name == where


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the arguments is told by a `ValueError` that is raised here, not in a library."""
    monkeypatch.setitem(VERBS, "tasks", lambda arguments: int(np.zeros(2).reshape(3)))
    with pytest.raises(ValueError, match="reshape"):
        main(["tasks"])
