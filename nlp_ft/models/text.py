"""Builds the text classifier of a recipe: a plain Transformers class if one can express it, else `PooledClassifier`."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, get_args

import torch
from transformers import (
    MODEL_MAPPING,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from nlp_ft.defaults import Pooling
from nlp_ft.errors import ModelError, listed
from nlp_ft.models.configs import PooledClassifierConfig
from nlp_ft.models.dropouts import set_dropouts, set_head_dropout
from nlp_ft.models.loading import LoadedModel, renew
from nlp_ft.models.pooled_classifier import PooledClassifier, encoder_auto_class, encoder_options, is_decoder
from nlp_ft.models.pooling import ClsPosition
from nlp_ft.models.sentence_transformers import trained_pooling
from nlp_ft.models.text_source import load, load_config, loading, location, source, structure
from nlp_ft.recipe.text import TextModelSection


def load_tokenizer(
    model: TextModelSection, say: Callable[[str], object] = lambda note: None
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the encoder; that of a decoder pads on the right, with its end token if it has no other.

    Behind the last token of a text, padding changes nothing that a decoder computes for the text.

    Args:
        model: the section `model` of the recipe.
        say: called with one sentence if the end token is taken for padding.

    Raises:
        ModelError: the tokenizer cannot be loaded.
    """
    config = load_config(model)
    with loading(model, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(location(model), **source(model))
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    if is_decoder(config):
        tokenizer.padding_side = "right"
        # Saved only as an argument that the tokenizer was made with; the classes of Llama and Gemma pad on the left.
        tokenizer.init_kwargs["padding_side"] = "right"
        if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
            tokenizer.pad_token = tokenizer.eos_token
            say(f"{model.name} has no padding token; its end token {tokenizer.eos_token} pads, which no text sees")
    return tokenizer


def build_classifier(
    model: TextModelSection,
    label_names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase | None = None,
    pretrained: bool = True,
    say: Callable[[str], object] = lambda note: None,
    auto_class: Any = AutoModelForSequenceClassification,
) -> PreTrainedModel:
    """Build the encoder with pooling and a head for the given labels; the head is new unless `model.keep_head` is set.

    Args:
        model: the section `model` of the recipe.
        label_names: label names in the order of their ids; they are saved in the model's config.
        tokenizer: the encoder's tokenizer, which shows where the CLS token is; None assumes that it comes first.
        pretrained: whether to load the weights; False builds the structure alone, on the default device.
        say: called with one sentence for each kind of weights that is new or not used.
        auto_class: the Auto class of Transformers that has the head; one for other than whole texts pools nothing.

    Raises:
        ModelError: the model cannot be found or loaded, lacks weights, or has no such pooling or head.
    """
    is_of_texts = auto_class is AutoModelForSequenceClassification
    config = load_config(model, auto_class, "sequence classification" if is_of_texts else "token classification")
    if is_of_texts and type(config) in MODEL_MAPPING:
        model = _with_trained_pooling(model, say)
    if model.keep_head:
        _require_same_labels(model, config, label_names)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: i for i, name in enumerate(label_names)}
    config.problem_type = None
    if tokenizer is not None and (is_decoder(config) or getattr(config, "pad_token_id", None) is None):
        # Decoders find the last token of each text by the id that the tokenizer pads with.
        config.get_text_config().pad_token_id = config.pad_token_id = tokenizer.pad_token_id
    set_dropouts(config, model)
    if not is_of_texts or is_plain(model, config):
        return _plain_classifier(auto_class, model, config, pretrained, say)
    return _pooled_classifier(model, config, tokenizer, pretrained, say)


def build_headed(
    auto_class: Any,
    purpose: str,
    model: TextModelSection,
    num_labels: int,
    pretrained: bool = True,
    say: Callable[[str], object] = lambda note: None,
) -> PreTrainedModel:
    """Build the encoder with the head that Transformers has for another purpose than classification.

    Args:
        auto_class: the Auto class of the purpose.
        purpose: the word for it in error messages, such as `question answering`.
        model: the section `model` of the recipe.
        num_labels: number of outputs for each token.
        pretrained: whether to load the weights; False builds the structure alone, on the default device.
        say: called with one sentence for each kind of weights that is new or not used.

    Raises:
        ModelError: the model cannot be found or loaded, or lacks weights, or Transformers has no such head for it.
    """
    config = load_config(model, auto_class, purpose)
    config.num_labels = num_labels
    set_dropouts(config, model)
    return _plain_classifier(auto_class, model, config, pretrained, say, purpose)


def _with_trained_pooling(model: TextModelSection, say: Callable[[str], object]) -> TextModelSection:
    """Replace pooling `auto` by the one that a model of sentence-transformers was trained with."""
    if model.pooling != "auto" or model.keep_head:
        return model
    pooling = trained_pooling(location(model), model.revision or "main")
    if pooling is None:
        return model
    say(f"pooling {pooling}, as {model.name} was trained by sentence-transformers (model.pooling)")
    return model.model_copy(update={"pooling": pooling})


def probed(model: TextModelSection, say: Callable[[str], object]) -> TextModelSection:
    """Settle pooling `auto` for a probe, which reads no pooler: as sentence-transformers trained it, else `mean`."""
    if model.pooling != "auto" or trained_pooling(location(model), model.revision or "main") is not None:
        return model
    say("pooling mean, because a probe reads the tokens themselves (model.pooling)")
    return model.model_copy(update={"pooling": "mean"})


def _plain_classifier(
    auto_class: Any,
    model: TextModelSection,
    config: PreTrainedConfig,
    pretrained: bool,
    say: Callable[[str], object],
    purpose: str = "classification",
) -> PreTrainedModel:
    """Build the model that Transformers has for the architecture, with its head."""
    if not pretrained:
        untrained: PreTrainedModel = structure(auto_class, model, config)
        set_head_dropout(untrained, model)
        return untrained
    loaded = load(auto_class, model, config)
    _settle_head(auto_class, model, config, loaded, say, purpose)
    set_head_dropout(loaded.model, model)
    return loaded.model


def _pooled_classifier(
    model: TextModelSection,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    pretrained: bool,
    say: Callable[[str], object],
) -> PooledClassifier:
    """Build the encoder with the pooling and head of nlp_ft."""
    if type(config) not in MODEL_MAPPING:
        raise ModelError(
            f"model.trust_remote_code: {model.name} comes with its own code, and so with its own pooling and head; "
            "leave model.pooling and model.head.type out"
        )
    pooling = model.pooling
    if pooling == "auto":
        pooling = "cls" if is_decoder(config) else "pooler"
    if pooling == "pooler":
        _require_pooler(model, config)
    auto_class, options = encoder_auto_class(config), encoder_options(config, pooling)
    if pretrained:
        loaded = load(auto_class, model, config, **options)
        _say_weights(loaded, loaded.new, say)
        encoder = loaded.model
    else:
        encoder = structure(auto_class, model, config, **options)
    wrapped = PooledClassifierConfig(
        # A copy, because Transformers would write the attention of the outer model into the encoder's own config.
        encoder_config=deepcopy(config),
        pooling=pooling,
        cls_position=_cls_position(tokenizer, config) if pooling == "cls" else "first",
        head_type=model.head.type,
        bottleneck_size=model.head.bottleneck_size,
        activation=model.head.activation,
        head_dropout=0.1 if model.head.dropout is None else model.head.dropout,
        id2label=config.id2label,
        label2id=config.label2id,
        pad_token_id=getattr(config, "pad_token_id", None),
    )
    return PooledClassifier(wrapped, encoder)


def is_plain(model: TextModelSection, config: PreTrainedConfig) -> bool:
    """Whether a plain Transformers class can express the model: a linear head on the architecture's own pooling."""
    own = model.pooling == "auto" or (model.pooling == "pooler" and config.model_type in ("bert", "albert"))
    return own and model.head.type == "linear"


def _settle_head(
    auto_class: Any,
    model: TextModelSection,
    config: PreTrainedConfig,
    loaded: LoadedModel,
    say: Callable[[str], object],
    purpose: str,
) -> None:
    """Keep the head that came with the weights if `model.keep_head` is set, else initialize it as a new head."""
    prefix = loaded.model.base_model_prefix
    head = [name for name, _ in loaded.model.named_parameters() if not name.startswith(f"{prefix}.")]
    given = [name for name in head if name not in loaded.new]
    if model.keep_head:
        lacking = [name for name in head if name in loaded.new]
        if lacking:
            raise ModelError(f"model.keep_head: the weights of {model.name} hold no {lacking[0]}; leave keep_head out")
        say(f"kept: the head that {model.name} was trained with")
    elif given or loaded.resized:
        renew(loaded.model, structure(auto_class, model, config), given)
        finished = "a finished classifier" if purpose == "classification" else f"a finished model of {purpose}"
        say(f"{model.name} is {finished}; a new head replaces its own (model.keep_head: true keeps it)")
    _say_weights(loaded, [name for name in loaded.new if name not in head], say)


def _say_weights(loaded: LoadedModel, new: Sequence[str], say: Callable[[str], object]) -> None:
    if new:
        say(f"not in the pretrained weights, so random at first: {listed(new, 2)}")
    if loaded.unused:
        say(f"in the pretrained weights, but not used by this model: {listed(loaded.unused, 2)}")


def _require_same_labels(model: TextModelSection, config: PreTrainedConfig, label_names: Sequence[str]) -> None:
    """Check the labels of a kept head: they must be the same in the same order, unless it calls them LABEL_0, ..."""
    if not is_plain(model, config):
        raise ModelError("model.keep_head needs pooling: auto and head.type: linear, the form of the model's own head")
    own = [name for _, name in sorted((config.id2label or {}).items())]
    nameless = own == [f"LABEL_{i}" for i in range(len(own))]
    if len(own) != len(label_names) or not (nameless or own == list(label_names)):
        raise ModelError(
            f"model.keep_head: the head of {model.name} has {len(own)} labels, {', '.join(own[:8])}, but the data have "
            f"{len(label_names)}, {', '.join(label_names[:8])}; list those of the head in data.label_names, in its "
            "order, or leave keep_head out"
        )


def _require_pooler(model: TextModelSection, config: PreTrainedConfig) -> None:
    encoder_class: Any = MODEL_MAPPING[type(config)]
    with loading(model, "config"), torch.device("meta"):
        encoder = encoder_class(config)
    if getattr(encoder, "pooler", None) is None:
        *others, last = [name for name in get_args(Pooling) if name != "pooler"]
        raise ModelError(
            f"model.pooling: {config.model_type} has no pooler; use {', '.join(others)} or {last}"
            + (" with a bottleneck head" if model.pooling == "auto" else "")
        )


def _cls_position(tokenizer: PreTrainedTokenizerBase | None, config: PreTrainedConfig) -> ClsPosition:
    if is_decoder(config):
        return "last"  # the only token that has seen the whole text
    if tokenizer is None:
        return "first"
    ids = tokenizer("a")["input_ids"]
    marks = {tokenizer.cls_token_id, tokenizer.bos_token_id} - {None}
    if ids[0] in marks:
        return "first"
    if ids[-1] in marks:
        return "last"
    raise ModelError("model.pooling: the tokenizer puts no CLS token at either end of a text; use mean or max")
