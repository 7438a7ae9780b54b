"""Where runs run: how many fit, and how they are asked to end."""

import signal
import sys
import time

import pytest

from pixelcontrol.experiments.places import (
    RayCluster,
    ThisMachine,
    choose_parallel,
    refuse_too_many,
    start_process,
)
from pixelcontrol.experiments.plan import Variant, plan


def test_as_many_runs_as_fit(tmp_path, monkeypatch):
    jobs = plan(["cheetah_run"], [Variant("drqv2")], range(9), tmp_path, {})
    monkeypatch.setattr("pixelcontrol.experiments.places.usable_cores", lambda: 4)
    for gigabytes, number in ((10, 1), (60, 2), (1000, 4)):
        monkeypatch.setattr(
            "pixelcontrol.experiments.places.available_ram_bytes", lambda g=gigabytes: int(g * 1e9)
        )
        assert choose_parallel(jobs, "cpu") == number


def test_more_runs_at_a_time_than_memory_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pixelcontrol.experiments.places.available_ram_bytes", lambda: 60_000_000_000)
    jobs = plan(["cheetah_run"], [Variant("drqv2")], range(3), tmp_path, {})
    with pytest.raises(ValueError, match=r"3 runs at a time take up to 73\.2 GB, and 54\.0 GB are free"):
        refuse_too_many(jobs, 3, "cpu")
    refuse_too_many(jobs, 2, "cpu")


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


def test_without_ray_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install -c constraints\.txt -e '\.\[ray\]'"):
        RayCluster("local", cpus=1, gpus=0)
