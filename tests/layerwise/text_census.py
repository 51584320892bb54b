"""Tiny models with random weights of every type that Transformers can put a sequence-classification head on.

A generic shrink of the default config does for most types; the rest have an entry in `SPECIAL`. Sizes differ from each
other where that is cheap, so that a transposed or swapped dimension shows.
"""

import inspect
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

MODEL_TYPES = sorted(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
DEPTH = 3
NO_DROPOUT = {"diffllama"}
"""They have a rate in their config and refuse any but 0."""
AUTO_CLASSES: dict[str, Any] = {
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
    "question": AutoModelForQuestionAnswering,
    "bare": AutoModel,
}
CANNOT_BE_BUILT = {"layoutlmv2": "its visual backbone is a model of detectron2, which PyPI does not have"}

# Field of a config -> value for a tiny model; a field that a config does not have is left out.
SHRINK: dict[str, Any] = {
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"], DEPTH),
    **dict.fromkeys(["decoder_layers", "num_decoder_layers"], DEPTH + 1),
    **dict.fromkeys(["hidden_size", "d_model", "n_embd", "dim", "emb_dim"], 32),
    **dict.fromkeys(["intermediate_size", "d_ff", "d_inner", "n_inner", "hidden_dim", "dff"], 48),
    **dict.fromkeys(["encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "moe_intermediate_size"], 48),
    **dict.fromkeys(["num_attention_heads", "n_head", "n_heads", "num_heads"], 4),
    **dict.fromkeys(["encoder_attention_heads", "decoder_attention_heads"], 4),
    **dict.fromkeys(["head_dim", "d_kv", "d_head", "embedding_size", "attention_head_dim"], 8),
    **dict.fromkeys(["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"], 64),
    **dict.fromkeys(["num_key_value_heads", "type_vocab_size"], 2),
    **dict.fromkeys(["vocab_size", "n_words"], 100),
    **dict.fromkeys(["bos_token_id", "decoder_start_token_id", "cls_token_id", "mask_token_id", "unk_index"], 1),
    **dict.fromkeys(["eos_token_id", "sep_token_id", "forced_eos_token_id", "eos_index"], 2),
    "pad_token_id": 0,
    "word_embed_proj_dim": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "kv_lora_rank": 12,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "sliding_window": 8,
    "image_size": 16,
    "patch_size": 8,
    "depth": DEPTH - 1,
    "out_hidden_size": 32,
}

ALL_HEADS: dict[str, Any] = {"num_key_value_heads": 4}
DELTA_NET: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    **dict.fromkeys(["linear_key_head_dim", "linear_value_head_dim"], 8),
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4},
}
HYBRID: dict[str, Any] = {
    "num_hidden_layers": 5,
    "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid", "linear_attention"],
    **ALL_HEADS,
}
# What the generic shrink does not reach, or what a branch of the architecture needs to be there.
SPECIAL: dict[str, dict[str, Any]] = {
    "axk1": {**ALL_HEADS, "head_dim": 4},
    "axk2": {**ALL_HEADS, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 4},
    "canine": {"num_hash_buckets": 64, "downsampling_rate": 2, "local_transformer_stride": 8},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {
        **{"relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"},
        **{"pos_att_type": ["p2c", "c2p"], "conv_kernel_size": 3},
    },
    "deepseek_v2": ALL_HEADS,
    "deepseek_v3": {**ALL_HEADS, "head_dim": 4, "first_k_dense_replace": 1},
    "esmc": ALL_HEADS,
    "funnel": {"block_sizes": [2, 1, 2], "num_decoder_layers": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "gptj": {"rotary_dim": 4},
    "jamba": {**{"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1}, "mamba_dt_rank": 4},
    "layoutlmv3": {**{"coordinate_size": 5, "shape_size": 6, "input_size": 16}, "has_relative_attention_bias": True},
    "lilt": {"hidden_size": 48},
    "luke": {"entity_vocab_size": 50, "entity_emb_size": 24},
    "markuplm": {"max_depth": 4},
    "minicpm3": ALL_HEADS,
    "mistral4": ALL_HEADS,
    "perceiver": {
        **{"num_latents": 6, "d_latents": 48, "num_self_attends_per_block": DEPTH, "num_blocks": 2},
        **{"num_self_attention_heads": 4, "num_cross_attention_heads": 4},
    },
    "qwen3_5": {"text_config": DELTA_NET},
    "qwen3_5_text": DELTA_NET,
    "qwen3_next": DELTA_NET,
    "reformer": {
        **{"attn_layers": ["local", "lsh", "local"], "axial_pos_shape": [4, 16], "axial_pos_embds_dim": [8, 24]},
        **{"attention_head_size": 8, "feed_forward_size": 48, "hidden_size": 32, "num_buckets": 4},
        **{"local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4},
    },
    "roc_bert": {"pronunciation_embed_dim": 8, "shape_embed_dim": 8, "shape_vocab_size": 50},
    "squeezebert": {"embedding_size": 32},
    "t5": {"decoder_start_token_id": 0},
    "xmod": {"languages": ["en_XX", "de_DE"], "default_language": "en_XX"},
    "zamba": {**HYBRID, "attention_head_dim": 16},
    "zamba2": {
        **HYBRID,
        "attention_head_dim": 16,
        "num_mem_blocks": 1,
        "use_shared_attention_adapter": True,
        "adapter_rank": 4,
    },
}


def config_of(model_type: str, **changes: Any) -> PreTrainedConfig:
    """The shrunk config; its parts, such as a vision tower's, are shrunk likewise."""
    fields = _shrunk(AutoConfig.for_model(model_type).to_dict())
    for name, value in {**SPECIAL.get(model_type, {}), **changes}.items():
        fields[name] = {**fields[name], **value} if name in fields and isinstance(value, dict) else value
    return AutoConfig.for_model(model_type, **fields)


def _shrunk(fields: dict[str, Any]) -> dict[str, Any]:
    small = {name: SHRINK[name] for name in fields if name in SHRINK}
    parts = {
        name: {"model_type": value.get("model_type"), **_shrunk(value)}
        for name, value in fields.items()
        if isinstance(value, dict) and "model_type" in value
    }
    return {**small, **parts}


def build(model_type: str, head: str = "sequence", drop_rate: float | None = None, **changes: Any) -> PreTrainedModel:
    """A tiny model with random weights; with a rate, that of every dropout that its config knows."""
    torch.manual_seed(0)
    config = config_of(model_type, **changes)
    if drop_rate is not None:
        _set_drop_rates(config, drop_rate)
    config.architectures = []  # Funnel has two bare models, and AutoModel looks here for which one is meant.
    model: PreTrainedModel = AUTO_CLASSES[head].from_config(config)
    return model


def _set_drop_rates(config: PreTrainedConfig, rate: float) -> None:
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            _set_drop_rates(value, rate)
        elif "drop" in name and isinstance(value, float) and config.model_type not in NO_DROPOUT:
            setattr(config, name, rate)


def heads_of(model_type: str) -> list[str]:
    """The heads of `AUTO_CLASSES` that Transformers has for this type."""
    question, token = MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
    some = {"question": question, "token": token}
    return [head for head in AUTO_CLASSES if model_type in some.get(head, MODEL_TYPES)]


def batch(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Two texts of 12 tokens, the end-of-text token last; a bare encoder-decoder is given what it decodes, too."""
    parameters = inspect.signature(model.forward).parameters
    if "inputs" in parameters and "input_ids" not in parameters:  # a bare Perceiver reads vectors
        return {"inputs": torch.rand(2, 12, model.config.d_model)}
    input_ids = torch.randint(5, 90, (2, 12), generator=torch.Generator().manual_seed(0))
    input_ids[:, [4, 5, 11]] = 2  # Longformer wants three separators in a question and its text.
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    if "decoder_input_ids" in parameters:
        inputs["decoder_input_ids"] = input_ids
    return inputs
