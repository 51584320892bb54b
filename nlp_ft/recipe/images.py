"""The sections of a recipe for image classification: the images, what training does to them, and the network."""

from typing import Literal, Self

from pydantic import Field, model_validator

from nlp_ft.recipe.sections import DataSection, HeadSection, ModelSection, Section
from nlp_ft.recipe.values import Paths, Place, Real, Text, Whole


class RandAugmentSection(Section):
    """RandAugment: operations drawn from a fixed list (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719)."""

    num_ops: Whole = Field(2, ge=1, le=100, description="Operations for each image, one after the other.")
    magnitude: Whole = Field(9, ge=0, le=30, description="Strength of each operation, 0 to 30.")


class AugmentationSection(Section):
    """What is done to training images, drawn anew for each image in each epoch; evaluation never does it."""

    crop: Literal["random_resized", "random", "center"] = Field(
        "random_resized",
        description="`random_resized`: a part of random size and shape, scaled to `image_size`; `random`: a part of "
        "`image_size` at a random place of the resized image; `center`: its middle, as in evaluation.",
    )
    crop_scale: tuple[Real, Real] = Field(
        (0.35, 1.0), description="Smallest and largest part of `random_resized`, as shares of the image's area."
    )
    crop_padding: Whole = Field(0, ge=0, le=4096, description="Pixels of black border before a `random` crop.")
    horizontal_flip: Real = Field(0.5, ge=0, le=1, description="Probability of a flip from left to right, 0 to 1.")
    vertical_flip: Real = Field(0.0, ge=0, le=1, description="Probability of a flip from top to bottom, 0 to 1.")
    rotation: Real = Field(0.0, ge=0, le=180, description="Largest rotation to either side, in degrees.")
    translation: Real = Field(0.0, ge=0, lt=1, description="Largest shift to each side, as a share of the side.")
    rand_augment: RandAugmentSection | None = Field(None, description="Null: none. `{}` takes the defaults.")
    mixup: Real = Field(
        0.0,
        ge=0,
        lt=100,
        description="Alpha of mixup, which blends pairs of images and labels (Zhang et al. 2018, "
        "https://arxiv.org/abs/1710.09412); 0 is none, 0.2 is common.",
    )
    cutmix: Real = Field(
        0.0,
        ge=0,
        lt=100,
        description="Alpha of CutMix, which pastes a part of another image (Yun et al. 2019, "
        "https://arxiv.org/abs/1905.04899); 0 is none, 1 is common. With mixup, each batch draws one of the two.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale must be two shares in (0, 1], the smaller first, got {[low, high]}")
        if self.crop_padding and self.crop != "random":
            raise ValueError(f"crop_padding is a setting of crop: random, not of {self.crop}")
        return self


class ImageDataSection(DataSection):
    """Where the images and labels come from, and how large they are made."""

    source: Paths | None = Field(
        None,
        description="One place that holds all splits: a folder or zip file of split folders with class folders in "
        "them, a saved dataset folder, or a Hub id. With it, `train`, `validation` and `test` are names of splits.",
    )
    train: Paths = Field(
        "train",
        description="Folder(s) or zip file(s) with a sub-folder of images for each class, Parquet file(s) or globs "
        "with embedded images, or saved dataset folders; relative to the folder the command runs in. With `source`: "
        "a split.",
    )
    image: Text = Field("image", description="Column with the image, of Parquet files and data sets.")
    image_size: Whole | None = Field(
        None,
        ge=8,
        le=4096,
        description="Side of the square that the network sees, in pixels; null: the weights' own, else 224.",
    )
    resize_size: Whole | None = Field(
        None,
        ge=8,
        le=8192,
        description="Shorter side of an image before the middle is cut out for evaluation, in pixels; null: the "
        "weights' own with their own `image_size`, else `image_size` / 0.875.",
    )
    augmentation: AugmentationSection = Field(AugmentationSection(), description="What is done to training images.")
    num_workers: Whole | None = Field(
        None,
        ge=0,
        le=1024,
        description="Processes that read and transform images; null: 8 or as many as there are cores with an "
        "accelerator, else none. The result does not depend on it.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.resize_size and self.image_size and self.resize_size < self.image_size:
            raise ValueError(f"resize_size must be at least image_size {self.image_size}, got {self.resize_size}")
        return self


class ImageHeadSection(HeadSection):
    """The new last layer, or the bottleneck that takes its place."""

    bottleneck_size: Whole = Field(
        512, ge=1, le=65_536, description="Units of the hidden layer of a `bottleneck` head."
    )
    dropout: Real | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of units dropped before the last layer, 0 to 1; null: 0.5 in a bottleneck, else the "
        "network's own.",
    )


class ImageModelSection(ModelSection):
    """The torchvision network, its weights and its head."""

    name: Place = Field(description="Name of a classification model of torchvision, such as resnet50.")
    weights: Place | None = Field(
        "DEFAULT",
        description="`DEFAULT` or a named entry of torchvision such as `IMAGENET1K_V2` (downloaded once), a "
        "safetensors file of the same network such as `runs/NAME/model.safetensors`, or null to begin at random.",
    )
    head: ImageHeadSection = Field(ImageHeadSection(), description="The task layers.")
