"""The command line: `pixelcontrol VERB ...`. Every verb is a few lines around one function of the package.

A mistake in the arguments is answered in one line, with exit status 2, before anything is created.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import sysconfig
import traceback
import warnings
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pixelcontrol import __version__
from pixelcontrol.arguments import Parser, add_setting, at_least, whole_number
from pixelcontrol.errors import Interrupted, RunError

if TYPE_CHECKING:
    from pixelcontrol.experiments.plan import Variant

# Idle OpenMP threads must sleep, not spin: the worlds' processes need the cores. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _preset_of_an_agent(text: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"belongs to an agent: write, for example, --agents drqv2:{text}")


def _known_first(verb: str, arguments: list[str], option: str, **how: Any) -> Any:
    """Return the value of an option that decides which others there are: each agent has settings of its own."""
    parser = Parser(prog=f"pixelcontrol {verb}", add_help=False)
    parser.add_argument(option, dest="value", **how)
    return parser.parse_known_args(arguments)[0].value


def _parser_of_a_run(verb: str, purpose: str, agent: str) -> Parser:
    """Return a parser of what a run is: task, agent, preset and settings."""
    from pixelcontrol.config import AGENTS, agent_kind, setting_fields

    parser = Parser(
        prog=f"pixelcontrol {verb}",
        description=f"{purpose} A choice is taken from the command line, else from the "
        "preset, else from the task's own deviation (paper, appendix B), else from the default shown here. "
        f"Settings are those of {agent}; with --agent NAME --help those of another.",
    )
    parser.add_argument(
        "task",
        nargs="?",
        default=argparse.SUPPRESS,
        help="a name from `pixelcontrol tasks`, or module:factory of your own",
    )
    parser.add_argument(
        "--agent",
        default=argparse.SUPPRESS,
        help=f"one of {', '.join(AGENTS)}, or module:KIND of your own (default: drqv2)",
    )
    parser.add_argument(
        "--preset",
        default=argparse.SUPPRESS,
        help=f"one of {', '.join(agent_kind(agent).presets)} (default: paper)",
    )
    group = parser.add_argument_group(f"settings of the run and of {agent}, with their sources")
    for item in setting_fields(agent).values():
        add_setting(group, item)
    return parser


def _train_parser(agent: str) -> Parser:
    parser = _parser_of_a_run("train", "Train an agent from camera images.", agent)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--seed",
        type=whole_number,
        help="of weights, worlds, noise and draws (default: 1)",
        default=argparse.SUPPRESS,  # where it is the default, argparse would not see that it was given
    )
    which.add_argument(
        "--seeds", help="several at once, such as 1-4; a sweep into --out", default=argparse.SUPPRESS
    )
    which.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="continue this run; with --frames, to more frames than it was to have; on another machine with "
        "another --device, --precision or --workers",
        default=argparse.SUPPRESS,
    )
    parser.add_argument("--out", type=Path, help="run directory", default=argparse.SUPPRESS)
    return parser


def train(arguments: list[str]) -> int:
    """Train an agent."""
    # Until training begins nothing would be lost: Ctrl-C ends the process at once, as SIGTERM does.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    agent = _known_first("train", arguments, "--agent", default="drqv2")
    parser = _train_parser(agent)
    given = vars(parser.parse_strictly(arguments))
    from pixelcontrol.config import read_resumed, resolve, setting_fields
    from pixelcontrol.train import train as run_training

    overrides = {name: given[name] for name in given.keys() & setting_fields(agent).keys()}
    if "resume" in given:
        known = {name: given[name] for name in ("task", "agent", "preset", "out") if name in given}
        config = read_resumed(given["resume"], overrides | known)
        run_training(config, given["resume"], resume=True)
        return 0
    if "task" not in given:
        parser.error("which task? Name one of `pixelcontrol tasks`")
    preset = given.get("preset", "paper")
    config = resolve(given["task"], agent, preset, given.get("seed", 1), **overrides)
    # a sweep goes on when its words are repeated
    last = given["seeds"] if "seeds" in given else f"{config.seed}-{datetime.now():%Y%m%d-%H%M%S}"
    run_dir = given.get("out", Path("runs") / f"{config.task}-{agent}-{last}".replace(":", "."))
    _refuse_a_file(run_dir)
    if "seeds" in given:
        from pixelcontrol.experiments.plan import Variant, parse_seeds
        from pixelcontrol.experiments.sweep import sweep as run_sweep

        together = len(parse_seeds(given["seeds"]))
        variants = [Variant(agent, preset)]
        return run_sweep([config.task], variants, given["seeds"], run_dir, overrides, parallel=together)
    run_training(config, run_dir)
    return 0


def _refuse_a_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is {out}, which is a file; name a directory that exists or can be made")


def check(arguments: list[str]) -> int:
    """Act at random in a task, and say what it is like."""
    agent = _known_first("check", arguments, "--agent", default="drqv2")
    parser = _parser_of_a_run(
        "check",
        "Act in a task for an episode, uniformly at random as training begins, and say what it is like, with the "
        "settings of `train`: what an agent would see, how rewards lie, whether an episode repeats itself.",
        agent,
    )
    parser.add_argument("--seed", type=whole_number, help="of worlds and actions", default=1)
    parser.add_argument("--film", type=Path, default=Path("check.mp4"), help="file to write: .mp4 or .gif")
    given = vars(parser.parse_strictly(arguments))
    if "task" not in given:
        parser.error("which task? Name one of `pixelcontrol tasks`, or your own")
    _refuse_other_films("--film", given["film"])
    from pixelcontrol.check import check as check_task
    from pixelcontrol.config import resolve, setting_fields

    overrides = {name: given[name] for name in given.keys() & setting_fields(agent).keys()}
    config = resolve(given["task"], agent, given.get("preset", "paper"), given["seed"], **overrides)
    check_task(config, given["film"])
    return 0


def _refuse_other_films(option: str, film: Path) -> None:
    if film.suffix.lower() not in (".mp4", ".gif"):
        raise ValueError(f"{option} is {film}, but must end in .mp4 or .gif")


def evaluate(arguments: list[str]) -> int:
    """Evaluate a trained agent."""
    from pixelcontrol.config import RENDERERS
    from pixelcontrol.settings import unknown

    parser = Parser(prog="pixelcontrol eval", description="Evaluate a run's last checkpoint.")
    parser.add_argument("run", type=Path, help="run directory; RUN/best for its best policy")
    parser.add_argument("--episodes", type=at_least(1), default=10, help="how many")
    parser.add_argument("--renderer", default=None, help="warp or opengl; the run's own when left out")
    parser.add_argument(
        "--seed", type=at_least(0), default=None, help="of the episodes; the run's own when left out"
    )
    given = parser.parse_strictly(arguments)
    if given.renderer not in (None, *RENDERERS):
        raise ValueError(unknown("--renderer", given.renderer, RENDERERS))
    from pixelcontrol.policy import load

    policy = load(given.run)
    outcome = policy.evaluate(given.episodes, renderer=given.renderer, seed=given.seed)
    if outcome.renderer not in ("own", policy.config.loop.renderer):
        print(f"note: this agent was trained on {policy.config.loop.renderer} images", file=sys.stderr)
    for index, value in enumerate(outcome.returns):
        print(f"episode {index:3d}  return {value:.1f}")
    print(f"mean {outcome}, renderer {outcome.renderer}, frame {policy.frame:,}")
    return 0


def play(arguments: list[str]) -> int:
    """Film a trained agent."""
    parser = Parser(prog="pixelcontrol play", description="Film one episode of a run's last checkpoint.")
    parser.add_argument("run", type=Path, help="run directory; RUN/best for its best policy")
    parser.add_argument("--video", type=Path, default=Path("play.mp4"), help="file to write: .mp4 or .gif")
    parser.add_argument(
        "--seed", type=at_least(0), default=None, help="of the episode; the run's own when left out"
    )
    given = parser.parse_strictly(arguments)
    _refuse_other_films("--video", given.video)
    from pixelcontrol.logger import write_video
    from pixelcontrol.policy import load

    policy = load(given.run)
    given.video.parent.mkdir(parents=True, exist_ok=True)
    outcome = policy.evaluate(1, seed=given.seed)
    write_video(given.video, outcome.video)
    print(f"return {outcome.returns[0]:.1f}, {len(outcome.video)} images -> {given.video}")
    return 0


def export(arguments: list[str]) -> int:
    """Write a trained agent as a program for PyTorch alone or ONNX Runtime, or as a small folder."""
    parser = Parser(
        prog="pixelcontrol export",
        description="Write what a run's last checkpoint does as a program: torch.export.load(FILE).module() maps "
        "observations, uint8 (batch, channels, height, width), to actions, without pixelcontrol. One that "
        "learned with proprioception takes that too, float32 (batch, numbers). That of dreamerv2 takes its last "
        "actions and its memory too, and returns its memory beside the actions. A FILE whose name ends in .onnx "
        "is for ONNX Runtime, TensorRT and the like. A name without an ending is a folder, of what play, eval, "
        "export and pixelcontrol.load need of the run, to keep and to give away.",
    )
    parser.add_argument("run", type=Path, help="run directory; RUN/best for its best policy")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("policy.pt2"), help="what to write: .pt2, .onnx or a folder"
    )
    given = parser.parse_strictly(arguments)
    from pixelcontrol.policy import load, write_policy

    if given.out.suffix.lower() not in ("", ".pt2", ".onnx"):
        raise ValueError(
            f"--out is {given.out}, but must end in .pt2 or .onnx, or be a folder's name without a dot"
        )
    if not given.out.suffix:
        write_policy(given.run, given.out)
        print(f"{given.out} is for play, eval, export and pixelcontrol.load; {load(given.out).description()}")
        return 0
    policy = load(given.run)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    takes = policy.export(given.out)
    print(f"{given.out} takes {takes}; {policy.description()}")
    return 0


def tasks(arguments: list[str]) -> int:
    """List the tasks."""
    Parser(prog="pixelcontrol tasks", description="List every task with what belongs to it.").parse_strictly(
        arguments
    )
    from pixelcontrol.envs.tasks import OTHER_TASKS, PAPER_TASKS

    head = ("task", "difficulty", "frames", "dim(S)", "dim(A)", "traits", "deviations from Table 2")
    rows = [
        (
            task.name,
            task.difficulty or "(medium)",
            f"{task.train_frames:,}",
            str(task.state_dim or "-"),
            str(task.action_dim or "-"),
            ", ".join(task.traits),
            " ".join(f"{name}={value:g}" for name, value in task.deviations.items()),
        )
        for task in (*PAPER_TASKS, *OTHER_TASKS)
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def doctor(arguments: list[str]) -> int:
    """Say what this machine can do."""
    parser = Parser(
        prog="pixelcontrol doctor", description="Check GPU, precision, renderers, video and versions."
    )
    parser.add_argument("--images", type=Path, default=None, help="folder for each renderer's test image")
    given = parser.parse_strictly(arguments)
    from pixelcontrol.doctor import examine

    return examine(given.images)


def bench(arguments: list[str]) -> int:
    """Measure speed on this machine."""
    parser = Parser(prog="pixelcontrol bench", description="Measure how fast the parts are on this machine.")
    parser.add_argument("what", help=", ".join(BENCHMARKS))
    parser.add_argument("task", nargs="?", default="cheetah_run", help="a name from `pixelcontrol tasks`")
    parser.add_argument("--agent", default="drqv2", help="whose update")
    parser.add_argument(
        "--repeats", type=at_least(1), default=30, help="timed calls, after a few that do not count"
    )
    parser.add_argument("--preset", default="paper", help="of the agent")
    parser.add_argument(
        "--frames",
        type=whole_number,
        default=2_000,
        help="that `bench train` and `bench seeds` time, after seed frames and a tenth more",
    )
    parser.add_argument("--envs", type=whole_number, default=0, help="worlds; 0 takes as many as `train`")
    parser.add_argument("--renderer", default="warp", help="warp or opengl")
    parser.add_argument("--precision", default="auto", help="auto, fp32, tf32 or bf16")
    parser.add_argument(
        "--replay-capacity",
        type=whole_number,
        default=100_000,
        help="transitions, for `bench replay` and `train`",
    )
    given = parser.parse_strictly(arguments)
    from pixelcontrol.bench import run
    from pixelcontrol.config import resolve
    from pixelcontrol.settings import unknown

    if given.what not in BENCHMARKS:
        raise ValueError(unknown("benchmark", given.what, BENCHMARKS))
    names = ("frames", "renderer", "precision", "replay_capacity")
    chosen = {name: getattr(given, name) for name in names}
    if given.envs:
        chosen["envs"] = given.envs
    run(
        given.what,
        resolve(given.task, given.agent, given.preset, eval_episodes=0, **chosen),
        given.repeats,
    )
    return 0


def compare_renderers(arguments: list[str]) -> int:
    """Compare the two renderers' pictures of tasks."""
    parser = Parser(
        prog="pixelcontrol compare-renderers",
        description="Draw random states of each task with both renderers; print how far they are apart as a "
        "table, and write TASK.png: three states as OpenGL, warp, and their difference times 4.",
    )
    parser.add_argument(
        "tasks",
        nargs="+",
        help="dm_control's tasks by name, easy, medium, hard, all, or own models as module:function",
    )
    parser.add_argument("--states", type=at_least(1), default=200, help="how many of each task")
    parser.add_argument("--image-size", type=at_least(8), default=84, help="height and width, pixels")
    parser.add_argument("--out", type=Path, default=Path("renderers"), help="folder for the pictures")
    given = parser.parse_strictly(arguments)
    from pixelcontrol.envs.render.compare import TABLE_HEAD, compare
    from pixelcontrol.envs.tasks import find_task, parse_tasks

    for place, name in enumerate(parse_tasks(given.tasks)):
        found = compare(find_task(name), given.states, (given.image_size, given.image_size))
        if place == 0:  # the first name was one
            print(TABLE_HEAD)
        found.save(given.out / f"{name}.png".replace(":", "."))
        print(f"| {name} | {found.table_row()} |", flush=True)
    return 0


def _variant(words: str) -> Variant:
    """Read an agent as `sweep` takes it: "drqv2", "drqv2:quick" or "drqv2:quick --n-step 1"."""
    from pixelcontrol.config import FLAGS, setting_fields, split_agent
    from pixelcontrol.experiments.plan import Variant

    try:
        name, *flags = shlex.split(words) or [""]
    except ValueError as error:
        raise ValueError(f"--agents {words!r}: {error}") from error
    agent, preset = split_agent(name)
    for word in flags:
        if word.startswith("--") and word[2:].partition("=")[0].replace("-", "_") in FLAGS:
            raise ValueError(
                f"--agents {words!r}: {word} is no setting of an agent; write a preset as agent:preset, and what "
                "is for all runs outside the quotes"
            )
    parser = Parser(prog=f"pixelcontrol sweep: --agents {words!r}", add_help=False)
    for item in setting_fields(agent).values():
        add_setting(parser, item)
    return Variant(agent, preset, vars(parser.parse_strictly(flags)))


def sweep(arguments: list[str]) -> int:
    """Run many tasks, agents and seeds."""
    from pixelcontrol.config import AGENTS, setting_fields

    parser = Parser(
        prog="pixelcontrol sweep",
        description="Run tasks x agents x seeds; started again after anything, it goes on (docs/sweeps.md).",
    )
    parser.add_argument(
        "--tasks", nargs="+", action="extend", required=True, help="names, or easy, medium, hard, all"
    )
    parser.add_argument(
        "--agents",
        nargs="+",
        action="extend",
        default=argparse.SUPPRESS,
        help="names, each alone, as agent:preset, or in quotes with settings of its own: "
        '"drqv2:quick --n-step 1" (default: drqv2)',
    )
    parser.add_argument(
        "--preset", type=_preset_of_an_agent, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    parser.add_argument("--seeds", default="1-3", help="such as 1-3 or 0,4,7")
    parser.add_argument("--out", type=Path, required=True, help="directory of the run directories")
    parser.add_argument("--jobs", type=at_least(0), default=0, help="runs at a time; 0 takes what fits")
    parser.add_argument("--ray", metavar="ADDRESS|local", default=None, help="run on a Ray cluster")
    parser.add_argument("--cpus-per-run", type=float, default=2.0, help="cores that Ray keeps for a run")
    parser.add_argument("--gpus-per-run", type=float, default=0.0, help="GPUs that Ray keeps for a run")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and start nothing")
    # DrQ-v2 last, so that where several agents have a setting its default is shown
    chosen = _known_first("sweep", arguments, "--agents", nargs="+", action="extend")
    variants = [_variant(words) for words in chosen or ["drqv2"]]
    agents = [*(variant.agent for variant in variants), *reversed(AGENTS)]
    fields = {name: item for agent in agents for name, item in setting_fields(agent).items()}
    group = parser.add_argument_group(
        "settings for all runs (defaults are DrQ-v2's where it has the setting)"
    )
    for item in fields.values():
        add_setting(group, item)
    given = vars(parser.parse_strictly(arguments))
    from pixelcontrol.experiments.sweep import sweep as run_sweep

    _refuse_a_file(given["out"])
    return run_sweep(
        given["tasks"],
        variants,
        given["seeds"],
        given["out"],
        {name: given[name] for name in given.keys() & fields.keys()},
        parallel=given["jobs"],
        ray=given["ray"],
        cpus_per_run=given["cpus_per_run"],
        gpus_per_run=given["gpus_per_run"],
        dry_run=given["dry_run"],
    )


def plot(arguments: list[str]) -> int:
    """Draw the paper's figures from runs."""
    parser = Parser(
        prog="pixelcontrol plot", description="Draw figures from the CSVs of runs (docs/figures.md)."
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, folders of them, or tidy CSVs")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder for PNG, SVG and CSV")
    given = parser.parse_strictly(arguments)
    from pixelcontrol.experiments.figures import write_figures

    for path in write_figures(given.runs, given.out):
        print(path)
    return 0


def report(arguments: list[str]) -> int:
    """Write one page about runs."""
    parser = Parser(prog="pixelcontrol report", description="Write one self-contained page about runs.")
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, or folders of them")
    parser.add_argument("-o", "--out", type=Path, default=Path("report.html"), help="page to write")
    given = parser.parse_strictly(arguments)
    from pixelcontrol.experiments.report import write_report

    print(write_report(given.runs, given.out))
    return 0


def _needs_traceback(error: Exception) -> bool:
    """Whether an error is no word of this package to its user, but a fault: of the user's world or agent, or ours.

    Where a file cannot be opened or read, the system's word is enough.
    """
    ours = Path(__file__).parent
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    installed = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    known = [ours, *installed]
    users = [
        file
        for file in files
        if not str(file).startswith("<") and not any(file.is_relative_to(folder) for folder in known)
    ]
    return not files[-1].is_relative_to(ours) and (bool(users) or isinstance(error, ValueError))


BENCHMARKS = ("update", "replay", "env", "train", "seeds")
VERBS = {
    "check": check,
    "train": train,
    "eval": evaluate,
    "play": play,
    "export": export,
    "tasks": tasks,
    "doctor": doctor,
    "bench": bench,
    "compare-renderers": compare_renderers,
    "sweep": sweep,
    "plot": plot,
    "report": report,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit status.

    That is 0, 1 for a failed run, 2 for a mistake in the arguments, or 128 and the number of the signal that
    stopped a run.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a user's own module:factory may lie
    if arguments == ["--version"]:
        print(__version__)
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        verbs = [f"  {name:20s}{(verb.__doc__ or '').strip()}" for name, verb in VERBS.items()]
        print("\n".join(["usage: pixelcontrol VERB ...  (each has --help)", "", *verbs]))
        return 0
    if arguments[0] not in VERBS:
        from pixelcontrol.settings import unknown

        print(f"pixelcontrol: {unknown('verb', arguments[0], VERBS)}", file=sys.stderr)
        return 2
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        return VERBS[arguments[0]](arguments[1:])
    except BrokenPipeError as error:
        if _needs_traceback(error):
            raise
        # whoever reads has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_status
    except (ValueError, RunError, OSError) as error:
        if _needs_traceback(error):
            raise
        print(f"pixelcontrol {arguments[0]}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
