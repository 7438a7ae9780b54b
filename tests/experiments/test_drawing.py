"""What figures are drawn with."""

from matplotlib.figure import Figure

from pixelcontrol.experiments.drawing import AGENT_COLOURS, agent_colours, draw_curves, finish
from pixelcontrol.experiments.runs import read_runs
from pixelcontrol.experiments.summary import task_curves


def test_next_to_nothing_looks_like_it(write_run):
    axes = Figure().subplots()
    axes.plot([0, 1], [0, 7])
    finish(axes, "frame", highest=1000)
    assert axes.get_ylim() == (0, 100)


def test_a_mean_ends_with_its_shortest_run_and_each_run_at_its_own_end(write_run):
    write_run(seed=0, returns=[0.0, 100.0])
    runs = read_runs([write_run(seed=1, returns=[0.0, 50.0, 300.0]).parent])
    axes = Figure().subplots()
    draw_curves(axes, task_curves(runs), "frame", {"drqv2": "blue"})
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]
    mean = ([0, 10_000], [0.0, 75.0])
    assert drawn == [([0, 10_000], [0.0, 100.0]), ([0, 10_000, 20_000], [0.0, 50.0, 300.0]), mean]


def test_known_agents_keep_their_colour():
    colours = agent_colours(["mine", "drqv2"])
    assert colours["drqv2"] == AGENT_COLOURS["drqv2"]
    assert colours["mine"] not in AGENT_COLOURS.values()
