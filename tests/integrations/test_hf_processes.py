"""Two real processes (gloo, CPU) that train with the Hugging Face Trainer: equal to each other, and to one process."""

import itertools
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

from nlp_ft.integrations.hf_arguments import CHECKPOINTING
from nlp_ft.integrations.hf_trainer import UnfreezeCallback
from tests.integrations.hf_runs import tiny_data, tiny_model, trained
from tests.integrations.processes import in_processes


def of_one_and_two(folder: Path, *arguments: Any, accumulation: int = 1, **keywords: Any) -> list[dict[str, Any]]:
    """The same run of 8 rows an update on one process, and on each of two."""
    settings = keywords.pop("changes", {})
    runs: list[dict[str, Any]] = []
    for processes in (1, 2):
        sizes = {"per_device_train_batch_size": 8 // processes // accumulation}
        changes = {**settings, **sizes, "gradient_accumulation_steps": accumulation}
        run = partial(trained, str(folder), *arguments, changes=changes, **keywords)
        runs += in_processes(2, run) if processes == 2 else [run()]
    return runs


def assert_equal_runs(one: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["is_wrapped"]
    assert len(first["hashes"]) == 8
    assert first["hashes"] == second["hashes"]
    assert first["trainable"] == second["trainable"] == one["trainable"]
    for name, tensor in one["weights"].items():
        torch.testing.assert_close(first["weights"][name], tensor, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_two_processes_stay_equal_after_every_update_and_end_as_one_does(tmp_path: Path, accumulation: int) -> None:
    changes = {"optim": "sgd", "learning_rate": 0.1}
    assert_equal_runs(*of_one_and_two(tmp_path, "gradual", accumulation=accumulation, changes=changes))


def test_so_they_do_with_gradient_checkpointing_for_which_the_trainer_looks_for_no_unused_layers(
    tmp_path: Path,
) -> None:
    changes = {"optim": "sgd", "learning_rate": 0.1, CHECKPOINTING: True}
    assert_equal_runs(*of_one_and_two(tmp_path, "gradual", changes=changes))


def test_so_they_do_with_parameters_that_no_forward_pass_uses(tmp_path: Path) -> None:
    # XLNet's mask_emb and seg_embed get no gradient from these inputs.
    changes = {"optim": "sgd", "learning_rate": 0.1}
    xlnet = partial(tiny_model, "xlnet", dropout=0.0)
    one, first, second = of_one_and_two(tmp_path, "gradual", model=xlnet, before=_no_dropout, changes=changes)
    assert_equal_runs(one, first, second)
    assert torch.equal(first["weights"]["transformer.mask_emb"], xlnet().state_dict()["transformer.mask_emb"])


def test_so_they_do_in_a_stock_trainer_with_the_callback_alone(tmp_path: Path) -> None:
    # Without the average over devices the stock Trainer does not multiply the gradients by their number.
    changes = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "average_tokens_across_devices": False}
    keywords: dict[str, Any] = {"trainer_class": Trainer, "callbacks": [partial(UnfreezeCallback, "gradual")]}
    assert_equal_runs(*of_one_and_two(tmp_path, changes=changes, **keywords))


def test_layers_that_never_train_are_not_sent_at_all(tmp_path: Path) -> None:
    changes = {"optim": "sgd", "learning_rate": 0.1, "ddp_find_unused_parameters": False}
    one, first, second = of_one_and_two(tmp_path, "head_only", changes=changes)
    assert_equal_runs(one, first, second)


def test_a_plateau_is_decided_alike_on_processes_that_see_other_values(tmp_path: Path) -> None:
    first, second = in_processes(2, _with_scores_of_its_own, str(tmp_path))
    assert [len(names) for names in first["trainable"]] == [4, 4] + [57] * 6
    assert first["trainable"] == second["trainable"]
    assert first["hashes"] == second["hashes"]


def _with_scores_of_its_own(folder: str) -> dict[str, Any]:
    """The first process sees no gain, the second one a gain in each evaluation."""
    scores = itertools.count() if os.environ["RANK"] == "1" else itertools.repeat(0)
    return trained(
        folder,
        "lp_ft",
        unfreeze={"every": None, "plateau": {"metric": "accuracy"}},
        changes={"per_device_train_batch_size": 4, "eval_strategy": "steps", "eval_steps": 1},
        eval_dataset=tiny_data(8),
        compute_metrics=lambda prediction: {"accuracy": float(next(scores))},
    )


class NaiveFlip(TrainerCallback):
    """What published snippets do: unfreeze by `requires_grad` when its time has come."""

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        if args[1].global_step == 2:
            kwargs["model"].requires_grad_(True)


def test_a_naive_flip_of_requires_grad_drifts_apart(tmp_path: Path) -> None:
    # The control of the tests above: they see a drift where there is one.
    changes = {
        "optim": "sgd",
        "learning_rate": 0.1,
        "per_device_train_batch_size": 4,
        "average_tokens_across_devices": False,
    }
    run = partial(
        trained,
        str(tmp_path),
        changes=changes,
        before=_freeze_encoder,
        trainer_class=Trainer,
        callbacks=[NaiveFlip()],
        optimizers=(None, None),
    )
    first, second = in_processes(2, partial(_with_full_optimizer, run))
    assert first["hashes"][:2] == second["hashes"][:2]
    assert first["hashes"][2] != second["hashes"][2]


def _freeze_encoder(model: torch.nn.Module) -> None:
    model.bert.requires_grad_(False)


def _no_dropout(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def _with_full_optimizer(run: Any) -> Any:
    """The optimizer holds all parameters, so that only the wrapper does not know of them."""
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    keywords = {**run.keywords, "model": lambda: model, "optimizers": (optimizer, None)}
    return run.func(*run.args, **keywords)
