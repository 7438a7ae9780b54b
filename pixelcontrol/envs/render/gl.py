"""Which OpenGL platform dm_control may load; runs before anything imports dm_control."""

from __future__ import annotations


def without_opengl() -> None:
    """Let dm_control load where no GL library is: physics works, `physics.render` does not."""
    raise NotImplementedError


def choose_opengl() -> str:
    """Set MUJOCO_GL to "egl" or "osmesa", whichever draws here; return one line: the choice and why.

    Raises:
        RuntimeError: neither draws; the message holds the package line that remedies it.
    """
    raise NotImplementedError
