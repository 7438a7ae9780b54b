"""What the figures are drawn with: colours, panels, curves, labels, legends, notices; and their three forms."""

from __future__ import annotations

import csv
import re
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pixelcontrol.experiments.published import Published
from pixelcontrol.experiments.runs import short_count
from pixelcontrol.experiments.statistics import half_width
from pixelcontrol.experiments.summary import Curve

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

_SPARE_COLOURS = ("#b8860b", "#56b4e9", "#882255", "#44aa99", "#999933", "#117733", "#cc6677", "#661100")
INK, _WARNING = "#222222", "#b3261e"
# For `matplotlib.rc_context`, around all that is drawn.
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
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
AXIS_WORDS: dict[Axis, str] = {"frame": "frames", "hour": "hours of training"}


def agent_colours(agents: Iterable[str]) -> dict[str, str]:
    """Return a colour for every agent: its system's if no other has that, or a spare one, by the alphabet."""
    systems = {agent: re.split("[- ]", agent)[0] for agent in agents}
    count = Counter(systems.values())
    colours = AGENT_COLOURS | {
        agent: AGENT_COLOURS[system]
        for agent, system in systems.items()
        if system in AGENT_COLOURS and count[system] == 1
    }
    others = sorted(systems.keys() - colours.keys())
    return colours | {agent: _SPARE_COLOURS[i % len(_SPARE_COLOURS)] for i, agent in enumerate(others)}


def make_panels(
    number: int, ylabel: str = "", axis: Axis | None = None, rows_of_text: int = 0
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `number` panels in rows of up to four, small ones if there are many.

    Args:
        number: of panels.
        ylabel: of all of them, written beside each row's first alone.
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
    for first in panels[:number:columns]:
        first.set_ylabel(ylabel, fontsize=7 if number > 8 else 9)
    if axis:
        for lowest in panels[max(0, number - columns) : number]:
            lowest.set_xlabel(AXIS_WORDS[axis])
    return figure, panels[:number]


def has_band(curve: Curve) -> bool:
    """Return whether there were seeds enough for an interval."""
    return not np.isnan(curve.low).all()


def draw_curves(axes: Axes, curves: Sequence[Curve], axis: Axis, colours: Mapping[str, str]) -> None:
    """Draw mean and 95 % band of each agent over its thin single seeds; that of two would hide all else."""
    for curve in curves:
        x, colour = getattr(curve, axis), colours[curve.agent]
        alpha, width = (0.4, 0.6) if has_band(curve) else (0.6, 0.9)
        for run in curve.runs:
            axes.plot(getattr(run, axis), run.episode_return, color=colour, alpha=alpha, linewidth=width)
        if has_band(curve):
            axes.fill_between(x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, curve.mean, color=colour, linewidth=1.8)


def draw_published(axes: Axes, rows: Sequence[Published], axis: Axis, colour: str) -> None:
    """Draw cited means with their 95 % intervals; against hours, those whose speed was measured."""
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


def draw_intervals(
    axes: Axes, found: Mapping[str, tuple[float, Any, Any]], colours: Mapping[str, str]
) -> None:
    """Draw one bar from low to high for each name, with a tick and the number at the value."""
    for i, (name, (value, low, high)) in enumerate(found.items()):
        axes.plot([low, high], [i, i], color=colours[name], linewidth=9, alpha=0.3, solid_capstyle="butt")
        axes.plot([value], [i], color=colours[name], marker="|", markersize=13, markeredgewidth=2.5)
        axes.annotate(
            f"{value:.2f}",
            (value, i),
            (0, 9),
            textcoords="offset points",
            ha="center",
            color=INK,
            fontsize=8,
        )
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.4, -0.6)
    if np.isnan([low for _, low, _ in found.values()]).all():
        axes.set_xlim(0, 1)  # or what lies close would look far apart
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", visible=False)


def label_ends(
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


def finish(axes: Axes, axis: Axis, highest: float | None = None) -> None:
    """Fix ticks and limits.

    Intervals may reach beyond what is possible, the panel does not; nor does it make much of next to nothing.
    """
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if axis == "frame":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda frame, _: short_count(frame)))
    axes.set_xlim(left=0)
    if highest is not None:
        axes.set_ylim(0, max(min(axes.get_ylim()[1], 1.02 * highest), 0.1 * highest))


def draw_legend(
    figure: Figure,
    agents: Iterable[str],
    colours: Mapping[str, str],
    banded: bool,
    publishers: Collection[str] = (),
) -> None:
    """Say above all panels which agent has which colour, and what bands and diamonds are."""
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=colours[agent], linewidth=2, label=agent) for agent in dict.fromkeys(agents)
    ]
    if banded:
        entries.append(Patch(color="#666666", alpha=0.18, linewidth=0, label="95 % interval over seeds"))
    if publishers:
        colour, whose = ("#666666", "") if len(publishers) > 1 else (INK, f"{next(iter(publishers))} as ")
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


def write_notices(figure: Figure, sentences: Sequence[str]) -> None:
    """Write the notices under the panels, across the width of the figure."""
    width = int(figure.get_figwidth() * 15)
    lines = [line for sentence in sentences for line in textwrap.wrap("⚠ " + sentence, width)]
    if lines:
        _heighten(figure, len(lines))
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color=_WARNING)


def write_figure(figure: Figure, rows: Sequence[Mapping[str, Any]], stem: Path) -> list[Path]:
    """Write a figure in its three forms, and return their paths."""
    return [
        save(figure, stem.with_suffix(".png")),
        save(figure, stem.with_suffix(".svg")),
        write_numbers(rows, stem.with_suffix(".csv")),
    ]


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as what its name ends in, with no trace of when and by what."""
    without_date = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    figure.savefig(path, dpi=150, metadata=without_date)
    return path


def write_numbers(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write six digits of each number; an empty field where there is none (one seed has no interval)."""
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
