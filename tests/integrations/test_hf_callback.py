"""The callback alone in a Trainer of one's own, and the triggers that an evaluation or a loss sets off."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EvalPrediction, Trainer

from nlp_ft.errors import LayerMapError, UnfreezeError
from nlp_ft.integrations.hf_trainer import LayerwiseTrainer, UnfreezeCallback
from nlp_ft.layerwise import LossBelow, Phase, Plateau, UnfreezeSchedule, build_optimizer
from tests.integrations.hf_runs import HEAD, NUM_BLOCKS, arguments, phase_starts, tiny_data, tiny_model, trained

HEAD_FIRST = (Phase(frozenset({HEAD})),)
EVERYTHING = frozenset(range(HEAD + 1))


def two_phases(trigger: Any) -> UnfreezeSchedule:
    return UnfreezeSchedule((*HEAD_FIRST, Phase(EVERYTHING, trigger)), NUM_BLOCKS)


def test_the_stock_trainer_with_callback_and_optimizer_equals_the_layerwise_trainer_to_the_bit(tmp_path: Path) -> None:
    changes = {"optim": "adamw_torch_fused"}
    ours = trained(str(tmp_path), "gradual", changes=changes)
    model = tiny_model()
    optimizer = build_optimizer(model, lr=1e-2, head_lr=0.1, weight_decay=0.0, layer_decay=0.9)
    stock = trained(
        str(tmp_path),
        changes=changes,
        model=lambda: model,
        trainer_class=Trainer,
        callbacks=[UnfreezeCallback("gradual")],
        optimizers=(optimizer, None),
    )
    assert stock["hashes"] == ours["hashes"]
    assert stock["rates"] == ours["rates"]


def test_the_stock_optimizer_of_a_stock_trainer_unfreezes_too(tmp_path: Path) -> None:
    run = trained(str(tmp_path), trainer_class=Trainer, callbacks=[UnfreezeCallback("gradual")])
    before = tiny_model().state_dict()
    assert len(run["trainable"][0]) < len(run["trainable"][-1]) == len(list(tiny_model().parameters()))
    assert not any(
        torch.equal(run["weights"][name], before[name]) for name in run["trainable"][-1] if "key.bias" not in name
    )


def test_a_strategy_that_moves_rates_wants_groups_of_layers(tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError, match="use LayerwiseTrainer"):
        trained(str(tmp_path), trainer_class=Trainer, callbacks=[UnfreezeCallback("lp_ft")])


def test_an_optimizer_made_from_a_frozen_model_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    optimizer = torch.optim.SGD(model.classifier.parameters(), lr=0.1)
    with pytest.raises(LayerMapError, match="are in no group of the optimizer"):
        trained(
            str(tmp_path),
            model=lambda: model,
            trainer_class=Trainer,
            callbacks=[UnfreezeCallback("gradual")],
            optimizers=(optimizer, None),
        )


def begun(tmp_path: Path, trigger: Any, scores: list[float], **changes: Any) -> list[int]:
    """Steps at which phases began, where the evaluations after updates 1, 2, 3, ... give these accuracies."""
    left = iter(scores)

    def scripted(prediction: EvalPrediction) -> dict[str, float]:
        return {"accuracy": next(left)}

    trainer = LayerwiseTrainer(
        strategy=two_phases(trigger),
        model=tiny_model(),
        args=arguments(tmp_path, eval_strategy="steps", eval_steps=1, **changes),
        train_dataset=tiny_data(),
        eval_dataset=tiny_data(8),
        compute_metrics=scripted,
    )
    trainer.train()
    starts = phase_starts(trainer)
    # An evaluation after the training decides nothing.
    left = iter([0.0] * 3)
    trainer.evaluate()
    trainer.evaluate()
    assert phase_starts(trainer) == starts
    return starts


@pytest.mark.parametrize("metric", ["accuracy", "eval_accuracy"])
def test_a_plateau_of_a_metric_begins_the_next_phase(tmp_path: Path, metric: str) -> None:
    scores = [0.1, 0.2, 0.2, 0.15, 0.9, 0.9, 0.9, 0.9]
    assert begun(tmp_path, Plateau(metric, patience=2), scores) == [0, 4]


@pytest.mark.parametrize("metric", ["loss", "eval_loss"])
def test_the_loss_improves_downwards_under_either_name(tmp_path: Path, metric: str) -> None:
    # The head learns, so that the loss falls at each evaluation: no plateau, where upwards would be one at once.
    assert begun(tmp_path, Plateau(metric, patience=1), [0.5] * 8, learning_rate=1e-3) == [0]


def test_a_missing_metric_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError, match="no metric 'f1' to wait for; there are loss, accuracy"):
        begun(tmp_path, Plateau("f1"), [0.5] * 8)


def test_the_metric_of_one_of_several_evaluation_sets_counts(tmp_path: Path) -> None:
    trainer = LayerwiseTrainer(
        strategy="lp_ft",
        unfreeze={"every": None, "plateau": {"metric": "eval_long_runtime", "min_delta": 1e9}},
        model=tiny_model(),
        args=arguments(tmp_path, eval_strategy="steps", eval_steps=1),
        train_dataset=tiny_data(),
        eval_dataset={"short": tiny_data(4), "long": tiny_data(8)},
    )
    trainer.train()
    assert phase_starts(trainer) == [0, 2]


def test_the_training_loss_below_a_value_begins_the_next_phase(tmp_path: Path) -> None:
    trainer = LayerwiseTrainer(
        strategy=two_phases(LossBelow(100.0)),
        model=tiny_model(),
        args=arguments(tmp_path, logging_steps=3),
        train_dataset=tiny_data(),
    )
    trainer.train()
    assert phase_starts(trainer) == [0, 3]
