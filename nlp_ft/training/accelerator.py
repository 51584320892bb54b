"""Makes the accelerator of a run, and checks device, precision, processes and trackers before anything is loaded."""

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DynamoBackend, GradientAccumulationPlugin, set_seed

from nlp_ft.environment import check_environment, is_on, launching, num_launched, show_what_cannot_be_shown
from nlp_ft.errors import TrainingError
from nlp_ft.recipe import Recipe
from nlp_ft.training.precision import mixed_precision


def start_accelerator(recipe: Recipe, tracking_folder: Path) -> Accelerator:
    """Make the accelerator, seed the random numbers, and ask for deterministic kernels if the recipe does.

    Raises:
        MachineError: the environment holds a value that cannot be used.
        TrainingError: the device has no such precision, or a tracker's package is missing.
    """
    check_environment()
    show_what_cannot_be_shown()
    check_trackers(recipe)
    check_distribution()
    # Without `cpu=True`, Accelerate (1.15) would treat each of several CPU processes as the only one.
    cpu = is_on("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    launched = num_launched()
    with launching():
        device = PartialState(cpu=cpu).device
    precision = mixed_precision(recipe.training.precision, device)
    if recipe.training.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    # An earlier run in this process may have used another precision, and Accelerate's state would refuse this one.
    AcceleratorState._reset_state()
    with launching():
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision=precision,
            log_with=list(recipe.trackers) or None,
            project_dir=tracking_folder if recipe.trackers else None,
            # The loop accumulates gradients itself; with a number from `accelerate config`, Accelerate would divide the
            # loss a second time.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        )
    if accelerator.num_processes != launched:
        raise TrainingError(f"{launched} processes were launched, but each would train alone; is the launcher set up?")
    set_seed(recipe.seed)
    return accelerator


def check_distribution() -> None:
    """Refuse a launch with DeepSpeed, FSDP or Megatron-LM, which a run cannot use. Raises: TrainingError."""
    reasons = {
        "DEEPSPEED": "its engine divides the optimizer among the processes once, and would never update the layers "
        "that begin to train later",
        "FSDP": "a run writes whole weights and checkpoints, and under FSDP each process holds a part; in a loop of "
        "your own nlp_ft.layerwise works with FSDP2",
        "MEGATRON_LM": "it brings models of its own",
    }
    for name, reason in reasons.items():
        if is_on(f"ACCELERATE_USE_{name}"):
            raise TrainingError(
                f"this launch asks for {name}, which a run cannot use: {reason}. Launch with "
                "`accelerate launch --multi_gpu`, or --config_file of a configuration without it"
            )


def check_trackers(recipe: Recipe) -> None:
    """Refuse a tracker whose package is missing. Raises: TrainingError."""
    for tracker in recipe.trackers:
        if find_spec(tracker) is None:
            raise TrainingError(f"trackers: {tracker} is not installed; try: pip install {tracker}")


def is_compiled(accelerator: Accelerator) -> bool:
    """Whether `prepare` compiles the model, as `accelerate launch --dynamo_backend` demands."""
    return bool(accelerator.state.dynamo_plugin.backend != DynamoBackend.NO)
