"""A whole run on a tiny model: what it writes, that it repeats to the bit, and what its settings do."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, pipeline

from nlp_ft.errors import DivergedError, RunFolderError, TrainingError
from nlp_ft.prediction.predict import evaluate_run, predict
from nlp_ft.recipe.loader import load_recipe, recipe_from_dict
from nlp_ft.tasks.classes import ClassOutputs
from nlp_ft.training.loop import Loop
from nlp_ft.training.run import train
from tests.tiny import save_tiny_encoder, tiny_recipe

FILES = {
    "README.md",
    "config.json",
    "layers.jsonl",
    "layers.txt",
    "metrics.jsonl",
    "model.safetensors",
    "recipe.yaml",
    "report.html",
    "summary.json",
    "test_confusion_matrix.csv",
    "test_per_class.csv",
    "test_predictions.csv",
    "tokenizer.json",
    "tokenizer_config.json",
    "train_hardest.csv",
    "validation_confusion_matrix.csv",
    "validation_per_class.csv",
    "validation_predictions.csv",
}


TRACKED_IN_TRAINING = (
    "train/loss",
    "train/examples_per_second",
    "phase",
    "lr/head",
    "lr/block 2",
    "lr/block 1",
    "lr/embeddings",
)
LAYERS = ("head", "block 2", "block 1", "embeddings")
TRACKED_OF_LAYERS = ("gradient_norm", "update_ratio", "drift")
TRACKED_SCORES = ("loss", "accuracy", "macro_f1", "micro_f1", "weighted_f1", "matthews")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder: Path) -> dict[str, list[int]]:
    """Tag -> steps of the scalars that TensorBoard shows for a run folder, which must hold one run."""
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    [place] = {file.parent for file in folder.rglob("events.out.tfevents.*")}
    assert [file for file in folder.rglob("*") if file.is_dir()] == [place]
    accumulated = EventAccumulator(str(place)).Reload()
    return {tag: [event.step for event in accumulated.Scalars(tag)] for tag in accumulated.Tags()["scalars"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(recipe_from_dict(tiny_recipe(folder, tiny_encoder, baselines=True, report=True)))
    return folder / "run"


def test_a_run_leaves_exactly_these_files_and_no_partial_folder(run: Path) -> None:
    assert {file.name for file in run.iterdir()} == FILES
    assert not run.with_name("run.partial").exists()


def test_a_report_that_fails_leaves_a_finished_run_and_a_warning(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr("nlp_ft.report.write.write_report", refuse)
    train(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, report=True)))
    assert {file.name for file in (tmp_path / "run").iterdir()} == FILES - {"report.html"}
    assert "warning: no report was written (MemoryError: too large); all else of the run" in capsys.readouterr().out


def test_every_file_of_a_run_has_the_mode_that_the_umask_gives(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    assert {file.stat().st_mode for file in run.iterdir()} == {(tmp_path / "other").stat().st_mode}


def test_the_summary_has_the_keys_that_others_rely_on(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["strategy"] == "llrd"
    assert summary["seed"] == 0
    metrics = {"loss", "accuracy", "macro_f1", "micro_f1", "weighted_f1", "matthews"}
    assert set(summary["metrics"]["validation"]) == set(summary["metrics"]["test"]) == metrics
    assert summary["global_step"] == 14  # 50 rows in batches of 8 are 7 steps an epoch
    parameters = sum(tensor.numel() for tensor in weights(run).values())
    assert summary["num_parameters"] == summary["num_trainable_parameters"] == parameters
    expected_speed = 100 / summary["train_seconds"]
    assert summary["train_examples_per_second"] == pytest.approx(expected_speed)
    assert summary["peak_memory_bytes"] > 100 * 2**20
    assert summary["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert list(summary["baselines"]) == ["validation", "test"]
    assert set(summary["baselines"]["test"]) == {"majority", "tfidf_logistic_regression"}
    assert summary["baselines"]["test"]["majority"]["accuracy"] == 9 / 25
    assert summary["baselines"]["validation"]["majority"]["accuracy"] == 7 / 21


def test_the_saved_model_scores_what_the_summary_says(run: Path) -> None:
    predictions = evaluate_run(run, split="test")
    summary = json.loads((run / "summary.json").read_text())
    outputs: object = predictions.outputs
    assert outputs == ClassOutputs(["animal", "colour", "size"])
    assert predictions.scores() == summary["metrics"]["test"]
    texts = ["the the cat", "the blue", "big"]
    classify = pipeline("text-classification", model=str(run))
    expected = [(answer["label"], answer["score"]) for answer in classify(texts)]
    assert [(p.label, p.score) for p in predict(run, texts)] == [(n, pytest.approx(s, abs=1e-6)) for n, s in expected]


def test_the_resolved_recipe_of_a_run_gives_the_same_run(run: Path, tmp_path: Path) -> None:
    train(load_recipe(run / "recipe.yaml", [f"output_dir={tmp_path / 'again'}"]))
    assert same(weights(run), weights(tmp_path / "again"))


def test_another_seed_gives_other_weights(run: Path, tmp_path: Path) -> None:
    train(load_recipe(run / "recipe.yaml", [f"output_dir={tmp_path / 'again'}", "seed=1"]))
    assert not same(weights(run), weights(tmp_path / "again"))


def test_each_layer_has_its_rate_in_the_record_of_every_step(run: Path) -> None:
    [first, *_] = [record for record in records(run) if "learning_rates" in record]
    rates = first["learning_rates"]
    assert isinstance(rates, dict)
    # Step 7 of 14 ends the first epoch; its update had the factor of step 6, one step of warm-up being over.
    factor = 1 - (6 - 1) / (14 - 1)
    assert rates == pytest.approx(
        {
            "head": 1e-2 * factor,
            "block 2": 1e-3 * factor,
            "block 1": 0.9e-3 * factor,
            "embeddings": 0.81e-3 * factor,
        },
        rel=1e-12,
    )


def test_each_evaluation_records_the_mean_probability_of_its_predictions(run: Path) -> None:
    best = json.loads((run / "summary.json").read_text())["best_step"]
    [scores] = [of["validation"] for of in records(run) if "validation" in of and of["step"] == best]
    with (run / "validation_predictions.csv").open(newline="", encoding="utf-8") as stream:
        probabilities = [float(row["score"]) for row in csv.DictReader(stream)]
    assert isinstance(scores, dict)
    assert scores["confidence"] == pytest.approx(sum(probabilities) / 21, rel=1e-6)


def test_a_finished_run_is_not_touched_unless_asked(run: Path) -> None:
    recipe = load_recipe(run / "recipe.yaml")
    with pytest.raises(RunFolderError, match="holds a finished run; choose another, or pass --overwrite"):
        train(recipe)
    before = weights(run)
    train(recipe, overwrite=True)
    assert same(before, weights(run))
    assert {file.name for file in run.iterdir()} == FILES
    assert {file.name for file in run.parent.iterdir()} == {"run", "train.csv", "validation.csv", "test.csv"}


@pytest.mark.parametrize(
    ("strategy", "trained"),
    [
        ("full", {"embeddings", "layer.0", "layer.1", "head"}),
        ("llrd", {"embeddings", "layer.0", "layer.1", "head"}),
        ("head_only", {"head"}),
        ({"name": "top_layers", "trainable_blocks": 1}, {"layer.1", "head"}),
    ],
)
def test_a_strategy_moves_its_layers_and_no_other_by_one_bit(
    tmp_path: Path, tiny_encoder: Path, strategy: object, trained: set[str]
) -> None:
    recipe = tiny_recipe(tmp_path, tiny_encoder, strategy=strategy, optimizer={"weight_decay": 0.1})
    summary = train(recipe_from_dict(recipe))
    before, after = load_file(tiny_encoder / "model.safetensors"), weights(tmp_path / "run")
    moved = {
        part
        for name, tensor in before.items()
        for part in ("embeddings", "layer.0", "layer.1")
        if part in name and not torch.equal(tensor, after[f"encoder.{name}"])
    }
    assert moved | {"head"} == trained
    blocks = {"embeddings": "embeddings", "layer.0": "layer.0", "layer.1": "layer.1", "head": "head."}
    sizes = sum(t.numel() for name, t in after.items() if any(blocks[part] in name for part in trained))
    assert summary["num_trainable_parameters"] == sizes


LEARN = [("adamw", "linear"), ("adafactor", "slanted_triangular"), ("sgd", "linear"), ("lion", "slanted_triangular")]
OTHERS = [("adamw", "slanted_triangular"), ("adafactor", "linear"), ("sgd", "slanted_triangular"), ("lion", "linear")]


@pytest.mark.parametrize(
    ("optimizer", "schedule"), [*LEARN, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in OTHERS)]
)
def test_every_optimizer_learns_the_tiny_task(
    tmp_path: Path, tiny_encoder: Path, optimizer: str, schedule: str
) -> None:
    rates = {"adamw": 1e-2, "adafactor": 1.0, "sgd": 0.05, "lion": 3e-3}[optimizer]
    recipe = tiny_recipe(
        tmp_path,
        tiny_encoder,
        optimizer={"name": optimizer, "lr": rates, "head_lr": rates},
        schedule={"name": schedule},
        training={"duration": "12ep"},
        strategy="full",
    )
    assert train(recipe_from_dict(recipe))["metrics"]["test"]["accuracy"] == 1.0


def test_accumulated_small_batches_equal_one_large_batch(tmp_path: Path, tiny_encoder: Path) -> None:
    results = []
    for name, size, steps in (("large", 8, 1), ("small", 2, 4)):
        recipe = tiny_recipe(
            tmp_path,
            tiny_encoder,
            model={"dropout": 0.0, "head": {"dropout": 0.0}},
            loss={"class_weights": "balanced", "label_smoothing": 0.1},
            optimizer={"name": "sgd", "lr": 0.05, "head_lr": 0.05},
            training={"per_device_batch_size": size, "gradient_accumulation_steps": steps, "keep": "last"},
            output_dir=str(tmp_path / name),
        )
        train(recipe_from_dict(recipe))
        results.append(weights(tmp_path / name))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=0, atol=1e-6, msg=name)


def test_a_run_by_tokens_learns_and_says_how_many_rows_go_together(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The 50 rows make 14 micro-batches of at most 30 tokens; the 8 rows of each device give way to them.
    settings = {
        "max_tokens_per_batch": 30,
        "gradient_accumulation_steps": 2,
        "duration": "16ep",
        "evaluate_every": "1ep",
    }
    model = {"dropout": 0.0, "head": {"dropout": 0.0}}
    summary = train(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, model=model, training=settings)))
    assert (
        " effective batch about 7 rows = about 4 (at most 30 tokens, or one row) per device x 1 process(es) x "
        "2 accumulated; 112 steps, 7 an epoch; linear schedule after 11 steps of warm-up; cpu in fp32 "
    ) in " ".join(capsys.readouterr().out.split())
    saved = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (saved["effective_batch_size"], saved["global_step"]) == (7.1, 112)
    assert saved["train_examples_per_second"] == pytest.approx(16 * 50 / saved["train_seconds"])
    assert summary["metrics"]["test"]["accuracy"] == 1.0


def test_a_run_by_rows_says_how_many_go_together(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"gradient_accumulation_steps": 2, "duration": "1ep"}
    summary = train(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, training=settings)))
    said = (
        " effective batch 16 = 8 per device x 1 process(es) x 2 accumulated; 4 steps, 4 an epoch; linear schedule; "
        "cpu in fp32 "
    )
    assert said in " ".join(capsys.readouterr().out.split())
    assert summary["effective_batch_size"] == 16


def test_early_stopping_ends_the_run_and_keeps_the_best_model(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = tiny_recipe(
        tmp_path,
        tiny_encoder,
        optimizer={"lr": 1e-2, "head_lr": 1e-2},
        training={"duration": "40ep", "evaluate_every": "5st", "early_stopping": {"patience": 3}},
    )
    summary = train(recipe_from_dict(recipe))
    evaluations = [record for record in records(tmp_path / "run") if "validation" in record]
    accuracy: dict[Any, Any] = {r["step"]: r["validation"]["accuracy"] for r in evaluations}  # type: ignore[index]
    first_best = next(step for step, value in accuracy.items() if value == max(accuracy.values()))
    assert summary["stopped_early"]
    assert summary["best_step"] == first_best
    assert summary["global_step"] == max(accuracy) == first_best + 15
    scores: Any = evaluations[list(accuracy).index(first_best)]["validation"]
    assert summary["metrics"]["validation"] == {name: scores[name] for name in scores if name != "confidence"}


def test_without_validation_the_last_model_is_kept(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = tiny_recipe(tmp_path, tiny_encoder, data={"validation": None})
    summary = train(recipe_from_dict(recipe))
    assert set(summary["metrics"]) == {"test"}
    assert summary["global_step"] == 14


def test_text_pairs_of_a_plain_class_train_and_predict(tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder", "roberta")
    recipe = tiny_recipe(
        tmp_path, encoder, data={"text": ["text", "other"], "max_length": 64}, model={"pooling": "auto"}
    )
    for file in tmp_path.glob("*.csv"):
        header, *rows = file.read_text(encoding="utf-8").splitlines()
        file.write_text("\n".join([f"{header},other", *(f"{row},a dog" for row in rows)]) + "\n", encoding="utf-8")
    train(recipe_from_dict(recipe))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert type(model).__name__ == "RobertaForSequenceClassification"
    [prediction] = predict(tmp_path / "run", [("the cat", "the dog")])
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-6)
    call = '{"text": "a first text", "text_pair": "a second text"}, truncation=True'
    assert f"classify({call})" in (tmp_path / "run" / "README.md").read_text()
    classify = pipeline("text-classification", model=str(tmp_path / "run"), device="cpu")
    found: Any = classify({"text": "the cat", "text_pair": "the dog"}, truncation=True)
    assert found["score"] == pytest.approx(prediction.score, abs=1e-6)


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_nothing(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = tiny_recipe(
        tmp_path,
        tiny_encoder,
        optimizer={"name": "sgd", "lr": 9.9, "head_lr": 9.9, "momentum": 0.99, "weight_decay": 9.0},
        training={"duration": "60ep", "max_grad_norm": None},
    )
    with pytest.raises(TrainingError, match="the loss is nan at step"):
        train(recipe_from_dict({**recipe, "training": {**recipe["training"], "checkpoint_every": "9999st"}}))  # type: ignore[dict-item]
    assert {file.name for file in tmp_path.iterdir()} == {"train.csv", "validation.csv", "test.csv"}


@pytest.mark.parametrize("keep", ["best", "last"])
def test_weights_that_the_last_update_makes_no_numbers_are_no_result(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    step = Loop._step

    def last_step(loop: Loop, batches: Any) -> torch.Tensor:
        loss = step(loop, batches)
        next(loop.model.parameters()).detach().fill_(float("nan"))
        return loss

    monkeypatch.setattr(Loop, "_step", last_step)
    recipe = tiny_recipe(tmp_path, tiny_encoder, training={"duration": "1st", "precision": "fp32", "keep": keep})
    with pytest.raises(DivergedError, match="the weights are NaN or infinite after step 1; try a lower"):
        train(recipe_from_dict(recipe, "test"))
    assert not (tmp_path / "run").exists()


def test_bf16_computes_in_bf16_and_saves_float32(tmp_path: Path, tiny_encoder: Path) -> None:
    summary = train(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, training={"precision": "bf16"})))
    assert summary["precision"] == "bf16"
    assert {tensor.dtype for tensor in weights(tmp_path / "run").values()} == {torch.float32}


@pytest.mark.slow
def test_tensorboard_gets_the_metrics(tmp_path: Path, tiny_encoder: Path) -> None:
    pytest.importorskip("tensorboard")
    train(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, trackers=["tensorboard"], report=True)))
    seen = events(tmp_path / "run")
    assert {tag: steps for tag, steps in seen.items() if not tag.startswith("_")} == {
        **{tag: [7, 10, 14] for tag in TRACKED_IN_TRAINING},
        "epoch": [7, 7, 10, 14, 14],
        **{f"validation/{name}": [7, 14] for name in (*TRACKED_SCORES, "confidence")},
        **{f"test/{name}": [14] for name in TRACKED_SCORES},
        **{f"{quantity}/{name}": [1, 8, 14] for quantity in TRACKED_OF_LAYERS for name in LAYERS},
        **{f"seconds/{part}": [1, 8, 14] for part in ("data", "forward", "backward", "clipping", "update")},
    }


def test_a_resumed_run_is_one_run_of_tensorboard_and_each_step_occurs_once(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    recipe = recipe_from_dict(
        tiny_recipe(tmp_path, tiny_encoder, trackers=["tensorboard"], training={"evaluate_every": "3st"})
    )
    plain, steps = Loop._step, []

    def killed_after_nine(self: Loop, batches: Any) -> torch.Tensor:
        steps.append(self.state.global_step)
        if len(steps) > 9:
            raise MemoryError
        return plain(self, batches)

    monkeypatch.setattr(Loop, "_step", killed_after_nine)
    with pytest.raises(MemoryError):
        train(recipe)
    monkeypatch.setattr(Loop, "_step", plain)
    train(recipe, resume=True)
    # The checkpoint of step 7 remained; step 9 was seen before the end and again after it.
    assert events(tmp_path / "run")["train/loss"] == [3, 6, 7, 9, 10, 12, 14]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the system's own count of a process")
def test_the_peak_memory_is_that_of_the_process_and_not_of_the_one_that_started_it() -> None:
    child = "from nlp_ft.training.facts import peak_memory_bytes, torch; print(peak_memory_bytes(torch.device('cpu')))"
    parent = f"import subprocess, sys; held = b'x' * 3 * 2**30; subprocess.run([sys.executable, '-c', {child!r}])"
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * 2**30
