"""SIGTERM and Ctrl-C: the step is finished, a checkpoint written, the exit code says which; nothing outlives a run."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nlp_ft.cli import main
from nlp_ft.errors import Interrupted, RunFolderError
from nlp_ft.recipe.loader import dump_yaml, recipe_from_dict
from nlp_ft.training import run as run_module
from nlp_ft.training.loop import Loop
from nlp_ft.training.run import train
from tests.tiny import tiny_recipe
from tests.training.test_run import same, weights

SETTINGS = {"duration": "2ep", "evaluate_every": "5st", "checkpoint_every": "99st"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(recipe_from_dict(tiny_recipe(folder, tiny_encoder, training=SETTINGS)))
    return folder / "run"


def signalled(number: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process be told within a step."""
    inner = Loop._step

    def tell(self: Loop, batches: object) -> object:
        if self.state.global_step == step:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # as a launcher and a terminal both do
        return inner(self, batches)  # type: ignore[arg-type]

    monkeypatch.setattr(Loop, "_step", tell)


@pytest.mark.parametrize(
    ("number", "code", "step"), [(signal.SIGTERM, 143, 3), (signal.SIGINT, 130, 11), (signal.SIGTERM, 143, 13)]
)
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint_that_resumes_to_the_bit(
    number: int,
    code: int,
    step: int,
    whole: Path,
    tmp_path: Path,
    tiny_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    # Of tests in the background of a shell, Ctrl-C is ignored, and a run leaves that so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_yaml(tiny_recipe(tmp_path, tiny_encoder, training=SETTINGS)))
    with monkeypatch.context() as patch:
        signalled(number, step, patch)
        with pytest.raises(SystemExit) as stopped:
            main(["train", str(recipe)])
    assert stopped.value.code == code
    said = capsys.readouterr().err
    name = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    assert f"stopped by {name}; the checkpoint after step {step + 1} is kept in {tmp_path}/run.partial; pass" in said
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == handlers
    train(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, training=SETTINGS)), resume=True)
    assert same(weights(tmp_path / "run"), weights(whole))
    assert (tmp_path / "run/metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_a_lost_terminal_ends_the_run_after_its_step_with_a_checkpoint(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    settings = {**SETTINGS, "duration": "100000st"}
    recipe.write_text(dump_yaml(tiny_recipe(tmp_path, tiny_encoder, training=settings, baselines=False)))
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-m", "nlp_ft", "train", str(recipe)])  # noqa: S606
    metrics, deadline = tmp_path / "run.partial/metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 65536)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    assert len(list(tmp_path.glob("run.partial/checkpoints/step-*"))) == 1


def test_a_signal_before_the_first_step_says_that_nothing_is_kept_and_leaves_nothing(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "cache_of_run", lambda *of: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="stopped by SIGTERM; no checkpoint had been written") as stopped:
        train(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder)))
    assert stopped.value.exit_code == 143
    assert list(tmp_path.glob("run*")) == []


def test_a_run_whose_parent_folder_is_removed_ends_with_an_error(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Loop._step

    def remove(self: Loop, batches: object) -> object:
        if self.state.global_step == 12:  # after the last record but one: nothing more is written before the end
            shutil.rmtree(tmp_path / "runs")
        return inner(self, batches)  # type: ignore[arg-type]

    monkeypatch.setattr(Loop, "_step", remove)
    recipe = tiny_recipe(tmp_path, tiny_encoder, output_dir=str(tmp_path / "runs/run"))
    with pytest.raises(RunFolderError, match="output_dir: "):
        train(recipe_from_dict(recipe))
    assert not (tmp_path / "runs/run").exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the process in /proc")
def test_a_tokenizing_worker_ends_with_its_killed_parent() -> None:
    program = """
import multiprocess, os, time
from nlp_ft.data.workers import end_with_parent

def work(_):
    end_with_parent()
    return os.getpid()

with multiprocess.get_context("fork").Pool(1) as pool:
    print(pool.apply(work, (0,)), flush=True)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    worker = Path("/proc", done.stdout.strip())
    deadline = time.monotonic() + 20
    while worker.exists() and "Z" not in (worker / "stat").read_text().split()[2] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.exists() or (worker / "stat").read_text().split()[2] == "Z"
