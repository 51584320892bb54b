"""What single settings of a recipe do, where no other test shows it: each reaches the object that it is for."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from nlp_ft.data.sources import load_raw_splits
from nlp_ft.durations import Duration
from nlp_ft.errors import ModelError
from nlp_ft.layerwise import LayerMap, LossBelow, Plateau, UnfreezeSchedule
from nlp_ft.models import text_source
from nlp_ft.models.text import build_classifier
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.recipe.sections import OptimizerSection, ScheduleSection
from nlp_ft.recipe.strategy import StrategySection
from nlp_ft.recipe.text import TextDataSection, TextModelSection
from nlp_ft.tasks.registry import task_of
from nlp_ft.training import accelerator, build, schedules
from nlp_ft.training.run import train
from tests.tiny import tiny_config, tiny_recipe

BLOCKS = 4


def schedule_of(**unfreeze: Any) -> UnfreezeSchedule:
    values = {"name": "gradual", "unfreeze": unfreeze}
    return schedules.unfreeze_schedule(StrategySection.model_validate(values), BLOCKS)


def phases_of(**unfreeze: Any) -> list[set[int]]:
    """The layers of each phase; 5 is the head."""
    return [set(phase.layers) for phase in schedule_of(**unfreeze).phases]


def optimizer_of(**settings: Any) -> torch.optim.Optimizer:
    model = AutoModelForSequenceClassification.from_config(tiny_config(num_hidden_layers=BLOCKS))
    section = OptimizerSection.model_validate({"lr": 5e-5, **settings})
    return build.optimizer(section, model, LayerMap.from_model(model))


def rate_of(optimizer: torch.optim.Optimizer, layer_id: int) -> float:
    return float(next(group["lr"] for group in optimizer.param_groups if group["layer_id"] == layer_id))


@pytest.mark.parametrize(("every", "first"), [("1ep", Duration(1, "ep")), (None, Duration(100 / 6, "%"))])
def test_every_is_the_length_of_a_phase_and_null_divides_the_run(every: str | None, first: Duration) -> None:
    assert schedule_of(every=every).phases[1].start == first


def test_order_and_blocks_per_phase_and_embeddings_choose_the_layers_of_the_phases() -> None:
    assert phases_of(order="bottom_up") == [{5}, {5, 1}, {5, 1, 2}, {5, 1, 2, 3}, {5, 1, 2, 3, 4}, {5, 1, 2, 3, 4, 0}]
    assert phases_of(blocks_per_phase=2) == [{5}, {5, 4, 3}, {5, 4, 3, 2, 1}, {5, 4, 3, 2, 1, 0}]
    assert phases_of(blocks_per_phase=4, embeddings="never") == [{5}, {5, 4, 3, 2, 1}]


def test_layers_with_their_times_are_the_phases() -> None:
    schedule = schedule_of(layers="head: 0ep, 3-4: 1ep, 1-2: 30%, embeddings: never")
    assert [set(phase.layers) for phase in schedule.phases] == [{5}, {5, 4, 3}, {5, 4, 3, 2, 1}]
    assert [str(phase.start) for phase in schedule.phases] == ["0st", "1ep", "30%"]


def test_a_plateau_has_its_metric_patience_min_delta_and_bounds() -> None:
    plateau = {"metric": "accuracy", "patience": 3, "min_delta": 0.01, "at_least": "2st", "at_most": "1ep"}
    expected = Plateau("accuracy", 3, 0.01, Duration(2, "st"), Duration(1, "ep"))
    assert {phase.start for phase in schedule_of(plateau=plateau).phases[1:]} == {expected}


def test_a_loss_below_has_its_value_and_bounds() -> None:
    loss_below = {"value": 0.5, "at_least": "2st", "at_most": "1ep"}
    expected = LossBelow(0.5, Duration(2, "st"), Duration(1, "ep"))
    assert {phase.start for phase in schedule_of(loss_below=loss_below).phases[1:]} == {expected}


def test_lr_scales_layer_warmup_and_restart_lr_are_those_of_the_phases() -> None:
    schedule = schedule_of(order="all_at_once", lr_scales=[1, 0.5], layer_warmup="7st", restart_lr=True)
    assert [phase.lr_scale for phase in schedule.phases] == [1, 0.5]
    assert (schedule.layer_warmup, schedule.restart_lr) == (Duration(7, "st"), True)


@pytest.mark.parametrize(
    ("convention", "top_block"), [("top", 1e-3), ("beit", 0.5e-3), ("electra", 0.25e-3), ("ulmfit", 1e-3)]
)
def test_the_convention_decides_the_rate_of_the_top_block(convention: str, top_block: float) -> None:
    optimizer = optimizer_of(lr=1e-3, layer_decay=0.5, convention=convention)
    assert rate_of(optimizer, BLOCKS) == pytest.approx(top_block, rel=1e-12)
    assert rate_of(optimizer, BLOCKS + 1) == 1e-3


def test_betas_eps_and_momentum_are_the_optimizers() -> None:
    adamw = optimizer_of(name="adamw", betas=[0.8, 0.95], eps=1e-6)
    assert {(*group["betas"], group["eps"]) for group in adamw.param_groups} == {(0.8, 0.95, 1e-6)}
    assert optimizer_of(name="sgd", momentum=0.5).defaults["momentum"] == 0.5


def test_null_betas_eps_and_momentum_are_the_optimizers_default_and_a_momentum_of_09() -> None:
    plain = torch.optim.AdamW([torch.zeros(1)])
    adamw = optimizer_of(name="adamw", betas=None, eps=None)
    assert {(group["betas"], group["eps"]) for group in adamw.param_groups} == {(plain.defaults["betas"], 1e-8)}
    assert optimizer_of(name="sgd", momentum=None).defaults["momentum"] == 0.9


def test_warmup_ends_at_the_highest_rate_and_ratio_divides_it_at_the_start() -> None:
    plan: Any = SimpleNamespace(steps_per_epoch=10, total_steps=100)
    linear = schedules.lr_schedule(ScheduleSection(name="linear", warmup=Duration(20, "%")), plan)(100)
    assert [linear(step) for step in (0, 10, 20, 60)] == [0, 0.5, 1, 0.5]
    triangle = ScheduleSection(name="slanted_triangular", warmup=Duration(1, "ep"), ratio=4)
    factor = schedules.lr_schedule(triangle, plan)(100)
    assert [factor(step) for step in (0, 10)] == [0.25, 1]


def test_config_and_revision_are_those_of_the_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(*arguments: object, **settings: object) -> datasets.Dataset:
        asked.append((*arguments, settings))
        return datasets.Dataset.from_dict({"text": ["x"], "label": ["a"]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = TextDataSection(source="nyu/glue", config="sst2", revision="v1", train="train")
    assert load_raw_splits(data)["train"]["text"][:] == ["x"]
    assert asked == [("nyu/glue", "sst2", {"revision": "v1", "split": "train"})]


@pytest.mark.parametrize(
    ("settings", "revision", "trusts"),
    [({}, "main", False), ({"revision": "v1", "trust_remote_code": True}, "v1", True)],
)
def test_revision_and_trust_remote_code_are_those_of_the_hub_model(
    settings: dict[str, Any], revision: str, trusts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load(*arguments: object, **given: object) -> None:
        asked.append((arguments, given))
        raise OSError("not reached")

    monkeypatch.setattr(AutoConfig, "from_pretrained", load)
    monkeypatch.setattr(text_source, "place_of_model", lambda location, revision: location)
    with pytest.raises(ModelError, match="not reached"):
        build_classifier(TextModelSection(name="nobody/none", **settings), ["a", "b"])
    assert asked == [(("nobody/none",), {"revision": revision, "trust_remote_code": trusts})]


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_asks_for_deterministic_kernels_on_a_gpu(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bool] = []
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(accelerator, "PartialState", lambda cpu: SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(accelerator, "mixed_precision", lambda precision, device: "no")
    monkeypatch.setattr(accelerator, "Accelerator", lambda **settings: SimpleNamespace(num_processes=1))
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode, warn_only: asked.append(mode))
    values = {"data": {"train": "a"}, "model": {"name": "m"}, "output_dir": "x"}
    accelerator.start_accelerator(recipe_from_dict({**values, "training": {"deterministic": deterministic}}), tmp_path)
    assert asked == [True] * deterministic


@pytest.mark.parametrize("max_grad_norm", [1e-9, None])
def test_max_grad_norm_bounds_the_step(max_grad_norm: float | None, tmp_path: Path, tiny_encoder: Path) -> None:
    training = {"duration": "1st", "max_grad_norm": max_grad_norm, "evaluate_every": "1st"}
    optimizer = {"name": "sgd", "lr": 0.1, "weight_decay": 0.0}
    recipe = tiny_recipe(tmp_path, tiny_encoder, training=training, optimizer=optimizer, schedule={"warmup": "0st"})
    train(recipe_from_dict(recipe))
    before, after = load_file(tiny_encoder / "model.safetensors"), load_file(tmp_path / "run/model.safetensors")
    names = [name for name in before if f"encoder.{name}" in after]
    moved = math.sqrt(sum(float((after[f"encoder.{name}"] - before[name]).square().sum()) for name in names))
    assert (moved > 1e-4) == (max_grad_norm is None)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_keep_chooses_the_model_of_the_run(keep: str, tmp_path: Path, tiny_encoder: Path) -> None:
    # A rate of 1 spoils the model: the first evaluation, after a step of the warm-up, is the best.
    training = {"duration": "4st", "keep": keep, "evaluate_every": "1st", "metric": "loss"}
    recipe = tiny_recipe(tmp_path, tiny_encoder, training=training, optimizer={"lr": 1.0, "head_lr": 1.0})
    summary = train(recipe_from_dict({**recipe, "schedule": {"name": "constant", "warmup": "1st"}}))
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [record["validation"]["loss"] for record in records if "validation" in record]
    assert losses[0] == min(losses) < losses[-1] / 2
    assert summary["metrics"]["validation"]["loss"] == pytest.approx(losses[0 if keep == "best" else -1])


@pytest.mark.parametrize("group_by_length", [True, False])
def test_group_by_length_puts_texts_of_similar_length_together(group_by_length: bool, tiny_encoder: Path) -> None:
    training = {"group_by_length": group_by_length, "per_device_batch_size": 4}
    values = {"data": {"train": "a"}, "model": {"name": str(tiny_encoder)}, "output_dir": "x", "training": training}
    recipe = recipe_from_dict(values)
    batches = build.effective_batches(recipe, task_of(recipe), num_processes=1)
    lengths = np.tile([3, 90], 40)
    micro = [rows for step in batches.of_epoch(lengths, seed=0, epoch=0) for rows in step]
    assert all(len(set(lengths[rows])) == 1 for rows in micro) == group_by_length


def test_label_names_are_the_labels_in_the_order_of_their_ids(tmp_path: Path, tiny_encoder: Path) -> None:
    data = {"label_names": ["size", "animal", "shape", "colour"]}
    recipe = recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, data=data))
    assert task_of(recipe).label_names() == ["size", "animal", "shape", "colour"]
