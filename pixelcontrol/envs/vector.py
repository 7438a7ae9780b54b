"""N worlds stepped together: physics in worker processes, images drawn here for all worlds at once.

Parent and workers share the rows in anonymous memory (nothing in /dev/shm to leave behind) and exchange two
bytes per worker and step, an order and an answer. Every episode has its own seed, made from the run's seed, the
stream, the world and the episode alone, so that neither the number of worlds nor of workers changes what a world
lives through.

Unusual: a mid-episode state is the actions so far. Worlds repeat an episode exactly, so no simulator need be able
to save itself; but to continue a very long episode takes as long as to simulate it.

A worker that dies, hangs or raises is replaced, and its worlds begin new episodes; but what would happen again
ends the run: a `WorldMistake`, what is raised before there was one agent step, and a fault after a few others. The
loop sees a replacement as a row that is `first` though the row before was not `last`: the episode before is cut
off, which is neither a true end nor a time limit, and no transition may lead across.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Float32

from pixelcontrol.envs.hosts import SPAWN, InProcess, Worker, names
from pixelcontrol.envs.worker import (
    BEGIN,
    HOLD,
    MISTAKEN,
    OBSERVED,
    RAISED,
    STEP,
    UNOBSERVED,
    columns,
    row_type,
)
from pixelcontrol.errors import RunError
from pixelcontrol.types import Renderer, TimeStep, World, WorldSpec

_log = logging.getLogger(__name__)

START_TIMEOUT = 300.0
"""Seconds in which a worker must have built its worlds; many start at once on few cores."""

STEP_TIMEOUT = 60.0
"""Seconds after which a worker that owes an agent step counts as hung, unless its worlds do not repeat."""

MAX_FAULTS, FAULT_STEPS = 3, 1_000
"""Faults of one worker, within so many agent steps of each world, that are mended; the next one ends the run."""


class WorkerError(RunError):
    """Worlds cannot be built, fail again and again or give NaN; the message names them and says how."""


class _Received(NamedTuple):
    """What `VectorEnv.state_dict` needs of the rows last received, as the next step changes them; one per world.

    Attributes:
        episode: number of the running episode.
        actions: of that episode; the environment's own lists, which go on growing.
        agent_steps: how many of these actions were taken.
        payload: checksum of what is seen and sensed.
        reward: of the row.
        last: whether the episode is over.
    """

    episode: list[int]
    actions: list[list[np.ndarray]]
    agent_steps: list[int]
    payload: list[int]
    reward: list[float]
    last: list[bool]


class VectorEnv:
    """N worlds, stepped together: `send` starts their physics and returns at once, `receive` waits for it.

    Attributes:
        spec: of every one of the worlds.
        num_worlds: N.
        image_shape: (channels, height, width).
        renderer: what draws the images.
        faults: workers replaced so far.
    """

    def __init__(
        self,
        make_world: Callable[[], World],
        spec: WorldSpec,
        renderer: Renderer,
        *,
        num_worlds: int,
        num_workers: int,
        seed: int,
        stream: int = 0,
    ) -> None:
        """Build the worlds and start their workers.

        Args:
            make_world: builds one world; picklable if there are workers.
            spec: what `make_world().spec` is.
            renderer: draws the payloads.
            num_worlds: N.
            num_workers: processes that share the worlds evenly; 0 steps them in this process, where what a
                world raises is not mended but comes out as it is, unless it is a `WorldMistake`.
            seed: of the run, >= 0.
            stream: different streams of one seed give different episodes: training and evaluation.

        Raises:
            ValueError: there is no world, or a number is negative.
            WorkerError: a worker could not build its worlds.
        """
        if num_worlds < 1 or num_workers < 0 or seed < 0 or stream < 0:
            raise ValueError(
                f"need num_worlds >= 1, num_workers >= 0, seed >= 0 and stream >= 0, "
                f"got {num_worlds}, {num_workers}, {seed} and {stream}"
            )
        self.spec = spec
        self.num_worlds = num_worlds
        self.image_shape = renderer.image_shape
        self.renderer = renderer
        self.faults = 0
        # a person may have to put a real robot back on its feet
        self._patience = STEP_TIMEOUT if spec.repeats else math.inf
        self._hurried = False
        self._stepped = False
        self._seed = seed
        self._stream = stream
        self._make_world = make_world
        self._row = row_type(spec)
        self._block = SPAWN.RawArray("b", num_worlds * self._row.itemsize)
        self._rows = columns(self._block, self._row)
        self._episode = [-1] * num_worlds
        self._actions: list[list[np.ndarray]] = [[] for _ in range(num_worlds)]
        self._commit()

        num_workers = min(num_workers, num_worlds)
        bounds = np.linspace(0, num_worlds, num_workers + 1, dtype=int) if num_workers else [0, num_worlds]
        self._shares = [range(a, b) for a, b in itertools.pairwise(bounds)]
        self._hosts: list[Worker | InProcess] = []
        self._steps = 0
        self._faulty_steps: list[deque[int]] = [deque(maxlen=MAX_FAULTS) for _ in self._shares]
        self._last_fault = ""
        try:
            self._hosts += [self._host(share, in_process=num_workers == 0) for share in self._shares]
            for host, share in zip(self._hosts, self._shares, strict=True):
                if (fault := host.answer(START_TIMEOUT)) is not None:
                    if fault == "died with exit code 1":
                        fault += "; workers import the script: it needs `if __name__ == '__main__':`"
                    raise WorkerError(f"{names(share)} could not be built: {fault}")
        except BaseException:
            self.close()
            raise

    def reset(self) -> TimeStep:
        """Start a new episode in every world; every row is `first`."""
        self._refuse_if_awaited("reset")
        for i in range(self.num_worlds):
            self._begin(i)
        self._order()
        return self.receive()

    def send(self, action: Float32[np.ndarray, "worlds action"]) -> None:
        """Start one agent step. A world whose last row was `last` ignores its action and resets instead.

        Raises:
            ValueError: wrong shape, or a value that is not a number in [-1, 1].
        """
        self._refuse_if_awaited("send")
        if min(self._episode) < 0:
            raise RuntimeError("call reset() or load_state_dict() before the first send()")
        if action.shape != self._rows.action.shape:
            raise ValueError(f"action must have shape {self._rows.action.shape}, got {action.shape}")
        bad = ~(np.abs(action) <= 1.0).all(axis=1)  # In this form NaN is bad, too.
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            raise ValueError(f"action must be within [-1, 1], got {action[i]} for {self._where(i)}")
        self._steps += 1
        action = action.copy()  # The caller may write into it again; what is kept are views of the copy.
        self._rows.action[:] = action
        self._rows.command[:] = STEP
        for i in range(self.num_worlds):
            if self._rows.last[i]:
                self._begin(i)
            else:
                self._actions[i].append(action[i])
        self._order()

    def receive(self) -> TimeStep:
        """Wait for the step begun by `send` and draw its images.

        Raises:
            WorkerError: a worker failed again and again, or a world is mistaken, or gave a reward, discount,
                payload, proprioception or privileged number that is not finite, or a discount that is none.
        """
        if not self._awaited:
            raise RuntimeError("call send() before receive()")
        for k, host in enumerate(self._hosts):
            if (fault := host.answer(self._patience)) is not None:
                self._mend(k, fault)
        rows = self._rows
        for name in ("reward", "discount", "payload", "proprio", "privileged"):
            self._refuse_non_finite(name, getattr(rows, name))
        if (strange := (rows.discount < 0.0) | (rows.discount > 1.0)).any():
            i = int(np.argmax(strange))
            raise WorkerError(
                f"discount of {self._where(i)} is {rows.discount[i]}, but must lie from 0, at a true end, to 1; "
                "mend the world"
            )
        self._commit()
        first = rows.command == BEGIN
        self._stepped |= not first.all()
        return TimeStep(
            image=self.renderer.images(rows.payload),
            action=np.where(first[:, None], np.float32(0.0), rows.action),
            reward=rows.reward.copy(),
            discount=rows.discount.copy(),
            first=first,
            last=rows.last.copy(),
            proprio=rows.proprio.copy(),
            privileged=rows.privileged.copy(),
            success=rows.success[:, 0].copy() if self.spec.tells_success else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to continue from the row last received: the running episodes' actions.

        It may be called at any moment, also when `receive` has failed: a step under way is not part of it.
        """
        rows = self._received
        actions = [
            np.array(of_world[:count], np.float32)
            for of_world, count in zip(rows.actions, rows.agent_steps, strict=True)
        ]
        return {
            "seed": self._seed,
            "stream": self._stream,
            "episode": rows.episode,
            "actions": [torch.from_numpy(of_world.reshape(-1, self.spec.action_dim)) for of_world in actions],
            "payload": rows.payload,
            "reward": rows.reward,
            "last": rows.last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state` was taken, by repeating the running episodes; follow with `send`.

        A world that does not repeat itself, or says that it cannot, begins another episode instead.

        Raises:
            ValueError: the state is of another seed, stream or number of worlds.
            WorkerError: a worker failed meanwhile.
        """
        self._refuse_if_awaited("load_state_dict")
        found = (state["seed"], state["stream"], len(state["episode"]))
        if found != (self._seed, self._stream, self.num_worlds):
            raise ValueError(
                f"the state's (seed, stream, worlds) are {found}, "
                f"this environment's are {(self._seed, self._stream, self.num_worlds)}"
            )
        self._episode = list(state["episode"])
        # An episode that is over need not be repeated: the next send() begins another.
        running = [i for i in range(self.num_worlds) if self._episode[i] >= 0 and not state["last"][i]]
        repeated = running if self.spec.repeats else []
        self._actions = [list(of_world.numpy()) for of_world in state["actions"]]
        self._stepped |= any(self._actions) or max(self._episode) > 0
        self._repeat(repeated)
        now = list(
            zip(self._rows.last.tolist(), self._rows.reward.tolist(), self._payload_sums(), strict=True)
        )
        self._rows.reward[:] = state["reward"]
        self._rows.last[:] = state["last"]
        for i in running:
            before = (False, state["reward"][i], state["payload"][i])
            if i in repeated and now[i] == before:
                continue
            if i in repeated:
                _log.warning(
                    "%s does not repeat itself, so another begins and the run is not the undisturbed one: the "
                    "last end, reward and checksum of what is seen were %s, now they are %s. Either the versions "
                    "are others, or not all of its randomness comes from its seed%s",
                    self._where(i), before, now[i],
                    ", or its camera stands elsewhere in each process" if now[i][:2] == before[:2] else "",
                )  # fmt: skip
            self._rows.last[i] = True
        self._commit()

    def _repeat(self, worlds: list[int]) -> None:
        """Begin the running episodes of `worlds` again and take their actions so far, so that all end together."""
        longest = max((len(self._actions[i]) for i in worlds), default=-1)
        for step in range(-1, longest):
            self._rows.command[:] = HOLD
            for i in worlds:
                t = step - longest + len(self._actions[i])
                if t == -1:
                    self._rows.command[i] = BEGIN
                    self._rows.seed[i] = self._episode_seed(i)
                elif t >= 0 and not self._rows.last[i]:
                    self._rows.command[i] = STEP
                    self._rows.action[i] = self._actions[i][t]
            self._order(OBSERVED if step == longest - 1 else UNOBSERVED)
            for host in self._hosts:
                if (fault := host.answer(STEP_TIMEOUT)) is not None:
                    raise WorkerError(f"a worker failed while it repeated the running episodes: {fault}")

    def _payload_sums(self) -> list[int]:
        # one world's payload, proprioception and what is privileged; what it does not give changes nothing
        parts = zip(self._rows.payload, self._rows.proprio, self._rows.privileged, strict=True)
        return [
            crc32(privileged.tobytes(), crc32(proprio.tobytes(), crc32(payload.tobytes())))
            for payload, proprio, privileged in parts
        ]

    def hurry(self) -> None:
        """Soon count workers that owe a step as hung, and mend none; a signal handler may call this."""
        self._hurried = True
        for host in self._hosts:
            host.hurry()

    def close(self) -> None:
        """End every worker process."""
        for host in self._hosts:
            host.dismiss()
        for host in self._hosts:
            host.end()
        self._hosts = []

    def _host(self, share: range, in_process: bool) -> Worker | InProcess:
        if in_process:
            return InProcess(self._make_world, share, self._rows)
        return Worker(self._make_world, share, self._block, self._row, repeats=self.spec.repeats)

    def _begin(self, i: int) -> None:
        self._episode[i] += 1
        self._actions[i] = []
        self._rows.command[i] = BEGIN
        self._rows.seed[i] = self._episode_seed(i)

    def _episode_seed(self, i: int) -> int:
        sequence = np.random.SeedSequence(self._seed, spawn_key=(self._stream, i, self._episode[i]))
        return int(sequence.generate_state(1)[0])

    def _order(self, order: bytes = OBSERVED) -> None:
        for host in self._hosts:
            host.send(order)
        self._awaited = True

    def _commit(self) -> None:
        """The rows are complete: note what `state_dict` needs of them, before the next step changes it."""
        self._awaited = False
        self._received = _Received(
            episode=list(self._episode),
            actions=list(self._actions),
            agent_steps=[len(of_world) for of_world in self._actions],
            payload=self._payload_sums(),
            reward=self._rows.reward.tolist(),
            last=self._rows.last.tolist(),
        )

    def _mend(self, k: int, fault: str | None) -> None:
        """Replace worker k until all of its worlds stand at the first row of a new episode."""
        share, faulty_steps = self._shares[k], self._faulty_steps[k]
        while fault is not None:
            busy = [i for i in share if self._rows.busy[i]]
            where = " and ".join(self._where(i) for i in busy) or names(share)
            if self._hurried:
                raise WorkerError(f"worker {k} failed as the run was to stop, at {where}: {fault}")
            if not self._stepped and fault.startswith(RAISED):
                raise WorkerError(
                    f"a mistake of the world, which could not make one agent step: {where} {fault}"
                )
            if fault.startswith(MISTAKEN):
                raise WorkerError(f"{where} {fault}")
            if len(faulty_steps) == MAX_FAULTS and self._steps < faulty_steps[0] + FAULT_STEPS:
                raise WorkerError(
                    f"worker {k} failed {MAX_FAULTS + 1} times within {FAULT_STEPS:,} agent steps of each world, "
                    f"the last time at {where}: {fault}"
                )
            words = fault.partition("\n")[0] if fault == self._last_fault else fault
            _log.warning("worker %d is replaced and its episodes discarded; at %s it %s", k, where, words)
            self._last_fault = fault
            self.faults += 1
            faulty_steps.append(self._steps)
            self._hosts[k].dismiss()
            self._hosts[k].end()
            self._rows.busy[share] = False
            self._hosts[k] = self._host(share, in_process=False)
            if self._hurried:  # the signal came while there was no new worker to tell
                self._hosts[k].hurry()
            for i in share:
                self._begin(i)
            fault = self._hosts[k].answer(START_TIMEOUT)
            if fault is None:
                self._hosts[k].send(OBSERVED)
                fault = self._hosts[k].answer(self._patience)

    def _where(self, i: int) -> str:
        return (
            f"world {i} (episode {self._episode[i]} with seed {self._episode_seed(i)}, "
            f"agent step {len(self._actions[i])})"
        )

    def _refuse_if_awaited(self, method: str) -> None:
        if self._awaited:
            raise RuntimeError(f"call receive() before {method}()")

    def _refuse_non_finite(self, name: str, values: np.ndarray) -> None:
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return
        i = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise WorkerError(f"{name} of {self._where(i)} is not finite: {values[i]}; mend the world")
