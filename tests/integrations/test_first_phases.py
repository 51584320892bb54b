"""The first phase trains what the loss depends on, in train mode; one that waits for what never comes is refused."""

from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    GPT2Config,
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    Trainer,
    default_data_collator,
)

from nlp_ft.errors import TrainingError, UnfreezeError
from nlp_ft.integrations.hf_trainer import LayerwiseTrainer, LayerwiseTrainerMixin, UnfreezeCallback
from nlp_ft.integrations.lightning import LayerwiseUnfreezing, layerwise_optimizer
from nlp_ft.integrations.strategy import LayerwiseSettings
from nlp_ft.layerwise import LayerMap, Plateau, UnfreezeSchedule
from nlp_ft.layerwise.unfreezing.triggers import AT_ONCE
from tests.integrations.hf_runs import Watch, arguments, tiny_data, tiny_model


class LayerwiseSeq2SeqTrainer(LayerwiseTrainerMixin, Seq2SeqTrainer):
    pass


def tied(kind: str) -> PreTrainedModel:
    """A generator whose head is the table of its embeddings."""
    sizes: dict[str, Any] = {"vocab_size": 30, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if kind != "gpt2":
        sizes["decoder_start_token_id"] = 1
    torch.manual_seed(0)
    if kind == "t5":
        config: Any = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, **sizes)
        return AutoModelForSeq2SeqLM.from_config(config)
    if kind == "bart":
        shape: dict[str, Any] = {
            f"{side}_{what}": 1 if what == "layers" else 2
            for side in ("encoder", "decoder")
            for what in ("layers", "attention_heads")
        }
        return AutoModelForSeq2SeqLM.from_config(BartConfig(d_model=16, max_position_embeddings=32, **shape, **sizes))
    return AutoModelForCausalLM.from_config(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, **sizes))


def generated_rows(rows: int = 16) -> list[dict[str, Any]]:
    return [{**row, "labels": row["input_ids"].clone()} for row in tiny_data(rows)]


@pytest.mark.parametrize("strategy", ["gradual", "lp_ft"])
@pytest.mark.parametrize("kind", ["t5", "bart", "gpt2"])
def test_a_head_tied_to_the_embeddings_makes_training_begin_with_the_next_phase(
    tmp_path: Path, kind: str, strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, watch = tied(kind), Watch()
    args = Seq2SeqTrainingArguments(**arguments(tmp_path).to_dict() | {"use_cpu": True, "logging_steps": 1})
    trainer = LayerwiseSeq2SeqTrainer(
        strategy=strategy, model=model, args=args, train_dataset=generated_rows(), callbacks=[watch]
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer.train()
    assert "has no parameter of its own here (it is tied to another layer, or frozen): training begins" in caplog.text
    assert len(watch.trainable[0]) > 0
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved & watch.trainable[0]
    assert len(watch.trainable[-1]) == len(before)


@pytest.mark.parametrize("kind", ["t5", "bart", "gpt2"])
def test_the_head_alone_is_refused_where_it_has_no_parameter(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnfreezeError, match="trains head, which has no parameter of its own here: it is tied"):
        LayerwiseSeq2SeqTrainer(strategy="head_only", model=tied(kind), args=Seq2SeqTrainingArguments(str(tmp_path)))


class EmbeddingTrainer(Trainer):
    """As SentenceTransformerTrainer: the loss is a module with weights of its own, and nothing reads the pooler."""

    def __init__(self, *args: Any, loss: nn.Module, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss = loss

    def get_optimizer_cls_and_kwargs(self, args: Any, model: Any = None) -> tuple[Any, Any]:  # type: ignore[override]
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        everything = nn.Sequential(OrderedDict(model=model, loss=self.loss))
        return optimizer_class, {**options, "optimizer_dict": [{"params": list(everything.parameters())}]}

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, *rest: Any, **kwargs: Any) -> Any:
        hidden = model.bert(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state.mean(1)
        loss = nn.functional.cross_entropy(self.loss(hidden), inputs["labels"])
        return (loss, None) if return_outputs else loss


class LayerwiseEmbeddingTrainer(LayerwiseTrainerMixin, EmbeddingTrainer):
    pass


def embedding_trainer(folder: Path, strategy: str, weights_of_loss: bool) -> LayerwiseEmbeddingTrainer:
    torch.manual_seed(0)
    loss = nn.Linear(16, 3).requires_grad_(weights_of_loss)
    return LayerwiseEmbeddingTrainer(
        strategy=strategy, model=tiny_model(), args=arguments(folder), train_dataset=tiny_data(), loss=loss
    )


def test_the_weights_of_a_loss_are_trained_in_a_group_beside_the_layers(tmp_path: Path) -> None:
    trainer = embedding_trainer(tmp_path, "llrd", weights_of_loss=True)
    before = trainer.loss.weight.detach().clone()  # type: ignore[operator]
    trainer.train()
    assert trainer.optimizer is not None
    assert [group["name"] for group in trainer.optimizer.param_groups][-1] == "loss"
    assert not torch.equal(trainer.loss.weight, before)  # type: ignore[arg-type]


def test_a_phase_on_which_the_loss_does_not_depend_is_refused_in_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError, match=r"the loss depends on nothing that trains in this phase \(bert\.pooler"):
        embedding_trainer(tmp_path, "gradual", weights_of_loss=False).train()


def test_a_phase_in_which_the_loss_alone_would_learn_is_refused_in_the_first_step(tmp_path: Path) -> None:
    trainer = embedding_trainer(tmp_path, "head_only", weights_of_loss=True)
    before = trainer.loss.weight.detach().clone()  # type: ignore[operator]
    with pytest.raises(UnfreezeError, match=r"the loss depends on nothing that trains in this phase \(bert\.pooler"):
        trainer.train()
    assert torch.equal(trainer.loss.weight, before)  # type: ignore[arg-type]


def test_a_trainer_with_the_callback_alone_refuses_a_phase_that_learns_nothing(tmp_path: Path) -> None:
    model = tiny_model()
    trainer = EmbeddingTrainer(
        model=model, args=arguments(tmp_path), train_dataset=tiny_data(), loss=nn.Linear(16, 3),
        callbacks=[UnfreezeCallback("head_only")], optimizers=(torch.optim.SGD(model.parameters(), 0.1), None),
    )  # fmt: skip
    with pytest.raises(UnfreezeError, match="the loss depends on nothing that trains in this phase"):
        trainer.train()


@pytest.mark.parametrize(
    ("unfreeze", "changes", "message"),
    [
        ({"plateau": {}}, {}, r'waits for loss on a plateau .* has 0 before its end.*set eval_strategy="epoch"'),
        ({"plateau": {"patience": 2}}, {"eval_strategy": "epoch"}, "takes 3 evaluation.* has 1 before its end"),
        ({"loss_below": {"value": 1.0}}, {"logging_strategy": "no"}, "training loss below 1.*set logging_strategy"),
        ({"loss_below": {"value": 1.0}}, {"logging_steps": 500}, "has 0 before its end"),
    ],
)
def test_a_phase_of_the_trainer_that_waits_for_what_never_comes_is_refused_at_the_start(
    tmp_path: Path, unfreeze: Any, changes: Any, message: str
) -> None:
    trainer = LayerwiseTrainer(
        strategy="gradual",
        unfreeze=unfreeze,
        model=tiny_model(),
        args=arguments(tmp_path, **changes),
        train_dataset=tiny_data(),
        eval_dataset=tiny_data(8),
    )
    with pytest.raises(UnfreezeError, match=message):
        trainer.train()


class Evaluated(pl.LightningModule):
    """A model in eval mode, as from_pretrained gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = tiny_model(dropout=0.1).eval()
        self.live: list[set[str]] = []

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        dropouts = {name: module for name, module in self.model.named_modules() if isinstance(module, nn.Dropout)}
        self.live.append({name for name, module in dropouts.items() if module.training})
        loss: torch.Tensor = self.model(**batch).loss
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], number: int) -> None:
        self.log("val_loss", self.model(**batch).loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return layerwise_optimizer(self.model, "gradual", lr=0.1)


def fit(folder: Path, callback: LayerwiseUnfreezing, module: Evaluated | None = None, **settings: Any) -> Evaluated:
    rows: Any = DataLoader(tiny_data(32), 8, collate_fn=default_data_collator)  # type: ignore[arg-type]
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=5, callbacks=[callback], default_root_dir=folder, **{**options, **settings}
    )
    module = module or Evaluated()
    trainer.fit(module, rows, settings.pop("validation", rows) if "limit_val_batches" not in settings else None)
    return module


def test_lightning_trains_in_train_mode_what_a_phase_trains_though_the_model_came_in_eval_mode(tmp_path: Path) -> None:
    module = fit(tmp_path, LayerwiseUnfreezing("gradual", unfreeze={"every": "1ep"}))
    in_epochs = [module.live[4 * epoch] for epoch in range(5)]
    assert in_epochs[0] == {"dropout"}
    for blocks, live in enumerate(in_epochs[:4]):
        assert len({name.split(".layer.")[1].split(".")[0] for name in live if ".layer." in name}) == blocks
    assert "bert.embeddings.dropout" in in_epochs[4]


def test_a_plateau_without_a_validation_loader_is_refused_in_lightning(tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError, match=r"has 0 before its end.*give the Trainer a validation loader"):
        fit(tmp_path, LayerwiseUnfreezing("gradual", unfreeze={"plateau": {}}), limit_val_batches=0)


def test_an_end_of_phases_that_is_given_replaces_that_of_the_strategy() -> None:
    found = LayerwiseSettings("lp_ft", unfreeze={"plateau": {"metric": "eval_loss"}}).schedule(3)
    assert [phase.start for phase in found.phases] == [AT_ONCE, Plateau("loss")]
    listed = LayerwiseSettings("lp_ft", unfreeze={"layers": "head: 0st, 1-3: 5st, embeddings: never"}).schedule(3)
    assert [phase.layers for phase in listed.phases] == [{4}, {1, 2, 3, 4}]


def test_a_phase_in_between_of_layers_that_are_frozen_for_good_falls_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, watch = tiny_model(), Watch()
    model.bert.embeddings.requires_grad_(False)
    model.bert.encoder.layer[1].requires_grad_(False)
    trainer = LayerwiseTrainer(
        strategy="gradual",
        unfreeze={"order": "one_at_a_time"},
        model=model,
        args=arguments(tmp_path, num_train_epochs=3),
        train_dataset=tiny_data(),
        callbacks=[watch],
    )
    trainer.train()
    trained = [{layer_of(name) for name in names} for names in watch.trainable]
    assert trained == [{"head"}] * 4 + [{"0"}] * 4 + [{"2"}] * 2 + [{"head", "0", "2"}] * 2
    assert caplog.text.count("the phase before it goes on") == 2


def layer_of(name: str) -> str:
    return name.split(".layer.")[1].split(".")[0] if ".layer." in name else "head"


class MappedRates(EmbeddingTrainer):
    """As SentenceTransformerTrainer does with a learning_rate_mapping."""

    def get_optimizer_cls_and_kwargs(self, args: Any, model: Any = None) -> tuple[Any, Any]:  # type: ignore[override]
        optimizer_class, options = super().get_optimizer_cls_and_kwargs(args, model)
        options["optimizer_dict"].append({"params": [], "lr": 0.5})
        return optimizer_class, options


class LayerwiseMappedRates(LayerwiseTrainerMixin, MappedRates):
    pass


def test_rates_of_another_mapping_are_refused_beside_those_of_the_layers(tmp_path: Path) -> None:
    trainer = LayerwiseMappedRates(
        strategy="llrd", model=tiny_model(), args=arguments(tmp_path), train_dataset=tiny_data(), loss=nn.Linear(16, 3)
    )
    with pytest.raises(TrainingError, match="learning_rate_mapping sets the rates of parameters"):
        trainer.train()


class Unpooled(Evaluated):
    """Its loss passes by the pooler and the head."""

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        loss: torch.Tensor = self.model.bert(batch["input_ids"]).last_hidden_state.square().mean()
        return loss


def test_a_phase_on_which_the_loss_does_not_depend_is_refused_in_lightning(tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError, match=r"the loss depends on nothing that trains in this phase \(bert\.pooler"):
        fit(tmp_path, LayerwiseUnfreezing("gradual", unfreeze={"every": "1ep"}), module=Unpooled())


@pytest.mark.parametrize(
    ("settings", "head_lr"),
    [
        (LayerwiseSettings("head_only"), None),
        (LayerwiseSettings("top_layers", trainable_blocks=0), None),
        (LayerwiseSettings(UnfreezeSchedule.fixed(3, 0)), None),
        (LayerwiseSettings("head_only", trainable_blocks=1), 1.0),
        (LayerwiseSettings("top_layers"), 1.0),
        (LayerwiseSettings("gradual"), 1.0),
        (LayerwiseSettings(UnfreezeSchedule.fixed(3, 1)), 1.0),
    ],
)
def test_a_head_that_trains_alone_has_the_base_rate_however_that_was_said(
    settings: LayerwiseSettings, head_lr: float | None
) -> None:
    model = tiny_model()
    assert settings.group_settings(model, LayerMap.from_model(model), 0.1)["head_lr"] == head_lr


class LogsLoss(Evaluated):
    """Logs a training loss, which falls, under the plain name of that of validation, which does not."""

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        self.log("loss", torch.tensor(-float(self.global_step)), on_step=False, on_epoch=True)
        return super().training_step(batch, number)

    def validation_step(self, batch: dict[str, torch.Tensor], number: int) -> None:
        self.log("val_loss", torch.tensor(1.0))


def test_a_plateau_in_lightning_is_that_of_validation_though_training_logs_a_loss_too(tmp_path: Path) -> None:
    phases = {"order": "all_at_once", "plateau": {"metric": "val_loss", "patience": 2}}
    callback = LayerwiseUnfreezing("gradual", unfreeze=phases)
    fit(tmp_path, callback, LogsLoss(), num_sanity_val_steps=0)
    assert callback.unfreezer is not None
    assert callback.unfreezer.state.starts == [0, 12]


def test_a_checkpoint_that_knows_no_phases_is_refused_in_lightning(tmp_path: Path) -> None:
    rows: Any = DataLoader(tiny_data(16), 8, collate_fn=default_data_collator)  # type: ignore[arg-type]
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    plain = pl.Trainer(max_epochs=1, **options)
    plain.fit(Evaluated(), rows)
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    for strategy, refused in (("gradual", True), ("llrd", False)):
        trainer = pl.Trainer(max_epochs=5, callbacks=[LayerwiseUnfreezing(strategy)], **options)
        with pytest.raises(UnfreezeError, match=r"of step 2 was written without") if refused else nullcontext():
            trainer.fit(Evaluated(), rows, ckpt_path=tmp_path / "plain.ckpt")


def test_a_warm_up_that_is_longer_than_the_run_is_refused_in_lightning(tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError, match=r"^warmup=6ep lasts 24 steps, but the run 20; make it shorter$"):
        fit(tmp_path, LayerwiseUnfreezing("llrd", lr_schedule="linear", warmup="6ep"))
    fit(tmp_path, LayerwiseUnfreezing("llrd", lr_schedule="linear", warmup="6ep"), fast_dev_run=True)


def test_lightning_counts_phases_in_steps_where_the_length_of_an_epoch_is_not_known(tmp_path: Path) -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(tiny_data(32))

    callback = LayerwiseUnfreezing("gradual", unfreeze={"every": "1st"})
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=6, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[callback], default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Evaluated(), DataLoader(Stream(), 8, collate_fn=default_data_collator))
    assert callback.unfreezer is not None
    assert callback.unfreezer.state.starts == [0, 1, 2, 3, 4]
