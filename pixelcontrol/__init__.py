"""Train agents that control a body from camera images.

`pixelcontrol.load(run)` gives a trained policy; everything else has its own module (see ARCHITECTURE.md).
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelcontrol.policy import Policy, load

__all__ = ["Policy", "load"]
try:
    __version__ = version("pixelcontrol")
except PackageNotFoundError:  # a source tree on PYTHONPATH
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    # Worker processes import this package too, and must not pay for torch.
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("pixelcontrol.policy"), name)
    raise AttributeError(f"module 'pixelcontrol' has no attribute {name!r}")
