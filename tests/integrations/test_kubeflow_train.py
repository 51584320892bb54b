"""The function for Kubeflow Trainer, run as a pod runs it: its text, through a shell, by torchrun."""

import inspect
import json
import os
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nlp_ft.recipe.loader import dump_yaml
from tests.integrations.examples import FOLDER
from tests.tiny import tiny_recipe

ROOT = Path(__file__).parents[2]
SCRIPT = str(FOLDER / "kubeflow_train.py")
SOURCE = inspect.getsource(runpy.run_path(SCRIPT)["train"])
POD_SCRIPT = """
read -r -d '' SCRIPT << EOM

{code}
EOM
printf "%s" "$SCRIPT" > "kubeflow_train.py"
{launcher} "kubeflow_train.py\""""
"""What the SDK of Kubeflow (0.5.0) gives to `bash -c`."""


def pod_script(arguments: dict[str, Any], launcher: str = "torchrun") -> str:
    code = f"{SOURCE}\ntrain(**{arguments})\n"
    return POD_SCRIPT.format(code=code, launcher=launcher)


def test_the_shell_of_a_pod_leaves_the_function_as_it_is(tmp_path: Path) -> None:
    script = pod_script({"recipe": "a.yaml", "overrides": ["seed=1"]}, launcher="cat")
    shown = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    call = "train(**{'recipe': 'a.yaml', 'overrides': ['seed=1']})"
    assert (shown.stderr, shown.stdout.strip()) == ("", f"{SOURCE}\n{call}")


@pytest.mark.slow
def test_two_processes_of_a_pod_train(tmp_path: Path, tiny_encoder: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_yaml(tiny_recipe(tmp_path, tiny_encoder, strategy="gradual")))
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": programs, "PYTHONPATH": str(ROOT), "PET_NPROC_PER_NODE": "2"}
    script = pod_script({"recipe": "recipe.yaml", "overrides": ["seed=7"]})
    pod = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert pod.returncode == 0, pod.stderr[-3000:]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["seed"], len(summary["weights_hashes"]), len(set(summary["weights_hashes"]))) == (7, 2, 1)


def test_the_script_hands_kubeflow_what_the_pods_of_these_tests_run(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = pytest.importorskip("kubeflow.trainer", reason="install it with pip install 'nlp-ft[kubeflow]'")
    commands = import_module("kubeflow.trainer.backends.kubernetes.utils")
    constants = import_module("kubeflow.trainer.constants.constants")
    given: dict[str, Any] = {}
    monkeypatch.setattr(trainer, "TrainerClient", lambda: SimpleNamespace(train=lambda **what: given.update(what)))
    monkeypatch.setattr(sys, "argv", ["kubeflow_train.py", "a.yaml", "seed=1"])
    runpy.run_path(SCRIPT, run_name="__main__")
    runtime = SimpleNamespace(trainer=SimpleNamespace(command=constants.TORCH_COMMAND))
    made = commands.get_trainer_cr_from_custom_trainer(runtime, given["trainer"])
    assert (given["runtime"], made.num_nodes) == ("torch-distributed", 2)
    assert made.command[:2] == ["bash", "-c"]
    assert made.command[2].endswith(pod_script({"recipe": "a.yaml", "overrides": ["seed=1"]}))
