"""Reading runs, refusing broken ones, and saying what must be said of them."""

import json
import re
import shutil

import pytest

from pixelcontrol.experiments.runs import notices, read_runs, read_table, short_count


def test_reads_a_run_directory(write_run):
    (run,) = read_runs([write_run(seed=3, returns=[1.5, 20.0], frames_per_second=100)])
    assert (run.agent, run.task, run.seed) == ("drqv2", "cheetah_run", 3)
    assert run.frame.tolist() == [0, 10_000]
    assert run.hour.tolist() == pytest.approx([0, 100 / 3600])
    assert run.episode_return.tolist() == [1.5, 20.0]
    assert run.conditions == {"renderer": "warp", "precision": "float32", "envs": "16", "commit": "abc1234"}
    assert run.config is not None
    assert run.config["settings"]["frames"] == 10_000


def test_reads_a_directory_of_runs_and_ignores_other_tables(write_run):
    directory = write_run(seed=1)
    write_run(seed=0)
    (directory / "train.csv").write_text("agent,task,seed,frame,episode_return\ndrqv2,cheetah_run,1,2,3\n")
    assert [run.seed for run in read_runs([directory.parent])] == [0, 1]


def test_a_tidy_table_of_many_runs_reads_like_their_directories(write_run, tmp_path):
    directories = [write_run(seed=seed, returns=[seed, 10.0 * seed]) for seed in (0, 1)]
    lines = [line for d in directories for line in (d / "eval.csv").read_text().splitlines()]
    header, rows = lines[0], [line for line in lines if line != lines[0]]
    table = tmp_path / "table.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    assert [run.episode_return.tolist() for run in read_runs([table])] == [[0, 0], [1, 10]]


def test_another_preset_is_another_agent(write_run, tmp_path):
    header, row = (write_run(returns=[5.0]) / "eval.csv").read_text().splitlines()
    table = tmp_path / "table.csv"
    table.write_text("\n".join([header, row, row.replace("paper", "quick")]) + "\n")
    assert [run.agent for run in read_runs([table])] == ["drqv2", "drqv2-quick"]


def test_the_same_path_given_twice_is_one_run(write_run):
    directory = write_run()
    assert len(read_runs([directory, directory.parent])) == 1


def test_a_copy_is_no_second_seed(write_run):
    directory = write_run()
    shutil.copytree(directory, directory.parent / "copy")
    with pytest.warns(UserWarning, match="drqv2 on cheetah_run, seed 0 comes twice"):
        read_runs([directory.parent])


def test_a_partial_last_line_is_left_out_with_a_word(write_run):
    directory = write_run(returns=[1.0, 2.0, 3.0])
    file = directory / "eval.csv"
    file.write_text(file.read_text()[:-30])
    with pytest.warns(UserWarning, match="partial last line"):
        (run,) = read_runs([directory])
    assert run.episode_return.tolist() == [1, 2]


def test_a_run_without_evaluations_yet_is_left_out_with_a_word(write_run):
    paths = [write_run(returns=[]), write_run(seed=1)]
    with pytest.warns(UserWarning, match="no evaluation yet"):
        assert [run.seed for run in read_runs(paths)] == [1]


@pytest.mark.filterwarnings("ignore:.*no evaluation yet")
def test_runs_of_which_none_has_an_evaluation_are_refused(write_run):
    with pytest.raises(ValueError, match="no evaluation yet; train on, or with --eval-episodes above 0"):
        read_runs([write_run(returns=[])])


def test_a_broken_line_is_named(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("a,b\n1,2\n3\n5,6\n")
    with pytest.raises(ValueError, match=r"train.csv, line 3: expected 2 fields"):
        read_table(file)


@pytest.mark.parametrize(("name", "words"), [("frame", "a whole number"), ("hour", "a number (nan")])
def test_what_is_no_number_is_named(write_run, name, words):
    file = write_run() / "eval.csv"
    header, first, *rest = file.read_text().splitlines()
    cells = first.split(",")
    cells[header.split(",").index(name)] = ""
    file.write_text("\n".join([header, ",".join(cells), *rest]) + "\n")
    with pytest.raises(ValueError, match=re.escape(f"eval.csv, line 2: {name} is ''; expected {words}")):
        read_runs([file])


def test_a_table_saved_by_a_spreadsheet_is_read(write_run):
    file = write_run(preset="") / "eval.csv"
    file.write_text(file.read_text(), encoding="utf-8-sig")
    (run,) = read_runs([file])
    assert run.agent == "drqv2"


def test_frames_that_do_not_rise_are_refused(write_run):
    directory = write_run(returns=[1.0, 2.0])
    file = directory / "eval.csv"
    file.write_text(file.read_text() + file.read_text().splitlines()[-1] + "\n")
    with pytest.raises(ValueError, match="do not rise"):
        read_runs([directory])


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(ValueError, match="holds no evaluations"):
        read_runs([tmp_path / "absent"])
    with pytest.raises(ValueError, match="holds no evaluations"):
        read_runs([tmp_path])


def test_what_was_learned_with_more_than_images_is_said(write_run):
    paths = [write_run(agent=agent, seed=seed) for agent in ("drqv2", "privileged") for seed in range(3)]
    words = "Trained with the simulator's state, not from images alone: privileged."
    assert notices(read_runs(paths)) == [words]
    paths += [write_run(preset="quick-proprio", seed=seed) for seed in range(3, 6)]
    assert notices(read_runs(paths)) == [words, "With proprioception beside images: drqv2-quick-proprio."]


def test_three_equal_seeds_need_no_notice(write_run):
    assert notices(read_runs([write_run(seed=seed) for seed in range(3)])) == []


def test_one_seed_of_everything_is_said_once(write_run):
    paths = [write_run(), write_run(agent="sac")]
    assert notices(read_runs(paths)) == ["One seed each."]


def test_few_seeds_are_said(write_run):
    paths = [write_run(seed=seed) for seed in range(3)] + [write_run(agent="sac")]
    assert notices(read_runs(paths)) == ["Fewer than three seeds: sac on cheetah_run (1)."]


def test_unequal_frame_counts_are_said(write_run):
    paths = [write_run(seed=seed, returns=[0.0] * (3 + seed)) for seed in range(3)]
    assert notices(read_runs(paths)) == [
        "Unequal frame counts, each mean ends with its shortest run: cheetah_run (20k to 40k)."
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("renderer", "opengl"), ("precision", "bf16"), ("envs", 1), ("commit", "")]
)
def test_mixed_conditions_are_said(write_run, name, value):
    paths = [write_run(seed=seed, **({name: value} if seed == 1 else {})) for seed in range(3)]
    (notice,) = notices(read_runs(paths))
    assert notice.startswith(f"Mixed {name}: ")
    assert f"{value or 'not recorded'} (1 runs)" in notice


@pytest.mark.parametrize(
    ("number", "text"),
    [(950, "950"), (20_000, "20k"), (999_600, "1000k"), (1_500_000, "1.5M"), (2_980_000, "2.98M")],
)
def test_short_count(number, text):
    assert short_count(number) == text


def choose(run, **settings):
    """Have a written run tell settings of its own."""
    config = json.loads((run / "config.json").read_text()) | {"settings": settings}
    (run / "config.json").write_text(json.dumps(config))
    return run


def test_runs_that_learn_by_other_settings_are_other_agents(write_run):
    plain = write_run()
    choose(write_run(seed=1), n_step=1, envs=4)
    choose(write_run(seed=2), n_step=3, batch_size=256)
    assert [run.agent for run in read_runs([plain.parent])] == ["drqv2", "drqv2", "drqv2 n_step=1"]
    walker = choose(write_run(task="walker_walk"), n_step=1)  # the task's own
    assert [run.agent for run in read_runs([walker])] == ["drqv2"]


def test_values_of_a_setting_are_in_the_order_of_numbers(write_run):
    for value in ("10", "5"):
        write_run(agent=f"own n_step={value}")
    folder = write_run(agent="drqv2").parent
    names = ["drqv2", "own n_step=5", "own n_step=10"]
    assert [run.agent for run in read_runs([folder])] == names


def test_an_agent_is_called_the_same_whatever_is_read_beside_it(write_run):
    """So a run with a smaller network is never set beside what the agent of that name is published with."""
    paths = [
        choose(write_run(seed=seed), image_size=[24], n_step=n_step) for seed, n_step in enumerate((1, 1, 5))
    ]
    one, other = "drqv2 image_size=24 n_step=1", "drqv2 image_size=24 n_step=5"
    assert [run.agent for run in read_runs(paths)] == [one, one, other]
    assert [run.agent for run in read_runs(paths[:2])] == [one, one]


def test_seeds_that_begin_with_networks_of_their_own_are_one_agent(write_run):
    paths = [choose(write_run(seed=seed), start_from=f"runs/before-{seed}") for seed in range(3)]
    assert {run.agent for run in read_runs(paths)} == {"drqv2 start_from"}


def test_of_a_seed_that_was_run_twice_the_longer_run_is_taken(write_run):
    short = write_run(returns=[0, 1])
    moved = short.rename(short.parent / "short")
    long = write_run(returns=[0, 1, 2])
    with pytest.warns(UserWarning, match=r"comes twice: .*drqv2_cheetah_run_0.* is read, and .*short"):
        (run,) = read_runs([moved, long])
    assert len(run.frame) == 3


def test_a_run_that_has_only_just_begun_cuts_no_means_short(write_run) -> None:
    whole = write_run(seed=1)
    begun = write_run(seed=2, returns=[5.0])
    with pytest.warns(UserWarning, match="drqv2 on cheetah_run, seed 2 has only just begun, and is left out"):
        (run,) = read_runs([whole, begun])
    assert run.seed == 1
    assert [run.seed for run in read_runs([begun])] == [2]
