"""`audit` finds what will silently go wrong in a training, from its model, optimizer and scheduler, before it runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nlp_ft.errors import LayerMapError, TrainingError, listed
from nlp_ft.layerwise.audit import groups, modules, rates, wrappers
from nlp_ft.layerwise.audit.setup import CannotTell, Finding, TrainingSetup
from nlp_ft.layerwise.layer_map import LayerMap
from nlp_ft.tables import terminal_width, text_table

CHECKS: tuple[Callable[[TrainingSetup], Iterator[Finding]], ...] = (
    groups.everything_frozen,
    groups.trainable_without_group,
    groups.parameter_in_two_groups,
    groups.tied_weight_in_two_groups,
    groups.foreign_parameter,
    groups.frozen_with_gradient,
    groups.frozen_but_decayed,
    groups.frozen_with_momentum,
    groups.norm_or_bias_decayed,
    rates.rates_out_of_order,
    rates.shared_block_decayed,
    rates.lr_scale_unread,
    rates.group_without_schedule,
    rates.scheduler_of_another_optimizer,
    modules.live_batch_norm,
    modules.live_dropout,
    modules.reentrant_checkpointing,
    wrappers.stale_ddp_wrapper,
)
"""Each check yields findings under its own name, or raises `CannotTell` or `LayerMapError`."""


@dataclass(frozen=True)
class AuditReport:
    """The findings of an audit. Its length is their number, so `if audit(...):` asks whether there are any.

    Args:
        findings: the findings, errors first.
        not_checked: `check: reason` for each check that could not be made.
    """

    findings: tuple[Finding, ...]
    not_checked: tuple[str, ...]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    @property
    def has_errors(self) -> bool:
        """Whether a finding is an error."""
        return any(finding.severity == "error" for finding in self)

    def __str__(self) -> str:
        skipped = [f"not checked: {reason}" for reason in self.not_checked]
        made = len(CHECKS) - len(skipped)
        if not self.findings:
            return "\n".join([f"{made} of {len(CHECKS)} checks made, nothing found", *skipped])
        rows = [[found.severity, found.check, listed(found.parameters, 1)] for found in self]
        details = [
            f"{found.check}: {found.what}\n  which:  {listed(found.parameters, 3)}\n"
            f"  effect: {found.effect}\n  remedy: {found.remedy}"
            for found in self
        ]
        table = text_table(["severity", "check", "parameters"], rows, width=terminal_width(), shrink={2})
        title = f"{made} of {len(CHECKS)} checks made, {len(self)} finding(s)"
        return "\n".join([title, "", table, "", *details, *skipped])


def audit(
    model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any = None, *, layer_map: LayerMap | None = None
) -> AuditReport:
    """Check a training for mistakes that cause no error message.

    Call it where training begins, after `model.train()` and after every wrapper, and again whenever other layers train.
    It changes nothing: no weight, flag, mode, gradient or random number. To build the layer map it makes one small
    forward pass, in eval mode and without gradients; your forward hooks see that pass.

    Args:
        model: the model as it is trained: bare, compiled, or in DistributedDataParallel.
        optimizer: its optimizer, bare or as Accelerate prepared it.
        scheduler: its learning-rate scheduler, torch's or a similar one; None if the loop sets the rates.
        layer_map: the model's layer map; None builds it. If the architecture cannot be mapped, the report names the
            checks that need the map as not made.

    Returns:
        The findings, errors first; `str()` of the report is a table.

    Raises:
        TrainingError: there is no model or no optimizer.
    """
    if not isinstance(model, nn.Module) or not hasattr(optimizer, "param_groups"):
        found = f"{type(model).__name__} and {type(optimizer).__name__}"
        raise TrainingError(f"audit takes a model and its optimizer, in this order; got {found}")
    setup = TrainingSetup(model, optimizer, scheduler, layer_map)
    findings: list[Finding] = []
    not_checked: list[str] = []
    for check in CHECKS:
        try:
            # One by one, to keep what a check finds before it has to give up.
            for finding in check(setup):
                findings.append(finding)
        except (CannotTell, LayerMapError) as reason:
            not_checked.append(f"{check.__name__}: {reason}")
        except Exception as error:  # an unusual model may raise anything, and the other checks can still be made
            not_checked.append(f"{check.__name__}: this model cannot be asked, {type(error).__name__}: {error}")
    findings.sort(key=lambda finding: finding.severity)
    return AuditReport(tuple(findings), tuple(not_checked))
