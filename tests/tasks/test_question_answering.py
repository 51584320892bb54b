"""Question answering from a recipe to a run folder, and back: scores, files, predictions, resuming, frozen blocks."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from nlp_ft.cli import main
from nlp_ft.data.batch import model_inputs, output_logits
from nlp_ft.errors import DataError, RecipeError
from nlp_ft.layerwise.prefix import FrozenPrefix
from nlp_ft.prediction.predict import evaluate_run, load_run, predict
from nlp_ft.recipe.loader import dump_yaml, load_recipe, recipe_from_dict
from nlp_ft.tasks.registry import task_of
from nlp_ft.training.build import example_inputs
from nlp_ft.training.run import train
from tests.tiny import save_tiny_encoder
from tests.tiny_questions import question_recipe, tiny_questions, write_questions
from tests.training.test_processes import launch
from tests.training.test_resume import stop_and_resume
from tests.training.test_run import same, weights


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    train(recipe_from_dict(question_recipe(folder, tiny_encoder, 4, strategy="gradual", baselines=True)))
    return folder / "run"


def test_a_run_scores_questions_and_not_windows(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["data"]["test"]["rows"] == 20 < summary["data"]["test"]["windows"]
    assert summary["data"]["test"]["unanswerable"] == 0.25
    assert summary["metric"] == "f1"
    assert summary["metrics"]["test"].keys() == {
        "f1", "exact_match", "has_answer_f1", "has_answer_exact_match", "no_answer_accuracy", "loss",
    }  # fmt: skip
    assert summary["baselines"]["test"].keys() == {"first_sentence", "tfidf_sentence", "no_answer"}
    assert summary["baselines"]["test"]["no_answer"]["f1"] == 0.25
    with (run / "test_predictions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "row", "question", "context", "reference", "predicted_answer", "predicted_score", "predicted_start",
        "predicted_end", "loss",
    ]  # fmt: skip
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert sorted(int(row["row"]) for row in rows) == list(range(20))
    for row in rows:
        if row["predicted_start"]:
            found = row["context"][int(row["predicted_start"]) : int(row["predicted_end"])]
            assert found == row["predicted_answer"]
        else:
            assert row["predicted_answer"] == ""
    for name in ("question_word", "answer_length"):
        assert (run / f"test_by_{name}.csv").read_text().startswith(f"{name},questions,exact_match,f1\n")


def test_evaluation_with_the_stored_threshold_repeats_the_scores_of_the_run(run: Path) -> None:
    threshold = json.loads((run / "config.json").read_text())["no_answer_threshold"]
    assert -1.1 < threshold <= 1
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    for split in ("validation", "test"):
        predictions = evaluate_run(run, split=split)
        assert predictions.outputs.threshold == threshold  # type: ignore[attr-defined]
        assert predictions.scores() == pytest.approx(metrics[split], abs=1e-6)
    file = str(run.parent / "test.jsonl")
    assert evaluate_run(run, file).scores() == pytest.approx(metrics["test"], abs=1e-6)


def test_predictions_of_pairs_are_those_of_the_evaluation(run: Path) -> None:
    rows = tiny_questions(20, 2, 4)
    found = predict(run, [(row["question"], row["context"]) for row in rows])
    evaluated = evaluate_run(run)
    expected = evaluated.outputs.shown(evaluated.predicted).to_pylist()
    assert [answer.answer for answer in found] == [row["answer"] for row in expected]
    assert [answer.start for answer in found] == [row["start"] for row in expected]
    assert [answer.score for answer in found] == pytest.approx([row["score"] for row in expected], abs=1e-5)
    assert all(0 <= answer.score <= 1 and answer.answers[0].text == answer.answer for answer in found)


def test_the_command_line_answers_words_files_and_lines(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    question, context = "the cat", "the cat eats the dog"
    [expected] = predict(run, [(question, context)])

    def printed(*words: str) -> list[str]:
        with pytest.raises(SystemExit) as caught:
            main(["predict", str(run), *words])
        assert caught.value.code == 0
        return capsys.readouterr().out.splitlines()

    lines = printed(question, context, "--top-k", "2")
    assert lines[0] == question
    assert len(lines) == 4
    assert lines[3] == "(numbers: the probability of each answer)"
    assert lines[1].startswith(f"  {expected.score:.4f}  {expected.answer or '(no answer)'}")
    file = write_questions(tmp_path / "new.jsonl", [{"question": question, "context": context, "id": 7}])
    printed("--file", str(file), "--output", str(tmp_path / "out.jsonl"))
    written = json.loads((tmp_path / "out.jsonl").read_text())
    assert written == {
        "question": question, "context": context, "id": 7, "predicted_answer": expected.answer,
        "predicted_score": pytest.approx(expected.score, abs=1e-5), "predicted_start": expected.start,
        "predicted_end": expected.end,
    }  # fmt: skip
    squad = {"data": [{"paragraphs": [{"context": context, "qas": [{"id": "7", "question": question}]}]}]}
    (tmp_path / "dev.json").write_text(json.dumps(squad))
    printed("--file", str(tmp_path / "dev.json"), "--output", str(tmp_path / "squad.jsonl"))
    assert json.loads((tmp_path / "squad.jsonl").read_text()) == {**written, "id": "7"}
    stdin = io.BufferedReader(io.BytesIO(f"{question}\t{context}\n".encode()))
    monkeypatch.setattr("nlp_ft.prediction.command_line.standard_input", lambda: stdin)
    assert printed("-", "--top-k", "2") == lines


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["who?"], r"input 0 \(from 0\) must be a pair \(question, context\), got 'who\?'"),
        ([("who?", "she", "he")], "must be a pair"),
        ([("who?", 3)], "must be a pair"),
        ([("who?", "she"), (" ", "she")], r"input 1 \(from 0\) has an empty question"),
        ([("who?", "\n")], "has an empty context"),
        ([("who?", "\ud800")], "its context cannot be encoded as UTF-8"),
        ("who?", r"input 0 \(from 0\) must be a pair \(question, context\), got 'who\?'"),
        (3, "predict takes one question or a list of them, got int"),
    ],
)
def test_inputs_that_are_no_questions_are_refused(run: Path, inputs: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_run(run).predict(inputs)


def test_the_saved_folder_is_a_plain_model_and_the_program_of_its_card_runs(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (run / "README.md").read_text()
    assert "pipeline_tag: question-answering" in card
    [program] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(program.replace("PATH/TO/THIS/FOLDER", str(run)), {})  # noqa: S102
    assert capsys.readouterr().out.strip() in "Ada Lovelace wrote it in 1843."
    plain, tokenizer = AutoModelForQuestionAnswering.from_pretrained(run), AutoTokenizer.from_pretrained(run)
    encoded = tokenizer("the cat", "the dog eats", return_tensors="pt")
    with torch.inference_mode():
        one, other = (output_logits(model.eval()(**encoded)) for model in (plain, load_run(run).model))
    assert torch.equal(one, other)


@pytest.mark.slow
def test_a_fresh_process_without_nlp_ft_loads_the_saved_folder_and_computes_the_same_logits(run: Path) -> None:
    code = (
        "import sys, torch; from transformers import AutoModelForQuestionAnswering, AutoTokenizer\n"
        f"folder = {str(run)!r}\n"
        "model = AutoModelForQuestionAnswering.from_pretrained(folder)\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "with torch.inference_mode(): out = model(**tokenizer('the cat', 'the dog eats', return_tensors='pt'))\n"
        "assert not any(name.split('.')[0] == 'nlp_ft' for name in sys.modules)\n"
        "print(*(out.start_logits[0].tolist() + out.end_logits[0].tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = load_run(run)
    encoded = loaded.tokenizer("the cat", "the dog eats", return_tensors="pt")  # type: ignore[attr-defined]
    with torch.inference_mode():
        found = output_logits(loaded.model(**encoded))[0]
    assert list(map(float, done.stdout.split())) == [*found[:, 0].tolist(), *found[:, 1].tolist()]


@pytest.mark.slow
def test_two_processes_give_the_weights_and_scores_of_one(tmp_path: Path, tiny_encoder: Path) -> None:
    for name, size in (("one", 8), ("two", 4)):
        recipe = question_recipe(
            tmp_path,
            tiny_encoder,
            4,
            model={"dropout": 0.0},
            training={"per_device_batch_size": size, "keep": "last"},
            output_dir=str(tmp_path / name),
        )
        (tmp_path / f"{name}.yaml").write_text(dump_yaml(recipe))
    train(load_recipe(str(tmp_path / "one.yaml")))
    launched = launch([str(tmp_path / "two.yaml")])
    assert (tmp_path / "two").exists(), launched.stderr[-3000:]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    # A constant added to the scores of all tokens changes no probability, so these gradients are rounding alone.
    without_gradient = ("qa_outputs.bias", "bert.encoder.layer.1.output.LayerNorm.bias")
    assert set(without_gradient) <= one.keys() == two.keys()
    for parameter in one.keys() - set(without_gradient):
        torch.testing.assert_close(two[parameter], one[parameter], rtol=0, atol=1e-5, msg=parameter)
    of_one, of_two = (json.loads((tmp_path / n / "summary.json").read_text()) for n in ("one", "two"))
    assert len(set(of_two["weights_hashes"])) == 1
    for split in ("validation", "test"):
        assert of_two["metrics"][split] == pytest.approx(of_one["metrics"][split], abs=1e-4)


@pytest.mark.slow
def test_a_run_that_stops_resumes_to_the_bit(
    run: Path, tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = question_recipe(tmp_path, tiny_encoder, 4, strategy="gradual", training={"checkpoint_every": "5st"})
    stop_and_resume(recipe_from_dict(values), 13, monkeypatch)
    assert same(weights(tmp_path / "run"), weights(run))


def test_the_features_of_frozen_blocks_are_those_of_all_tokens(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = recipe_from_dict(question_recipe(tmp_path, tiny_encoder, strategy="head_only"))
    task = task_of(recipe)
    model = task.build_model(task.label_names())
    prefix = FrozenPrefix(model, task.map_layers(model), example_inputs(task))
    assert prefix.boundaries
    assert not any(prefix.takes_one_vector(boundary) for boundary in prefix.boundaries)
    folders = []
    for cache in ("auto", "off"):
        changes = {"duration": "12ep", "feature_cache": cache}
        out = str(tmp_path / cache)
        train(
            recipe_from_dict(
                question_recipe(tmp_path, tiny_encoder, strategy="head_only", training=changes, output_dir=out)
            )
        )
        folders.append(weights(Path(out)))
    for name, tensor in folders[0].items():
        torch.testing.assert_close(tensor, folders[1][name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("family", ["roberta", "deberta-v2", "xlnet", "modernbert"])
def test_families_with_and_without_token_types_give_a_padded_batch_the_logits_of_single_rows(
    tmp_path: Path, family: str
) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder", family)
    task = task_of(recipe_from_dict(question_recipe(tmp_path, encoder)))
    model = task.build_model(task.label_names()).eval()
    assert task.map_layers(model).num_layers == 2
    encoded, collator = task.data.encoded["train"], task.collator(training=False)
    rows = [encoded[row] for row in (0, 1, 2)]
    rows[1] = {**rows[1], "input_ids": rows[1]["input_ids"][:7], "labels": rows[1]["labels"][:7]}
    rows[1] |= {"token_type_ids": rows[1]["token_type_ids"][:7]} if "token_type_ids" in rows[1] else {}
    with torch.inference_mode():
        whole = output_logits(model(**model_inputs(collator(rows))))
        for number, row in enumerate(rows):
            alone = output_logits(model(**model_inputs(collator([row]))))[0]
            torch.testing.assert_close(alone, whole[number, : len(alone)], atol=1e-5, rtol=1e-5)


def test_data_without_unanswerable_questions_always_gets_an_answer(tmp_path: Path, tiny_encoder: Path) -> None:
    task = task_of(recipe_from_dict(question_recipe(tmp_path, tiny_encoder)))
    assert (task.outputs.threshold, task.outputs.tunes) == (None, False)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"pooling": "mean"}}, "model.pooling mean is not for question_answering"),
        ({"model": {"head": {"type": "bottleneck"}}}, "model.head.type bottleneck is not for question_answering"),
        ({"loss": {"label_smoothing": 0.1}}, "loss.label_smoothing is not for question_answering"),
        ({"loss": {"class_weights": "balanced"}}, "loss.class_weights is not for question_answering"),
        ({"data": {"label": "answers"}}, "data.label is for labels; answers names the column"),
        ({"data": {"context": "question"}}, "must be three columns, got 'question' twice"),
        ({"data": {"stride": 9}}, "data.stride must leave room for new tokens"),
        ({"data": {"validation": "60%", "test": "40%"}}, "together below 100%"),
        ({"data": {"text": "question"}}, "data.text is not a key"),
        ({"data": {"max_answer_length": 0}}, "data.max_answer_length must be"),
        (
            {"training": {"metric": "accuracy"}},
            "accuracy is no metric of question_answering, which has f1, exact_match",
        ),
    ],
)
def test_settings_of_other_tasks_are_refused(
    tmp_path: Path, tiny_encoder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_dict(question_recipe(tmp_path, tiny_encoder, **changes))
    assert message in str(caught.value)


def test_validate_layers_and_audit_know_the_task(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_yaml(question_recipe(tmp_path, tiny_encoder, 4)))
    for command in ("validate", "layers", "audit"):
        with pytest.raises(SystemExit) as caught:
            main([command, str(tmp_path / "recipe.yaml")])
        assert caught.value.code == 0, capsys.readouterr()
    printed = capsys.readouterr().out
    assert "ready to train" in printed
    assert "no answer" in printed
