"""Train a recipe on two workers of Ray: python scripts/examples/ray_train.py RECIPE.yaml [key=value ...]."""

import os
import sys

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

import nlp_ft
from nlp_ft.integrations.ray_train import train_loop

trainer = TorchTrainer(
    train_loop(nlp_ft.load_recipe(sys.argv[1], sys.argv[2:])),
    scaling_config=ScalingConfig(num_workers=2),  # use_gpu=True gives each a GPU
    run_config=RunConfig(storage_path=os.path.abspath("ray"), failure_config=FailureConfig(max_failures=3)),
)
result = trainer.fit()
print(result.metrics, result.checkpoint)
