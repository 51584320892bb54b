"""A tiny data set of words with tags, and encoders of the BERT and the RoBERTa kind with real tokenizers for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import RobertaProcessing
from transformers import AutoModel, PreTrainedTokenizerFast

from tests.tiny import tiny_config

SPECIAL = {"pad": "<pad>", "unk": "<unk>", "bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "mask": "<mask>"}
ANIMALS, COLOURS, OTHERS = ["cat", "dog", "bird"], ["red", "green", "blue"], ["the", "runs", "sleeps", "eats"]


def tagged_rows(num_rows: int, seed: int = 0) -> list[dict[str, list[str]]]:
    """Rows of 3 to 9 words: one or two animals form an animal, a colour is a colour, the others are outside."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(num_rows):
        words: list[str] = []
        tags: list[str] = []
        while len(words) < generator.integers(3, 9):
            kind = generator.integers(3)
            if kind == 0 and (not tags or not tags[-1].endswith("animal")):
                found = generator.choice(ANIMALS, generator.integers(1, 3)).tolist()
                words += found
                tags += ["B-animal", *["I-animal"] * (len(found) - 1)]
            elif kind == 1:
                words.append(str(generator.choice(COLOURS)))
                tags.append("B-colour")
            else:
                words.append(str(generator.choice(OTHERS)))
                tags.append("O")
        rows.append({"tokens": words, "ner_tags": tags})
    return rows


def write_rows(file: Path, rows: list[Any]) -> Path:
    """Write rows as JSON Lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def words_recipe(folder: Path, encoder: Path, /, **changes: Any) -> dict[str, Any]:
    """A recipe as nested dicts: 200, 20 and 20 rows, 20 epochs of 25 steps."""
    for seed, (split, num_rows) in enumerate({"train": 200, "validation": 20, "test": 20}.items()):
        write_rows(folder / f"{split}.jsonl", tagged_rows(num_rows, seed))
    recipe: dict[str, Any] = {
        "task": "token_classification",
        "data": {split: str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")},
        "model": {"name": str(encoder)},
        "optimizer": {"lr": 3e-3, "head_lr": 1e-2},
        "training": {"duration": "20ep", "per_device_batch_size": 8, "precision": "fp32"},
        "output_dir": str(folder / "run"),
        "report": False,
    }
    for key, value in changes.items():
        section = recipe.get(key)
        recipe[key] = {**section, **value} if isinstance(section, dict) and isinstance(value, dict) else value
    return recipe


def byte_level_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE as of RoBERTa, trained on a few texts; a word has other tokens behind a space."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "corpus.txt"
    corpus.write_text("the red cat sleeps\nthe green bird eats\nblue dog runs\nParis, London!\n" * 50)
    trained = ByteLevelBPETokenizer()
    trained.train([str(corpus)], vocab_size=330, special_tokens=list(dict.fromkeys(SPECIAL.values())))
    trained._tokenizer.post_processor = RobertaProcessing(("</s>", 3), ("<s>", 2), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,
        model_max_length=64,
        **{f"{name}_token": token for name, token in SPECIAL.items()},
    )


def save_byte_level_encoder(folder: Path, model_type: str = "roberta") -> Path:
    """A tiny RoBERTa or ModernBERT with the byte-level tokenizer."""
    tokenizer = byte_level_tokenizer(folder)
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config(model_type, vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
