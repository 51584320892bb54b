"""Advice from end to end on tiny data: the words, the recipe, and that test is never read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.cli import main
from nlp_ft.errors import TrainingError
from nlp_ft.recipe.loader import dump_yaml, load_recipe
from nlp_ft.study.advise.advise import Advice, advise
from nlp_ft.study.advise.tables import screen
from nlp_ft.training.run import train
from tests.tasks.test_text_regression import numbers_recipe
from tests.tiny import save_tiny_encoder, tiny_recipe
from tests.tiny_choices import choice_recipe
from tests.tiny_images import tiny_image_recipe
from tests.tiny_label_sets import label_set_recipe
from tests.tiny_questions import question_recipe
from tests.tiny_words import words_recipe


def write_recipe(folder: Path, encoder: Path, **changes: Any) -> Path:
    """The tiny recipe without rates, its test file taken away."""
    values = {**tiny_recipe(folder, encoder, **changes), "optimizer": {}}
    (folder / "test.csv").unlink()
    file = folder / "recipe.yaml"
    file.write_text(dump_yaml(values))
    return file


def test_advice_is_printed_and_its_recipe_trains_without_reading_test(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The file of test does not exist: reading it would be an error.
    file, output = write_recipe(tmp_path, tiny_encoder), tmp_path / "advised.yaml"
    with pytest.raises(SystemExit) as ended:
        main(["advise", str(file), "--budget", "1s", "--output", str(output)])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "textbook's table: head_only, for little data (50 rows" in shown
    assert "how sure: " in shown
    assert "predicted accuracy: " in shown
    assert max(len(line) for line in shown.split("\n") if str(tmp_path) not in line) <= 80
    recipe = load_recipe(output, ["data.test=null"])
    told = dict(
        line.strip().split(": ")[0].split(" = ")
        for line in shown.split("\n")
        if line.startswith("  ") and " = " in line
    )
    assert recipe.strategy.name == told["strategy"]
    assert recipe.optimizer.lr == float(told["optimizer.lr"])
    assert str(recipe.training.duration) == told["training.duration"] == "2ep"
    assert (told["training.per_device_batch_size"], told["model.pooling"]) == ("8", "mean")
    assert train(recipe)["strategy"] == told["strategy"]


def test_an_existing_file_and_a_wrong_budget_are_refused_before_anything_runs(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = write_recipe(tmp_path, tiny_encoder), tmp_path / "other.yaml"
    other.write_text("")
    for options, error in (
        (["--output", str(other)], "exists; choose another, or pass --overwrite to replace it"),
        (["--output", str(file), "--overwrite"], "is the recipe that is advised on, which stays as it is"),
        (["--output", str(tmp_path / "no" / "a.yaml")], "a.yaml: No such file or directory"),
        (["--output", str(tmp_path), "--overwrite"], ": Is a directory"),
        (["--output", "advised.txt"], "a recipe's name must end in .yaml or .yml, got advised.txt"),
        (["--budget", "soon"], "argument --budget: must be a time such as 90s, 20m or 1.5h, got 'soon'"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["advise", str(file), *options])
        assert ended.value.code == 2
        assert error in capsys.readouterr().err


def test_interrupted_advice_says_that_nothing_was_written(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nlp_ft.study.advise.advise.advise", interrupted)
    with pytest.raises(SystemExit, match="130"):
        main(["advise", str(write_recipe(tmp_path, tiny_encoder)), "--output", str(tmp_path / "advised.yaml")])
    assert capsys.readouterr().err == "\ninterrupted; nothing was written\n"
    assert not (tmp_path / "advised.yaml").exists()


def test_rows_of_validation_that_are_in_train_are_said(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_recipe(tmp_path, tiny_encoder, data={"validation": str(tmp_path / "train.csv")})

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nlp_ft.study.advise.evidence.gather", stopped)
    with pytest.raises(KeyboardInterrupt):
        advise(str(file))
    said = capsys.readouterr()
    assert "row(s) of validation also occur in train" in said.out + said.err


@pytest.mark.slow
def test_without_validation_it_is_drawn_from_train(tmp_path: Path, tiny_encoder: Path) -> None:
    found = advise(str(write_recipe(tmp_path, tiny_encoder, data={"validation": None})), budget=1.0)
    assert (found.evidence.rows, found.evidence.validation_rows, found.was_drawn) == (40, 10, True)
    assert "10 drawn from train (20%)" in screen(found)


def test_a_trial_that_was_the_whole_run_predicts_its_own_score(tmp_path: Path, tiny_encoder: Path) -> None:
    """The probe is right in all rows, and a run of 6 steps is not."""
    file = write_recipe(tmp_path, tiny_encoder, training={"duration": "6st", "per_device_batch_size": 8})
    found = advise(str(file), ["strategy=llrd"], budget=5.0)
    trial = found.trials["llrd"]
    assert (trial.steps, trial.full_steps) == (6, 6)
    assert next(one for one in found.choice.candidates if one.strategy == "llrd").score.value == trial.score < 0.7
    assert found.probe is not None
    assert found.probe.layers["last"].value > 0.9


def test_a_candidate_that_the_model_cannot_have_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_recipe(tmp_path, save_tiny_encoder(tmp_path / "albert", "albert"))
    found = advise(str(file), budget=0.01)
    assert "look: top_layers is not possible here and is left out: " in capsys.readouterr().out
    assert "top_layers" not in found.evidence.trainable


@pytest.mark.slow
def test_a_budget_without_time_for_trials_leaves_the_default(tmp_path: Path, tiny_encoder: Path) -> None:
    found = advise(str(write_recipe(tmp_path, tiny_encoder)), budget=1e-3)
    assert dict(found.trials) == {}
    assert found.choice.strategy == "llrd"
    assert found.choice.reason.startswith("nothing else was measured") or "cannot tell" in found.choice.reason


@pytest.mark.slow
def test_a_candidate_that_so_short_a_run_cannot_have_is_left_out(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = advise(str(write_recipe(tmp_path, tiny_encoder, training={"duration": "2st"})), budget=20.0)
    assert "llrd" in found.trials
    assert "gradual" not in found.trials
    said = " ".join(capsys.readouterr().out.split())
    assert "look: gradual cannot be tried and is left out: strategy.unfreeze: phase 2" in said


def test_a_task_without_probe_needs_time_for_a_trial(tmp_path: Path, tiny_encoder: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_yaml(words_recipe(tmp_path, tiny_encoder)))
    with pytest.raises(TrainingError, match="--budget is too short for 8 steps of llrd"):
        advise(str(file), budget=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "metric", "has_probe"),
    [
        (label_set_recipe, "macro_f1", True),
        (numbers_recipe, "spearman", True),
        (numbers_recipe, "mse", False),
        (words_recipe, "span_f1", False),
        (question_recipe, "f1", False),
        (choice_recipe, "accuracy", False),
    ],
)
def test_other_tasks_get_trials_and_say_which_evidence_they_lack(
    recipe: Callable[..., Any], metric: str, has_probe: bool, tmp_path: Path, tiny_encoder: Path
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_yaml(recipe(tmp_path, tiny_encoder)))
    found = advise(str(file), [f"training.metric={metric}"], budget=8.0)
    assert found.metric == metric
    assert "llrd" in found.trials
    assert (found.probe is not None) is has_probe
    shown = screen(found)
    assert ("probe            not available" in shown) is not has_probe
    assert f"predicted {metric.replace('_', ' ')}: " in shown


@pytest.mark.slow
def test_images_get_trials_and_a_network_without_linear_head_no_probe(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_yaml(tiny_image_recipe(tmp_path)))
    found = advise(str(file), budget=30.0)
    assert found.probe is None
    assert {"llrd", "head_only", "full"} <= set(found.trials)
    assert (found.evidence.words, found.evidence.lengths) == (None, None)
    assert found.prior.cell.endswith("similar domain (no measure)")


@pytest.mark.slow
def test_support_messages(tmp_path: Path) -> None:
    found: Advice = advise("recipes/quickstart.yaml", [f"output_dir={tmp_path / 'run'}"], budget=90.0)
    assert found.prior.strategy == "head_only"
    assert (found.evidence.rows, found.evidence.smallest, found.evidence.words) != (0, 0, None)
    assert found.probe is not None
    assert 0.5 < found.probe.layers["last"].value < 0.85
    low, high = found.interval
    # Test accuracy of the defaults is 77 to 79 %, see docs/defaults.md.
    assert low < 0.78 < high
    assert found.seconds < 180
    assert not (tmp_path / "run").exists()
