"""The loss and the norm of the gradient that the Trainer reports, against those worked out by hand."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, default_data_collator

from nlp_ft.integrations.hf_trainer import LayerwiseTrainer, LayerwiseTrainerMixin
from nlp_ft.models.configs import PooledClassifierConfig
from nlp_ft.models.pooled_classifier import PooledClassifier
from tests.integrations.hf_runs import arguments, losses, tiny_data, tiny_model, trained
from tests.integrations.processes import in_processes
from tests.tiny import tiny_config

# Accumulation 1 and 4, processes 1 and 2: 8 rows an update each time.
COMBINATIONS = [(1, 1), (4, 1), pytest.param(1, 2, marks=pytest.mark.slow), (4, 2)]
CONSTANT = {"lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 0.1}


def by_hand(batches: list[list[dict[str, Any]]]) -> list[tuple[float, float]]:
    """(mean cross-entropy over the batch, norm of its gradient) of each update of plain SGD."""
    model: Any = tiny_model()
    reference = []
    for rows in batches:
        batch = default_data_collator(rows)
        loss = cross_entropy(model(batch["input_ids"], batch["attention_mask"]).logits, batch["labels"])
        model.zero_grad()
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        reference.append((loss.item(), torch.stack([g.norm() for g in gradients]).norm().item()))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
    return reference


def in_order(rows: int) -> dict[str, Any]:
    """Settings that take the rows in their order, once."""
    return {**CONSTANT, "train_sampling_strategy": "sequential", "num_train_epochs": 1}


@pytest.mark.parametrize(("accumulation", "processes"), COMBINATIONS)
def test_loss_and_norm_of_the_gradient_are_true(tmp_path: Path, accumulation: int, processes: int) -> None:
    rows = tiny_data(16)
    # Each process takes every second micro-batch of 8 / accumulation / processes rows, so all of 8 rows an update.
    reference = by_hand([rows[:8], rows[8:]])
    changes = {**in_order(16), "gradient_accumulation_steps": accumulation}
    changes["per_device_train_batch_size"] = 8 // accumulation // processes
    run = partial(trained, str(tmp_path), "full", rows=16, changes=changes, layer_decay=1.0, head_lr=0.1)
    results = in_processes(processes, run) if processes > 1 else [run()]
    for result in results:
        assert result["losses"] == [pytest.approx(pair, abs=2e-6) for pair in reference]


@pytest.mark.slow
def test_micro_batches_of_different_sizes_count_by_their_rows(tmp_path: Path) -> None:
    rows = tiny_data(14)
    changes = {**in_order(14), "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    ours = trained(str(tmp_path), "full", rows=14, changes=changes, layer_decay=1.0, head_lr=0.1)["losses"]
    assert ours == [pytest.approx(pair, abs=2e-6) for pair in by_hand([rows[:8], rows[8:]])]


def pooled_model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = PooledClassifierConfig(tiny_config(), pooling="mean", num_labels=3, head_dropout=0.0)
    model = PooledClassifier(config)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def test_a_model_of_ours_counts_micro_batches_of_different_sizes_by_their_rows(tmp_path: Path) -> None:
    rows = tiny_data(14)
    changes = {**in_order(14), "gradient_accumulation_steps": 4, "per_device_train_batch_size": 2}
    found = trained(str(tmp_path), "full", rows=14, changes=changes, layer_decay=1.0, head_lr=0.1, model=pooled_model)[
        "losses"
    ]
    model = pooled_model()
    batch = default_data_collator(rows[:8])
    loss = cross_entropy(model(batch["input_ids"], batch["attention_mask"]).logits, batch["labels"])
    assert found[0][0] == pytest.approx(loss.item(), abs=2e-6)
    stock = trained(str(tmp_path), rows=14, changes=changes, model=pooled_model, trainer_class=Trainer)["losses"]
    assert found == [pytest.approx(pair, abs=2e-6) for pair in stock]


def test_a_model_of_ours_counts_labels_that_two_processes_have_different_numbers_of(tmp_path: Path) -> None:
    model = pooled_model()
    batch = default_data_collator(rows_without_some_labels())
    loss = cross_entropy(model(batch["input_ids"], batch["attention_mask"]).logits, batch["labels"])
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    for found in in_processes(2, _losses_of_ours, str(tmp_path)):
        assert found == [pytest.approx((loss.item(), norm.item()), abs=2e-6)]


def rows_without_some_labels() -> list[dict[str, Any]]:
    """The first of two processes has one labelled row, the second three."""
    rows = tiny_data(8)
    for number in (0, 2, 4, 5):
        rows[number]["labels"] = -100
    return rows


def _losses_of_ours(folder: str) -> list[tuple[float, float]]:
    changes = {**in_order(8), "gradient_accumulation_steps": 4, "per_device_train_batch_size": 1}
    rows = rows_without_some_labels()
    trainer = LayerwiseTrainer(
        strategy="full",
        layer_decay=1.0,
        head_lr=0.1,
        model=pooled_model(),
        args=arguments(folder, **changes),
        train_dataset=rows,
    )
    trainer.train()
    return losses(trainer)


class MeanLossTrainer(Trainer):
    """Follows the docstring of Transformers: a mean over the micro-batch, and that is said."""

    loss_is_scaled_for_ga = False

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, *unused: Any, **keywords: Any) -> Any:
        output = model(inputs["input_ids"], inputs["attention_mask"])
        loss = cross_entropy(output.logits, inputs["labels"])
        return (loss, output) if return_outputs else loss


class LayerwiseMeanLossTrainer(LayerwiseTrainerMixin, MeanLossTrainer):
    pass


def test_a_trainer_that_says_how_its_loss_is_scaled_is_believed(tmp_path: Path) -> None:
    changes = {**in_order(16), "gradient_accumulation_steps": 4, "per_device_train_batch_size": 2}
    args = arguments(tmp_path, **changes)
    model, rows = tiny_model(), tiny_data(16)
    trainer = LayerwiseMeanLossTrainer(
        strategy="full", layer_decay=1.0, head_lr=0.1, model=model, args=args, train_dataset=rows
    )
    if not hasattr(Trainer, "loss_is_scaled_for_ga"):
        pytest.skip("this Transformers asks for no such word")
    trainer.train()
    assert losses(trainer) == [pytest.approx(pair, abs=2e-6) for pair in by_hand([rows[:8], rows[8:]])]


@pytest.mark.parametrize(
    ("problem_type", "labels", "expected"),
    [
        (None, torch.tensor([0, 2]), lambda x, y: cross_entropy(x, y)),
        (None, torch.tensor([[1.0, 0, 1], [0, 0, 1]]), binary_cross_entropy_with_logits),
        (
            "multi_label_classification",
            torch.tensor([[1, 0, 1], [0, 0, 1]]),
            lambda x, y: binary_cross_entropy_with_logits(x, y.float()),
        ),
        ("regression", torch.tensor([[1.0, 2, 3], [4, 5, 6]]), mse_loss),
    ],
)
def test_the_loss_of_a_model_of_ours_is_that_of_its_problem_type(problem_type: Any, labels: Any, expected: Any) -> None:
    model = pooled_model()
    model.config.problem_type = problem_type
    rows = default_data_collator(tiny_data(2))
    output = model(rows["input_ids"], rows["attention_mask"], labels=labels)
    torch.testing.assert_close(output.loss, expected(output.logits, labels))
    halves = [
        model(
            rows["input_ids"][i : i + 1],
            rows["attention_mask"][i : i + 1],
            labels=labels[i : i + 1],
            num_items_in_batch=labels.numel(),
        ).loss
        for i in range(2)
    ]
    torch.testing.assert_close(sum(halves), output.loss)


def test_the_stock_trainer_multiplies_the_loss_by_the_accumulation(tmp_path: Path) -> None:
    # If this fails, Transformers has mended it and what is done about it here can go.
    changes = {**in_order(16), "gradient_accumulation_steps": 4, "per_device_train_batch_size": 2}
    stock = trained(str(tmp_path), rows=16, changes=changes, trainer_class=Trainer)["losses"]
    rows = tiny_data(16)
    assert stock[0] == pytest.approx([4 * value for value in by_hand([rows[:8]])[0]], rel=1e-5)


def test_what_is_changed_about_the_loss_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changes = {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2}
    trained(str(tmp_path), "full", rows=16, changes=changes)
    assert caplog.text.count("loss and gradients would be up to 4 times too large") == 1


def test_a_model_that_divides_by_all_labels_itself_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Rows with different numbers of labels: only their sum over the update is the right divisor.
    rows = tiny_data(16)
    for number, row in enumerate(rows):
        row["labels"] = row["input_ids"].clone()
        row["labels"][: number % 7] = -100
    config = tiny_config("bert", is_decoder=True)
    seen = []
    for accumulation in (1, 4):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for module in model.modules():
            module.p = 0.0
        changes = {**in_order(16), "gradient_accumulation_steps": accumulation}
        changes["per_device_train_batch_size"] = 8 // accumulation
        args = arguments(tmp_path, **changes)
        trainer = LayerwiseTrainer(
            strategy="full", layer_decay=1.0, head_lr=0.1, model=model, args=args, train_dataset=rows
        )
        trainer.train()
        seen.append(losses(trainer))
    assert seen[1] == [pytest.approx(pair, abs=2e-6) for pair in seen[0]]
    assert "times too large" not in caplog.text


def test_the_loss_of_an_evaluation_over_two_processes_is_that_of_one(tmp_path: Path) -> None:
    [one], two = (in_processes(number, _evaluated, str(tmp_path)) for number in (1, 2))
    assert two == [pytest.approx(one, abs=1e-6)] * 2


def _evaluated(folder: str) -> float:
    rows = tiny_data(16)
    for row in rows[:3]:
        row["labels"] = -100
    args = arguments(folder, per_device_eval_batch_size=4)
    trainer = LayerwiseTrainer(strategy="full", model=tiny_model(), args=args, eval_dataset=rows)
    loss: float = trainer.evaluate()["eval_loss"]
    return loss


def test_a_micro_batch_without_a_label_adds_nothing_to_the_loss(tmp_path: Path) -> None:
    """A mean over no labels is NaN; four micro-batches make an update, and the second has no label."""
    rows = tiny_data(8)
    rows[2]["labels"] = rows[3]["labels"] = -100
    args = arguments(tmp_path, **in_order(8), gradient_accumulation_steps=4, per_device_train_batch_size=2)
    settings: dict[str, Any] = {"args": args, "train_dataset": rows, "layer_decay": 1.0, "head_lr": 0.1}
    trainer = LayerwiseTrainer(model=tiny_model(), strategy="full", **settings)
    trainer.train()
    [expected] = by_hand([rows])
    assert losses(trainer) == [pytest.approx(expected, abs=2e-6)]
