"""Train in a directory, to the last save, whatever comes: a signal, a world that fails, memory that runs out."""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from pixelcontrol import machine
from pixelcontrol.build import Hardware, choose_hardware
from pixelcontrol.checkpoint import CheckpointNotSaved, Checkpoints
from pixelcontrol.config import Config, changed_settings, store_resumed
from pixelcontrol.envs.vector import VectorEnv, WorkerError
from pixelcontrol.errors import Interrupted, RunError, heeded_signals
from pixelcontrol.loop import TrainingRun
from pixelcontrol.rundir import RunLock, write_json


class OutOfMemory(RunError):
    """Memory ran out, on the GPU or the host; the last checkpoint is untouched."""


def train(config: Config, run_dir: Path | str, *, resume: bool = False) -> None:
    """Train in `run_dir`, which is created if need be.

    Raises:
        ValueError: the configuration cannot run on this machine, or there is a run already that is not resumed.
        Interrupted: a signal came (see `errors.STOP_SIGNALS`); everything is saved.
        NotFinite: see `loop.TrainingRun.train`.
        OutOfMemory: the last checkpoint is untouched.
        WorkerError: a world failed beyond mending; everything is saved.
        RunError: the directory is gone, or one of its tables was cut short.
        CheckpointNotSaved: the disk did not take the last checkpoint; the one before stands.
        CheckpointError, RunBusy: the directory holds no usable checkpoint, or another process trains in it.
    """
    run_dir = Path(run_dir)
    machine.prepare_process()
    machine.repeat_exactly(config.loop.deterministic)
    hardware = choose_hardware(config)
    missing = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
    run_dir.mkdir(parents=True, exist_ok=True)
    with RunLock(run_dir), _memory_that_ran_out_is_explained():
        if not resume and holds_run(run_dir):
            raise ValueError(
                f"{run_dir} already holds a run; continue it with --resume {shlex.quote(str(run_dir))}, or choose "
                "another directory"
            )
        try:
            run = TrainingRun(config, run_dir, hardware, resume=resume)
        except Exception:
            if missing:  # the corrected command is to find it free
                shutil.rmtree(run_dir)
                with suppress(OSError):  # others may have begun beside it meanwhile
                    for parent in missing[1:]:
                        parent.rmdir()
            raise
        # a collection holds up all threads, and libraries have half a million objects to look at
        gc.collect()
        gc.freeze()
        try:
            if resume:
                store_resumed(run_dir, _settled(config, hardware))
            else:
                write_config(config, run_dir, hardware, run.env)
            with _signals_are_heeded(run):
                _train_and_save(run)
        finally:
            gc.unfreeze()
            run.close()


def holds_run(run_dir: Path) -> bool:
    """Whether something was learned or measured in a directory, which a new run would overwrite."""
    tables = [run_dir / "train.csv", run_dir / "eval.csv"]
    return Checkpoints(run_dir).exist() or any(
        table.exists() and table.read_bytes().count(b"\n") > 1 for table in tables
    )


def _train_and_save(run: TrainingRun) -> None:
    try:
        run.train()
        run.finish()
    except (Interrupted, WorkerError) as reason:
        if run.signal is None and run.counters.agent_step == 0:
            # nothing to save, and the mended world is to find the directory free
            raise ValueError(str(reason)) from reason
        try:
            run.save()
        except CheckpointNotSaved as error:
            raise CheckpointNotSaved(f"{reason}; {error}") from error
        run.heed_signal()  # was it to stop, a failed worker matters no more
        raise WorkerError(f"{reason}; all is saved: {run.how_to_resume}") from reason


@contextmanager
def _signals_are_heeded(run: TrainingRun) -> Iterator[None]:
    """Let a signal ask the run to save and end, and a second one end it at once."""

    def stop(number: int, _: FrameType | None) -> None:
        run.signal = number
        for env in run.envs:
            env.hurry()
        # a terminal that closes and its shell send SIGHUP each: it counts once
        signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
        # not print: the signal may interrupt one, and a stream refuses a second within the first
        with suppress(OSError):  # the terminal may be closed
            os.write(2, f"{signal.Signals(number).name}: saving; again to stop at once\n".encode())

    previous = {number: signal.signal(number, stop) for number in heeded_signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _memory_that_ran_out_is_explained() -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not machine.ran_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"memory ran out ({str(error).partition(chr(10))[0] or 'on the host'}); what was saved is untouched: "
            "resume where more is free, or on a GPU with --cuda-graph no, or begin anew with a lower "
            "--batch-size, --replay-capacity, --image-size, --envs or a smaller network"
        ) from error


def _settled(config: Config, hardware: Hardware) -> dict[str, Any]:
    """Return all settings with what "auto" came to, so that a run stays what it was when it moves elsewhere."""
    return config.flat() | {"envs": hardware.envs, "precision": hardware.precision}


def write_config(config: Config, run_dir: Path, hardware: Hardware, env: VectorEnv) -> None:
    """Write `config.json`: every choice, what "auto" came to, worlds, versions, commit and machine."""
    content = {
        "agent": config.agent,
        "task": config.task,
        "seed": config.seed,
        "preset": config.preset,
        "renderer": env.renderer.name,
        "precision": hardware.precision,
        "device": hardware.device.type,
        "envs": hardware.envs,
        "settings": _settled(config, hardware),
        # for whoever reads this where a user's own agent, and so its presets, is not at hand
        "changed": changed_settings(config),
        "world": env.spec.about,
        "versions": machine.versions(),
        "commit": machine.commit(),
        "machine": machine.describe(hardware.device),
    }
    write_json(run_dir / "config.json", content)
