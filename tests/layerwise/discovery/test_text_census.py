"""Layer maps of every text model of Transformers, held against an oracle that knows nothing of how they are made."""

import re
from typing import Any

import pytest
import torch

from nlp_ft.layerwise import LayerMap
from tests.layerwise.text_census import CANNOT_BE_BUILT, MODEL_TYPES, build, heads_of
from tests.layerwise.text_oracle import differences

# One of each kind: shared block, encoder-decoders, pyramids, relative positions, three stacks, latents, reversible
# blocks, experts, hybrids, decoders, two towers, parallel lists, contact head, entities, page layout.
FAST = [
    "albert",
    "bart",
    "canine",
    "deberta-v2",
    "esm",
    "funnel",
    "gemma3",
    "gpt2",
    "jamba",
    "layoutlmv3",
    "llama",
    "luke",
    "mbart",
    "mixtral",
    "modernbert",
    "perceiver",
    "reformer",
    "t5",
    "xlm",
    "xlnet",
    "zamba2",
]
BUILT = [model_type for model_type in MODEL_TYPES if model_type not in CANNOT_BE_BUILT]
CASES = [(model_type, head) for model_type in BUILT for head in heads_of(model_type)]


@pytest.mark.parametrize("model_type", FAST)
def test_the_layers_of_a_classifier_are_those_of_the_oracle(model_type: str) -> None:
    check(model_type, "sequence")


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "head"), CASES)
def test_the_layers_of_every_type_under_every_head_are_those_of_the_oracle(model_type: str, head: str) -> None:
    check(model_type, head)


# What other checkpoints of a type switch on, and what moves parameters about.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {"is_decoder": True, "add_cross_attention": True}),
    ("big_bird", {"attention_type": "original_full"}),
    ("deberta-v2", {"conv_kernel_size": 0, "embedding_size": 8}),
    ("ernie", {"use_task_id": True, "task_type_vocab_size": 3}),
    ("esm", {"position_embedding_type": "rotary", "emb_layer_norm_before": True}),
    ("falcon", {"alibi": True, "parallel_attn": False}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ("funnel", {"block_repeats": [1, 2, 1], "separate_cls": False}),
    ("gpt2", {"add_cross_attention": True}),
    ("layoutlmv3", {"visual_embed": False}),
    ("mobilebert", {"trigram_input": False, "use_bottleneck": False}),
    ("mvp", {"use_prompt": True, "prompt_length": 3, "prompt_mid_dim": 8}),
    ("opt", {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    ("qwen2_moe", {"decoder_sparse_step": 2}),
    ("reformer", {"axial_pos_embds": False}),
    ("roc_bert", {"concat_input": False, "pronunciation_embed_dim": 32, "shape_embed_dim": 32}),
    ("t5", {"feed_forward_proj": "gated-gelu"}),
    ("xlm", {"n_langs": 3, "use_lang_emb": True}),
    ("xmod", {"pre_norm": True, "ln_before_adapter": True}),
    ("zamba2", {"num_mem_blocks": 2}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "changes"), VARIANTS)
def test_the_layers_of_other_configurations_are_those_of_the_oracle(model_type: str, changes: dict[str, Any]) -> None:
    check(model_type, "sequence", **changes)


# Their forward passes read values, which the meta device has not.
READING = ["bart", "canine", "deberta-v2", "t5", "xlnet"]
OTHERS = [pytest.param(model_type, marks=pytest.mark.slow) for model_type in BUILT if model_type not in READING]


@pytest.mark.parametrize("model_type", [*READING, *OTHERS])
def test_without_weights_the_layers_are_the_same_and_no_weights_are_left_behind(model_type: str) -> None:
    with torch.device("meta"):
        model = build(model_type)
        found_there = LayerMap.from_model(model)
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for found in (found_there, LayerMap.from_model(model)):
        assert differences(build(model_type), found, model_type, "sequence") == []
    after = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    assert [(name, id(tensor)) for name, tensor in after] == [(name, id(tensor)) for name, tensor in tensors]


def check(model_type: str, head: str, **changes: Any) -> None:
    model = build(model_type, head, **changes)
    assert differences(model, LayerMap.from_model(model), model_type, head) == []


@pytest.mark.parametrize("model_type", CANNOT_BE_BUILT)
def test_a_type_that_the_census_leaves_out_cannot_be_built(model_type: str) -> None:
    with pytest.raises(ImportError, match="detectron2"):
        build(model_type)


def test_the_census_covers_every_type_of_the_mapping() -> None:
    assert len(BUILT) + len(CANNOT_BE_BUILT) == len(MODEL_TYPES)
    assert len(set(FAST)) >= 20


# Type, pattern of parameter names, the wrong layer that a careless map gives them (-1 is the head).
FAULTS = [
    ("llama", r"layers\.1\.", 3),
    ("llama", r"model\.norm", -1),
    ("llama", r"embed_tokens", 1),
    ("llama", r"score", 3),
    ("bert", r"pooler", 3),
    ("bart", r"decoder\.embed_positions", 4),
    ("bart", r"decoder\.layers\.0\.fc1", 3),
    ("mbart", r"encoder\.layer_norm\.", 0),
    ("t5", r"encoder\.block\.0.*relative_attention_bias", 1),
    ("deberta-v2", r"rel_embeddings", 3),
    ("xlnet", r"mask_emb", 1),
]


@pytest.mark.parametrize(("model_type", "pattern", "wrong"), FAULTS)
def test_the_oracle_finds_a_parameter_in_a_wrong_layer(model_type: str, pattern: str, wrong: int) -> None:
    model = build(model_type)
    right = LayerMap.from_model(model)
    ids = {name: right.layer_id(name) for name, _ in model.named_parameters(remove_duplicate=False)}
    moved = {name for name in ids if re.search(pattern, name)}
    faulty = LayerMap({**ids, **dict.fromkeys(moved, wrong % (right.head_layer + 1))}, right.num_layers)
    found = differences(model, faulty, model_type, "sequence")
    assert moved
    assert {line.split(":")[0] for line in found} == moved
