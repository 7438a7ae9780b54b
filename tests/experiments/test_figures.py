"""Figures: the numbers beside them, the words inside them, and the same bytes from the same data."""

import csv

import pytest

from pixelcontrol.experiments.figures import run_curve, write_figures


def words_in(svg):
    """Matplotlib writes every piece of text of an SVG as a comment above its outlines."""
    return " ".join(svg.read_text().split())


def numbers(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def write_comparison(write_run):
    """Two agents, two tasks, three seeds."""
    for agent, best in (("drqv2", 800.0), ("sac", 200.0)):
        for task in ("cheetah_run", "walker_walk"):
            for seed in range(3):
                directory = write_run(
                    agent=agent,
                    task=task,
                    seed=seed,
                    returns=[0, best + 10 * seed],
                    every_frames=500_000,
                    frames_per_second=50 if agent == "sac" else 100,
                )
    return directory.parent


@pytest.fixture(scope="module")
def comparison(write_shared_run):
    return write_comparison(write_shared_run)


@pytest.fixture(scope="module")
def drawn(comparison, tmp_path_factory):
    """The folder of that comparison's figures."""
    folder = tmp_path_factory.mktemp("drawn")
    write_figures([comparison], folder)
    return folder


def test_rates_of_success_are_drawn_where_every_evaluation_tells_them(write_run, tmp_path):
    write_run(seed=1, rates=[0.0, 0.5, 1.0])
    write_run(seed=2, rates=[0.0, 0.25, 0.5])
    write_run(seed=3, rates=["", 0.5, 1.0])
    folder = write_run(agent="sac").parent
    write_figures([folder], tmp_path / "drawn")
    rows = numbers(tmp_path / "drawn/success.csv")
    assert [(row["agent"], row["runs"], row["frame"], row["mean"]) for row in rows] == [
        ("drqv2", "2", "0", "0"), ("drqv2", "2", "10000", "0.375"), ("drqv2", "2", "20000", "0.75"),
    ]  # fmt: skip
    words = words_in(tmp_path / "drawn/success.svg")
    assert "rate of success in evaluations" in words
    assert "75%" in words
    assert "sac" not in words


def test_every_figure_comes_as_picture_drawing_and_numbers(drawn):
    written = [*drawn.iterdir()]
    names = {path.name for path in written}
    stems = ("curves_frames", "curves_hours", "average", "statistics")
    assert names == {f"{name}.{kind}" for name in stems for kind in ("png", "svg", "csv")} | {"scores.csv"}
    assert all(path.stat().st_size > 0 for path in written)


def test_the_numbers_beside_the_curves(drawn):
    rows = [row for row in numbers(drawn / "curves_frames.csv") if row["agent"] == "sac"]
    assert [row["frame"] for row in rows if row["task"] == "cheetah_run"] == ["0", "500000"]
    last = rows[-1]
    assert (last["runs"], last["mean"]) == ("3", "210")
    # std 10 over 3 seeds: 4.302653 * 10 / sqrt(3) = 24.8414.
    assert (last["low"], last["high"]) == ("185.159", "234.841")
    assert float(last["hour"]) == pytest.approx(500_000 / 50 / 3600, abs=1e-5)


def test_the_table_of_scores_cites_what_was_published(drawn):
    (row,) = [
        row
        for row in numbers(drawn / "scores.csv")
        if (row["agent"], row["task"]) == ("drqv2", "cheetah_run")
    ]
    assert (row["mean"], row["dead_seeds"], row["frames_per_second"]) == ("810", "0", "100")
    assert (row["published_frame"], row["published_mean"], row["published_seeds"]) == ("500000", "603", "10")


def test_the_numbers_beside_the_statistics(drawn):
    rows = numbers(drawn / "statistics.csv")
    found = {(row["statistic"], row["agent"], row["against"]): row["value"] for row in rows}
    assert found["interquartile mean", "drqv2", ""] == "0.81"
    assert found["optimality gap", "sac", ""] == "0.79"
    assert found["performance profile", "sac", "0.20"] == "0.666667"
    assert found["probability of improvement", "drqv2", "sac"] == "1"


def test_dead_seeds_stand_beside_the_mean(write_run, tmp_path):
    # Published for walker_walk at 500k frames: 722, so 24 is dead.
    for seed, value in enumerate((24.0, 900.0, 900.0)):
        path = write_run(task="walker_walk", seed=seed, returns=[0, value], every_frames=500_000)
    write_figures([path.parent], tmp_path / "out")
    assert "608 (1/3 dead)" in words_in(tmp_path / "out" / "curves_frames.svg")


def test_what_must_be_said_is_said_in_the_figure(write_run, tmp_path):
    write_run(seed=0, renderer="opengl")
    path = write_run(seed=1, returns=[0, 100, 200, 300])
    write_figures([path.parent], tmp_path / "out")
    for name in ("curves_frames", "curves_hours"):
        words = words_in(tmp_path / "out" / f"{name}.svg")
        assert "Fewer than three seeds: drqv2 on cheetah_run (2)" in words
        assert "Unequal frame counts" in words
        assert "Mixed renderer" in words


def test_a_task_that_cannot_be_averaged_is_named(write_run, tmp_path):
    folder = write_comparison(write_run)
    write_run(agent="sac", task="reacher_hard")
    write_figures([folder], tmp_path / "out")
    assert "Not averaged" in words_in(tmp_path / "out" / "average.svg")


def test_that_an_average_ends_early_is_said(write_run, tmp_path):
    write_run(task="cheetah_run", returns=[0, 100])
    folder = write_run(task="humanoid_run", returns=[0, 1, 2, 3]).parent
    write_figures([folder], tmp_path / "out")
    words = words_in(tmp_path / "out" / "average.svg")
    assert "ends with its shortest task, at 10k frames; the longest has 30k" in words
    assert "ends with its shortest" not in words_in(tmp_path / "out" / "curves_frames.svg")


def test_what_is_no_figure_of_ours_is_kept(write_run, tmp_path):
    own = tmp_path / "statistics.csv"
    own.write_text("mine")
    write_figures([write_run()], tmp_path)
    assert own.read_text() == "mine"


def test_what_the_runs_no_longer_allow_is_removed(write_run, tmp_path):
    one = write_run(task="cheetah_run")
    write_run(task="walker_run")
    assert tmp_path / "average.png" in write_figures([one.parent], tmp_path)
    (tmp_path / "average.txt").touch()
    write_figures([one], tmp_path)
    assert {path.stem for path in tmp_path.glob("*.png")} == {"curves_frames", "curves_hours"}
    assert (tmp_path / "average.txt").exists()
    write_run(agent="sac", task="walker_walk")
    with pytest.warns(UserWarning, match="no average over tasks"):
        write_figures([one.parent], tmp_path)


def test_published_curves_are_named_and_where_there_are_none_is_said(write_run, tmp_path):
    write_run(task="walker_run", returns=[0, 100, 200])  # whose first published frame is 500,000
    folder = write_run(task="cheetah_run", returns=[0, 100, 200]).parent
    write_figures([folder], tmp_path / "out")
    words = words_in(tmp_path / "out" / "curves_frames.svg")
    assert "drqv2 as published, 95 % interval" in words
    assert "Nothing published that early: walker_run." in words


def test_one_seed_of_each_of_three_tasks_is_no_interval(drawn, write_run, tmp_path):
    assert "95 % interval over seeds" in words_in(drawn / "average.svg")
    for task in ("cheetah_run", "walker_run", "walker_walk"):
        folder = write_run(task=task).parent
    write_figures([folder], tmp_path / "out")
    for name in ("average", "statistics", "curves_frames"):
        assert "95 % interval over seeds" not in words_in(tmp_path / "out" / f"{name}.svg")


def test_the_same_data_gives_the_same_bytes(comparison, drawn, tmp_path):
    for again in write_figures([comparison], tmp_path):
        assert (drawn / again.name).read_bytes() == again.read_bytes(), again.name


def test_one_seed_is_drawn_without_an_interval(write_run, tmp_path):
    write_figures([write_run()], tmp_path / "out")
    last = numbers(tmp_path / "out" / "curves_frames.csv")[-1]
    assert (last["mean"], last["low"], last["high"]) == ("200", "", "")


def test_the_ablation_has_its_own_figure(write_run, tmp_path):
    table = tmp_path / "table.csv"
    header, *rows = (write_run(returns=[0, 100.0]) / "eval.csv").read_text().splitlines()
    presets = ("ablation-a", "ablation-b")
    table.write_text("\n".join([header, *(row.replace("paper", p) for p in presets for row in rows)]) + "\n")
    write_figures([table], tmp_path / "out")
    words = words_in(tmp_path / "out" / "ablation.svg")
    assert "n-step returns: cheetah_run" in words
    assert "replay capacity" not in words


def test_run_curve_draws_what_is_there(write_run):
    directory = write_run()
    assert run_curve(directory) == directory / "curve.png"
    without_training = (directory / "curve.png").read_bytes()
    row = "drqv2,cheetah_run,0,{frame},{frame}\n"
    (directory / "train.csv").write_text(
        "agent,task,seed,frame,episode_return\n" + row.format(frame=10) + row.format(frame=90)
    )
    run_curve(directory)
    assert (directory / "curve.png").read_bytes() != without_training
    without_success = (directory / "curve.png").read_bytes()
    header, *rows = (directory / "eval.csv").read_text().splitlines()
    told = [
        f"{header},success_rate",
        *(f"{row},{rate}" for row, rate in zip(rows, ("", 0.5, 1.0), strict=True)),
    ]
    (directory / "eval.csv").write_text("\n".join(told) + "\n")
    run_curve(directory)
    assert (directory / "curve.png").read_bytes() != without_success
