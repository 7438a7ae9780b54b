"""Which OpenGL platform dm_control may load; runs before anything imports dm_control.

dm_control reads MUJOCO_GL once, when it is first imported, and left alone it tries a window system first, which
imports without a display and then fails at the first picture. So the choice is made here, in one place.

Unusual: a platform is tried in a child process, because one that fails stays half loaded where it was tried.
"""

from __future__ import annotations

import os
import subprocess
import sys

from pixelcontrol.errors import RunError

_PLATFORMS = ("egl", "osmesa")
_PATIENCE_SECONDS = 120.0
_REMEDY = "apt-get install -y --no-install-recommends libegl1 libgl1"
_PROBE = """
import mujoco
from OpenGL.GL import GL_RENDERER, glGetString
context = mujoco.GLContext(16, 16)
context.make_current()
print(glGetString(GL_RENDERER).decode())
context.free()
"""


class NoOpenGL(RunError):
    """OpenGL cannot draw in this process; says why, and what to install."""


def without_opengl() -> None:
    """Let dm_control load where no GL library is: physics works, `physics.render` does not.

    `quadruped_escape` asks at each start for the OpenGL contexts that are to have its new terrain: there are none.
    """
    if "dm_control" not in sys.modules:
        os.environ["MUJOCO_GL"] = "disabled"
    if os.environ.get("MUJOCO_GL") == "disabled":
        from dm_control import mujoco

        mujoco.Physics.contexts = None


def choose_opengl() -> str:
    """Set MUJOCO_GL to "egl" or "osmesa", whichever draws here; return one line: the choice and why.

    A platform already named in MUJOCO_GL is kept. Worker processes inherit the choice through it.

    Raises:
        NoOpenGL: neither draws, or dm_control is loaded already without OpenGL.
    """
    named = os.environ.get("MUJOCO_GL", "")
    if named in (*_PLATFORMS, "glfw"):
        return f"OpenGL through {named}, as MUJOCO_GL says"
    if "dm_control" in sys.modules:
        raise NoOpenGL(
            f"dm_control was loaded with MUJOCO_GL={named!r} in this process and cannot draw any more: "
            "call choose_opengl() before anything imports dm_control"
        )
    failures: list[str] = []
    for platform in _PLATFORMS:
        works, said = _try_platform(platform)
        if works:
            os.environ["MUJOCO_GL"] = platform
            tried = f" ({failures[0]})" if failures else ""
            return f"OpenGL through {platform} on {said}{tried}"
        failures.append(f"{platform}: {said}")
    raise NoOpenGL(
        f"no OpenGL platform draws here ({'; '.join(failures)}). "
        f"Install one with `{_REMEDY}`, or use renderer 'warp', which needs none"
    )


def _try_platform(platform: str) -> tuple[bool, str]:
    """Open a context in a child process; return whether it works, and what draws or what went wrong."""
    environment = os.environ | {"MUJOCO_GL": platform, "PYOPENGL_PLATFORM": platform}
    try:
        result = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False, f"did not answer in {_PATIENCE_SECONDS:g} s"
    if result.returncode == 0:
        return True, result.stdout.strip()
    lines = result.stderr.strip().splitlines()
    return False, lines[-1] if lines else f"ended with status {result.returncode}"
