"""Two real processes (gloo, CPU) against one: same weights, same scores, both ranks equal to the bit."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from nlp_ft.errors import RunFolderError
from nlp_ft.recipe.loader import dump_yaml, load_recipe, recipe_from_dict
from nlp_ft.training.run import train
from nlp_ft.training.run_folder import RunFolder
from tests.tiny import tiny_recipe
from tests.training.test_run import same, weights

ROOT = Path(__file__).parents[2]
TOKENS = 48
"""Nine micro-batches an epoch: of the last effective batch one process has none."""


def launch(*calls: list[str]) -> subprocess.CompletedProcess[str]:
    """Two processes by `accelerate launch`, as the README tells it, for one call of the script after the other."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    options = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    program = ["tests/training/launched.py", json.dumps(calls)]
    return subprocess.run([*launcher, *options, *program], cwd=ROOT, capture_output=True, text=True)


def recipe_of(
    folder: Path, encoder: Path, name: str, size: int, accumulation: int, max_tokens_per_batch: int | None = None
) -> Path:
    values = tiny_recipe(
        folder,
        encoder,
        model={"dropout": 0.0, "head": {"dropout": 0.0}},
        loss={"class_weights": "balanced"},
        training={
            "per_device_batch_size": size,
            "gradient_accumulation_steps": accumulation,
            "max_tokens_per_batch": max_tokens_per_batch,
            "keep": "last",
            "duration": "3ep",
        },
        output_dir=str(folder / name),
        report=name in ("one", "accumulated", "two"),
    )
    (folder / f"{name}.yaml").write_text(dump_yaml(values))
    return folder / f"{name}.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def launched(folder: Path, tiny_encoder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `two`, `two_accumulated` and `two_by_tokens`, and one with an error of the user."""
    # 50 rows: the last effective batch has two rows, so that with 4 x 2 x 1 one process has one row and one none.
    two = recipe_of(folder, tiny_encoder, "two", 4, 1)
    accumulated = recipe_of(folder, tiny_encoder, "two_accumulated", 2, 2)
    by_tokens = recipe_of(folder, tiny_encoder, "two_by_tokens", 8, 1, TOKENS)
    wrong = [str(two), "data.label=lable", f"output_dir={folder / 'wrong'}"]
    stopped = [str(two), f"output_dir={folder / 'stopped'}"]
    return launch(
        [str(two)], [str(accumulated)], [str(by_tokens)], [*stopped, "SIGTERM"], [*stopped, "--resume"], wrong
    )


@pytest.fixture(scope="module")
def runs(folder: Path, tiny_encoder: Path, launched: subprocess.CompletedProcess[str]) -> dict[str, Path]:
    for name, size, accumulation in (("one", 8, 1), ("accumulated", 4, 2)):
        train(load_recipe(str(recipe_of(folder, tiny_encoder, name, size, accumulation))))
    train(load_recipe(str(recipe_of(folder, tiny_encoder, "by_tokens", 8, 2, TOKENS))))
    names = ("one", "accumulated", "by_tokens", "two", "two_accumulated", "two_by_tokens")
    found = {name: folder / name for name in names}
    assert [name for name in found if not found[name].exists()] == [], launched.stderr[-3000:]
    return found


@pytest.mark.parametrize(
    ("name", "same_as"),
    [("accumulated", "one"), ("two", "one"), ("two_accumulated", "one"), ("two_by_tokens", "by_tokens")],
)
def test_the_same_effective_batch_gives_the_same_weights(runs: dict[str, Path], name: str, same_as: str) -> None:
    one, other = weights(runs[same_as]), weights(runs[name])
    for parameter, tensor in one.items():
        torch.testing.assert_close(other[parameter], tensor, rtol=0, atol=1e-5, msg=parameter)


@pytest.mark.parametrize(("name", "same_as"), [("accumulated", "one"), ("two", "one"), ("stopped", "two")])
def test_the_recorder_sees_the_same_layers_over_processes_and_micro_batches_and_after_a_stop(
    folder: Path, runs: dict[str, Path], name: str, same_as: str
) -> None:
    found = []
    for run in (name, same_as):
        lines = [json.loads(line) for line in (folder / run / "layers.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 8, 16, 21]
        found.append({(line["step"], key): line[key] for line in lines for key in ("gradient_norm", "drift")})
    assert all(of == pytest.approx(found[1][place], rel=1e-3) for place, of in found[0].items())


def test_both_ranks_hold_equal_weights_to_the_bit(runs: dict[str, Path]) -> None:
    hashes = json.loads((runs["two"] / "summary.json").read_text())["weights_hashes"]
    assert len(hashes) == 2
    assert len(set(hashes)) == 1


def test_a_signal_to_one_process_stops_both_after_the_same_step_and_the_run_resumes_to_the_bit(
    folder: Path, runs: dict[str, Path], launched: subprocess.CompletedProcess[str]
) -> None:
    assert sorted(re.findall("process . stopped with .*", launched.stdout)) == [
        "process 0 stopped with 143",
        "process 1 stopped with 143",
    ]
    assert launched.stderr.count("stopped by SIGTERM; the checkpoint after step 4 is kept in ") == 1
    assert same(weights(folder / "stopped"), weights(runs["two"]))
    assert (folder / "stopped/metrics.jsonl").read_text() == (runs["two"] / "metrics.jsonl").read_text()


def test_scores_over_two_processes_with_an_uneven_last_batch_are_those_of_one(runs: dict[str, Path]) -> None:
    one, two = (json.loads((runs[name] / "summary.json").read_text())["metrics"] for name in ("one", "two"))
    assert two["test"]["accuracy"] == one["test"]["accuracy"]
    assert two["validation"]["loss"] == pytest.approx(one["validation"]["loss"], abs=1e-5)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_predictions_over_two_processes_are_those_of_one(runs: dict[str, Path], split: str) -> None:
    tables = []
    for name in ("one", "two"):
        with (runs[name] / f"{split}_predictions.csv").open(newline="", encoding="utf-8") as stream:
            tables.append({row["row"]: row for row in csv.DictReader(stream)})
    one, two = tables
    assert sorted(map(int, one)) == list(range({"validation": 21, "test": 25}[split]))
    assert one.keys() == two.keys()
    for number, row in one.items():
        other = two[number]
        assert [other[key] for key in ("text", "reference", "predicted")] == [
            row[key] for key in ("text", "reference", "predicted")
        ]
        assert float(other["loss"]) == pytest.approx(float(row["loss"]), abs=1e-4)


def test_the_losses_of_train_rows_over_two_processes_are_those_of_one(runs: dict[str, Path]) -> None:
    found = []
    for name in ("one", "two"):
        with (runs[name] / "train_hardest.csv").open(newline="", encoding="utf-8") as stream:
            found.append({row["row"]: float(row["loss"]) for row in csv.DictReader(stream)})
    assert len(found[0]) == 50
    assert found[1] == pytest.approx(found[0], abs=1e-4)


def test_an_error_of_the_user_is_said_once_over_two_processes(
    folder: Path, launched: subprocess.CompletedProcess[str]
) -> None:
    assert launched.returncode != 0
    assert launched.stderr.count("did you mean label?") == 1
    assert list(folder.glob("wrong*")) == []


def test_a_folder_that_only_some_machines_see_is_refused(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "create", lambda *arguments: None)
    with pytest.raises(RunFolderError, match="must be on a disk that all machines see: some do not find "):
        train(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder)))


def test_the_configuration_for_two_machines_is_one_that_accelerate_reads() -> None:
    config = load_config_from_file(str(ROOT / "scripts" / "two_nodes.yaml"))
    assert (config.num_machines, config.num_processes, config.distributed_type.value) == (2, 16, "MULTI_GPU")
