"""`nlp-ft runs`: the table of runs in 80 columns, and the settings and scores in which two differ."""

import json
import os
import re
from pathlib import Path

import pytest

from nlp_ft.api.run import load
from nlp_ft.api.run_list import compare_runs, list_runs
from nlp_ft.cli import main
from nlp_ft.errors import RunFolderError
from nlp_ft.recipe.loader import dump_yaml


def write_run(folder: Path, accuracy: float, seed: int, **optimizer: float) -> None:
    """What `runs` reads of a run folder."""
    folder.mkdir(parents=True)
    recipe = {
        "data": {"train": "a.csv", "text": ["a", "b"]},
        "strategy": {"name": "llrd", "unfreeze": None},
        "optimizer": {"lr": 1e-4, "head_lr": None, **optimizer},
        "training": {"duration": "3ep", "metric": "accuracy"},
        "output_dir": str(folder),
    }
    scores = {"validation": {"accuracy": accuracy, "loss": 0.5}, "test": {"accuracy": accuracy - 0.1, "loss": 0.6}}
    summary = {"strategy": "llrd", "seed": seed, "train_seconds": 12.34, "metrics": scores}
    (folder / "recipe.yaml").write_text(dump_yaml(recipe))
    (folder / "summary.json").write_text(json.dumps(summary))
    os.utime(folder / "summary.json", (1e9 + seed, 1e9 + seed))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    write_run(Path("runs/a_run_with_a_name_that_is_much_longer_than_a_table_can_show"), 0.8, 2)
    write_run(Path("runs/deep/b"), 0.9, 1, head_lr=1e-2)
    Path("runs/c.partial").mkdir()
    return tmp_path


def test_the_list_has_a_line_for_each_run_the_oldest_first_in_80_columns(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["runs", "runs"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[:4] if not line.startswith("-")] == [
        ["run", "strategy", "lr", "head", "seed", "length", "valid.", "test", "secs", "date"],
        ["deep/b", "llrd", "1.0e-4", "1.0e-2", "1", "3ep", "0.9000", "0.8000", "12", "09-09"],
        [lines[3].split()[0], "llrd", "1.0e-4", "-", "2", "3ep", "0.8000", "0.7000", "12", "09-09"],
    ]
    assert re.fullmatch(r"a_r\w*\.\.\.\w*show", lines[3].split()[0])
    assert lines[-2:] == ["valid. and test: accuracy", "unfinished: runs/c.partial"]


def test_two_runs_show_the_settings_that_differ_and_all_scores(runs: Path) -> None:
    first, second = *Path("runs").glob("a*"), Path("runs/deep/b")
    table = [line.rsplit(maxsplit=2) for line in compare_runs([first, second]).splitlines()[2:]]
    assert table == [
        ["optimizer.head_lr", "-", "0.01"],
        ["validation accuracy", "0.8000", "0.9000"],
        ["validation loss", "0.5000", "0.5000"],
        ["test accuracy", "0.7000", "0.8000"],
        ["test loss", "0.6000", "0.6000"],
        ["seconds of training", "12.3", "12.3"],
    ]
    assert "no setting differs" in compare_runs([first, first])


def test_a_folder_without_runs_and_a_damaged_run_are_refused_by_name(runs: Path) -> None:
    with pytest.raises(RunFolderError, match=r"^absent is no folder; name one that holds runs, such as runs"):
        list_runs("absent")
    Path("empty").mkdir()
    with pytest.raises(RunFolderError, match=r"^empty holds no finished run; nlp-ft train makes one"):
        list_runs("empty")
    (Path("runs/deep/b") / "summary.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"^runs/deep/b is not a finished run that can be read: "):
        list_runs("runs")


def test_an_export_is_no_run_of_its_own(runs: Path) -> None:
    write_run(Path("runs/b-onnx"), 0.9, 1)
    Path("runs/b-onnx/export.json").write_text("{}")
    assert "b-onnx" not in list_runs("runs")
    with pytest.raises(RunFolderError, match=r"b-onnx has no metrics\.jsonl; an export leaves it to its run"):
        load("runs/b-onnx").history  # noqa: B018
