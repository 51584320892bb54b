"""Lists image files in folders and zip files, and reads their bytes and pixels. Zip files are not unpacked."""

import io
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nlp_ft.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
NOT_READ = frozenset({".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng"})
"""Endings of photographs that Pillow alone does not read, or only in some versions."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that may be decoded, whatever the file's name: Pillow would run another program on PostScript."""
ZIP_PREFIX = "zip://"
ZIP_MARK = "::"
"""Separates the name inside a zip file from the file: `zip://rose/1.jpg::flowers.zip`, the form of `datasets`."""
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
"""Exceptions that Pillow raises on files that are not whole images, and zipfile on damaged or unknown entries."""
ZIP_METHODS = {
    zipfile.ZIP_STORED: "stored",
    zipfile.ZIP_DEFLATED: "Deflate",
    zipfile.ZIP_BZIP2: "BZIP2",
    zipfile.ZIP_LZMA: "LZMA",
}
MAX_BYTES = 500_000_000
"""Most bytes of one image: an entry of a small zip file can unpack to any number of bytes."""


def list_images(place: str, field: str) -> dict[str, str]:
    """List the images of a folder or zip file.

    Args:
        place: path of the folder or zip file.
        field: the recipe key that error messages name.

    Returns:
        Path inside the folder or zip file -> reference for `read_bytes`, sorted by path.

    Raises:
        DataError: it is neither a folder nor a zip file, or holds photographs in a format that is not read; or the zip
            file is damaged, has a password, or holds names that lead out of it.
    """
    if Path(place).is_dir():
        found = _list_folder(Path(place))
    else:
        found = _list_zip(place, field)
    if unread := sorted(name for name in found if _is_image(name, NOT_READ)):
        raise DataError(
            f"{field}: {place} holds {len(unread)} image(s) of a format that is not read, such as {unread[0]}; save "
            "them as JPEG or PNG, or remove them"
        )
    return {name: found[name] for name in sorted(found) if _is_image(name)}


def is_image_place(place: str) -> bool:
    """Whether a path is a zip file, or a folder that was not written by `Dataset.save_to_disk`."""
    folder = Path(place)
    saved = any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))
    return (folder.is_dir() and not saved) or zipfile.is_zipfile(place) or folder.suffix.lower() == ".zip"


def read_bytes(image: Mapping[str, Any]) -> bytes:
    """Read the bytes of the file of a row's image.

    Args:
        image: `{"bytes": ..., "path": ...}`, the form of an image of `datasets` that is not decoded.

    Raises:
        OSError: the file cannot be read.
        zipfile.BadZipFile: the zip file cannot be read.
        ValueError: the path is a pipe, a device or a folder.
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
    """Return size, times and number of a file: they differ if its content was replaced.

    The time of the last status change is among them, because no program can set it.
    """
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def decode(content: bytes) -> Image.Image:
    """Decode an image as a person sees it: its first frame, turned upright as its EXIF data say.

    Raises:
        OSError: the bytes are not a whole image. Pillow also raises the other types of `UNREADABLE`.
        ValueError: the pixels are floating-point numbers.
    """
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    image.load()
    refuse_fractions(image)
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block can raise any type, but the pixels are whole
        return image


def refuse_fractions(image: Image.Image) -> None:
    """Refuse pixels that are floating-point numbers, which nobody knows the scale of. Raises: ValueError."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB with 8 bits: grey is repeated three times, transparency dropped, 16 bits are scaled.

    Pillow's own conversion would turn every value above 255 of a 16-bit grey image white.
    """
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def name_of(image: Mapping[str, Any], row: int) -> str:
    """Name a row's image for error messages: by its file, or by the number of its row if it is embedded."""
    path = image["path"]
    return (
        path.removeprefix(ZIP_PREFIX)
        if path and image["bytes"] is None
        else f"row {row}" + (f" ({path})" if path else "")
    )


def reason(error: Exception) -> str:
    """Say in a few words why an image cannot be read."""
    if isinstance(error, UnidentifiedImageError):
        return "Pillow does not recognize it as an image"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_image(name: str, suffixes: Collection[str] = SUFFIXES) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in suffixes and not hidden


def _list_folder(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for root, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(root) + os.sep
        # Following a link to a folder above would never end.
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
        # Nothing is unpacked here, but such a name was made to write outside of the folder.
        if ".." in PurePosixPath(entry.filename.replace("\\", "/")).parts or entry.filename.startswith(("/", "\\")):
            raise DataError(
                f"{field}: {place} has a name that leads out of it, {entry.filename!r}; do not trust this file"
            )
        if entry.flag_bits & 1:
            raise DataError(f"{field}: {place} has a password; give a zip file without one")
        if not _is_image(entry.filename):
            continue
        if entry.compress_type not in ZIP_METHODS:
            raise DataError(
                f"{field}: {place} packs {entry.filename!r} with method {entry.compress_type}, which is not supported; "
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
    """Open a zip file, once for each `stamp` and process: processes that share a handle share its position."""
    return zipfile.ZipFile(place)
