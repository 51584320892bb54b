"""Tiny models with random weights of nine common families, bare and under each head; the census has all others."""

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from nlp_ft.layerwise import LayerMap
from nlp_ft.models.configs import PooledClassifierConfig
from nlp_ft.models.pooled_classifier import PooledClassifier

VOCAB_SIZE = 50
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["p2c", "c2p"],
    "conv_kernel_size": 3,
    "type_vocab_size": 2,
}
MODERNBERT: dict[str, Any] = {
    "embedding_dropout": 0.1,
    "attention_dropout": 0.1,
    "mlp_dropout": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": COMMON,
    "roberta": {**COMMON, "pad_token_id": 0},
    "distilbert": {"vocab_size": VOCAB_SIZE, "dim": 16, "hidden_dim": 32, "n_heads": 2, "max_position_embeddings": 40},
    "electra": {**COMMON, "embedding_size": 8},
    "deberta-v2": {**COMMON, **DEBERTA, "embedding_size": 8},
    "albert": {**COMMON, "embedding_size": 8},
    "mpnet": COMMON,
    "xlnet": {"vocab_size": VOCAB_SIZE, "d_model": 16, "d_inner": 32, "n_head": 2},
    "modernbert": {**COMMON, **MODERNBERT},
}
FAMILIES = list(CONFIGS)
NUM_LAYERS_FIELD = {"distilbert": "n_layers", "xlnet": "n_layer"}

AUTO_CLASSES: dict[str, Any] = {
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
    "question": AutoModelForQuestionAnswering,
    "masked": AutoModelForMaskedLM,
    "bare": AutoModel,
}
HEADS = ["sequence", "token", "question", "bare", "pooled"]
"""`pooled` is the PooledClassifier of nlp_ft; `masked` (its decoder tied to the embeddings) has tests of its own."""


def build(family: str, head: str = "sequence", num_layers: int = 2, **changes: Any) -> Any:
    """A PreTrainedModel in train mode, with hidden size 16 and dropout 0.1."""
    torch.manual_seed(0)
    layers = {NUM_LAYERS_FIELD.get(family, "num_hidden_layers"): num_layers}
    config = AutoConfig.for_model(family, **{**CONFIGS[family], **layers, **changes})
    if head == "pooled":
        return PooledClassifier(PooledClassifierConfig(config, head_type="bottleneck", bottleneck_size=8)).train()
    return AUTO_CLASSES[head].from_config(config).train()


def batch() -> dict[str, torch.Tensor]:
    """Three texts of 12, 12 and 7 tokens."""
    input_ids = torch.randint(3, VOCAB_SIZE, (3, 12), generator=torch.Generator().manual_seed(0))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[2, 7:] = 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def layers_as_they_run(model: nn.Module, layer_map: LayerMap) -> list[int]:
    """Layer ids of the modules that hold parameters, in the order in which each first runs; repeats are dropped."""
    order: list[int] = []
    seen: set[str] = set()

    def watch(name: str, module: nn.Module) -> None:
        own = {layer_map.layer_id(f"{name}.{key}".lstrip(".")) for key, _ in module.named_parameters(recurse=False)}

        def note(*_: object) -> None:
            if name not in seen:
                seen.add(name)
                order.extend(layer_id for layer_id in sorted(own) if [layer_id] != order[-1:])

        if own:
            hooks.append(module.register_forward_pre_hook(note))

    hooks: list[Any] = []
    for name, module in model.named_modules():
        watch(name, module)
    with torch.no_grad():
        model(**batch())
    for hook in hooks:
        hook.remove()
    return order
