"""The layer-wise core: layer maps, optimizer groups, frozen layers, unfreezing phases and learning-rate schedules.

It needs torch and nothing else, so any training loop can use it.
"""

from nlp_ft.layerwise.audit.report import AuditReport, audit
from nlp_ft.layerwise.audit.setup import Finding
from nlp_ft.layerwise.freezing import set_trainable, set_trainable_layers
from nlp_ft.layerwise.layer_map import LayerMap
from nlp_ft.layerwise.lr_schedules import LrSchedule, build_lr_schedule, set_learning_rates
from nlp_ft.layerwise.param_groups import build_optimizer, layerwise_param_groups, lr_scales
from nlp_ft.layerwise.unfreezing.plan import UnfreezePlan, UnfreezeState
from nlp_ft.layerwise.unfreezing.schedule import Phase, UnfreezeSchedule
from nlp_ft.layerwise.unfreezing.triggers import LossBelow, Plateau
from nlp_ft.layerwise.unfreezing.unfreezer import Unfreezer

__all__ = [
    "AuditReport",
    "Finding",
    "LayerMap",
    "LossBelow",
    "LrSchedule",
    "Phase",
    "Plateau",
    "UnfreezePlan",
    "UnfreezeSchedule",
    "UnfreezeState",
    "Unfreezer",
    "audit",
    "build_lr_schedule",
    "build_optimizer",
    "layerwise_param_groups",
    "lr_scales",
    "set_learning_rates",
    "set_trainable",
    "set_trainable_layers",
]
