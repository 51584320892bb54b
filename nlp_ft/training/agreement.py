"""Keeps the processes of a run together: they compare their weights, and an error of one ends all."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast, gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule

from nlp_ft.errors import NlpFtError, TrainingError
from nlp_ft.layerwise.modes import keeps_statistics
from nlp_ft.training.whole_tensors import whole


def weights_hash(model: nn.Module) -> str:
    """Hash all parameters and buffers of a model; one different bit gives another hash."""
    digest = blake2b(digest_size=16)
    for _, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(whole(tensor.detach()).cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_equal_weights(accelerator: Accelerator, model: nn.Module) -> list[str]:
    """Compare the weights of all processes; return a hash for each rank, or none if there is one process.

    Of a sharded model there is one copy, and nothing to compare.

    Raises:
        TrainingError: the weights differ.
    """
    if accelerator.num_processes == 1 or isinstance(model, FSDPModule):
        return []
    hashes: list[str] = gather_object([weights_hash(model)])
    if len(set(hashes)) > 1:
        raise TrainingError(
            f"the {accelerator.num_processes} processes no longer hold the same weights ({', '.join(hashes)}); "
            "the run is stopped, and the last checkpoint was still equal on all"
        )
    return hashes


def share_statistics(accelerator: Accelerator, model: nn.Module) -> None:
    """Give all processes the running statistics of the main one, as its wrapper does before the next pass; collective.

    Each process counts those of its own micro-batches (BatchNorm), so after a step they differ.
    """
    if accelerator.num_processes > 1:
        for module in filter(keeps_statistics, model.modules()):
            broadcast(list(module.buffers(recurse=False)))


@contextmanager
def errors_of_all(accelerator: Accelerator | PartialState) -> Iterator[None]:
    """Raise an error that one process meets inside on all processes, so that none waits; collective."""
    own: NlpFtError | None = None
    try:
        yield
    except NlpFtError as error:
        own = error
    first = next((error for error in gather_object([own]) if error is not None), None)
    if first is not None:
        raise first
