"""Sweeps: whatever is killed in the middle, they end complete and the same."""

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
from pixelcontrol.experiments.forecast import describe
from pixelcontrol.experiments.places import RayCluster, ThisMachine
from pixelcontrol.experiments.plan import Variant, plan, state
from pixelcontrol.experiments.runs import read_runs
from pixelcontrol.experiments.sweep import run_all, run_command, sweep

FAKE = (sys.executable, str(Path(__file__).with_name("fake_train.py")))


def four_runs(out):
    return plan(["toy_reach", "cheetah_run"], [Variant("drqv2")], [0, 1], out, {"frames": 1000})


def run_fake(jobs, capacity=2, **options):
    return run_all(jobs, ThisMachine(capacity), program=FAKE, poll_seconds=0.02, **options)


SWEEP_ALONE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_sweep import four_runs, run_fake
run_fake(four_runs(Path(sys.argv[1])))
"""


def tables(out):
    return {path.parent.name: path.read_text() for path in out.rglob("eval.csv")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    assert run_fake(four_runs(out)) == []
    return tables(out)


@pytest.mark.parametrize(
    ("gpu", "hours"), [(True, "5.6 device hours, 2.8 with"), (False, "55.6 device hours, 27.8 w")]
)
def test_a_dry_run_says_what_it_would_cost_and_starts_nothing(gpu, hours, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    out = tmp_path / "out"
    status = sweep(
        ["cheetah_run"], [Variant("drqv2")], "0-1", out, {"frames": 960_000}, parallel=2, dry_run=True
    )
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
        sweep(
            ["cheetah_run"], [Variant("drqv2")], "0-1", tmp_path / "out", settings, ray="far:1", dry_run=True
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "5.6 device hours, at the speed" in said
    assert "at a time" not in said


def test_four_runs_to_their_end(undisturbed):
    assert len(undisturbed) == 4
    assert all(len(table.splitlines()) == 12 for table in undisturbed.values())


def test_finished_runs_are_skipped(tmp_path):
    run_fake(four_runs(tmp_path))
    (tmp_path / "refuse").touch()  # whatever starts now, fails
    assert run_fake(four_runs(tmp_path)) == []
    assert describe(four_runs(tmp_path), 2, "cpu").startswith("4 runs: 4 finished")


def test_what_another_sweep_finishes_meanwhile_is_not_trained_again(tmp_path, undisturbed, monkeypatch):
    """Two sweeps of the same words: the second waits for what the first trains, and must not empty it."""
    seen = []

    def busy_until_another_sweep_is_done(job):
        if not seen:
            subprocess.run(
                [sys.executable, "-c", SWEEP_ALONE, str(tmp_path)], check=True, capture_output=True
            )
        seen.append(job)
        return len(seen) == 1

    monkeypatch.setattr("pixelcontrol.experiments.sweep._busy", busy_until_another_sweep_is_done)
    jobs = four_runs(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ThisMachine, "start", None)  # nothing is started
        assert run_fake(jobs) == []
    assert len(seen) == 5
    assert tables(tmp_path) == undisturbed
    with pytest.raises(ValueError, match="is finished"):
        run_command(jobs[0], [])


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


def test_other_settings_need_another_directory(tmp_path):
    run_fake(four_runs(tmp_path)[:1])
    (job,) = plan(["toy_reach"], [Variant("drqv2")], [0], tmp_path, {"frames": 2000})
    with pytest.raises(
        ValueError, match="was started with --frames=1000, and now with --frames=2000; give the"
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


def test_a_directory_of_someone_else_is_left_alone(tmp_path):
    job = four_runs(tmp_path)[0]
    job.directory.mkdir()
    (job.directory / "thesis.tex").touch()
    with pytest.raises(ValueError, match="not made by a sweep"):
        run_fake([job])
    assert (job.directory / "thesis.tex").exists()


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
