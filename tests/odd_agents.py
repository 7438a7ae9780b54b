"""Users' own agents that cannot be run, each for a reason of its own."""

from dataclasses import dataclass

from pixelcontrol.agents.drqv2 import PRESETS, DrQV2, DrQV2Settings
from pixelcontrol.config import AgentKind
from pixelcontrol.settings import setting


@dataclass(frozen=True)
class LikeTheLoops(DrQV2Settings):
    n_step: int = setting(5, "steps of the return", "ours", low=1)


@dataclass(frozen=True)
class LikeAFlag(DrQV2Settings):
    out: int = setting(5, "way out", "ours", low=1)


@dataclass(frozen=True)
class Undeclared(DrQV2Settings):
    width: int = 3


class Mute:
    """Has nothing that a run asks of an agent but a name for its metrics."""

    metric_names = ()

    def __init__(self, observation_shape, action_dim, settings, **how):
        pass


LIKE_THE_LOOPS = AgentKind(DrQV2, LikeTheLoops, PRESETS)
LIKE_A_FLAG = AgentKind(DrQV2, LikeAFlag, PRESETS)
UNDECLARED = AgentKind(DrQV2, Undeclared, PRESETS)
NO_DATACLASS = AgentKind(DrQV2, dict, PRESETS)
NO_DEFAULT = AgentKind(DrQV2, DrQV2Settings, {"mine": {}})
NO_OTHER = AgentKind(DrQV2, DrQV2Settings, {"paper": {"action_repeat": {"cheetah": 4}}})
NO_LENGTH = AgentKind(DrQV2, DrQV2Settings, PRESETS, learns_from="sequences")
MISSPELT = AgentKind(DrQV2, DrQV2Settings, PRESETS, learns_from="Sequences")  # type: ignore[arg-type]
MUTE = AgentKind(Mute, DrQV2Settings, PRESETS)
