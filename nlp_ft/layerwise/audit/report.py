"""`audit`: what will silently go wrong in a training, told from its model, optimizer and scheduler, before it runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nlp_ft.errors import LayerMapError, listed
from nlp_ft.layerwise.audit import groups, modules, rates, wrappers
from nlp_ft.layerwise.audit.setup import CannotTell, Finding, TrainingSetup
from nlp_ft.layerwise.layer_map import LayerMap
from nlp_ft.tables import text_table

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
"""Each gives the findings that carry its own name, or raises CannotTell or LayerMapError."""


@dataclass(frozen=True)
class AuditReport:
    """What an audit found. It is as long as its findings, so `if audit(...):` asks whether there are any."""

    findings: tuple[Finding, ...]
    not_checked: tuple[str, ...]
    """`check: reason` of each check that could not be made."""

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
        title = f"{made} of {len(CHECKS)} checks made, {len(self)} finding(s)"
        return "\n".join([title, "", text_table(["severity", "check", "parameters"], rows), "", *details, *skipped])


def audit(
    model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any = None, *, layer_map: LayerMap | None = None
) -> AuditReport:
    """Check a training for what goes wrong without an error message.

    Call it where training begins, after `model.train()` and after every wrapper, and again after each change of what
    trains. It changes nothing: no weight, flag, mode, gradient or random number. For the layer map one small forward
    pass is made, in eval mode and without gradients; forward hooks of yours see it.

    Args:
        model: the model as it is trained: bare, compiled, or in DistributedDataParallel.
        optimizer: its optimizer, bare or as Accelerate prepared it.
        scheduler: its learning-rate scheduler, torch's or one like them; None where the loop sets the rates.
        layer_map: its layer map; None builds it. Where the architecture cannot be mapped, the report names the checks
            that were therefore not made.

    Returns:
        The findings, the errors first; `str()` of it is a table.
    """
    setup = TrainingSetup(model, optimizer, scheduler, layer_map)
    findings: list[Finding] = []
    not_checked: list[str] = []
    for check in CHECKS:
        try:
            # One by one: what a check finds before it has to give up is kept.
            for finding in check(setup):
                findings.append(finding)
        except (CannotTell, LayerMapError) as reason:
            not_checked.append(f"{check.__name__}: {reason}")
        except Exception as error:  # a model of any make may answer in any way, and the other checks can still be made
            not_checked.append(f"{check.__name__}: this model cannot be asked, {type(error).__name__}: {error}")
    findings.sort(key=lambda finding: finding.severity)
    return AuditReport(tuple(findings), tuple(not_checked))
