"""Comparisons on a Ray cluster of this machine: the results of local ones, also after kills of workers and drivers."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import nlp_ft
from nlp_ft.cli import main
from nlp_ft.errors import MachineError
from nlp_ft.study import on_ray
from nlp_ft.study.on_ray import Cluster
from nlp_ft.study.process import TAKEN
from nlp_ft.training import lock
from tests.ray_cluster import needs_ray, ray_cluster
from tests.study.test_compare import without_costs, write_recipe
from tests.study.test_interrupt import LONG, SECONDS, wait_until_training


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """A cluster of its own with two CPUs: the environment in which a driver finds it."""
    with ray_cluster() as environment:
        yield environment


@pytest.fixture(scope="module")
def long_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> str:
    return write_recipe(tmp_path_factory.mktemp("long"), tiny_encoder, training={**LONG, "duration": "600st"})


@pytest.fixture(scope="module")
def expected(long_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of the same comparison on this machine alone."""
    folder = tmp_path_factory.mktemp("local") / "c"
    process = begin(long_recipe, folder, dict(os.environ), "local")
    assert (process.communicate()[1], process.returncode) == ("", 0)
    return without_costs(folder)


def begin(recipe: str, folder: Path, environment: dict[str, str], executor: str = "ray") -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "nlp_ft", "compare", recipe, "--strategies", "full", "head_only"]
    return subprocess.Popen(
        [*command, "--rates", "1", "--seeds", "2", "--jobs", "2", "--executor", executor, "--output", str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def worker_of(log: Path) -> psutil.Process:
    """The worker of Ray that has started the process that writes a log; waits for it."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["open_files"]):
            if any(file.path == str(log) for file in process.info["open_files"] or []):
                return next(parent for parent in process.parents() if parent.cmdline()[0].startswith("ray::"))
    raise AssertionError(f"no process writes {log}")


@needs_ray
@pytest.mark.slow
def test_a_cluster_gives_the_result_of_this_machine(
    long_recipe: str, tmp_path: Path, environment: dict[str, str], expected: dict[str, Any]
) -> None:
    process = begin(long_recipe, tmp_path / "c", environment)
    out, err = process.communicate()
    assert (err, process.returncode) == ("", 0)
    assert out.startswith("Ray cluster: 1 machine(s), 2 CPUs; a cell takes 1 CPU\n4 cells in ")
    assert without_costs(tmp_path / "c") == expected


@needs_ray
@pytest.mark.slow
def test_a_killed_worker_loses_no_cell(
    long_recipe: str, tmp_path: Path, environment: dict[str, str], expected: dict[str, Any]
) -> None:
    process = begin(long_recipe, tmp_path / "c", environment)
    worker = worker_of(tmp_path / "c/cells/full-x1-seed0.log")
    wait_until_training(tmp_path / "c", "full-x1-seed0")
    worker.kill()
    process.communicate()
    assert process.returncode == 0
    assert without_costs(tmp_path / "c") == expected
    # Begun twice: the second time it went on from the checkpoint of the first.
    assert "stopped by SIGTERM; the checkpoint after step" in (tmp_path / "c/cells/full-x1-seed0.log").read_text()


@needs_ray
@pytest.mark.slow
def test_interrupted_and_killed_it_goes_on_where_it_was(
    long_recipe: str, tmp_path: Path, environment: dict[str, str], expected: dict[str, Any]
) -> None:
    folder = tmp_path / "c"
    process = begin(long_recipe, folder, environment)
    wait_until_training(folder, "full-x1-seed0")
    process.terminate()
    stopped = f"\nstopped; what is finished is kept in {folder}, and the same command goes on from there\n"
    assert (process.communicate()[1], process.returncode) == (stopped, 143)
    with lock.held(folder / "cells/full-x1-seed0"):  # nothing is left behind
        assert list((folder / "cells/full-x1-seed0.partial/checkpoints").glob("step-*"))
    process = begin(long_recipe, folder, environment)
    wait_until_training(folder, "head_only-x1-seed0")
    process.kill()
    process.communicate()
    process = begin(long_recipe, folder, environment)  # at once: the cells of the killed one may still train
    process.communicate()
    assert process.returncode == 0
    assert without_costs(folder) == expected


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the adapter uses of Ray, without a cluster; `get` gives `answer`."""
    names = ("TaskCancelledError", "RayTaskError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError")
    machines = [{"Alive": True}, {"Alive": True}, {"Alive": False}]
    fake = SimpleNamespace(answer=0, cancelled=[], options={}, exceptions=SimpleNamespace())
    fake.init = lambda **_: None
    fake.cluster_resources = lambda: {"CPU": 8.0, "GPU": 2.0}
    fake.nodes = lambda: machines
    fake.cancel = fake.cancelled.append
    fake.wait = lambda tasks, timeout: (tasks, [])
    for name in names:
        setattr(fake.exceptions, name, type(name, (Exception,), {}))

    def remote(**options: object) -> Callable[[object], object]:
        fake.options = options
        task = SimpleNamespace(remote=lambda *_: "task")
        return lambda _: SimpleNamespace(options=lambda name: task)

    def get(task: str) -> object:
        if isinstance(fake.answer, Exception):
            raise fake.answer
        return fake.answer

    fake.remote, fake.get = remote, get
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return fake


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """The recipe of a cell that is finished."""
    (tmp_path / "full-x1-seed0").mkdir()
    file = tmp_path / "full-x1-seed0.yaml"
    file.write_text("a recipe")
    return file


def test_a_cell_takes_a_gpu_and_the_threads_of_the_environment(
    ray: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    Cluster()
    assert ray.options == {"num_cpus": 4, "num_gpus": 1, "max_retries": 0}
    printed = capsys.readouterr().out
    assert printed == "Ray cluster: 2 machine(s), 8 CPUs and 2 GPUs; a cell takes 4 CPUs and 1 GPU\n"


def test_a_cell_that_ends_gives_its_code(ray: SimpleNamespace, cell: Path) -> None:
    cluster, log = Cluster(), cell.with_suffix(".log")
    assert cluster.start(cell, log).poll() == 0
    ray.answer = TAKEN
    assert cluster.start(cell, log).wait() == TAKEN
    ray.answer = ray.exceptions.TaskCancelledError()
    task = cluster.start(cell, log)
    task.terminate()
    assert (task.wait(), ray.cancelled) == (143, ["task"])
    assert not log.exists()


@pytest.mark.parametrize("lost", ["WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", -signal.SIGKILL])
def test_a_cell_that_loses_its_worker_again_and_again_is_given_up(
    lost: str | int, ray: SimpleNamespace, cell: Path
) -> None:
    ray.answer = getattr(ray.exceptions, lost)("why\nand more") if isinstance(lost, str) else lost
    cluster, log = Cluster(), cell.with_suffix(".log")
    assert [cluster.start(cell, log).wait() for _ in range(4)] == [TAKEN, TAKEN, TAKEN, 2]
    why = "why" if isinstance(lost, str) else "its process was killed, such as for lack of memory"
    assert log.read_text() == f"error: it has lost its worker 4 times, at last because: {why}\n"


def test_a_machine_that_does_not_see_the_folder_or_has_another_version_is_named(
    cell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    host, version = socket.gethostname(), nlp_ft.__version__
    hidden = on_ray._train("cells/a.yaml", "log", str(tmp_path), {}, "a recipe", version)
    assert hidden == f"{host} does not see {tmp_path}/cells/a.yaml; {on_ray.SAME_DISK}"
    stale = on_ray._train(str(cell), "log", str(tmp_path), {}, "another recipe", version)
    assert stale == f"{host} does not see {cell}; {on_ray.SAME_DISK}"
    old = on_ray._train(str(cell), "log", str(tmp_path), {}, "a recipe", "9.9")
    assert old == f"{host} has nlp_ft {version}; install nlp_ft 9.9 on all machines"


def test_what_a_machine_lacks_is_the_error_of_the_cell(
    ray: SimpleNamespace, cell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "SECONDS_TO_APPEAR", 0.0)
    cell.with_suffix("").rmdir()
    broken = ray.exceptions.RayTaskError("Traceback:\n\nModuleNotFoundError: No module named 'nlp_ft'\n")
    said = {
        "node7 does not see it": "node7 does not see it",
        broken: "a worker cannot start it: ModuleNotFoundError: No module named 'nlp_ft'; "
        f"install nlp_ft {nlp_ft.__version__} on all machines",
        0: f"a worker has trained it, but {cell.with_suffix('')} is not found here; {on_ray.SAME_DISK}",
    }
    for ray.answer, why in said.items():
        log = cell.with_suffix(".log")
        log.unlink(missing_ok=True)
        assert Cluster().start(cell, log).wait() == 2
        assert log.read_text() == f"error: {why}\n"


@pytest.mark.parametrize(
    ("address", "last", "why"),
    [
        ("", "", "--executor ray: no Ray cluster is found (none)"),
        ("nonsense", "127.0.0.1:8", "--executor ray: no Ray cluster is found at nonsense (none)"),
        ("127.0.0.1:9", "", "--executor ray: no Ray cluster is found at 127.0.0.1:9 ([Errno 111] Connection refused)"),
        ("", "127.0.0.1:9", "--executor ray: no Ray cluster is found at 127.0.0.1:9 ([Errno 111] Connection refused)"),
        ("ray://127.0.0.1:9", "", "RAY_ADDRESS: ray://127.0.0.1:9 is that of a Ray client, which shares no disk"),
    ],
)
def test_without_a_cluster_it_says_at_once_how_to_start_one(
    address: str, last: str, why: str, ray: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    if last:
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray/ray_current_cluster").write_text(last)

    def init(**_: object) -> None:
        raise ConnectionError("none")

    ray.init = init
    with pytest.raises(MachineError) as error:
        Cluster()
    assert str(error.value) == f"{why}; {on_ray.HOW}"


def test_without_ray_it_says_how_to_install_it(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as end:
        main(["compare", write_recipe(tmp_path, tiny_encoder), "--executor", "ray"])
    expected = "error: --executor ray needs ray, which is not installed; try: pip install 'nlp-ft[ray]'\n"
    assert (end.value.code, capsys.readouterr().err) == (2, expected)
