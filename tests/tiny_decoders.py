"""Tiny decoders with real tokenizers, saved as folders: they pad as published ones do, on the left or with no token."""

import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedTokenizerFast

from tests.tiny import WORDS

DECODERS: dict[str, dict[str, object]] = {
    "gpt2": {"n_embd": 16, "n_head": 2, "n_layer": 4, "n_positions": 128},
    "llama": {"num_key_value_heads": 2, "max_position_embeddings": 128},
    "qwen3": {"num_key_value_heads": 2, "max_position_embeddings": 128, "head_dim": 8},
}
SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
END, UNKNOWN, PAD = "<end>", "<unknown>", "<pad>"


def tiny_decoder_config(model_type: str) -> PreTrainedConfig:
    """Four blocks of 16 units."""
    sizes = {} if model_type == "gpt2" else SIZES
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return AutoConfig.for_model(model_type, vocab_size=len(WORDS) + 3, **{**sizes, **ids, **DECODERS[model_type]})


def save_tiny_decoder(folder: Path, model_type: str = "gpt2", has_padding: bool = False) -> Path:
    """A folder with config, random weights and a tokenizer of whole words, which adds no token of its own."""
    torch.manual_seed(0)
    AutoModel.from_config(tiny_decoder_config(model_type)).save_pretrained(folder)
    vocabulary = [END, UNKNOWN, PAD, *WORDS]
    words = {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(vocabulary)}, "unk_token": UNKNOWN}
    described = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": words}
    (folder / "tokenizer.json").write_text(json.dumps(described))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        unk_token=UNKNOWN,
        eos_token=END,
        pad_token=PAD if has_padding else None,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=64,
    )
    tokenizer.save_pretrained(folder)
    return folder
