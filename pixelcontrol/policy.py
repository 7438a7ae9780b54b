"""Use a trained agent from Python, in three lines::

    policy = pixelcontrol.load("runs/my_run")
    act = policy.episode()  # remembers what it saw; a new one for each episode
    action = act(image)  # uint8 (3, 84, 84), colour planes first -> float32 (action_dim,), in [-1, 1]

One that learned with proprioception takes that too: `act(image, proprio)`, of (proprio_dim,) numbers.
"""

from __future__ import annotations

import io
import logging
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from pixelcontrol import machine
from pixelcontrol.agents.dreamerv2 import DreamerV2
from pixelcontrol.build import EVAL_STREAM, Shapes, build_agent, build_env, choose_hardware, learned, restore
from pixelcontrol.checkpoint import Checkpoints
from pixelcontrol.config import Config, agent_kind, read_config
from pixelcontrol.envs.dmc import RendererName
from pixelcontrol.envs.tasks import find_task
from pixelcontrol.evaluate import ENDLESS, MEMORY_SEED, Evaluation, evaluate
from pixelcontrol.memory import FrameStack
from pixelcontrol.rundir import read_json, write_json
from pixelcontrol.types import Agent, Observation, TimeStep

MAX_WORLDS = 10
# In an exported program's file: what it is.
DESCRIPTION = "description.txt"


class _Greedy(nn.Module):
    """An agent's best actions, as the module that `torch.export` wants."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, stack: Tensor, proprio: Tensor | None = None) -> Tensor:
        nothing = torch.zeros(stack.shape[0], 0)
        return self.agent.act_greedily(Observation(stack, nothing if proprio is None else proprio, nothing))


class _GreedyAndRemembering(nn.Module):
    """Dreamer-v2's best actions and its memory, as the module that `torch.export` wants."""

    def __init__(self, agent: DreamerV2) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, image: Tensor, action: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        most_likely = torch.zeros(image.shape[0], *self.agent.latent_shape)
        memory = self.agent.remember(memory, action, image, most_likely)
        return self.agent.act_greedily(memory), memory


class Episode:
    """One episode as an agent lives through it: call it with each image, oldest first."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._memory = policy.agent.memory(torch.Generator().manual_seed(MEMORY_SEED))
        self._action = np.zeros((1, policy.action_dim), dtype=np.float32)
        self._first = np.array([True])

    def __call__(
        self,
        image: UInt8[np.ndarray, "channels height width"],
        proprio: Float[np.ndarray, " proprio"] | None = None,
    ) -> Float32[np.ndarray, " action"]:
        """Return the best action, given the image of now, what is sensed now, and what was shown before.

        Raises:
            ValueError: an image or proprioception of another shape than the agent learned from.
        """
        policy = self._policy
        sensed = None if proprio is None else np.asarray(proprio)[None]
        observation = policy.checked(np.asarray(image)[None], sensed, stacked=1)
        zero = np.zeros(1, dtype=np.float32)  # no agent looks at the rewards of the episode that it acts in
        first, last = self._first, np.array([False])
        beside = (observation.proprio.numpy(), observation.privileged.numpy())
        step = TimeStep(observation.stack, self._action, zero, zero, first, last, *beside)
        with torch.no_grad():
            self._action = policy.agent.act_greedily(self._memory.push(step)).numpy()
        self._first = np.array([False])
        return self._action[0].copy()


@dataclass(frozen=True)
class Policy:
    """A trained agent, ready to act.

    Attributes:
        config: of the run that trained it.
        agent: the agent itself.
        frame: environment frames that it has seen.
        shapes: of the worlds that it learned in, see `build.Shapes`.
        about: these worlds, in words (see `WorldSpec`); empty where they say nothing.
    """

    config: Config
    agent: Agent
    frame: int
    shapes: Shapes
    about: str = ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        return self.shapes.image_shape

    @property
    def action_dim(self) -> int:
        """Number of controls."""
        return self.shapes.action_dim

    @property
    def proprio_dim(self) -> int:
        """Numbers of proprioception beside each image; 0 where it learned without."""
        return self.shapes.proprio_dim

    def description(self) -> str:
        """Say what whoever controls a body with these actions must know of them and of the observations."""
        loop = self.config.loop
        stack = f"the last {loop.frame_stack} images, oldest first, the first one of an episode repeated"
        about = self.about or (
            f"the planes of an image are the {self.image_shape[0]} that {self.config.task} gave in training; "
            "actions are in [-1, 1]"
        )
        return (
            f"observations are {stack if loop.frame_stack > 1 else 'single images'}; {about}, held for "
            f"{loop.action_repeat} frames"
        )

    @property
    def _remembers(self) -> bool:
        """Whether the agent acts on more than the last images."""
        return not isinstance(self.agent.memory(torch.Generator()), FrameStack)

    def episode(self) -> Episode:
        """Return a function from the image of now to the best action, for one episode from its start."""
        return Episode(self)

    def __call__(
        self,
        stack: UInt8[np.ndarray, "*batch channels height width"],
        proprio: Float[np.ndarray, "*batch proprio"] | None = None,
    ) -> Float32[np.ndarray, "*batch action"]:
        """Return the best action for one stack of the last images, oldest first, or those for a batch of stacks.

        Leaving out the batch's axis leaves it out of the answer, too.

        Raises:
            ValueError: this agent needs to see its episodes from the start, or learned from other shapes.
        """
        if self._remembers:
            raise ValueError(
                f"{self.config.agent} remembers its episode, and cannot act on single observations; use "
                "act = policy.episode(), then act(image) with each image"
            )
        stack, proprio = np.asarray(stack), None if proprio is None else np.asarray(proprio)
        single = stack.ndim == 3
        if single:
            stack, proprio = stack[None], None if proprio is None else proprio[None]
        observation = self.checked(stack, proprio, stacked=self.config.loop.frame_stack)
        with torch.no_grad():
            action = self.agent.act_greedily(observation).numpy()
        return action[0] if single else action

    def checked(
        self,
        stack: UInt8[np.ndarray, "batch channels height width"],
        proprio: Float[np.ndarray, "batch proprio"] | None,
        *,
        stacked: int,
    ) -> Observation:
        """Return what was shown and sensed as tensors, once it is of the shapes that the agent learned from.

        Args:
            stack: of `stacked` images each.
            proprio: None stands for no numbers.
            stacked: how many images.

        Raises:
            ValueError: it is not, or images are not bytes, or proprioception is not finite.
        """
        if proprio is None:
            proprio = np.zeros((len(stack), 0), dtype=np.float32)
        channels, *size = self.image_shape
        if stack.dtype != np.uint8:
            raise ValueError(f"images must be uint8, with values from 0 to 255, and not {stack.dtype}")
        for name, given, wanted in (
            ("images", stack, (len(stack), channels * stacked, *size)),
            ("proprioception", proprio, (len(stack), self.proprio_dim)),
        ):
            if given.shape != wanted:
                hint = ""
                if name == "proprioception" and given.shape[1:] == (0,):
                    hint = "; give it beside the image: act(image, proprio)"
                elif given.shape[1:] == (*size, wanted[1]):
                    hint = "; colour planes come first: image.transpose(2, 0, 1)"
                raise ValueError(
                    f"this agent learned from {name} of shape {wanted[1:]}, and was given {given.shape[1:]}{hint}"
                )
        if not np.isfinite(proprio).all():
            raise ValueError(f"proprioception must be finite, and was {proprio}")
        return Observation(
            torch.from_numpy(np.ascontiguousarray(stack)),
            torch.from_numpy(proprio.astype(np.float32)),
            privileged=torch.zeros(len(stack), 0),
        )

    def export(self, path: Path) -> str:
        """Write a program that chooses these actions without this package, for a robot.

        A file that is named `.onnx` is one for ONNX Runtime, TensorRT and the like; its inputs have the names that
        are printed, and what it takes and what its actions mean is its metadata `description`. Any other is one
        for PyTorch alone::

            act = torch.export.load("policy.pt2").module()
            action = act(observations)  # uint8 (batch, channels, height, width) -> float32 (batch, action_dim)
            action = act(observations, proprio)  # with proprioception, float32 (batch, proprio_dim)

        That of an agent that remembers takes its last action and its memory too, zeros at an episode's start::

            action, memory = act(images, action, memory)  # memory: float32 (batch, features)

        Departure: where the agent draws what it remembers, the program takes what is most likely.

        What the program takes and what its actions mean lies in this file too, for whoever finds it::

            torch.export.load("policy.pt2", extra_files=(notes := {"description.txt": ""}))

        Returns:
            What the program takes, in words.

        Raises:
            OSError: the file cannot be written.
            ValueError: a user's agent has a memory of its own, of which nothing is known here; or ONNX is not
                installed.
        """
        # more than one: PyTorch would take a batch of 1 for a promise
        channels, height, width = self.image_shape
        image = torch.zeros(2, channels * self.config.loop.frame_stack, height, width, dtype=torch.uint8)
        module: nn.Module = _Greedy(self.agent)
        example = {"observations": image}
        if self.proprio_dim:
            example["proprio"] = torch.zeros(2, self.proprio_dim)
        if isinstance(self.agent, DreamerV2):
            module = _GreedyAndRemembering(self.agent)
            example = {
                "images": image,
                "last_actions": torch.zeros(2, self.action_dim),
                "memory": self.agent.no_features(2),
            }
        elif self._remembers:
            raise ValueError(
                f"{self.config.agent} has a memory of its own, which no exported program knows; act with "
                "pixelcontrol.load and policy.episode()"
            )
        takes = ", ".join(
            f"{name}: {str(part.dtype).removeprefix('torch.')} (batch, {', '.join(map(str, part.shape[1:]))})"
            for name, part in example.items()
        )
        if "memory" in example:
            takes += (
                " (zeros at an episode's start, then what is returned beside the actions, as memory_after)"
            )
        write = _onnx if path.suffix.lower() == ".onnx" else _pt2
        path.write_bytes(write(module.eval(), example, f"takes {takes}; {self.description()}"))
        return takes

    def evaluate(
        self, episodes: int, *, renderer: RendererName | None = None, seed: int | None = None
    ) -> Evaluation:
        """Run episodes of the task it was trained on, on the images of `renderer` (its own by default).

        Worlds may run in processes of their own, which import the script that asks for them: call this under
        `if __name__ == "__main__":` there.

        Raises:
            ValueError: the task is a user's own and no longer what it was.
            NoOpenGL: there is no OpenGL here, or `warp` was used before in this process.
        """
        config = self.config if seed is None else replace(self.config, seed=seed)
        hardware = choose_hardware(config)
        # of a user's own world, such as a robot, there may be no more than it was trained with
        most = hardware.envs if find_task(config.task).source == "factory" else MAX_WORLDS
        env = build_env(config, hardware, min(episodes, most), EVAL_STREAM, renderer=renderer)
        if env.spec.episode_frames is None:
            warnings.warn(ENDLESS.format(task=config.task), stacklevel=2)
        try:
            if (found := Shapes.of(env)) != (seen := replace(self.shapes, privileged_dim=0)):
                raise ValueError(
                    f"this agent was trained with {asdict(seen)}, and {config.task} now has {asdict(found)}"
                )
            if self.about not in ("", env.spec.about):
                warnings.warn(
                    f"{config.task} is another than this agent was trained in, where {self.about}; now "
                    f"{env.spec.about}",
                    stacklevel=2,
                )
            return evaluate(self.agent, env, episodes)
        finally:
            env.close()


def _any_batch(example: Mapping[str, Tensor]) -> tuple[dict[int, torch.export.Dim], ...]:
    """Say of a program's inputs that their first size is free, and the same for all."""
    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in example)


def _pt2(module: nn.Module, example: Mapping[str, Tensor], description: str) -> bytes:
    """Return a module as PyTorch's own file, which `torch.export.load` reads."""
    program = torch.export.export(
        module, tuple(example.values()), dynamic_shapes=_any_batch(example), strict=False
    )
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # it takes weights that lie channels-last for parts of larger ones
        warnings.filterwarnings("ignore", "No complete tensor", UserWarning)
        torch.export.save(program, buffer, extra_files={DESCRIPTION: description})
    return buffer.getvalue()


def _onnx(module: nn.Module, example: Mapping[str, Tensor], description: str) -> bytes:
    """Return a module as an ONNX file, whose inputs have the names of `example`."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError("a file .onnx needs ONNX: pip install -c constraints.txt -e '.[onnx]'") from error
    outputs = ["actions", "memory_after"] if "memory" in example else ["actions"]
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # that torchvision is not here is no news
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*treespec", FutureWarning)
            # all inputs share it, as wanted
            warnings.filterwarnings("ignore", ".*axis name: batch", UserWarning)
            program = torch.onnx.export(
                module, tuple(example.values()), input_names=list(example), output_names=outputs,
                dynamic_shapes=_any_batch(example), verbose=False,
            )  # fmt: skip
    finally:
        logger.setLevel(level)
    assert program is not None
    program.model.metadata_props["description"] = description
    return program.model_proto.SerializeToString()


def load(run_dir: str | Path) -> Policy:
    """Load the agent of a run's last checkpoint, on the CPU, and set up this process (`machine.prepare_process`).

    Raises:
        ValueError: there is no run, or its agent is no longer built as it was.
        CheckpointError: the checkpoint cannot be read; says why.
    """
    run_dir = Path(run_dir)
    config = read_config(run_dir).with_loop(device="cpu", precision="fp32")
    machine.prepare_process()
    state = Checkpoints(run_dir).load()
    shapes = Shapes(*(state[item.name] for item in fields(Shapes)))
    with torch.random.fork_rng(devices=[]):  # it seeds PyTorch's own generator, which is the caller's
        agent = build_agent(config, shapes, torch.device("cpu"))
    restore(agent, agent.state_dict() | state["agent"])  # `best` has no optimisers, a policy alone no critics
    frame = state["counters"]["agent_step"] * config.loop.action_repeat
    return Policy(config, agent, frame, shapes, read_json(run_dir / "config.json").get("world", ""))


def write_policy(run_dir: Path, folder: Path) -> None:
    """Write the policy of a run's last checkpoint alone, as a run of its own, to keep and to give away.

    It is a quarter of `best/` or less: critics, which a policy does not need, stay behind. One can do all with it
    but resume it or begin a run with it.

    Raises:
        ValueError: there is no run, or `folder` is there already.
        CheckpointError: the run's checkpoint cannot be read; says why.
        CheckpointNotSaved, OSError: the disk did not take it.
    """
    config = read_config(run_dir)
    state = Checkpoints(run_dir).load()
    kept = {item.name: state[item.name] for item in fields(Shapes)} | {"counters": state["counters"]}
    names = agent_kind(config.agent).acts_with or learned(state["agent"])
    if folder.exists():
        raise ValueError(f"{folder} is there already; name a folder that can be made")
    folder.mkdir(parents=True)
    try:
        write_json(folder / "config.json", read_json(run_dir / "config.json") | {"settings": config.flat()})
        Checkpoints(folder).save(kept | {"agent": {name: state["agent"][name] for name in names}}, None)
    except BaseException:
        shutil.rmtree(folder)  # or the next try would find it there
        raise
