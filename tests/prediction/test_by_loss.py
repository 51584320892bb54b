"""The predictions of an evaluated split: every row once, the highest loss first, with the row it is in the input."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from torch.nn import functional as F

from nlp_ft.cli import main
from nlp_ft.prediction.predict import evaluate_run
from nlp_ft.prediction.text_run import TextRun
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.tasks import outputs
from nlp_ft.tasks.classes import ClassOutputs
from nlp_ft.tasks.outputs import Predictions
from nlp_ft.training.run import train
from tests.prediction.test_predict import read
from tests.tiny import LABELS, tiny_recipe, write_tiny_csv

COLUMNS = ["row", "text", "reference", "predicted", "score", "loss"]


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def expected(run: TextRun, file: Path) -> list[dict[str, Any]]:
    """The rows of a labelled file with the probabilities of Transformers' own class, the highest loss first."""
    rows: list[dict[str, Any]] = [{"row": i, **row, "reference": row["label"]} for i, row in enumerate(rows_of(file))]
    texts = [row["text"] for row in rows]
    encoded = run.tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.inference_mode():
        logits = run.model(**encoded).logits
    losses = F.cross_entropy(logits, torch.tensor([LABELS.index(row["label"]) for row in rows]), reduction="none")
    best = logits.softmax(-1).max(-1)
    for row, loss, score, label in zip(rows, losses, best.values, best.indices, strict=True):
        row.update(predicted=LABELS[label], score=float(score), loss=float(loss))
    return sorted(rows, key=lambda row: -row["loss"])


def assert_same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert list(found[0]) == COLUMNS
    assert [float(row["loss"]) for row in found] == pytest.approx([row["loss"] for row in wanted], abs=2e-6)
    by_number = {int(row["row"]): row for row in found}
    assert len(by_number) == len(found) == len(wanted)
    for row in wanted:
        other = by_number[row["row"]]
        assert [other[key] for key in COLUMNS[1:4]] == [row[key] for key in COLUMNS[1:4]]
        assert float(other["score"]) == pytest.approx(row["score"], abs=2e-6)
        assert float(other["loss"]) == pytest.approx(row["loss"], abs=2e-6)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_run_leaves_the_predictions_of_its_splits(split: str, run: TextRun) -> None:
    folder = Path(str(run.model.name_or_path))
    assert_same(rows_of(folder / f"{split}_predictions.csv"), expected(run, folder.parent / f"{split}.csv"))


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet"])
def test_eval_writes_them_for_any_labelled_file(
    name: str, run: TextRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = write_tiny_csv(tmp_path / "labelled.csv", 30, seed=7)
    output = tmp_path / name
    with pytest.raises(SystemExit, match="0"):
        main(["eval", str(run.model.name_or_path), "--data", str(labelled), "--output", str(output)])
    assert capsys.readouterr().out.endswith(f"\n\n30 predictions in {output}, the highest loss first\n")
    assert_same(read(output), expected(run, labelled))
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "no_run", "--output", str(output)])
    assert capsys.readouterr().err == (
        f"error: --output: {output} exists; choose another, or pass --overwrite to replace it\n"
    )


@pytest.mark.parametrize("places", [{"validation": "30%", "test": None}, {"split_column": "split"}])
def test_a_row_has_the_number_that_it_has_in_the_file_also_where_a_split_is_a_part_of_it(
    places: dict[str, Any], tmp_path: Path, tiny_encoder: Path
) -> None:
    values = tiny_recipe(tmp_path, tiny_encoder, data=places, training={"duration": "1st"})
    rows = rows_of(tmp_path / "train.csv")
    # Rows of a split that follow each other, not from the first on.
    splits = ["train"] * 20 + ["validation"] * 15 + ["test"] * 15
    with (tmp_path / "train.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label", "split"])
        writer.writerows([f"{row['text']} n{i}", row["label"], splits[i]] for i, row in enumerate(rows))
    if "split_column" in places:
        names = {"train": "train", "validation": "validation", "test": "test"}
        values["data"] = {"source": str(tmp_path / "train.csv"), "split_column": "split", **names}
    train(recipe_from_dict(values))
    found = rows_of(tmp_path / "run/validation_predictions.csv")
    assert len(found) == 15
    assert all(row["text"].endswith(f" n{row['row']}") for row in found)
    if "split_column" in places:
        assert sorted(int(row["row"]) for row in found) == list(range(20, 35))


def test_pairs_have_both_of_their_columns_and_a_column_called_like_ours_keeps_its_name(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    (tmp_path / "pairs.csv").write_text("row,score,label\ncat,the cat,a\nred,the dog,b\n")
    places = {"train": str(tmp_path / "pairs.csv"), "validation": str(tmp_path / "pairs.csv"), "test": None}
    values = tiny_recipe(
        tmp_path, tiny_encoder, data={**places, "text": ["row", "score"]}, training={"duration": "1st"}
    )
    train(recipe_from_dict(values))
    found = rows_of(tmp_path / "run/validation_predictions.csv")
    assert list(found[0]) == ["row_2", "row", "score", "reference_2", "predicted_2", "score_2", "loss_2"]
    assert sorted((row["row_2"], row["row"], row["score"], row["reference_2"]) for row in found) == [
        ("0", "cat", "the cat", "a"),
        ("1", "red", "the dog", "b"),
    ]


def test_a_loss_that_is_no_number_comes_first_and_equal_ones_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "ROWS_TOGETHER", 2)
    predictions = Predictions(
        ClassOutputs(["a", "b"]),
        predicted=np.array([0, 1, 0, 1, 0]),
        references=np.array([0, 0, 1, 1, 0]),
        losses=np.array([0.5, 2.0, 0.5, np.nan, 3.0]),
        row_scores=None,
        inputs=lambda rows: pyarrow.table({"row": rows}),
    )
    parts = list(predictions.by_loss())
    assert [inputs["row"].to_pylist() for inputs, _ in parts] == [[3, 4], [1, 0], [2]]
    assert parts[1][1].to_pylist() == [
        {"reference": "a", "predicted": "b", "loss": 2.0},
        {"reference": "a", "predicted": "a", "loss": 0.5},
    ]


def test_the_scores_are_those_of_the_rows(run: TextRun) -> None:
    predictions = evaluate_run(str(run.model.name_or_path))
    [(_, rows)] = predictions.by_loss()
    assert predictions.scores()["loss"] == pytest.approx(np.mean(rows["loss"].to_numpy()))
    hits = [row["reference"] == row["predicted"] for row in rows.to_pylist()]
    assert predictions.scores()["accuracy"] == np.mean(hits)
