"""Who steps a share of the worlds: a process of its own, or this one.

Both take an order, answer whether it was carried out, and are dismissed at the end. What a worker process does
with an order stands in `worker.py`; what becomes of worlds whose worker fails, in `vector.py`.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from types import SimpleNamespace
from typing import Any

import numpy as np

from pixelcontrol.envs.worker import MISTAKEN, OBSERVED, READY, advance, serve
from pixelcontrol.errors import WorldMistake
from pixelcontrol.types import World

_log = logging.getLogger(__name__)
SPAWN = multiprocessing.get_context("spawn")
"""How processes start, and memory is shared with them: a fork of a process that has drawn with EGL hangs."""

HURRIED_TIMEOUT = 10.0
"""Seconds that a worker may still take for an agent step once the run was asked to stop."""

CLOSE_TIMEOUT = 2.0
"""Seconds in which a worker must have closed its worlds."""

REAL_TIMEOUT = 60.0
"""Instead of the last two where worlds do not repeat: a robot may have to be brought to rest."""

TICK_SECONDS = 1.0
"""How often a wait for a worker looks whether it has become a hurry."""

QUIET_SECONDS = 30.0
"""After so long a wait for a worker it is said, once, what is waited for."""


class Worker:
    """A worker process that holds a share of the worlds."""

    def __init__(
        self,
        make_world: Callable[[], World],
        share: range,
        block: Any,
        row: np.dtype[np.void],
        *,
        repeats: bool,
    ) -> None:
        self._hurried_timeout = HURRIED_TIMEOUT if repeats else REAL_TIMEOUT
        self._connection, child = SPAWN.Pipe()
        self._process = SPAWN.Process(
            target=serve,
            args=(child, make_world, share, block, row),
            name=names(share),
            daemon=True,
        )
        self._process.start()
        self._ordered = time.monotonic()
        self._hurried = math.inf
        child.close()  # The worker's copy is the only one: its death closes the pipe.
        # At exit multiprocessing would wait for ever for a worker that nobody ended: workers ignore its SIGTERM.
        ending = (self._connection, self._process, CLOSE_TIMEOUT if repeats else REAL_TIMEOUT)
        self._finalize = Finalize(self, _end, ending, exitpriority=0)

    def send(self, order: bytes) -> None:
        """Give an order; a worker that is gone is noticed by `answer`."""
        self._ordered = time.monotonic()
        try:
            self._connection.send_bytes(order)
        except (BrokenPipeError, ConnectionResetError):
            return

    def hurry(self) -> None:
        """From now on wait no longer than `HURRIED_TIMEOUT` for answers, or `REAL_TIMEOUT`."""
        self._hurried = time.monotonic()

    def answer(self, timeout: float) -> str | None:
        """Wait until `timeout` seconds after the last order; None if it was carried out, else what happened.

        It waits for a tick at least, past the deadline too. Time in which all were stopped is added to the
        deadline. A hurry brings it forward: to the timeout that `hurry` names, after the hurry or the order,
        whichever came later.
        """
        now = time.monotonic()
        late = max(self._ordered + timeout, now + TICK_SECONDS)
        told = False
        while not self._connection.poll(min(TICK_SECONDS, max(0.0, late - now))):
            before, now = now, time.monotonic()
            # Where a tick took far longer, all of us were stopped, by Ctrl-Z or a frozen container.
            if (stopped := now - before - TICK_SECONDS) > TICK_SECONDS:
                self._ordered += stopped
                late += stopped
            late = min(late, max(self._ordered, self._hurried) + self._hurried_timeout)
            if now >= late:
                return f"did not answer within {late - self._ordered:.3g} s"
            if not told and (waited := now - self._ordered) >= QUIET_SECONDS:
                told = True
                limit = f"{late - self._ordered:.0f} s" if math.isfinite(late) else "as long as it likes"
                _log.warning(
                    "still waiting for %s, for %.0f s now; it may take %s", self._process.name, waited, limit
                )
        try:
            answer = self._connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            if code is not None and code < 0:
                return f"died of {signal.Signals(-code).name} ({signal.strsignal(-code)})"
            return f"died with exit code {code}"
        return None if answer == READY else answer.decode()

    def dismiss(self) -> None:
        """Let an idle worker close its worlds and end."""
        self._connection.close()

    def end(self) -> None:
        """Wait for the end of a dismissed worker; kill it if it does not come."""
        self._finalize()


def names(share: range) -> str:
    """Return how a message names a share of the worlds."""
    return f"world {share.start}" if len(share) == 1 else f"worlds {share.start} to {share.stop - 1}"


def _end(connection: Connection, process: BaseProcess, timeout: float) -> None:
    """Let a worker close its worlds and end; kill it if it does not within `timeout` seconds."""
    connection.close()
    process.join(timeout)
    process.kill()
    process.join()
    process.close()


class InProcess:
    """The worlds in this process, behind the methods of `Worker`, for which nothing is slow or lost here."""

    def __init__(self, make_world: Callable[[], World], share: Sequence[int], rows: SimpleNamespace) -> None:
        self._worlds = {i: make_world() for i in share}
        self._rows = rows
        self._order: bytes | None = None

    def send(self, order: bytes) -> None:
        """Note an order."""
        self._order = order

    def hurry(self) -> None:
        """Nobody waits here."""

    def answer(self, timeout: float) -> str | None:
        """Carry out the last order, if there was one; what a world raises comes out, but for a mistake."""
        if self._order is not None:
            try:
                advance(self._worlds, self._rows, observed=self._order == OBSERVED)
            except WorldMistake as mistake:
                return f"{MISTAKEN} {mistake}"
        return None

    def dismiss(self) -> None:
        """Close the worlds."""
        for world in self._worlds.values():
            world.close()

    def end(self) -> None:
        """Nothing is left to end."""
