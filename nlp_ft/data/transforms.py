"""Turns image files into the network's input tensors: always the same for evaluation, augmented for training.

The augmentation of an image depends on (seed, epoch, row) alone, so neither the number of workers nor a resumed run
changes it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from transformers import BitImageProcessor

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.image_files import decode, read_bytes, to_rgb
from nlp_ft.errors import DataError
from nlp_ft.recipe.images import AugmentationSection, ImageDataSection

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE_SIZE = 224
SHARE_SEEN = 0.875
"""Side of the cropped middle over the shorter side of the resized image: 224 of 256, as in torchvision's V1 weights."""
RESAMPLING = {"nearest": 0, "bilinear": 2, "bicubic": 3}
"""torchvision's name of an interpolation -> Pillow's number for it, which an image processor holds."""
MIXING_STREAM = 1
"""Added to the seed of a batch's mixing, so that it differs from the seed of the batch's first row."""

Transform = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input: resize, crop the middle square, normalize.

    Args:
        image_size: side of the network's input, in pixels.
        resize_size: shorter side of the resized image, in pixels.
        mean: mean of each colour, subtracted; colours lie in [0, 1].
        std: standard deviation of each colour, by which the difference is divided.
        interpolation: `nearest`, `bilinear` or `bicubic`.
    """

    image_size: int = IMAGE_SIZE
    resize_size: int = round(IMAGE_SIZE / SHARE_SEEN)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    @classmethod
    def of_recipe(cls, data: ImageDataSection, preset: Any | None) -> "Preprocessing":
        """Take the preprocessing of pretrained weights, with the recipe's settings in place of the preset's.

        Args:
            data: the data section of the recipe.
            preset: torchvision's `ImageClassification` preset of the weights; None takes the defaults of this class.

        Raises:
            DataError: `resize_size` is smaller than `image_size`.
        """
        own = cls() if preset is None else cls._of_preset(preset)
        image_size = data.image_size or own.image_size
        scaled = own.resize_size if image_size == own.image_size else round(image_size / SHARE_SEEN)
        resize_size = data.resize_size or scaled
        if resize_size < image_size:
            raise DataError(f"data.resize_size must be at least {image_size}, data.image_size, got {resize_size}")
        return replace(own, image_size=image_size, resize_size=resize_size)

    @classmethod
    def _of_preset(cls, preset: Any) -> "Preprocessing":
        mean, std = tuple(preset.mean), tuple(preset.std)
        return cls(preset.crop_size[0], preset.resize_size[0], mean, std, preset.interpolation.value)

    @classmethod
    def of_processor(cls, processor: Any) -> "Preprocessing":
        """Take the preprocessing of an image processor that `image_processor` made."""
        words = {number: word for word, number in RESAMPLING.items()}
        return cls(
            int(processor.crop_size["height"]),
            int(processor.size["shortest_edge"]),
            tuple(processor.image_mean),
            tuple(processor.image_std),
            words[int(processor.resample)],
        )

    def image_processor(self) -> BitImageProcessor:
        """Make the equivalent image processor of Transformers, to save beside the model."""
        return BitImageProcessor(
            size={"shortest_edge": self.resize_size},
            crop_size={"height": self.image_size, "width": self.image_size},
            image_mean=list(self.mean),
            image_std=list(self.std),
            resample=RESAMPLING[self.interpolation],
        )


def evaluation_transform(preprocessing: Preprocessing) -> Transform:
    """Make the transform for evaluation: uint8 (3, height, width) -> normalized float (3, image_size, image_size)."""
    resize = v2.Resize(preprocessing.resize_size, InterpolationMode(preprocessing.interpolation), antialias=True)
    return _compose([resize, CropMiddle(preprocessing.image_size), *_normalized(preprocessing)])


def training_transform(preprocessing: Preprocessing, augmentation: AugmentationSection) -> Transform:
    """Make the transform for training: uint8 (3, height, width) -> normalized float (3, image_size, image_size).

    It draws its random numbers from torch's global generator.
    """
    fill = [round(255 * mean) for mean in preprocessing.mean]
    steps: list[Any] = [*_crop(preprocessing, augmentation)]
    if augmentation.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(augmentation.horizontal_flip))
    if augmentation.vertical_flip:
        steps.append(v2.RandomVerticalFlip(augmentation.vertical_flip))
    if augmentation.rotation or augmentation.translation:
        shift = (augmentation.translation, augmentation.translation)
        steps.append(v2.RandomAffine(augmentation.rotation, shift, interpolation=InterpolationMode.BILINEAR, fill=fill))
    if augmentation.rand_augment is not None:
        drawn = augmentation.rand_augment
        steps.append(v2.RandAugment(drawn.num_ops, drawn.magnitude, fill=fill))
    return _compose([*steps, *_normalized(preprocessing)])


class CropMiddle:
    """Crops the middle square of an image that is at least as large as the square.

    An odd border is rounded down, as in the image processors of Transformers; torchvision rounds it to even.

    Args:
        size: side of the square, in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Crop (3, height, width) to (3, size, size)."""
        top, left = ((side - self.size) // 2 for side in image.shape[-2:])
        return image[..., top : top + self.size, left : left + self.size]


def _compose(steps: list[Any]) -> Transform:
    transform: Transform = v2.Compose(steps)
    return transform


def _crop(preprocessing: Preprocessing, augmentation: AugmentationSection) -> list[Any]:
    size, how = preprocessing.image_size, InterpolationMode(preprocessing.interpolation)
    if augmentation.crop == "random_resized":
        return [v2.RandomResizedCrop(size, augmentation.crop_scale, interpolation=how, antialias=True)]
    resize = v2.Resize(preprocessing.resize_size, how, antialias=True)
    if augmentation.crop == "center":
        return [resize, CropMiddle(size)]
    return [resize, v2.RandomCrop(size, augmentation.crop_padding or None)]


def _normalized(preprocessing: Preprocessing) -> list[Any]:
    mean, std = list(preprocessing.mean), list(preprocessing.std)
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]


class ImageCollator:
    """Reads and transforms the images of a batch's rows.

    A batch holds `pixel_values`, (batch, 3, image_size, image_size), `row`, (batch,), and `labels`: label ids,
    (batch,), or with mixup or CutMix the share of each label, (batch, num_labels), which is 0 for a row that only fills
    up the batch.

    Args:
        preprocessing: sizes and normalization.
        augmentation: settings of the augmentation; None for evaluation.
        num_labels: number of labels, for mixup and CutMix.
        seed: the run's seed.
        epoch: number of the epoch, from 0.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        augmentation: AugmentationSection | None = None,
        num_labels: int = 0,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        self.preprocessing, self.augmentation = preprocessing, augmentation
        self.num_labels, self.seed, self.epoch = num_labels, seed, epoch
        if augmentation is None:
            self.transform, self.mixing = evaluation_transform(preprocessing), None
        else:
            self.transform = training_transform(preprocessing, augmentation)
            self.mixing = _mixing(augmentation, num_labels)

    def at_epoch(self, epoch: int) -> "ImageCollator":
        """Return the collator for an epoch, counted from 0."""
        return ImageCollator(self.preprocessing, self.augmentation, self.num_labels, self.seed, epoch)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        before = torch.default_generator.get_state()
        try:
            images = torch.stack([self._transformed(row) for row in rows])
            batch = {"pixel_values": images}
            if "row" in rows[0]:
                batch["row"] = torch.tensor([row["row"] for row in rows])
            if "labels" in rows[0]:
                batch["labels"] = torch.tensor([row["labels"] for row in rows])
                if self.mixing is not None:
                    self._seed(rows[0]["row"], MIXING_STREAM)
                    batch["pixel_values"], batch["labels"] = self._mixed(images, batch["labels"])
        finally:
            torch.default_generator.set_state(before)
        return batch

    def _transformed(self, row: Mapping[str, Any]) -> torch.Tensor:
        if self.augmentation is not None:
            self._seed(row["row"])
        return self.transform(read_pixels(row["image"]))

    def _seed(self, *numbers: int) -> None:
        drawn = np.random.SeedSequence([self.seed, self.epoch, *numbers]).generate_state(1, np.uint64)[0]
        torch.default_generator.manual_seed(int(drawn) >> 1)

    def _mixed(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.mixing is not None
        present = labels != IGNORED_LABEL
        mixed_images, shares = self.mixing(images, labels.clamp(min=0))
        return mixed_images, shares * present.unsqueeze(1)


def pixels(image: Image.Image) -> torch.Tensor:
    """Convert an image to a uint8 RGB tensor, (3, height, width)."""
    tensor: torch.Tensor = v2.functional.pil_to_tensor(to_rgb(image))
    return tensor


def read_pixels(image: Mapping[str, Any]) -> torch.Tensor:
    """Read and decode a row's image into a uint8 RGB tensor, (3, height, width).

    Raises the exceptions of `read_bytes` and `decode`.
    """
    return pixels(decode(read_bytes(image)))


def _mixing(augmentation: AugmentationSection, num_labels: int) -> Any | None:
    drawn = [(v2.MixUp, augmentation.mixup), (v2.CutMix, augmentation.cutmix)]
    chosen = [kind(**{"alpha": alpha, "num_classes": num_labels}) for kind, alpha in drawn if alpha]
    if not chosen:
        return None
    return chosen[0] if len(chosen) == 1 else v2.RandomChoice(chosen)
