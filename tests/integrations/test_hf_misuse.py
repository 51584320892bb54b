"""What a user of the Trainer may do by mistake, and would not notice: each is refused, or said."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from nlp_ft.errors import TrainingError, UnfreezeError
from nlp_ft.integrations.hf_trainer import LayerwiseTrainer, LayerwiseTrainerMixin, UnfreezeCallback
from tests.integrations.hf_runs import arguments, tiny_data, tiny_model


class OwnOptimizer(LayerwiseTrainer):
    """Makes its optimizer itself, as the documentation of the Trainer advises."""

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        assert self.model is not None
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        return self.optimizer


class OwnOptimizerBelow(Trainer):
    create_optimizer = OwnOptimizer.create_optimizer


class MixedIn(LayerwiseTrainerMixin, OwnOptimizerBelow):
    pass


@pytest.mark.parametrize("kind", [OwnOptimizer, MixedIn])
def test_an_optimizer_of_a_subclass_without_groups_of_layers_is_refused(tmp_path: Path, kind: Any) -> None:
    trainer = kind(strategy="llrd", model=tiny_model(), args=arguments(tmp_path), train_dataset=tiny_data())
    with pytest.raises(TrainingError, match=f"create_optimizer of {kind.__name__} makes an optimizer without groups"):
        trainer.train()


def test_a_mixin_that_does_not_come_first_is_refused_as_the_class_is_made() -> None:
    with pytest.raises(TrainingError, match=r"class Mine\(LayerwiseTrainerMixin, \.\.\.\)"):
        type("Mine", (Trainer, LayerwiseTrainerMixin), {})


def test_a_second_callback_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has an UnfreezeCallback already"):
        LayerwiseTrainer(model=tiny_model(), args=arguments(tmp_path), callbacks=[UnfreezeCallback("gradual")])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"strategy": {"name": "top_layers"}}, "strategy must be one of full, .*got {'name': 'top_layers'}"),
        (
            {"strategy": "gradual", "unfreeze": "1ep"},
            """unfreeze must be a mapping, such as {"every": "1ep"}, got '1ep'""",
        ),
        ({"strategy": "top_layers", "trainable_blocks": "2"}, "trainable_blocks must be at most 3, .* got '2'"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_refused_with_its_name(
    tmp_path: Path, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnfreezeError, match=message):
        LayerwiseTrainer(model=tiny_model(), args=arguments(tmp_path), **keywords)


def test_the_rate_that_comes_with_a_class_of_optimizer_counts_as_in_the_trainer(tmp_path: Path) -> None:
    optimizers = {
        kind: kind(
            model=tiny_model(), args=arguments(tmp_path), optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.5})
        ).create_optimizer()
        for kind in (Trainer, LayerwiseTrainer)
    }
    assert {group["lr"] for group in optimizers[Trainer].param_groups} == {0.5}
    rates = {group["name"]: group["lr"] for group in optimizers[LayerwiseTrainer].param_groups}
    assert (rates["block 3"], rates["block 2"], rates["head"]) == (0.5, 0.5 * 0.9, 5.0)


def test_rates_that_a_checkpoint_replaces_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def train(resume: Any = None, **changes: Any) -> None:
        LayerwiseTrainer(
            strategy="full",
            head_lr=changes.pop("head_lr", None),
            model=tiny_model(),
            args=arguments(tmp_path, save_strategy="steps", save_steps=4, **changes),
            train_dataset=tiny_data(),
        ).train(resume)

    train()
    for changes, told in ({}, ""), ({"head_lr": 0.5}, "head has learning rate 0.1 and weight decay 0, not 0.5 and 0"):
        caplog.clear()
        train(str(tmp_path / "checkpoint-4"), **changes)
        assert ("the checkpoint was written with other settings, which count" in caplog.text) == bool(told)
        assert told in caplog.text


def test_names_of_parameters_with_weight_decay_that_are_not_read_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class OwnDecay(LayerwiseTrainer):
        def get_decay_parameter_names(self, model: Any) -> list[str]:
            return []

    for kind in (LayerwiseTrainer, OwnDecay):
        assert "is not read" not in caplog.text
        kind(model=tiny_model(), args=arguments(tmp_path))
    assert "get_decay_parameter_names of OwnDecay is not read" in caplog.text


@pytest.mark.parametrize(
    ("at_most", "told"), [("4st", "phase 2 of 5, so these never trained: blocks 1-2, embeddings"), ("1st", "")]
)
def test_layers_that_never_trained_are_named_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, at_most: str, told: str
) -> None:
    LayerwiseTrainer(
        strategy="gradual",
        unfreeze={"loss_below": {"value": 0.0, "at_most": at_most}},
        model=tiny_model(),
        args=arguments(tmp_path),
        train_dataset=tiny_data(),
    ).train()
    assert ("never trained" in caplog.text) == bool(told)
    assert told in caplog.text
