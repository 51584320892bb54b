"""Runs that learn sets of labels: thresholds from validation alone, models for plain Transformers, equal runs."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from nlp_ft.cli import main
from nlp_ft.errors import ModelError, TrainingError
from nlp_ft.prediction.predict import Source, evaluate_run, load_run, predict, predict_to_file
from nlp_ft.recipe.loader import dump_yaml, recipe_from_dict
from nlp_ft.tasks.multi_label_classification import LabelSetOutputs
from nlp_ft.tasks.registry import task_of
from nlp_ft.training.run import train
from tests.tasks.test_text_regression import killed_after
from tests.tiny import LABELS
from tests.tiny_label_sets import label_set_recipe, label_sets
from tests.training.test_processes import launch
from tests.training.test_run import weights

PLAIN = {"pooling": "auto"}
TEXTS = ["the cat", "the red big", "the", "the dog blue"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("label_sets")
    train(
        recipe_from_dict(
            label_set_recipe(
                folder,
                tiny_encoder,
                model=PLAIN,
                training={"threshold": "tuned_per_label", "duration": "25ep"},
                baselines=True,
            )
        )
    )
    return folder / "run"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def probabilities(run: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Those of our prediction, and the references."""
    texts, sets = zip(*label_sets(split), strict=True)
    found = [[answer.scores[name] for name in LABELS] for answer in predict(run, list(texts))]
    return np.array(found), np.array([[int(name in labels) for name in LABELS] for labels in sets])


def test_a_run_learns_sets_and_beats_no_label_and_the_most_frequent_set(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    scores, baselines = summary["metrics"]["test"], summary["baselines"]["test"]
    assert scores["macro_f1"] > 2 * baselines["majority_set"]["macro_f1"] > 0
    assert baselines.keys() == {"no_label", "majority_set", "tfidf_logistic_regression"}
    empty = np.mean([not labels for _, labels in label_sets("test")])
    assert (baselines["no_label"]["macro_f1"], baselines["no_label"]["subset_accuracy"]) == (0, pytest.approx(empty))
    assert baselines["tfidf_logistic_regression"]["macro_f1"] > 0.8
    described = summary["data"]["test"]
    assert described["labels"] == {name: sum(name in labels for _, labels in label_sets("test")) for name in LABELS}
    assert described["without_label"] == round(empty * 25)


def test_thresholds_are_tuned_on_validation_alone_and_saved(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    found, references = probabilities(run, "validation")
    for i, name in enumerate(LABELS):
        best = max(sk.f1_score(references[:, i], found[:, i] >= t) for t in found[:, i])
        assert sk.f1_score(references[:, i], found[:, i] >= config["label_thresholds"][name]) == pytest.approx(best)
    assert [row["threshold"] for row in rows_of(run / "test_per_label.csv")] == [
        str(config["label_thresholds"][name]) for name in LABELS
    ]


def test_scores_of_test_are_those_of_scikit_learn_at_the_saved_thresholds(run: Path) -> None:
    found, references = probabilities(run, "test")
    thresholds = json.loads((run / "config.json").read_text())["label_thresholds"]
    predicted = (found >= [thresholds[name] for name in LABELS]).astype(int)
    scores = json.loads((run / "summary.json").read_text())["metrics"]["test"]
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(references, predicted, average="macro"))
    assert scores["micro_f1"] == pytest.approx(sk.f1_score(references, predicted, average="micro"))
    assert scores["subset_accuracy"] == pytest.approx(sk.accuracy_score(references, predicted))
    assert scores["hamming_loss"] == pytest.approx(sk.hamming_loss(references, predicted))
    assert scores["average_precision"] == pytest.approx(sk.average_precision_score(references, found), abs=0.005)
    assert scores["loss"] == pytest.approx(np.mean([sk.log_loss(r, p) for r, p in zip(references.T, found.T)]), 1e-4)
    assert evaluate_run(run).scores() == scores
    assert evaluate_run(run, str(run.parent / "test.jsonl")).scores() == scores


def test_predictions_are_the_labels_at_their_thresholds(run: Path) -> None:
    thresholds = json.loads((run / "config.json").read_text())["label_thresholds"]
    for answer in predict(run, TEXTS):
        likeliest = sorted(answer.scores, key=lambda name: -answer.scores[name])
        assert answer.labels == [name for name in likeliest if answer.scores[name] >= thresholds[name]]
    by_row = {int(row["row"]): row for row in rows_of(run / "test_predictions.csv")}
    for number, (text, labels) in enumerate(label_sets("test")):
        expected = "|".join(name for name in LABELS if name in predict(run, [text])[0].labels)
        assert [by_row[number][key] for key in ("text", "reference", "predicted")] == [text, "|".join(labels), expected]


def test_the_saved_model_is_a_plain_classifier_whose_pipeline_gives_our_probabilities(run: Path) -> None:
    code = (
        "import json, sys, torch; from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        "folder, texts = sys.argv[1], json.loads(sys.argv[2])\n"
        "model = AutoModelForSequenceClassification.from_pretrained(folder)\n"
        "batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors='pt')\n"
        "with torch.no_grad(): print(json.dumps([model(**batch).logits.tolist(), model.config.problem_type]))\n"
        "assert 'nlp_ft' not in sys.modules"
    )
    process = subprocess.run([sys.executable, "-c", code, str(run), json.dumps(TEXTS)], capture_output=True, text=True)
    logits, problem_type = json.loads(process.stdout)
    ours = np.array([[answer.scores[name] for name in LABELS] for answer in predict(run, TEXTS)])
    assert problem_type == "multi_label_classification"
    np.testing.assert_allclose(torch.tensor(logits).sigmoid().numpy(), ours, atol=1e-6)
    answers: Any = pipeline("text-classification", model=str(run))(TEXTS, top_k=None)
    of_pipeline = [[{one["label"]: one["score"] for one in answer}[name] for name in LABELS] for answer in answers]
    np.testing.assert_allclose(of_pipeline, ours, atol=1e-6)
    assert "truncation=True, top_k=None" in (run / "README.md").read_text()


def test_transformers_computes_our_loss_for_the_saved_model(run: Path) -> None:
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(run), AutoTokenizer.from_pretrained(run)
    texts, sets = zip(*label_sets("test"), strict=True)
    labels = torch.tensor([[float(name in labels) for name in LABELS] for labels in sets])
    loss = model(**tokenizer(list(texts), padding=True, return_tensors="pt"), labels=labels).loss
    assert float(loss) == pytest.approx(evaluate_run(run).scores()["loss"], rel=1e-5)


def test_the_command_line_shows_labels_and_writes_columns(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [answer] = predict(run, ["the cat red"])
    output = tmp_path / "out.csv"
    for arguments in (["the cat red"], ["the cat red", "--output", str(output), "--probabilities"]):
        with pytest.raises(SystemExit) as end:
            main(["predict", str(run), *arguments])
        assert not end.value.code
    shown = capsys.readouterr().out
    assert [line in shown for line in (f"  {answer.scores[name]:.4f}  {name}\n" for name in answer.labels)] == (
        [True] * len(answer.labels)
    )
    assert len(re.findall(r"not \w+ \(below 0\.\d{4}\)", shown)) == 3 - len(answer.labels)
    [row] = rows_of(output)
    assert row["predicted_labels"] == "|".join(name for name in LABELS if name in answer.labels)
    assert float(row["probability_colour"]) == pytest.approx(answer.scores["colour"], abs=1e-6)


@pytest.mark.parametrize(("name", "given", "written"), [("ani|mal", None, ";"), ("animal", " / ", " / ")])
def test_the_labels_of_a_prediction_can_be_told_apart(
    name: str, given: str | None, written: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    """Predictions of a file have the separator of the recipe, or one that is in no label."""
    recipe = label_set_recipe(tmp_path, tiny_encoder, training={"duration": "1st", "threshold": 0.1, "metric": "loss"})
    for split in ("train", "validation", "test"):
        rows = [
            {"text": text, "labels": [name if one == "animal" else one for one in of]} for text, of in label_sets(split)
        ]
        joined = [{**row, "labels": given.join(row["labels"])} for row in rows] if given else rows
        Path(recipe["data"][split]).write_text("".join(json.dumps(row) + "\n" for row in joined))
    recipe["data"]["label_separator"] = given
    train(recipe_from_dict(recipe))
    loaded = load_run(tmp_path / "run")
    predict_to_file(loaded, Source(words=["the cat"]), str(tmp_path / "out.csv"))
    [row] = rows_of(tmp_path / "out.csv")
    assert row["predicted_labels"].split(written) == sorted([name, "colour", "size"])
    [first, *_] = rows_of(tmp_path / "run/test_predictions.csv")
    assert first["predicted"] == row["predicted_labels"]


@pytest.mark.parametrize("damage", [{}, {"animal": 0.5}, {"animal": 0.5, "colour": 2.0, "size": 0.5}])
def test_a_run_whose_thresholds_are_damaged_is_refused(
    run: Path, damage: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_run(run)
    monkeypatch.setattr(loaded.model.config, "label_thresholds", damage)
    with pytest.raises(ModelError, match=r"^config.json: label_thresholds must have a number between 0 and 1 for each"):
        loaded.predict(["the"])


@pytest.mark.slow
def test_one_threshold_is_tuned_for_all_and_a_given_one_is_kept(tmp_path: Path, tiny_encoder: Path) -> None:
    found = {}
    for number, threshold in enumerate(("tuned", 0.3)):
        folder = tmp_path / str(number)
        training = {"threshold": threshold, "duration": "2ep"}
        train(recipe_from_dict(label_set_recipe(folder, tiny_encoder, training=training)))
        config = json.loads((folder / "run/config.json").read_text())
        assert config["label_thresholds"].keys() == set(LABELS)
        [found[threshold]] = set(config["label_thresholds"].values())
    assert found[0.3] == 0.3
    assert found["tuned"] != 0.5
    assert found["tuned"] == pytest.approx(round(found["tuned"], 2))


def test_a_label_that_never_occurs_is_said_and_the_run_goes_on(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"label_names": [*LABELS, "shape"], "validation": "20%"}
    training = {"threshold": "tuned_per_label", "duration": "1ep"}
    recipe = label_set_recipe(tmp_path, tiny_encoder, data=data, training=training, baselines=True)
    train(recipe_from_dict(recipe))
    captured = capsys.readouterr()
    assert "no row of train has the label(s) shape" in " ".join((captured.out + captured.err).split())
    thresholds = json.loads((tmp_path / "run/config.json").read_text())["label_thresholds"]
    assert thresholds["shape"] == 0.5
    balanced = recipe_from_dict({**recipe, "loss": {"class_weights": "balanced"}})
    with pytest.raises(TrainingError, match="balanced needs rows of every label in train; none of: shape"):
        task_of(balanced).make_loss()


def test_balanced_weights_are_rows_without_a_label_over_rows_with_it(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = label_set_recipe(tmp_path, tiny_encoder, loss={"class_weights": "balanced"})
    loss: Any = task_of(recipe_from_dict(recipe)).make_loss()
    counts = [sum(name in labels for _, labels in label_sets("train")) for name in LABELS]
    torch.testing.assert_close(loss.positive_weights, torch.tensor([(50 - count) / count for count in counts]))
    given = {"class_weights": {"animal": 1.0, "colour": 2.0, "size": 3.0}}
    loss = task_of(recipe_from_dict({**recipe, "loss": given})).make_loss()
    assert loss.positive_weights.tolist() == [1, 2, 3]
    with pytest.raises(TrainingError, match="must name exactly the labels of the data; different: size"):
        task_of(recipe_from_dict({**recipe, "loss": {"class_weights": {"animal": 1.0, "colour": 2.0}}})).make_loss()


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_the_unbroken_one(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"threshold": "tuned_per_label", "checkpoint_every": "4st", "duration": "3ep"}
    whole, broken = (
        recipe_from_dict(label_set_recipe(tmp_path / name, tiny_encoder, training=training, strategy="gradual"))
        for name in ("whole", "broken")
    )
    train(whole)
    with monkeypatch.context() as patch:
        patch.setattr("nlp_ft.training.loop.Loop._after_step", killed_after(11))
        with pytest.raises(RuntimeError, match="killed"):
            train(broken)
    train(broken, resume=True)
    for name in ("model.safetensors", "config.json", "metrics.jsonl", "test_predictions.csv", "test_per_label.csv"):
        assert (tmp_path / "broken/run" / name).read_bytes() == (tmp_path / "whole/run" / name).read_bytes()


@pytest.mark.parametrize(
    "strategy", ["lp_ft", *(pytest.param(name, marks=pytest.mark.slow) for name in ("head_only", "top_layers"))]
)
def test_cached_features_change_nothing(
    tmp_path: Path, tiny_encoder: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NLP_FT_CACHE", str(tmp_path / "cache"))
    training = {"threshold": "tuned", "duration": "12ep", "evaluate_every": "4ep"}
    model = {"head": {"dropout": 0.0}}
    for cache in ("off", "auto"):
        settings = {"training": {**training, "feature_cache": cache}, "model": model, "strategy": strategy}
        train(recipe_from_dict(label_set_recipe(tmp_path / cache, tiny_encoder, **settings)))
    off, auto = weights(tmp_path / "off/run"), weights(tmp_path / "auto/run")
    assert max(float((off[name] - auto[name]).abs().max()) for name in off) < 1e-5


@pytest.mark.slow
def test_two_processes_give_the_weights_scores_and_thresholds_of_one(tmp_path: Path, tiny_encoder: Path) -> None:
    model = {"dropout": 0.0, "head": {"dropout": 0.0}}
    for name, size in (("one", 8), ("two", 4)):
        training = {"threshold": "tuned_per_label", "per_device_batch_size": size, "keep": "last", "duration": "3ep"}
        loss = {"class_weights": "balanced", "label_smoothing": 0.1}
        recipe = label_set_recipe(tmp_path / name, tiny_encoder, model=model, training=training, loss=loss)
        (tmp_path / f"{name}.yaml").write_text(dump_yaml(recipe))
        if name == "one":
            train(recipe_from_dict(recipe))
    launched = launch([str(tmp_path / "two.yaml")])
    assert launched.returncode == 0, launched.stderr[-3000:]
    one, two = weights(tmp_path / "one/run"), weights(tmp_path / "two/run")
    for parameter, tensor in one.items():
        torch.testing.assert_close(two[parameter], tensor, rtol=0, atol=1e-5, msg=parameter)
    summaries = [json.loads((tmp_path / name / "run/summary.json").read_text()) for name in ("one", "two")]
    assert len(set(summaries[1]["weights_hashes"])) == 1
    assert summaries[1]["metrics"]["test"] == pytest.approx(summaries[0]["metrics"]["test"], abs=1e-5)
    thresholds = [
        json.loads((tmp_path / n / "run/config.json").read_text())["label_thresholds"] for n in ("one", "two")
    ]
    assert thresholds[1] == pytest.approx(thresholds[0], abs=1e-5)


def test_constant_answers_have_the_entropy_of_the_shares_as_loss() -> None:
    outputs = LabelSetOutputs(["a", "b"], (0.5, 0.5))
    references = np.array([[1, 0], [0, 0], [0, 0], [0, 0]])
    assert outputs.constant_loss(references) == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / 2)
