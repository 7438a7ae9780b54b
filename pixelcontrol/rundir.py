"""The directory of a run belongs to one process at a time."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from pixelcontrol.errors import RunError


class RunBusy(RunError):
    """Another process trains in this directory: names it."""


class RunLock:
    """Held by the process that trains in a directory, for as long as it lives.

    The lock is the kernel's: it ends with its process, however that ends, so there is never a stale one to
    remove. The file's text only tells others who holds it.
    """

    def __init__(self, run_dir: Path) -> None:
        """Take the lock.

        Raises:
            RunBusy: another process holds it.
            OSError: the directory is gone or read-only.
        """
        self._file = (run_dir / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise RunBusy(
                f"{run_dir} is in use by {holder}; wait for it, end it, or choose another directory"
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def release(self) -> None:
        """Give the directory free."""
        self._file.close()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()
