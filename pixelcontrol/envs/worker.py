"""What runs in a worker process: some of the worlds, stepped on command, read and written in shared memory.

Unusual: this module and what it imports know no torch, so that a worker starts fast and stays small. A worker
decides nothing: which world steps, and which begins an episode with what seed, is written by its parent.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pixelcontrol.envs.user import in_brief
from pixelcontrol.errors import STOP_SIGNALS, WorldMistake

if TYPE_CHECKING:
    from pixelcontrol.types import DisclosingWorld, JudgingWorld, SensingWorld, World, WorldSpec

HOLD, BEGIN, STEP = 0, 1, 2
"""Commands to one world: do nothing; start an episode; take an agent step."""

OBSERVED, UNOBSERVED = b"o", b"u"
"""Orders to one worker: carry the commands out, with or without writing the payloads."""

READY = b"r"
"""A worker's answer, once its worlds stand and after every order."""

RAISED, MISTAKEN = "raised", "is not as it must be:"
"""How a fault begins, in words, that is an exception of a world's own, or a `WorldMistake`, which is final."""

# What the worker's end of the pipe raises once the parent's is closed. A world may raise these too, and means
# another connection, so that nothing of a world's may stand where they are caught.
_CLOSED = (EOFError, BrokenPipeError, ConnectionResetError)


def row_type(spec: WorldSpec) -> np.dtype[np.void]:
    """One world's row, in memory that parent and workers share; what worlds of `spec` do not give has no room."""
    return np.dtype(
        [
            ("command", np.uint8),  # one of HOLD, BEGIN, STEP
            ("seed", np.uint32),  # of the episode that BEGIN starts
            ("action", np.float32, (spec.action_dim,)),
            ("payload", spec.payload_dtype, spec.payload_shape),  # what `World.observe` writes
            ("proprio", np.float32, (spec.proprio_dim,)),  # what `SensingWorld.sense` writes
            ("privileged", np.float32, (spec.privileged_dim,)),  # what `DisclosingWorld.disclose` writes
            ("reward", np.float32),
            ("discount", np.float32),
            ("last", np.bool_),
            ("success", np.bool_, (int(spec.tells_success),)),  # of a `JudgingWorld`
            ("busy", np.bool_),  # while it is being stepped: names the world in which a worker died or hung
        ],
        align=True,
    )


def columns(block: Any, row: np.dtype[np.void]) -> SimpleNamespace:
    """See a block of memory as rows of N worlds, by columns: `rows.action` is float32 (N, action_dim)."""
    rows = np.frombuffer(block, row)
    return SimpleNamespace(**{name: rows[name] for name in row.names or ()})


def advance(worlds: Mapping[int, World], rows: SimpleNamespace, observed: bool) -> None:
    """Carry out the command of each of `worlds` (world index -> world) in its row.

    Raises:
        WorldMistake: one returned from its step what it must not.
    """
    for i, world in worlds.items():
        if rows.command[i] == HOLD:
            continue
        rows.busy[i] = True
        if rows.command[i] == BEGIN:
            world.reset(int(rows.seed[i]))
            rows.reward[i], rows.discount[i], rows.last[i] = 0.0, 1.0, False
        else:
            returned = world.step(rows.action[i].copy())
            try:
                rows.reward[i], rows.discount[i], rows.last[i] = returned
            except (TypeError, ValueError) as error:
                raise WorldMistake(
                    f"`step` returned {in_brief(returned)}, but must return a reward, a discount and a truth value"
                ) from error
        if observed:
            world.observe(rows.payload[i])
            if rows.proprio.shape[1]:
                cast("SensingWorld", world).sense(rows.proprio[i])
            if rows.privileged.shape[1]:
                cast("DisclosingWorld", world).disclose(rows.privileged[i])
            if rows.success.shape[1]:
                rows.success[i] = cast("JudgingWorld", world).success
        rows.busy[i] = False


def serve(
    connection: Connection,
    make_world: Callable[[], World],
    indices: range,
    block: Any,
    row: np.dtype[np.void],
) -> None:
    """Build the worlds of `indices`, then obey orders until the parent closes its end or is gone.

    What a world raises is answered as text, with its traceback unless it is a `WorldMistake`, and ends the worker.
    """
    # Terminals and schedulers signal the whole group; the parent decides, and its end is ours.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    rows = columns(block, row)
    worlds: dict[int, World] = {}
    try:
        for i in indices:
            worlds[i] = make_world()
        while (order := _next_order(connection)) is not None:
            advance(worlds, rows, observed=order == OBSERVED)
    except Exception as error:  # noqa: BLE001  Whatever it is, the parent reports it.
        fault = f"{MISTAKEN} {error}"
        if not isinstance(error, WorldMistake):
            first_line = str(error).partition("\n")[0]
            fault = f"{RAISED} {type(error).__name__}: {first_line}\n{traceback.format_exc().rstrip()}"
        with suppress(*_CLOSED):
            connection.send_bytes(fault.encode())
    finally:
        for world in worlds.values():
            world.close()


def _next_order(connection: Connection) -> bytes | None:
    """Answer that all so far is done, and wait for an order; None where the parent has closed its end."""
    try:
        connection.send_bytes(READY)
        return connection.recv_bytes()
    except _CLOSED:
        return None


def _die_with_parent() -> None:
    """A world may hang or compute for long; a parent that was killed must not leave it behind."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
