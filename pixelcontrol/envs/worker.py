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
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pixelcontrol.errors import STOP_SIGNALS

if TYPE_CHECKING:
    from pixelcontrol.types import DisclosingWorld, JudgingWorld, SensingWorld, World, WorldSpec

HOLD, BEGIN, STEP = 0, 1, 2
"""Commands to one world: do nothing; start an episode; take an agent step."""

OBSERVED, UNOBSERVED = b"o", b"u"
"""Orders to one worker: carry the commands out, with or without writing the payloads."""

READY = b"r"
"""A worker's answer, once its worlds stand and after every order."""

# What the worker's end of the pipe raises once the parent's is closed. A world may raise these too, and means
# another connection, so that nothing of a world's may stand where they are caught.
_CLOSED = (EOFError, BrokenPipeError, ConnectionResetError)


@dataclass(frozen=True)
class Rows:
    """One row for each of N worlds, in memory that parent and workers share.

    Attributes:
        command: uint8 (N,), one of HOLD, BEGIN, STEP.
        seed: uint32 (N,), of the episode that BEGIN starts.
        action: float32 (N, action_dim).
        payload: (N, *payload_shape), what `World.observe` writes.
        proprio: float32 (N, proprio_dim), what `SensingWorld.sense` writes.
        privileged: float32 (N, privileged_dim), what `DisclosingWorld.disclose` writes.
        reward: float32 (N,).
        discount: float32 (N,).
        last: bool (N,).
        success: bool (N,), of a `JudgingWorld`; (0,) where the worlds do not tell.
        busy: bool (N,), True while this world is being stepped: names the world in which a worker died or hung.
    """

    command: np.ndarray
    seed: np.ndarray
    action: np.ndarray
    payload: np.ndarray
    proprio: np.ndarray
    privileged: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    last: np.ndarray
    success: np.ndarray
    busy: np.ndarray

    @staticmethod
    def layout(num_worlds: int, spec: WorldSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The dtype and shape of every field, by name."""
        return {
            "command": ("uint8", (num_worlds,)),
            "seed": ("uint32", (num_worlds,)),
            "action": ("float32", (num_worlds, spec.action_dim)),
            "payload": (spec.payload_dtype, (num_worlds, *spec.payload_shape)),
            "proprio": ("float32", (num_worlds, spec.proprio_dim)),
            "privileged": ("float32", (num_worlds, spec.privileged_dim)),
            "reward": ("float32", (num_worlds,)),
            "discount": ("float32", (num_worlds,)),
            "last": ("bool", (num_worlds,)),
            "success": ("bool", (num_worlds if spec.tells_success else 0,)),
            "busy": ("bool", (num_worlds,)),
        }

    @staticmethod
    def of(blocks: Mapping[str, Any], layout: Mapping[str, tuple[str, tuple[int, ...]]]) -> Rows:
        """See one block of memory per field as arrays."""
        return Rows(
            **{
                name: np.frombuffer(blocks[name], dtype=dtype, count=int(np.prod(shape))).reshape(shape)
                for name, (dtype, shape) in layout.items()
            }
        )


def advance(worlds: Mapping[int, World], rows: Rows, observed: bool) -> None:
    """Carry out the command of each of `worlds` (world index -> world) in its row."""
    for i, world in worlds.items():
        if rows.command[i] == HOLD:
            continue
        rows.busy[i] = True
        if rows.command[i] == BEGIN:
            world.reset(int(rows.seed[i]))
            rows.reward[i], rows.discount[i], rows.last[i] = 0.0, 1.0, False
        else:
            rows.reward[i], rows.discount[i], rows.last[i] = world.step(rows.action[i].copy())
        if observed:
            world.observe(rows.payload[i])
            if rows.proprio.shape[1]:
                cast("SensingWorld", world).sense(rows.proprio[i])
            if rows.privileged.shape[1]:
                cast("DisclosingWorld", world).disclose(rows.privileged[i])
            if rows.success.size:
                rows.success[i] = cast("JudgingWorld", world).success
        rows.busy[i] = False


def serve(
    connection: Connection,
    make_world: Callable[[], World],
    indices: range,
    blocks: Mapping[str, Any],
    layout: Mapping[str, tuple[str, tuple[int, ...]]],
) -> None:
    """Build the worlds of `indices`, then obey orders until the parent closes its end or is gone.

    What a world raises is answered with its traceback, as text, and ends the worker.
    """
    # Terminals and schedulers signal the whole group; the parent decides, and its end is ours.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    rows = Rows.of(blocks, layout)
    worlds: dict[int, World] = {}
    try:
        for i in indices:
            worlds[i] = make_world()
        while (order := _next_order(connection)) is not None:
            advance(worlds, rows, observed=order == OBSERVED)
    except Exception:  # noqa: BLE001  Whatever it is, the parent reports it.
        with suppress(*_CLOSED):
            connection.send_bytes(traceback.format_exc().encode())
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
