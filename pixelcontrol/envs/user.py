"""What is a user's own, by its name, which is "module:name"; without torch, since workers call it."""

from __future__ import annotations

import importlib
import inspect
import math
import reprlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from pixelcontrol.errors import WorldMistake


def find_own(what: str, name: str, example: str) -> Any:
    """Import what `name`, "module:attribute", stands for, or return None where the module has no such attribute.

    Args:
        what: "task" or "agent", for errors.
        name: as the user wrote it.
        example: of such a name.

    Raises:
        ValueError: there is no such module.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or module_name.endswith(".py"):
        stem = PurePath(module_name).stem
        example = f"{stem}:{attribute}" if stem.isidentifier() else example
        raise ValueError(
            f"{what} {name!r}: {module_name!r} is no module's name; write {example}, and run where "
            f"{example.partition(':')[0]}.py lies, or put that folder on PYTHONPATH"
        )
    try:
        with warnings.catch_warnings():
            # dm_control asks for a window while it loads, though nothing may ever be drawn in one
            warnings.filterwarnings("ignore", message=".*DISPLAY environment variable is missing")
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        own = f"{module_name}.".startswith(f"{error.name}.")
        remedy = "is it on PYTHONPATH?" if own else f"{module_name} imports it, so install it here"
        raise ValueError(f"{what} {name!r}: {error}; {remedy}") from error
    return getattr(module, attribute, None)


def build_world(name: str, image_size: tuple[int, int], action_repeat: int, renderer: str) -> Any:
    """Call the function `name`, which is "module:function", as a factory of worlds.

    It is given `renderer`, too, if it has an argument of that name.

    Raises:
        ValueError: there is no such function, or it takes other arguments.
    """
    factory = find_own("task", name, "my_robot:make_world")
    module_name, _, function = name.partition(":")
    if not callable(factory):
        raise ValueError(f"task {name!r}: module {module_name!r} has no function {function!r}")
    arguments: dict[str, Any] = {"image_size": image_size, "action_repeat": action_repeat}
    signature = inspect.signature(factory)
    if "renderer" in signature.parameters:
        arguments["renderer"] = renderer
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"task {name!r}: {function} is called with image_size and action_repeat, but {error}"
        ) from error
    return factory(**arguments)


def sizes_of(
    shapes: Mapping[str, tuple[int, ...]],
    proprio: str | Sequence[str],
    privileged: bool | str | Sequence[str],
) -> tuple[dict[str, int], dict[str, int]]:
    """Say which arrays of an observation are proprioception and which are privileged.

    Args:
        shapes: of all its arrays, by name.
        proprio: names, or one, of those that are proprioception.
        privileged: names, or one, of those that are privileged; True for all that are no pictures, of fewer than
            three dimensions.

    Returns:
        how many numbers each array has that is proprioception, and each that is privileged, in their order.

    Raises:
        ValueError: there is no such array.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    known = f"the arrays of the observations are {dict(shapes)}"
    chosen = {"proprio": proprio, "privileged": () if isinstance(privileged, bool) else privileged}
    found = []
    for which, given in chosen.items():
        names = (given,) if isinstance(given, str) else given
        for name in names:
            if name not in shapes:
                raise ValueError(f"{which} has {name!r}, but {known}")
        found.append({name: sizes[name] for name in names})
    if privileged is True:
        found[1] = {name: sizes[name] for name, shape in shapes.items() if len(shape) < 3}
        if not found[1]:
            raise ValueError(
                f"privileged is True, which takes an array of fewer than three dimensions, but {known}"
            )
    return found[0], found[1]


def in_brief(value: Any) -> str:
    """Say in one line what somebody gave."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return " ".join(reprlib.repr(value).split())


def number(what: str, value: Any) -> float:
    """Return a number that a world gave, perhaps as an array of one.

    Raises:
        WorldMistake: it is none.
    """
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise WorldMistake(f"{what} is {in_brief(value)}, but must be one number")
    return float(array.item())


def part_of(observation: Any, name: str) -> Any:
    """Return a part of a world's observation.

    Raises:
        WorldMistake: there is none of this name.
    """
    if not isinstance(observation, Mapping):
        raise WorldMistake(
            f"the observation is {in_brief(observation)}, but must be a dictionary that has {name!r}"
        )
    if name not in observation:
        raise WorldMistake(
            f"the observation has no {name!r}, only {', '.join(map(repr, observation))}, but must have all that "
            "its space or spec names, at reset and at every step"
        )
    return observation[name]


def write_numbers(observation: Any, sizes: Mapping[str, int], out: np.ndarray) -> None:
    """Write the numbers of an observation's parts one after another.

    Args:
        observation: of the present moment.
        sizes: how many numbers each part has, in their order.
        out: float32 (sum of the sizes,).

    Raises:
        WorldMistake: a part is not there, or has another number of them.
    """
    start = 0
    for name, size in sizes.items():
        part = np.asarray(part_of(observation, name))
        if part.size != size or part.dtype.kind not in "biuf":
            given = in_brief(part) if part.dtype.kind in "biuf" else in_brief(observation[name])
            raise WorldMistake(
                f"observation {name!r} is {given}, but must be {size} numbers, as its space or spec says"
            )
        out[start : start + size] = part.ravel()
        start += size


def in_words(
    pictures: Sequence[str], planes: str, proprio: Mapping[str, int], low: np.ndarray, high: np.ndarray
) -> str:
    """Say what a world's images, proprioception and actions are.

    Args:
        pictures: what its images show, one behind another along the channels.
        planes: that each of them has.
        proprio: how many numbers each of its parts has, in their order.
        low, high: what actions of -1 and 1 stand for, (action_dim,).
    """
    parts = ", ".join(f"{name} ({size})" for name, size in proprio.items())
    told = f"; proprio is {parts}, in this order" if parts else ""
    bounds = [
        f"{bound[0]:g}" if (bound == bound[0]).all() else ",".join(f"{number:g}" for number in bound)
        for bound in (low, high)
    ]
    return (
        f"the planes of an image are {planes} of {', then of '.join(pictures)}{told}; actions are in [-1, 1], for "
        f"controls from {bounds[0]} to {bounds[1]}"
    )
