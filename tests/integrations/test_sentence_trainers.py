"""Trainers of sentence encoders: SentenceTransformerTrainer, and the body of a SetFit model, train layer by layer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.optim.optimizer import register_optimizer_step_post_hook

from nlp_ft.integrations.hf_trainer import LayerwiseTrainerMixin
from tests.tiny import MARKERS

sentence_transformers = pytest.importorskip("sentence_transformers")
losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses", reason="of version 5.4 or later")
TEXTS = [f"the {word}" for words in MARKERS.values() for word in words]
KINDS = [number for number, words in enumerate(MARKERS.values()) for _ in words]
ROWS = {
    "first": [text for text in TEXTS for _ in TEXTS],
    "second": TEXTS * len(TEXTS),
    "label": [float(one == other) for one in KINDS for other in KINDS],
}


def sentence_encoder(folder: Path) -> Any:
    """The tiny BERT under a mean; two blocks."""
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def what_moves(model: Any, train: Any) -> list[set[str]]:
    """The parts that each update changes: a block, or the embeddings."""
    named, moved = dict(model.named_parameters()), list[set[str]]()
    before = {name: tensor.detach().clone() for name, tensor in named.items()}

    def note(*unused: Any) -> None:
        changed = [name for name, tensor in named.items() if not torch.equal(tensor, before[name])]
        before.update({name: named[name].detach().clone() for name in changed})
        moved.append({name.partition("layer.")[2][:1] or name.split(".")[-3] for name in changed})

    handle = register_optimizer_step_post_hook(note)
    try:
        train()
    finally:
        handle.remove()
    return moved


def arguments(folder: Path, **changes: Any) -> Any:
    settings = {"per_device_train_batch_size": 8, "max_steps": 6, "learning_rate": 1e-3, "warmup_steps": 0}
    silent = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
    return sentence_transformers.SentenceTransformerTrainingArguments(str(folder), **{**settings, **silent, **changes})


def layerwise(base: Any) -> Any:
    return type("Layerwise", (LayerwiseTrainerMixin, base), {})


def test_the_trainer_of_sentence_transformers_unfreezes_block_by_block_from_the_top(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    model = sentence_encoder(tiny_encoder)
    trainer = layerwise(sentence_transformers.SentenceTransformerTrainer)(
        strategy="gradual",
        unfreeze={"layers": "head: 0st, 2: 0st, 1: 2st, embeddings: 4st"},
        model=model,
        args=arguments(tmp_path),
        train_dataset=Dataset.from_dict(ROWS),
        loss=losses.CosineSimilarityLoss(model),
    )
    moved = what_moves(model, trainer.train)
    assert moved[:4] == [{"1"}, {"1"}, {"0", "1"}, {"0", "1"}]
    assert len(moved) == 6
    assert all({"0", "1"} < of_step for of_step in moved[4:])


def test_the_body_of_a_setfit_model_trains_by_layers_on_the_pairs_of_setfit(tmp_path: Path, tiny_encoder: Path) -> None:
    setfit = pytest.importorskip("setfit")
    body = sentence_encoder(tiny_encoder)
    model = setfit.SetFitModel(model_body=body, model_head=setfit.SetFitHead(in_features=16, out_features=3))
    options = setfit.TrainingArguments(str(tmp_path / "setfit"), batch_size=8, report_to="none", save_strategy="no")
    setfit_trainer = setfit.Trainer(model, options, Dataset.from_dict({"text": TEXTS, "label": KINDS}))
    pairs, loss = setfit_trainer.get_dataset(TEXTS, KINDS, args=options)
    trainer = layerwise(sentence_transformers.SentenceTransformerTrainer)(
        strategy="top_layers",
        trainable_blocks=1,
        model=body,
        args=arguments(tmp_path),
        train_dataset=pairs,
        loss=loss,
    )
    assert what_moves(body, trainer.train) == [{"1"}] * 6
    setfit_trainer.train_classifier(TEXTS, KINDS, args=options)
    assert model.predict(["the cat"]).shape == (1,)
