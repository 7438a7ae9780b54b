"""Tests that draw with dm_control need its OpenGL, which must be chosen before anything imports dm_control."""

from typing import runtime_checkable

from pixelcontrol import types
from pixelcontrol.envs.render import gl

# For the type checker of the tests; the package itself asks nothing for its protocol.
for protocol in (types.World, types.Renderer):
    runtime_checkable(protocol)

gl.choose_opengl()
