"""Image files in folders and zip files: which there are, their bytes, and their pixels. Nothing is unpacked."""

import io
import os
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nlp_ft.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
ZIP_MARK = "::"
"""Between the name inside a zip file and the file, as in `zip://rose/1.jpg::flowers.zip` (the form of `datasets`)."""
UNREADABLE = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
    zipfile.BadZipFile,
)
"""What Pillow raises on files that are no whole images."""


def list_images(place: str, field: str) -> dict[str, str]:
    """Path inside of a folder or zip file -> reference for `read_bytes`, for every image, sorted.

    Raises:
        DataError: it is neither, or the zip file is damaged, locked, or has names that lead out of it.
    """
    if Path(place).is_dir():
        found = _list_folder(Path(place))
    else:
        found = _list_zip(place, field)
    return {name: found[name] for name in sorted(found) if _is_image(name)}


def is_image_place(place: str) -> bool:
    """Whether it is a zip file, or a folder that no `Dataset.save_to_disk` wrote."""
    folder = Path(place)
    saved = any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))
    return (folder.is_dir() and not saved) or zipfile.is_zipfile(place) or folder.suffix.lower() == ".zip"


def read_bytes(image: Mapping[str, Any]) -> bytes:
    """The file's bytes of a row's image, `{"bytes": ..., "path": ...}` as `datasets` gives it undecoded.

    Raises:
        OSError, zipfile.BadZipFile: it cannot be read.
    """
    if image["bytes"] is not None:
        content: bytes = image["bytes"]
        return content
    path: str = image["path"]
    if ZIP_MARK in path:
        name, archive = path.removeprefix("zip://").split(ZIP_MARK, 1)
        return _archive(archive, os.getpid()).read(name)
    return Path(path).read_bytes()


def decode(content: bytes) -> Image.Image:
    """The image as a person sees it: upright, its first frame.

    Raises:
        OSError, SyntaxError, ValueError, DecompressionBombError: it is no whole image.
    """
    image = Image.open(io.BytesIO(content))
    image.load()
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    return ImageOps.exif_transpose(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Red, green and blue of 8 bits; grey three times, transparency left out, 16 bits scaled.

    Pillow's own conversion of 16-bit grey cuts every value above 255 to white.
    """
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def name_of(image: Mapping[str, Any], row: int) -> str:
    """What errors call a row's image: its file, or its number where it is embedded."""
    path = image["path"]
    return (
        path.removeprefix("zip://")
        if path and image["bytes"] is None
        else f"row {row}" + (f" ({path})" if path else "")
    )


def reason(error: Exception) -> str:
    """What is wrong with an image, in few words."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image that Pillow knows"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _list_folder(folder: Path) -> dict[str, str]:
    found = (Path(root) / name for root, _, names in os.walk(folder, followlinks=True) for name in names)
    return {file.relative_to(folder).as_posix(): str(file) for file in found}


def _list_zip(place: str, field: str) -> dict[str, str]:
    try:
        with zipfile.ZipFile(place) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{field}: {place} cannot be read as a zip file: {error}") from None
    for entry in entries:
        # Nothing is unpacked; but whoever made such a name wished to write outside of the folder.
        if ".." in PurePosixPath(entry.filename.replace("\\", "/")).parts or entry.filename.startswith(("/", "\\")):
            raise DataError(
                f"{field}: {place} has a name that leads out of it, {entry.filename!r}; do not trust this file"
            )
        if entry.flag_bits & 1:
            raise DataError(f"{field}: {place} is locked with a password; give an open one")
    return {entry.filename: f"zip://{entry.filename}{ZIP_MARK}{place}" for entry in entries}


@lru_cache(maxsize=8)
def _archive(place: str, process: int) -> zipfile.ZipFile:
    """An open zip file of this process: a file handle shared with a worker would share its position too."""
    return zipfile.ZipFile(place)
