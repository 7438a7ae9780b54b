"""The training loop: the only place that knows when to act, learn, evaluate, save and log.

With one world this is the paper's loop, in the official code's order: act, update, step. With N worlds each round
is N agent steps, and as many updates as those are worth. While the learner updates, the worlds' physics runs.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelcontrol import advice, machine, storage
from pixelcontrol.best import BestPolicy
from pixelcontrol.build import (
    EVAL_STREAM,
    TRAIN_STREAM,
    Hardware,
    Shapes,
    build_agent,
    build_env,
    build_replay,
    learned,
    reach,
    refuse_what_cannot_run,
    restore,
    start_from,
)
from pixelcontrol.checkpoint import CheckpointError, CheckpointNotSaved, Checkpoints
from pixelcontrol.config import (
    Config,
    reserve_bytes,
    transitions_kept,
)
from pixelcontrol.demonstrations import read_demonstrations
from pixelcontrol.envs.vector import VectorEnv
from pixelcontrol.errors import Interrupted, RunError
from pixelcontrol.evaluate import evaluate
from pixelcontrol.journal import Journal
from pixelcontrol.learner import Learner
from pixelcontrol.logger import Progress, clock
from pixelcontrol.replay import ring_rows
from pixelcontrol.types import Replay, TimeStep

# How often losses go to TensorBoard and the live line, beside the rows of finished episodes.
METRICS_EVERY_FRAMES = 1_000
# Beside --save-every-frames, for machines that take hours for so many.
SAVE_EVERY_SECONDS = 1_800.0
# Where worlds do not repeat: the time of a real robot, and of who stands beside it, is dear.
SAVE_ROBOT_EVERY_SECONDS = 180.0


class NotFinite(RunError):
    """A loss or an action became NaN or infinite; the evidence is saved, the last checkpoint untouched."""


@dataclass
class Counters:
    """Where a run stands; all of it is in every checkpoint.

    Attributes:
        agent_step: agent steps so far, over all worlds.
        update: updates so far.
        episode: finished episodes.
        seconds: of training so far, over all starts.
        next_eval: frame from which on an evaluation is due.
        evaluated_at: frame of the last evaluation, -1 before the first.
        next_save: frame from which on a checkpoint is due.
        learn_from: agent step from which on updates are due, also in mid-round of many worlds.
        catch_up_updates: updates still to be made at once when `learn_from` is reached.
        learned_to: agent step up to which the updates that are due were made; ahead of `agent_step` where worlds
            failed in the round since.
        returns: of each world's running episode so far.
        episode_frames: frames of each world's running episode; its last agent step counts whole.
    """

    agent_step: int = 0
    update: int = 0
    episode: int = 0
    seconds: float = 0.0
    next_eval: int = 0
    evaluated_at: int = -1
    next_save: int = 0
    learn_from: int = 0
    catch_up_updates: int = 0
    learned_to: int = 0
    returns: list[float] = field(default_factory=list)
    episode_frames: list[int] = field(default_factory=list)


class TrainingRun:
    """One training run in one directory, from its first frame or from its last checkpoint."""

    def __init__(self, config: Config, run_dir: Path, hardware: Hardware, *, resume: bool) -> None:
        """Build all parts, and say what was chosen.

        Raises:
            ValueError: the task cannot be built, or the agent not for it.
            CheckpointError: there is no checkpoint to go on from, or to start from.
        """
        self.config, self.run_dir, self.hardware = config, run_dir, hardware
        loop = config.loop
        self.progress = Progress(loop.frames, loop.seed_frames)
        self.env = build_env(config, hardware, hardware.envs, TRAIN_STREAM)
        spec = self.env.spec
        refuse_what_cannot_run(config, spec, hardware.envs)
        self.eval_env = (
            build_env(config, hardware, loop.eval_episodes, EVAL_STREAM) if loop.eval_episodes else None
        )
        self.shapes = Shapes.of(self.env)
        self.agent = build_agent(config, self.shapes, hardware.device)
        self.checkpoints = Checkpoints(run_dir)
        goes_on = resume and self.checkpoints.exist()
        begun_in = ""
        if loop.start_from and not goes_on:
            begun_in = start_from(Path(loop.start_from), config, self.agent, self.shapes)
        self.progress.say(self._announcement())
        if begun_in not in ("", spec.about):
            self.progress.say(f"  note: where those networks come from, {begun_in}")
        for warning in advice.on_settings(config, spec.episode_frames):
            self.progress.say(f"  warning: {warning}")
        shown = read_demonstrations(config, self.env) if loop.demonstrations else None
        self.replay = self._build_replay(shown.size_bytes if shown else 0, resumed=goes_on)
        # what a checkpoint must be of, to go on from it
        self.identity = dataclasses.asdict(self.shapes) | {"world": spec.about}
        demonstrations = None
        if shown:
            demonstrations = shown.replay(config, self.env, self.replay, hardware.device)
            self.identity["demonstrations"] = shown.sha256
            self.progress.say(f"  half of every batch is of demonstrations: {shown.description}")
        self.learner = Learner(
            self.agent,
            self.replay,
            batch_size=loop.batch_size,
            precision=hardware.precision,
            device=hardware.device,
            # a resumed run makes a few updates before it records its graphs: bits must not depend on when
            capture=loop.cuda_graph and not loop.deterministic,
            demonstrations=demonstrations,
        )
        self.memory = self.agent.memory(self.agent.generator)
        self.counters = Counters(
            next_save=loop.save_every_frames,
            learn_from=loop.seed_frames // loop.action_repeat,
            catch_up_updates=loop.catch_up_updates,
            returns=[0.0] * hardware.envs,
            episode_frames=[0] * hardware.envs,
        )
        self.last = np.zeros(hardware.envs, dtype=bool)
        self.metrics: dict[str, torch.Tensor] = {}
        self.signal: int | None = None
        # A broken-off evaluation is made again from its start, so what is saved is the state from before it.
        self.eval_state = _between_episodes(self.eval_env) if self.eval_env else None
        state = self._saved() if goes_on else None
        if state:
            self._restore(state)
        elif resume:
            self.progress.say("  no checkpoint was saved yet: the run begins anew")
        self.journal = Journal(
            config,
            run_dir,
            hardware,
            self.env.renderer.name,
            self.agent.metric_names,
            self.progress,
            tells_success=spec.tells_success,
            frame=self.frame,
            sizes=state["log_bytes"] if state else {},
        )
        self.best = BestPolicy(run_dir, self.progress.say, resumed=bool(state))

    @property
    def frame(self) -> int:
        """Environment frames so far, over all worlds."""
        return self.counters.agent_step * self.config.loop.action_repeat

    @property
    def envs(self) -> list[VectorEnv]:
        """What worlds there are: those of training and, where there are any, those of evaluations."""
        return [self.env, self.eval_env] if self.eval_env else [self.env]

    @property
    def how_to_resume(self) -> str:
        """The command that goes on with what was saved."""
        return f"continue with: pixelcontrol train --resume {shlex.quote(str(self.run_dir))}"

    def _announcement(self) -> str:
        c, h = self.config, self.hardware
        return (
            f"{c.agent} on {c.task}, preset {c.preset}, seed {c.seed}, {c.loop.frames:,} frames "
            f"-> {self.run_dir}\n"
            f"  {machine.describe(h.device)}; device {h.device.type}; precision {h.precision} "
            f"({h.precision_reason}); renderer {self.env.renderer.name}; {h.envs} worlds in "
            f"{min(h.workers, h.envs)} worker processes"
            + (f"; networks begin as in {c.loop.start_from}" if c.loop.start_from else "")
            + (f"\n  {self.env.spec.about}" if self.env.spec.about else "")
        )

    def _build_replay(self, beside_bytes: int, *, resumed: bool) -> Replay:
        """Build the replay where there is room for it, and for `beside_bytes` more."""
        config, loop, hardware = self.config, self.config.loop, self.hardware
        capacity = transitions_kept(config, hardware.envs)
        frames = self.env.spec.episode_frames
        lengths = [-(-frames // loop.action_repeat)] if frames else []
        rows = ring_rows(capacity, hardware.envs, reach(config), *lengths)
        shape = (rows, hardware.envs, *self.env.image_shape)
        to_keep = max(0, math.prod(shape) - self.checkpoints.images_bytes()) if loop.keep_replay else 0
        reserve = reserve_bytes(config) + beside_bytes
        place = storage.choose(shape, hardware.device, self.run_dir, reserve, to_keep, resumed=resumed)
        self.progress.say(
            f"  replay of {capacity:,} transitions: {place.size_bytes / 1e9:.2f} GB on {place.tier} when full "
            f"({place.reason})"
        )
        images = storage.allocate(shape, place, hardware.device, self.run_dir)
        return build_replay(config, images, self.shapes, hardware.device)

    def train(self) -> None:
        """Run to the last frame.

        Raises:
            Interrupted: a signal came, and everything is ready to be saved.
            NotFinite: learning broke down; the evidence is saved.
            WorkerError: a world failed beyond mending; everything is ready to be saved.
            ValueError: an update returns a metric that the agent does not list, or that is no single number.
        """
        loop, counters = self.config.loop, self.counters
        total = loop.frames // loop.action_repeat
        if self.memory.observation is None:
            self._take(self.env.reset())
        save_every = SAVE_EVERY_SECONDS if self.env.spec.repeats else SAVE_ROBOT_EVERY_SECONDS
        started, saved_seconds = time.monotonic() - counters.seconds, counters.seconds
        self.progress.measure_from(self.frame)
        while counters.agent_step < total:
            if self.eval_env and self.frame >= counters.next_eval:
                paused = time.monotonic()
                self._evaluate()
                self.progress.leave_out(time.monotonic() - paused)
            acting = int((~self.last).sum())
            # before the usual ones, whose first may be due within the coming round
            if counters.catch_up_updates and counters.agent_step + acting > counters.learn_from:
                self._learn(1, turn=0)  # one at a time, so that a run can stop and go on between any two
                counters.catch_up_updates -= 1
            else:
                updates = self._updates_due(acting)
                actions = self._act()
                if self.learner.capturable:  # an update costs the host no time: it waits with work on the GPU
                    self._learn(updates)
                self.env.send(actions())
                if not self.learner.capturable:
                    self._learn(updates)
                counters.learned_to = counters.agent_step + acting
                step = self.env.receive()
                before = self.frame
                counters.agent_step += acting
                self._take(step)
                if self.frame // METRICS_EVERY_FRAMES > before // METRICS_EVERY_FRAMES:
                    self.journal.metrics(self._position(), self._metrics_now())
            counters.seconds = time.monotonic() - started
            self.progress.frame(self.frame)
            if self.frame >= counters.next_save or counters.seconds >= saved_seconds + save_every:
                counters.next_save, saved_seconds = self.frame + loop.save_every_frames, counters.seconds
                self.save(wait=False)
            self.heed_signal()

    def finish(self) -> None:
        """Show what the last frame has come to, save, and say how to go on.

        Raises:
            Interrupted, NotFinite: see `train`.
            CheckpointNotSaved: see `save`.
        """
        if self.eval_env is None:
            self.journal.draw()
        elif self.frame > self.counters.evaluated_at:
            self._evaluate()
        self.save()
        if faults := sum(env.faults for env in self.envs):
            self.progress.say(
                f"worker processes were replaced {faults} times since this start; see the warnings"
            )
        self.progress.say(
            f"trained to frame {self.frame:,} in {clock(self.counters.seconds)}; longer with: pixelcontrol train "
            f"--resume {shlex.quote(str(self.run_dir))} --frames {2 * self.config.loop.frames}"
        )

    def _learn(self, updates: int, turn: int | None = None) -> None:
        """Make updates: each in its turn of the agent's cycle, or all of them the one that has the turn `turn`."""
        for _ in range(updates):
            # those that caught up, all of them before the usual ones, took no turns
            usual = self.counters.update - self.config.loop.catch_up_updates
            whose = usual if turn is None else turn
            metrics = self.learner.update(self.counters.agent_step, whose)
            if unlisted := metrics.keys() - {*self.agent.metric_names}:
                raise ValueError(
                    f"{self.config.agent} returns the metrics {', '.join(sorted(unlisted))}, for which train.csv "
                    "has no column: add them to its `metric_names`"
                )
            # an update that leaves out a network leaves that network's last metrics as they were
            self.metrics |= metrics
            self.counters.update += 1

    def heed_signal(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.signal is not None:
            raise Interrupted(self.signal, self.how_to_resume)

    def _updates_due(self, agent_steps: int) -> int:
        """Count the multiples of `update_every_agent_steps` that this round's agent steps go through."""
        every, start = self.config.loop.update_every_agent_steps, self.counters.agent_step
        start = max(start, self.counters.learn_from, self.counters.learned_to)
        end = self.counters.agent_step + agent_steps
        due = max(0, -(-end // every) - -(-start // every))
        if due and self.counters.update and not len(self.replay):
            warnings.warn(
                "no updates for now: no episode in the replay is as long as a sequence any more", stacklevel=2
            )
            return 0
        return due

    def _take(self, step: TimeStep) -> None:
        """Store one row of every world, and log the episodes that it ends."""
        self.replay.add(step)
        self.memory.push(step)
        self.last = step.last
        counters = self.counters
        metrics = self._metrics_now() if step.last.any() else {}  # once for all worlds that end together
        for world in range(self.hardware.envs):
            if step.first[world]:
                counters.returns[world], counters.episode_frames[world] = 0.0, 0
                continue
            counters.returns[world] += float(step.reward[world])
            counters.episode_frames[world] += self.config.loop.action_repeat
            if step.last[world]:
                counters.episode += 1
                self.journal.episode(
                    self._position(),
                    counters.episode,
                    counters.returns[world],
                    counters.episode_frames[world],
                    metrics,
                    None if step.success is None else bool(step.success[world]),
                )

    def _metrics_now(self) -> dict[str, float]:
        """Wait for the newest update's metrics; there are none before the first."""
        values = torch.stack([*self.metrics.values()]).tolist() if self.metrics else []
        return dict(zip(self.metrics, values, strict=True))

    def _position(self) -> dict[str, Any]:
        c = self.counters
        return {
            "frame": self.frame, "agent_step": c.agent_step, "update": c.update, "hour": c.seconds / 3600,
        }  # fmt: skip

    def _evaluate(self) -> None:
        """Evaluate, and keep the policy if it is the best so far; training does not notice.

        One that is not due, as at a run's end, is logged and may become the best, but moves neither the schedule
        nor the worlds of evaluations: a run that is made longer goes on as if it had been so long from the start.

        Raises:
            NotFinite: the newest updates broke the weights.
        """
        loop = self.config.loop
        assert self.eval_env is not None
        self._refuse_broken_weights()
        outcome = evaluate(self.agent, self.eval_env, loop.eval_episodes, before_step=self.heed_signal)
        if self.frame >= self.counters.next_eval:
            self.eval_state = _between_episodes(self.eval_env)
            self.counters.next_eval = (self.frame // loop.eval_every_frames + 1) * loop.eval_every_frames
        self.counters.evaluated_at = self.frame
        self.journal.evaluation(self._position(), outcome)
        if outcome.mean > self.best.episode_return:
            state = {
                "counters": dataclasses.asdict(self.counters),
                "agent": learned(self.agent.state_dict()),
            }
            self._warn_if_not_saved(
                lambda: self.best.keep(dataclasses.asdict(self.shapes) | state, outcome.mean)
            )

    def _act(self) -> Callable[[], np.ndarray]:
        """Start choosing actions; calling the result waits for them, but not for work that is queued afterwards.

        Where updates are queued, a breakdown is noticed a round of updates late.
        """
        with torch.no_grad():
            chosen = self.agent.act(self.memory.observation, self.counters.agent_step)
        # one transfer for both, since each waits for the device
        numbers = torch.cat([chosen.flatten(), self.learner.sum_of_metrics.view(1)])
        if not numbers.is_cuda:
            return lambda: self._checked(numbers.numpy(), chosen.shape)
        arrived = torch.cuda.Event(blocking=True)  # leaves this core to the worlds meanwhile
        host = torch.empty_like(numbers, device="cpu", pin_memory=True).copy_(numbers, non_blocking=True)
        arrived.record()

        def wait() -> np.ndarray:
            arrived.synchronize()
            return self._checked(host.numpy(), chosen.shape)

        return wait

    def _checked(self, numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the actions, and stop before anything that is not a number reaches worlds or a checkpoint.

        Args:
            numbers: the actions, one after another, and the sum of all metrics so far.
            shape: of the actions.
        """
        action = numbers[:-1].reshape(shape)
        if np.isfinite(numbers).all():
            return action
        raise self._broken_down(action)

    def _refuse_broken_weights(self) -> None:
        if not self.learner.sum_of_metrics.isfinite():
            raise self._broken_down()

    def _broken_down(self, action: np.ndarray | None = None) -> NotFinite:
        """Save the evidence, and return the error that says what happened."""
        evidence = self.run_dir / "not_finite.pt"
        last = None if action is None else action.tolist()
        torch.save({"agent": self.agent.state_dict(), "metrics": self.metrics, "action": last}, evidence)
        values = ", ".join(f"{name} {float(value):g}" for name, value in self.metrics.items())
        return NotFinite(
            f"learning broke down at update {self.counters.update} (frame {self.frame:,}): {values}; weights "
            f"are in {evidence}, the last checkpoint is untouched; try a lower "
            f"{advice.learning_rates(self.config)}, or --precision fp32"
        )

    def save(self, wait: bool = True) -> None:
        """Write a checkpoint from which `_restore` continues as if nothing had happened.

        Without `wait` it is written in the background; that it failed is said at the next save.

        Raises:
            NotFinite: the newest updates broke the weights, which must not take the place of good ones.
            CheckpointNotSaved: with `wait`, the disk did not take it.
        """
        self._refuse_broken_weights()
        self._warn_if_not_saved(self.checkpoints.finish_save)  # the one before
        state = self.identity | {
            "device": self._device(),
            "counters": dataclasses.asdict(self.counters),
            "agent": self.agent.state_dict(),
            "env": self.env.state_dict(),
            "eval_env": self.eval_state,
            "memory": self.memory.state_dict(),
            "last": torch.from_numpy(self.last),
            "metrics": self.metrics,
            "threads": torch.get_num_threads(),
            "log_bytes": self.journal.sizes(),
            "versions": machine.versions(),
        }
        replay = self.replay if self.config.loop.keep_replay else None
        if wait:
            try:
                self.checkpoints.save(state, replay)
            except CheckpointNotSaved as error:
                if replay is None or self.checkpoints.exist():
                    raise
                self.checkpoints.save(state, None)  # better than nothing
                raise CheckpointNotSaved(f"{error}; all but the replay was saved") from error
        else:
            self._warn_if_not_saved(lambda: self.checkpoints.begin_save(state, replay))

    def _warn_if_not_saved(self, save: Callable[[], None]) -> None:
        try:
            save()
        except (CheckpointNotSaved, OSError) as error:
            if not self.run_dir.exists():
                raise RunError(f"{self.run_dir} is gone; put it back and resume") from error
            self.progress.say(f"warning: {error}")

    def _saved(self) -> dict[str, Any]:
        """Return the last checkpoint's state, and fill the replay with what was kept of it.

        Raises:
            CheckpointError: it is that of a policy alone, or see `Checkpoints.load`.
        """
        replay = self.replay if self.config.loop.keep_replay else None
        as_before = "resume with the code, and the demonstrations, that it was saved with"
        state = self.checkpoints.load(replay, self.identity, as_before)
        if "env" not in state:
            raise CheckpointError(
                self.run_dir,
                "holds a policy and no run",
                "resume the run that it is of, or begin one with --start-from and that run, or its best/",
            )
        return state

    def _restore(self, state: Mapping[str, Any]) -> None:
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(state["threads"])
        self.counters = Counters(**state["counters"])
        try:
            restore(self.agent, state["agent"])
        except ValueError as error:
            raise CheckpointError(self.run_dir, str(error), "resume with the code that wrote it") from error
        self.env.load_state_dict(state["env"])
        if self.eval_env:
            self.eval_env.load_state_dict(state["eval_env"])
            self.eval_state = state["eval_env"]
        memory, self.metrics = (
            {name: part.to(self.hardware.device) for name, part in state[parts].items()}
            for parts in ("memory", "metrics")
        )
        self.memory.load_state_dict(memory)
        self.last = state["last"].numpy()
        if self.replay.rows_added == 0:
            # long enough for whole elements of a batch, though running episodes may end within
            refill = max(
                self.config.loop.seed_frames // self.config.loop.action_repeat,
                2 * reach(self.config) * self.hardware.envs,
            )
            self.counters.learn_from = self.counters.agent_step + refill
            self.progress.say(
                "  the replay was not kept: learning goes on after refilling it with seed frames"
            )
        before = f"{state['device']} (threads: {state['threads']})"
        now = f"{self._device()} (threads: {torch.get_num_threads()})"
        if before != now:
            self.progress.say(
                f"  note: so far this run was on {before}; on {now} it goes on, but not bit for bit as there"
            )
        self.progress.say(f"  resumed at frame {self.frame:,}, update {self.counters.update:,}")

    def _device(self) -> str:
        return f"{self.hardware.device.type} in {self.hardware.precision}"

    def close(self) -> None:
        """End the worker processes and close the files, once a save under way is finished."""
        try:
            self._warn_if_not_saved(self.checkpoints.finish_save)
        finally:
            self.journal.close()
            for env in self.envs:
                env.close()


def _between_episodes(env: VectorEnv) -> dict[str, Any]:
    """Return the state of worlds whose running episodes are nobody's: those of an evaluation are not repeated."""
    return env.state_dict() | {"last": [True] * env.num_worlds}
