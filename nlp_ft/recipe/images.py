"""The sections of a recipe for image classification: the images, what training does to them, and the network."""

from typing import Literal, Self

from pydantic import Field, model_validator

from nlp_ft.recipe.sections import DataSection, HeadSection, ModelSection, Section
from nlp_ft.recipe.values import Paths, Place, Real, Text, Whole


class RandAugmentSection(Section):
    """RandAugment: operations drawn from a fixed list (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719)."""

    num_ops: Whole = Field(2, ge=1, le=100, description="Number of operations for each image, one after the other.")
    magnitude: Whole = Field(9, ge=0, le=30, description="Strength of each operation, from 0 to 30.")


class AugmentationSection(Section):
    """Random changes to training images, drawn anew for each image in each epoch; evaluation makes none."""

    crop: Literal["random_resized", "random", "center"] = Field(
        "random_resized",
        description="Which part of the image the network sees. `random_resized`: a part of random size and shape, "
        "scaled to `image_size`. `random`: a square of `image_size` at a random place of the resized image. `center`: "
        "the middle of the resized image, as in evaluation.",
    )
    crop_scale: tuple[Real, Real] = Field(
        (0.35, 1.0),
        description="Smallest and largest area of a `random_resized` crop, as shares of the image's area, above 0 and "
        "at most 1.",
    )
    crop_padding: Whole = Field(
        0, ge=0, le=4096, description="Width of a black border around the image before a `random` crop, in pixels."
    )
    horizontal_flip: Real = Field(0.5, ge=0, le=1, description="Probability of a left-right flip, from 0 to 1.")
    vertical_flip: Real = Field(0.0, ge=0, le=1, description="Probability of a top-bottom flip, from 0 to 1.")
    rotation: Real = Field(
        0.0, ge=0, le=180, description="Largest random rotation to either side, in degrees; 0 for none."
    )
    translation: Real = Field(
        0.0,
        ge=0,
        lt=1,
        description="Largest random shift in each direction, as a share of the side, from 0 (none) to below 1.",
    )
    rand_augment: RandAugmentSection | None = Field(
        None, description="RandAugment; `{}` turns it on with its defaults, null leaves it out."
    )
    mixup: Real = Field(
        0.0,
        ge=0,
        lt=100,
        description="Alpha of mixup, which blends pairs of images and their labels (Zhang et al. 2018, "
        "https://arxiv.org/abs/1710.09412). 0 turns it off; 0.2 is common.",
    )
    cutmix: Real = Field(
        0.0,
        ge=0,
        lt=100,
        description="Alpha of CutMix, which pastes a part of one image into another (Yun et al. 2019, "
        "https://arxiv.org/abs/1905.04899). 0 turns it off; 1 is common. If mixup is on too, each batch draws one of "
        "the two.",
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
    """Where the images and labels come from, and how they become the network's input."""

    source: Paths | None = Field(
        None,
        description="One place that holds all splits: a folder or zip file in which each split is a folder of class "
        "folders, a saved dataset folder, or a Hub id. `train`, `validation` and `test` then name its splits. Null: "
        "they name places themselves.",
    )
    train: Paths = Field(
        "train",
        description="Training images: folder(s) or zip file(s) with a sub-folder of images for each class, Parquet "
        "file(s) or globs with embedded images, or saved dataset folders. Paths are relative to the folder in which "
        "the command runs. With `source`: the name of a split.",
    )
    image: Text = Field("image", description="Name of the column with the image, in Parquet files and data sets.")
    image_size: Whole | None = Field(
        None,
        ge=8,
        le=4096,
        description="Side of the square image that the network sees, in pixels; null uses the size of the pretrained "
        "weights, or 224 without weights.",
    )
    resize_size: Whole | None = Field(
        None,
        ge=8,
        le=8192,
        description="Length to which the shorter side of an image is resized before its middle is cut out, in pixels. "
        "Null uses that of the pretrained weights, or `image_size` / 0.875 where `image_size` is not theirs.",
    )
    augmentation: AugmentationSection = Field(
        AugmentationSection(), description="Random changes to training images; evaluation makes none."
    )
    num_workers: Whole | None = Field(
        None,
        ge=0,
        le=1024,
        description="Processes that read and transform images; 0 does it in the main process. Null uses one for each "
        "core, at most 8, with a GPU or another accelerator, and 0 without. The trained weights do not depend on it.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.resize_size and self.image_size and self.resize_size < self.image_size:
            raise ValueError(f"resize_size must be at least image_size {self.image_size}, got {self.resize_size}")
        return self


class ImageHeadSection(HeadSection):
    """The new last layer of the network, or the bottleneck that takes its place."""

    bottleneck_size: Whole = Field(
        512, ge=1, le=65_536, description="Number of hidden units of a `bottleneck` head; `linear` has none."
    )
    dropout: Real | None = Field(
        None,
        ge=0,
        lt=1,
        description="Dropout probability before the last layer, from 0 to below 1; null uses 0.5 in a bottleneck, else "
        "the network's own value.",
    )


class ImageModelSection(ModelSection):
    """The torchvision network, its weights and its head."""

    name: Place = Field(description="Name of a classification network of torchvision, such as resnet50.")
    weights: Place | None = Field(
        "DEFAULT",
        description="Pretrained weights: `DEFAULT` or another name that torchvision has for them, such as "
        "`IMAGENET1K_V2` (downloaded once); or a safetensors file of the same network, such as "
        "`runs/NAME/model.safetensors`. Null begins with random weights.",
    )
    head: ImageHeadSection = Field(ImageHeadSection(), description="The task layers.")
