"""Predictions below `--min-confidence` are left out: in files, on the screen, and in the scores of `eval`."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nlp_ft.cli import main
from nlp_ft.errors import DataError
from nlp_ft.prediction.abstain import format_kept, require_confidence, unsure_line, without_unsure
from nlp_ft.prediction.predict import Source, predict_to_file
from nlp_ft.prediction.text_run import TextRun
from nlp_ft.tasks.answer_spans import Answer, Candidates
from nlp_ft.tasks.answers import AnswerOutputs
from nlp_ft.tasks.choice_metrics import Gold
from nlp_ft.tasks.choices import Choice, ChoiceOutputs
from nlp_ft.tasks.classes import ClassOutputs, Prediction
from nlp_ft.tasks.multi_label_classification import LabelSetOutputs
from nlp_ft.tasks.outputs import Outputs, Predictions
from nlp_ft.tasks.tag_outputs import TagOutputs
from nlp_ft.tasks.text_regression import NumberOutputs
from tests.prediction.test_predict import read

TEXTS = ["cat cat cat", "the", "red red red"]
NAMES = ["animal", "colour"]


def predictions(scores: list[float], right: list[bool]) -> Predictions:
    """Rows that a model of two labels says `animal` of."""
    references = np.array([0 if is_right else 1 for is_right in right])
    count = len(scores)

    def inputs(rows: np.ndarray) -> Any:
        return rows.tolist()

    outputs = ClassOutputs(NAMES)
    return Predictions(outputs, np.zeros(count, int), references, np.arange(count) / 4, np.array(scores), inputs)


def test_a_prediction_below_is_empty_and_marked_and_its_score_stays() -> None:
    columns = ClassOutputs(NAMES).columns(np.array([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]]), probabilities=True)
    assert without_unsure(columns, 0.75).to_pydict() == {
        "predicted_label": ["animal", None, "colour"],
        "predicted_score": [0.75, 0.5, 0.875],
        "probability_animal": [0.75, 0.5, 0.125],
        "probability_colour": [0.25, 0.5, 0.875],
        "abstained": [False, True, False],
    }


def test_a_score_that_is_no_number_is_not_sure_enough() -> None:
    columns = ClassOutputs(NAMES).columns(np.array([[np.nan, np.nan], [1.0, 0.0]]))
    assert without_unsure(columns, 0.0).column("predicted_label").to_pylist() == [None, "animal"]


def test_choices_and_answers_lose_every_column_but_the_score() -> None:
    choices = np.array([Choice(1, "b", 0.5, ("a", "b"), (0.5, 0.5)), Choice(0, "a", 1.0, ("a", "b"), (1.0, 0.0))])
    assert without_unsure(ChoiceOutputs().columns(choices), 0.75).to_pydict() == {
        "predicted_candidate": [None, "a"],
        "predicted_index": [None, 0],
        "predicted_score": [0.5, 1.0],
        "abstained": [True, False],
    }
    answers = np.empty(2, object)
    answers[:] = [Candidates((Answer("x", 0.25, 3, 4),), 0.5), Candidates((), 1.0)]
    assert without_unsure(AnswerOutputs(None, 8).columns(answers), 0.75).to_pydict() == {
        "predicted_answer": [None, ""],
        "predicted_score": [0.25, 1.0],
        "predicted_start": [None, None],
        "predicted_end": [None, None],
        "abstained": [True, False],
    }


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_has_empty_predictions_and_the_mark(run: TextRun, tmp_path: Path, ending: str) -> None:
    found = run.predict(TEXTS)
    least = sorted(one.score for one in found)[1]
    output = str(tmp_path / f"out.{ending}")
    predict_to_file(run, Source(words=TEXTS), output, min_confidence=least)
    rows = read(Path(output))
    is_kept = [one.score >= least for one in found]
    assert [str(row["abstained"]).lower() for row in rows] == [str(not kept).lower() for kept in is_kept]
    assert [row["predicted_label"] or None for row in rows] == [
        one.label if kept else None for one, kept in zip(found, is_kept, strict=True)
    ]
    assert sum(is_kept) == 2


def test_the_screen_says_that_the_model_abstains(
    run: TextRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(run.recipe.output_dir)
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(folder), "the", "--min-confidence", "1", "--top-k", "1"])
    score = run.predict("the").score
    assert capsys.readouterr().out == (
        f"the\n  abstains: {score:.4f} is below 1\n  {score:.4f}  {run.predict('the').label}\n"
        "(numbers: the probability of each label)\n"
    )
    assert unsure_line(Prediction("animal", 0.5, {}), 0.5) == []


def test_the_kept_rows_are_counted_and_scored() -> None:
    found = predictions([0.5, 0.9, 0.8, 0.7], [False, True, True, False])
    lines = format_kept(found, 0.7, 80).splitlines()
    assert re.split(r"\s{2,}", lines[2]) == ["kept rows", "0.6667", "0.4000", "0.0000", "0.5000"]
    assert lines[-1].startswith("--min-confidence 0.7 keeps 3 of 4 rows (75.0%): accuracy 0.6667 ± ")
    assert lines[-1].endswith("(95 % interval for 3 rows)")
    assert format_kept(found, 0.95, 80) == "--min-confidence 0.95 keeps 0 of 4 rows (0.0%)"
    assert found.kept(np.array([2, 0])).inputs(np.array([1])) == [0]


def test_the_confidence_of_a_choice_is_its_score() -> None:
    chosen = np.empty(2, object)
    chosen[:] = [Choice(0, "a", 0.25, ("a",), (0.25,)), Choice(0, "a", 0.75, ("a",), (0.75,))]
    golds = np.empty(2, object)
    golds[:] = [Gold(("a",), 0)] * 2
    found = Predictions(ChoiceOutputs(), chosen, golds, np.zeros(2), None, lambda rows: None)  # type: ignore[arg-type]
    assert found.confidences is not None
    assert found.confidences.tolist() == [0.25, 0.75]


@pytest.mark.parametrize(("why_not", "expected"), [("", {"confidence": 0.75}), ("tags words", {})])
def test_an_evaluation_has_a_confidence_where_a_probability_is_that_of_the_whole_prediction(
    why_not: str, expected: dict[str, float]
) -> None:
    outputs: Any = SimpleNamespace(without_confidence=why_not, score=lambda *of: {"f1": 0.5})
    found = replace(predictions([0.5, 1.0], [True, True]), outputs=outputs)
    assert found.scores_with_confidence() == {"loss": 0.125, "f1": 0.5, **expected}


def test_eval_says_coverage_and_scores(run: TextRun, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["eval", run.recipe.output_dir, "--min-confidence", "0"])
    printed = capsys.readouterr().out
    assert "--min-confidence 0 keeps 25 of 25 rows (100.0%): accuracy " in printed
    [whole] = re.findall(r"^test +(.+)$", printed, re.MULTILINE)
    assert re.findall(r"^kept rows +(.+)$", printed, re.MULTILINE) == [whole]


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        (NumberOutputs(("n",), (0.0,), (1.0,)), "this run predicts numbers, which have no probabilities"),
        (
            LabelSetOutputs(NAMES, (0.5, 0.5)),
            "this run predicts each label from a threshold of its own on, which training.threshold sets",
        ),
        (TagOutputs(["O", "B-x"], "iob2"), "this run tags words; each entity that it predicts has its score"),
    ],
)
def test_predictions_without_a_probability_are_refused(outputs: Outputs, says: str) -> None:
    with pytest.raises(DataError, match=f"--min-confidence: {says}"):
        require_confidence(outputs)


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan", "high"])
def test_what_is_no_probability_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "runs/none", f"--min-confidence={value}"])
    assert f"--min-confidence: must be a number from 0 to 1, got '{value}'" in capsys.readouterr().err
