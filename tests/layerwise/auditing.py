"""Models, set-ups and questions that the tests of the audit share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torchvision.models import resnet18

from nlp_ft.layerwise import AuditReport, LayerMap, build_optimizer, set_trainable
from tests.layerwise.families import batch, build

NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


LABELS = torch.tensor([0, 1, 0])


def bert(**changes: Any) -> Any:
    """Two blocks, in train mode, without dropout: a frozen part has nothing live in it."""
    return build("bert", **{**NO_DROPOUT, **changes})


def loss(model: nn.Module) -> torch.Tensor:
    return nn.functional.cross_entropy(model(**batch()).logits, LABELS)


def found(report: AuditReport) -> list[str]:
    return [finding.check for finding in report]


def the_only(report: AuditReport, check: str, severity: str = "error") -> tuple[str, ...]:
    """The parameters of the one finding there is."""
    assert [(finding.check, finding.severity) for finding in report] == [(check, severity)]
    return report.findings[0].parameters


def names(model: nn.Module, *starts: str) -> tuple[str, ...]:
    return tuple(name for name, _ in model.named_parameters() if name.startswith(starts))


def moved_by(step: Callable[[], object], model: nn.Module) -> tuple[str, ...]:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step()
    return tuple(name for name, p in model.named_parameters() if not torch.equal(before[name], p))


def freeze_embeddings(model: Any) -> tuple[str, ...]:
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad = False
    return names(model, "bert.embeddings.")


def strategy(lowest: int, **changes: Any) -> tuple[nn.Module, Optimizer, None]:
    """With dropout, which frozen modules must not keep live."""
    model = build("bert")
    layer_map = LayerMap.from_model(model)
    set_trainable(model, layer_map, lowest)
    return model, build_optimizer(model, layer_map=layer_map, **changes), None


def resnet_with_frozen_stages() -> tuple[nn.Module, Optimizer, None]:
    model = resnet18(num_classes=2).train()
    layer_map = LayerMap.from_model(model, grain="stage")
    set_trainable(model, layer_map, 4)
    return model, build_optimizer(model, layer_map=layer_map), None
