"""How small Dreamer-v2 can be, where a test wants it to run and not to learn."""

TINY_DREAMER = {
    "batch_size": 4,
    "sequence_length": 5,
    "deter_dim": 8,
    "model_dim": 8,
    "head_dim": 8,
    "latent_groups": 3,
    "latent_classes": 4,
    "conv_depth": 2,
    "imagined_states": 4,
    "target_every_updates": 7,
}
