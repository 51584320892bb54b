"""The files for Slurm and SkyPilot, run on this machine as by each of two others; only their programs are replaced."""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.recipe.loader import dump_yaml, read_yaml
from tests.tiny import tiny_recipe

ROOT = Path(__file__).parents[2]
SCONTROL = """#!/bin/bash
[[ "$*" == "show hostnames node[1-2]" ]] && printf 'localhost\\nelsewhere\\n'
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
"$@" & "$@" &
wait -n && wait -n
"""
"""Starts what it is given on each of two machines."""


def sky() -> Mapping[str, Any]:
    return read_yaml(ROOT / "scripts/skypilot.yaml")


@pytest.fixture
def environment(tmp_path: Path, tiny_encoder: Path) -> dict[str, str]:
    """That of a machine without GPUs; the current folder has `recipe.yaml`, which trains in `run`."""
    (tmp_path / "recipe.yaml").write_text(dump_yaml(tiny_recipe(tmp_path, tiny_encoder, strategy="gradual")))
    for name, program in {"scontrol": SCONTROL, "srun": SRUN}.items():
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    programs = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": programs, "PYTHONPATH": str(ROOT)}


def require_two_equal_processes(folder: Path, *machines: "subprocess.Popen[str]") -> None:
    said = [machine.communicate()[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0] * len(machines), "".join(said)[-3000:]
    hashes = json.loads((folder / "run/summary.json").read_text())["weights_hashes"]
    assert (len(hashes), len(set(hashes))) == (2, 1)


def start(command: list[str], folder: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_the_script_for_slurm_trains_on_two_machines(tmp_path: Path, environment: dict[str, str]) -> None:
    job = {"SLURM_JOB_ID": str(random.randrange(10_000)), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2"}
    script = ["bash", str(ROOT / "scripts/slurm.sh"), "recipe.yaml", "training.duration=20st"]
    require_two_equal_processes(tmp_path, start(script, tmp_path, {**environment, **job}))
    assert read_yaml(tmp_path / "run/recipe.yaml")["training"]["duration"] == "20st"


@pytest.mark.slow
def test_the_task_for_skypilot_trains_on_two_machines(tmp_path: Path, environment: dict[str, str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        run = sky()["run"].replace("29500", str(free.getsockname()[1]))
    job = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "127.0.0.1\n10.0.0.2", "RECIPE": "recipe.yaml"}
    machines = [{**environment, **job, "SKYPILOT_NODE_RANK": rank} for rank in ("0", "1")]
    require_two_equal_processes(tmp_path, *(start(["bash", "-c", run], tmp_path, machine) for machine in machines))


def test_the_task_for_skypilot_has_only_fields_that_tasks_have() -> None:
    # https://docs.skypilot.co/en/latest/reference/yaml-spec.html
    assert set(sky()) == {"name", "num_nodes", "workdir", "envs", "resources", "volumes", "setup", "run"}
    assert (sky()["num_nodes"], sky()["envs"]) == (2, {"RECIPE": None})
