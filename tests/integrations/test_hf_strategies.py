"""Every strategy in the Hugging Face Trainer: what trains when, at which rate, and what is refused."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from transformers import EarlyStoppingCallback, TrainerCallback

from nlp_ft.durations import Duration
from nlp_ft.errors import TrainingError, UnfreezeError
from nlp_ft.integrations import hf_callback
from nlp_ft.integrations.hf_arguments import CHECKPOINTING
from nlp_ft.integrations.hf_trainer import LayerwiseTrainer
from nlp_ft.layerwise import LayerMap, Phase, UnfreezeSchedule, build_optimizer
from tests.integrations.hf_runs import HEAD, NUM_BLOCKS, arguments, tiny_data, tiny_model, trained

STEPS = 8
ALL = "01234"
OWN = UnfreezeSchedule(
    (Phase(frozenset({HEAD})), Phase(frozenset({2, 3, HEAD}), Duration(4, "st"), lr_scale=0.5)),
    NUM_BLOCKS,
    layer_warmup=Duration(2, "st"),
)
# Strategy -> the layers that train in each of the 8 updates.
TRAINS: dict[str, list[str]] = {
    "full": [ALL] * 8,
    "llrd": [ALL] * 8,
    "discriminative": [ALL] * 8,
    "head_only": ["4"] * 8,
    "top_layers": ["234"] * 8,
    "gradual": ["4", "34", "34", "234", "1234", "1234", ALL, ALL],
    "ulmfit": ["4", "34", "34", "234", "1234", "1234", ALL, ALL],
    "lp_ft": ["4", "4", ALL, ALL, ALL, ALL, ALL, ALL],
    "own": ["4"] * 4 + ["234"] * 4,
}
# The head of the tiny BERT has a pooler, so it has ten times the base rate, except where a strategy says otherwise.
RATES: dict[str, list[float]] = {
    "full": [0.01, 0.01, 0.01, 0.01, 0.1],
    "llrd": [0.00729, 0.0081, 0.009, 0.01, 0.1],
    "discriminative": [0.01, 0.01, 0.01, 0.01, 0.001],
    "head_only": [0.01, 0.01, 0.01, 0.01, 0.01],
    "top_layers": [0.01, 0.01, 0.01, 0.01, 0.1],
    "gradual": [0.00729, 0.0081, 0.009, 0.01, 0.1],
    "ulmfit": [0.01 / 2.6**3, 0.01 / 2.6**2, 0.01 / 2.6, 0.01, 0.01],
    "lp_ft": [0.01, 0.01, 0.01, 0.01, 0.1],
    "own": [0.00729, 0.0081, 0.009, 0.01, 0.1],
}
FACTORS: dict[str, Callable[[int, int], float]] = {
    "linear": lambda step, steps: (steps - step) / steps,
    "cosine": lambda step, steps: 0.5 * (1 + math.cos(math.pi * step / steps)),
    "constant": lambda step, steps: 1.0,
}


def chosen(name: str) -> str | UnfreezeSchedule:
    return OWN if name == "own" else name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, Any]]:
    """Runs of 8 updates, each made once."""
    made: dict[tuple[str, str], dict[str, Any]] = {}

    def run(strategy: str, scheduler: str = "linear") -> dict[str, Any]:
        if (strategy, scheduler) not in made:
            folder = str(tmp_path_factory.mktemp("run"))
            made[strategy, scheduler] = trained(folder, chosen(strategy), changes={"lr_scheduler_type": scheduler})
        return made[strategy, scheduler]

    return run


@pytest.mark.parametrize("strategy", TRAINS)
def test_each_strategy_trains_its_layers_in_each_update(runs: Callable[[str], dict[str, Any]], strategy: str) -> None:
    layer_map = LayerMap.from_model(tiny_model())
    trainable = runs(strategy)["trainable"]
    assert ["".join(map(str, sorted({layer_map.layer_id(name) for name in names}))) for names in trainable] == TRAINS[
        strategy
    ]


def expected_rate(strategy: str, factor: Callable[[int, int], float], step: int, layer: int) -> float:
    """The closed form; a strategy that moves rates gives frozen layers none."""
    rate, trains = RATES[strategy][layer], str(layer) in TRAINS[strategy][step]
    if strategy == "lp_ft":
        start, length = (0, 2) if step < 2 else (2, 6)
        return rate * factor(step - start, length) * trains
    if strategy == "own":
        warmup = 1.0 if layer == HEAD or step < 4 else min(1.0, (step - 3) / 3)
        return rate * factor(step, STEPS) * warmup * (0.5 if step >= 4 else 1.0) * trains
    return rate * factor(step, STEPS)


MOVE_RATES = ("lp_ft", "own")


@pytest.mark.parametrize(
    ("strategy", "scheduler"),
    [
        pytest.param(
            strategy, scheduler, marks=[] if scheduler == "linear" or strategy in MOVE_RATES else pytest.mark.slow
        )
        for strategy in TRAINS
        for scheduler in FACTORS
    ],
)
def test_the_rate_of_each_group_is_its_closed_form(
    runs: Callable[[str, str], dict[str, Any]], strategy: str, scheduler: str
) -> None:
    traces = runs(strategy, scheduler)["rates"]
    assert len(traces) == STEPS
    for step, rates in enumerate(traces):
        assert {layer for layer, _ in rates} == set(range(HEAD + 1))
        for layer, rate in rates:
            expected = expected_rate(strategy, FACTORS[scheduler], step, layer)
            assert rate == pytest.approx(expected, rel=1e-12, abs=1e-15), (step, layer)


class Reporter(TrainerCallback):
    """What a tracker would be told."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append(dict(kwargs["logs"]))


def test_the_rate_of_each_layer_is_logged_under_one_key(tmp_path: Path) -> None:
    reporter = Reporter()
    trainer = LayerwiseTrainer(
        strategy="gradual",
        model=tiny_model(),
        args=arguments(tmp_path, lr_scheduler_type="constant"),
        train_dataset=tiny_data(),
        callbacks=[reporter],
    )
    trainer.train()
    history = trainer.state.log_history
    frozen = {"lr/block 3": 0.0, "lr/block 2": 0.0, "lr/block 1": 0.0, "lr/embeddings": 0.0}
    assert {key: value for key, value in history[0].items() if "lr/" in key} == {"lr/head": 0.1, **frozen}
    assert history[7]["lr/embeddings"] == pytest.approx(0.00729, rel=1e-12)
    assert history[7]["learning_rate"] == history[7]["lr/head"] == 0.1
    assert [entry["lr/block 3"] for entry in reporter.seen if "loss" in entry] == [0.0] + [0.01] * 7


def test_frozen_layers_keep_weights_and_modes_through_the_trainers_train_calls(tmp_path: Path) -> None:
    model = tiny_model(dropout=0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes: list[tuple[bool, bool, bool]] = []

    class Modes(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            bert = kwargs["model"].bert
            modes.append((bert.embeddings.dropout.training, bert.encoder.layer[2].training, kwargs["model"].training))

    LayerwiseTrainer(
        strategy="top_layers",
        trainable_blocks=1,
        model=model,
        args=arguments(tmp_path, weight_decay=0.1, eval_strategy="steps", eval_steps=2),
        train_dataset=tiny_data(),
        eval_dataset=tiny_data(8),
        callbacks=[Modes()],
    ).train()
    assert modes == [(False, True, True)] * STEPS
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    layer_map = LayerMap.from_model(model)
    assert {layer_map.layer_id(name) for name in moved} == {NUM_BLOCKS, HEAD}


def test_a_parameter_that_was_frozen_before_stays_frozen_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model()
    table = model.bert.embeddings.position_embeddings.weight.requires_grad_(False)
    before = table.clone()
    trainer = LayerwiseTrainer(strategy="full", model=model, args=arguments(tmp_path), train_dataset=tiny_data())
    assert "stay frozen: bert.embeddings.position_embeddings.weight" in caplog.text
    trainer.train()
    assert torch.equal(table, before)
    assert not table.requires_grad


def test_settings_that_give_way_and_a_patience_without_phases_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LayerwiseTrainer(strategy="discriminative", model=tiny_model(), args=arguments(tmp_path))
    stopper = EarlyStoppingCallback(3)
    LayerwiseTrainer(strategy="ulmfit", model=tiny_model(), args=arguments(tmp_path), callbacks=[stopper])
    assert "learning_rate=0.01 counts, not the 1e-05 of the strategy" in caplog.text
    assert "lr_scheduler_type=linear and warmup_steps count, not the slanted_triangular" in caplog.text
    assert "the patience of an early one (3 evaluations) may end the run" in caplog.text


def test_weight_decay_and_the_class_of_the_optimizer_come_from_the_arguments(tmp_path: Path) -> None:
    args = arguments(tmp_path, weight_decay=0.3, optim="adafactor")
    optimizer = LayerwiseTrainer(strategy="llrd", head_lr=0.5, model=tiny_model(), args=args).create_optimizer()
    assert type(optimizer).__name__ == "Adafactor"
    groups = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert groups["head"] == (0.5, 0.3)
    assert groups["head, no_weight_decay"] == (0.5, 0.0)
    assert groups["block 2"] == (0.01 * 0.9, 0.3)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"strategy": "probe"}, r'strategy "probe" solves the head of a recipe without a loop'),
        ({"strategy": "scratch"}, r'AutoModel\.\.\.from_config\(config\) and use strategy="full"'),
        ({"strategy": "gradul"}, "got 'gradul'; did you mean gradual"),
        ({"strategy": "top_layers", "trainable_blocks": 9}, "must be at most 3"),
        ({"strategy": "full", "unfreeze": {"every": "1ep"}}, "unfreezes nothing"),
        ({"strategy": "gradual", "trainable_blocks": 2}, "trains all blocks in the end"),
        ({"strategy": UnfreezeSchedule.fixed(12)}, "for 12 blocks, but the model has 3"),
        ({"strategy": OWN, "unfreeze": {}}, "given by name, not a schedule"),
    ],
)
def test_a_strategy_that_makes_no_sense_here_is_refused_with_what_to_do(
    tmp_path: Path, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnfreezeError, match=message):
        LayerwiseTrainer(model=tiny_model(), args=arguments(tmp_path), **keywords)


@pytest.mark.parametrize(
    ("kind", "message"), [(DistributedType.DEEPSPEED, "DeepSpeed distributes"), (DistributedType.FSDP, "untested")]
)
def test_frozen_layers_in_a_divided_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: DistributedType, message: str
) -> None:
    # Neither runs on CPU processes: what the accelerator would say of itself stands in for it.
    monkeypatch.setattr(hf_callback, "AcceleratorState", lambda: SimpleNamespace(distributed_type=kind))
    for strategy in ("gradual", "head_only"):
        with pytest.raises(UnfreezeError, match=message):
            LayerwiseTrainer(strategy=strategy, model=tiny_model(), args=arguments(tmp_path))
    LayerwiseTrainer(strategy="llrd", model=tiny_model(), args=arguments(tmp_path))


@pytest.mark.parametrize(
    ("strategy", "changes", "message"),
    [
        ("gradual", {"ddp_static_graph": True}, "leave it out"),
        ("lp_ft", {"lr_scheduler_type": "greedy", "eval_strategy": "epoch"}, "a function of the step"),
        (
            "gradual",
            {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": True}},
            "no gradients above frozen embeddings",
        ),
    ],
)
def test_arguments_that_would_go_wrong_are_refused(
    tmp_path: Path, strategy: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnfreezeError, match=message):
        LayerwiseTrainer(
            strategy=strategy,
            model=tiny_model(),
            args=arguments(tmp_path, **changes),
            train_dataset=tiny_data(),
            eval_dataset=tiny_data(8),
        ).train()


def test_an_optimizer_of_ones_own_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(TrainingError, match="keep your Trainer with optimizers="):
        LayerwiseTrainer(model=model, args=arguments(tmp_path), optimizers=(build_optimizer(model), None))


def test_an_optimizer_that_makes_its_own_groups_is_refused(tmp_path: Path) -> None:
    trainer = LayerwiseTrainer(
        model=tiny_model(), args=arguments(tmp_path), optimizer_cls_and_kwargs=(torch.optim.SGD, {"params": []})
    )
    with pytest.raises(TrainingError, match="own groups"):
        trainer.create_optimizer()
