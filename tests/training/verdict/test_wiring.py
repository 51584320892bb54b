"""The verdict of real runs of a tiny model: what is collected, stored and shown; and which baselines a run computes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from nlp_ft.layerwise import LayerMap
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.tasks import baselines
from nlp_ft.tasks.classes import ClassOutputs
from nlp_ft.tasks.registry import task_of
from nlp_ft.tasks.text_regression import NumberOutputs
from nlp_ft.training.run import train
from nlp_ft.training.verdict.collect import random_layers
from tests.tiny import save_tiny_encoder, tiny_config, tiny_recipe


def run(folder: Path, encoder: Path, **changes: Any) -> dict[str, Any]:
    return train(recipe_from_dict(tiny_recipe(folder, encoder, **changes)))


def test_a_run_with_a_tiny_rate_says_so_on_the_screen_in_the_summary_and_in_the_model_card(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(tmp_path, tiny_encoder, optimizer={"lr": 1e-9, "head_lr": 1e-9})
    leaked, cause = summary["verdict"][:2]  # the tiny splits share texts
    assert (leaked["code"], cause["code"]) == ("rows_in_train", "rate_too_low")
    assert cause["do"] == "set optimizer.lr to 0.0003"
    assert json.loads((tmp_path / "run/summary.json").read_text())["verdict"] == summary["verdict"]
    printed = capsys.readouterr().out
    assert "\nverdict\n- " in printed
    assert "\n- The loss hardly moved: " in printed
    assert "optimizer.lr 1e-09 is below the usual rates" in (tmp_path / "run/README.md").read_text()


def test_a_head_on_a_random_encoder_is_told_which_layers_are_random(tmp_path: Path, tiny_encoder: Path) -> None:
    summary = run(tmp_path, tiny_encoder, strategy="head_only", optimizer={"lr": 1e-4})
    [says] = [remark["says"] for remark in summary["verdict"] if remark["code"] == "frozen_random"]
    assert "embeddings, block 1, block 2" in says


def test_frozen_layers_are_random_while_all_their_vectors_are_constant() -> None:
    model = AutoModelForSequenceClassification.from_config(tiny_config())
    layer_map = LayerMap.from_model(model)
    assert random_layers(model, layer_map) == []  # nothing is frozen
    model.requires_grad_(False)
    assert random_layers(model, layer_map) == ["embeddings", "block 1", "block 2"]
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.bias[3] = 0.1
    assert random_layers(model, layer_map) == ["embeddings", "block 2"]


def test_baselines_change_no_weight_of_a_run(tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder")
    weights = []
    for setting in (True, False):
        folder = tmp_path / str(setting)
        folder.mkdir()
        summary = run(folder, encoder, baselines=setting)
        assert bool(summary["baselines"]) is setting
        weights.append(load_file(folder / "run/model.safetensors"))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_baselines_are_computed_for_small_data_alone_unless_the_recipe_says(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [baselines.are_wanted(setting, rows) for setting in ("auto", True, False) for rows in (20_000, 20_001)]
    assert wanted == [True, False, True, True, False, False]
    monkeypatch.setattr(baselines, "MOST_ROWS", 49)
    assert run(tmp_path, tiny_encoder)["baselines"] == {}
    assert (
        "\nbaselines: none, as train has more than 49 rows; baselines: true computes them\n" in capsys.readouterr().out
    )


def test_rows_of_one_label_have_the_baseline_of_the_majority_alone(tmp_path: Path, tiny_encoder: Path) -> None:
    values = tiny_recipe(tmp_path, tiny_encoder, data={"train_rows": 1})
    recipe = recipe_from_dict(values)
    assert task_of(recipe).score_baselines()["test"].keys() == {"majority"}


def test_a_constant_answer_has_the_entropy_of_labels_and_the_variance_of_numbers() -> None:
    assert ClassOutputs(["a", "b"]).constant_loss(np.array([0, 1, 0, 1])) == pytest.approx(np.log(2))
    assert ClassOutputs(["a", "b"]).constant_loss(np.array([1, 1])) == 0
    assert NumberOutputs().constant_loss(np.array([1.0, 3.0])) == 1


def test_the_margin_of_a_score_is_half_its_95_percent_interval() -> None:
    # By hand: 1.96 * sqrt(0.5 * 0.5 / 100); 1.96 / sqrt(100 * (3 - 1)); 1.96 * (1 - 0.6^2) / sqrt(100)
    outputs = ClassOutputs(["a", "b", "c"])
    assert outputs.margin("accuracy", 0.5, 100) == pytest.approx(1.96 * 0.5 / 104**0.5)
    assert outputs.margin("matthews", 0.5, 100) == pytest.approx(0.138593, abs=1e-6)
    assert outputs.margin("loss", 0.5, 100) == 0
    assert NumberOutputs().margin("spearman", 0.6, 100) == pytest.approx(0.12544)
    assert NumberOutputs().margin("mse", 0.6, 100) == 0
