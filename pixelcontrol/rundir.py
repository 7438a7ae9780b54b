"""The directory of a run: it belongs to one process at a time, and its notes are written whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelcontrol.errors import RunError

PATIENCE_SECONDS = 2.0
"""How long a run waits for its lock: one killed while it started a child leaves it to that for a moment."""


class RunBusy(RunError):
    """Another process trains in this directory: names it."""


class RunLock:
    """Held by the process that trains in a directory, for as long as it lives.

    The lock is the kernel's: it ends with its process, however that ends, so there is never a stale one to
    remove. The file's text only tells others who holds it.
    """

    def __init__(self, run_dir: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Take the lock, waiting for it at most `patience_seconds`.

        Raises:
            RunBusy: another process holds it.
            OSError: the directory is gone or read-only.
        """
        self._file = (run_dir / "lock").open("a+", encoding="utf-8")
        if not self._locked_within(patience_seconds):
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise RunBusy(
                f"{run_dir} is in use by {holder}; wait for it, end it, or choose another directory"
            )
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def _locked_within(self, seconds: float) -> bool:
        give_up = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > give_up:
                    return False
                time.sleep(0.05)

    def release(self) -> None:
        """Release the directory."""
        self._file.close()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that a kill or a power failure leaves as it was, or as it is to be."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        ValueError: it is no such file; names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON ({error}); copy the file back, or begin anew elsewhere"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object; copy the file back, or begin anew elsewhere")
    return content


def sync_directory(directory: Path) -> None:
    """Wait until the names of the files in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
