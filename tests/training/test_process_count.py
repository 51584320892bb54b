"""Where a run may go on with another number of processes: where only rounding would differ."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from nlp_ft.errors import RunFolderError
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.tasks.registry import task_of
from nlp_ft.training import agreement, build
from nlp_ft.training.process_count import obstacle
from nlp_ft.training.run import train
from tests.tiny import tiny_recipe
from tests.training.test_stored_state import stopped_before


@pytest.mark.parametrize(
    ("dropout", "strategy", "reason"),
    [
        (0.0, "gradual", None),
        (0.1, "full", "the model draws random numbers (dropout), which each process does for itself"),
        # The encoder is frozen at first, and its dropout is off then.
        (0.1, "gradual", "the model draws random numbers (dropout), which each process does for itself"),
    ],
)
def test_a_model_that_draws_random_numbers_in_any_phase_stays_with_its_processes(
    tmp_path: Path, tiny_encoder: Path, dropout: float, strategy: str, reason: str | None
) -> None:
    model = {"dropout": dropout, "head": {"dropout": 0.0}}
    recipe = recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, model=model, strategy=strategy))
    task = task_of(recipe)
    layered = build.layered_model(recipe, task, task.data.label_names)
    modes = [module.training for module in layered.model.modules()]
    assert obstacle(task, layered.model) == reason
    assert [module.training for module in layered.model.modules()] == modes
    layered.model.norm = nn.BatchNorm1d(4)
    assert obstacle(task, layered.model) == "the model keeps running statistics of the micro-batches"
    assert obstacle(Mock(tokenizer=None), layered.model) == "images of one micro-batch may be mixed"


def test_more_accumulation_on_as_many_processes_is_another_run(tmp_path: Path, tiny_encoder: Path) -> None:
    values = tiny_recipe(tmp_path, tiny_encoder, training={"duration": "4st", "checkpoint_every": "2st"})
    stopped_before(3, values)
    other = {**values, "training": {**values["training"], "gradient_accumulation_steps": 2}}  # type: ignore[dict-item]
    with pytest.raises(
        RunFolderError, match=r"micro-batches of an effective batch, over all processes \(1 then, 2 now\)"
    ):
        train(recipe_from_dict(other), resume=True)


def test_running_statistics_of_the_main_process_go_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.LayerNorm(4), norm)
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(agreement, "broadcast", sent.extend)
    agreement.share_statistics(Mock(num_processes=1), model)
    assert sent == []
    agreement.share_statistics(Mock(num_processes=2), nn.ModuleDict({"module": model}))
    assert list(map(id, sent)) == [id(norm.running_mean), id(norm.running_var), id(norm.num_batches_tracked)]
