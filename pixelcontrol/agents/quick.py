"""The size of a run that shows learning on two CPU cores in minutes: the preset `quick` of all but Dreamer-v2.

A smaller picture, network and batch, and an update for every 16 frames where DrQ-v2's paper has one for 4: at this
size an update costs as much as a hundred frames, so ten minutes go furthest with many of these. Found by the
trials with DrQ-v2 in LOG.md; what an agent adds for itself, or has otherwise, stands in its own preset.
"""

from typing import Any


def by_frame_length(short: float, other: float) -> dict[str, float]:
    """Return a value for the bodies whose frames last 0.01 s, and one for all others, most of which have 0.02 s.

    With it an action is held for about 0.04 s on most (finger and walker learn less with 0.08 and 0.1 s), and what
    is counted in agent steps is as long in frames.
    """
    bodies = ("acrobot", "cartpole", "cheetah", "manipulator", "stacker")
    return {**dict.fromkeys(bodies, short), "other": other}


QUICK: dict[str, Any] = {
    "frames": 240_000,
    "envs": 16,
    "workers": 1,
    "image_size": (48,),
    "conv_filters": 16,
    "conv_strides": (2, 1),
    "hidden_dim": 256,
    "batch_size": 128,
    "action_repeat": by_frame_length(4, 2),
    "discount": by_frame_length(0.98, 0.99),  # the paper's, per frame
    "update_every_agent_steps": by_frame_length(4, 8),
    "exploration_steps": 1_000,
    "replay_capacity": 100_000,
    "eval_every_frames": 40_000,
    "save_every_frames": 40_000,
}
