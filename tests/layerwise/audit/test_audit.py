"""Sound set-ups have no finding, an audit changes nothing, and its report can be read."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adafactor, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, ReduceLROnPlateau, SequentialLR
from torchvision.models import get_model
from transformers import Trainer, TrainingArguments

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise import AuditReport, LayerMap, audit, build_optimizer, set_trainable
from nlp_ft.layerwise.audit.report import CHECKS
from tests.layerwise.auditing import (
    bert,
    found,
    freeze_embeddings,
    loss,
    resnet_with_frozen_stages,
    strategy,
    the_only,
)
from tests.layerwise.families import FAMILIES, batch, build


def scheduled(make: Callable[[Optimizer], Any], steps: int = 0) -> tuple[nn.Module, Optimizer, Any]:
    model, optimizer, _ = strategy(2, head_lr=1e-3)
    scheduler = make(optimizer)
    for _ in range(steps):
        loss(model).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return model, optimizer, scheduler


def prepared_by_accelerate() -> tuple[nn.Module, Optimizer, Any]:
    model, optimizer, scheduler = scheduled(lambda optimizer: LambdaLR(optimizer, lambda step: 0.5))
    return tuple(Accelerator(cpu=True).prepare(model, optimizer, scheduler))


def of_the_hugging_face_trainer() -> tuple[nn.Module, Optimizer, Any]:
    trainer = Trainer(build("bert"), TrainingArguments(weight_decay=0.01, use_cpu=True, report_to=[]))
    trainer.create_optimizer_and_scheduler(num_training_steps=10)
    assert trainer.model is not None
    assert trainer.optimizer is not None
    return trainer.model, trainer.optimizer, trainer.lr_scheduler


def frozen_and_unfrozen_in_the_course_of_a_training() -> tuple[nn.Module, Optimizer, None]:
    model, optimizer, _ = strategy(0, optimizer_class=SGD, momentum=0.9)
    for lowest in (0, 3, 1):
        set_trainable(model, LayerMap.from_model(model), lowest)
        loss(model).backward()
        optimizer.step()
        # Zeros, not None: set_trainable drops them from what it freezes.
        optimizer.zero_grad(set_to_none=False)
    set_trainable(model, LayerMap.from_model(model), 2)
    return model, optimizer, None


def albert_with_one_rate() -> tuple[nn.Module, Optimizer, None]:
    model = build("albert", num_layers=4)
    return model, build_optimizer(model, layer_decay=1.0, head_lr=1e-3), None


def tied_embeddings() -> tuple[nn.Module, Optimizer, None]:
    model = build("bert", "masked")
    return model, build_optimizer(model), None


SOUND: dict[str, Callable[[], tuple[nn.Module, Optimizer, Any]]] = {
    "full": lambda: strategy(0, layer_decay=1.0),
    "llrd": lambda: strategy(0, layer_decay=0.5, head_lr=1e-3),
    "llrd as beit": lambda: strategy(0, layer_decay=0.5, convention="beit"),
    "llrd as electra": lambda: strategy(0, layer_decay=0.5, convention="electra"),
    "head_only": lambda: strategy(3),
    "top_layers": lambda: strategy(2, head_lr=1e-3),
    "sgd": lambda: strategy(0, optimizer_class=SGD, momentum=0.9),
    "adafactor": lambda: strategy(2, optimizer_class=Adafactor),
    "with a warm-up": lambda: scheduled(lambda optimizer: LambdaLR(optimizer, lambda step: min(1.0, step / 3))),
    "two schedules in line": lambda: scheduled(
        lambda optimizer: SequentialLR(optimizer, [LinearLR(optimizer), LambdaLR(optimizer, lambda step: 1.0)], [2]), 3
    ),
    "on a plateau": lambda: scheduled(ReduceLROnPlateau),
    "accelerate": prepared_by_accelerate,
    "hugging face trainer": of_the_hugging_face_trainer,
    "frozen and unfrozen": frozen_and_unfrozen_in_the_course_of_a_training,
    "albert with one rate": albert_with_one_rate,
    "tied embeddings": tied_embeddings,
    "resnet18 with frozen stages": resnet_with_frozen_stages,
}


def audited_at_each_depth(model: nn.Module) -> list[tuple[str, ...]]:
    """What the audit finds with everything, the upper half and the head alone trained, by our own means."""
    layer_map = LayerMap.from_model(model)
    reports = []
    for lowest in (0, layer_map.num_layers // 2 + 1, layer_map.head_layer):
        set_trainable(model, layer_map, lowest)
        reports.append(audit(model.train(), build_optimizer(model, layer_map=layer_map, head_lr=1e-3)))
    assert [report.not_checked for report in reports] == [()] * 3
    return [tuple(found(report)) for report in reports]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_sound_at_each_depth_but_for_the_shared_block_of_albert(family: str) -> None:
    whole = ("shared_block_decayed",) if family == "albert" else ()
    assert audited_at_each_depth(build(family)) == [whole, (), ()]


CNNS = ["alexnet", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf"]
CNNS += ["convnext_tiny", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "vgg11_bn", "maxvit_t", "inception_v3"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CNNS)
def test_torchvisions_models_are_sound_at_each_depth(name: str) -> None:
    unset = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    assert audited_at_each_depth(get_model(name, **unset)) == [(), (), ()]


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_set_up_has_no_finding_and_nothing_is_left_unchecked(name: str) -> None:
    report = audit(*SOUND[name]())
    assert (report.findings, report.not_checked) == ((), ())
    assert not report
    assert str(report) == "18 of 18 checks made, nothing found"


def everything_about(model: nn.Module, optimizer: Optimizer, scheduler: Any) -> list[Any]:
    """Whatever an audit could have changed, as values that can be compared."""
    parameters = list(model.parameters())
    return [
        [(name, set(vars(module)), module.training) for name, module in model.named_modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        [(id(p), p._version, p.requires_grad, id(p.grad), p.grad is None or p.grad.sum().item()) for p in parameters],
        {name: value.sum().item() for name, value in model.state_dict().items()},
        [{**group, "params": [id(p) for p in group["params"]]} for group in optimizer.param_groups],
        {id(p): {key: float(value.sum()) for key, value in state.items()} for p, state in optimizer.state.items()},
        copy.deepcopy(scheduler.state_dict()) if scheduler else None,
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state(legacy=False)["state"]["key"].tolist(),  # the state that a library might use
        torch.is_grad_enabled(),
    ]


def with_many_faults() -> tuple[nn.Module, Optimizer, Any]:
    """Half frozen with gradients, live dropout and BatchNorm-free blocks, a late group, momentum."""
    model = build("bert", "masked")
    optimizer = SGD(model.bert.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    scheduler = LambdaLR(optimizer, lambda step: 1.0)
    model(**batch()).logits.sum().backward()
    optimizer.step()
    optimizer.add_param_group({"params": [model.cls.predictions.bias], "lr": 0.2})
    freeze_embeddings(model)
    return model, optimizer, scheduler


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("make", [with_many_faults, resnet_with_frozen_stages, *list(SOUND.values())[5:12]])
def test_an_audit_changes_nothing(make: Callable[[], tuple[nn.Module, Optimizer, Any]], mode: bool) -> None:
    model, optimizer, scheduler = make()
    model.train(mode)
    before = everything_about(model, optimizer, scheduler)
    first = audit(model, optimizer, scheduler)
    assert everything_about(model, optimizer, scheduler) == before
    assert audit(model, optimizer, scheduler) == first


@pytest.mark.usefixtures("process_group", "compiler")
def test_an_audit_changes_nothing_of_wrappers_and_compiles_nothing() -> None:
    model, optimizer, _ = strategy(2)
    wrapper = DistributedDataParallel(model)
    compiled: Any = torch.compile(wrapper, backend="eager")
    before = everything_about(compiled, optimizer, None)
    compilations = dict(torch._dynamo.utils.counters["stats"])
    audit(compiled, optimizer)
    assert everything_about(compiled, optimizer, None) == before
    assert dict(torch._dynamo.utils.counters["stats"]) == compilations
    loss(compiled).backward()


def test_all_faults_of_one_set_up_are_found_at_once_the_errors_first() -> None:
    report = audit(*with_many_faults())
    assert found(report) == [
        "trainable_without_group",
        "frozen_with_gradient",
        "group_without_schedule",
        "norm_or_bias_decayed",
        "live_dropout",
    ]
    assert report.has_errors
    assert not AuditReport(report.findings[3:], ()).has_errors


def test_a_model_that_cannot_be_mapped_is_audited_but_for_its_layers_and_that_is_said() -> None:
    model = nn.Linear(4, 2)
    report = audit(model, SGD([model.weight], lr=0.1))
    assert the_only(report, "trainable_without_group") == ("bias",)
    assert [reason.partition(":")[0] for reason in report.not_checked] == ["rates_out_of_order", "shared_block_decayed"]
    with pytest.raises(LayerMapError) as reason:
        LayerMap.from_model(model)
    assert str(report).splitlines()[-1] == f"not checked: shared_block_decayed: {reason.value}"
    assert str(report).startswith("16 of 18 checks made, 1 finding(s)\n")


def test_a_scheduler_that_tells_no_optimizer_is_said_to_be_unchecked() -> None:
    model = bert()
    report = audit(model, build_optimizer(model), object())
    assert report.not_checked == ("scheduler_of_another_optimizer: object does not say which optimizer it schedules",)


def test_the_report_reads_as_a_table_with_effects_and_remedies() -> None:
    model = bert()
    model.bert.requires_grad_(False)
    report = audit(model, SGD([model.classifier.weight], lr=0.1))
    assert str(report) == (
        "18 of 18 checks made, 1 finding(s)\n"
        "\n"
        "severity  check                    parameters\n"
        "--------  -----------------------  ---------------\n"
        "error     trainable_without_group  classifier.bias\n"
        "\n"
        "trainable_without_group: 1 trainable parameter is in no group of the optimizer\n"
        "  which:  classifier.bias\n"
        "  effect: They get gradients, and no step ever updates them.\n"
        "  remedy: Build the optimizer over all parameters, the frozen ones too, before freezing any of them."
    )
    assert str(report.findings[0]).startswith("error: trainable_without_group: 1 trainable parameter is in no group")


def test_each_check_has_a_name_of_its_own_and_says_what_it_looks_for() -> None:
    assert len({check.__name__ for check in CHECKS}) == len(CHECKS) == 18
    assert all(check.__doc__ for check in CHECKS)
