"""The reference is dm_control's own picture, and the choice of what draws it is made or refused in one line."""

import os
import subprocess
import sys

import numpy as np
import pytest
from dm_control import suite

from pixelcontrol.envs.render import gl
from pixelcontrol.envs.render.opengl import OpenGLRenderer
from pixelcontrol.envs.tasks import OTHER_TASKS, PAPER_TASKS


def test_draws_what_dm_control_draws():
    environment = suite.load("finger", "turn_hard", task_kwargs={"random": 0})
    environment.reset()
    renderer = OpenGLRenderer(environment.physics, 0, (48, 64))
    out = np.zeros((3, 48, 64), np.uint8)
    for _ in range(3):
        environment.step([1.0, -1.0])
        renderer.draw(out)
        expected = environment.physics.render(48, 64, camera_id=0)
        np.testing.assert_array_equal(out.transpose(1, 2, 0), expected)
    renderer.close()


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True
    )


def test_a_platform_named_by_the_user_is_kept(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert gl.choose_opengl() == "OpenGL through osmesa, as MUJOCO_GL says"


def test_the_first_platform_that_works_is_chosen(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.delitem(sys.modules, "dm_control")
    answers = {"egl": (False, "no EGL here"), "osmesa": (True, "llvmpipe")}
    monkeypatch.setattr(gl, "_try_platform", answers.__getitem__)
    assert gl.choose_opengl() == "OpenGL through osmesa on llvmpipe (egl: no EGL here)"
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_no_platform_is_one_error_with_its_remedy(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.delitem(sys.modules, "dm_control")
    monkeypatch.setattr(gl, "_try_platform", lambda platform: (False, "absent"))
    with pytest.raises(
        gl.NoOpenGL, match=r"egl: absent; osmesa: absent.*apt-get install -y .* libegl1 libgl1"
    ):
        gl.choose_opengl()


def test_a_platform_that_hangs_says_so(monkeypatch):
    monkeypatch.setattr(gl, "_PROBE", "import time; time.sleep(3600)")
    monkeypatch.setattr(gl, "_PATIENCE_SECONDS", 0.5)
    assert gl._try_platform("egl") == (False, "did not answer in 0.5 s")


def test_a_platform_that_does_not_work_says_why():
    works, said = gl._try_platform("nonsense")
    assert not works
    assert "nonsense" in said


def test_too_late_to_choose_is_an_error():
    code = (
        "from pixelcontrol.envs.render import gl; gl.without_opengl(); import dm_control; gl.choose_opengl()"
    )
    assert "before anything imports dm_control" in run(code).stderr


def test_the_warp_renderer_needs_no_opengl_library():
    """Every task begins, and its scene is packed, where loading any GL library fails; one is drawn."""
    code = """
import ctypes, sys
load = ctypes.CDLL.__init__
def refuse(self, name, *rest, **options):
    if name and any(part in str(name) for part in ("libGL", "libEGL", "OSMesa", "libglfw")):
        raise OSError(f"no {name} here")
    load(self, name, *rest, **options)
ctypes.CDLL.__init__ = refuse
from pixelcontrol.envs.render import gl
gl.without_opengl()
import numpy as np
from pixelcontrol.envs.dmc import make_dmc_world
from pixelcontrol.envs.render.warp import WarpRenderer
from pixelcontrol.envs.tasks import OTHER_TASKS, PAPER_TASKS
names = []
for task in (*PAPER_TASKS, *OTHER_TASKS):
    if task.source == "toy" or task.domain == "dog":  # drawn by itself; not by this renderer
        continue
    world = make_dmc_world(task, "warp", (32, 32), 2)
    world.reset(seed=1)
    rows = np.zeros((1, *world.spec.payload_shape), np.float32)
    world.observe(rows[0])
    if task.name == "quadruped_escape":
        std = WarpRenderer(world.scene, 1, (32, 32), "cpu").images(rows).float().std()
    names.append(task.name)
print(len(names), float(std) > 5, "OpenGL" in sys.modules)
"""
    result = run(code, MUJOCO_GL="egl")
    expected = len(PAPER_TASKS) + len(OTHER_TASKS) - 1 - 5
    assert result.stdout.strip().endswith(f"{expected} True False"), result.stderr
