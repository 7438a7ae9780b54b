"""What tests of environments need besides: OpenGL, checkable protocols, and kernels as they were written."""

import sys
from typing import runtime_checkable

from pixelcontrol import types
from pixelcontrol.envs.render import gl

# For the type checker of the tests; the package itself asks nothing for its protocol.
for protocol in (types.World, types.Renderer):
    runtime_checkable(protocol)

# Must be chosen before anything imports dm_control.
gl.choose_opengl()

# Warp compiles a kernel from its source, so the import hook of the type checker must not decorate it.
finders = sys.meta_path[:]
sys.meta_path[:] = [finder for finder in finders if not type(finder).__module__.startswith("jaxtyping")]
import pixelcontrol.envs.render.kernels  # noqa: E402, F401

sys.meta_path[:] = finders
