"""Calibration: the temperature is the one that minimizes the cross-entropy, and the saved model holds it by itself."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from nlp_ft.errors import RecipeError
from nlp_ft.prediction.predict import evaluate_run, predict
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.report.calibration import calibration
from nlp_ft.report.summary import describe_run
from nlp_ft.report.write import Format, render_run
from nlp_ft.training.calibrate import _divide, ece, fit_temperature
from nlp_ft.training.model_card import calibration_line
from nlp_ft.training.run import train
from tests.tasks.test_text_regression import killed_after
from tests.tiny import LABELS, save_tiny_encoder, tiny_recipe
from tests.tiny_choices import choice_recipe
from tests.tiny_images import tiny_image_recipe
from tests.tiny_label_sets import label_set_recipe
from tests.training.test_run import weights

WITH = {"calibration": "temperature", "duration": "6ep"}
WITHOUT = {"duration": "6ep"}
TEXTS = ["the cat", "the red big", "the", "the dog blue"]


def noisy_recipe(folder: Path, encoder: Path, training: dict[str, Any]) -> dict[str, Any]:
    """A recipe of a model with Transformers' own head; every fifth row of validation and test has another label."""
    folder.mkdir(exist_ok=True)
    recipe: dict[str, Any] = tiny_recipe(folder, encoder, model={"pooling": "auto"}, training=training, baselines=False)
    for split in ("validation", "test"):
        file = Path(recipe["data"][split])
        lines = file.read_text(encoding="utf-8").splitlines()
        for row in range(1, len(lines), 5):
            lines[row] = f"{lines[row].rpartition(',')[0]},{LABELS[row % 3]}"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> tuple[Path, Path]:
    """The same run without a temperature and with one."""
    folders = []
    for name, training in {"plain": WITHOUT, "calibrated": WITH}.items():
        folder = tmp_path_factory.mktemp(name)
        train(recipe_from_dict(noisy_recipe(folder, tiny_encoder, training)))
        folders.append(folder / "run")
    return folders[0], folders[1]


def temperature_of(run: Path) -> float:
    found: float = json.loads((run / "summary.json").read_text())["calibration"]["temperature"]
    return found


def test_the_temperature_is_the_literal_one_of_equal_rows() -> None:
    # Three of four rows are right at a distance of 2: sigmoid(2 / T) = 3/4 gives T = 2 / ln 3.
    logits = np.array([[2.0, 0.0, -np.inf]] * 4, np.float32)
    assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(2 / np.log(3), rel=1e-6)


def test_the_temperature_is_that_of_a_general_minimizer() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(300, 5)) * 4, generator.integers(5, size=300)
    labels[:200] = logits[:200].argmax(1)

    def cross_entropy(logarithm: float) -> float:
        return float(nn.functional.cross_entropy(torch.tensor(logits / np.exp(logarithm)), torch.tensor(labels)))

    found = minimize_scalar(cross_entropy, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(found.x), rel=1e-4)


@pytest.mark.parametrize(("right", "temperature"), [([0, 0], 1.0), ([1, 1], 20.0)])
def test_rows_that_are_all_right_give_1_and_rows_that_are_all_wrong_the_highest(
    right: list[int], temperature: float
) -> None:
    assert fit_temperature(np.array([[2.0, 0.0], [1.0, 0.5]]), np.array(right)) == pytest.approx(temperature)


def test_only_the_last_layer_differs_and_it_is_divided(runs: tuple[Path, Path]) -> None:
    before, after = map(weights, runs)
    temperature = temperature_of(runs[1])
    assert abs(temperature - 1) > 0.05
    last = {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - last)
    for name in last:
        torch.testing.assert_close(after[name], before[name] / temperature, rtol=1e-6, atol=0)


def test_plain_transformers_gives_the_calibrated_probabilities_and_the_same_labels(runs: tuple[Path, Path]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(runs[0])
    encoded = AutoTokenizer.from_pretrained(runs[0])(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = (model(**encoded).logits / temperature_of(runs[1])).softmax(-1)
    shown: Any = pipeline("text-classification", model=str(runs[1]), top_k=None)(TEXTS)
    ours = predict(runs[1], TEXTS)
    for row, of_pipeline, of_ours, plain in zip(expected, shown, ours, predict(runs[0], TEXTS), strict=True):
        for label, share in zip(LABELS, row.tolist(), strict=True):
            assert {one["label"]: one["score"] for one in of_pipeline}[label] == pytest.approx(share, abs=1e-6)
            assert of_ours.scores[label] == pytest.approx(share, abs=1e-6)
        assert of_ours.label == plain.label


def test_the_summary_has_the_error_before_and_after_as_the_runs_have_it(runs: tuple[Path, Path]) -> None:
    of = json.loads((runs[1] / "summary.json").read_text())["calibration"]
    for run, name in zip(runs, ("ece_before", "ece_after"), strict=True):
        for split in ("validation", "test"):
            found = evaluate_run(run, split=split)
            assert found.row_scores is not None
            expected = calibration(found.row_scores.tolist(), (found.predicted == found.references).tolist())["ece"]
            assert of[name][split] == pytest.approx(expected, abs=1e-6)
    assert of["ece_after"]["validation"] < of["ece_before"]["validation"]


def test_predictions_and_losses_of_the_run_are_those_of_the_saved_model(runs: tuple[Path, Path]) -> None:
    tables = []
    for run in runs:
        with (run / "test_predictions.csv").open(newline="", encoding="utf-8") as stream:
            tables.append({row["row"]: row for row in csv.DictReader(stream)})
    assert {row: of["predicted"] for row, of in tables[0].items()} == {
        row: of["predicted"] for row, of in tables[1].items()
    }
    loss = json.loads((runs[1] / "summary.json").read_text())["metrics"]["test"]["loss"]
    assert loss == pytest.approx(evaluate_run(runs[1]).scores()["loss"], abs=1e-6)
    assert loss == pytest.approx(np.mean([float(of["loss"]) for of in tables[1].values()]), abs=1e-5)


def test_the_line_on_the_screen_names_temperature_and_errors() -> None:
    line = calibration_line({"temperature": 1.5, "ece_before": {"test": 0.2}, "ece_after": {"test": 0.05}})
    assert line == "temperature 1.500, fitted on validation: calibration error (ECE) test 0.2000 -> 0.0500"


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("md", "which was fitted on validation, the error was 0.2500."),
        pytest.param("html", "Before it, the calibration error on test was 0.2500.", marks=pytest.mark.slow),
    ],
)
def test_a_report_says_what_the_error_was_before(runs: tuple[Path, Path], form: Format, says: str) -> None:
    described = describe_run(runs[1])
    described["temperature"] = {"temperature": 1.5, "ece_before": {"test": 0.25, "validation": 0.125}}
    assert says in render_run(described, form)
    assert "temperature of" not in render_run(describe_run(runs[0]), form)


def stopped(*args: Any) -> None:
    raise RuntimeError("killed")


@pytest.mark.parametrize(
    ("place", "killed"),
    [("nlp_ft.training.loop.Loop._after_step", killed_after(20)), ("nlp_ft.training.run.save_run", stopped)],
    ids=["in training", "after calibration"],
)
def test_a_killed_and_resumed_run_has_the_same_weights(
    runs: tuple[Path, Path],
    tiny_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    killed: Any,
) -> None:
    recipe = recipe_from_dict(noisy_recipe(tmp_path, tiny_encoder, WITH))
    with monkeypatch.context() as context:
        context.setattr(place, killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(recipe)
    train(recipe, resume=True)
    expected, found = weights(runs[1]), weights(tmp_path / "run")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_choices_are_calibrated(tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder", initializer_range=0.5)
    recipe = choice_recipe(tmp_path, encoder, training=WITH | {"duration": "1ep"}, report=False, baselines=False)
    summary = train(recipe_from_dict(recipe))
    found = evaluate_run(tmp_path / "run", split="validation")
    scores = [choice.score for choice in found.predicted]
    right = [choice.index == gold.index for choice, gold in zip(found.predicted, found.references, strict=True)]
    assert summary["calibration"]["temperature"] != 1
    assert summary["calibration"]["ece_after"]["validation"] == pytest.approx(
        calibration(scores, right)["ece"], abs=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18"])
def test_image_networks_are_calibrated_whatever_their_last_layer_is(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    recipe = tiny_image_recipe(tmp_path, model={"name": name}, training=WITH | {"duration": "1ep"}, baselines=False)
    summary = train(recipe_from_dict(recipe))
    found = evaluate_run(tmp_path / "run", split="validation")
    assert found.row_scores is not None
    expected = calibration(found.row_scores.tolist(), (found.predicted == found.references).tolist())["ece"]
    assert summary["calibration"]["ece_after"]["validation"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("after", "is_divided"), [(nn.Identity(), True), (nn.Tanh(), False)])
def test_a_layer_whose_outputs_are_not_the_logits_is_left_as_it_was(after: nn.Module, is_divided: bool) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(4, 3), after)
    model.config = SimpleNamespace(id2label=dict.fromkeys(range(3)))
    before, inputs = model[0].weight.clone(), torch.randn(8, 4) * 5

    def predict_sample(split: str) -> Any:
        return SimpleNamespace(predicted=model(inputs).detach().numpy())

    assert _divide(model, 0.25, cast(Any, SimpleNamespace(predict_sample=predict_sample))) is is_divided
    assert torch.equal(model[0].weight, before * 4 if is_divided else before)


@pytest.mark.parametrize(
    ("make", "change", "says"),
    [
        (
            label_set_recipe,
            {},
            "training.calibration temperature is for tasks that choose one label or candidate, not for "
            "multi_label_classification; leave it out",
        ),
        (
            tiny_recipe,
            {"validation": None},
            "training.calibration temperature needs data.validation, a split or a share such as 10%",
        ),
    ],
)
def test_where_no_temperature_can_be_fitted_the_recipe_is_refused(
    make: Callable[..., dict[str, Any]], change: dict[str, Any], says: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=says):
        recipe_from_dict(make(tmp_path, tiny_encoder, training={"calibration": "temperature"}, data=change))


def test_the_error_of_logits_is_that_of_their_probabilities() -> None:
    # Two rows with a probability of 0.75, of which one is right.
    assert ece(np.log([[0.75, 0.25], [0.25, 0.75]]), np.array([0, 0])) == pytest.approx(0.25)
