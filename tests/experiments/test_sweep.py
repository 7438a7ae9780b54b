"""Sweeps: their plan, and that whatever is killed in the middle, they end complete and the same."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pixelcontrol.errors import Interrupted
from pixelcontrol.experiments.runs import read_runs
from pixelcontrol.experiments.sweep import (
    RayCluster,
    ThisMachine,
    choose_parallel,
    describe,
    last_row,
    parse_seeds,
    plan,
    progress,
    run_all,
    run_command,
    start_process,
    state,
    sweep,
)
from pixelcontrol.logger import CsvLog

FAKE = (sys.executable, str(Path(__file__).with_name("fake_train.py")))


def four_runs(out):
    return plan(["toy_reach", "cheetah_run"], ["drqv2"], [0, 1], out, {"frames": 1000})


def run_fake(jobs, capacity=2, **options):
    return run_all(jobs, ThisMachine(capacity), program=FAKE, poll_seconds=0.02, **options)


def tables(out):
    return {path.parent.name: path.read_text() for path in out.rglob("eval.csv")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    assert run_fake(four_runs(out)) == []
    return tables(out)


# ---- the plan ----


@pytest.mark.parametrize(("text", "seeds"), [("3", [3]), ("0-2", [0, 1, 2]), ("0-1,7,1", [0, 1, 7])])
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1;2", "²"])
def test_seeds_that_are_none(text):
    with pytest.raises(ValueError, match="--seeds"):
        parse_seeds(text)


def test_a_plan_completes_comparisons_early(tmp_path):
    jobs = plan(["toy_reach", "cheetah_run"], ["drqv2", "drqv2:ablation-a"], [0, 1], tmp_path, {})
    assert [str(job) for job in jobs[:5]] == [
        "drqv2_toy_reach_0",
        "drqv2-ablation-a_toy_reach_0",
        "drqv2_cheetah_run_0",
        "drqv2-ablation-a_cheetah_run_0",
        "drqv2_toy_reach_1",
    ]
    assert jobs[1].command() == [
        *("toy_reach", "--agent", "drqv2", "--preset", "ablation-a", "--seed", "0"),
        *("--out", str(tmp_path / "drqv2-ablation-a_toy_reach_0")),
    ]


def test_overrides_are_spelt_as_the_command_line_reads_them(tmp_path):
    (job,) = plan(["toy_reach"], ["drqv2"], [0], tmp_path, {"keep_replay": False, "batch_size": 32})
    assert job.settings == ("--batch-size", "32", "--keep-replay", "no")


def test_one_run_spelt_twice_is_one_run(tmp_path):
    assert len(plan(["toy_reach"], ["drqv2", "drqv2:paper"], [0], tmp_path, {})) == 1


def test_a_users_own_agent_has_a_preset_behind_its_name(tmp_path):
    (job,) = plan(["toy_reach"], ["restless:KIND:quick"], [0], tmp_path, {})
    assert (job.agent, job.preset) == ("restless:KIND", "quick")
    assert job.directory.name == "restless-KIND-quick_toy_reach_0"


@pytest.mark.parametrize(
    ("agent", "overrides"),
    [("drq2", {}), ("drqv2:papr", {}), ("drqv2", {"batch": 3}), ("drqv2", {"n_step": 0})],
)
def test_a_mistake_is_found_before_anything_starts(tmp_path, agent, overrides):
    with pytest.raises(ValueError, match=r"agent|preset|setting|n-step"):
        plan(["toy_reach"], [agent], [0], tmp_path, overrides)
    assert list(tmp_path.iterdir()) == []


def test_memory_of_a_run_is_its_replay_and_overhead(tmp_path):
    (job,) = plan(["cheetah_run"], ["drqv2"], [0], tmp_path, {})
    # 1M transitions of 84 x 84 x 3 bytes.
    assert job.memory_bytes == 21_168_000_000 + 3 * 1024**3


def test_memory_of_a_run_counts_cameras_and_depth(tmp_path):
    (job,) = plan(["cheetah_run"], ["drqv2"], [0], tmp_path, {"camera": ("0", "back"), "depth": 8.0})
    assert job.memory_bytes == 8 * 84 * 84 * 1_000_000 + 3 * 1024**3


def test_as_many_runs_as_fit(tmp_path, monkeypatch):
    jobs = plan(["cheetah_run"], ["drqv2"], range(9), tmp_path, {})
    monkeypatch.setattr("pixelcontrol.experiments.sweep.usable_cores", lambda: 4)
    for gigabytes, number in ((10, 1), (60, 2), (1000, 4)):
        monkeypatch.setattr(
            "pixelcontrol.experiments.sweep.available_ram_bytes", lambda g=gigabytes: int(g * 1e9)
        )
        assert choose_parallel(jobs, "cpu") == number


@pytest.mark.parametrize(
    ("gpu", "hours"), [(True, "5.6 device hours, 2.8 with"), (False, "55.6 device hours, 27.8 w")]
)
def test_a_dry_run_says_what_it_would_cost_and_starts_nothing(gpu, hours, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    out = tmp_path / "out"
    status = sweep(["cheetah_run"], ["drqv2"], "0-1", out, {"frames": 960_000}, parallel=2, dry_run=True)
    said = capsys.readouterr().out
    assert status == 0
    assert "2 runs: 2 new" in said
    # 2 * 960,000 frames / 96 frames/s = 20,000 s; a CPU core takes ten times as long
    assert hours in said
    assert "13.4 GB for the largest run, 26.8 GB with 2 at a time" in said
    assert not out.exists()


def test_a_plan_for_ray_does_not_judge_by_this_machine(tmp_path, capsys):
    settings = {"frames": 960_000, "device": "cuda"}
    assert (
        sweep(["cheetah_run"], ["drqv2"], "0-1", tmp_path / "out", settings, ray="far:1", dry_run=True) == 0
    )
    said = capsys.readouterr().out
    assert "5.6 device hours, at the speed" in said
    assert "at a time" not in said


def test_more_runs_at_a_time_than_memory_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pixelcontrol.experiments.sweep.available_ram_bytes", lambda: 60_000_000_000)
    with pytest.raises(ValueError, match=r"3 runs at a time take up to 73\.2 GB, and 54\.0 GB are free"):
        sweep(["cheetah_run"], ["drqv2"], "0-2", tmp_path / "out", {"device": "cpu"}, parallel=3)
    assert not (tmp_path / "out").exists()


# ---- running it ----


def test_four_runs_to_their_end(undisturbed):
    assert len(undisturbed) == 4
    assert all(len(table.splitlines()) == 12 for table in undisturbed.values())


def test_finished_runs_are_skipped(tmp_path):
    run_fake(four_runs(tmp_path))
    (tmp_path / "refuse").touch()  # whatever starts now, fails
    assert run_fake(four_runs(tmp_path)) == []
    assert describe(four_runs(tmp_path), 2, "cpu").startswith("4 runs: 4 finished")


@pytest.mark.parametrize("moment", [0, 5])
def test_a_killed_run_is_started_again_and_ends_the_same(tmp_path, undisturbed, moment):
    """Before the first checkpoint it starts over, later it resumes."""
    (tmp_path / f"kill_1_{moment}").touch()
    assert run_fake(four_runs(tmp_path)) == []
    assert not (tmp_path / f"kill_1_{moment}").exists(), "no run was disturbed"
    assert tables(tmp_path) == undisturbed
    assert len(read_runs([tmp_path])) == 4


def test_a_run_that_keeps_crashing_is_given_up_and_the_others_finish(tmp_path):
    for moment in range(4):
        (tmp_path / f"kill_1_{moment}").touch()
    failed = run_fake(four_runs(tmp_path)[1:3], capacity=1, restarts=1)
    assert [str(job) for job in failed] == ["drqv2_toy_reach_1"]


def test_a_mistake_in_the_arguments_is_not_repeated(tmp_path):
    (tmp_path / "refuse").touch()
    jobs = four_runs(tmp_path)[:1]
    assert run_fake(jobs) == jobs
    assert (jobs[0].directory / "output.log").read_text() == "no such thing\n"


def test_a_sweep_that_was_moved_goes_on(tmp_path):
    run_fake(four_runs(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    assert {state(job) for job in four_runs(tmp_path / "there")} == {"finished"}


def test_a_preset_that_is_the_default_names_no_other_run(tmp_path):
    plans = [plan(["toy_reach"], [word], [0], tmp_path, {}) for word in ("drqv2", "drqv2:paper")]
    assert plans[0] == plans[1]


def test_other_settings_need_another_directory(tmp_path):
    run_fake(four_runs(tmp_path)[:1])
    (job,) = plan(["toy_reach"], ["drqv2"], [0], tmp_path, {"frames": 2000})
    with pytest.raises(
        ValueError, match="was started with --frames 1000, and now with --frames 2000; give the"
    ):
        run_fake([job])


def test_a_kill_between_leftovers_leaves_the_directory_the_sweeps_own(tmp_path, monkeypatch):
    job = four_runs(tmp_path)[0]
    run_command(job, [])
    (job.directory / "events").mkdir()
    (job.directory / "train.csv").touch()

    def killed(leftover):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        run_command(job, [])
    monkeypatch.undo()
    assert state(job) == "new"
    run_command(job, [])
    assert [path.name for path in job.directory.iterdir()] == ["sweep.json"]


def test_a_plan_for_the_cpu_counts_hours_of_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "a tenth of the paper's" in describe(four_runs(tmp_path), 2, "cpu")


def test_a_directory_of_someone_else_is_left_alone(tmp_path):
    job = four_runs(tmp_path)[0]
    job.directory.mkdir()
    (job.directory / "thesis.tex").touch()
    with pytest.raises(ValueError, match="not made by a sweep"):
        run_fake([job])
    assert (job.directory / "thesis.tex").exists()


SWEEP_ALONE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_sweep import four_runs, run_fake
run_fake(four_runs(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_sweep_is_started_again_and_ends_the_same(tmp_path, undisturbed, number):
    (tmp_path / "hold").touch()
    alone = subprocess.Popen([sys.executable, "-c", SWEEP_ALONE, str(tmp_path)], stderr=subprocess.DEVNULL)
    while not list(tmp_path.rglob("checkpoint/*.json")):
        assert alone.poll() is None
        time.sleep(0.01)
    os.kill(alone.pid, number)
    assert alone.wait() != 0
    assert "finished" not in {state(job) for job in four_runs(tmp_path)}
    (tmp_path / "hold").unlink()
    assert run_fake(four_runs(tmp_path)) == []
    assert tables(tmp_path) == undisturbed


def test_a_signal_stops_the_sweep_and_its_runs(tmp_path):
    (tmp_path / "hold").touch()
    before = signal.getsignal(signal.SIGUSR1)

    class Interrupting(ThisMachine):
        interrupted = False

        def exit_status(self, handle):
            if not self.interrupted:
                self.interrupted = True  # a second one would end this process
                os.kill(os.getpid(), signal.SIGUSR1)  # as SLURM sends it before the end
            return super().exit_status(handle)

    with pytest.raises(Interrupted, match="start the same sweep again") as stop:
        run_all(four_runs(tmp_path), Interrupting(2), program=FAKE, poll_seconds=0.01)
    assert stop.value.exit_status == 128 + signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) is before


SAYS_ITS_SIGNAL = """
import signal, sys
from pixelcontrol.errors import STOP_SIGNALS
for number in STOP_SIGNALS:
    signal.signal(number, lambda number, _: sys.exit(100 + number))
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_runs_are_asked_to_end_by_a_signal_of_their_own(tmp_path):
    log = tmp_path / "output.log"
    run = start_process([sys.executable, "-c", SAYS_ITS_SIGNAL], log, threads=1)
    while "ready" not in log.read_text():
        assert run.poll() is None
        time.sleep(0.01)
    ThisMachine(1).stop([run])
    assert run.returncode == 100 + signal.SIGUSR2


def test_progress_reads_whole_lines_only(tmp_path):
    (job,) = four_runs(tmp_path)[:1]
    job.directory.mkdir()
    assert progress(job)["frame"] == 0
    (job.directory / "train.csv").write_text("frame,update,frames_per_second\n10,0,900\n")
    (job.directory / "eval.csv").write_text("frame,episode_return\n16,5.5\n")
    seeding = progress(job)
    assert (seeding["frame"], seeding["frames_per_second"]) == (16, 0.0)  # nothing is learned yet
    with (job.directory / "train.csv").open("a") as file:
        file.write("20,5,60.0\n30,7")
    now = progress(job)
    assert math.isnan(now.pop("success_rate"))
    assert now == {"frame": 20, "episode_return": 5.5, "frames_per_second": 60.0}
    table = job.directory / "eval.csv"
    table.unlink()
    log = CsvLog(table, ("frame", "episode_return", "success_rate"))
    log.append({"frame": 16, "episode_return": 5.5, "success_rate": 0.25})
    assert progress(job)["success_rate"] == 0.25
    log.append({"frame": 20, "episode_return": 5.5})  # a column that is empty, and the last
    assert math.isnan(progress(job)["success_rate"])


def test_four_runs_on_ray_with_one_killed_in_the_middle(tmp_path, undisturbed):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install -e '.[ray]'")
    (tmp_path / "kill_1_5").touch()
    place = RayCluster("local", cpus=1, gpus=0)
    try:
        assert run_all(four_runs(tmp_path), place, program=FAKE, poll_seconds=0.1) == []
    finally:
        ray.shutdown()
    assert not (tmp_path / "kill_1_5").exists(), "no run was disturbed"
    assert tables(tmp_path) == undisturbed


def test_without_ray_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install -c constraints\.txt -e '\.\[ray\]'"):
        RayCluster("local", cpus=1, gpus=0)


def test_the_last_row_is_found_wherever_reading_begins_in_a_letter(tmp_path):
    table = tmp_path / "train.csv"
    for filler in range(4):
        rows = "".join(f"{'x' * filler}{'ö' * 40},{n}\n" for n in range(200))
        table.write_text(f"task,frame\n{rows}", encoding="utf-8")
        assert last_row(table)["frame"] == "199"
