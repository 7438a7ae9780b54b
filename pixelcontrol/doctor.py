"""`pixelcontrol doctor`: what this machine can do, found by doing it, and what to install for the rest."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch

from pixelcontrol import machine, storage
from pixelcontrol.envs.dmc import RendererName
from pixelcontrol.envs.make import make_env
from pixelcontrol.envs.render import gl
from pixelcontrol.envs.tasks import find_task
from pixelcontrol.learner import choose_precision
from pixelcontrol.logger import write_video

# The only versions with which the suite loads and looks as tested.
PINS = {"mujoco": "3.17.0", "dm-control": "1.0.50"}

TEST_TASK = "cheetah_run"
TIMED_IMAGES = 10


def examine(folder: Path | None) -> int:
    """Print one line per finding.

    Args:
        folder: where each renderer leaves a test image, or None.

    Returns:
        0 when training with images can run here, else 1.
    """
    print(f"machine      {machine.describe(torch.device('cpu'))}")
    print(f"memory       {storage.available_ram_bytes() / 1e9:.1f} GB of RAM, ", end="")
    print(f"{shutil.disk_usage('.').free / 1e9:.1f} GB of disk free")
    device = machine.choose_device("auto")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        print(
            f"gpu          {torch.cuda.get_device_name(device)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        )
    else:
        print(f"gpu          none that torch {torch.__version__} can use; training runs on the CPU")
    print("precision    {} ({})".format(*choose_precision("auto", device)))
    _versions()
    # OpenGL first: its platform has to be chosen before anything loads dm_control.
    drawn = [_try_renderer("opengl", folder), _try_renderer("warp", folder)]
    filmed = _try_video()
    return 0 if any(drawn) and filmed else 1


def _versions() -> None:
    for package, version in machine.versions().items():
        pin = PINS.get(package)
        advice = "" if pin in (None, version) else f"   WRONG: pip install {package}=={pin}"
        print(f"version      {package} {version}{advice}")


def _try_renderer(renderer: RendererName, folder: Path | None) -> bool:
    """Draw a few images of a real task; say how long one takes, or why there is none."""
    if renderer == "opengl":
        try:
            print(f"opengl       {gl.choose_opengl()}")
        except gl.NoOpenGL as error:
            print(f"opengl       not available: {error}")
            return False
    device = str(machine.choose_device("auto"))
    try:
        milliseconds, image = _time_images(renderer, device)
    except Exception as error:  # noqa: BLE001  whatever is wrong is a finding
        print(f"{renderer:12s} does not draw: {type(error).__name__}: {error}")
        return False
    print(
        f"{renderer:12s} works: {milliseconds:.1f} ms per agent step of {TEST_TASK}, image included, on {device}"
    )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        imageio.imwrite(folder / f"{renderer}.png", image)
        print(f"             test image: {folder / f'{renderer}.png'}")
    return True


def _time_images(renderer: RendererName, device: str) -> tuple[float, np.ndarray]:
    """Return the milliseconds of an agent step, image included, and the last image, colours last."""
    env = make_env(
        find_task(TEST_TASK), num_worlds=1, num_workers=0, renderer=renderer, device=device, seed=0, stream=0
    )
    try:
        step = env.reset()
        started = time.perf_counter()
        for _ in range(TIMED_IMAGES):
            env.send(np.zeros((1, env.spec.action_dim), dtype=np.float32))
            step = env.receive()
        milliseconds = (time.perf_counter() - started) / TIMED_IMAGES * 1e3
        return milliseconds, step.image[0].permute(1, 2, 0).cpu().numpy()
    finally:
        env.close()


def _try_video() -> bool:
    """Encode a second of video."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_video(Path(folder) / "test.mp4", np.zeros((30, 84, 84, 3), dtype=np.uint8))
        except (OSError, RuntimeError) as error:
            print(f"video        no mp4: {error}; pip install imageio-ffmpeg")
            return False
    print("video        mp4 works")
    return True
