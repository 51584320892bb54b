"""Image files: pixels of every kind, and what a folder or zip file holds."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, UnidentifiedImageError

from nlp_ft.data.image_files import UNREADABLE, decode, list_images, name_of, read_bytes, to_rgb
from nlp_ft.errors import DataError
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


def test_a_zip_file_replaced_by_one_of_the_same_size_and_time_is_opened_anew(tmp_path: Path) -> None:
    place = str(tmp_path / "a.zip")
    for content in (b"first", b"other"):
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
            archive.writestr(zipfile.ZipInfo("x/a.png"), content)
        (tmp_path / "new.zip").replace(place)
        os.utime(place, (1, 1))
        [reference] = list_images(place, "f").values()
        assert read_bytes({"bytes": None, "path": reference}) == content


def zip_with(folder: Path, method: int = zipfile.ZIP_DEFLATED, claimed: int = 0) -> str:
    """An image in a zip file whose directory claims another method of packing, or another size."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "BMP")
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/a.bmp", stream.getvalue())
    content = bytearray((folder / "a.zip").read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 10 : entry + 12] = method.to_bytes(2, "little")
    if claimed:
        content[entry + 24 : entry + 28] = claimed.to_bytes(4, "little")
    (folder / "a.zip").write_bytes(content)
    return str(folder / "a.zip")


@pytest.mark.parametrize("method", [9, 93, 99])
def test_a_zip_file_that_is_packed_in_another_way_is_refused_by_name(method: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"packs 'x/a.bmp' with method {method}, which is not supported; pack it with"):
        list_images(zip_with(tmp_path, method), "f")


def test_an_entry_of_gigabytes_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"says that 'x/a[.]bmp' has 4,000,000,000 bytes; no image has more than"):
        list_images(zip_with(tmp_path, claimed=4_000_000_000), "f")


def test_damaged_packed_bytes_are_one_of_the_errors_that_are_named(tmp_path: Path) -> None:
    place = zip_with(tmp_path)
    content = bytearray(Path(place).read_bytes())
    content[45:60] = b"\xff" * 15
    Path(place).write_bytes(content)
    [reference] = list_images(place, "f").values()
    with pytest.raises(UNREADABLE):
        read_bytes({"bytes": None, "path": reference})


def test_a_broken_exif_block_leaves_the_pixels_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 2), (1, 2, 3)).save(stream, "PNG")

    def broken(image: Image.Image) -> None:
        raise TypeError("whatever the bytes lead to")

    monkeypatch.setattr("nlp_ft.data.image_files.ImageOps.exif_transpose", broken)
    assert decode(stream.getvalue()).size == (4, 2)


def test_a_pipe_among_the_images_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match="it is a pipe, a device or a folder"):
        read_bytes({"bytes": None, "path": str(tmp_path / "a.png")})
