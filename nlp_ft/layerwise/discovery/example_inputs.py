"""Makes up small inputs for a forward pass of a model, from its configuration and its modules."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def example_inputs(model: nn.Module) -> Iterator[Any]:
    """Yield small inputs that a model may take, the likeliest first: token ids, images, or both.

    An input is a dict of keyword arguments, or one tensor.
    """
    config = getattr(model, "config", None)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    main = getattr(model, "main_input_name", None)
    if main is None:
        yield from _texts_around_an_encoder(model, device)
        yield from _images(model, device)
    elif main == "pixel_values":
        for images in _images(model, device):
            yield {"pixel_values": images}
    else:
        ids = _token_ids(config, device)
        yield {main: ids}
        if main == "input_ids":
            # A model of multiple choice takes (batch, candidates, seq_len).
            yield {"input_ids": ids[None]}
            yield {"input_ids": ids, "decoder_input_ids": ids}
            for images in _images(model, device):
                yield {"input_ids": ids, "pixel_values": images}


def _texts_around_an_encoder(model: nn.Module, device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
    """Yield token ids for a module that is not of Transformers but takes `input_ids`, for an encoder inside it."""
    encoder = next((part for part in model.modules() if getattr(part, "main_input_name", None) == "input_ids"), None)
    if encoder is None:
        return
    ids = _token_ids(getattr(encoder, "config", None), device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    names = inspect.signature(model.forward).parameters
    if "input_ids" in names:
        yield {name: values for name, values in inputs.items() if name in names}


def _token_ids(config: Any, device: torch.device, seq_len: int = 16) -> torch.Tensor:
    """Make token ids, (1, seq_len), distinct if the vocabulary allows, with the end token last (BART looks for it)."""
    text = _text_config(config)
    size = text.vocab_size if text is not None else 64
    ids = [4 + position % (size - 4) if size > 8 else 1 for position in range(seq_len)]
    end = getattr(text, "eos_token_id", None)
    if isinstance(end, int) and 0 <= end < size:
        ids = [token if token != end else max(token - 1, 0) for token in ids[:-1]] + [end]
    return torch.tensor([ids], device=device)


def _text_config(config: Any) -> Any:
    """Find the part of a config that has a vocabulary: of the text encoder, or of an encoder in a larger model."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    parts = [text, *vars(text).values()] if text is not None else []
    return next((part for part in parts if getattr(part, "vocab_size", None)), None)


def _images(model: nn.Module, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield images, (2, channels, height, width), with different height and width if the model allows."""
    convolution = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if convolution is None:
        return
    config = getattr(model, "config", None)
    vision = [getattr(config, "vision_config", config), *model.modules()]
    own = next((size for part in vision for size in [_image_size(part)] if size), None)
    sizes = [own] if own else [(64, 96), (224, 224), (299, 299)]
    for height, width in sizes:
        yield torch.zeros(2, convolution.in_channels, height, width, device=device, dtype=convolution.weight.dtype)


def _image_size(part: Any) -> tuple[int, int] | None:
    """Return the height and width of images in a config or in timm's patch embedding; None if it names no size."""
    size = getattr(part, "image_size", None) or getattr(part, "img_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if isinstance(size, (tuple, list)) and len(size) == 2 else None
