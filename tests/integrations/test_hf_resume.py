"""Killed with signal 9 and resumed, the Hugging Face Trainer ends as if nothing had been: weights, rates, history."""

import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from nlp_ft.durations import Duration
from nlp_ft.errors import TrainingError, UnfreezeError
from nlp_ft.integrations.hf_trainer import LayerwiseTrainer, last_whole_checkpoint
from nlp_ft.layerwise import LossBelow, Phase, Plateau, UnfreezeSchedule
from tests.integrations.hf_runs import (
    HEAD,
    NUM_BLOCKS,
    KillAt,
    arguments,
    phase_starts,
    tiny_data,
    tiny_model,
    trained,
    weights_hash,
)
from tests.integrations.processes import in_processes

STEPS = 16
SAVED_EVERY = 2
# By time, by plateau (an evaluation every 2 updates, so at 8: the first is the best, two more wait), by loss.
SCHEDULE = UnfreezeSchedule(
    (
        Phase(frozenset({HEAD})),
        Phase(frozenset({3, HEAD}), Duration(3, "st")),
        Phase(frozenset({2, 3, HEAD}), Plateau("eval_loss", patience=2, min_delta=1e9), lr_scale=0.5),
        Phase(frozenset(range(HEAD + 1)), LossBelow(100.0, at_least=Duration(3, "st"))),
    ),
    NUM_BLOCKS,
    layer_warmup=Duration(2, "st"),
)
BORDERS = [0, 3, 8, 12]
TIMES = ("runtime", "per_second")


def run(folder: str, kill_at: int | None, resume: bool, processes: int = 1) -> dict[str, Any]:
    """What there is to compare of one (part of a) run with dropout, accumulation, clipping, AdamW and evaluations."""
    args = arguments(
        folder,
        num_train_epochs=4,
        per_device_train_batch_size=4 // processes,
        gradient_accumulation_steps=2,
        save_strategy="steps",
        save_steps=SAVED_EVERY,
        eval_strategy="steps",
        eval_steps=2,
        logging_steps=5,
        weight_decay=0.1,
        max_grad_norm=0.1,
        lr_scheduler_type="cosine",
        warmup_steps=2,
    )
    trainer = LayerwiseTrainer(
        strategy=SCHEDULE,
        model=tiny_model(dropout=0.2),
        args=args,
        train_dataset=tiny_data(),
        eval_dataset=tiny_data(8),
        callbacks=[] if kill_at is None else [KillAt(kill_at)],
    )
    trainer.train(resume_from_checkpoint=True if resume else None)
    assert trainer.optimizer is not None
    assert trainer.model is not None
    return {
        "weights": weights_hash(trainer.model),
        "optimizer": _hash(trainer.optimizer.state_dict()),
        "rates": [(group["name"], group["lr"]) for group in trainer.optimizer.param_groups],
        # The last entry sums up the seconds of this part of the run.
        "history": [_timeless(entry) for entry in trainer.state.log_history[:-1]],
        "starts": phase_starts(trainer),
    }


def _timeless(entry: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in entry.items() if not key.endswith(TIMES)}


def _hash(state: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for number in sorted(state["state"]):
        for key, value in sorted(state["state"][number].items()):
            digest.update(f"{number} {key}".encode() + torch.as_tensor(value).numpy().tobytes())
    return digest.hexdigest()


@cache
def unbroken(folder: Path, processes: int = 1) -> dict[str, Any]:
    results = in_processes(processes, run, str(folder / f"unbroken{processes}"), None, False, processes)
    assert all(result["weights"] == results[0]["weights"] for result in results)
    first: dict[str, Any] = results[0]
    return first


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


def assert_kill_leaves_no_trace(folder: Path, step: int, processes: int = 1) -> None:
    output = str(folder / f"killed_at_{step}_of_{processes}")
    assert in_processes(processes, run, output, step, False, processes) == [-9] * processes
    resumed = in_processes(processes, run, output, None, True, processes)
    assert resumed == [unbroken(folder, processes)] * processes


def test_the_phases_begin_where_the_kills_are_meant_to_fall(folder: Path) -> None:
    assert unbroken(folder)["starts"] == BORDERS


# In the middle of the patience of a plateau; and between a checkpoint and the next.
@pytest.mark.parametrize("step", [6, 13])
def test_killed_and_resumed_it_ends_as_the_unbroken_run_to_the_bit(folder: Path, step: int) -> None:
    assert_kill_leaves_no_trace(folder, step)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("step", [2, 3, 4, 5, 7, 8, 9, 11, 12, 14])
def test_killed_at_any_step_it_ends_as_the_unbroken_run_to_the_bit(folder: Path, step: int, processes: int) -> None:
    assert_kill_leaves_no_trace(folder, step, processes)


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(folder: Path) -> None:
    unbroken(folder)
    output = folder / "cut_short"
    shutil.copytree(folder / "unbroken1", output)
    last = output / f"checkpoint-{STEPS}"
    (last / "trainer_state.json").write_text((last / "trainer_state.json").read_text()[:100])
    (output / "checkpoint-14" / "rng_state.pth").unlink()
    assert last_whole_checkpoint(output) == str(output / "checkpoint-12")
    assert in_processes(1, run, str(output), None, True) == [unbroken(folder)]
    shutil.rmtree(output)
    with pytest.raises(TrainingError, match="no whole checkpoint"):
        last_whole_checkpoint(output)


def test_a_checkpoint_of_a_trainer_without_the_callback_is_refused(tmp_path: Path) -> None:
    trained(str(tmp_path), "full", changes={"save_strategy": "steps", "save_steps": 4})
    state = tmp_path / "checkpoint-4" / "trainer_state.json"
    content = json.loads(state.read_text())
    del content["stateful_callbacks"]["nlp_ft_unfreezing"]
    state.write_text(json.dumps(content))
    trainer = LayerwiseTrainer(
        strategy="gradual", model=tiny_model(), args=arguments(tmp_path), train_dataset=tiny_data()
    )
    with pytest.raises(UnfreezeError, match="the checkpoint of step 4 was written without this callback"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_a_checkpoint_of_another_strategy_is_refused(tmp_path: Path) -> None:
    trained(str(tmp_path), "gradual", changes={"save_strategy": "steps", "save_steps": 4})
    trainer = LayerwiseTrainer(
        strategy="lp_ft", model=tiny_model(), args=arguments(tmp_path), train_dataset=tiny_data()
    )
    with pytest.raises(UnfreezeError, match="written by a run with other phases"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_a_second_training_begins_anew(tmp_path: Path) -> None:
    trainer = LayerwiseTrainer(
        strategy="gradual", model_init=lambda: tiny_model(), args=arguments(tmp_path), train_dataset=tiny_data()
    )
    hashes = []
    for _ in range(2):
        trainer.train()
        assert trainer.model is not None
        hashes.append(weights_hash(trainer.model))
    assert hashes[0] == hashes[1]


def test_the_evaluation_with_which_a_resumed_training_starts_does_not_count(tmp_path: Path) -> None:
    def starts(checkpoint: str | None) -> list[int]:
        changes = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}
        trainer = LayerwiseTrainer(
            strategy="lp_ft",
            unfreeze={"every": None, "plateau": {"patience": 3, "min_delta": 1e9}},
            model=tiny_model(),
            args=arguments(tmp_path, eval_on_start=True, **changes),
            train_dataset=tiny_data(),
            eval_dataset=tiny_data(8),
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        return phase_starts(trainer)

    # The evaluation before the first update is the best, and three more wait.
    assert starts(None) == starts(str(tmp_path / "checkpoint-2")) == [0, 3]
