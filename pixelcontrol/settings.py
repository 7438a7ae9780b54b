"""How a number that a user may choose is declared: its default, what it does, and where it comes from."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, help: str, source: str) -> Any:
    """Declare a field of a settings dataclass.

    Args:
        default: the value used when nobody chooses another.
        help: what it does, with its unit; shown by `--help`.
        source: where the default comes from (paper table, official code, or our own reason).
    """
    return field(default=default, metadata={"help": help, "source": source})
