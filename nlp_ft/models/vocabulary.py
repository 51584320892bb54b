"""Training with only those rows of the embedding table that the data use: all others would merely decay.

A row whose token never occurs has no gradient, so AdamW, SGD and Lion do nothing to it but multiply it by a number, the
same for all such rows. Of BERT's 30,522 rows a data set uses a few thousand, of XLM-R's 250,002 a smaller share; the
gradient, norm, moments and update of the others are a large part of an optimizer's work. To leave them out for good is
vocabulary trimming (Abdaoui et al. 2020, https://arxiv.org/abs/2010.05609); here all rows are back in the end.
"""

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel


def lookup_table(model: PreTrainedModel) -> nn.Embedding | None:
    """The embedding of the tokens, if it does nothing but look up and no other module has its weight."""
    try:
        embedding = model.get_input_embeddings()
    except NotImplementedError:
        return None
    # What a subclass does is not known; a limit on norms changes rows when they are read.
    if type(embedding) is not nn.Embedding or embedding.max_norm is not None or embedding.scale_grad_by_freq:
        return None
    uses = sum(p is embedding.weight for _, p in model.named_parameters(remove_duplicate=False))
    return embedding if uses == 1 else None


class UsedVocabulary:
    """An embedding table that can be cut down to the rows in use for the time of a training.

    In the place of the other rows stands one witness, which no token looks up: the factor that training puts on it is
    the factor on the rows that were left out.

    Args:
        embedding: its forward pass is the one use of its weight.
        used: whether each row is in use, (rows,), bool, on the CPU.
        optimizer: holds the weight, and updates an element from its own gradient and history alone.
    """

    def __init__(self, embedding: nn.Embedding, used: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        table, num_used = embedding.weight, int(used.sum())
        assert isinstance(table, nn.Parameter)
        self.used = used
        self._embedding, self._optimizer = embedding, optimizer
        self._table, self._padding_idx = table, embedding.padding_idx
        self._is_used = used.to(table.device)
        # A token that is not in use gets a place beyond the trimmed table: looking it up is an error.
        self._places = torch.full((len(used),), num_used + 1, device=table.device)
        self._places[self._is_used] = torch.arange(num_used, device=table.device)
        # Many values, each rounded in its own way when it is multiplied by almost 1 thousands of times.
        self._first_witness = torch.linspace(1, 2, table.shape[1], dtype=table.dtype, device=table.device)
        self._trimmed = nn.Parameter(torch.cat([table.detach()[self._is_used], self._first_witness[None]]))
        self._hook: RemovableHandle | None = None

    def trim(self) -> None:
        """Leave the table with the rows in use."""
        padding = self._padding_idx
        self._embedding.padding_idx = None if padding is None or not self.used[padding] else int(self._places[padding])
        self._hook = self._embedding.register_forward_pre_hook(self._find_places)
        self._replace(self._table, self._trimmed)

    def restore(self) -> None:
        """Make the table whole, after `trim`; the rows that are not in use are as they were."""
        assert self._hook is not None
        self._hook.remove()
        self._embedding.padding_idx = self._padding_idx
        with torch.no_grad():
            self._table[self._is_used] = self._trimmed[:-1]
        self._replace(self._trimmed, self._table)

    def decay_unused(self) -> None:
        """Do to the rows that are not in use what training has done to the witness; to be called once."""
        factor = float((self._trimmed[-1].detach().double() / self._first_witness).mean())
        with torch.no_grad():
            self._table[~self._is_used] *= factor

    def _find_places(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._places[args[0]], *args[1:])

    def _replace(self, old: nn.Parameter, new: nn.Parameter) -> None:
        """In the model and in the optimizer, which keeps its state of the old one."""
        new.requires_grad_(old.requires_grad)
        old.grad = None
        self._embedding.weight = new
        for group in self._optimizer.param_groups:
            group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
