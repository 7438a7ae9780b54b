"""How a setting, which a user may choose, is declared and checked.

Every setting is a field of a frozen dataclass, so its name, type, default, bounds, meaning and source stand in
one place; the command line, its `--help` and `config.json` are all made from there.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import field
from types import UnionType
from typing import Any


def setting(
    default: Any,
    help: str,
    source: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """Declare a field of a settings dataclass.

    Args:
        default: the value used when nobody chooses another.
        help: what it does, with its unit; shown by `--help`.
        source: where the default comes from (paper table, official code, or our own reason).
        low: smallest allowed value, for numbers and for each number of a tuple.
        high: largest allowed value.
        choices: the allowed words, for strings.
    """
    metadata = {"help": help, "source": source, "low": low, "high": high, "choices": tuple(choices)}
    return field(default=default, metadata=metadata)


def flag(name: str) -> str:
    """Return the command-line spelling of a field: `batch_size` is typed `--batch-size`."""
    return "--" + name.replace("_", "-")


def spell(value: Any) -> str:
    """Return the command-line spelling of a value: `True` is typed `yes`, `(2, 1)` is typed `2,1`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check(settings: Any) -> None:
    """Check every field of a settings dataclass against its declared bounds.

    Raises:
        ValueError: names the first bad value, what is allowed, and the flag that sets it.
    """
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        low, high = item.metadata.get("low"), item.metadata.get("high")
        choices = item.metadata.get("choices", ())
        if isinstance(item.default, tuple) and not isinstance(value, tuple):
            raise ValueError(
                f"{item.name} is {value!r}, but must be a tuple, such as {item.default or (value,)}"
            )
        parts = value if isinstance(value, tuple) else (value,)
        for part in parts:
            _check_type(item, part)
        if choices and value not in choices:
            raise ValueError(unknown(flag(item.name), value, choices))
        for number in parts:
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{flag(item.name)} is {number}, but must be finite")
            if (low is not None and not number >= low) or (high is not None and not number <= high):
                bounds = " and ".join(
                    f"{word} {bound:g}"
                    for word, bound in (("at least", low), ("at most", high))
                    if bound is not None
                )
                raise ValueError(f"{flag(item.name)} is {spell(value)}, but must be {bounds}")


_TYPES: dict[type, tuple[type | UnionType, str]] = {
    bool: (bool, "True or False"),
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    str: (str, "a string"),
}


def _check_type(item: dataclasses.Field[Any], value: Any) -> None:
    """Refuse what the command line would not have made, such as 2.5 for a count.

    Raises:
        ValueError: names the value and what it must be.
    """
    usual = item.default
    if isinstance(usual, tuple):
        usual = usual[0] if usual else ""
    if type(usual) not in _TYPES:  # an own agent's
        return
    allowed, words = _TYPES[type(usual)]
    if not isinstance(value, allowed) or isinstance(value, bool) != isinstance(usual, bool):
        raise ValueError(f"{item.name} is {value!r}, but must be {words}")


def unknown(what: str, value: object, allowed: Iterable[str]) -> str:
    """Word the error for a name that does not exist: the name, the nearest match, and what is allowed."""
    allowed = list(allowed)
    near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{what} {value!r} is unknown{hint} Allowed: {', '.join(allowed)}"
