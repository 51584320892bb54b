"""Image files in folders and zip files: which there are, their bytes, and their pixels. Nothing is unpacked."""

import io
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nlp_ft.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What may be decoded, whatever a file's name: Pillow would hand PostScript to another program."""
ZIP_PREFIX = "zip://"
ZIP_MARK = "::"
"""Between the name inside a zip file and the file, as in `zip://rose/1.jpg::flowers.zip` (the form of `datasets`)."""
UNREADABLE = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
"""What Pillow raises on files that are no whole images, and zipfile on damaged or foreign entries."""
ZIP_METHODS = {
    zipfile.ZIP_STORED: "stored",
    zipfile.ZIP_DEFLATED: "Deflate",
    zipfile.ZIP_BZIP2: "BZIP2",
    zipfile.ZIP_LZMA: "LZMA",
}
MAX_BYTES = 500_000_000
"""Of one image: an entry of a zip file of some kilobytes can hold any number of bytes."""


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
    if path.startswith(ZIP_PREFIX):
        name, _, archive = path.removeprefix(ZIP_PREFIX).rpartition(ZIP_MARK)
        return _archive(archive, file_stamp(archive), os.getpid()).read(name)
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is a pipe, a device or a folder")
    return Path(path).read_bytes()


def file_stamp(file: str) -> tuple[int, ...]:
    """What another content at the same place changes: size, file number, and the time of change, which nobody sets."""
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def decode(content: bytes) -> Image.Image:
    """The image as a person sees it: upright, its first frame.

    Raises:
        OSError, SyntaxError, ValueError, DecompressionBombError: it is no whole image.
    """
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    image.load()
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block raises whatever its bytes lead to; the pixels are whole
        return image


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
        path.removeprefix(ZIP_PREFIX)
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
    found: dict[str, str] = {}
    for root, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(root) + os.sep
        # A link to a folder above would go round for ever.
        folders[:] = [name for name in folders if not here.startswith(os.path.realpath(f"{root}/{name}") + os.sep)]
        found |= {(Path(root) / name).relative_to(folder).as_posix(): str(Path(root) / name) for name in names}
    return found


def _list_zip(place: str, field: str) -> dict[str, str]:
    try:
        with zipfile.ZipFile(place) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except UNREADABLE as error:
        raise DataError(f"{field}: {place} cannot be read as a zip file: {error}") from None
    for entry in entries:
        # Nothing is unpacked; but whoever made such a name wished to write outside of the folder.
        if ".." in PurePosixPath(entry.filename.replace("\\", "/")).parts or entry.filename.startswith(("/", "\\")):
            raise DataError(
                f"{field}: {place} has a name that leads out of it, {entry.filename!r}; do not trust this file"
            )
        if entry.flag_bits & 1:
            raise DataError(f"{field}: {place} is locked with a password; give an open one")
        if not _is_image(entry.filename):
            continue
        if entry.compress_type not in ZIP_METHODS:
            raise DataError(
                f"{field}: {place} packs {entry.filename!r} with method {entry.compress_type}, which is not read here; "
                "pack it with Deflate"
            )
        if entry.file_size > MAX_BYTES:
            raise DataError(
                f"{field}: {place} says that {entry.filename!r} has {entry.file_size:,} bytes; no image has more than "
                f"{MAX_BYTES:,}"
            )
    return {entry.filename: f"{ZIP_PREFIX}{entry.filename}{ZIP_MARK}{place}" for entry in entries}


@lru_cache(maxsize=8)
def _archive(place: str, stamp: tuple[int, ...], process: int) -> zipfile.ZipFile:
    """An open zip file, as changed last, of this process: a handle shared with a worker would share its position."""
    return zipfile.ZipFile(place)
