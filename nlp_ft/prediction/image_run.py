"""A trained image classifier, which predicts labels for image files, folders or Pillow images."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageClassification

import nlp_ft.models.image_classifier  # noqa: F401  # registers the class of the run folder
from nlp_ft.data.image_files import UNREADABLE, ZIP_MARK, is_image_place, list_images, name_of, reason, refuse_fractions
from nlp_ft.data.image_sources import load_image_places
from nlp_ft.data.images import ImageData, encode_image_split, load_image_data
from nlp_ft.data.row_files import Rows
from nlp_ft.data.sources import expand
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.streaming import stream_lines
from nlp_ft.data.transforms import ImageCollator, Preprocessing, evaluation_transform, pixels, read_pixels
from nlp_ft.errors import DataError
from nlp_ft.models.labels import label_names
from nlp_ft.prediction.trained_run import Source, TrainedRun, chunked, damage_named, load_whole
from nlp_ft.recipe import ImageRecipe

BATCH_SIZE = 64


class ImageRun(TrainedRun):
    """A trained run that reads images. See `TrainedRun`. Raises: RunFolderError: model or processor are damaged."""

    input_name = "image"

    def __init__(self, folder: Path, recipe: ImageRecipe, trust_remote_code: bool = False) -> None:
        self.folder = folder
        self.recipe: ImageRecipe = recipe
        with damage_named(folder, "model"):
            self.model = load_whole(AutoModelForImageClassification, folder, trust_remote_code)
        with damage_named(folder, "image processor"):
            processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
            self.preprocessing = Preprocessing.of_processor(processor)
        self.transform = evaluation_transform(self.preprocessing)

    def is_single(self, inputs: Any) -> bool:
        """Whether this is an image file or a Pillow image."""
        return isinstance(inputs, str | Path | Image.Image)

    def activated(
        self, inputs: Sequence[str | Path | Image.Image], done: Callable[[int], object] = lambda count: None
    ) -> np.ndarray:
        """Predict for image files or Pillow images, resized as in the run's evaluation. See `TrainedRun.activated`."""
        computed = []
        with self.computing() as compute:
            for start in range(0, len(inputs), BATCH_SIZE):
                batch = torch.stack([self._pixel_values(item) for item in inputs[start : start + BATCH_SIZE]])
                computed.append(compute({"pixel_values": batch}))
                done(len(batch))
        found: np.ndarray = self.outputs.activate(torch.cat(computed)).cpu().numpy()
        return found

    def read(self, source: Source) -> Iterator[tuple[Sequence[str], Rows]]:
        """List the image files, and all images in folders and zip files. Raises: DataError."""
        if source.file:
            raise DataError("--file is for texts; name image files, folders or zip files after the run")
        groups = [source.words] if source.lines is None else stream_lines(source.lines, "standard input")
        for places in groups:
            for images in chunked(_images(places)):
                yield images, pyarrow.table({self.input_name: [self.shown(image) for image in images]})

    def content_of(self, source: Source) -> str:
        """Hash the names and sizes of the images, or of the zip files they are in: their bytes may be many. See above.

        Raises:
            DataError: it is standard input, or not there.
        """
        images = [] if source.lines is not None else _images(source.words)
        return super().content_of(
            replace(source, words=[f"{self.shown(image)} {os.path.getsize(_file(image))}" for image in images])
        )

    def expected_inputs(self, source: Source) -> int | None:
        """Count the images among the words and in their folders and zip files. Raises: DataError."""
        return len(_images(source.words)) if source.lines is None else None

    def shown(self, item: str | Path | Image.Image) -> str:
        """Return the name of the file."""
        return name_of({"bytes": None, "path": str(item)}, 0)

    def labelled(self, data: str | list[str] | None, split: str) -> ImageData:
        """Read labelled images. Raises: DataError."""
        section = self.recipe.data
        if data is None:
            return load_image_data(section, self.recipe.seed)
        with progress_bars(False):
            rows = load_image_places(data, "--data", section)
        return encode_image_split(rows, split, f"--data ({data})", section, label_names(self.model))

    def collator(self) -> ImageCollator:
        """Make the collator that decodes and transforms images as the saved image processor does."""
        return ImageCollator(self.preprocessing)

    def _pixel_values(self, item: str | Path | Image.Image) -> torch.Tensor:
        if not isinstance(item, str | Path | Image.Image):
            raise DataError(f"predict: an image must be a file or a Pillow image, got {type(item).__name__}")
        image = {"bytes": None, "path": str(item)}
        try:
            if isinstance(item, Image.Image):
                refuse_fractions(item)
                return self.transform(pixels(ImageOps.exif_transpose(item)))
            return self.transform(read_pixels(image))
        except UNREADABLE as error:
            name = "a Pillow image" if isinstance(item, Image.Image) else name_of(image, 0)
            raise DataError(f"predict: {name} cannot be read: {reason(error)}") from None


def _file(image: str) -> str:
    """Return the file of an image, or the zip file that it is in."""
    return image.rpartition(ZIP_MARK)[2]


def _images(places: Sequence[str]) -> list[str]:
    found: list[str] = []
    for place in expand(places, "predict", may_repeat=True):
        images = list(list_images(place, "predict").values()) if is_image_place(place) else [place]
        if not images:
            raise DataError(f"predict: {place} holds no image")
        found += images
    return found
