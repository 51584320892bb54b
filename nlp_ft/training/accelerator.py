"""Makes the accelerator of a run, and checks device, precision, processes and trackers before anything is loaded."""

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DynamoBackend, GradientAccumulationPlugin, set_seed

from nlp_ft.environment import OFF, ON, check_environment, is_on, launching, num_launched, show_what_cannot_be_shown
from nlp_ft.errors import TrainingError
from nlp_ft.recipe import Recipe
from nlp_ft.training.precision import mixed_precision
from nlp_ft.training.sharding import FLAG, unknown_to_accelerate

REFUSED = (
    ("FSDP_OFFLOAD_PARAMS", ON, "--fsdp_offload_params is not supported"),
    ("FSDP_ACTIVATION_CHECKPOINTING", ON, "--fsdp_activation_checkpointing would rename the parameters"),
    ("FSDP_RESHARD_AFTER_FORWARD", OFF, "--fsdp_reshard_after_forward must be true"),
    ("ACCELERATE_USE_PARALLELISM_CONFIG", ON, "--use_parallelism_config is not supported"),
)
"""Variables of a launch, the words that are refused there, and the reason."""


def start_accelerator(recipe: Recipe, tracking_folder: Path, may_shard: bool = False) -> Accelerator:
    """Make the accelerator, seed the random numbers, and ask for deterministic kernels if the recipe does.

    Args:
        recipe: the recipe of the run.
        tracking_folder: where trackers write.
        may_shard: whether the caller can train a sharded model, if the launch asks for it.

    Raises:
        MachineError: the environment holds a value that cannot be used.
        TrainingError: the device has no such precision, a tracker's package is missing, or the launch asks for what a
            run cannot use.
    """
    check_environment()
    show_what_cannot_be_shown()
    check_trackers(recipe)
    check_distribution()
    check_sharding(recipe, may_shard)
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
    with launching(), unknown_to_accelerate():
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
    """Refuse a launch with DeepSpeed or Megatron-LM, which a run cannot use. Raises: TrainingError."""
    reasons = {
        "DEEPSPEED": "its engine divides the optimizer among the processes once, and would never update the layers "
        "that begin to train later",
        "MEGATRON_LM": "it brings models of its own",
    }
    for name, reason in reasons.items():
        if is_on(f"ACCELERATE_USE_{name}"):
            raise TrainingError(
                f"this launch asks for {name}, which a run cannot use: {reason}. Launch with "
                "`accelerate launch --multi_gpu`, or --config_file of a configuration without it"
            )


def check_sharding(recipe: Recipe, may_shard: bool) -> None:
    """Refuse a launch with FSDP that cannot be followed to the letter.

    Args:
        recipe: the recipe of the run.
        may_shard: whether the caller can train a sharded model.

    Raises:
        TrainingError: naming everything that stands against it.
    """
    if not is_on(FLAG):
        return
    problems = [reason for name, words, reason in REFUSED if os.environ.get(name, "").lower() in words]
    if os.environ.get("FSDP_VERSION", "1") != "2":
        problems.append(
            "FSDP 1 makes one tensor of weights that train at different rates, or not yet; add --fsdp_version 2"
        )
    if os.environ.get("FSDP_IGNORED_MODULES"):
        problems.append("--fsdp_ignored_modules is not supported")
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        problems.append("--dynamo_backend must be no: frozen layers of a sharded model are not compiled")
    if recipe.training.precision == "fp16":
        problems.append("training.precision fp16 would need a scaler that knows of the parts; use auto, bf16 or fp32")
    if recipe.optimizer.name == "adafactor":
        problems.append("optimizer.name adafactor needs whole rows and columns; use adamw")
    if recipe.strategy.probe is not None:
        problems.append("strategy probe takes no steps; launch it with `accelerate launch --multi_gpu`")
    if not may_shard:
        problems.append("only `train` can use it; launch without --use_fsdp")
    if problems:
        raise TrainingError(f"this launch asks for FSDP, which this run cannot use so: {'; '.join(problems)}")
    # By default `accelerate launch` lets Transformers load the weights on the first process alone.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def check_trackers(recipe: Recipe) -> None:
    """Refuse a tracker whose package is missing. Raises: TrainingError."""
    for tracker in recipe.trackers:
        if find_spec(tracker) is None:
            raise TrainingError(f"trackers: {tracker} is not installed; try: pip install {tracker}")


def is_compiled(accelerator: Accelerator) -> bool:
    """Whether `prepare` compiles the model, as `accelerate launch --dynamo_backend` demands."""
    return bool(accelerator.state.dynamo_plugin.backend != DynamoBackend.NO)
