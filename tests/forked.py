"""The command line in a process of its own, which a test may kill, forked from one that has imported it all."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["pixelcontrol.cli", "pixelcontrol.train"])

PATIENCE_SECONDS = 240
"""How long anything may take, on a machine with far more to do than cores."""


def _main(arguments: list[str], log: Path, prepare: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    os.setpgid(0, 0)  # so that a signal to the group, as Ctrl-C sends, does not reach the tests
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if prepare is not None:
        prepare()
    from pixelcontrol.cli import main

    sys.exit(main(arguments))


class CommandLine:
    """One call of `pixelcontrol`, under way.

    Attributes:
        pid: of its process.
    """

    def __init__(self, *arguments: object, log: Path, prepare: Callable[[], None] | None = None) -> None:
        """Start it; what it prints is added to `log`. `prepare` is called in its process before."""
        self._log, self._begin = log, log.stat().st_size if log.exists() else 0
        self._process = _server.Process(target=_main, args=([str(part) for part in arguments], log, prepare))
        self._process.start()
        # one that a failed test left stopped would hold up the end of all tests for ever
        atexit.register(self._process.kill)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def printed(self) -> str:
        """Return what it has printed so far."""
        return self._log.read_bytes()[self._begin :].decode() if self._log.exists() else ""

    def running(self) -> bool:
        """Return whether it has not ended yet."""
        return self._process.is_alive()

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Return True as soon as `condition` holds, or False when the process has ended before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if not self.running():
                return condition()
            assert time.monotonic() < deadline, f"nothing happened:\n{self.printed()}"
            time.sleep(0.01)
        return True

    def stopped(self) -> bool:
        """Return True as soon as it has stopped itself, until SIGCONT, or False when it has ended instead."""

        def is_stopped() -> bool:
            with suppress(psutil.NoSuchProcess):
                return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
            return False

        return self.wait_until(is_stopped)

    def signal(self, number: int) -> None:
        """Send a signal to it alone."""
        os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to it and its worker processes, as a terminal does."""
        os.killpg(self.pid, number)

    def children(self) -> list[psutil.Process]:
        """Return the processes that it has started."""
        return psutil.Process(self.pid).children(recursive=True)

    def ended(self) -> int:
        """Wait for its end and return its exit status, negative for the signal that ended it."""
        self._process.join(PATIENCE_SECONDS)
        assert self._process.exitcode is not None, f"it does not end:\n{self.printed()}"
        return self._process.exitcode
