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

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelcontrol.experiments.drawing import (
    AXES,
    AXIS_WORDS,
    INK,
    STYLE,
    agent_colours,
    draw_curves,
    draw_intervals,
    draw_legend,
    draw_published,
    finish,
    has_band,
    label_ends,
    make_panels,
    save,
    write_figure,
    write_notices,
    write_numbers,
)
from pixelcontrol.experiments.published import max_return
from pixelcontrol.experiments.runs import Run, full_name, notices, read_runs, read_table
from pixelcontrol.experiments.statistics import (
    OVER_TASKS,
    THRESHOLDS,
    estimate,
    performance_profile,
    probability_of_improvement,
)
from pixelcontrol.experiments.summary import (
    Curve,
    Score,
    average_curves,
    average_notices,
    cited,
    comparable,
    comparable_tasks,
    early_notices,
    final_scores,
    left_out_notices,
    scores,
    success_curves,
    task_curves,
    tasks_in_order,
)

ABLATION_ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("SAC or DDPG", ("drq", "drqv2-ablation-a")),
    ("n-step returns", ("drqv2-ablation-a", "drqv2-ablation-b")),
    ("replay capacity", ("drqv2-ablation-b", "drqv2-ablation-c")),
    ("exploration noise", ("drqv2-ablation-c", "drqv2-ablation-d")),
)
"""The rows of Figure 9: what is changed, what it is changed from, and what to."""

_ABLATION_COLOURS = ("#a8a8a8", "#0072b2")
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
    with matplotlib.rc_context(STYLE):
        written = [
            *_write_curves(runs, out),
            write_numbers([_score_row(score) for score in scores(runs)], out / "scores.csv"),
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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        for name, style in _RUN_CURVE_STYLES.items():
            file = run_dir / f"{name}.csv"
            rows = read_table(file) if file.exists() else []
            frames = [int(row["frame"]) for row in rows]
            axes.plot(frames, [float(row["episode_return"]) for row in rows], **style)
            if rows:
                last = rows[-1]
                name = full_name(last["agent"], last.get("preset", ""), {})
                axes.set_title(f"{last['task']} · {name} · seed {last['seed']}")
            _draw_success(axes, rows)
        axes.set(xlabel=AXIS_WORDS["frame"], ylabel="episode return")
        axes.legend(frameon=False, loc="upper left")
        finish(axes, "frame")
        return save(figure, run_dir / "curve.png")


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


def _final_label(score: Score) -> str:
    """The final mean with the seeds that never learned beside it, "770 (2/10 dead)"."""
    return f"{score.mean:.0f}" + (f" ({score.dead}/{score.seeds} dead)" if score.dead else "")


def _write_curves(runs: Sequence[Run], out: Path) -> list[Path]:
    """Figures 3 to 8 of the paper, against frames and against hours: one panel for every task."""
    curves = task_curves(runs)
    table = {(score.agent, score.task): score for score in scores(runs)}
    tasks = tasks_in_order(runs)
    colours = agent_colours(curve.agent for curve in curves)
    by_task = {task: [curve for curve in curves if curve.task == task] for task in tasks}
    published = {task: cited(shown) for task, shown in by_task.items()}
    publishers = {agent for rows in published.values() for agent in rows}
    said, rows = notices(runs) + early_notices(curves), _curve_rows(curves)
    written = []
    for axis in AXES:
        figure, panels = make_panels(len(tasks), "evaluation return", axis)
        for task, axes in zip(tasks, panels, strict=True):
            shown = by_task[task]
            draw_curves(axes, shown, axis, colours)
            for agent, citations in published[task].items():
                draw_published(axes, citations, axis, INK if len(publishers) == 1 else colours[agent])
            finish(axes, axis, max_return(task))
            labels = [_final_label(table[curve.agent, task]) for curve in shown]
            label_ends(axes, shown, axis, colours, labels)
            axes.set_title(task)
        draw_legend(
            figure, [curve.agent for curve in curves], colours, any(map(has_band, curves)), publishers
        )
        write_notices(figure, said)
        written += write_figure(figure, rows, out / f"curves_{axis}s")
    return written


def _write_success(curves: Sequence[Curve], colours: Mapping[str, str], stem: Path) -> list[Path]:
    """Rates of success: one panel for every task."""
    runs = [run for curve in curves for run in curve.runs]
    tasks = tasks_in_order(runs)
    figure, panels = make_panels(len(tasks), "rate of success in evaluations", "frame")
    for task, axes in zip(tasks, panels, strict=True):
        shown = [curve for curve in curves if curve.task == task]
        draw_curves(axes, shown, "frame", colours)
        finish(axes, "frame", highest=1)
        axes.set_ylim(0, 1.02)
        label_ends(axes, shown, "frame", colours, [f"{curve.mean[-1]:.0%}" for curve in shown])
        axes.set_title(task)
    draw_legend(figure, [curve.agent for curve in curves], colours, any(map(has_band, curves)))
    write_notices(figure, notices(runs))
    return write_figure(figure, _curve_rows(curves), stem)


def _write_average(runs: Sequence[Run], stem: Path) -> list[Path]:
    """Figure 1 of the paper: the average over tasks, against frames and against hours."""
    curves = average_curves(runs)
    colours = agent_colours(curve.agent for curve in curves)
    figure, panels = make_panels(2, "fraction of the highest return")
    for axis, axes in zip(AXES, panels, strict=True):
        axes.set_xlabel(AXIS_WORDS[axis])
        draw_curves(axes, curves, axis, colours)
        finish(axes, axis, highest=1)
        label_ends(axes, curves, axis, colours, [f"{curve.mean[-1]:.2f}" for curve in curves])
        axes.set_title(f"average of {len(comparable_tasks(runs))} tasks")
    draw_legend(figure, [curve.agent for curve in curves], colours, any(map(has_band, curves)))
    write_notices(figure, notices(comparable(runs)) + average_notices(runs))
    return write_figure(figure, _curve_rows(curves), stem)


def _write_statistics(runs: Sequence[Run], stem: Path) -> list[Path]:
    """What rliable shows: interquartile mean, optimality gap, profiles, probability of improvement."""
    final = final_scores(runs)
    colours = agent_colours(final)
    pairs = [*combinations(final, 2)]
    figure, panels = make_panels(4 if pairs else 3, rows_of_text=len(pairs))
    rows = []
    for axes, (name, statistic) in zip(panels, OVER_TASKS.items(), strict=False):
        found = {agent: estimate(statistic, mine) for agent, mine in final.items()}
        draw_intervals(axes, found, colours)
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
        draw_intervals(panels[3], found, {pair: colours[pair.split(" > ")[0]] for pair in found})
        panels[3].axvline(0.5, color="#999999", linewidth=1, linestyle=":")
        panels[3].set(title="probability of improvement", xlim=(-0.02, 1.02))

    draw_legend(figure, final, colours, banded=not np.isnan([row["low"] for row in rows]).all())
    write_notices(figure, notices(comparable(runs)) + left_out_notices(runs))
    return write_figure(figure, rows, stem)


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
            draw_curves(axes, shown, "frame", colours)
            finish(axes, "frame", max_return(task))
            label_ends(axes, shown, "frame", colours, [curve.agent for curve in shown])
            axes.set(title=f"{title}: {task}", xlabel=AXIS_WORDS["frame"])
        panels[0].set_ylabel("evaluation return")
    write_notices(figure, notices(runs))
    return write_figure(figure, _curve_rows(curves), stem)


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
