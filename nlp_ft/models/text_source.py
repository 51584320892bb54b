"""Finds and loads what a text model consists of: its folder or Hub id, config, structure and weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
)

from nlp_ft.errors import ModelError
from nlp_ft.hub import place_of_model
from nlp_ft.locations import resolve_location
from nlp_ft.models.config_checks import check_config
from nlp_ft.models.configs import PooledClassifierConfig
from nlp_ft.models.loading import LoadedModel, load_pretrained, quiet_transformers, reason_of
from nlp_ft.recipe.text import TextModelSection

HEADS: tuple[Any, ...] = (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoModelForQuestionAnswering,
    AutoModelForMultipleChoice,
)
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


def require_model_files(folder: Path) -> None:
    """Check the files of a model folder: without a vocabulary, Transformers would make a tokenizer that knows no word.

    Raises:
        ModelError: config.json or every tokenizer file is missing.
    """
    if not (folder / "config.json").exists():
        raise ModelError("it has no config.json")
    if not any(any(folder.glob(name)) for name in TOKENIZER_FILES):
        raise ModelError(f"it has no tokenizer, none of: {', '.join(TOKENIZER_FILES)}")


def load_config(
    model: TextModelSection, auto_class: Any | None = None, purpose: str = "the tasks of texts"
) -> PreTrainedConfig:
    """Load the config of the encoder.

    Args:
        model: the section `model` of the recipe.
        auto_class: the Auto class that must have a head for it; None asks for any head.
        purpose: the word for the head in error messages.

    Raises:
        ModelError: it cannot be loaded, or has no such head.
    """
    place = location(model)
    with loading(model, "config"):
        if Path(place).is_dir():
            require_model_files(Path(place))
        elif Path(place).exists():
            raise ModelError("it is a file, not a folder")
        config = AutoConfig.from_pretrained(place, **source(model))
        check_config(config)
    if isinstance(config, PooledClassifierConfig):
        raise ModelError(f"model.name: {model.name} is a finished classifier of nlp_ft; name the encoder it came from")
    classes = HEADS if auto_class is None else (auto_class,)
    if not any(type(config) in one._model_mapping or has_own_code(model, config, one) for one in classes):
        raise ModelError(f"model.name: {model.name} ({config.model_type}) is not an encoder for {purpose}")
    assert isinstance(config, PreTrainedConfig)
    return config


def has_own_code(model: TextModelSection, config: PreTrainedConfig, auto_class: Any) -> bool:
    """Whether the class that an Auto class would build is Python code that comes with the model, and may run."""
    return model.trust_remote_code and auto_class.__name__ in (getattr(config, "auto_map", None) or {})


def structure(auto_class: Any, model: TextModelSection, config: PreTrainedConfig, **options: Any) -> Any:
    """Build the model with random weights. Raises: ModelError."""
    with loading(model, "config"):
        return auto_class.from_config(config, trust_remote_code=model.trust_remote_code, **options)


def load(auto_class: Any, model: TextModelSection, config: PreTrainedConfig, **options: Any) -> LoadedModel:
    """Load the model with its weights. Raises: ModelError."""
    with loading(model, "weights"):
        return load_pretrained(auto_class, location(model), config, may_lack_head=True, **source(model), **options)


def location(model: TextModelSection) -> str:
    """Return the folder of the model, or its Hub id."""
    return place_of_model(resolve_location(model.name, ModelError), model.revision)


def source(model: TextModelSection) -> dict[str, Any]:
    """Return the arguments of every `from_pretrained`."""
    return {"revision": model.revision or "main", "trust_remote_code": model.trust_remote_code}


@contextmanager
def loading(model: TextModelSection, what: str) -> Iterator[None]:
    """Turn the many ways in which loading a model fails into one clear error. Raises: ModelError."""
    try:
        with quiet_transformers():
            yield
    except Exception as error:  # each library raises what it likes, tokenizers bare exceptions
        reason = reason_of(error)
        if isinstance(error, ModelError):
            raise ModelError(f"model.name: {model.name}: its {what} cannot be used: {reason}") from None
        raise ModelError(
            f"model.name: {model.name}: its {what} cannot be loaded: {reason} (expected a folder with "
            "config.json, tokenizer and safetensors weights, a Hub id, or package:NAME/PATH)"
        ) from None
