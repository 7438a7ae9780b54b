"""The base of everything that can end a run for a reason that a user should read in one line."""


class RunError(Exception):
    """A run cannot go on; the message says why and what to do."""
