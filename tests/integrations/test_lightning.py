"""The Lightning callback: strategies, rates, two processes, resume; and what Lightning's own callback does."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning.pytorch")

import lightning.pytorch as pl
from transformers import default_data_collator

from nlp_ft.durations import Duration
from nlp_ft.errors import LayerMapError, UnfreezeError
from nlp_ft.integrations.lightning import LayerwiseUnfreezing, layerwise_optimizer
from nlp_ft.layerwise import LayerMap, LossBelow, Phase, Plateau, UnfreezeSchedule
from tests.integrations.hf_runs import HEAD, NUM_BLOCKS, tiny_data, tiny_model
from tests.integrations.lightning_runs import Classifier, Watch, trained
from tests.integrations.processes import in_processes

ALL = frozenset(range(HEAD + 1))
LAYERS = ["4"] * 3 + ["34"] * 3 + ["234"] * 3 + ["1234"] * 3 + ["01234"] * 4


def two_phases(trigger: Any, **keywords: Any) -> UnfreezeSchedule:
    return UnfreezeSchedule((Phase(frozenset({HEAD})), Phase(ALL, trigger, **keywords)), NUM_BLOCKS)


def trained_on(processes: int, folder: Path, *arguments: Any, **keywords: Any) -> list[dict[str, Any]]:
    return in_processes(processes, _trained_on, processes, str(folder), arguments, keywords)


def _trained_on(processes: int, folder: str, arguments: Any, keywords: Any) -> dict[str, Any]:
    return trained(folder, *arguments, processes=processes, **keywords)


def test_two_processes_stay_equal_after_every_update_and_end_as_one_does(tmp_path: Path) -> None:
    one = trained(str(tmp_path), "gradual", unfreeze={"every": "3st"})
    first, second = trained_on(2, tmp_path, "gradual", unfreeze={"every": "3st"}, accumulation=2)
    assert first["hashes"] == second["hashes"]
    assert len(set(first["hashes"])) == 16
    assert layers_of_each_update(first) == LAYERS
    for name, tensor in one["weights"].items():
        torch.testing.assert_close(first["weights"][name], tensor, rtol=0, atol=1e-5, msg=name)


def layers_of_each_update(run: dict[str, Any]) -> list[str]:
    layer_map = LayerMap.from_model(tiny_model())
    layers = [sorted({layer_map.layer_id(name) for name in names}) for names in run["trainable"]]
    return ["".join(map(str, of_update)) for of_update in layers]


@pytest.mark.slow
def test_lightnings_own_callback_drifts_apart(tmp_path: Path) -> None:
    # The control of the test above, and a fault that users of Lightning have: pytorch-lightning #20340.
    first, second = trained_on(2, tmp_path, peer=True)
    assert first["hashes"][:8] == second["hashes"][:8]
    assert first["hashes"][8] != second["hashes"][8]


def test_the_rates_follow_the_schedule_and_the_phases(tmp_path: Path) -> None:
    schedule = two_phases(Duration(4, "st"), lr_scale=0.5)
    rates = trained(str(tmp_path), schedule, lr_schedule="linear", warmup="4st")["rates"]
    for step, groups in enumerate(rates):
        factor = step / 4 if step < 4 else (16 - step) / 12
        for layer, rate in groups:
            layerwise = 1.0 if layer == HEAD else 0.1 * 0.9 ** (NUM_BLOCKS - layer)
            expected = layerwise * factor * (0.5 if step >= 4 else float(layer == HEAD))
            assert rate == pytest.approx(expected, rel=1e-12, abs=1e-15), (step, layer)


@pytest.mark.slow
def test_a_plateau_is_decided_alike_on_processes_that_see_other_values(tmp_path: Path) -> None:
    # The mean stays 0: the first evaluation is the best, and the second the end of patience, at step 16.
    trigger = Plateau("val_score", patience=1)
    first, second = trained_on(2, tmp_path, two_phases(trigger), epochs=3)
    assert first["starts"] == second["starts"] == [0, 16]
    assert first["hashes"] == second["hashes"]


def test_a_resumed_run_ends_as_the_unbroken_one_in_the_middle_of_a_plateau(tmp_path: Path) -> None:
    schedule = two_phases(Plateau("val_loss", patience=2, min_delta=1e9))
    whole = trained(str(tmp_path), schedule, epochs=4)
    assert whole["starts"] == [0, 24]
    trained(str(tmp_path), schedule, epochs=2)
    resumed = trained(str(tmp_path), schedule, epochs=4, checkpoint=str(tmp_path / "last.ckpt"))
    assert resumed["starts"] == [0, 24]
    assert resumed["hashes"][-16:] == whole["hashes"][-16:]


def test_frozen_modules_stay_in_eval_through_lightnings_train_calls(tmp_path: Path) -> None:
    # With dropout in the frozen part two runs of the head could only be equal if it does not act there.
    one, other = (trained(str(tmp_path), "head_only", dropout=dropout, epochs=1) for dropout in (0.0, 0.5))
    frozen = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(one["weights"][frozen], other["weights"][frozen])
    assert one["trainable"][-1] == {
        "classifier.weight",
        "classifier.bias",
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
    }


class WithStatistics(Classifier):
    """With running statistics in the blocks, as an image network has them."""

    def __init__(self) -> None:
        super().__init__()
        self.model.bert.encoder.layer[0].statistics = torch.nn.BatchNorm1d(8)


class Sharded(pl.strategies.DDPStrategy):
    """As DeepSpeedStrategy, a child of DDPStrategy that cannot be made on a CPU."""


@pytest.mark.parametrize(
    ("strategy", "keywords", "message"),
    [
        ("gradual", {"strategy": pl.strategies.DDPStrategy(static_graph=True)}, "leave it out"),
        ("gradual", {"strategy": Sharded()}, "under Sharded are untested"),
        (two_phases(LossBelow(1.0)), {}, "use a plateau"),
        ("scratch", {}, "from_config"),
    ],
)
def test_what_would_go_wrong_is_refused(tmp_path: Path, strategy: Any, keywords: dict[str, Any], message: str) -> None:
    def prepare() -> None:
        callback = LayerwiseUnfreezing(strategy)
        trainer = pl.Trainer(**{"accelerator": "cpu", "devices": 1, **keywords}, logger=False, callbacks=[callback])
        callback.setup(trainer, Classifier(), "fit")

    with pytest.raises(UnfreezeError, match=message):
        prepare()


@pytest.mark.parametrize(("strategy", "is_refused"), [("head_only", True), ("top_layers", True), ("gradual", False)])
def test_averaging_that_clears_the_statistics_of_layers_that_stay_frozen_is_refused(
    strategy: str, is_refused: bool
) -> None:
    average = pl.callbacks.StochasticWeightAveraging(swa_lrs=0.1)
    for module, expected in ((WithStatistics(), is_refused), (Classifier(), False)):
        callback = LayerwiseUnfreezing(strategy, trainable_blocks=1 if strategy == "top_layers" else None)
        trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, callbacks=[callback, average])
        with pytest.raises(UnfreezeError, match="clears running") if expected else contextlib.nullcontext():
            callback.setup(trainer, module, "fit")


@pytest.mark.parametrize(
    ("strategy", "lr_schedule", "is_refused"),
    [("gradual", None, True), ("llrd", "linear", True), ("head_only", None, False)],
)
def test_manual_optimization_whose_updates_nobody_knows_is_refused(
    strategy: str, lr_schedule: Any, is_refused: bool
) -> None:
    module = Classifier()
    module.automatic_optimization = False
    trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False)
    with pytest.raises(UnfreezeError, match="under manual optim") if is_refused else contextlib.nullcontext():
        LayerwiseUnfreezing(strategy, lr_schedule=lr_schedule).setup(trainer, module, "fit")


def test_layers_whose_phase_never_began_are_named_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained(str(tmp_path), two_phases(Plateau("val_loss", patience=9)), epochs=2)
    assert "ended in phase 1 of 2, so these never trained: blocks 1-3, embeddings" in caplog.text


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"network": "net"}, "network='net' is no part of Classifier, whose parts are: model"),
        ({"warmup": "10%"}, "warmup=10% belongs to lr_schedule"),
        ({"warmup": "10", "lr_schedule": "linear"}, "warmup must be a duration .*; got '10'"),
    ],
)
def test_a_setting_that_would_do_nothing_or_means_nothing_is_refused(keywords: dict[str, Any], message: str) -> None:
    trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False)
    with pytest.raises(UnfreezeError, match=message):
        LayerwiseUnfreezing("gradual", **keywords).setup(trainer, Classifier(), "fit")


def of_the_head(module: Classifier) -> Any:
    return torch.optim.SGD(module.model.classifier.parameters(), lr=0.1)


def with_a_scheduler(module: Classifier) -> Any:
    optimizer = layerwise_optimizer(module.model, lr=0.1)
    return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer)]


@pytest.mark.parametrize(
    ("configure", "lr_schedule", "error", "message"),
    [
        (of_the_head, None, LayerMapError, "in no group of the optimizer"),
        (with_a_scheduler, "linear", UnfreezeError, "lr_schedule takes the place of a scheduler"),
    ],
)
def test_an_optimizer_that_lacks_what_will_unfreeze_and_a_second_schedule_are_refused(
    configure: Any, lr_schedule: Any, error: type[Exception], message: str
) -> None:
    data: Any = [{"x": torch.zeros(1)}] * 16
    rows = torch.utils.data.DataLoader(data)
    callback = LayerwiseUnfreezing("gradual", lr_schedule=lr_schedule)
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, callbacks=[callback], enable_checkpointing=False
    )
    with pytest.raises(error, match=message):
        trainer.fit(type("Configured", (Classifier,), {"configure_optimizers": configure})(), rows)


@pytest.mark.parametrize("steps", [True, 2])
def test_a_development_run_takes_its_steps_with_all_layers_of_the_phases(steps: Any) -> None:
    watch, module = Watch(), Classifier()
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, fast_dev_run=steps, callbacks=[LayerwiseUnfreezing("gradual"), watch]
    )
    data: Any = tiny_data(16)
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4, collate_fn=default_data_collator))
    assert watch.trainable == [{name for name, _ in module.model.named_parameters()}] * int(steps)


class SaveAndStop(pl.Callback):
    """Writes a checkpoint after the third micro-batch, as a cluster's signal may ask for it, and ends the run."""

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, number: int) -> None:
        if number == 2:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "middle.ckpt")
            trainer.should_stop = True


def test_a_fit_that_resumes_between_two_micro_batches_freezes_before_the_first_one(tmp_path: Path) -> None:
    def updates(callbacks: list[pl.Callback], checkpoint: str | None = None) -> list[set[str]]:
        watch, data = Watch(), tiny_data(16)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            accumulate_grad_batches=2,
            callbacks=[LayerwiseUnfreezing("head_only"), watch, *callbacks],
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
        )
        rows: Any = torch.utils.data.DataLoader(data, batch_size=4, collate_fn=default_data_collator)  # type: ignore[arg-type]
        trainer.fit(Classifier(), rows, ckpt_path=checkpoint)
        return watch.trainable

    [of_head] = updates([SaveAndStop()])
    assert updates([], str(tmp_path / "middle.ckpt")) == [of_head]
    assert len(of_head) == 4
