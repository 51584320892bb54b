"""A tiny real encoder with a real tokenizer, saved as a folder, and a small data set for it."""

import csv
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, BertTokenizer, PreTrainedConfig

WORDS = ["red", "green", "blue", "warm", "cold", "big", "small", "cat", "dog", "bird", "runs", "sleeps", "eats", "the"]
LABELS = ["animal", "colour", "size"]
MARKERS = {"animal": ["cat", "dog", "bird"], "colour": ["red", "green", "blue"], "size": ["big", "small"]}

TINY_CONFIGS: dict[str, dict[str, object]] = {
    "bert": {},
    "roberta": {"max_position_embeddings": 66, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
    "distilbert": {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},
    "electra": {"embedding_size": 8},
    "deberta-v2": {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    "albert": {"embedding_size": 8},
    "mpnet": {"max_position_embeddings": 66},
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
    "modernbert": {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
}


def tiny_config(model_type: str = "bert", **changes: object) -> PreTrainedConfig:
    """Two blocks of 16 units."""
    common: dict[str, object] = {
        "vocab_size": len(WORDS) + 5,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    if model_type in ("distilbert", "xlnet"):
        common = {"vocab_size": common["vocab_size"]}
    return AutoConfig.for_model(model_type, **{**common, **TINY_CONFIGS[model_type], **changes})


def save_tiny_encoder(folder: Path, model_type: str = "bert", **changes: object) -> Path:
    """A folder with config, random safetensors weights and a WordPiece tokenizer."""
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config(model_type, **changes)).save_pretrained(folder)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})
    tokenizer.model_max_length = 64
    if model_type in ("roberta", "distilbert", "mpnet", "modernbert"):
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    return folder


def write_tiny_csv(file: Path, rows: int, seed: int = 0) -> Path:
    """Texts of 1 to 9 words; the kind of those that are not `the` is the label."""
    generator = torch.Generator().manual_seed(seed)

    def draw(limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=generator))

    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for row in range(rows):
            label = LABELS[row % len(LABELS)]
            marker = MARKERS[label][draw(len(MARKERS[label]))]
            writer.writerow([" ".join(["the"] * draw(4) + [marker] * (1 + draw(6))), label])
    return file


def tiny_recipe(folder: Path, encoder: Path, /, **changes: object) -> dict[str, object]:
    """A recipe as nested dicts: 50 rows of train, effective batch 8 (the last one shorter), 2 epochs, no report."""
    write_tiny_csv(folder / "train.csv", 50)
    write_tiny_csv(folder / "validation.csv", 21, seed=1)
    write_tiny_csv(folder / "test.csv", 25, seed=2)
    recipe: dict[str, object] = {
        "data": {split: str(folder / f"{split}.csv") for split in ("train", "validation", "test")},
        "model": {"name": str(encoder), "pooling": "mean"},
        "optimizer": {"lr": 1e-3, "head_lr": 1e-2},
        "training": {"duration": "2ep", "per_device_batch_size": 8, "precision": "fp32"},
        "output_dir": str(folder / "run"),
        "report": False,
    }
    for key, value in changes.items():
        section = recipe.get(key)
        recipe[key] = {**section, **value} if isinstance(section, dict) and isinstance(value, dict) else value
    return recipe
