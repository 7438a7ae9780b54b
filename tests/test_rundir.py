"""One process per directory, and tables that are cut to a checkpoint."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pixelcontrol.rundir import RunBusy, RunLock, cut_table, written_bytes

HOLD_THE_LOCK = """
import sys, time
from pathlib import Path
from pixelcontrol.rundir import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
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


def test_a_released_directory_can_be_taken_again(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(RunBusy, match="choose another directory"):
        RunLock(tmp_path)
    RunLock(tmp_path).release()


def test_a_refused_run_leaves_the_name_of_the_holder(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        for _ in range(2):
            with pytest.raises(RunBusy, match=f"process {os.getpid()} on"):
                RunLock(tmp_path)


def test_a_table_continues_where_the_checkpoint_was_taken(tmp_path: Path) -> None:
    table = tmp_path / "train.csv"
    with table.open("w") as file:
        file.write("frame,return\n2,0.5\n")
        size = written_bytes(file)
        file.write("4,1.5\n6,2")  # a kill in the middle of a line
    assert size == len("frame,return\n2,0.5\n")
    cut_table(table, size)
    with table.open("a") as file:
        file.write("4,1.5\n")
    assert table.read_text() == "frame,return\n2,0.5\n4,1.5\n"


def test_the_size_covers_what_is_still_in_the_buffer(tmp_path: Path) -> None:
    with (tmp_path / "eval.csv").open("w", encoding="utf-8") as file:
        file.write("é\n")
        assert written_bytes(file) == 3


@pytest.mark.parametrize("found", [None, "frame\n"])
def test_a_table_that_lost_rows_is_refused(tmp_path: Path, found: str | None) -> None:
    table = tmp_path / "train.csv"
    if found is not None:
        table.write_text(found)
    with pytest.raises(ValueError, match=r"train\.csv has \d bytes, and had 10 at the checkpoint"):
        cut_table(table, 10)
