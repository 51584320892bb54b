"""Builds the image classifier of a recipe: a torchvision network with its weights and a new head."""

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from nlp_ft.errors import ModelError
from nlp_ft.extras import require_torchvision
from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.locations import resolve_location
from nlp_ft.models.configs import ImageClassifierConfig
from nlp_ft.models.image_classifier import ImageClassifier, size_refused
from nlp_ft.recipe.images import ImageModelSection
from nlp_ft.suggest import did_you_mean

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""Prefixes of the auxiliary heads of Inception v3 and GoogLeNet, which are left out."""


def build_image_classifier(
    model: ImageModelSection, label_names: Sequence[str], image_size: int, pretrained: bool = True
) -> ImageClassifier:
    """Build the network with a new head for the given labels.

    Args:
        model: the section `model` of the recipe.
        label_names: label names in the order of their ids; they are saved in the model's config.
        image_size: side of the square images, in pixels.
        pretrained: whether to load the weights; False builds the structure alone, on the default device.

    Raises:
        ModelError: the network or its weights cannot be found or loaded, or it cannot take images of that size.
    """
    check_name(model)
    config = ImageClassifierConfig(
        backbone=model.name,
        image_size=image_size,
        head_type=model.head.type,
        bottleneck_size=model.head.bottleneck_size,
        activation=model.head.activation,
        head_dropout=model.head.dropout,
        id2label=dict(enumerate(label_names)),
        label2id={name: i for i, name in enumerate(label_names)},
    )
    classifier = ImageClassifier(config)
    if pretrained:
        tensors = read_weights(model)
        if tensors is not None:
            load_weights(classifier, tensors, f"model.weights: {model.weights}")
        check_image_size(classifier)
    return classifier


def check_name(model: ImageModelSection) -> None:
    """Check `model.name`. Raises: ModelError: torchvision has no classification model of that name."""
    models = require_torchvision(ModelError, "torchvision.models")
    names = models.list_models(module=models)
    if model.name not in names:
        near = did_you_mean(model.name, names) or f"; there are: {', '.join(names)}"
        raise ModelError(f"model.name: {model.name} is not a classification model of torchvision{near}")


def weights_entry(model: ImageModelSection) -> Any | None:
    """Find the entry of torchvision's weights (a `WeightsEnum`); None for a file or random weights.

    Raises:
        ModelError: torchvision has no such weights for the network.
    """
    check_name(model)
    if model.weights is None or _is_file(model.weights):
        return None
    entries = require_torchvision(ModelError, "torchvision.models").get_model_weights(model.name).__members__
    if model.weights not in entries:
        names = sorted(entries)
        near = did_you_mean(model.weights.upper(), names) or f"; there are: {', '.join(names)}"
        raise ModelError(f"model.weights: {model.name} has no weights {model.weights} (nor is it a file){near}")
    return entries[model.weights]


def read_weights(model: ImageModelSection) -> dict[str, torch.Tensor] | None:
    """Read the weights as torchvision's names -> tensors; None for random weights.

    A file of the user is never unpickled. Files of torchvision are, by a reader that can create nothing but tensors.

    Raises:
        ModelError: the weights cannot be found, downloaded or read.
    """
    entry = weights_entry(model)
    if entry is not None:
        return _download(entry)
    if model.weights is None:
        return None
    file = Path(resolve_location(model.weights, ModelError))
    if file.suffix in PICKLED:
        raise ModelError(
            f"model.weights: {file} is a pickle, which can run code and is not read; save it as safetensors: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors')"
        )
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ModelError(f"model.weights: {file} cannot be read as safetensors: {reason}") from None


def load_weights(classifier: ImageClassifier, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Copy the tensors into the network, except those of its last layer, which is new.

    Args:
        classifier: the classifier to change in place.
        tensors: torchvision's name -> tensor.
        where: the beginning of the error message, which names the weights.

    Raises:
        ModelError: the tensors belong to another network.
    """
    head = f"{classifier.head_name}."
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith((head, *AUXILIARY))}
    own = {name: tensor for name, tensor in classifier.backbone.state_dict().items() if not name.startswith(head)}
    # Files from before 2018 lack these counters; only a BatchNorm without momentum reads them.
    wanted = {name for name in own if not name.endswith("num_batches_tracked")}
    different = [name for name in own if name in given and own[name].shape != given[name].shape]
    different += sorted((wanted - given.keys()) | (given.keys() - own.keys()))
    if different:
        first = different[0]
        shapes = [tuple(of[first].shape) if first in of else "nothing" for of in (given, own)]
        raise ModelError(
            f"{where} does not fit {classifier.config.backbone}: {first} and {len(different) - 1} more differ "
            f"(the file has {shapes[0]}, the network {shapes[1]})"
        )
    with torch.no_grad():
        for name in own.keys() & given.keys():
            own[name].copy_(given[name])


def check_image_size(classifier: ImageClassifier) -> None:
    """Check the image size by a forward pass. Raises: ModelError: the network cannot take such images."""
    size = classifier.config.image_size
    try:
        with evaluating(classifier):
            classifier(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise size_refused(classifier.config, error) from None


def _is_file(weights: str) -> bool:
    return Path(weights).suffix in (".safetensors", *PICKLED) or "/" in weights or Path(weights).exists()


def _download(entry: Any) -> dict[str, torch.Tensor]:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    try:
        tensors: dict[str, torch.Tensor] = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0][:200] or type(error).__name__
        raise ModelError(
            f"model.weights: {entry} cannot be downloaded from {entry.url}: {reason}; put the file at {file}, or name "
            "a safetensors file"
        ) from None
    # DenseNet's files are older than the rule that a module's name has no dot.
    return {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", name): t for name, t in tensors.items()}
