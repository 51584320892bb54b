"""Each planted fault is found by its own finding, and sound set-ups have none."""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.distributed as dist
from accelerate import Accelerator
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adafactor, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, ReduceLROnPlateau, SequentialLR, StepLR
from torchvision.models import resnet18
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise import AuditReport, LayerMap, audit, build_optimizer, layerwise_param_groups, set_trainable
from nlp_ft.layerwise.audit import CHECKS
from tests.layerwise.families import batch, build

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LABELS = torch.tensor([0, 1, 0])


def bert(**changes: Any) -> nn.Module:
    """Two blocks, in train mode, without dropout: a frozen part has nothing live in it."""
    return build("bert", **{**NO_DROPOUT, **changes})


def vit() -> nn.Module:
    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16)
    return ViTForImageClassification(config).train()


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


@pytest.fixture
def process_group() -> Iterator[None]:
    """One process, over gloo."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def compiler() -> Iterator[None]:
    """Without the graphs of other tests."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


# --- what the groups hold


def test_a_model_that_is_frozen_as_a_whole() -> None:
    model = bert().requires_grad_(False)
    assert the_only(audit(model, build_optimizer(model)), "everything_frozen") == names(model, "")


def test_parameters_thawed_after_the_optimizer_was_made_over_the_trainable_ones() -> None:
    model = bert()
    layer_map = LayerMap.from_model(model)
    set_trainable(model, layer_map, 2)
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.0)
    assert found(audit(model, optimizer)) == []
    set_trainable(model, layer_map, 1)
    late = the_only(audit(model, optimizer), "trainable_without_group")
    assert late == names(model, "bert.encoder.layer.0.")
    loss(model).backward()
    assert set(moved_by(optimizer.step, model)).isdisjoint(late)


def test_the_published_snippet_that_freezes_what_it_gives_to_the_optimizer() -> None:
    model = bert()
    lower = list(model.parameters())[:-20]
    for parameter in lower:
        parameter.requires_grad = False
    optimizer = AdamW(lower, lr=1e-2, weight_decay=0.0)
    trainable = tuple(name for name, p in model.named_parameters() if p.requires_grad)
    assert len(trainable) == 20
    assert the_only(audit(model, optimizer), "trainable_without_group") == trainable
    loss(model).backward()
    assert moved_by(optimizer.step, model) == ()


def test_the_published_snippet_that_thaws_a_block_which_no_group_holds() -> None:
    model = bert()
    model.bert.requires_grad_(False)
    optimizer = AdamW(model.classifier.parameters(), lr=1e-2, weight_decay=0.0)
    moved = []
    for epoch in range(2):
        if epoch == 1:
            for parameter in model.bert.encoder.layer[1].parameters():
                parameter.requires_grad = True
        report = audit(model, optimizer)
        optimizer.zero_grad()
        loss(model).backward()
        moved.append(moved_by(optimizer.step, model))
    assert the_only(report, "trainable_without_group") == names(model, "bert.encoder.layer.1.")
    assert moved == [("classifier.weight", "classifier.bias")] * 2


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
def test_a_parameter_that_is_listed_twice() -> None:
    model = bert()
    optimizer = SGD([*model.parameters(), *model.classifier.parameters()], lr=0.1)
    assert the_only(audit(model, optimizer), "parameter_in_two_groups") == names(model, "classifier.")


def test_a_parameter_in_two_groups() -> None:
    model = bert()
    optimizer = build_optimizer(model)
    # add_param_group refuses this; a list that somebody extends does not.
    optimizer.param_groups.append({**optimizer.param_groups[-1], "params": [model.classifier.bias], "param_names": []})
    assert the_only(audit(model, optimizer), "parameter_in_two_groups") == ("classifier.bias",)


def test_a_head_that_shares_its_numbers_with_the_embeddings_but_is_another_parameter() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=40, n_embd=16, n_layer=2, n_head=2)).train()
    tied = SGD([{"params": list(model.parameters()), "lr": 0.1}])
    assert found(audit(model, tied)) == []
    model.lm_head.weight = nn.Parameter(model.transformer.wte.weight.data)
    optimizer = SGD(
        [{"params": list(model.transformer.parameters()), "lr": 0.1}, {"params": [model.lm_head.weight], "lr": 0.05}]
    )
    report = audit(model, optimizer)
    assert the_only(report, "tied_weight_in_two_groups") == ("transformer.wte.weight", "lm_head.weight")
    assert "at the rates 0.1 and 0.05" in report.findings[0].what


def test_one_tied_parameter_in_two_groups_with_two_rates() -> None:
    model = build("bert", "masked", **NO_DROPOUT)
    optimizer = build_optimizer(model)
    decoder = model.cls.predictions.decoder.weight
    optimizer.param_groups.append({"params": [decoder], "lr": 1e-7, "weight_decay": 0.0})
    embeddings = "bert.embeddings.word_embeddings.weight"
    assert the_only(audit(model, optimizer), "tied_weight_in_two_groups") == (
        embeddings,
        "cls.predictions.decoder.weight",
    )


def test_an_optimizer_of_the_model_as_it_was_before_it_was_made_anew() -> None:
    model = bert()
    optimizer = build_optimizer(model)
    anew = copy.deepcopy(model)
    report = audit(anew, optimizer)
    # Both are true: what it holds is not of the model, and what is of the model it does not hold.
    assert sorted(found(report)) == ["foreign_parameter", "trainable_without_group"]
    assert {finding.severity for finding in report} == {"error"}
    assert set(report.findings[1].parameters) == set(names(anew, ""))


def test_the_parameters_of_a_loss_are_only_worth_a_warning() -> None:
    model = bert()
    optimizer = SGD([{"params": list(model.parameters())}, {"params": [nn.Parameter(torch.zeros(3))]}], lr=0.1)
    assert the_only(audit(model, optimizer), "foreign_parameter", "warning") == ("a tensor of shape (3,)",)


def freeze_embeddings(model: nn.Module) -> tuple[str, ...]:
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad = False
    return names(model, "bert.embeddings.")


def test_a_frozen_parameter_with_a_gradient_from_before_is_found_and_does_move() -> None:
    model = bert()
    optimizer = SGD(model.parameters(), lr=0.1)
    loss(model).backward()
    frozen = freeze_embeddings(model)
    assert the_only(audit(model, optimizer), "frozen_with_gradient") == frozen
    assert set(moved_by(optimizer.step, model)) >= set(frozen)


def test_a_frozen_parameter_with_zeros_for_a_gradient_is_decayed() -> None:
    model = bert()
    optimizer = build_optimizer(model, weight_decay=0.1, lr=0.1)
    loss(model).backward()
    optimizer.zero_grad(set_to_none=False)
    frozen = freeze_embeddings(model)
    decayed = the_only(audit(model, optimizer), "frozen_but_decayed")
    assert decayed == tuple(name for name in frozen if "LayerNorm" not in name)
    assert set(moved_by(optimizer.step, model)) & set(frozen) == set(decayed)


def test_a_frozen_parameter_with_zeros_for_a_gradient_rolls_on_with_its_momentum() -> None:
    model = bert()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss(model).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    frozen = freeze_embeddings(model)
    assert the_only(audit(model, optimizer), "frozen_with_momentum") == frozen
    assert set(moved_by(optimizer.step, model)) >= set(frozen)


def test_zeros_for_a_gradient_move_nothing_without_decay_and_momentum() -> None:
    model = bert()
    optimizer = AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    loss(model).backward()
    optimizer.zero_grad(set_to_none=False)
    frozen = freeze_embeddings(model)
    assert found(audit(model, optimizer)) == []
    assert set(moved_by(optimizer.step, model)).isdisjoint(frozen)


def test_decayed_norms_and_biases() -> None:
    model = bert()
    spared = the_only(audit(model, AdamW(model.parameters())), "norm_or_bias_decayed", "warning")
    assert spared == tuple(name for name, p in model.named_parameters() if p.ndim == 1)


# --- rates


def test_layers_that_learn_faster_than_those_above_them() -> None:
    model = bert()
    groups = layerwise_param_groups(model, layer_decay=0.5)
    for group in groups:
        group["lr"] = group["initial_lr"] = 1e-5 if group["layer_id"] == 2 else 1e-4
        del group["lr_scale"]
    report = audit(model, AdamW(groups))
    assert the_only(report, "rates_out_of_order", "warning") == names(
        model, "bert.embeddings.", "bert.encoder.layer.0."
    )
    assert "block 1 faster than block 2; embeddings faster than block 2" in report.findings[0].what


def test_the_order_of_the_rates_is_that_of_the_run_and_not_of_the_moment() -> None:
    model = bert()
    optimizer = build_optimizer(model)
    scheduler = LambdaLR(optimizer, lambda step: step / 10)
    assert {group["lr"] for group in optimizer.param_groups} == {0.0}
    assert found(audit(model, optimizer, scheduler)) == []
    for group in optimizer.param_groups:
        group["initial_lr"] = 1.0 / (1 + group["layer_id"])
        del group["lr_scale"]
    assert found(audit(model, optimizer, scheduler)) == ["rates_out_of_order"]


def test_layer_decay_over_the_one_block_of_albert() -> None:
    model = build("albert", num_layers=4, classifier_dropout_prob=0.0, **NO_DROPOUT)
    shared = the_only(audit(model, build_optimizer(model)), "shared_block_decayed", "warning")
    assert shared == names(model, "albert.encoder.albert_layer_groups.")


class Loop(nn.Module):
    """One block that runs three times, as in a universal transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))] * 3)
        self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.stem(values)
        for block in self.blocks:
            values = block(values)
        return self.head(values)


def test_layer_decay_over_a_block_that_runs_three_times() -> None:
    model = Loop()
    layer_map = LayerMap.from_model(model, example=torch.ones(1, 4))
    optimizer = build_optimizer(model, layer_map=layer_map)
    report = audit(model, optimizer, layer_map=layer_map)
    assert the_only(report, "shared_block_decayed", "warning") == names(model, "blocks.")
    one_rate = build_optimizer(model, layer_map=layer_map, layer_decay=1.0, head_lr=1e-3)
    assert found(audit(model, one_rate, layer_map=layer_map)) == []


def timm_vit() -> nn.Module:
    return timm.models.VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=2)


def test_the_scales_of_timm_under_a_scheduler_of_torch() -> None:
    model = timm_vit()
    optimizer = AdamW(param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.75), lr=1e-3)
    scheduler = LambdaLR(optimizer, lambda step: 1.0)
    assert set(the_only(audit(model, optimizer, scheduler), "lr_scale_unread")) == set(names(model, ""))
    assert the_only(audit(model, optimizer), "lr_scale_unread", "warning")


def test_the_scales_of_timm_under_its_own_scheduler_are_read() -> None:
    model = timm_vit()
    optimizer = AdamW(param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.75), lr=1e-3)
    assert found(audit(model, optimizer, CosineLRScheduler(optimizer, t_initial=10))) == []


def test_the_scales_of_timm_that_the_loop_multiplies_in_are_read() -> None:
    model = timm_vit()
    optimizer = AdamW(param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.75), lr=1e-3)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3 * group["lr_scale"]
    assert found(audit(model, optimizer)) == []


def late_head(model: nn.Module) -> tuple[Optimizer, Callable[[], None]]:
    optimizer = SGD(model.bert.parameters(), lr=0.1)
    return optimizer, lambda: optimizer.add_param_group({"params": list(model.classifier.parameters()), "lr": 0.7})


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: LambdaLR(optimizer, lambda step: 1.0),
        lambda optimizer: SequentialLR(optimizer, [LinearLR(optimizer), LambdaLR(optimizer, lambda step: 1.0)], [5]),
    ],
)
def test_a_group_added_after_the_scheduler_was_made(make: Callable[[Optimizer], Any]) -> None:
    model = bert()
    optimizer, add = late_head(model)
    scheduler = make(optimizer)
    add()
    report = audit(model, optimizer, scheduler)
    assert the_only(report, "group_without_schedule") == ("classifier.weight", "classifier.bias")
    assert "0.7" in report.findings[0].effect


def test_a_scheduler_that_reaches_late_groups_is_sound() -> None:
    model = bert()
    optimizer, add = late_head(model)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.5)
    add()
    assert found(audit(model, optimizer, scheduler)) == []
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.35]


def test_a_scheduler_of_an_optimizer_that_was_made_anew() -> None:
    model = bert()
    scheduler = LambdaLR(build_optimizer(model), lambda step: 1.0)
    assert the_only(audit(model, build_optimizer(model), scheduler), "scheduler_of_another_optimizer")


# --- modules


def test_batch_norm_that_stays_live_in_frozen_stages() -> None:
    model = resnet18(num_classes=2).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(("layer4.", "fc."))
    optimizer = SGD(model.parameters(), lr=0.1)
    live = the_only(audit(model, optimizer), "live_batch_norm")
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(torch.randn(2, 3, 32, 32))
    moved = {name for name, value in model.named_buffers() if not torch.equal(before[name], value)}
    assert set(live) == {name for name in moved if name.endswith("mean") and not name.startswith("layer4.")}
    assert len(live) == 15


def test_dropout_that_stays_live_in_a_frozen_encoder() -> None:
    model = build("bert")
    model.bert.requires_grad_(False)
    live = the_only(audit(model, build_optimizer(model)), "live_dropout", "warning")
    assert "bert.embeddings.dropout" in live
    # The dropout before the classifier is part of what trains.
    assert "dropout" not in live


def test_in_eval_mode_the_report_says_that_it_cannot_tell_what_will_be_live() -> None:
    model = build("bert").eval()
    model.bert.requires_grad_(False)
    report = audit(model, build_optimizer(model))
    assert found(report) == []
    assert report.not_checked == ("live_dropout: the model is in eval mode; call audit after model.train()",)


def gradients(model: nn.Module) -> set[str]:
    model(pixel_values=torch.randn(2, 3, 16, 16)).logits.sum().backward()
    return {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}


# Transformers makes the embeddings of input_ids pass gradients on, but not those of pixels.
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize(("every", "lost"), [(1, ("layers.0.", "layers.1.")), (2, ("layers.0.",))])
def test_blocks_under_reentrant_checkpointing_over_frozen_embeddings(every: int, lost: tuple[str, ...]) -> None:
    model = vit()
    model.vit.embeddings.requires_grad_(False)
    model.activation_checkpointing_enable({"use_reentrant": True}, every_n_layers=every)
    optimizer = AdamW(model.parameters(), weight_decay=0.0)
    without = the_only(audit(model, optimizer), "reentrant_checkpointing")
    assert all(any(part in name for part in lost) for name in without)
    assert set(without) == gradients(model)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_that_passes_gradients_on_is_sound(reentrant: bool) -> None:
    model = vit()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    # Reentrant with trainable embeddings, and not reentrant over frozen ones.
    model.vit.embeddings.requires_grad_(reentrant)
    assert found(audit(model, AdamW(model.parameters(), weight_decay=0.0))) == []
    assert gradients(model) == set()


def test_reentrant_checkpointing_of_text_where_transformers_mends_the_embeddings_is_sound() -> None:
    model = bert()
    freeze_embeddings(model)
    model.activation_checkpointing_enable({"use_reentrant": True})
    assert found(audit(model, build_optimizer(model))) == []
    loss(model).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


# --- wrappers


@pytest.mark.usefixtures("process_group")
def test_a_ddp_wrapper_that_is_older_than_an_unfreezing() -> None:
    model = bert()
    layer_map = LayerMap.from_model(model)
    optimizer = build_optimizer(model)
    set_trainable(model, layer_map, 2)
    wrapper = DistributedDataParallel(model, find_unused_parameters=True)
    assert found(audit(wrapper, optimizer)) == []
    set_trainable(model, layer_map, 1)
    late = the_only(audit(wrapper, optimizer), "stale_ddp_wrapper")
    assert late == tuple(f"module.{name}" for name in names(model, "bert.encoder.layer.0."))
    assert found(audit(DistributedDataParallel(model), optimizer)) == []


@pytest.mark.usefixtures("process_group")
def test_a_ddp_wrapper_that_waits_for_what_was_frozen_after_it() -> None:
    model = bert()
    layer_map = LayerMap.from_model(model)
    optimizer = build_optimizer(model)
    waiting, asking = DistributedDataParallel(model), DistributedDataParallel(model, find_unused_parameters=True)
    set_trainable(model, layer_map, 1)
    assert the_only(audit(waiting, optimizer), "stale_ddp_wrapper")[0] == (
        "module.bert.embeddings.word_embeddings.weight"
    )
    assert found(audit(asking, optimizer)) == []


def unguarded() -> dict[str, Any]:
    """Options under which a graph does not check the modules; a new dict, for torch.compile empties it."""
    return {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}


class Small(nn.Module):
    """Compiles in a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.upper(torch.tanh(self.lower(values)))


def small_map(model: nn.Module) -> LayerMap:
    return LayerMap({name: 2 if "upper" in name else 1 for name, _ in model.named_parameters()}, 1)


def run(model: nn.Module) -> set[str]:
    """Names of the trainable parameters without a gradient after a step."""
    model.zero_grad()
    model(torch.ones(3, 4)).sum().backward()
    return {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}


@pytest.mark.usefixtures("compiler")
def test_a_compiled_graph_that_is_older_than_an_unfreezing_and_does_not_notice() -> None:
    model = Small()
    model.lower.requires_grad_(False)
    compiled = torch.compile(model, backend="aot_eager", options=unguarded())
    optimizer = SGD(model.parameters(), lr=0.1)
    layer_map = small_map(compiled)
    assert run(compiled) == set()
    assert found(audit(compiled, optimizer, layer_map=layer_map)) == []
    model.lower.requires_grad_(True)
    lost = the_only(audit(compiled, optimizer, layer_map=layer_map), "stale_compiled_graph")
    assert set(lost) == run(compiled) == {"_orig_mod.lower.weight", "_orig_mod.lower.bias"}
    torch.compiler.reset()
    assert found(audit(compiled, optimizer, layer_map=layer_map)) == []
    assert run(compiled) == set()


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(("backend", "options"), [("aot_eager", None), ("eager", unguarded())])
def test_a_compiled_graph_that_notices_or_runs_as_it_is_written_is_sound(backend: str, options: Any) -> None:
    model = Small()
    model.lower.requires_grad_(False)
    compiled = torch.compile(model, backend=backend, options=options)
    optimizer = SGD(model.parameters(), lr=0.1)
    run(compiled)
    model.lower.requires_grad_(True)
    report = audit(compiled, optimizer, layer_map=small_map(compiled))
    assert (found(report), report.not_checked) == ([], ())
    assert run(compiled) == set()


@pytest.mark.usefixtures("compiler")
def test_a_stale_graph_of_a_bert_compiled_in_place() -> None:
    model = bert()
    layer_map = LayerMap.from_model(model)
    set_trainable(model, layer_map, 2)
    model.compile(backend="aot_eager", options=unguarded())
    optimizer = build_optimizer(model)
    loss(model).backward()
    assert found(audit(model, optimizer)) == []
    set_trainable(model, layer_map, 1)
    assert the_only(audit(model, optimizer), "stale_compiled_graph") == names(model, "bert.encoder.layer.0.")
    model.zero_grad()
    loss(model).backward()
    assert {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None} == set(
        names(model, "bert.encoder.layer.0.")
    )


# --- sound set-ups have no finding


def resnet_with_frozen_stages() -> tuple[nn.Module, Optimizer, None]:
    model = resnet18(num_classes=2).train()
    layer_map = LayerMap.from_model(model, grain="stage")
    set_trainable(model, layer_map, 4)
    return model, build_optimizer(model, layer_map=layer_map), None


def strategy(lowest: int, **changes: Any) -> tuple[nn.Module, Optimizer, None]:
    """With dropout, which frozen modules must not keep live."""
    model = build("bert")
    layer_map = LayerMap.from_model(model)
    set_trainable(model, layer_map, lowest)
    return model, build_optimizer(model, layer_map=layer_map, **changes), None


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
    return trainer.model, trainer.optimizer, trainer.lr_scheduler


def frozen_and_thawed_in_the_course_of_a_training() -> tuple[nn.Module, Optimizer, None]:
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
    "frozen and thawed": frozen_and_thawed_in_the_course_of_a_training,
    "albert with one rate": albert_with_one_rate,
    "tied embeddings": tied_embeddings,
    "resnet18 with frozen stages": resnet_with_frozen_stages,
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_set_up_has_no_finding_and_nothing_is_left_unchecked(name: str) -> None:
    report = audit(*SOUND[name]())
    assert (report.findings, report.not_checked) == ((), ())
    assert not report
    assert str(report) == "19 of 19 checks made, nothing found"


@pytest.mark.usefixtures("process_group")
def test_a_model_wrapped_anew_after_each_change_of_what_trains_is_sound() -> None:
    model, optimizer, _ = strategy(3)
    for lowest in (3, 1, 2):
        set_trainable(model, LayerMap.from_model(model), lowest)
        wrapper = DistributedDataParallel(model, find_unused_parameters=False)
        loss(wrapper).backward()
        optimizer.step()
        optimizer.zero_grad()
        report = audit(wrapper, optimizer)
        assert (report.findings, report.not_checked) == ((), ())


# --- the audit itself


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
        np.random.get_state()[1].tolist(),  # the state that a library might use
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
    compiled = torch.compile(wrapper, backend="eager")
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
    assert str(report).startswith("17 of 19 checks made, 1 finding(s)\n")


def test_a_scheduler_that_tells_no_optimizer_is_said_to_be_unchecked() -> None:
    model = bert()
    report = audit(model, build_optimizer(model), object())
    assert report.not_checked == ("scheduler_of_another_optimizer: object does not say which optimizer it schedules",)


def test_the_report_reads_as_a_table_with_effects_and_remedies() -> None:
    model = bert()
    model.bert.requires_grad_(False)
    report = audit(model, SGD([model.classifier.weight], lr=0.1))
    assert str(report) == (
        "19 of 19 checks made, 1 finding(s)\n"
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
    assert len({check.__name__ for check in CHECKS}) == len(CHECKS) == 19
    assert all(check.__doc__ for check in CHECKS)
