"""Image files: pixels of every kind, and what a folder or zip file holds."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, UnidentifiedImageError

from nlp_ft.data.image_files import decode, list_images, name_of, read_bytes, to_rgb
from tests.tiny_images import write_images


@pytest.mark.parametrize(
    ("mode", "pixel", "rgb"),
    [
        ("L", 90, (90, 90, 90)),
        ("1", 1, (255, 255, 255)),
        ("LA", (90, 10), (90, 90, 90)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("P", 0, (0, 0, 0)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("I;16", 257 * 80, (80, 80, 80)),
        ("I", 257 * 80, (80, 80, 80)),
        ("I", 70_000, (255, 255, 255)),
    ],
)
def test_every_mode_becomes_red_green_and_blue(mode: str, pixel: Any, rgb: tuple[int, int, int]) -> None:
    assert to_rgb(Image.new(mode, (2, 3), pixel)).getpixel((1, 2)) == rgb


def test_an_image_is_turned_upright() -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned to the right
    Image.new("RGB", (4, 2)).save(stream, "JPEG", exif=exif)
    assert decode(stream.getvalue()).size == (2, 4)


def test_only_formats_of_images_are_decoded_whatever_the_name() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\nshowpage\n"
    assert Image.open(io.BytesIO(postscript)).format == "EPS"  # which Pillow would hand to another program
    with pytest.raises(UnidentifiedImageError):
        decode(postscript)


def test_links_are_followed_but_not_round_in_a_circle(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "train", 1)
    (folder / "crimson").symlink_to(folder / "red")
    (folder / "red" / "back").symlink_to(folder)
    assert list(list_images(str(folder), "f")) == ["blue/00.png", "crimson/00.png", "green/00.png", "red/00.png"]


def test_a_zip_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    place = str(tmp_path / "a.zip")
    for i, content in enumerate((b"first", b"second")):
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("x/a.png", content)
        os.utime(place, (i, i))
        [reference] = list_images(place, "f").values()
        image = {"bytes": None, "path": reference}
        assert read_bytes(image) == content
        assert name_of(image, 0) == f"x/a.png::{place}"


def test_an_embedded_image_is_named_by_its_row() -> None:
    assert name_of({"bytes": b"x", "path": None}, 7) == "row 7"
    assert name_of({"bytes": b"x", "path": "a.png"}, 7) == "row 7 (a.png)"
