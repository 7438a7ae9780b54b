"""What all tests share: checked shapes, one thread, and the same random numbers at every run.

The import hook must come before anything else imports `pixelcontrol`: from then on every annotated function checks
the shapes and dtypes of what it is given and of what it returns.
"""

import os
from contextlib import suppress
from pathlib import Path

from jaxtyping import install_import_hook

# cuBLAS reads it once, before a test can ask for repeatable sums.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# Warp reads the source of its kernels, which the hook would have rewritten.
import pixelcontrol.envs.render.kernels  # noqa: F401

install_import_hook("pixelcontrol", "typechecking.check")

# dm_control reads the choice once, when first imported. Where no OpenGL is, the tests that draw with it say so.
from pixelcontrol.envs.render import gl  # noqa: E402

with suppress(gl.NoOpenGL):
    gl.choose_opengl()
    import dm_control  # noqa: F401

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from tiny_runs import dreaming, tiny  # noqa: E402

from pixelcontrol.train import train  # noqa: E402

# More threads than cores make small tensors slower, and their sums depend on how many there are.
torch.set_num_threads(1)

# The same examples at every run; how long one takes depends on the machine, so that is no failure.
slow = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=slow
)
hypothesis.settings.load_profile("repeatable")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)
    # hypothesis refuses to draw numbers where a run in this process has turned denormal ones off
    torch.set_flush_denormal(False)
    np.random.seed(0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("finished")
    train(tiny(), run_dir)
    return run_dir


@pytest.fixture(scope="module")
def dreamt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("dreamt")
    train(dreaming(), run_dir)
    return run_dir
