"""The paper's figures from the runs' own tables, each as PNG, as SVG and as the numbers it shows.

Three things are unusual:

- What must be said of the data (fewer than three seeds, unequal frame counts, mixed renderers, ...) is written
  into the figure, in red, and the seeds that never learned stand beside every final mean.
- Published results are drawn with dashes and open diamonds, with the 95 % interval that their standard deviation
  and number of seeds give by Student's t: in ink if they are of one agent, else in the colours of theirs.
- The same data gives the same bytes: no dates, no random ids, a seeded bootstrap. Figures in a repository can
  therefore be redrawn and compared.
"""

from __future__ import annotations

import csv
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pixelcontrol.experiments.published import Published, load_published, max_return
from pixelcontrol.experiments.runs import Run, agent_name, notices, read_runs, read_table, short_count
from pixelcontrol.experiments.statistics import (
    OVER_TASKS,
    THRESHOLDS,
    estimate,
    half_width,
    performance_profile,
    probability_of_improvement,
)
from pixelcontrol.experiments.summary import (
    Curve,
    Score,
    average_curves,
    comparable,
    comparable_tasks,
    final_scores,
    scores,
    success_curves,
    task_curves,
    tasks_in_order,
)

Axis = Literal["frame", "hour"]
AXES: tuple[Axis, ...] = ("frame", "hour")

AGENT_COLOURS = {
    "drqv2": "#0072b2",
    "drq": "#d55e00",
    "curl": "#009e73",
    "sac": "#6b7280",
    "dreamerv2": "#aa4499",
    "privileged": "#332288",
}
"""One colour per agent in every figure and report, told apart by colour-blind readers (after Okabe and Ito)."""

ABLATION_ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("SAC or DDPG", ("drq", "drqv2-ablation-a")),
    ("n-step returns", ("drqv2-ablation-a", "drqv2-ablation-b")),
    ("replay capacity", ("drqv2-ablation-b", "drqv2-ablation-c")),
    ("exploration noise", ("drqv2-ablation-c", "drqv2-ablation-d")),
)
"""The rows of Figure 9: what is changed, what it is changed from, and what to."""

_SPARE_COLOURS = ("#b8860b", "#56b4e9", "#882255", "#44aa99", "#999933", "#117733", "#cc6677", "#661100")
_ABLATION_COLOURS = ("#a8a8a8", "#0072b2")
_INK, _WARNING = "#222222", "#b3261e"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": _INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,  # labels of curves may lie above the panel
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "axes.axisbelow": True,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "svg.hashsalt": "pixelcontrol",
}
_AXIS_WORDS: dict[Axis, str] = {"frame": "frames", "hour": "hours of training"}
_RUN_CURVE_STYLES: dict[str, dict[str, Any]] = {
    "train": {"label": "training episodes", "color": "#9ecae1", "linestyle": "", "marker": "."},
    "eval": {"label": "evaluations", "color": "#0072b2", "marker": "o", "markersize": 3},
}


def write_figures(paths: Iterable[Path | str], out: Path) -> list[Path]:
    """Draw every figure that the runs at `paths` allow.

    Always the curves of each task against frames and against hours, and the table of scores. Where runs tell rates
    of success, those too. With two tasks or more that can be averaged, also their average and the statistics of
    `statistics.py`. With the agents of `ABLATION_ROWS`, also the ablation.

    Args:
        paths: run directories, directories of them, or tables of evaluations (see `runs.read_runs`).
        out: directory for the files, made if absent.

    Returns:
        Every file written: for each figure NAME.png, NAME.svg and NAME.csv. Those of an earlier call that these
        runs do not allow are removed.

    Warns:
        UserWarning: there are several tasks, and no average of them.
    """
    runs = read_runs(paths)
    out.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        written = [
            *(path for axis in AXES for path in _write_curves(runs, axis, out / f"curves_{axis}s")),
            _write_numbers([_score_row(score) for score in scores(runs)], out / "scores.csv"),
        ]
        if success := success_curves(runs):
            written += _write_success(success, agent_colours(run.agent for run in runs), out / "success")
        if len(comparable_tasks(runs)) > 1:
            written += _write_average(runs, out / "average")
            written += _write_statistics(runs, out / "statistics")
        elif len(tasks_in_order(runs)) > 1:
            warnings.warn(
                "no average over tasks: it needs two or more tasks of the paper that every agent was run on",
                stacklevel=2,
            )
        if _ablation_rows(runs):
            written += _write_ablation(runs, out / "ablation")
    for name in ("success", "average", "statistics", "ablation"):
        stale = [out / f"{name}.{kind}" for kind in ("png", "svg", "csv")]
        if stale[0] not in written and all(file.exists() for file in stale):  # else they are somebody else's
            for file in stale:
                file.unlink()
    return written


def run_curve(run_dir: Path) -> Path:
    """Draw one run's returns against frames, training episodes and evaluations, as `run_dir/curve.png`.

    Where evaluations tell rates of success, these are drawn too, on an axis of their own.

    Args:
        run_dir: a run directory; its `train.csv` and `eval.csv` are drawn as far as they exist and hold rows.

    Returns:
        The path of the picture.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        for name, style in _RUN_CURVE_STYLES.items():
            file = run_dir / f"{name}.csv"
            rows = read_table(file) if file.exists() else []
            frames = [int(row["frame"]) for row in rows]
            axes.plot(frames, [float(row["episode_return"]) for row in rows], **style)
            if rows:
                last = rows[-1]
                axes.set_title(f"{last['task']} · {agent_name(last)} · seed {last['seed']}")
            _draw_success(axes, rows)
        axes.set(xlabel=_AXIS_WORDS["frame"], ylabel="episode return")
        axes.legend(frameon=False, loc="upper left")
        _finish(axes, "frame")
        return _save(figure, run_dir / "curve.png")


def _draw_success(axes: Axes, rows: Sequence[Mapping[str, str]]) -> None:
    """Draw the rates of success that rows of a table tell, if they do, on an axis of their own."""
    told = [row for row in rows if row.get("success_rate")]
    if not told:
        return
    style: dict[str, Any] = {"color": "#d55e00", "linestyle": "--"}
    axes.plot([], [], label="success in evaluations", **style)  # for the legend
    rates = axes.twinx()
    rates.plot([int(row["frame"]) for row in told], [float(row["success_rate"]) for row in told], **style)
    rates.set(ylim=(0, 1), ylabel="rate of success")
    rates.grid(visible=False)


def agent_colours(agents: Iterable[str]) -> dict[str, str]:
    """A colour for every agent: its system's, where no other is of that, or a spare one, by the alphabet."""
    systems = {agent: re.split("[- ]", agent)[0] for agent in agents}
    count = Counter(systems.values())
    colours = AGENT_COLOURS | {
        agent: AGENT_COLOURS[system]
        for agent, system in systems.items()
        if system in AGENT_COLOURS and count[system] == 1
    }
    others = sorted(systems.keys() - colours.keys())
    return colours | {agent: _SPARE_COLOURS[i % len(_SPARE_COLOURS)] for i, agent in enumerate(others)}


def cited(curves: Sequence[Curve]) -> dict[str, list[Published]]:
    """The published rows to draw beside the curves of one task, by agent: of the agents shown and of DrQ-v2.

    Only rows up to the last frame of the longest run; over hours, such a row may still lie far beyond our curves.
    """
    last_frame = max(int(run.frame[-1]) for curve in curves for run in curve.runs)
    rows: dict[str, list[Published]] = {}
    for row in load_published():
        if (
            row.task == curves[0].task
            and row.agent in {"drqv2", *(curve.agent for curve in curves)}
            and row.frame <= 1.02 * last_frame
        ):
            rows.setdefault(row.agent, []).append(row)
    return rows


def _final_label(score: Score) -> str:
    """The final mean with the seeds that never learned beside it, "770 (2/10 dead)"."""
    return f"{score.mean:.0f}" + (f" ({score.dead}/{score.seeds} dead)" if score.dead else "")


def _write_curves(runs: Sequence[Run], axis: Axis, stem: Path) -> list[Path]:
    """Figures 3 to 8 of the paper: one panel for every task."""
    curves = task_curves(runs)
    table = {(score.agent, score.task): score for score in scores(runs)}
    tasks = tasks_in_order(runs)
    colours = agent_colours(curve.agent for curve in curves)
    figure, panels = _panels(len(tasks), axis)
    by_task = {task: [curve for curve in curves if curve.task == task] for task in tasks}
    published = {task: cited(shown) for task, shown in by_task.items()}
    publishers = {agent for rows in published.values() for agent in rows}
    for task, axes in zip(tasks, panels, strict=True):
        shown = by_task[task]
        _draw_curves(axes, shown, axis, colours)
        for agent, rows in published[task].items():
            _draw_published(axes, rows, axis, _INK if len(publishers) == 1 else colours[agent])
        _finish(axes, axis, max_return(task))
        _label_ends(axes, shown, axis, colours, [_final_label(table[curve.agent, task]) for curve in shown])
        axes.set_title(task)
    figure.supylabel("evaluation return", fontsize=9, color=_INK)
    _legend(figure, [curve.agent for curve in curves], colours, any(map(_banded, curves)), publishers)
    known = {row.task for row in load_published()}
    early = [task for task in tasks if task in known and not published[task]]
    _say(figure, notices(runs) + ([f"Nothing published that early: {', '.join(early)}."] if early else []))
    return _write(figure, _curve_rows(curves), stem)


def _write_success(curves: Sequence[Curve], colours: Mapping[str, str], stem: Path) -> list[Path]:
    """Rates of success: one panel for every task."""
    runs = [run for curve in curves for run in curve.runs]
    tasks = tasks_in_order(runs)
    figure, panels = _panels(len(tasks), "frame")
    for task, axes in zip(tasks, panels, strict=True):
        shown = [curve for curve in curves if curve.task == task]
        _draw_curves(axes, shown, "frame", colours)
        _finish(axes, "frame", highest=1)
        axes.set_ylim(0, 1.02)
        _label_ends(axes, shown, "frame", colours, [f"{curve.mean[-1]:.0%}" for curve in shown])
        axes.set_title(task)
    figure.supylabel("rate of success in evaluations", fontsize=9, color=_INK)
    _legend(figure, [curve.agent for curve in curves], colours, any(map(_banded, curves)))
    _say(figure, notices(runs))
    return _write(figure, _curve_rows(curves), stem)


def _write_average(runs: Sequence[Run], stem: Path) -> list[Path]:
    """Figure 1 of the paper: the average over tasks, against frames and against hours."""
    curves = average_curves(runs)
    colours = agent_colours(curve.agent for curve in curves)
    figure, panels = _panels(2)
    for axis, axes in zip(AXES, panels, strict=True):
        axes.set_xlabel(_AXIS_WORDS[axis])
        _draw_curves(axes, curves, axis, colours)
        _finish(axes, axis, highest=1)
        _label_ends(axes, curves, axis, colours, [f"{curve.mean[-1]:.2f}" for curve in curves])
        axes.set_title(f"average of {len(comparable_tasks(runs))} tasks")
    figure.supylabel("fraction of the highest return", fontsize=9, color=_INK)
    _legend(figure, [curve.agent for curve in curves], colours, any(map(_banded, curves)))
    _say(figure, notices(comparable(runs)) + _short_average(runs) + _left_out(runs))
    return _write(figure, _curve_rows(curves), stem)


def _write_statistics(runs: Sequence[Run], stem: Path) -> list[Path]:
    """What rliable shows: interquartile mean, optimality gap, profiles, probability of improvement."""
    final = final_scores(runs)
    colours = agent_colours(final)
    pairs = [*combinations(final, 2)]
    figure, panels = _panels(4 if pairs else 3, rows_of_text=len(pairs))
    rows = []
    for axes, (name, statistic) in zip(panels, OVER_TASKS.items(), strict=False):
        found = {agent: estimate(statistic, mine) for agent, mine in final.items()}
        _draw_intervals(axes, found, colours)
        axes.set(title=name, xlabel="score (1 = highest return)")
        rows += [_statistic_row(name, agent, "", *values) for agent, values in found.items()]

    for agent, mine in final.items():
        profile, low, high = estimate(performance_profile, mine)
        panels[2].plot(THRESHOLDS, profile, color=colours[agent], drawstyle="steps-post")
        panels[2].fill_between(
            THRESHOLDS, low, high, color=colours[agent], alpha=0.15, linewidth=0, step="post"
        )
        rows += [
            _statistic_row("performance profile", agent, f"{threshold:.2f}", *values)
            for threshold, *values in zip(THRESHOLDS, profile, low, high, strict=True)
        ]
    panels[2].set(
        title="performance profile",
        xlabel="score (1 = highest return)",
        ylabel="fraction of runs above",
        ylim=(-0.02, 1.02),
    )

    if pairs:
        found = {}
        for agent, other in pairs:
            values = estimate(probability_of_improvement, final[agent], final[other])
            found[f"{agent} > {other}"] = values
            rows.append(_statistic_row("probability of improvement", agent, other, *values))
        _draw_intervals(panels[3], found, {pair: colours[pair.split(" > ")[0]] for pair in found})
        panels[3].axvline(0.5, color="#999999", linewidth=1, linestyle=":")
        panels[3].set(title="probability of improvement", xlim=(-0.02, 1.02))

    _legend(figure, final, colours, banded=not np.isnan([row["low"] for row in rows]).all())
    _say(figure, notices(comparable(runs)) + _left_out(runs))
    return _write(figure, rows, stem)


def _ablation_rows(runs: Sequence[Run]) -> list[tuple[str, tuple[str, ...]]]:
    """The rows of Figure 9 of which both agents were run."""
    return [(title, agents) for title, agents in ABLATION_ROWS if {*agents} <= {run.agent for run in runs}]


def _write_ablation(runs: Sequence[Run], stem: Path) -> list[Path]:
    """Figure 9 of the paper: a row for every change, a column for every task, the starting point in silver."""
    rows = _ablation_rows(runs)
    runs = [run for run in runs if any(run.agent in agents for _, agents in rows)]
    curves = task_curves(runs)
    tasks = tasks_in_order(runs)
    figure = Figure(figsize=(max(5.2, 3.4 * len(tasks)), 2.4 * len(rows) + 0.9), layout="constrained")
    grid = figure.subplots(len(rows), len(tasks), squeeze=False)
    for (title, agents), panels in zip(rows, grid, strict=True):
        colours = dict(zip(agents, _ABLATION_COLOURS, strict=True))
        for task, axes in zip(tasks, panels, strict=True):
            shown = [curve for curve in curves if curve.task == task and curve.agent in agents]
            _draw_curves(axes, shown, "frame", colours)
            _finish(axes, "frame", max_return(task))
            _label_ends(axes, shown, "frame", colours, [curve.agent for curve in shown])
            axes.set(title=f"{title}: {task}", xlabel=_AXIS_WORDS["frame"])
    figure.supylabel("evaluation return", fontsize=9, color=_INK)
    _say(figure, notices(runs))
    return _write(figure, _curve_rows(curves), stem)


def _short_average(runs: Sequence[Run]) -> list[str]:
    """The notice that an average ends before its longer tasks do, if it does."""
    ends = {
        task: min(int(run.frame[-1]) for run in runs if run.task == task) for task in comparable_tasks(runs)
    }
    first, last = min(ends.values()), max(ends.values())
    if first >= 0.99 * last:
        return []
    return [
        f"The average ends with its shortest task, at {short_count(first)} frames; the longest has "
        f"{short_count(last)}."
    ]


def _left_out(runs: Sequence[Run]) -> list[str]:
    """The notice that tasks are missing from an average, if any are."""
    tasks = sorted({run.task for run in runs} - comparable_tasks(runs))
    return (
        [f"Not averaged, for want of some agent or of a known highest return: {', '.join(tasks)}."]
        if tasks
        else []
    )


def _panels(number: int, axis: Axis | None = None, rows_of_text: int = 0) -> tuple[Figure, list[Axes]]:
    """A figure with `number` panels in rows of up to four, small ones if there are many.

    Args:
        number: of panels.
        axis: of all of them, named under the lowest alone.
        rows_of_text: that a panel must be high enough for.
    """
    rows = -(-number // 4)
    columns = -(-number // rows)
    width, height = (2.5, 1.85) if number > 8 else (3.4, 2.6)
    height = max(height, 0.25 * rows_of_text)
    figure = Figure(figsize=(max(5.2, width * columns), height * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for empty in panels[number:]:
        empty.set_visible(False)
    if axis:
        for lowest in panels[max(0, number - columns) : number]:
            lowest.set_xlabel(_AXIS_WORDS[axis])
    return figure, panels[:number]


def _banded(curve: Curve) -> bool:
    """Whether there were seeds enough for an interval."""
    return not np.isnan(curve.low).all()


def _draw_curves(axes: Axes, curves: Sequence[Curve], axis: Axis, colours: Mapping[str, str]) -> None:
    """Mean and 95 % band of each agent over its thin single seeds; that of two would hide all else."""
    for curve in curves:
        x, colour = getattr(curve, axis), colours[curve.agent]
        alpha, width = (0.4, 0.6) if _banded(curve) else (0.6, 0.9)
        for run in curve.runs:
            axes.plot(getattr(run, axis), run.episode_return, color=colour, alpha=alpha, linewidth=width)
        if _banded(curve):
            axes.fill_between(x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, curve.mean, color=colour, linewidth=1.8)


def _draw_published(axes: Axes, rows: Sequence[Published], axis: Axis, colour: str) -> None:
    """Cited means with their 95 % intervals; against hours, those whose speed was measured."""
    if axis == "hour":
        rows = [row for row in rows if row.frames_per_second]
    axes.errorbar(
        [row.frame if axis == "frame" else row.hour for row in rows],
        [row.mean for row in rows],
        yerr=[half_width(row.std, row.seeds) for row in rows],
        color=colour,
        linestyle="--",
        linewidth=1,
        marker="D",
        markersize=4,
        markerfacecolor="white",
        elinewidth=1,
        capsize=2,
        zorder=4,
    )


def _draw_intervals(
    axes: Axes, found: Mapping[str, tuple[float, Any, Any]], colours: Mapping[str, str]
) -> None:
    """One bar from low to high for each name, with a tick and the number at the value."""
    for i, (name, (value, low, high)) in enumerate(found.items()):
        axes.plot([low, high], [i, i], color=colours[name], linewidth=9, alpha=0.3, solid_capstyle="butt")
        axes.plot([value], [i], color=colours[name], marker="|", markersize=13, markeredgewidth=2.5)
        axes.annotate(
            f"{value:.2f}",
            (value, i),
            (0, 9),
            textcoords="offset points",
            ha="center",
            color=_INK,
            fontsize=8,
        )
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.4, -0.6)
    if np.isnan([low for _, low, _ in found.values()]).all():
        axes.set_xlim(0, 1)  # or what lies close would look far apart
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", visible=False)


def _label_ends(
    axes: Axes, curves: Sequence[Curve], axis: Axis, colours: Mapping[str, str], labels: Sequence[str]
) -> None:
    """Write each label at the end of its curve, pushed up where it would cover another."""
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    apart_x, apart_y = 0.2, 0.08
    written: list[tuple[float, float]] = []
    for curve, label in sorted(zip(curves, labels, strict=True), key=lambda pair: pair[0].mean[-1]):
        x, height = getattr(curve, axis)[-1], (curve.mean[-1] - low) / (high - low)
        for other_x, other_height in written:  # from the lowest up
            if abs(x - other_x) < apart_x * right and abs(height - other_height) < apart_y:
                height = other_height + apart_y
        written = sorted([*written, (x, height)], key=lambda place: place[1])
        # A halo, and the words: with effects, an SVG has their outlines alone and cannot be searched for them, and
        # a PNG spaces them otherwise, so the halo is all white.
        for colour, effects in (
            ("white", [withStroke(linewidth=2.5, foreground="white")]),
            (colours[curve.agent], []),
        ):
            axes.annotate(
                label,
                (x, height),
                (5, 0),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                color=colour,
                fontsize=8,
                va="center",
                annotation_clip=False,
                path_effects=effects,
                zorder=5,
            )


def _finish(axes: Axes, axis: Axis, highest: float | None = None) -> None:
    """Fix ticks and limits.

    Intervals may reach beyond what is possible, the panel does not; nor does it make much of next to nothing.
    """
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if axis == "frame":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda frame, _: short_count(frame)))
    axes.set_xlim(left=0)
    if highest is not None:
        axes.set_ylim(0, max(min(axes.get_ylim()[1], 1.02 * highest), 0.1 * highest))


def _legend(
    figure: Figure,
    agents: Iterable[str],
    colours: Mapping[str, str],
    banded: bool,
    publishers: Collection[str] = (),
) -> None:
    """Agents by colour, above all panels, and what bands and diamonds are."""
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=colours[agent], linewidth=2, label=agent) for agent in dict.fromkeys(agents)
    ]
    if banded:
        entries.append(Patch(color="#666666", alpha=0.18, linewidth=0, label="95 % interval over seeds"))
    if publishers:
        colour, whose = ("#666666", "") if len(publishers) > 1 else (_INK, f"{next(iter(publishers))} as ")
        diamond = Line2D([], [], color=colour, linestyle="--", linewidth=1, marker="D", markersize=4)
        diamond.set(markerfacecolor="white", label=f"{whose}published, 95 % interval")
        entries.append(diamond)
    labels = ["\n".join(textwrap.wrap(str(entry.get_label()), 50)) for entry in entries]
    for entry, label in zip(entries, labels, strict=True):
        entry.set_label(label)
    widest_inches = 0.75 + 0.08 * max(len(line) for label in labels for line in label.split("\n"))
    columns = max(1, int(figure.get_figwidth() / widest_inches))
    rows = [labels[i : i + columns] for i in range(0, len(labels), columns)]
    _heighten(figure, sum(max(label.count("\n") + 1 for label in row) for row in rows))
    figure.legend(handles=entries, loc="outside upper left", ncols=columns, frameon=False, handlelength=3)


def _heighten(figure: Figure, lines: int) -> None:
    """Make room for lines of text, so that panels keep their height."""
    figure.set_figheight(figure.get_figheight() + 0.17 * lines + 0.15)


def _say(figure: Figure, sentences: Sequence[str]) -> None:
    """Write the notices under the panels, across the width of the figure."""
    width = int(figure.get_figwidth() * 15)
    lines = [line for sentence in sentences for line in textwrap.wrap("⚠ " + sentence, width)]
    if lines:
        _heighten(figure, len(lines))
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color=_WARNING)


def _curve_rows(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    return [
        {
            "agent": curve.agent,
            "task": curve.task,
            "runs": len(curve.returns),
            "frame": frame,
            "hour": hour,
            "mean": mean,
            "low": low,
            "high": high,
        }
        for curve in curves
        for frame, hour, mean, low, high in zip(
            curve.frame, curve.hour, curve.mean, curve.low, curve.high, strict=True
        )
    ]


def _score_row(score: Score) -> dict[str, Any]:
    published = score.published
    return {
        "agent": score.agent,
        "task": score.task,
        "seeds": score.seeds,
        "frame": score.frame,
        "mean": score.mean,
        "low": score.low,
        "high": score.high,
        "dead_seeds": score.dead,
        "dead_reference": score.reference,
        "frames_per_second": score.frames_per_second,
        "published_frame": published and published.frame,
        "published_mean": published and published.mean,
        "published_std": published and published.std,
        "published_seeds": published and published.seeds,
        "mean_at_published_frame": score.mean_then,
    }


def _statistic_row(
    statistic: str, agent: str, against: str, value: Any, low: Any, high: Any
) -> dict[str, Any]:
    """One value; `against` is the other agent of a comparison, or the threshold of a profile."""
    return {
        "statistic": statistic,
        "agent": agent,
        "against": against,
        "value": float(value),
        "low": float(low),
        "high": float(high),
    }


def _write(figure: Figure, rows: Sequence[Mapping[str, Any]], stem: Path) -> list[Path]:
    """A figure in its three forms."""
    return [
        _save(figure, stem.with_suffix(".png")),
        _save(figure, stem.with_suffix(".svg")),
        _write_numbers(rows, stem.with_suffix(".csv")),
    ]


def _save(figure: Figure, path: Path) -> Path:
    without_date = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    figure.savefig(path, dpi=150, metadata=without_date)
    return path


def _write_numbers(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Six digits of each number; an empty field where there is none (one seed has no interval)."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({name: _cell(value) for name, value in row.items()})
    return path


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
