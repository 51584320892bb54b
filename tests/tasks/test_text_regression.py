"""Numbers for texts: read strictly, learned by squared error, scored by correlation, predicted as numbers."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

from nlp_ft.cli import main
from nlp_ft.errors import DataError, ModelError, RecipeError
from nlp_ft.models.scaling import scale_outputs
from nlp_ft.prediction.predict import evaluate_run, evaluate_trained, load_run, predict
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.tasks.losses import SquaredLoss
from nlp_ft.tasks.registry import task_of
from nlp_ft.tasks.text_regression import NumberOutputs, scores_of_number
from nlp_ft.training.run import train
from tests.tiny import tiny_config, tiny_recipe

COLOURS = {"red": 1.0, "green": 2.5, "blue": 4.0}
SETTINGS: dict[str, Any] = {
    "task": "text_regression",
    "model": {"pooling": "auto"},
    "optimizer": {"lr": 3e-3, "head_lr": 1e-2},
    "training": {"duration": "20ep", "metric": "mse"},
    "baselines": True,
}


def write_numbers(file: Path, num_rows: int, seed: int) -> None:
    """Texts of two colours and the mean of what they stand for."""
    generator = np.random.default_rng(seed)
    drawn = [generator.choice(list(COLOURS), 2) for _ in range(num_rows)]
    rows = [f"{' '.join(pair)},{(COLOURS[pair[0]] + COLOURS[pair[1]]) / 2}" for pair in drawn]
    file.write_text("\n".join(["text,label", *rows]) + "\n")


def numbers_recipe(folder: Path, encoder: Path, **changes: Any) -> Any:
    values = tiny_recipe(folder, encoder, **{**SETTINGS, **changes})
    for seed, (split, num_rows) in enumerate({"train": 60, "validation": 20, "test": 20}.items()):
        write_numbers(folder / f"{split}.csv", num_rows, seed)
    return values


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    train(recipe_from_dict(numbers_recipe(folder, tiny_encoder)))
    return folder / "run"


def test_a_run_learns_numbers_and_beats_their_mean(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    scores, mean = summary["metrics"]["test"], summary["baselines"]["test"]["mean"]
    assert scores["spearman"] > 0.9
    assert scores["mse"] < 0.1 * mean["mse"]
    assert mean.keys() == {"mse", "rmse", "mae"}, "a constant has no correlation"
    variance = summary["data"]["train"]["labels"]["deviation"] ** 2
    assert scores["loss"] == pytest.approx(scores["mse"] / variance, rel=1e-4)
    assert summary["data"]["train"]["labels"]["least"] == 1.0
    lines = (run / "test_predictions.csv").read_text().splitlines()
    assert lines[0] == "row,text,reference,predicted,loss"
    by_row = {int(line.split(",")[0]): line.split(",") for line in lines[1:]}
    texts = (run.parent / "test.csv").read_text().splitlines()[1:]
    for number, (text, number_of_text) in enumerate(line.split(",") for line in texts):
        _, shown, reference, predicted, loss = by_row[number]
        assert (shown, float(reference)) == (text, float(number_of_text))
        assert float(predicted) == pytest.approx(predict(run, [text])[0], abs=1e-5)
        assert float(loss) == pytest.approx((float(predicted) - float(reference)) ** 2 / variance, abs=1e-4)
    losses = [float(line.split(",")[-1]) for line in lines[1:]]
    assert losses == sorted(losses, reverse=True)
    assert "One number for each input." in (run / "README.md").read_text()


def test_the_saved_model_is_a_plain_regressor_of_transformers_and_its_pipeline_gives_our_numbers(run: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(run)
    assert (type(model).__name__, model.config.problem_type, model.config.num_labels) == (
        "BertForSequenceClassification",
        "regression",
        1,
    )
    texts = ["red red", "green blue"]
    expected = [answer["score"] for answer in pipeline("text-classification", model=str(run))(texts)]
    assert predict(run, texts) == pytest.approx(expected, abs=1e-5)


def test_an_evaluation_of_a_file_gives_the_scores_of_the_summary(run: Path) -> None:
    expected = json.loads((run / "summary.json").read_text())["metrics"]["test"]
    # The saved model has the unit of the numbers in its last layer, so the last digits may differ.
    assert evaluate_run(run).scores() == pytest.approx(expected, rel=1e-5)
    assert evaluate_run(run, str(run.parent / "test.csv")).scores() == pytest.approx(expected, rel=1e-5)


def test_the_command_line_prints_numbers_and_writes_a_column_of_them(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["predict", str(run), "red blue"], ["eval", str(run)]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert not end.value.code
    printed = capsys.readouterr().out
    [number] = predict(run, ["red blue"])
    assert f"red blue\n  {number:.4f}\n" in printed
    assert "spearman  pearson    rmse     mae" in printed
    output = tmp_path / "out.csv"
    with pytest.raises(SystemExit):
        main(["predict", str(run), "red blue", "--output", str(output)])
    assert output.read_text() == f"text,predicted_number\nred blue,{number:.6f}\n"
    output.with_name("in.jsonl").write_text('{"text": "red blue", "id": [7]}\n')
    with pytest.raises(SystemExit):
        main(["predict", str(run), "--file", str(output.with_name("in.jsonl")), "--output", f"{output}.jsonl"])
    assert Path(f"{output}.jsonl").read_text() == (
        f'{{"text": "red blue", "id": [7], "predicted_number": {round(number, 6)}}}\n'
    )
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(run), "red", "--output", f"{output}.csv", "--probabilities"])
    assert capsys.readouterr().err == (
        "error: --probabilities: this run predicts numbers, which have no probabilities\n"
    )


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_the_unbroken_one(tmp_path: Path, tiny_encoder: Path, run: Path) -> None:
    recipe = numbers_recipe(
        tmp_path, tiny_encoder, training={"duration": "20ep", "metric": "mse", "checkpoint_every": "5st"}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nlp_ft.training.loop.Loop._after_step", killed_after(23))
        with pytest.raises(RuntimeError, match="killed"):
            train(recipe_from_dict(recipe))
    train(recipe_from_dict(recipe), resume=True)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def killed_after(step: int) -> Any:
    from nlp_ft.training.loop import Loop

    after = Loop._after_step

    def killed(self: Loop) -> None:
        after(self)
        if self.state.global_step == step:
            raise RuntimeError("killed")

    return killed


@pytest.mark.parametrize(
    ("value", "shown"), [("", "''"), ("high", "'high'"), ("nan", "'nan'"), ("1e400", "'1e400'"), ("-100", "'-100'")]
)
def test_what_is_no_number_is_named_with_its_row(tmp_path: Path, tiny_encoder: Path, value: str, shown: str) -> None:
    recipe = recipe_from_dict(numbers_recipe(tmp_path, tiny_encoder))
    (tmp_path / "train.csv").write_text(f"text,label\nred,1\nblue,{value}\n")
    with pytest.raises(DataError, match=r"train has label\(s\) in column 'label' that are not finite numbers") as error:
        train(recipe)
    assert f"{shown} (rows 1, from 0)" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"label_names": ["a", "b"]}}, "data.label_names is for labels"),
        ({"loss": {"label_smoothing": 0.1}}, "loss.label_smoothing is for labels"),
        ({"training": {"threshold": 0.3}}, "training.threshold is for task: multi_label_classification"),
        ({"loss": {"class_weights": "balanced"}}, "loss.class_weights is for labels"),
        ({"training": {"metric": "accuracy"}}, "training.metric accuracy is no metric of text_regression, which has"),
        ({"task": "text_classification", "training": {"metric": "mse"}}, "training.metric mse is no metric of text_cl"),
    ],
)
def test_settings_of_the_other_task_are_refused(
    tmp_path: Path, tiny_encoder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_from_dict(numbers_recipe(tmp_path, tiny_encoder, **changes))


@pytest.mark.parametrize(("training", "metric"), [({}, "spearman"), (None, "spearman"), ({"metric": "mse"}, "mse")])
def test_the_metric_is_spearman_unless_the_recipe_names_another(training: Any, metric: str) -> None:
    values = {"task": "text_regression", "data": {"train": "a.csv"}, "model": {"name": "m"}, "output_dir": "x"}
    assert recipe_from_dict({**values, "training": training}).training.metric == metric


def test_parts_of_a_batch_add_up_to_the_mean_squared_error_and_rows_left_out_add_nothing() -> None:
    logits, labels = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([2.0, 2.0, 1.0])
    loss = SquaredLoss()
    parts = [(logits[:1], labels[:1]), (logits[1:], labels[1:]), (torch.tensor([[9.0]]), torch.tensor([-100.0]))]
    total = sum(float(loss.total(*part)) for part in parts)
    assert total / sum(float(loss.weight(part[1])) for part in parts) == pytest.approx(10 / 3)


def test_scores_are_those_worked_out_by_hand() -> None:
    scores = NumberOutputs().score(np.array([1.0, 2.0, 3.0, 5.0]), np.array([1.0, 3.0, 2.0, 4.0]))
    # Ranks differ by 0, 1, 1, 0: 1 - 6 * 2 / (4 * 15). Deviations: covariance 5.5, squares 8.75 and 5.
    assert scores == pytest.approx(
        {"spearman": 0.8, "pearson": 5.5 / (8.75 * 5) ** 0.5, "mse": 0.75, "rmse": 0.75**0.5, "mae": 0.75}
    )


def test_a_single_row_has_errors_and_no_correlation() -> None:
    scores = NumberOutputs().score(np.array([1.0]), np.array([3.0]))
    expected = {"spearman": math.nan, "pearson": math.nan, "mse": 4.0, "rmse": 2.0, "mae": 2.0}
    assert scores == pytest.approx(expected, nan_ok=True)


def test_a_loaded_run_gives_a_single_text_a_single_number(run: Path) -> None:
    loaded = load_run(run)
    assert loaded.predict("red") == loaded.predict(["red"])[0]
    with pytest.raises(DataError, match="predict takes one text or a list of them, got bytes"):
        loaded.predict(b"red")


def test_numbers_far_from_0_keep_their_digits_in_bf16(run: Path) -> None:
    """In bf16, 2001 and 2004 would both be 2000."""
    near, far = load_run(run), load_run(run)
    for loaded in (near, far):
        training = loaded.recipe.training.model_copy(update={"precision": "bf16"})
        loaded.recipe = loaded.recipe.model_copy(update={"training": training})
    scale_outputs(far.model, torch.ones(1), torch.tensor([2000.0]))
    texts = ["red", "green blue", "blue"]
    assert np.array(far.predict(texts)) - 2000 == pytest.approx(near.predict(texts), abs=1e-3)
    assert not any(module._forward_hooks for module in far.model.modules()), "they end with the prediction"


def test_numbers_far_from_0_are_scored_as_they_are_predicted_in_bf16(run: Path) -> None:
    loaded = load_run(run)
    training = loaded.recipe.training.model_copy(update={"precision": "bf16"})
    loaded.recipe = loaded.recipe.model_copy(update={"training": training})
    scale_outputs(loaded.model, torch.ones(1), torch.tensor([2000.0]))
    scored = evaluate_trained(loaded, None, "test")
    texts = scored.inputs(np.arange(len(scored.predicted)))["text"].to_pylist()
    assert scored.predicted == pytest.approx(np.array(loaded.predict(texts)), abs=0.05)


def several(folder: Path, encoder: Path, **changes: Any) -> Any:
    """A recipe with three numbers of very different units, one of them constant in train."""
    values = numbers_recipe(folder, encoder, **changes)
    for split in ("train", "validation", "test"):
        rows = (folder / f"{split}.csv").read_text().splitlines()[1:]
        lines = [f"{row.split(',')[0]},{row.split(',')[1]},{1e4 - 1e3 * float(row.split(',')[1])},3.5" for row in rows]
        (folder / f"{split}.csv").write_text("\n".join(["text,small,large,constant", *lines]) + "\n")
    values["data"]["label"] = ["small", "large", "constant"]
    return values


@pytest.fixture(scope="module")
def run_of_three(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("three_numbers")
    train(recipe_from_dict(several(folder, tiny_encoder)))
    return folder / "run"


def test_several_numbers_of_different_units_are_learned_at_once(
    run_of_three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((run_of_three / "summary.json").read_text())
    scores, mean = summary["metrics"]["test"], summary["baselines"]["test"]["mean"]
    assert scores["spearman"] > 0.9
    assert scores["rmse"] < 0.5 * mean["rmse"]
    lines = (run_of_three / "test_per_number.csv").read_text().splitlines()
    assert lines[0] == "number,spearman,pearson,mse,rmse,mae"
    by_name = {line.split(",")[0]: [float(value) for value in line.split(",")[1:]] for line in lines[1:]}
    assert by_name["small"][0] > 0.9
    assert by_name["large"][0] > 0.9
    # A constant has no correlation: the mean is that of the other two.
    assert np.isnan(by_name["constant"][0])
    assert scores["pearson"] == pytest.approx((by_name["small"][1] + by_name["large"][1]) / 2)
    assert scores["rmse"] == pytest.approx(sum(values[3] for values in by_name.values()) / 3)
    assert summary["data"]["train"]["labels"]["constant"] == {
        "mean": 3.5, "deviation": 0.0, "least": 3.5, "greatest": 3.5,
    }  # fmt: skip
    assert evaluate_run(run_of_three).scores() == pytest.approx(scores, rel=1e-3)
    found = predict(run_of_three, ["red red"])[0]
    assert found.keys() == {"small", "large", "constant"}
    assert found["small"] == pytest.approx(1.0, abs=0.7)
    assert found["large"] == pytest.approx(9000, abs=700)
    assert found["constant"] == pytest.approx(3.5, abs=0.2)
    output = tmp_path / "out.csv"
    with pytest.raises(SystemExit):
        main(["predict", str(run_of_three), "red red", "--output", str(output)])
    assert output.read_text().splitlines()[0] == "text,predicted_small,predicted_large,predicted_constant"


def test_a_plain_model_of_transformers_gives_several_numbers_in_their_units(run_of_three: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(run_of_three)
    assert (type(model).__name__, model.config.problem_type) == ("BertForSequenceClassification", "regression")
    answers: Any = pipeline("text-classification", model=str(run_of_three))(["red red"], top_k=None)
    by_name = {answer["label"]: answer["score"] for answer in (answers[0] if isinstance(answers[0], list) else answers)}
    assert by_name == pytest.approx(predict(run_of_three, ["red red"])[0], rel=1e-5)
    assert "3 numbers for each input: small, large, constant." in (run_of_three / "README.md").read_text()


def test_a_number_that_is_constant_in_train_is_said(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(recipe_from_dict(several(tmp_path, tiny_encoder, training={"duration": "1ep"})))
    captured = capsys.readouterr()
    said = " ".join((captured.out + captured.err).split())
    assert "every row of train has the number 3.5 in column 'constant'" in said


@pytest.mark.parametrize("numbers", [1, 3])
def test_the_loss_in_parts_is_the_mean_of_the_standardised_squares(numbers: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = (torch.randn(7, numbers, generator=generator) for _ in range(2))
    means, deviations = torch.arange(1.0, numbers + 1), torch.arange(2.0, numbers + 2)
    loss = SquaredLoss(means, deviations)
    given = labels[:, 0] if numbers == 1 else labels
    filler = torch.full_like(given[:1], -100)
    parts = [(logits[:4], given[:4]), (torch.cat([logits[4:], torch.ones(1, numbers)]), torch.cat([given[4:], filler]))]
    total = sum(float(loss.total(*part)) for part in parts) / sum(float(loss.weight(part[1])) for part in parts)
    assert total == pytest.approx(float((logits - (labels - means) / deviations).square().mean()), rel=1e-6)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "electra", "deberta-v2", "albert", "xlnet"])
def test_scaled_outputs_are_those_of_the_model_in_other_units(model_type: str) -> None:
    torch.manual_seed(0)
    config = tiny_config(model_type, num_labels=2)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    inputs = torch.randint(5, 19, (3, 6))
    with torch.no_grad():
        before = model(input_ids=inputs).logits
        scale_outputs(model, torch.tensor([2.0, 300.0]), torch.tensor([-1.0, 50.0]))
        after = model(input_ids=inputs).logits
    torch.testing.assert_close(after, before * torch.tensor([2.0, 300.0]) + torch.tensor([-1.0, 50.0]))


@pytest.mark.parametrize("scales", [None, [], [{"mean": 0.0}], [{"mean": 0.0, "deviation": 0.0}]])
def test_a_run_whose_scales_are_damaged_is_refused(run: Path, scales: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_run(run)
    monkeypatch.setattr(loaded.model.config, "label_scales", scales)
    with pytest.raises(ModelError, match=r"^config.json: label_scales must have a mean and a deviation above 0"):
        loaded.predict(["red"])


def test_a_kept_head_begins_with_the_numbers_that_it_gave(run: Path, tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = recipe_from_dict(numbers_recipe(tmp_path, run, model={"pooling": "auto", "keep_head": True}))
    task: Any = task_of(recipe)
    model = task.build_model(task.label_names()).eval()
    batch = task.tokenizer(["red red", "green blue"], padding=True, return_tensors="pt")
    with torch.no_grad():
        numbers = task.outputs.decode(model(**batch).logits)
    torch.testing.assert_close(numbers, torch.tensor(predict(run, ["red red", "green blue"])), rtol=1e-5, atol=1e-5)


def test_numbers_that_are_nearly_constant_are_scored_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores_of_number(np.array([1.0, 1.0 + 1e-15, 1.0]), np.array([1.0, 2.0, 3.0]))
    assert found["mae"] == pytest.approx(1.0)
