"""The size of a run that shows learning on two CPU cores in minutes: the preset `quick` of all but Dreamer-v2.

A smaller picture, network and batch, half as many decisions per frame as in the paper, and an update for every
fourth decision: at this size an update costs as much as a hundred frames, so ten minutes go furthest with many of
these. Found by the trials with DrQ-v2 in LOG.md; what an agent adds for itself stands in its own preset.
"""

from typing import Any

QUICK: dict[str, Any] = {
    "frames": 240_000,
    "envs": 16,
    "workers": 1,
    "image_size": (48,),
    "conv_filters": 16,
    "conv_strides": (2, 1),
    "hidden_dim": 256,
    "batch_size": 128,
    # What the finger spins turns by 69 degrees in 4 frames; with 2 it learns twice as much.
    "action_repeat": {"finger": 2, "other": 4},
    "discount": {"finger": 0.99, "other": 0.98},  # the paper's, per frame
    "update_every_agent_steps": {"finger": 8, "other": 4},
    "exploration_steps": 1_000,  # the paper's 4,000 frames
    "replay_capacity": 100_000,
    "eval_every_frames": 40_000,
    "save_every_frames": 40_000,
}
