"""Settings that a recipe and the core both have a default for: each stands here once."""

LR = 5e-5
"""Base learning rate, per optimizer step."""
LAYER_DECAY = 0.9
"""Factor on the rate from one block to the next below."""
WEIGHT_DECAY = 0.01
