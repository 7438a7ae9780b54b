"""From runs to numbers: the curves, scores and comparisons that figures draw and reports tabulate.

Evaluations of one group of runs need not fall on the same frames (16 worlds step 32 frames at a time, one world
2), so runs are first brought onto common frames by `align`. Runs that do share their frames pass through it
unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixelcontrol.envs.tasks import PAPER_TASKS
from pixelcontrol.experiments.published import Published, load_published, max_return, published_at
from pixelcontrol.experiments.runs import Run, short_count
from pixelcontrol.experiments.statistics import bootstrap_interval, dead_seeds, mean_interval


@dataclass(frozen=True)
class Curve:
    """What one agent reached over training, on one task or averaged over several.

    Attributes:
        agent: for example "drqv2".
        task: for example "cheetah_run"; "average" for a mean over tasks.
        frame: (points,) int64.
        hour: (points,) float64, mean over runs of the hours they took to get there.
        mean: (points,) float64.
        low: (points,) float64, lower end of the 95 % interval; NaN for fewer than `FEWEST_SEEDS`.
        high: (points,) float64, upper end.
        returns: (runs, points) float64, what was averaged.
        runs: each from its own beginning to its own end; none of a mean over tasks.
    """

    agent: str
    task: str
    frame: np.ndarray
    hour: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    returns: np.ndarray
    runs: Sequence[Run] = ()


@dataclass(frozen=True)
class Score:
    """Where one agent ended on one task, at the last frame that all of its seeds reached.

    Attributes:
        agent: for example "drqv2".
        task: for example "cheetah_run".
        seeds: number of runs.
        frame: the last common frame.
        mean: mean final return over seeds.
        low: lower end of its 95 % interval; NaN for fewer than `FEWEST_SEEDS`.
        high: upper end.
        dead: number of seeds that never learned, or None when there is no reference.
        reference: the return of which a dead seed has less than a tenth (see `reference_return`).
        frames_per_second: mean over seeds, from the hours of training; NaN when no time was recorded.
        published: the cited figure of the same agent nearest before that frame, or None.
        mean_then: our mean at the frame of `published`; NaN without it.
    """

    agent: str
    task: str
    seeds: int
    frame: int
    mean: float
    low: float
    high: float
    dead: int | None
    reference: float | None
    frames_per_second: float
    published: Published | None
    mean_then: float


def tasks_in_order(runs: Sequence[Run]) -> list[str]:
    """The tasks of `runs`: the paper's as in its Table 1, from easy to hard, and then others by name."""
    tasks = {run.task for run in runs}
    known = [task.name for task in PAPER_TASKS if task.name in tasks]
    return known + sorted(tasks.difference(known))


def groups(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """The runs of each (agent, task), in order of first appearance."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.agent, run.task), []).append(run)
    return grouped


def align(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring runs onto common frames: those of the run with the fewest evaluations as far as all of them reach.

    The last is where the shortest run ends. Values in between are interpolated linearly; nothing is extrapolated.

    Raises:
        ValueError: they share no frames.

    Returns:
        frame (points,); hour (runs, points); episode return (runs, points).
    """
    start, end = max(run.frame[0] for run in runs), min(run.frame[-1] for run in runs)
    if start > end:
        spans = ", ".join(f"{run} ({run.frame[0]:,} to {run.frame[-1]:,})" for run in runs)
        raise ValueError(f"no frame lies within all of these runs: {spans}; leave some out, or train them on")
    within = [run.frame[(run.frame >= start) & (run.frame <= end)] for run in runs]
    frame = min((np.union1d(frames, end) for frames in within), key=len)
    hour = np.array([np.interp(frame, run.frame, run.hour) for run in runs])
    returns = np.array([np.interp(frame, run.frame, run.episode_return) for run in runs])
    return frame, hour, returns


def task_curves(runs: Sequence[Run]) -> list[Curve]:
    """One curve for every agent and task, with Student-t intervals over seeds (Figures 3 to 8 of the paper)."""
    curves = []
    for (agent, task), group in groups(runs).items():
        frame, hour, returns = align(group)
        mean, low, high = mean_interval(returns)
        curves.append(Curve(agent, task, frame, hour.mean(axis=0), mean, low, high, returns, group))
    return curves


def success_curves(runs: Sequence[Run]) -> list[Curve]:
    """As `task_curves`, of rates of success in place of returns, and of the runs that tell them."""
    return task_curves(
        [replace(run, episode_return=run.success_rate) for run in runs if run.success_rate is not None]
    )


def average_curves(runs: Sequence[Run]) -> list[Curve]:
    """One curve for every agent, the mean over tasks of the mean over seeds (Figure 1a of the paper).

    Every task counts the same, however many seeds it has. The intervals come from the stratified bootstrap, for
    which Student's t has no counterpart. Returns are in fractions of the task's highest, because reach_duplo's
    is not 1000.
    """
    runs = comparable(runs)
    curves = []
    for agent in dict.fromkeys(run.agent for run in runs):
        mine = [run for run in runs if run.agent == agent]
        frame, hour, returns = align(mine)
        scores = returns / [[_highest(run)] for run in mine]
        task_of = np.array([run.task for run in mine])
        by_task = [scores[task_of == task] for task in dict.fromkeys(task_of)]
        low, high = bootstrap_interval(_mean_over_tasks, by_task)
        hours = np.mean([hour[task_of == task].mean(axis=0) for task in dict.fromkeys(task_of)], axis=0)
        curves.append(Curve(agent, "average", frame, hours, _mean_over_tasks(by_task), low, high, scores))
    return curves


def scores(runs: Sequence[Run]) -> list[Score]:
    """One row for every agent and task: the final return beside what was published for it."""
    rows = []
    for (agent, task), group in groups(runs).items():
        frames, _, returns = align(group)
        frame = int(frames[-1])
        mean, low, high = mean_interval(returns[:, -1])
        reference = reference_return(task, frame, runs)
        published = published_at(agent, task, frame)
        rows.append(
            Score(
                agent=agent,
                task=task,
                seeds=len(group),
                frame=frame,
                mean=float(mean),
                low=float(low),
                high=float(high),
                dead=None if reference is None else dead_seeds(returns[:, -1], reference),
                reference=reference,
                frames_per_second=_frames_per_second(group),
                published=published,
                mean_then=float(
                    np.interp(published.frame, frames, returns.mean(axis=0)) if published else np.nan
                ),
            )
        )
    return rows


def reference_return(task: str, frame: int, runs: Sequence[Run]) -> float | None:
    """What `task` is known to give after `frame` frames: the measure of a dead seed.

    It is DrQ-v2's published mean at or before that frame. Where there is none, it is the best return at that frame
    among `runs` on the task, if there are several. None if that is not above 0 and a twentieth of the task's
    highest return: a tenth of it would mean nothing.
    """
    if published := published_at("drqv2", task, frame):
        best = published.mean
    else:
        reached = [run for run in runs if run.task == task and run.frame[-1] >= frame]
        if len(reached) < 2:
            return None
        best = max(float(np.interp(frame, run.frame, run.episode_return)) for run in reached)
    return best if best > 0.05 * (max_return(task) or 0) else None


def comparable(runs: Sequence[Run]) -> list[Run]:
    """The runs on tasks that every agent was run on and whose highest return is known.

    Only these can be averaged over tasks; whoever averages says which tasks were left out.
    """
    agents = {run.agent for run in runs}
    tasks = {
        task
        for task in {run.task for run in runs}
        if max_return(task) and {run.agent for run in runs if run.task == task} == agents
    }
    return [run for run in runs if run.task in tasks]


def comparable_tasks(runs: Sequence[Run]) -> set[str]:
    """The tasks of comparable runs; an average is over more than one."""
    return {run.task for run in comparable(runs)}


def final_scores(runs: Sequence[Run]) -> dict[str, list[np.ndarray]]:
    """Normalised final returns for the statistics over tasks: for each agent, one array per comparable task.

    Each task's are those at the last frame that all of its runs reached, of whichever agent.
    """
    runs = comparable(runs)
    final: dict[str, list[np.ndarray]] = {}
    for task in tasks_in_order(runs):
        mine = [run for run in runs if run.task == task]
        ends = align(mine)[2][:, -1] / _highest(mine[0])
        for agent in dict.fromkeys(run.agent for run in runs):
            final.setdefault(agent, []).append(ends[[run.agent == agent for run in mine]])
    return final


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


def early_notices(curves: Sequence[Curve]) -> list[str]:
    """The notice that some tasks' curves end before anything is published of them, if any do."""
    known = {row.task for row in load_published()}
    tasks = [
        task
        for task in tasks_in_order([run for curve in curves for run in curve.runs])
        if task in known and not cited([curve for curve in curves if curve.task == task])
    ]
    return [f"Nothing published that early: {', '.join(tasks)}."] if tasks else []


def average_notices(runs: Sequence[Run]) -> list[str]:
    """What must be said beside an average curve over tasks: where it ends, and what is missing from it."""
    ends = {
        task: min(int(run.frame[-1]) for run in runs if run.task == task) for task in comparable_tasks(runs)
    }
    first, last = min(ends.values()), max(ends.values())
    said = left_out_notices(runs)
    if first < 0.99 * last:
        said.append(
            f"The average ends with its shortest task, at {short_count(first)} frames; the longest has "
            f"{short_count(last)}."
        )
    return said


def left_out_notices(runs: Sequence[Run]) -> list[str]:
    """The notice that tasks are missing from an average, if any are."""
    tasks = sorted({run.task for run in runs} - comparable_tasks(runs))
    return (
        [f"Not averaged, for want of some agent or of a known highest return: {', '.join(tasks)}."]
        if tasks
        else []
    )


def _mean_over_tasks(by_task: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean([task.mean(axis=0) for task in by_task], axis=0)


def _highest(run: Run) -> float:
    highest = max_return(run.task)
    assert highest is not None, f"{run.task} has no known highest return; pass comparable runs"
    return highest


def _frames_per_second(group: Sequence[Run]) -> float:
    speeds = [run.frame[-1] / run.hour[-1] / 3600 for run in group if run.hour[-1] > 0]
    return float(np.mean(speeds)) if speeds else float("nan")
