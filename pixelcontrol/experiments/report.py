"""One self-contained HTML page about a set of runs: figures, scores, videos, settings, and what is missing.

The page loads nothing: style, script, data and videos are inside the file, so it can be mailed, archived and
opened without a network. `report.html` is the frame, `report.css` the look (light and dark, down to the width of
a phone), `report.js` the figures; this file turns runs into the tables and the data that they show.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from pixelcontrol import __version__
from pixelcontrol.envs.tasks import PAPER_TASKS
from pixelcontrol.experiments.drawing import agent_colours
from pixelcontrol.experiments.published import PAPER_FRAMES_PER_SECOND, load_published, max_return
from pixelcontrol.experiments.runs import Run, notices, read_runs, short_count
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
    average_notices,
    cited,
    comparable_tasks,
    early_notices,
    final_scores,
    groups,
    scores,
    success_curves,
    task_curves,
    tasks_in_order,
)


def write_report(paths: Iterable[Path | str], out: Path) -> Path:
    """Write the report about every run found at `paths`.

    Args:
        paths: run directories, directories of them, or tables of evaluations (see `runs.read_runs`). Videos
            and settings are shown for runs whose directory is at hand.
        out: the HTML file.

    Returns:
        `out`.
    """
    runs = read_runs(paths)
    agents = list(dict.fromkeys(run.agent for run in runs))
    tasks = tasks_in_order(runs)
    colours = agent_colours(agents)
    curves = task_curves(runs)
    said = notices(runs) + early_notices(curves)
    if len(comparable_tasks(runs)) > 1:
        said += average_notices(runs)
    sections = [
        _score_section(runs, colours),
        _statistics_section(runs, colours),
        _policy_section(runs, colours),
        _settings_section(runs),
        _missing_section(runs),
    ]
    data = {"agents": agents, "colours": colours, "charts": _charts(runs, curves)}
    page = Template(_resource("report.html")).substitute(
        title=escape(
            f"{_and(agents) if len(agents) < 4 else f'{len(agents)} agents'} on "
            f"{_and(tasks) if len(tasks) < 4 else f'{len(tasks)} tasks'}"
        ),
        subtitle=escape(_subtitle(runs)),
        notices=_list(said, "notices"),
        sections="\n".join(sections),
        style=_resource("report.css"),
        script=_resource("report.js"),
        # "</" would end the script element that holds the data
        data=json.dumps(data, separators=(",", ":")).replace("</", "<\\/"),
        version=__version__,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def _subtitle(runs: Sequence[Run]) -> str:
    frames = sum(int(run.frame[-1]) for run in runs)
    hours = sum(float(run.hour[-1]) for run in runs)
    trained = "" if np.isnan(hours) else f", {hours:.1f} hours of training"
    commits = list(dict.fromkeys(run.conditions["commit"] for run in runs))
    return (
        f"{len(runs)} runs, {short_count(frames)} frames{trained}; "
        f"commit {_and(commits)}, renderer {_and(list(dict.fromkeys(run.conditions['renderer'] for run in runs)))}"
    )


# ---- figures ----


def _charts(runs: Sequence[Run], curves: Sequence[Curve]) -> dict[str, list[dict[str, Any]]]:
    """What report.js draws: for each section, its charts."""
    charts = []
    number = len(comparable_tasks(runs))
    if number > 1:
        title, unit = f"average of {number} tasks", "fraction of the highest return"
        charts.append(_chart(title, unit, average_curves(runs), top=1.0, seeds=False, cite=False))
    for task in tasks_in_order(runs):
        shown = [curve for curve in curves if curve.task == task]
        charts.append(_chart(task, "evaluation return", shown, top=max_return(task)))
        if told := success_curves([run for curve in shown for run in curve.runs]):
            charts.append(
                _chart(f"{task}, success", "rate of success in evaluations", told, top=1.0, cite=False)
            )
    return {"figures": charts} | ({"statistics": [_profile_chart(runs)]} if number > 1 else {})


def _chart(
    title: str,
    unit: str,
    curves: Sequence[Curve],
    top: float | None,
    seeds: bool = True,
    cite: bool = True,
) -> dict[str, Any]:
    """One chart; with `seeds` single ones are drawn too, with `cite` what was published."""
    published = cited(curves) if cite else {}
    return {
        "title": title,
        "unit": unit,
        "top": top,
        "curves": [
            {
                "agent": curve.agent,
                "x": {"frame": curve.frame.tolist(), "hour": _numbers(curve.hour)},
                "mean": _numbers(curve.mean),
                "low": _numbers(curve.low),
                "high": _numbers(curve.high),
                "runs": [
                    {
                        "x": {"frame": run.frame.tolist(), "hour": _numbers(run.hour)},
                        "y": _numbers(run.episode_return),
                    }
                    for run in curve.runs
                    if seeds
                ],
            }
            for curve in curves
        ],
        "published": [
            {
                "agent": row.agent,
                "x": {"frame": row.frame, "hour": _number(row.hour)},
                "mean": row.mean,
                "half": _number(half_width(row.std, row.seeds)),
            }
            for rows in published.values()
            for row in rows
        ],
    }


def _profile_chart(runs: Sequence[Run]) -> dict[str, Any]:
    curves = []
    for agent, mine in final_scores(runs).items():
        profile, low, high = estimate(performance_profile, mine)
        curves.append(
            {
                "agent": agent,
                "x": {"score": _numbers(THRESHOLDS)},
                "mean": _numbers(profile),
                "low": _numbers(low),
                "high": _numbers(high),
                "runs": [],
            }
        )
    return {
        "title": "performance profile",
        "unit": "fraction of runs above",
        "top": 1.0,
        "curves": curves,
        "published": [],
    }


def _number(value: Any) -> float | None:
    """Four digits for the page, null where there is no number."""
    return None if np.isnan(value) else float(f"{value:.4g}")


def _numbers(values: np.ndarray) -> list[float | None]:
    return [_number(value) for value in values]


# ---- tables ----


def _score_section(runs: Sequence[Run], colours: Mapping[str, str]) -> str:
    order = tasks_in_order(runs)
    rows = [
        [
            escape(score.task),
            _agent(score.agent, colours),
            _return_cell(score, colours[score.agent]),
            _published_cell(score),
            _seeds_cell(score),
            f"{short_count(score.frame)}",
            _speed_cell(score),
        ]
        for score in sorted(scores(runs), key=lambda score: order.index(score.task))
    ]
    for above, row in reversed(list(pairwise(rows))):
        if row[0] == above[0]:
            row[0] = ""  # the task is named once
    head = ["task", "agent", "final return", "as published", "seeds", "frames", "frames per second"]
    hint = (
        "Mean over seeds and its 95 % interval (Student's t) at the last frame that all seeds reached. The "
        "published mean is set beside ours at the same frame. A seed is dead when it ends below a tenth of what "
        "DrQ-v2 is published to have by then, or of the best seed where nothing is published; where even that is "
        "next to nothing, none is called so."
    )
    return _section(
        "scores", "Scores and speeds", hint, f'<div class="card scroll">{_table(head, rows)}</div>'
    )


def _return_cell(score: Score, colour: str) -> str:
    interval = (
        "" if np.isnan(score.low) else f' <span class="range">{score.low:.0f} to {score.high:.0f}</span>'
    )
    highest = max_return(score.task)
    bar = _bar(colour, 0.0, score.mean / highest) if highest else ""
    return f"<b>{score.mean:.0f}</b>{interval}{bar}"


def _published_cell(score: Score) -> str:
    row = score.published
    if row is None:
        later = any((row.agent, row.task) == (score.agent, score.task) for row in load_published())
        return f'<span class="range">nothing{" by this frame" if later else ""}</span>'
    half = half_width(row.std, row.seeds)
    return (
        f'<span title="{escape(row.source)}, {row.seeds} seeds">{row.mean:.0f} '
        f'<span class="range">{row.mean - half:.0f} to {row.mean + half:.0f}</span></span>'
        f"<br><small>ours {score.mean_then:.0f} at {short_count(row.frame)}</small>"
    )


def _seeds_cell(score: Score) -> str:
    if score.dead is None:
        return str(score.seeds)
    mood = "dead" if score.dead else "range"
    return f'{score.seeds} <span class="{mood}">{score.dead} dead</span>'


def _speed_cell(score: Score) -> str:
    if np.isnan(score.frames_per_second):
        return '<span class="range">no time recorded</span>'
    ours = f"<b>{score.frames_per_second:.0f}</b>"
    measured = score.published and score.published.frames_per_second
    theirs = measured or PAPER_FRAMES_PER_SECOND.get(score.agent)
    if not theirs:
        return ours
    where = "the same runs as the return" if measured else "DrQ-v2 paper, one V100"
    times = score.frames_per_second / theirs
    return f'{ours}<br><small title="{where}">published {theirs:.0f}: {times:.1f} times</small>'


def _statistics_section(runs: Sequence[Run], colours: Mapping[str, str]) -> str:
    if len(comparable_tasks(runs)) < 2:
        return ""
    final = final_scores(runs)
    rows = []
    for agent, mine in final.items():
        cells = [_agent(agent, colours)]
        for statistic in OVER_TASKS.values():
            cells.append(_interval_cell(*estimate(statistic, mine), colours[agent]))
        for other, theirs in final.items():
            if other == agent:
                cells.append("")
                continue
            cells.append(_interval_cell(*estimate(probability_of_improvement, mine, theirs), colours[agent]))
        rows.append(cells)
    head = ["agent", *OVER_TASKS, *(f"chance to beat {other}" for other in final)]
    if len(final) == 1:
        head, rows = head[:-1], [row[:-1] for row in rows]
    hint = (
        "Over all runs on the tasks that every agent was run on, as fractions of the highest return. Intervals "
        "are 95 % stratified bootstrap, absent where a task has fewer than three seeds."
    )
    content = f'<div class="card scroll">{_table(head, rows)}</div><div class="charts"></div>'
    return _section("statistics", "Over all tasks", hint, content)


def _interval_cell(value: float, low: Any, high: Any, colour: str) -> str:
    if np.isnan(low):
        return f"<b>{value:.2f}</b>"
    bar = _bar(colour, float(low), float(high))
    return f'<b>{value:.2f}</b> <span class="range">{low:.2f} to {high:.2f}</span>{bar}'


def _bar(colour: str, start: float, end: float) -> str:
    """A small bar from `start` to `end`, where the cell's width is 0 to 1."""
    start, end = np.clip([start, end], 0, 1)
    width = max(end - start, 0.01)
    return (
        f'<span class="bar" style="--colour:{colour}">'
        f'<i style="left:{100 * start:.1f}%;width:{100 * width:.1f}%"></i></span>'
    )


# ---- videos ----


def _policy_section(runs: Sequence[Run], colours: Mapping[str, str]) -> str:
    """For each task and agent, the video of the seed whose final return is the (lower) median."""
    cards = []
    for (agent, task), group in sorted(groups(runs).items(), key=lambda item: item[0][1]):
        filmed = [run for run in group if _video(run).exists()]
        if not filmed:
            continue
        run = sorted(filmed, key=lambda run: run.episode_return[-1])[(len(filmed) - 1) // 2]
        settings = (run.config or {}).get("settings", {})
        size = settings.get("image_size", [84])
        canvas = f'<canvas width="{size[-1]}" height="{size[0]}"></canvas>' * settings.get("frame_stack", 3)
        video = base64.b64encode(_video(run).read_bytes()).decode()
        cards.append(
            f'<article class="card"><h3><span>{escape(task)}</span>{_agent(agent, colours)}</h3>'
            f'<div class="policy"><video muted loop playsinline src="data:video/mp4;base64,{video}"></video>'
            f"<div>{canvas}</div></div>"
            f"<p>Seed {run.seed}, the median of {len(filmed)} filmed; return {run.episode_return[-1]:.0f} after "
            f"{short_count(int(run.frame[-1]))} frames.</p></article>"
        )
    if not cards:
        return ""
    hint = (
        "The first episode of each run's last evaluation. Beside it what the agent sees by its first camera: the "
        "images of its observation in its own resolution, newest on top."
    )
    return _section("policies", "Policies", hint, f'<div class="policies">{"".join(cards)}</div>')


def _video(run: Run) -> Path:
    return run.path.parent / "eval.mp4"


# ---- settings and what is missing ----


def _settings_section(runs: Sequence[Run]) -> str:
    configs = [(run, config) for run in runs if (config := run.config)]
    parts = []
    for agent in dict.fromkeys(run.agent for run, _ in configs):
        mine = [(run, config) for run, config in configs if run.agent == agent]
        for title in _facts({}):
            facts = [(run, _facts(config)[title]) for run, config in mine]
            names = dict.fromkeys(name for _, known in facts for name in known)
            rows = [[escape(name), _values(name, facts)] for name in names]
            if rows:
                parts.append(
                    f"<details><summary>{title}, {escape(agent)}</summary>"
                    f'<div class="card scroll">{_table(["name", "value"], rows)}</div></details>'
                )
    if not parts:
        return ""
    hint = "From each run's config.json. Where tasks differ, the tasks stand beside the value."
    return _section("settings", "Settings and versions", hint, "".join(parts))


def _facts(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What is told of a run, by the title under which it is told."""
    made_with = ("preset", "renderer", "precision", "device", "envs", "commit", "machine")
    return {
        "Made with": {name: config.get(name) for name in made_with},
        "Versions": config.get("versions", {}),
        "Settings": config.get("settings", {}),
    }


def _values(name: str, configs: Sequence[tuple[Run, Mapping[str, Any]]]) -> str:
    """The value of one setting; if runs differ, each value with the tasks that have it."""
    tasks: dict[str, dict[str, None]] = {}
    for run, config in configs:
        tasks.setdefault(json.dumps(config.get(name)).strip('"'), {})[run.task] = None
    if len(tasks) == 1:
        return escape(next(iter(tasks)))
    return "<br>".join(f"{escape(v)} <small>{escape(', '.join(names))}</small>" for v, names in tasks.items())


def _missing_section(runs: Sequence[Run]) -> str:
    missing = []
    for run in runs:
        wanted = (run.config or {}).get("settings", {}).get("frames", 0)
        if run.frame[-1] < 0.99 * wanted:
            missing.append(
                f"{run} ended at {short_count(int(run.frame[-1]))} of {short_count(wanted)} frames."
            )
    have = groups(runs)
    tasks = tasks_in_order(runs)
    for agent in dict.fromkeys(run.agent for run in runs):
        if lacking := [task for task in tasks if (agent, task) not in have]:
            missing.append(f"{agent} was not run on {_and(lacking)}.")
    if dry := [str(run) for run in runs if not _video(run).exists()]:
        missing.append(f"No video of {len(dry)} of {len(runs)} runs.")
    if bare := sum(run.config is None for run in runs):
        missing.append(f"No settings of {bare} of {len(runs)} runs: only their tables are at hand.")
    if absent := [task.name for task in PAPER_TASKS if task.name not in tasks]:
        missing.append(f"{len(absent)} of the paper's 24 tasks: {', '.join(absent)}.")
    return _section("missing", "What is missing", "", _list(missing) or "<p>Nothing.</p>")


# ---- pieces of HTML ----


def _section(name: str, title: str, hint: str, content: str) -> str:
    return f'<section id="{name}"><h2>{title}</h2><p class="hint">{hint}</p>{content}</section>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; `head` is text, `rows` are HTML."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def _list(sentences: Sequence[str], kind: str = "") -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="{kind}">{items}</ul>' if sentences else ""


def _agent(agent: str, colours: Mapping[str, str]) -> str:
    return f'<b class="agent" style="--colour:{colours[agent]}">{escape(agent)}</b>'


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
