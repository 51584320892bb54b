"""Names and defaults that a recipe shares with the core and the models: each is written here and nowhere else."""

from typing import Literal

LR = 5e-5
"""Base learning rate, per optimizer step: the highest that Devlin et al. 2019 recommend for BERT-base."""
LINEAR_HEAD_LR_RATIO, DEEP_HEAD_LR_RATIO, TAG_HEAD_LR_RATIO = 100, 10, 10
"""Learning rate of a new head divided by the base rate: of one linear layer, of several layers, and for tags.

A pretrained pooler belongs to the head, and a high rate would destroy it. Tags give a head a label for each word.
"""
LAYER_DECAY = 0.9
"""Factor on the learning rate from one block to the next below."""
WEIGHT_DECAY = 0.01

Convention = Literal["top", "beit", "electra", "ulmfit"]
"""Which layer has the base learning rate; see `nlp_ft.layerwise.param_groups.lr_scales`."""
ScheduleName = Literal["linear", "cosine", "constant", "slanted_triangular"]
"""How the learning rates change over a run; see `nlp_ft.layerwise.lr_schedules.build_lr_schedule`."""
Grain = Literal["block", "stage"]
"""What counts as one layer; see `nlp_ft.layerwise.LayerMap.from_model`."""
Order = Literal["top_down", "bottom_up", "all_at_once", "one_at_a_time"]
"""In which order blocks are unfrozen; see `nlp_ft.layerwise.UnfreezeSchedule.gradual`."""
Embeddings = Literal["last", "never"]
"""When the embeddings are unfrozen; see `nlp_ft.layerwise.UnfreezeSchedule.gradual`."""
Pooling = Literal["cls", "mean", "max", "attention", "layer_mix", "last_4", "pooler"]
"""From one vector a token to one vector a text; see `nlp_ft.models.pooling`."""
HeadType = Literal["linear", "bottleneck"]
"""The task layers; see `nlp_ft.models.heads.ClassificationHead`."""
