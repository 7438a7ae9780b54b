"""Which OpenGL platform dm_control may load. Must run before anything imports dm_control or mujoco's GL code."""

from __future__ import annotations


def without_opengl() -> None:
    """Let dm_control load on a machine with no GL library at all: physics works, `physics.render` does not."""
    raise NotImplementedError


def choose_opengl() -> str:
    """Pick "egl" or "osmesa", whichever draws here, and set MUJOCO_GL; return one line: what was chosen and why.

    Raises:
        RuntimeError: neither draws; the message holds the package line that remedies it.
    """
    raise NotImplementedError
