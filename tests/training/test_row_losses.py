"""The losses of single rows of train: what is kept of them, and that wrong labels come first."""

import csv
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from nlp_ft.data.windows import Windows
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.report.summary import describe_run
from nlp_ft.tasks.losses import ClassificationLoss
from nlp_ft.training.loop_state import LoopSettings, LoopState
from nlp_ft.training.row_losses import MOST_ROWS, RowLosses
from nlp_ft.training.run import train
from tests.tiny import save_tiny_encoder, tiny_recipe

FOUR_EPOCHS = LoopSettings(total_steps=12, steps_per_epoch=3, evaluate_every=3, checkpoint_every=3)


def losses_of(windows: Windows, state: LoopState, settings: LoopSettings = FOUR_EPOCHS, **keys: Any) -> RowLosses:
    return RowLosses(windows, settings, state, Mock(num_processes=1), **keys)


def note(losses: RowLosses, step: int, **of_rows: float) -> None:
    """Note a loss for each row, such as `r3=0.5`."""
    batch = {"row": torch.tensor([int(name[1:]) for name in of_rows]), "labels": torch.empty(0)}
    losses.note(step, batch, torch.empty(0), Mock(of_rows=lambda *_: torch.tensor([*of_rows.values()])))


def test_the_mean_of_the_last_three_epochs_is_kept_and_the_first_epoch_left_out() -> None:
    state = LoopState()
    losses = losses_of(Windows(np.arange(4)), state)
    note(losses, 0, r0=9.0, r1=9.0)
    note(losses, 3, r0=1.0, r1=5.0)
    note(losses, 6, r0=2.0, r1=4.0, r2=float("nan"))
    losses.save(state)
    assert state.row_losses == {"1": [1.0, 5.0, None, None], "2": [2.0, 4.0, None, None]}
    resumed = losses_of(Windows(np.arange(4)), LoopState(row_losses=state.row_losses))
    note(resumed, 9, r0=6.0, r1=6.0)
    resumed.settle()
    rows, means = resumed.highest(2)
    assert (rows.tolist(), means.tolist()) == ([0, 1], [3.0, 5.0])
    assert [of.tolist() for of in resumed.highest(1)] == [[1], [5.0]]


def test_with_early_stopping_the_last_three_epochs_so_far_are_kept() -> None:
    state, settings = LoopState(), LoopSettings(300, 3, 3, 3, patience=2)
    losses = losses_of(Windows(np.arange(1)), state, settings)
    for epoch in range(6):
        note(losses, 3 * epoch, r0=float(epoch))
    losses.save(state)
    # One more, as the last one may be cut short.
    assert state.row_losses == {"2": [2.0], "3": [3.0], "4": [4.0], "5": [5.0]}
    assert losses.highest(1)[1].tolist() == [4.0]


def test_an_epoch_that_was_cut_short_does_not_make_its_rows_easier() -> None:
    losses = losses_of(Windows(np.arange(3)), LoopState(), LoopSettings(300, 3, 3, 3, patience=2))
    for step, of_rows in ((3, (1.0, 0.75, 0.5)), (6, (0.75, 0.5, 0.25)), (9, (0.125, 0.125))):
        note(losses, step, **{f"r{row}": value for row, value in enumerate(of_rows)})
    losses.settle()
    assert [of.tolist() for of in losses.highest(3)] == [[0, 1, 2], [0.875, 0.625, 0.375]]


def test_of_a_run_that_ends_within_an_epoch_the_three_before_it_count() -> None:
    losses = losses_of(Windows(np.arange(2)), LoopState(), LoopSettings(13, 3, 3, 3))
    for step, of_row in ((2, 9.0), (3, 0.75), (6, 0.5), (9, 0.25)):
        note(losses, step, r0=of_row, r1=of_row)
    note(losses, 12, r0=0.0)
    losses.settle()
    assert [of.tolist() for of in losses.highest(3)] == [[0, 1], [0.5, 0.5]]


def test_the_windows_of_a_text_share_one_mean() -> None:
    losses = losses_of(Windows(np.array([0, 0, 1])), LoopState())
    note(losses, 9, r0=1.0, r1=3.0, r2=5.0)
    losses.settle()
    assert [of.tolist() for of in losses.highest(5)] == [[0, 1], [2.0, 5.0]]


def test_of_a_large_set_evenly_spread_rows_are_kept() -> None:
    state = LoopState()
    losses = losses_of(Windows(np.arange(2 * MOST_ROWS + 1)), state)
    note(losses, 9, r1=1.0, r3=7.0)
    losses.save(state)
    assert len(state.row_losses["3"]) == 13_334  # every third
    assert [of.tolist() for of in losses.highest(5)] == [[3], [7.0]]


def test_nothing_is_kept_where_it_is_off() -> None:
    losses = losses_of(Windows(np.arange(4)), LoopState(), is_on=False)
    note(losses, 9, r0=1.0)
    losses.settle()
    assert losses.highest(5)[0].tolist() == []


def test_rows_with_a_wrong_label_come_first_in_the_file_and_in_the_report(tmp_path: Path) -> None:
    recipe: dict[str, Any] = tiny_recipe(
        tmp_path,
        save_tiny_encoder(tmp_path / "encoder"),
        report=True,
        optimizer={"lr": 3e-3, "head_lr": 1e-2},
        training={"duration": "8ep", "per_device_batch_size": 8},
    )
    file = Path(recipe["data"]["train"])
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    another = {"animal": "size", "size": "colour", "colour": "animal"}
    wrong = [5, 20, 33]
    for number in wrong:
        rows[number]["label"] = another[rows[number]["label"]]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    train(recipe_from_dict(recipe))
    with (tmp_path / "run/train_hardest.csv").open(newline="", encoding="utf-8") as stream:
        found = list(csv.DictReader(stream))
    assert {int(row["row"]) for row in found[:3]} == set(wrong)
    assert [float(row["loss"]) for row in found] == sorted((float(row["loss"]) for row in found), reverse=True)
    first = found[0]
    assert (first["text"], first["reference"]) == (rows[int(first["row"])]["text"], rows[int(first["row"])]["label"])
    shown = describe_run(tmp_path / "run")["train_hardest"]
    assert [row["row"] for row in shown] == [row["row"] for row in found[:20]]
    assert shown[0]["is_right"] is (first["predicted"] == first["reference"])
    assert "Hardest rows of train" in (tmp_path / "run/report.html").read_text(encoding="utf-8")


def test_a_row_that_fills_up_a_batch_changes_no_loss() -> None:
    losses = losses_of(Windows(np.arange(2)), LoopState())
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, -100])
    losses.note(9, {"row": torch.tensor([0, 0]), "labels": labels}, logits, ClassificationLoss())
    losses.settle()
    assert losses.highest(1)[1] == pytest.approx([float(np.log1p(np.exp(-2.0)))])


def test_the_state_is_what_json_can_hold() -> None:
    state = LoopState()
    losses = losses_of(Windows(np.arange(2)), state)
    note(losses, 9, r1=0.1)
    losses.save(state)
    again = losses_of(Windows(np.arange(2)), LoopState(row_losses=json.loads(json.dumps(state.row_losses))))
    assert again.highest(1)[1].tobytes() == losses.highest(1)[1].tobytes()
