"""One process per directory."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pixelcontrol.rundir import RunBusy, RunLock

HOLD_THE_LOCK = """
import sys, time
from pathlib import Path
from pixelcontrol.rundir import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_run_is_refused_by_name_and_a_crash_frees_the_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(RunBusy, match=f"process {holder.pid} on {socket.gethostname()}"):
                RunLock(tmp_path)
        finally:
            holder.kill()
    with RunLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"


def test_a_lock_that_is_free_in_a_moment_is_waited_for(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    threading.Timer(0.3, lock.release).start()
    RunLock(tmp_path).release()


def test_a_released_directory_can_be_taken_again(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(RunBusy, match="choose another directory"):
        RunLock(tmp_path)
    RunLock(tmp_path).release()


def test_a_refused_run_leaves_the_name_of_the_holder(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        for _ in range(2):
            with pytest.raises(RunBusy, match=f"process {os.getpid()} on"):
                RunLock(tmp_path)
