"""Makes whole tensors of sharded ones, whose parts the processes hold, and the other way round."""

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Put a tensor together if it is a sharded one, else return it; collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def gathered(tensors: Mapping[str, torch.Tensor], accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """Put tensors together on the main process, the sharded ones in main memory; empty on the others. Collective."""
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if accelerator.is_main_process:
            found[name] = full.cpu() if isinstance(tensor, DTensor) else full
    return found


@torch.no_grad()
def copy_whole(target: torch.Tensor, values: torch.Tensor) -> None:
    """Copy a whole tensor into one that may be sharded: each process takes its part."""
    if isinstance(target, DTensor):
        values = distribute_tensor(values.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(values)
