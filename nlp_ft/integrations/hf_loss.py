"""The true loss in a Hugging Face Trainer, for models whose loss is a mean over the micro-batch.

The Trainer takes any model whose `forward` has keyword arguments for one that divides its loss by `num_items_in_batch`,
and so multiplies the loss and the gradients of most classifiers by accumulation steps x processes.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import Trainer

from nlp_ft.layerwise.eval_mode import evaluating

logger = logging.getLogger(__name__)
IGNORED_LABEL = -100
"""Label that Transformers leaves out of the loss."""
# A mixin has no base class; for the type checker it has the class that it will be mixed into.
if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class TrueLossMixin(_Base):
    """Divides the loss by the number of labels in the effective batch, also if the model divides by its own number."""

    _loss_is_mean: bool | None = None
    """Whether the model's loss is a mean over the micro-batch, whatever number it is given; None before the trial."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the loss of a micro-batch as its share of the mean over the effective batch.

        A Trainer whose `loss_is_scaled_for_ga` says how its own loss is scaled is left alone.

        Args:
            model: the model.
            inputs: the micro-batch.
            return_outputs: whether to return the model's outputs too.
            num_items_in_batch: number of labels in the effective batch.

        Returns:
            The loss, or loss and outputs.
        """
        has_own_scale = getattr(self, "loss_is_scaled_for_ga", None) is not None
        if num_items_in_batch is None or has_own_scale or not self._is_mean_loss(inputs, num_items_in_batch):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=num_items_in_batch)
        num_labels = self._count_labels(inputs)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch=None)
        if model.training:
            share = num_labels / self._labels_for_each_process(num_items_in_batch)
            # Without a label the mean is NaN, for which the Trainer would log another number.
            loss = torch.where(share > 0, loss * share, 0.0)
        return (loss, outputs) if return_outputs else loss

    def _labels_for_each_process(self, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        """Return the divisor of a sum with which the mean over processes is the mean over the effective batch."""
        total = torch.as_tensor(num_items_in_batch, device=self.args.device).flatten()[0]
        averaged = self.args.average_tokens_across_devices
        share: torch.Tensor = total / self.accelerator.num_processes if averaged else total * max(1, self.args.n_gpu)
        return share

    def _count_labels(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        labels = inputs["labels"][..., 1:] if getattr(self, "_loss_shifts_labels", False) else inputs["labels"]
        count: torch.Tensor = labels.ne(IGNORED_LABEL).sum()
        return count

    def _is_mean_loss(self, inputs: Mapping[str, Any], num_items_in_batch: torch.Tensor | int) -> bool:
        """Whether the model's loss stays the same when it is told of twice as many items; tried once."""
        if self.compute_loss_func is not None or self.label_smoother is not None:
            return False
        times = self.args.gradient_accumulation_steps * max(self.accelerator.num_processes, self.args.n_gpu)
        if self._loss_is_mean is None and times > 1:
            self._loss_is_mean = self._try_loss(inputs, num_items_in_batch)
            if self._loss_is_mean and self.args.process_index == 0:
                logger.warning(
                    "%s divides its loss by the labels of a micro-batch, which the Trainer does not expect: loss and "
                    "gradients would be up to %d times too large; each micro-batch counts by its labels instead",
                    type(self.model).__name__,
                    times,
                )
        return bool(self._loss_is_mean)

    def _try_loss(self, inputs: Mapping[str, Any], num_items_in_batch: torch.Tensor | int) -> bool:
        assert self.model is not None
        with evaluating(self.model), torch.random.fork_rng():
            once: Any = super().compute_loss(self.model, dict(inputs), num_items_in_batch=num_items_in_batch)
            twice: Any = super().compute_loss(self.model, dict(inputs), num_items_in_batch=num_items_in_batch * 2)
        differs = torch.ne(once, twice) & torch.isfinite(once)
        # All processes must agree, and a process whose labels are all ignored sees no difference.
        return not bool(self.accelerator.gather(differs.reshape(1).int()).any())
