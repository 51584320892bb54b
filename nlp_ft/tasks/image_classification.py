"""Image classification: one of several labels for each image, with a torchvision network."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from nlp_ft.data.columns import content_of, fingerprint
from nlp_ft.data.image_report import describe_images, format_image_report
from nlp_ft.data.image_sources import load_raw_images
from nlp_ft.data.images import ImageData, load_image_data
from nlp_ft.data.labels import find_labels, label_counts
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.transforms import ImageCollator, Preprocessing
from nlp_ft.data.workers import available_cores
from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.layer_map import Rule
from nlp_ft.models.labels import label_names
from nlp_ft.models.vision import build_image_classifier, weights_entry
from nlp_ft.recipe import ImageRecipe
from nlp_ft.recipe.probe_notes import probe_notes
from nlp_ft.tasks.baselines import Scores, held_out, score_majority
from nlp_ft.tasks.classes import Classification
from nlp_ft.tasks.task import Card, map_layers

MOST_WORKERS = 8


class ImageClassification(Classification):
    """Learns a label for each image. See `Task`."""

    recipe: ImageRecipe

    # BatchNorm cannot compute statistics from a last batch of one image, and computes bad ones from a few.
    inputs = "images"
    drop_last = True
    example_input = "image.jpg"
    libraries: tuple[str, ...] = ("torchvision", "pillow")
    group_by_length = False
    tokenizer = None

    def __init__(self, recipe: ImageRecipe) -> None:
        self.recipe = recipe

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Size and normalization of images: those of the weights, unless the recipe sets others. Raises: NlpFtError."""
        entry = weights_entry(self.recipe.model)
        return Preprocessing.of_recipe(self.recipe.data, None if entry is None else entry.transforms())

    @cached_property
    def data(self) -> ImageData:
        """The splits; every image in them can be decoded. Raises: DataError."""
        return load_image_data(self.recipe.data, self.recipe.seed)

    @property
    def notes(self) -> list[str]:
        """Remarks on size and normalization, where they come from, and auxiliary heads that are left out."""
        model, p = self.recipe.model, self.preprocessing
        of_weights = weights_entry(model) is not None
        source = f"of {model.name} {model.weights}" if of_weights else "of ImageNet (the weights name none)"
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (p.mean, p.std))
        notes = [
            f"images of {p.image_size} x {p.image_size} pixels, for evaluation the middle of the image resized to "
            f"{p.resize_size}; normalization {source}: mean {mean}, deviation {std}",
        ]
        if model.name in ("googlenet", "inception_v3"):
            notes.append(f"the auxiliary heads of {model.name} are left out")
        return notes + probe_notes(self.recipe)

    @property
    def num_workers(self) -> int:
        """Number of worker processes: that of the recipe, or one for each core if an accelerator would wait."""
        if self.recipe.data.num_workers is not None:
            return self.recipe.data.num_workers
        return min(MOST_WORKERS, available_cores()) if torch.accelerator.is_available() else 0

    def label_counts(self) -> dict[str, int]:
        """Count the rows of train for each label; images that cannot be decoded are found on the way."""
        return label_counts(self.data.labels("train"), self.data.label_names)

    def label_names(self) -> list[str]:
        """Read the labels of the listed images; none is decoded."""
        with progress_bars(False):
            raw = load_raw_images(self.recipe.data)
            return list(find_labels(raw, self.recipe.data.label, self.recipe.data.label_names).values())

    def build_model(self, label_names: Sequence[str], pretrained: bool = True) -> PreTrainedModel:
        """Build the network with a new last layer. Raises: NlpFtError."""
        model = self.recipe.model
        if self.recipe.strategy.name == "scratch":
            model = model.model_copy(update={"weights": None})
        return build_image_classifier(model, label_names, self.preprocessing.image_size, pretrained)

    def map_layers(self, model: PreTrainedModel) -> LayerMap:
        """Map stem, blocks or stages, and head. Raises: LayerMapError."""
        size = self.preprocessing.image_size
        example = {"pixel_values": torch.zeros(1, 3, size, size, device=model.device)}
        # Without the rule, a bottleneck head of convolutions (SqueezeNet) would look like a part of the last stage.
        head: Rule = (rf"(^|\.)backbone\.{re.escape(str(model.head_name))}\.", "head")
        return map_layers(self.recipe, model, [head], example)

    def hidden_size(self, model: PreTrainedModel) -> int | None:
        """Return None: an image network has another width in each stage."""
        return None

    def collator(self, training: bool) -> ImageCollator:
        """Make the collator that decodes and transforms images, with augmentation if `training`."""
        augmentation = self.recipe.data.augmentation if training else None
        return ImageCollator(self.preprocessing, augmentation, len(self.data.label_names), self.recipe.seed)

    def describe_data(self) -> dict[str, Any]:
        """Describe rows, labels, sizes, modes and odd images of each split."""
        return describe_images(self.data)

    def format_report(self, report: dict[str, Any]) -> str:
        """Write the data report as tables."""
        return format_image_report(report)

    def identity(self) -> dict[str, str]:
        """Fingerprint the pixels and labels of each split, and the way from image to input."""
        found = {"size and normalization of the images": content_of(self.preprocessing)}
        for split, encoded in self.data.encoded.items():
            found[f"images of {split}"] = fingerprint(encoded, "image_hash")
            found[f"labels of {split}"] = fingerprint(encoded, "labels")
        return found

    def score_baselines(self) -> Scores:
        """Score the majority label."""
        labels = {split: self.data.labels(split) for split in held_out(self.data.encoded)}
        return score_majority(self.data.labels("train"), labels)

    def save_preprocessor(self, folder: Path) -> None:
        """Save an image processor of Transformers that transforms images as evaluation did."""
        self.preprocessing.image_processor().save_pretrained(folder)

    def card(self, model: PreTrainedModel) -> Card:
        """Describe the model for the model card."""
        model_of = self.recipe.model
        origin = f"{model_of.name} ({model_of.weights or 'random weights'})"
        return Card(
            f"Image classifier fine-tuned from {origin}",
            "image-classification",
            True,
            '"image.jpg"',
            label_names(model),
        )
