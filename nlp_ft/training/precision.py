"""Chooses the number format for computing: the one of the recipe, or the one that the hardware supports natively."""

import torch
from accelerate import Accelerator

from nlp_ft.errors import TrainingError


def mixed_precision(precision: str, device: torch.device) -> str:
    """Choose Accelerate's word for the precision: `no`, `bf16` or `fp16`.

    `auto` is bf16 where the device multiplies matrices in it natively. Elsewhere bf16 is emulated, which can cost
    several times the time of float32.

    Raises:
        TrainingError: fp16 without a GPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise TrainingError("training.precision: fp16 needs a GPU; use auto, bf16 or fp32")
    if precision == "auto":
        return "bf16" if has_native_bf16(device) else "no"
    return "no" if precision == "fp32" else precision


def precision_of_use(precision: str, device: torch.device) -> str:
    """Choose the precision for using a run after training, by the rule of `mixed_precision`.

    A run that was trained in fp16 on a GPU is computed in float32 on a CPU; float32 holds every number of fp16.
    """
    return "no" if precision == "fp16" and device.type == "cpu" else mixed_precision(precision, device)


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16 matrix products (Ampere or newer, AMX, AVX512-BF16)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False


def precision_name(accelerator: Accelerator) -> str:
    """Name the precision of a run: `fp32`, `bf16` or `fp16`."""
    return "fp32" if accelerator.mixed_precision == "no" else str(accelerator.mixed_precision)
