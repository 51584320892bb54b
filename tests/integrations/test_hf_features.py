"""What else people do with the Hugging Face Trainer, with layers that freeze and unfreeze."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    EvalPrediction,
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
)

from nlp_ft.integrations.hf_arguments import CHECKPOINTING
from nlp_ft.integrations.hf_trainer import LayerwiseTrainer, LayerwiseTrainerMixin
from tests.integrations.hf_runs import arguments, tiny_data, tiny_model, trained


def test_the_best_model_is_loaded_at_the_end_and_loads_in_any_program(tmp_path: Path) -> None:
    scores = iter([0.1, 0.9, 0.3, 0.2])

    def scripted(prediction: EvalPrediction) -> dict[str, float]:
        return {"accuracy": next(scores)}

    trainer = LayerwiseTrainer(
        strategy="gradual",
        model=tiny_model(),
        args=arguments(
            tmp_path,
            save_strategy="steps",
            save_steps=2,
            eval_strategy="steps",
            eval_steps=2,
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
        ),
        train_dataset=tiny_data(),
        eval_dataset=tiny_data(8),
        compute_metrics=scripted,
    )
    trainer.train()
    best = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint-4").state_dict()
    last = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint-8").state_dict()
    assert trainer.model is not None
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, best[name]), name
    assert not torch.equal(last["classifier.weight"], best["classifier.weight"])


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain = trained(str(tmp_path), "gradual")
    changes = {CHECKPOINTING: True}
    assert trained(str(tmp_path), "gradual", changes=changes)["hashes"] == plain["hashes"]


class LayerwiseSeq2SeqTrainer(LayerwiseTrainerMixin, Seq2SeqTrainer):
    pass


def test_seq2seq_trainer_takes_encoder_and_decoder_as_one_line_of_blocks(tmp_path: Path) -> None:
    rows = [{"input_ids": row["input_ids"], "labels": row["input_ids"][:5]} for row in tiny_data()]
    losses = []
    for accumulation in (1, 2):
        model = _tiny_t5()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        settings = _plain(arguments(tmp_path)) | {"gradient_accumulation_steps": accumulation}
        args = Seq2SeqTrainingArguments(**settings, per_device_train_batch_size=8 // accumulation)
        trainer = LayerwiseSeq2SeqTrainer(
            strategy="top_layers", trainable_blocks=1, model=model, args=args, train_dataset=rows
        )
        trainer.train()
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        # Two blocks of the encoder, then two of the decoder; the last norm belongs to the last block.
        top = ("decoder.block.1.", "decoder.final_layer_norm.", "lm_head.")
        assert {name for name in moved if not name.startswith(top)} == set()
        assert "decoder.block.1.layer.0.SelfAttention.v.weight" in moved
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def _tiny_t5() -> PreTrainedModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 24}
    sizes |= {"dropout_rate": 0.0, "decoder_start_token_id": 0}
    return AutoModelForSeq2SeqLM.from_config(T5Config(**sizes))


def _plain(args: Any) -> dict[str, Any]:
    names = (
        "output_dir",
        "num_train_epochs",
        "learning_rate",
        "logging_steps",
        "save_strategy",
        "use_cpu",
        "report_to",
    )
    return {name: getattr(args, name) for name in (*names, "disable_tqdm", "log_level")}


def _init() -> PreTrainedModel:
    return tiny_model()


def test_a_search_over_settings_by_hand_gives_each_model_its_own_layers(tmp_path: Path) -> None:
    trainer = LayerwiseTrainer(
        strategy="gradual", model_init=_init, args=arguments(tmp_path), train_dataset=tiny_data()
    )
    seen = []
    for learning_rate in (1e-2, 1e-3):
        trainer.args.learning_rate = learning_rate
        trainer.train()
        assert trainer.optimizer is not None
        rates = {group["name"]: group["initial_lr"] for group in trainer.optimizer.param_groups}
        known = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
        assert trainer.model is not None
        assert known == {id(p) for p in trainer.model.parameters()}
        seen.append(rates["block 3"])
    assert seen == [1e-2, 1e-3]


@pytest.mark.slow
def test_hyperparameter_search_with_optuna(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    trainer = LayerwiseTrainer(
        strategy="gradual",
        model_init=_init,
        args=arguments(tmp_path, eval_strategy="epoch"),
        train_dataset=tiny_data(),
        eval_dataset=tiny_data(8),
    )
    best: Any = trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [1e-2, 1e-4])},
        backend="optuna",
        n_trials=2,
    )
    assert best.hyperparameters["learning_rate"] in (1e-2, 1e-4)


@pytest.mark.slow
def test_a_compiled_model_learns_what_the_plain_one_does(tmp_path: Path) -> None:
    plain = trained(str(tmp_path), "gradual", changes={"optim": "sgd", "learning_rate": 0.1})
    changes = {"optim": "sgd", "learning_rate": 0.1, "torch_compile": True}
    compiled = trained(str(tmp_path), "gradual", changes=changes)
    assert compiled["trainable"] == plain["trainable"]
    for name, tensor in plain["weights"].items():
        torch.testing.assert_close(compiled["weights"][name], tensor, rtol=0, atol=1e-5, msg=name)
