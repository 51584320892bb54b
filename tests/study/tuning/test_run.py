"""A search: it goes on where it was, stops bad trials early, never reads test, and writes the best settings."""

import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.cli import main
from nlp_ft.errors import Interrupted, RunFolderError, TrainingError
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.study.process import DIVERGED, Running
from nlp_ft.study.tuning import run
from nlp_ft.study.tuning.run import scores_in, tune
from nlp_ft.study.tuning.space import read_space
from nlp_ft.study.tuning.study import Study, make_study
from nlp_ft.tasks.registry import task_of
from nlp_ft.training.identity import hashes_of_data
from tests.study.test_compare import Done, write_recipe

SPACE = ("optimizer.lr=1e-5..1e-3", "training.per_device_batch_size=4,8")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> str:
    return write_recipe(tmp_path_factory.mktemp("search"), tiny_encoder)


def of(recipe: str, folder: Path, space: Sequence[str] = SPACE) -> Study:
    return make_study(recipe, ("training.duration=4st",), folder, read_space(space))


class Trials:
    """Trials that end at once; a higher learning rate scores better."""

    def __init__(self, data_hashes: Mapping[str, str] | None = None) -> None:
        self.recipes: dict[str, Any] = {}
        self.data_hashes = data_hashes or {}

    def start(self, file: Path, log: Path) -> Running:
        recipe = load_recipe(file)
        self.recipes[file.stem] = recipe
        assert recipe.optimizer.lr is not None
        folder = Path(recipe.output_dir)
        folder.mkdir(parents=True)
        metrics = {"validation": {"accuracy": 100 * recipe.optimizer.lr}}
        summary = {"metrics": metrics, "train_seconds": 2.0, "data_hashes": self.data_hashes}
        (folder / "summary.json").write_text(json.dumps(summary))
        return Done()


class Slow(Done):
    """A trial that has three bad scores on validation and trains on until it is told to end."""

    def __init__(self, recipe: Path) -> None:
        self.code: int | None = None
        partial = Path(f"{load_recipe(recipe).output_dir}.partial")
        partial.mkdir(parents=True)
        lines = [{"step": step, "validation": {"accuracy": 0.0}} for step in (1, 2, 3)]
        (partial / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "va')

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.code = 143

    def wait(self) -> int:
        assert self.code is not None
        return self.code


def test_trials_are_judged_on_validation_alone_and_the_best_is_written(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials, folder = Trials(), tmp_path / "s"
    result = tune(of(recipe, folder), 6, start=trials.start)
    assert {one.data.test for one in trials.recipes.values()} == {None}
    assert {one.baselines for one in trials.recipes.values()} == {False}
    rates = {number: one.optimizer.lr for number, one in trials.recipes.items()}
    best = max(rates, key=lambda number: rates[number])
    chosen = trials.recipes[best]
    assert result["best"]["trial"] == int(best)
    assert result["best"]["overrides"] == [
        f"optimizer.lr={rates[best]:.3g}",
        f"training.per_device_batch_size={chosen.training.per_device_batch_size}",
    ]
    written = load_recipe(folder / "best.yaml")
    assert (written.optimizer.lr, written.training.duration) == (chosen.optimizer.lr, chosen.training.duration)
    assert written.data.test == load_recipe(recipe).data.test
    assert written.output_dir == f"{load_recipe(recipe).output_dir}-tuned"
    with (folder / "trials.csv").open(newline="") as stream:
        values = [float(row["validation_accuracy"]) for row in csv.DictReader(stream)]
    assert values == sorted((100 * rate for rate in rates.values()), reverse=True)
    assert f"next: nlp-ft train {folder}/best.yaml" in capsys.readouterr().out


def test_a_second_start_goes_on_and_draws_other_settings(recipe: str, tmp_path: Path) -> None:
    first, second = Trials(), Trials()
    tune(of(recipe, tmp_path / "s"), 3, start=first.start)
    result = tune(of(recipe, tmp_path / "s"), 5, start=second.start)
    assert (sorted(first.recipes), sorted(second.recipes)) == (["0000", "0001", "0002"], ["0003", "0004"])
    assert len({one["settings"]["optimizer.lr"] for one in result["trials"]}) == 5
    with pytest.raises(RunFolderError, match="holds a study of another recipe or another space"):
        tune(of(recipe, tmp_path / "s", SPACE[:1]), 5, start=second.start)


def test_what_is_damaged_is_named_and_no_run_is_taken_for_that_of_another_trial(recipe: str, tmp_path: Path) -> None:
    study = of(recipe, tmp_path / "s")
    tune(study, 2, start=Trials().start)
    for name in ("tune.json", "journal.log"):
        whole = (tmp_path / "s" / name).read_text()
        (tmp_path / "s" / name).write_text("{\n")
        with pytest.raises(RunFolderError, match=rf"{name} is damaged.*choose another folder"):
            tune(study, 3, start=Trials().start)
        (tmp_path / "s" / name).write_text(whole)
    (tmp_path / "s/journal.log").unlink()
    file = tmp_path / "s/trials/0001.yaml"
    file.write_text(file.read_text().replace("per_device_batch_size: ", "per_device_batch_size: 3"))
    with pytest.raises(RunFolderError, match=r"0001\.yaml is not that of trial 1 in .*journal\.log"):
        tune(study, 2, start=lambda file, log: Done())


def test_a_trial_that_was_cut_off_is_trained_on_with_its_settings(recipe: str, tmp_path: Path) -> None:
    begun: list[str] = []

    class Stopped(Done):
        def poll(self) -> int:
            return 130

        def wait(self) -> int:
            return 130

    def stopped(file: Path, log: Path) -> Running:
        begun.append(file.read_text())
        return Stopped()

    with pytest.raises(Interrupted) as interrupted:
        tune(of(recipe, tmp_path / "s"), 2, start=stopped)
    assert interrupted.value.exit_code == 130
    trials = Trials()

    def start(file: Path, log: Path) -> Running:
        begun.append(file.read_text())
        return trials.start(file, log)

    tune(of(recipe, tmp_path / "s"), 2, start=start)
    assert sorted(trials.recipes) == ["0000", "0001"]
    assert begun[0] == begun[1] != begun[2]


def test_a_trial_that_is_worse_than_the_median_is_stopped_early(recipe: str, tmp_path: Path) -> None:
    slow: list[Slow] = []
    tune(of(recipe, tmp_path / "s"), 1, start=Trials().start)

    def start(file: Path, log: Path) -> Running:
        slow.append(Slow(file))
        return slow[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "FIRST_TRIALS", 0)
        journal = run._journal(of(recipe, tmp_path / "s"))
        trial = journal.ask(run._distributions(read_space(SPACE)))
        for step in (1, 2, 3):
            trial.report(0.9, step)
        journal.tell(trial, 0.9)
        result = tune(of(recipe, tmp_path / "s"), 3, start=start)
    assert [process.code for process in slow] == [143]
    assert [one["why"] for one in result["trials"]] == ["", "", "stopped early"]
    assert list((tmp_path / "s/trials").glob("*.partial")) == []


def test_a_trial_that_diverges_says_something_and_another_error_ends_the_search(recipe: str, tmp_path: Path) -> None:
    def fails(code: int, said: str) -> Any:
        class Failed(Done):
            def wait(self) -> int:
                return code

        def start(file: Path, log: Path) -> Running:
            with log.open("a") as stream:
                stream.write(said)
            return Failed()

        return start

    result = tune(of(recipe, tmp_path / "s"), 2, start=fails(DIVERGED, "error: the loss is nan at step 3\n"))
    assert [one["why"] for one in result["trials"]] == ["diverged", "diverged"]
    assert result["best"] is None
    with pytest.raises(TrainingError, match=r"trial 2 cannot be trained: the disk is full \(all of it: .*0002\.log\)"):
        tune(of(recipe, tmp_path / "s"), 3, start=fails(2, "error: the disk is full\n"))
    # What an earlier try has said is not said again.
    with pytest.raises(TrainingError, match=r"trial 2 cannot be trained: it was killed by signal 9, such as for lack"):
        tune(of(recipe, tmp_path / "s"), 3, start=fails(-9, "a warning\n"))


def test_the_first_evaluation_stops_no_trial(recipe: str, tmp_path: Path) -> None:
    study = of(recipe, tmp_path / "s")
    (tmp_path / "s").mkdir()
    journal = run._journal(study)
    for value in (0.9, 0.8, 0.7, 0.6, 0.5, 0.0):
        trial = journal.ask(run._distributions(study.space))
        stops = []
        for step in (1, 2):
            trial.report(value, step)
            stops.append(trial.should_prune())
        journal.tell(trial, value)
    assert stops == [False, True]


def test_rows_that_have_changed_since_a_trial_are_refused(recipe: str, tmp_path: Path) -> None:
    study = of(recipe, tmp_path / "s")
    hashes = hashes_of_data(task_of(study.recipe).identity(), ("train", "validation"))
    tune(study, 1, start=Trials({**hashes, "test": "not read"}).start)
    tune(study, 2, start=Trials({"train": "of yesterday", "validation": "of yesterday"}).start)
    message = "the rows of train and validation have changed since trial 1 was trained; put the data back, or begin"
    with pytest.raises(RunFolderError, match=message):
        tune(study, 3, start=Trials().start)


def test_the_best_recipe_is_that_of_the_start_though_its_file_has_changed(recipe: str, tmp_path: Path) -> None:
    study = make_study(recipe, (), tmp_path / "s", read_space(SPACE))
    text = Path(recipe).read_text()
    Path(recipe).write_text(text.replace('"4st"', '"9st"'))
    try:
        tune(study, 1, start=Trials().start)
    finally:
        Path(recipe).write_text(text)
    assert str(load_recipe(tmp_path / "s/best.yaml").training.duration) == "4st"


def test_scores_are_read_while_a_run_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert scores_in(file, "accuracy") == []
    lines = [
        '{"step": 5, "loss": 1.0}',
        '{"step": 5, "validation": {"accuracy": 0.5}}',
        '{"step": 9, "validation": {"ac',
    ]
    file.write_text("\n".join(lines))
    assert scores_in(file, "accuracy") == [0.5]


def test_without_optuna_there_is_one_clear_error(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit) as stopped:
        main(["tune", recipe, "--output", str(tmp_path / "s")])
    said = "error: nlp-ft tune needs optuna, which is not installed; try: pip install 'nlp-ft[tune]'\n"
    assert (stopped.value.code, capsys.readouterr().err) == (2, said)


@pytest.mark.slow
def test_a_real_search_trains_goes_on_and_its_best_recipe_can_be_trained(recipe: str, tmp_path: Path) -> None:
    def typed(*words: str) -> str:
        command = [sys.executable, "-m", "nlp_ft", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    folder = str(tmp_path / "s")
    typed("tune", recipe, "--trials", "2", "--output", folder)
    out = typed("tune", recipe, "--trials", "3", "--jobs", "2", "--output", folder)
    assert "trial 2: " in out
    assert "trial 1: " not in out
    result = json.loads((tmp_path / "s/result.json").read_text())
    values = [one["value"] for one in result["trials"]]
    assert (len(values), values) == (3, sorted(values, reverse=True))
    assert "test" in typed("train", f"{folder}/best.yaml", f"output_dir={tmp_path / 'best'}")
