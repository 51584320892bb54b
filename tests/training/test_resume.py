"""A run that is killed goes on to the same result, to the bit."""

import time
from collections.abc import Callable
from functools import cache
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import Mock

import pytest

from nlp_ft.cli import main
from nlp_ft.errors import RunFolderError
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import dump_yaml, recipe_from_dict
from nlp_ft.training import checkpoint_manager
from nlp_ft.training.loop import Loop
from nlp_ft.training.run import train
from tests.tiny import tiny_recipe
from tests.training.test_run import same, weights

SETTINGS = {"duration": "4ep", "evaluate_every": "5st", "checkpoint_every": "3st", "gradient_accumulation_steps": 2}


def recipe_in(folder: Path, encoder: Path, optimizer: str = "adamw") -> dict[str, object]:
    return tiny_recipe(
        folder, encoder, training={**SETTINGS, "per_device_batch_size": 4}, optimizer={"name": optimizer, "lr": 1e-3}
    )


def metrics(folder: Path) -> str:
    return (folder / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Callable[[str], Path]:
    """Optimizer -> the folder of a run that nothing stopped."""

    @cache
    def run(optimizer: str) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        train(recipe_from_dict(recipe_in(folder, tiny_encoder, optimizer)))
        return folder / "run"

    return run


def stop_and_resume(recipe: Recipe, stop_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, stop before a step, and go on from the checkpoint before it."""
    step = Loop._step

    def stop(self: Loop, batches: object) -> object:
        if self.state.global_step == stop_at:
            raise KeyboardInterrupt
        return step(self, batches)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe)
    train(recipe, resume=True)


OPTIMIZERS = ["adamw", "adafactor", "sgd", "lion"]
STOPS = [("adamw", 4), ("lion", 14)]
OTHER_STOPS = [(name, step) for name in OPTIMIZERS for step in (4, 14, 26) if (name, step) not in STOPS]


@pytest.mark.parametrize(
    ("optimizer", "stop_at"), [*STOPS, *(pytest.param(*stop, marks=pytest.mark.slow) for stop in OTHER_STOPS)]
)
def test_a_run_that_stops_between_checkpoints_resumes_to_the_bit(
    tmp_path: Path,
    tiny_encoder: Path,
    whole_run: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    optimizer: str,
    stop_at: int,
) -> None:
    recipe = recipe_from_dict(recipe_in(tmp_path, tiny_encoder, optimizer))
    stop_and_resume(recipe, stop_at, monkeypatch)
    assert same(weights(tmp_path / "run"), weights(whole_run(optimizer)))
    assert metrics(tmp_path / "run") == metrics(whole_run(optimizer))


def test_a_run_by_tokens_that_stops_within_an_epoch_resumes_to_the_bit(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = recipe_in(tmp_path, tiny_encoder)
    values["training"] = {**SETTINGS, "max_tokens_per_batch": 24}  # 9 steps an epoch
    train(recipe_from_dict({**values, "output_dir": str(tmp_path / "whole")}))
    stop_and_resume(recipe_from_dict(values), 14, monkeypatch)
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert '"step": 36' in metrics(tmp_path / "run")


def start(recipe: Path, *options: str) -> BaseProcess:
    """`nlp-ft train` in a process of its own, forked from one that has imported what it needs."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["nlp_ft.training.run"])
    process = context.Process(target=main, args=(["train", str(recipe), *options],))
    process.start()
    return process


def kill_after_records(process: BaseProcess, file: Path, count: int) -> None:
    """Kill -9 once the run has written so many records."""
    while process.is_alive():
        if file.exists() and file.read_text().count("\n") >= count:
            process.kill()
            break
        time.sleep(0.002)
    process.join()


@pytest.mark.slow
def test_a_process_killed_twice_with_signal_9_resumes_to_the_bit(tmp_path: Path, tiny_encoder: Path) -> None:
    values = recipe_in(tmp_path, tiny_encoder)
    values["training"] = {**values["training"], "duration": "20ep"}  # type: ignore[dict-item]
    train(recipe_from_dict({**values, "output_dir": str(tmp_path / "whole")}))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_yaml(values))
    log = tmp_path / "run.partial" / "metrics.jsonl"
    kill_after_records(start(recipe), log, 20)
    assert log.exists(), "the run ended before it was killed"
    kill_after_records(start(recipe, "--resume"), log, 45)
    assert log.exists(), "the run ended before it was killed"
    last = start(recipe, "--resume")
    last.join()
    assert last.exitcode == 0
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def interrupted(folder: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    values = recipe_in(folder, encoder)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_manager, "save_file", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(recipe_from_dict(values))
    return values


def test_an_unfinished_run_is_neither_overwritten_nor_resumed_by_surprise(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = interrupted(tmp_path, tiny_encoder, monkeypatch)
    with pytest.raises(RunFolderError, match="holds an unfinished run; pass --resume to go on with it"):
        train(recipe_from_dict(values))


def test_resuming_with_another_recipe_is_refused_and_names_what_differs(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = interrupted(tmp_path, tiny_encoder, monkeypatch)
    with pytest.raises(RunFolderError, match="begun with another recipe; different: seed: 0 then, 5 now"):
        train(recipe_from_dict({**values, "seed": 5}), resume=True)


def test_resuming_on_other_data_is_refused(tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = interrupted(tmp_path, tiny_encoder, monkeypatch)
    file = tmp_path / "train.csv"
    file.write_text(file.read_text().replace("cat", "bird"))
    with pytest.raises(RunFolderError, match="different: texts of train, token ids of train;"):
        train(recipe_from_dict(values), resume=True)


def test_resume_without_an_unfinished_run_begins_at_the_beginning(
    tmp_path: Path, tiny_encoder: Path, whole_run: Callable[[str], Path]
) -> None:
    train(recipe_from_dict(recipe_in(tmp_path, tiny_encoder)), resume=True)
    assert same(weights(tmp_path / "run"), weights(whole_run("adamw")))
