"""A run of strategy probe: its folder holds the solution, and everything that reads run folders takes it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from nlp_ft.errors import ModelError, TrainingError
from nlp_ft.prediction.predict import predict
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.tasks.registry import task_of
from nlp_ft.training.inspection import find_problems
from nlp_ft.training.probe.features import layer_features
from nlp_ft.training.probe.fit import Validated, fit
from nlp_ft.training.probe.solve import _chosen
from nlp_ft.training.run import train
from tests.tiny import save_tiny_encoder, tiny_recipe


def probe_recipe(folder: Path, encoder: Path, /, **probe: Any) -> dict[str, Any]:
    strategy = {"name": "probe", "probe": probe}
    values = tiny_recipe(folder, encoder, strategy=strategy, report=True, model={"pooling": "cls"})
    return {key: value for key, value in values.items() if key not in ("optimizer", "training")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """Folder of the data, folder of an encoder whose last block gives every text the same, and the summary."""
    folder = tmp_path_factory.mktemp("probe")
    encoder = save_tiny_encoder(folder / "encoder")
    weights = load_file(encoder / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"].zero_()
    save_file(weights, encoder / "model.safetensors", {"format": "pt"})
    return folder, encoder, train(recipe_from_dict(probe_recipe(folder, encoder)))


def test_the_layer_below_a_dead_one_is_chosen_and_every_score_is_written(
    finished: tuple[Path, Path, dict[str, Any]],
) -> None:
    folder, _, summary = finished
    probe = summary["probe"]
    assert (probe["layer"], probe["classifier"], probe["metric"]) == (1, "logistic", "accuracy")
    assert [(one["name"], one["chosen"]) for one in probe["layers"]] == [("block 1", True), ("block 2", False)]
    assert probe["layers"][0]["score"] > 0.7
    assert probe["layers"][1]["score"] == pytest.approx(0.34, abs=0.05)
    [record] = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert record == {"step": 0, "epoch": 0.0, "probe": probe}
    table = (folder / "run/layers.txt").read_text()
    assert table.splitlines()[0].split() == ["features", "accuracy", "in", "cross-validation", "standard", "error"]


def test_the_saved_model_is_shorter_and_gives_the_logits_of_the_linear_model_on_the_features(
    finished: tuple[Path, Path, dict[str, Any]],
) -> None:
    folder, encoder, summary = finished
    recipe = recipe_from_dict(probe_recipe(folder, encoder))
    task = task_of(recipe)
    features = layer_features(recipe, task, ["train", "test"])
    linear = fit(features["train"][1], task.data.labels("train"), 3, summary["probe"]["penalty"])
    model = AutoModelForSequenceClassification.from_pretrained(folder / "run")
    assert model.config.encoder_config.num_hidden_layers == 1
    collator = task.collator(training=False)
    batch = collator([task.data.encoded["test"][row] for row in range(25)])
    with torch.no_grad():
        logits = model(batch["input_ids"], batch["attention_mask"]).logits.numpy()
    assert np.allclose(logits, linear.logits(features["test"][1]), atol=1e-3)
    accuracy = (logits.argmax(1) == task.data.labels("test")).mean()
    assert summary["metrics"]["test"]["accuracy"] == pytest.approx(accuracy)


def test_the_run_says_that_it_took_no_steps_and_its_report_shows_the_layers(
    finished: tuple[Path, Path, dict[str, Any]],
) -> None:
    folder, _, summary = finished
    assert (summary["global_step"], summary["best_step"], summary["derived"]) == (0, 0, {})
    codes = {remark["code"] for remark in summary["verdict"]}
    assert codes & {"too_short", "rate_too_low", "rate_too_high", "no_validation"} == set()
    report = (folder / "run/report.html").read_text()
    assert report.count("Accuracy of the probe by layer") == 1
    [prediction] = predict(str(folder / "run"), ["the the cat"])
    assert prediction.label in ("animal", "colour", "size")


@pytest.mark.parametrize(
    ("probe", "problem"),
    [
        ({"layer": 3}, "strategy.probe.layer must be at most 2, the blocks of this model, got 3"),
        ({"layer": "mean"}, "strategy.probe.layer mean needs model.pooling mean, but it is cls"),
    ],
)
def test_features_that_the_model_does_not_have_are_refused(
    tiny_encoder: Path, tmp_path: Path, probe: dict[str, Any], problem: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        train(recipe_from_dict(probe_recipe(tmp_path, tiny_encoder, **probe)))
    assert str(caught.value) == problem
    assert not (tmp_path / "run").exists()
    assert find_problems(recipe_from_dict(probe_recipe(tmp_path, tiny_encoder, **probe))) == [problem]


def test_features_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder")
    weights = load_file(encoder / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"].fill_(3e38)
    save_file(weights, encoder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"no finite numbers for 50 of 50 inputs of train.*check the weights"):
        train(recipe_from_dict(probe_recipe(tmp_path, encoder)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("means", "chosen"),
    [
        ([0.7, 0.84, 0.8], 2),  # within a standard error of the best
        ([0.7, 0.86, 0.8], 1),
        ([0.9, 0.9, 0.8], 0),
        ([np.nan, np.nan, np.nan], 2),
    ],
)
def test_the_last_layer_is_kept_unless_it_is_worse_by_more_than_a_standard_error(
    means: list[float], chosen: int
) -> None:
    assert _chosen([Validated(mean, 0.05, 0.1) for mean in means], 2) == chosen
