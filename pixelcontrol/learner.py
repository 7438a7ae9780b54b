"""Runs an agent's update: precision, and on a GPU one CUDA graph per update.

The graph holds sampling, shifting, both losses, the optimisers and the moving average: one launch, and nothing
on the host but the count of steps. The same update runs step by step on a CPU, slower and equal.
"""

from __future__ import annotations

import platform
import warnings
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from pixelcontrol.errors import RunError
from pixelcontrol.machine import ran_out_of_memory
from pixelcontrol.replay import joined
from pixelcontrol.types import Agent, Replay

PRECISIONS = ("auto", "fp32", "tf32", "bf16")

# Updates that run before the capture: they create the optimisers' state and let cuDNN choose its algorithms.
WARM_UP_UPDATES = 3


def cpu_has_native_bf16() -> bool:
    """Whether this CPU multiplies bf16 itself: oneDNN supports every AVX-512 CPU, the older ones by emulation."""
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported and (platform.machine() != "x86_64" or torch.cpu._is_avx512_bf16_supported())


def choose_precision(wanted: str, device: torch.device) -> tuple[str, str]:
    """Return the precision to use and why.

    bf16 keeps weights, optimisers, targets and losses in fp32; only products are rounded.

    Raises:
        ValueError: this device cannot do what is wanted.
    """
    if device.type == "cuda":
        if wanted == "auto":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return ("bf16", "the fastest") if native else ("fp32", "no native bf16 on this GPU")
        return wanted, "as set"
    native = cpu_has_native_bf16()
    if wanted == "auto":
        return ("bf16", "native on this CPU") if native else ("fp32", "this CPU has no native bf16")
    if wanted == "tf32":
        raise ValueError("precision tf32 exists on NVIDIA GPUs only; on a CPU choose fp32, bf16 or auto")
    if wanted == "bf16" and not native:
        return wanted, "as set, though this CPU emulates it slowly"
    return wanted, "as set"


class NotCaptured(RunError):
    """A GPU could not record an update as a graph: it does something that a graph may not, such as to wait."""


class Learner:
    """Updates one agent from one replay."""

    def __init__(
        self,
        agent: Agent,
        replay: Replay,
        *,
        batch_size: int,
        precision: str,
        device: torch.device,
        capture: bool = True,
        demonstrations: Replay | None = None,
    ) -> None:
        """Prepare updates at `precision`, one of "fp32", "tf32", "bf16" (see `choose_precision`).

        Without `capture` they run step by step on a GPU too. With `demonstrations`, whose draws come from the
        generator of `replay`, half of every batch is theirs.
        """
        self.agent, self.replay, self.demonstrations = agent, replay, demonstrations
        self.batch_size, self.device = batch_size, device
        self.bf16 = precision == "bf16"
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
            # sums of many products, such as the trunks', stay float32 where they are split, as on a CPU
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
            # of the first updates, which are not captured
            warnings.filterwarnings("ignore", ".*capturable=True can impair performance", UserWarning)
            # it may choose other algorithms at every start
            torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        # The step is read on the device, so that a captured update follows it.
        self.agent_step = torch.zeros((), dtype=torch.int64, device=device)
        # One for each update of the agent's cycle, by its turn, with the metrics that it writes.
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}
        self.capturable = capture and device.type == "cuda" and replay.images.is_cuda
        # Of each turn: its first updates create what a capture may not.
        self.updates_run: Counter[int] = Counter()
        # Finite as long as every metric of every update was; on the device, like the metrics.
        self.sum_of_metrics = torch.zeros((), device=device)

    def update(self, agent_step: int, turn: int) -> dict[str, Tensor]:
        """Draw one batch and learn from it; the metrics stay on the device.

        Args:
            agent_step: agent steps that the run has made.
            turn: which update of the agent's cycle it is, counted round and round.

        Raises:
            NotCaptured: this update cannot be recorded as a graph.
            torch.OutOfMemoryError: it needs more memory than there is, as a graph or as it is.
        """
        cycle = self.agent.update_cycle
        turn = cycle.index(cycle[turn % len(cycle)])  # what comes several times in a cycle is recorded once
        self.agent_step.fill_(agent_step)
        if self.capturable and turn not in self.graphs and self.updates_run[turn] >= WARM_UP_UPDATES:
            self.graphs[turn] = self._capture(turn)
        self.updates_run[turn] += 1
        if turn in self.graphs:
            graph, metrics = self.graphs[turn]
            graph.replay()
            return metrics
        return self._update_once(turn)

    def _update_once(self, turn: int) -> dict[str, Tensor]:
        batch = self._draw()
        # No cache: it would keep the bf16 copies from before an optimiser's step, and the actor's loss would be
        # judged by the old critic.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            metrics = self.agent.update_cycle[turn](batch, self.agent_step)
        for name, metric in metrics.items():
            if not isinstance(metric, Tensor) or metric.ndim:
                raise ValueError(
                    f"update of {type(self.agent).__name__} returns the metric {name} as {type(metric).__name__}"
                    f"{f' of shape {tuple(metric.shape)}' if isinstance(metric, Tensor) else ''}; expected a "
                    "0-dimensional tensor"
                )
        # what an agent forgot to detach would hold every update's graph
        metrics = {name: metric.detach() for name, metric in metrics.items()}
        if metrics:
            self.sum_of_metrics += torch.stack(list(metrics.values())).sum()
        return metrics

    def _draw(self) -> Any:
        if self.demonstrations is None:
            return self.replay.sample(self.batch_size)
        shown = self.batch_size // 2
        return joined(self.demonstrations.sample(shown), self.replay.sample(self.batch_size - shown))

    def _capture(self, turn: int) -> tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]:
        """Record one update as a graph; recording itself changes no weight."""
        graph = torch.cuda.CUDAGraph()
        for generator in (self.replay.generator, self.agent.generator):
            graph.register_generator_state(generator)
        try:
            # A memory pool of its own: metrics of one turn are read after the next ones ran. Other threads may go
            # on as they like: one of them collects garbage.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                metrics = self._update_once(turn)
        except RuntimeError as error:
            # what it met; the end of a failed capture then fails too, in words for nobody
            cause = error.__context__ or error
            if isinstance(cause, Exception) and ran_out_of_memory(cause):
                raise cause from None
            raise NotCaptured(
                f"an update of {type(self.agent).__name__} cannot be recorded as a CUDA graph: {cause}; it may "
                "neither wait for the GPU nor make tensors of Python numbers. --cuda-graph no runs it step by step"
            ) from error
        return graph, metrics
