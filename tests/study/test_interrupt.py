"""A comparison that is stopped or killed: what it says, and that it goes on to the result of an unbroken one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nlp_ft.errors import FolderInUseError, Interrupted
from nlp_ft.study.cells import make_plan
from nlp_ft.study.compare import compare
from nlp_ft.study.process import TAKEN, Running
from nlp_ft.study.running import run_cells
from nlp_ft.study.writing import RESULT
from nlp_ft.training import durable, lock
from tests.study.test_compare import Done, here, without_costs, write_recipe

LONG = {"duration": "300st", "checkpoint_every": "50st"}
SECONDS = 300


class Endless(Done):
    """A process that runs until it is told to end."""

    def __init__(self) -> None:
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.code = 143

    def wait(self) -> int:
        assert self.code is not None, "nobody has told this process to end"
        return self.code


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> str:
    return write_recipe(tmp_path_factory.mktemp("comparison"), tiny_encoder)


@pytest.fixture
def _signals_as_in_a_terminal() -> Iterator[None]:
    """Where the tests run in the background, Ctrl-C is ignored, and so it is by what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_signals_as_in_a_terminal")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_cells_and_says_how_to_go_on(
    number: signal.Signals, code: int, recipe: str, tmp_path: Path
) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["full"], 1, 2)
    begun: list[Endless] = []

    def start(file: Path, log: Path) -> Running:
        begun.append(Endless())
        os.kill(os.getpid(), number)
        return begun[-1]

    with pytest.raises(Interrupted) as stopped:
        compare(plan, start=start)
    message = f"stopped; what is finished is kept in {plan.folder}, and the same command goes on from there"
    assert (str(stopped.value), stopped.value.exit_code) == (message, code)
    assert [process.code for process in begun] == [143]
    assert not (tmp_path / "c.lock").exists()


def test_a_cell_that_another_process_trains_is_waited_for_and_not_trained_twice(recipe: str, tmp_path: Path) -> None:
    """As after a kill: the process that was left behind has the lock and ends a moment later."""
    plan = make_plan(recipe, [], tmp_path / "c", ["full"], 1, 1)
    starts = []

    class Refused(Done):
        def poll(self) -> int:
            return TAKEN

        def wait(self) -> int:
            return TAKEN

    def start(file: Path, log: Path) -> Running:
        starts.append(file.stem)
        if len(starts) == 1:
            return Refused()
        folder = plan.folder_of(plan.cells[0])
        folder.mkdir(parents=True)
        durable.write_text(
            folder / "summary.json", json.dumps({"metrics": {"validation": {plan.metric: 1.0}}, "train_seconds": 1.0})
        )
        return Done()

    run_cells(plan, 1, start)
    assert starts == ["full-x1-seed0", "full-x1-seed0"]


def test_a_folder_has_one_comparison_at_a_time(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["full"], 1, 1)
    with (
        lock.held(plan.folder),
        pytest.raises(FolderInUseError, match=r"^--output: .* is being written by another process"),
    ):
        compare(plan, start=here)


def begin(recipe: str, folder: Path) -> "subprocess.Popen[str]":
    """The command, in a process group of its own as in a terminal."""
    command = [sys.executable, "-m", "nlp_ft", "compare", recipe, "--strategies", "full", "head_only"]
    return subprocess.Popen(
        [*command, "--rates", "1", "--seeds", "2", "--output", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until_training(folder: Path, cell: str) -> None:
    """Wait until a cell has written a checkpoint."""
    deadline = time.monotonic() + SECONDS
    while not list((folder / "cells" / f"{cell}.partial" / "checkpoints").glob("step-*")):
        assert time.monotonic() < deadline, sorted(str(file) for file in folder.rglob("*"))
        time.sleep(0.02)


@pytest.fixture(scope="module")
def long_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> str:
    return write_recipe(tmp_path_factory.mktemp("long"), tiny_encoder, training=LONG)


@pytest.mark.slow
def test_interrupted_terminated_and_killed_it_ends_with_the_result_of_an_unbroken_one(
    long_recipe: str, tmp_path: Path
) -> None:
    whole = begin(long_recipe, tmp_path / "whole")
    assert (whole.communicate()[1], whole.returncode) == ("", 0)
    folder = tmp_path / "broken"
    process = begin(long_recipe, folder)
    wait_until_training(folder, "full-x1-seed0")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does for Ctrl-C
    stopped = f"\nstopped; what is finished is kept in {folder}, and the same command goes on from there\n"
    assert (process.communicate()[1], process.returncode) == (stopped, 130)
    process = begin(long_recipe, folder)
    wait_until_training(folder, "head_only-x1-seed0")
    process.terminate()
    assert (process.communicate()[1], process.returncode) == (stopped, 143)
    process = begin(long_recipe, folder)
    wait_until_training(folder, "full-x1-seed1")
    process.kill()
    process = begin(long_recipe, folder)  # at once: the cell of the killed one may still train
    assert (process.communicate()[1], process.returncode) == ("", 0)
    assert without_costs(folder) == without_costs(tmp_path / "whole")
    assert (folder / RESULT).exists()
    trained = [json.loads((run / "summary.json").read_text()) for run in sorted((folder / "cells").glob("*-seed?"))]
    assert [run["global_step"] for run in trained] == [300] * 4


@pytest.mark.slow
def test_a_killed_comparison_leaves_no_process_behind(long_recipe: str, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    process = begin(long_recipe, folder)
    wait_until_training(folder, "full-x1-seed0")
    process.kill()
    process.communicate()  # ends when the last process that holds the output has ended
    with lock.held(folder / "cells/full-x1-seed0"):
        assert not (folder / "cells/full-x1-seed0").exists()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="blocked signals are read from /proc")
def test_ctrl_c_of_a_terminal_does_not_end_the_server_of_processes_while_it_imports(tmp_path: Path) -> None:
    """A terminal sends it to all processes; the comparison alone ends, and asks the others to."""
    program = """
import signal, sys
from multiprocessing import forkserver
from pathlib import Path
from nlp_ft.study import process

process.PRELOADED = []
child = process.start_process(Path("nowhere.yaml"), Path(sys.argv[1]))
lines = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/status").read_text().splitlines()
[blocked] = [int(line.split()[1], 16) for line in lines if line.startswith("SigBlk")]
child.process.kill()
print([number for number in process.STOPPING if not blocked >> number - 1 & 1], child.wait())
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "log")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["[] -9", "set()"]
