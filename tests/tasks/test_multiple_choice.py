"""Multiple choice from a recipe to a run folder, and back: scores, files, predictions, resuming, many processes."""

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
from datasets import Dataset
from transformers import AutoModelForMultipleChoice, AutoTokenizer

from nlp_ft.cli import main
from nlp_ft.data.batch import model_inputs
from nlp_ft.errors import DataError, RecipeError
from nlp_ft.prediction.predict import evaluate_run, load_run, predict
from nlp_ft.recipe.loader import dump_yaml, load_recipe, recipe_from_dict
from nlp_ft.tasks.choice_baselines import score_baselines
from nlp_ft.tasks.losses import ChoiceLoss
from nlp_ft.tasks.registry import task_of
from nlp_ft.training.run import train
from tests.tiny import save_tiny_encoder
from tests.tiny_choices import choice_recipe, tiny_choices, write_choices
from tests.training.test_processes import launch
from tests.training.test_resume import stop_and_resume
from tests.training.test_run import same, weights

PROMPT, CANDIDATES = "the cat the", ["cat red", "dog", "big blue warm"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large weights, so that other tokens give clearly other logits."""
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder") / "bert", initializer_range=0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("choices")
    train(recipe_from_dict(choice_recipe(folder, encoder, strategy="gradual", baselines=True)))
    return folder / "run"


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[str]:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == code
    captured = capsys.readouterr()
    return (captured.out or captured.err).splitlines()


def test_a_run_writes_scores_baselines_and_predictions_by_loss(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    rows = tiny_choices(20, 2)
    assert summary["data"]["test"]["candidates"] == "2 to 4"
    assert summary["metric"] == "accuracy"
    scores = summary["metrics"]["test"]
    chance = sum(1 / len(row["candidates"]) for row in rows) / 20
    assert scores["above_chance"] == pytest.approx((scores["accuracy"] - chance) / (1 - chance))
    baselines = summary["baselines"]["test"]
    longest = [max(range(len(row["candidates"])), key=lambda i: len(row["candidates"][i])) for row in rows]
    assert baselines["chance"] == {"accuracy": pytest.approx(chance), "above_chance": 0.0}
    assert baselines["longest_candidate"]["accuracy"] == sum(i == row["label"] for i, row in zip(longest, rows)) / 20
    assert baselines["tfidf_candidate"]["accuracy"] == 1.0
    with (run / "test_predictions.csv").open(newline="", encoding="utf-8") as stream:
        written = list(csv.DictReader(stream))
    assert list(written[0]) == [
        "row", "prompt", "candidates", "reference", "predicted_candidate", "predicted_index", "predicted_score", "loss",
    ]  # fmt: skip
    losses = [float(row["loss"]) for row in written]
    assert losses == sorted(losses, reverse=True)
    for row in written:
        given = rows[int(row["row"])]
        assert json.loads(row["candidates"]) == given["candidates"]
        assert row["reference"] == given["candidates"][given["label"]]
        assert row["predicted_candidate"] == given["candidates"][int(row["predicted_index"])]
    assert (run / "test_by_length.csv").read_text().startswith("length,rows,accuracy,above_chance\n")
    assert (run / "test_by_candidates.csv").read_text().startswith("candidates,rows,accuracy,above_chance\n")


def test_evaluation_repeats_the_scores_of_the_run_and_predictions_are_those_of_it(run: Path) -> None:
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    evaluated = evaluate_run(run)
    assert evaluated.scores() == pytest.approx(metrics["test"], abs=1e-6)
    assert evaluate_run(run, str(run.parent / "test.jsonl")).scores() == pytest.approx(metrics["test"], abs=1e-6)
    found = predict(run, [(row["text"], row["candidates"]) for row in tiny_choices(20, 2)])
    assert [choice.index for choice in found] == [choice.index for choice in evaluated.predicted]
    for choice, expected in zip(found, evaluated.predicted):
        assert choice.scores == pytest.approx(expected.scores, abs=1e-5)
        assert sum(choice.scores) == pytest.approx(1)
        assert choice.candidate == choice.candidates[choice.index]


@pytest.mark.slow
def test_a_fresh_process_loads_the_folder_in_plain_transformers_with_equal_logits(run: Path) -> None:
    program = (
        "import sys, torch\n"
        "from transformers import AutoModelForMultipleChoice, AutoTokenizer\n"
        "model = AutoModelForMultipleChoice.from_pretrained(sys.argv[1]).eval()\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "encoded = tokenizer([sys.argv[2]] * 3, sys.argv[3:], truncation='only_first', padding=True, "
        "return_tensors='pt')\n"
        "with torch.inference_mode():\n"
        "    print(model(**{key: values[None] for key, values in encoded.items()}).logits[0].tolist())\n"
    )
    prompt = f"{'big ' * 20}{PROMPT}"
    done = subprocess.run(
        [sys.executable, "-c", program, str(run), prompt, *CANDIDATES], capture_output=True, text=True, check=True
    )
    logits = torch.tensor(json.loads(done.stdout))
    [found] = load_run(run).predict([(prompt, CANDIDATES)])
    assert found.scores == pytest.approx(logits.double().softmax(0).tolist(), abs=1e-6)
    assert max(found.scores) > 0.36  # not the same for all


def test_the_program_of_the_model_card_runs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = (run / "README.md").read_text()
    assert "pipeline_tag: multiple-choice" in card
    [program] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(program.replace("PATH/TO/THIS/FOLDER", str(run)), {})  # noqa: S102
    assert capsys.readouterr().out.strip() in ("It broke on the floor.", "It sang a song.")


@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_losses_and_logits_are_those_of_plain_transformers_and_absent_candidates_change_nothing(
    tmp_path: Path, family: str
) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder", family, initializer_range=0.5)
    task = task_of(recipe_from_dict(choice_recipe(tmp_path, encoder)))
    model = task.build_model(task.label_names()).eval()
    assert task.map_layers(model).num_layers == 2
    rows = tiny_choices(60, 0)
    numbers = [next(i for i, row in enumerate(rows) if len(row["candidates"]) == count) for count in (2, 3, 4)]
    batch = task.collator(training=False)([task.data.encoded["train"][number] for number in numbers])
    assert batch["labels"][0].tolist()[2:] == [-100, -100]
    loss = task.make_loss()
    losses = []
    with torch.inference_mode():
        logits = model(**model_inputs(batch)).logits
        for place, number in enumerate(numbers):
            candidates = rows[number]["candidates"]
            encoded = task.tokenizer(  # type: ignore[misc]
                [rows[number]["text"]] * len(candidates), candidates, padding=True, return_tensors="pt"
            )
            label = torch.tensor([rows[number]["label"]])
            plain = model(**{key: values[None] for key, values in encoded.items()}, labels=label)
            torch.testing.assert_close(logits[place, : len(candidates)], plain.logits[0], atol=1e-5, rtol=1e-5)
            losses.append(plain.loss)
    assert loss.weight(batch["labels"]) == 3
    torch.testing.assert_close(loss.total(logits, batch["labels"]), torch.stack(losses).sum(), atol=1e-5, rtol=1e-5)


def test_the_loss_has_no_gradient_at_absent_candidates_and_padding_rows() -> None:
    logits = torch.tensor([[2.0, 1.0, 50.0], [9.0, 9.0, 9.0]], requires_grad=True)
    labels = torch.tensor([[0, 1, -100], [-100, -100, -100]])
    total = ChoiceLoss().total(logits, labels)
    assert total.item() == pytest.approx(1.3132617)  # ln(1 + e)
    total.backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.7310586, -0.7310586, 0.0], [0.0, 0.0, 0.0]]))
    assert ChoiceLoss().weight(labels) == 1


def test_the_command_line_takes_words_files_and_lines(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = predict(run, (PROMPT, CANDIDATES))
    lines = printed(capsys, "predict", str(run), PROMPT, *CANDIDATES, "--top-k", "2")
    assert lines[0] == PROMPT
    assert len(lines) == 4
    assert lines[3] == "(numbers: the probability of each candidate)"
    assert lines[1] == f"  {expected.score:.4f}  {expected.candidate}"
    file = write_choices(tmp_path / "new.jsonl", [{"text": PROMPT, "candidates": CANDIDATES, "id": 7}])
    out = tmp_path / "out.jsonl"
    printed(capsys, "predict", str(run), "--file", str(file), "--output", str(out), "--probabilities")
    assert json.loads(out.read_text()) == {
        "text": PROMPT, "candidates": CANDIDATES, "id": 7, "predicted_candidate": expected.candidate,
        "predicted_index": expected.index, "predicted_score": pytest.approx(expected.score, abs=1e-5),
        "probabilities": pytest.approx(expected.scores, abs=1e-5),
    }  # fmt: skip
    stdin = io.BufferedReader(io.BytesIO("\t".join([PROMPT, *CANDIDATES]).encode() + b"\n"))
    monkeypatch.setattr("nlp_ft.prediction.command_line.standard_input", lambda: stdin)
    assert printed(capsys, "predict", str(run), "-", "--top-k", "2") == lines


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["who?"], r"input 0 \(from 0\) must be a prompt with its candidates, \(text, \[text, text, ...\]\), got"),
        ("who?", "must be a prompt with its candidates"),
        ([("a", "b")], "must be a prompt with its candidates"),
        ([(("a", "b"), ["c", "d"])], "must be a prompt with its candidates"),
        ([("a", ["b", "c"]), ("a", ["b"])], r"input 1 \(from 0\) must have two candidates or more, got \['b'\]"),
        ([("a", ["b", " "])], r"candidate 1 \(from 0\) is empty"),
        ([("a", ["b", 3])], r"candidate 1 \(from 0\) must be a text, got 3"),
        ([(" ", ["b", "c"])], r"input 0 \(from 0\) has no prompt"),
        ([("a", ["b", "\ud800"])], "half of a surrogate pair"),
        (3, "predict takes one prompt or a list of them, got int"),
    ],
)
def test_inputs_that_are_no_choices_are_refused(run: Path, inputs: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_run(run).predict(inputs)


def test_a_run_that_stops_resumes_to_the_bit(
    run: Path, tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = choice_recipe(tmp_path, encoder, strategy="gradual", training={"checkpoint_every": "5st"})
    stop_and_resume(recipe_from_dict(values), 13, monkeypatch)
    assert same(weights(tmp_path / "run"), weights(run))


def test_validate_layers_and_audit_know_the_task(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_yaml(choice_recipe(tmp_path, tiny_encoder, strategy="head_only")))
    assert "ready to train" in "\n".join(printed(capsys, "validate", str(recipe)))
    assert "head" in "\n".join(printed(capsys, "layers", str(recipe)))
    printed(capsys, "audit", str(recipe))


@pytest.mark.slow
def test_a_run_with_frozen_blocks_says_that_it_keeps_no_features(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(recipe_from_dict(choice_recipe(tmp_path, tiny_encoder, strategy="head_only", training={"duration": "9ep"})))
    assert "feature cache: off, the model reads several texts for each row" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_give_the_weights_and_scores_of_one(tmp_path: Path, encoder: Path) -> None:
    # 57 rows: the last effective batch has one, so that one process has none. The gradient of the last bias is 0, and
    # AdamW would make steps out of its rounding.
    optimizer = {"name": "sgd", "lr": 0.1, "head_lr": 0.1, "weight_decay": 0.0}
    settings: dict[str, Any] = {"model": {"dropout": 0.0}, "optimizer": optimizer}
    for name, size in (("one", 8), ("two", 4)):
        training = {"per_device_batch_size": size, "keep": "last", "duration": "2ep"}
        values = choice_recipe(tmp_path, encoder, **settings, training=training, output_dir=str(tmp_path / name))
        write_choices(tmp_path / "train.jsonl", tiny_choices(57, 0))
        (tmp_path / f"{name}.yaml").write_text(dump_yaml(values))
    train(load_recipe(tmp_path / "one.yaml"))
    launched = launch([str(tmp_path / "two.yaml")])
    assert (tmp_path / "two").exists(), launched.stderr[-3000:]
    for name, tensor in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], tensor, rtol=0, atol=1e-5, msg=name)
    one, two = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two"))
    for split in ("validation", "test"):
        assert two["metrics"][split] == pytest.approx(one["metrics"][split], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", ["full", "llrd", "top_layers", "lp_ft", "discriminative", "ulmfit", "lora", "scratch"]
)
def test_every_strategy_trains(tmp_path: Path, tiny_encoder: Path, strategy: str) -> None:
    train(recipe_from_dict(choice_recipe(tmp_path, tiny_encoder, strategy=strategy)))
    plain = AutoModelForMultipleChoice.from_pretrained(tmp_path / "run")
    assert {parameter.isfinite().all().item() for parameter in plain.parameters()} == {True}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["roberta", "deberta-v2", "modernbert", "distilbert", "electra", "albert"])
def test_every_family_trains_and_predicts(tmp_path: Path, family: str) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder", family)
    train(recipe_from_dict(choice_recipe(tmp_path, encoder, strategy="gradual")))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert (tokenizer.model_max_length, tokenizer.truncation_side) == (16, "left")
    assert len(predict(tmp_path / "run", (PROMPT, CANDIDATES)).scores) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"pooling": "mean"}}, "model.pooling mean is not for multiple_choice, whose head is the one"),
        ({"model": {"head": {"type": "bottleneck"}}}, "model.head.type bottleneck is not for multiple_choice"),
        ({"loss": {"label_smoothing": 0.1}}, "loss.label_smoothing is not for multiple_choice"),
        ({"loss": {"class_weights": "balanced"}}, "loss.class_weights is not for multiple_choice"),
        ({"data": {"label_names": ["a", "b"]}}, "data.label_names is for classes; label names the right one"),
        ({"data": {"text": ["a", "b", "c"]}}, "data.text must be one column or a list of two, got 3"),
        ({"data": {"candidates": ["a"]}}, "data.candidates must be one column, which holds lists, or two columns"),
        ({"data": {"candidates": "text"}}, "must be different columns, got 'text' twice"),
        ({"data": {"label": "candidates"}}, "must be different columns, got 'candidates' twice"),
        ({"data": {"truncation": "tail"}}, "data.truncation is not a key"),
        ({"training": {"metric": "macro_f1"}}, "which has accuracy, above_chance, loss"),
    ],
)
def test_settings_of_other_tasks_are_refused(
    tmp_path: Path, tiny_encoder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_dict(choice_recipe(tmp_path, tiny_encoder, **changes))
    assert message in str(caught.value)


def test_candidates_without_words_have_baselines_too() -> None:
    rows = Dataset.from_dict({"prompt": ["?", "!"], "candidates": [["+", "-"], ["*", "/"]], "label": [0, 1]})
    scores = score_baselines(rows, rows)
    assert [scores[name]["accuracy"] for name in ("chance", "longest_candidate", "tfidf_candidate")] == [0.5] * 3
