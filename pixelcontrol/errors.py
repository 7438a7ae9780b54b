"""Everything that can end a run for a reason that a user should read in one line."""

import signal

SWEEP_STOPS = signal.SIGUSR2
"""What a sweep asks its runs with to save and end.

It is one that nobody else sends: a scheduler may signal all processes of a job, and a run that gets the same
signal twice ends at once.
"""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, SWEEP_STOPS)
"""What asks a run to save and end: Ctrl-C, a scheduler or `kill`, a closed terminal, SLURM's --signal=USR1@60,
a sweep."""


def heeded_signals() -> list[signal.Signals]:
    """Return those of `STOP_SIGNALS` that this process does not ignore, as one under nohup does SIGHUP."""
    return [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


class RunError(Exception):
    """A run cannot go on; the message says why and what to do."""


class WorldMistake(ValueError):
    """A world gave what it must not, and so would again; says what it gave, what it must be, and what to do."""


class Interrupted(Exception):
    """Work was asked to stop by a signal.

    Attributes:
        exit_status: what a shell expects of a process that this signal ended.
    """

    def __init__(self, number: int, remedy: str) -> None:
        """Name the signal, and say how to go on."""
        super().__init__(f"stopped by {signal.Signals(number).name}; {remedy}")
        self.exit_status = 128 + number
