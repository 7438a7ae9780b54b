"""How words on the command line become values, and mistakes in them one line."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable
from dataclasses import Field
from typing import Any, NoReturn

from pixelcontrol.settings import flag, spell


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that answers mistakes in one line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)

    def parse_strictly(self, arguments: list[str]) -> argparse.Namespace:
        """Parse all of `arguments`; an unknown flag is answered with its nearest match."""
        parsed, rest = self.parse_known_args(arguments)
        if rest:
            flags = [option[2:] for action in self._actions for option in action.option_strings]
            given = rest[0].partition("=")[0]
            near = difflib.get_close_matches(given.lstrip("-"), flags, n=1, cutoff=0.5)
            hint = f"; did you mean --{near[0]}?" if near and given.startswith("-") else ""
            self.error(f"unknown argument {rest[0]!r}{hint} (see --help)")
        return parsed


def whole_number(text: str) -> int:
    """Read a whole number as people type it: 1000000, 1_000_000 or 1e6."""
    try:
        value = float(text.replace("_", ""))
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")


def at_least(low: int) -> Callable[[str], int]:
    """Return a reader of whole numbers that are not below `low`."""

    def read(text: str) -> int:
        if (value := whole_number(text)) < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, got {text!r}")
        return value

    return read


def truth(text: str) -> bool:
    """Read yes or no."""
    if text.lower() in ("yes", "true", "1", "no", "false", "0"):
        return text.lower() in ("yes", "true", "1")
    raise argparse.ArgumentTypeError(f"expected yes or no, got {text!r}")


def numbers(text: str) -> tuple[int, ...]:
    """Read whole numbers between commas."""
    return tuple(whole_number(part) for part in text.split(","))


def words(text: str) -> tuple[str, ...]:
    """Read words between commas; none of ""."""
    parts = tuple(text.split(",")) if text else ()
    if "" in parts:
        raise argparse.ArgumentTypeError(f"expected words between commas, got {text!r}")
    return parts


# How a setting's type is read, and what stands for a value in the help.
_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "int": (whole_number, "N"),
    "float": (float, "X"),
    "str": (str, "WORD"),
    "bool": (truth, "yes|no"),
    "tuple[int, ...]": (numbers, "N,N,..."),
    "tuple[str, ...]": (words, "WORD,WORD,..."),
}


def add_setting(group: Any, item: Field[Any]) -> None:
    """Make a flag of a setting, which is absent from what is parsed where it was not given.

    Args:
        group: a parser, or a group of one.
        item: the setting, as `settings.setting` declares it.

    Raises:
        ValueError: no command line can give a value of its type.
    """
    default = "the task's" if item.name in ("frames", "camera") else spell(item.default) or "none"
    purpose = f"{item.metadata['help']} (default: {default}; {item.metadata['source']})".replace("%", "%%")
    choices = item.metadata.get("choices") or None
    # a name already, where annotations are not evaluated
    kind = item.type.__name__ if isinstance(item.type, type) else str(item.type)
    if not choices and kind not in _READERS:
        raise ValueError(
            f"setting {item.name!r} of an agent is declared as {kind}, and must be one of {', '.join(_READERS)}, "
            "or have choices"
        )
    reader, value = (str, "|".join(choices)) if choices else _READERS[kind]
    group.add_argument(
        flag(item.name),
        type=reader,
        default=argparse.SUPPRESS,
        metavar=value,
        help=purpose,
    )
