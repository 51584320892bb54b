"""Checks a config.json before a model is built, and names the value that no model can have."""

from collections import Counter
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import ACT2FN

from nlp_ft.errors import ModelError

LEAST = {
    "vocab_size": 1,
    "hidden_size": 1,
    "num_hidden_layers": 0,
    "num_attention_heads": 1,
    "intermediate_size": 1,
    "bottleneck_size": 1,
    "image_size": 1,
}
MOST_BLOCKS = 1_000
"""Most blocks of a model; building the modules of a million blocks would take hours."""
DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "local_attention_probs_dropout_prob",
    "lsh_attention_probs_dropout_prob",
    "dropout",
    "dropout_rate",
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "residual_dropout",
    "resid_dropout",
    "resid_pdrop",
    "attn_pdrop",
    "embedding_dropout",
    "embed_dropout",
    "embd_pdrop",
    "emb_pdrop",
    "mlp_dropout",
    "classifier_dropout",
    "classifier_dropout_prob",
    "classifier_dropout_rate",
    "seq_classif_dropout",
    "qa_dropout",
    "summary_first_dropout",
    "summary_last_dropout",
    "pooler_dropout",
    "head_dropout",
)
"""Names in Transformers of the dropouts of text models; layers that are dropped whole are another thing."""
SWITCHES = ("output_hidden_states", "output_attentions", "is_decoder", "tie_word_embeddings")
ACTIVATIONS = ("hidden_act", "activation", "activation_function", "hidden_activation")
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
POSITION_TABLES = ("position_embeddings", "embed_positions", "positions_embed", "wpe")
"""Names in Transformers of an embedding with one row for each position; relative positions have other names."""


POSITIONS_BY_CONFIG = {
    "canine": "max_position_embeddings",
    "ctrl": "max_position_embeddings",
    "gptj": "max_position_embeddings",
    "mpt": "max_seq_len",
    "reformer": "max_position_embeddings",
}
"""Model type -> field of config.json with the number of positions, for families without such an embedding."""


def check_config(config: PreTrainedConfig) -> None:
    """Check the sizes, dropouts, activations and attention of a configuration, and of the encoder's inside it.

    Raises:
        ModelError: a value is impossible; the message names the field, the value and what was expected.
    """
    for name, least in LEAST.items():
        value = getattr(config, name, None)
        # Lists are not checked: some families have one size for each block.
        if isinstance(value, str | float | int) and (type(value) is not int or value < least):
            _refuse(name, value, f"a whole number of at least {least}")
    blocks = getattr(config, "num_hidden_layers", None)
    if isinstance(blocks, int) and blocks > MOST_BLOCKS:
        _refuse("num_hidden_layers", blocks, f"a whole number of at most {MOST_BLOCKS}")
    for name in SWITCHES:
        value = getattr(config, name, None)
        if value is not None and not isinstance(value, bool):
            _refuse(name, value, "true or false")
    for name in DROPOUTS:
        value = getattr(config, name, None)
        if isinstance(value, str | float | int) and (isinstance(value, str | bool) or not 0 <= value <= 1):
            _refuse(name, value, "a number in [0, 1]")
    for name in ACTIVATIONS:
        value = getattr(config, name, None)
        if isinstance(value, str) and value not in ACT2FN:
            _refuse(name, value, f"one of: {', '.join(sorted(ACT2FN))}")
    attention = getattr(config, "_attn_implementation", None)
    # Any other name can be a repository of kernels, and Transformers would download and run its compiled code.
    if isinstance(attention, str) and attention not in ATTENTIONS:
        _refuse("attn_implementation", attention, f"one of: {', '.join(ATTENTIONS)}")
    inner = getattr(config, "encoder_config", None)
    if isinstance(inner, PreTrainedConfig):
        check_config(inner)


def check_labels(config: PreTrainedConfig) -> None:
    """Check the labels of a configuration. Raises: ModelError: `id2label` skips an id, or has a name twice."""
    labels = config.id2label or {}
    missing = sorted(set(range(len(labels))) - labels.keys())
    if missing:
        raise ModelError(
            f"config.json: id2label has {len(labels)} labels but none for the id {missing[0]}; their ids must be 0 to "
            f"{len(labels) - 1}"
        )
    twice = [name for name, count in Counter(labels.values()).items() if count > 1]
    if twice:
        raise ModelError(f"config.json: id2label names {twice[0]!r} twice; each label must have a name of its own")


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Check that a tokenizer fits a model. Raises: ModelError: the embeddings have no row for some of its ids."""
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        return
    # Some models, such as CANINE, do not look ids up in one table.
    if type(table) is not nn.Embedding or table.num_embeddings != getattr(_encoder_config(model), "vocab_size", None):
        return
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= table.num_embeddings:
        raise ModelError(
            f"model.name: the tokenizer gives ids up to {highest} ({token!r}), but the embeddings have "
            f"{table.num_embeddings} rows (vocab_size); are they of the same model? Tokens that were added need "
            "resize_token_embeddings and a save"
        )


def check_max_length(max_length: int, model: PreTrainedModel) -> None:
    """Check `data.max_length`, in tokens. Raises: ModelError: the encoder has fewer positions."""
    usable = usable_positions(model)
    if usable is not None and max_length > usable:
        raise ModelError(
            f"data.max_length must be at most {usable}, the positions of this {_encoder_config(model).model_type} "
            f"model, got {max_length}"
        )


def usable_positions(model: PreTrainedModel) -> int | None:
    """Return the length in tokens of the longest text that an encoder takes; None if it has no limit."""
    config = _encoder_config(model)
    if config.model_type in POSITIONS_BY_CONFIG:
        return int(getattr(config, POSITIONS_BY_CONFIG[config.model_type]))
    found: list[int] = []
    for owner in model.modules():
        table: Any
        for name, table in owner.named_children():
            # By attribute and not by class: I-BERT has its own embedding class.
            if name not in POSITION_TABLES or not hasattr(table, "padding_idx"):
                continue
            # RoBERTa's family counts positions from the row after the padding row, BART's and OPT's from an offset.
            before = 0 if table.padding_idx is None else int(table.padding_idx) + 1
            usable = len(table.weight) - max(before, getattr(table, "offset", 0))
            ids: Any = getattr(owner, "position_ids", None)
            found.append(usable if ids is None else min(usable, ids.shape[-1]))
    return min(found, default=None)


def _encoder_config(model: PreTrainedModel) -> Any:
    return getattr(model.config, "encoder_config", None) or model.config


def _refuse(name: str, value: object, expected: str) -> None:
    raise ModelError(f"config.json: {name} must be {expected}, got {value!r}")
