"""Ray Train on a real cluster of this machine: a killed worker costs nothing but time."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from nlp_ft.errors import MachineError, RunFolderError
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import dump_yaml, recipe_from_dict
from tests.ray_cluster import ROOT, needs_ray, ray_cluster
from tests.tiny import tiny_recipe
from tests.training.test_run import same, weights

ADAPTER = "nlp_ft.integrations.ray_train"
SECONDS = 300
SETTINGS = {"duration": "600st", "evaluate_every": "200st", "checkpoint_every": "50st"}


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with ray_cluster() as environment:
        yield environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """A folder with the recipe; `unbroken` in it is the run of two processes of torchrun."""
    folder = tmp_path_factory.mktemp("ray_train")
    values = tiny_recipe(folder, tiny_encoder, strategy="gradual", training=SETTINGS, output_dir="unbroken")
    (folder / "recipe.yaml").write_text(dump_yaml(values))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with_root = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*launcher, "-m", "nlp_ft", "train", "recipe.yaml"], cwd=folder, env=with_root, check=True)
    return folder


def worker_of(run: Path, is_writer: bool) -> psutil.Process:
    """The worker that writes the run, or the other one."""
    workers = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"][:1] == ["ray::RayTrainWorker"]]
    lock = f"{run}.lock"
    [found] = [w for w in workers if any(file.path == lock for file in w.open_files()) == is_writer]
    return found


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("is_writer", [True, False])
def test_a_run_with_a_killed_worker_ends_with_the_weights_of_the_unbroken_one(
    is_writer: bool, folder: Path, environment: dict[str, str]
) -> None:
    name = f"runs/killed-{is_writer}"
    run = folder / name
    driver = subprocess.Popen(
        [sys.executable, ROOT / "scripts/examples/ray_train.py", "recipe.yaml", f"output_dir={name}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + SECONDS
    while not list(run.with_name(f"{run.name}.partial").glob("checkpoints/step-*200")):
        assert time.monotonic() < deadline
        assert driver.poll() is None, driver.communicate()[0][-3000:]
        time.sleep(0.02)
    worker_of(run, is_writer).kill()
    out, _ = driver.communicate()
    assert driver.returncode == 0, out[-3000:]
    assert re.search(r"resuming after step [2-5]\d\d of 600", out)
    assert same(weights(run), weights(folder / "unbroken"))
    assert (run / "metrics.jsonl").read_text() == (folder / "unbroken/metrics.jsonl").read_text()
    # Ray has the scores and the run as its own.
    [(scores, copy)] = re.findall(r"^(\{.*\}) Checkpoint\(filesystem=local, path=(.*)\)$", out, re.MULTILINE)
    assert scores == str(json.loads((folder / "unbroken/summary.json").read_text())["metrics"])
    assert same(weights(Path(copy)), weights(run))


@pytest.fixture
def ray_train(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The adapter in a process that is one of Ray's workers, with `rank`; `trained` and `reported` say what it did."""
    seen = SimpleNamespace(rank=0, trained=[], reported=[])
    fake = ModuleType("ray.train")
    fake.Checkpoint = Path  # type: ignore[attr-defined]
    fake.get_context = lambda: SimpleNamespace(get_world_rank=lambda: seen.rank)  # type: ignore[attr-defined]
    fake.report = lambda *given: seen.reported.append(given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    monkeypatch.setitem(sys.modules, "ray.train", fake)
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    adapter = import_module(ADAPTER)

    def train(recipe: Recipe, resume: bool) -> dict[str, Any]:
        seen.trained.append((os.getcwd(), resume))
        return {"metrics": "of the training"}

    monkeypatch.setattr(adapter, "train", train)
    monkeypatch.setattr(adapter, "broadcast_object_list", lambda found: None)
    seen.train_loop = adapter.train_loop
    yield seen
    del sys.modules[ADAPTER]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe whose folders begin in the current one."""
    monkeypatch.chdir(tmp_path)
    return recipe_from_dict({"data": {"train": "a.csv"}, "model": {"name": "m"}, "output_dir": "runs/mine"})


def test_workers_train_in_the_folder_of_the_driver_and_the_first_one_hands_in_the_run(
    ray_train: SimpleNamespace, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = ray_train.train_loop(recipe)
    for ray_train.rank in (0, 1):
        monkeypatch.chdir("/")
        assert loop() == {"metrics": "of the training"}
    assert ray_train.trained == [(str(tmp_path), True)] * 2
    assert ray_train.reported == [("of the training", tmp_path / "runs/mine"), ("of the training", None)]


def test_a_run_that_was_finished_before_a_worker_was_lost_is_not_trained_again(
    ray_train: SimpleNamespace, recipe: Recipe, tmp_path: Path
) -> None:
    loop = ray_train.train_loop(recipe)
    run = tmp_path / "runs/mine"
    run.mkdir(parents=True)
    (run / "summary.json").write_text('{"metrics": "of the run"}')
    assert loop() == {"metrics": "of the run"}
    assert (ray_train.trained, ray_train.reported) == ([], [("of the run", run)])
    (run / "run.json").write_text('{"run_id": "a"}')  # not tidied, which `train` does
    assert loop() == {"metrics": "of the training"}


def test_a_run_that_was_there_before_is_refused_by_the_driver(
    ray_train: SimpleNamespace, recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/summary.json").touch()
    with pytest.raises(RunFolderError, match="output_dir: runs/mine holds a finished run; "):
        ray_train.train_loop(recipe)


def test_a_machine_that_does_not_see_the_folder_is_named(
    ray_train: SimpleNamespace, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = ray_train.train_loop(recipe)
    monkeypatch.chdir("/")
    tmp_path.rmdir()
    with pytest.raises(MachineError) as error:
        loop()
    place = "must be on a disk that all machines see under the same path"
    assert str(error.value) == f"{socket.gethostname()} does not see {tmp_path}; data and output_dir {place}"
