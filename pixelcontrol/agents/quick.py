"""The size of a run that shows learning on two CPU cores in minutes: the preset `quick` of all but Dreamer-v2.

A smaller picture, network and batch, and an update for every 16 frames where the paper has one for 4: at this
size an update costs as much as a hundred frames, so ten minutes go furthest with many of these. Found by the
trials with DrQ-v2 in LOG.md; what an agent adds for itself stands in its own preset.
"""

from typing import Any


def held(fast: float, other: float) -> dict[str, float]:
    """Return a value for the bodies whose frames last 0.01 s, and one for all others, most of which have 0.02 s.

    So an action is held for about 0.04 s. Finger and walker learn far less with 0.08 and 0.1 s.
    """
    fast_bodies = ("acrobot", "cartpole", "cheetah", "manipulator", "stacker")
    return {**dict.fromkeys(fast_bodies, fast), "other": other}


QUICK: dict[str, Any] = {
    "frames": 240_000,
    "envs": 16,
    "workers": 1,
    "image_size": (48,),
    "conv_filters": 16,
    "conv_strides": (2, 1),
    "hidden_dim": 256,
    "batch_size": 128,
    "action_repeat": held(4, 2),
    "discount": held(0.98, 0.99),  # the paper's, per frame
    "update_every_agent_steps": held(4, 8),
    "exploration_steps": 1_000,
    "replay_capacity": 100_000,
    "eval_every_frames": 40_000,
    "save_every_frames": 40_000,
}
