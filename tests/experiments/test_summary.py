"""Curves, scores and comparisons, against numbers worked out by hand."""

import numpy as np
import pytest

from pixelcontrol.experiments.runs import read_runs
from pixelcontrol.experiments.summary import (
    align,
    average_curves,
    cited,
    comparable,
    final_scores,
    reference_return,
    scores,
    task_curves,
    tasks_in_order,
)


def test_a_curve_is_the_mean_over_seeds_with_a_t_interval(write_run):
    paths = [write_run(seed=seed, returns=[0.0, value]) for seed, value in enumerate((500, 600, 700))]
    (curve,) = task_curves(read_runs(paths))
    assert curve.frame.tolist() == [0, 10_000]
    assert curve.mean.tolist() == [0, 600]
    assert curve.high[-1] == pytest.approx(600 + 248.4138, abs=1e-3)
    assert curve.hour[-1] == pytest.approx(100 / 3600)


def test_a_mean_ends_with_the_shortest_run(write_run):
    paths = [write_run(seed=0, returns=[0, 1, 2, 3]), write_run(seed=1, returns=[0, 3])]
    (curve,) = task_curves(read_runs(paths))
    assert curve.frame.tolist() == [0, 10_000]
    assert curve.mean.tolist() == [0, 2]


def test_runs_that_share_no_frames_are_refused_by_name(write_run):
    path = write_run(seed=0)
    write_run(seed=1, returns=[0, 1])
    table = path.parent / "drqv2_cheetah_run_1" / "eval.csv"
    header, _, last = table.read_text().splitlines()
    table.write_text(f"{header}\n{last.replace(',10000,', ',90000,')}\n")
    with pytest.raises(ValueError, match=r"seed 0 \(0 to 20,000\), .* seed 1 \(90,000 to 90,000\)"):
        align(read_runs([path.parent]))


def test_runs_evaluated_at_other_frames_are_interpolated(write_run):
    paths = [
        write_run(seed=0, returns=[0, 100, 200, 300], every_frames=10_000),
        write_run(seed=1, returns=[0, 30], every_frames=15_000),
    ]
    frame, _, returns = align(read_runs(paths))
    assert frame.tolist() == [0, 15_000]
    assert returns.tolist() == [[0, 150], [0, 30]]


def test_common_frames_are_as_coarse_as_the_coarsest_where_all_runs_are_and_end_with_the_shortest(write_run):
    paths = [
        # the fewest evaluations, and one of them within
        write_run(seed=0, returns=[0, 500], every_frames=50_000),
        write_run(seed=1, returns=[0, 100, 200, 300], every_frames=10_000),
    ]
    frame, _, returns = align(read_runs(paths))
    assert frame.tolist() == [0, 30_000]
    assert returns.tolist() == [[0, 300], [0, 300]]


def test_the_average_counts_every_task_once_and_reach_duplo_out_of_250(write_run):
    paths = [write_run(task="cheetah_run", seed=seed, returns=[0, 1000]) for seed in range(3)]
    paths.append(write_run(task="reach_duplo", returns=[0, 50]))
    (curve,) = average_curves(read_runs(paths))
    assert curve.mean.tolist() == [0, pytest.approx((1.0 + 0.2) / 2)]


def test_the_average_interval_resamples_seeds_within_tasks(write_run):
    for seed, value in enumerate((0, 1000, 1000)):
        write_run(task="cheetah_run", seed=seed, returns=[0, value])
        path = write_run(task="walker_run", seed=seed, returns=[0, 500])
    (curve,) = average_curves(read_runs([path.parent]))
    assert curve.mean[-1] == pytest.approx((2 / 3 + 0.5) / 2)
    # Of the draws of the cheetah's seeds one in 27 is all 0, eight all 1000: the 2.5 % ends are these extremes.
    assert (curve.low[-1], curve.high[-1]) == (0.25, 0.75)


def test_a_score_knows_its_dead_seeds_and_the_published_figure(write_run):
    # Published for walker_walk at 100k frames: 170, so a seed below 17 is dead.
    paths = [
        write_run(task="walker_walk", seed=seed, returns=[0, value], every_frames=100_000)
        for seed, value in enumerate((16.0, 18.0, 300.0))
    ]
    (row,) = scores(read_runs(paths))
    assert (row.seeds, row.frame, row.dead, row.reference) == (3, 100_000, 1, 170)
    assert row.mean == pytest.approx((16 + 18 + 300) / 3)
    assert row.frames_per_second == pytest.approx(100)
    assert row.published is not None
    assert row.published.mean == 170
    assert row.mean_then == row.mean
    assert row.low < 111.3 < row.high
    (row,) = scores(read_runs(paths[1:]))
    assert (row.seeds, row.mean) == (2, 159)
    assert np.isnan([row.low, row.high]).all()


def test_without_a_published_figure_the_best_seed_is_the_reference(write_run):
    runs = read_runs([write_run(task="toy_reach", seed=seed, returns=[0, 10 * seed]) for seed in range(3)])
    assert reference_return("toy_reach", 10_000, runs) == 20
    assert reference_return("toy_reach", 10_000, []) is None
    assert scores(runs)[0].dead == 1


def test_a_dead_seed_is_judged_by_what_others_had_by_then(write_run):
    write_run(agent="sac", task="toy_reach", returns=[0, 100, 1000])
    runs = read_runs([write_run(task="toy_reach", returns=[0, 80]).parent])
    assert [(score.agent, score.reference, score.dead) for score in scores(runs)] == [
        ("drqv2", 100, 0),
        ("sac", None, None),  # alone at its end
    ]


def test_next_to_nothing_is_no_reference(write_run):
    # Published for humanoid_run at 5M frames: 2 of 1000.
    (row,) = scores(read_runs([write_run(task="humanoid_run", returns=[0, 0], every_frames=5_000_000)]))
    assert (row.dead, row.reference) == (None, None)


def test_without_any_positive_return_there_is_no_reference(write_run):
    (row,) = scores(read_runs([write_run(task="toy_reach", returns=[-5, -4])]))
    assert row.reference is None
    assert row.dead is None


def test_final_scores_are_at_the_frame_that_all_agents_reached(write_run):
    write_run(agent="sac", returns=[0, 100])
    runs = read_runs([write_run(returns=[0, 200, 900]).parent])
    np.testing.assert_equal(final_scores(runs), {"drqv2": [np.array([0.2])], "sac": [np.array([0.1])]})


def test_tasks_are_in_the_papers_order_and_then_by_name(write_run):
    for task in ("toy_reach", "fish_swim", "humanoid_run", "walker_walk", "acrobot_swingup", "cup_catch"):
        path = write_run(task=task)
    assert tasks_in_order(read_runs([path.parent])) == [
        *("cup_catch", "walker_walk", "acrobot_swingup", "humanoid_run"),
        *("fish_swim", "toy_reach"),
    ]


def test_only_tasks_that_every_agent_was_run_on_are_compared(write_run):
    for agent in ("drqv2", "sac"):
        write_run(agent=agent, task="cheetah_run", returns=[0, 500])
        write_run(agent=agent, task="toy_reach")
    paths = write_run(agent="sac", task="walker_walk").parent
    runs = read_runs([paths])
    assert {run.task for run in comparable(runs)} == {"cheetah_run"}
    np.testing.assert_equal(final_scores(runs), {"drqv2": [np.array([0.5])], "sac": [np.array([0.5])]})


def test_published_rows_of_the_agents_shown_and_of_drqv2_up_to_the_longest_runs_end(write_run):
    write_run(agent="sac", returns=[0.0] * 11)  # to frame 100,000
    folder = write_run(agent="sac", seed=1, returns=[0.0] * 5).parent
    rows = cited(task_curves(read_runs([folder])))
    assert set(rows) == {"drqv2"}
    assert [row.frame for row in rows["drqv2"]] == [20_000, 40_000, 60_000, 80_000, 100_000]
