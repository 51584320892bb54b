"""Image data: what is listed and read from where, what is refused, and what the report says."""

import io
import zipfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from PIL import Image

from nlp_ft.data.file_advice import TEXT_FILES
from nlp_ft.data.image_files import read_bytes
from nlp_ft.data.image_report import describe_images, format_image_report
from nlp_ft.data.image_sources import load_image_places
from nlp_ft.data.images import ImageData, encode_image_split, image_hash, load_image_data
from nlp_ft.errors import DataError
from nlp_ft.recipe.images import ImageDataSection
from tests.tiny_images import COLOURS, noisy_image, write_images

CIFAR10 = Path(__file__).parents[3] / "shared/data/cifar10"


def load(**data: Any) -> ImageData:
    return load_image_data(ImageDataSection(**{key: str(v) if isinstance(v, Path) else v for key, v in data.items()}))


def the_error(**data: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(**data)
    return str(caught.value)


def contents(data: ImageData, split: str = "train") -> list[tuple[str, int]]:
    """(label, hash of the pixels) of each row."""
    names = data.label_names
    hashes = data.column(split, "image_hash").tolist()
    return [(names[label], found) for label, found in zip(data.labels(split), hashes, strict=True)]


def expected(per_class: int) -> list[tuple[str, int]]:
    """What `contents` gives for `write_images(folder, per_class)`."""
    numbered = [(colour, 100 * i + k, 40 + k % 3) for i, colour in enumerate(sorted(COLOURS)) for k in range(per_class)]
    return [(colour, image_hash(noisy_image(colour, seed, (width, 36)))) for colour, seed, width in numbered]


def zipped(folder: Path, file: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for image in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(image, inside + str(image.relative_to(folder)))
    return file


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def parquet_rows(per_class: int = 2) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": png(noisy_image(colour, 100 * i + k, (40 + k % 3, 36))), "path": None}, "label": colour}
        for i, colour in enumerate(sorted(COLOURS))
        for k in range(per_class)
    ]


def test_a_folder_of_class_folders_gives_each_image_its_class(tmp_path: Path) -> None:
    data = load(train=write_images(tmp_path / "train", 3))
    assert data.label_names == ["blue", "green", "red"]
    assert contents(data) == expected(3)
    assert data.column("train", "row").tolist() == list(range(9))
    assert data.column("train", "width").tolist() == [40, 41, 42] * 3
    assert data.lengths("train").tolist() == [0] * 9


def test_hidden_and_other_files_are_left_aside_and_deeper_folders_belong_to_their_class(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "train", 2)
    (folder / "red" / "notes.txt").write_text("no image")
    (folder / "red" / ".hidden.png").write_bytes(b"no image")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "a.png").write_bytes(b"no image")
    (folder / "red" / "more").mkdir()
    noisy_image("red", 999).save(folder / "red" / "more" / "a.png")
    assert contents(load(train=folder)) == [*expected(2), ("red", image_hash(noisy_image("red", 999)))]


@pytest.mark.parametrize("inside", ["", "flowers/", "flowers 2020/images/"])
def test_a_zip_file_is_read_like_the_folder_and_nothing_is_unpacked(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = zipped(write_images(tmp_path / "train", 2), tmp_path / "images.zip", inside)
    workplace = tmp_path / "workplace"
    workplace.mkdir()
    monkeypatch.chdir(workplace)
    if inside.count("/") > 1:
        # Two folders around the classes are one too many to guess.
        assert the_error(train=file).startswith("data.label: classification needs two labels or more")
        return
    data = load(train=file)
    assert contents(data) == expected(2)
    assert data.encoded["train"][0]["image"]["path"] == f"zip://{inside}blue/00.png::{file}"
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../red/a.png", "red/../../a.png", "/red/a.png", "red\\..\\..\\a.png", "\\red\\a.png"]
)
def test_a_zip_file_with_names_that_lead_out_of_it_is_refused(name: str, tmp_path: Path) -> None:
    file = zipped(write_images(tmp_path / "train", 2), tmp_path / "images.zip")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, png(noisy_image("red", 5)))
    assert the_error(train=file).startswith(f"data.train: {file} has a name that leads out of it, ")


def test_a_damaged_zip_file_is_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "images.zip"
    file.write_bytes(b"PK no zip")
    assert the_error(train=file) == f"data.train: {file} cannot be read as a zip file: File is not a zip file"


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_source_holds_the_folders_of_the_splits(as_zip: bool, tmp_path: Path) -> None:
    root = tmp_path / "flowers"
    write_images(root / "train", 3)
    write_images(root / "test", 1, first_seed=500)
    source = zipped(root, tmp_path / "flowers.zip", "flowers/") if as_zip else root
    data = load(source=source, test="test")
    assert contents(data) == expected(3)
    assert [label for label, _ in contents(data, "test")] == ["blue", "green", "red"]
    assert the_error(source=source, test="tset") == (
        f"data.test: {source} has no folder tset with images; it has: test, train; did you mean test?"
    )
    assert "holds splits (test, train), not classes; name it in data.source" in the_error(train=source)


def test_folders_of_splits_are_no_classes_however_they_are_written(tmp_path: Path) -> None:
    for name in ("Train", "TEST"):
        write_images(tmp_path / "flowers" / name, 1)
    assert "holds splits (TEST, Train), not classes" in the_error(train=tmp_path / "flowers")


@pytest.mark.parametrize("as_zip", [False, True])
def test_photographs_that_are_not_read_are_named_and_not_left_out(as_zip: bool, tmp_path: Path) -> None:
    root = write_images(tmp_path / "train", 2)
    (root / "red" / "00.png").rename(root / "red" / "IMG_1.HEIC")
    (root / "red" / "labels.txt").write_text("notes")
    place = zipped(root, tmp_path / "images.zip") if as_zip else root
    assert the_error(train=place) == (
        f"data.train: {place} holds 1 image(s) of a format that is not read, such as red/IMG_1.HEIC; save them as JPEG "
        "or PNG, or remove them"
    )
    (root / "red" / "IMG_1.HEIC").rename(root / "red" / "00.jfif")
    assert contents(load(train=zipped(root, tmp_path / "again.zip") if as_zip else root)) == expected(2)


def test_parquet_with_embedded_images_gives_the_same_rows(tmp_path: Path) -> None:
    Dataset.from_list(parquet_rows()).cast_column("image", datasets.Image()).to_parquet(tmp_path / "hub.parquet")
    pd.DataFrame(parquet_rows()).to_parquet(tmp_path / "pandas.parquet")
    plain = [{**row, "image": row["image"]["bytes"]} for row in parquet_rows()]
    pd.DataFrame(plain).to_parquet(tmp_path / "bytes.parquet")
    for name in ("hub", "pandas", "bytes"):
        assert contents(load(train=tmp_path / f"{name}.parquet")) == expected(2), name


def test_a_saved_dataset_gives_the_same_rows(tmp_path: Path) -> None:
    rows = Dataset.from_list(parquet_rows()).cast_column("image", datasets.Image())
    rows = rows.class_encode_column("label").rename_column("image", "img")
    rows.save_to_disk(tmp_path / "single")
    DatasetDict({"train": rows}).save_to_disk(tmp_path / "splits")
    assert contents(load(train=tmp_path / "single", image="img")) == expected(2)
    assert contents(load(source=tmp_path / "splits", image="img")) == expected(2)


def test_a_share_of_train_is_drawn_by_class_and_a_row_keeps_its_number(tmp_path: Path) -> None:
    data = load(train=write_images(tmp_path / "train", 10), validation="20%")
    assert np.bincount(data.labels("train")).tolist() == [8, 8, 8]
    assert np.bincount(data.labels("validation")).tolist() == [2, 2, 2]
    rows = [int(row) for split in ("train", "validation") for row in data.column(split, "row")]
    assert sorted(rows) == list(range(30))
    whole = expected(10)
    for split in ("train", "validation"):
        assert contents(data, split) == [whole[row] for row in data.column(split, "row")]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "train", 2)
    before = contents(load(train=folder))
    noisy_image("red", 77).save(folder / "red" / "00.png")
    after = contents(load(train=folder))
    assert [i for i in range(6) if before[i] != after[i]] == [4]


def test_new_images_get_the_ids_of_the_model(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "new", 1)
    section = ImageDataSection(train="-")
    rows = load_image_places(str(folder), "new", section)
    data = encode_image_split(rows, "new", "new", section, ["red", "green", "blue", "grey"])
    assert data.labels("new").tolist() == [2, 1, 0]
    with pytest.raises(DataError, match=r"new has label\(s\) that the model does not have: red"):
        encode_image_split(rows, "new", "new", section, ["blue", "green"])


def test_every_unreadable_image_is_named_with_the_reason(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "train", 2, suffix="jpg")
    whole = (folder / "red" / "00.jpg").read_bytes()
    (folder / "red" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "red" / "text.jpg").write_text("no image")
    (folder / "red" / "empty.jpg").write_bytes(b"")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "red" / "floats.tif")
    error = the_error(train=folder)
    assert error.startswith("data.train: 4 image(s) cannot be read: ")
    for name, why in (
        ("cut.jpg", ""),
        ("text.jpg", "Pillow does not recognize it as an image"),
        ("empty.jpg", "Pillow does not recognize it as an image"),
        ("floats.tif", "its pixels are floating-point numbers; save it with 8 or 16 bits"),
    ):
        assert f"{folder / 'red' / name}: {why}" in error
    Dataset.from_list([*parquet_rows(), {"image": {"bytes": b"no", "path": "a.png"}, "label": "red"}]).to_parquet(
        tmp_path / "a.parquet"
    )
    assert "1 image(s) cannot be read: row 6 (a.png): Pillow does not recognize it" in the_error(
        train=tmp_path / "a.parquet"
    )


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "train", 2)
    test = write_images(tmp_path / "test", 1)
    (test / "red").rename(test / "pink")
    assert the_error(train=folder, test=test).startswith("test has label(s) that the train split does not have: pink")
    (folder / "yellow").mkdir()
    assert the_error(train=folder) == (
        f"data.train: {folder / 'yellow'} holds no image; add some, or remove the folder"
    )
    (folder / "yellow").rmdir()
    noisy_image("red", 1).save(folder / "loose.png")
    assert the_error(train=folder).startswith(f"data.train: {folder}: loose.png and 0 more are in no class folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert the_error(train=empty) == (
        f"data.train: {empty} holds no image; rows are read from files, such as FOLDER/*.csv, unpacked; {TEXT_FILES}"
    )
    assert "there is no nowhere" in the_error(train="nowhere")
    lonely = write_images(tmp_path / "lonely", 1)
    assert "data.validation: 50% of train cannot be drawn by class" in the_error(train=lonely, validation="50%")


def test_columns_that_are_missing_or_hold_no_images_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    Dataset.from_list([{"img": 1, "label": "a"}, {"img": 2, "label": "b"}]).to_parquet(file)
    assert the_error(train=file).endswith("data.image is 'image', but the columns are: img, label; did you mean img?")
    assert f"data.train ({file}): data.image is 'img', a column of " in the_error(train=file, image="img")
    assert "not of images" in the_error(train=file, image="img")


def test_a_test_split_may_lack_a_class(tmp_path: Path) -> None:
    test = write_images(tmp_path / "test", 1)
    (test / "red" / "00.png").unlink()
    data = load(train=write_images(tmp_path / "train", 2), test=test)
    assert data.labels("test").tolist() == [0, 1]


def test_the_report_counts_sizes_modes_repeats_and_overlaps(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "train", 2)
    first = noisy_image("blue", 0)
    first.save(folder / "blue" / "again.bmp")  # the same pixels in another format
    first.save(folder / "green" / "again.png")  # and with another label
    Image.new("L", (200, 10), 9).save(folder / "red" / "grey.png")
    test = write_images(tmp_path / "test", 1, first_seed=500)
    Image.open(folder / "red" / "01.png").save(test / "red" / "copy.png")
    report = describe_images(load(train=folder, test=test))
    assert report["train"] == {
        "rows": 9,
        "labels": {"blue": 3, "green": 3, "red": 3},
        "median_size": [40.0, 36.0],
        "min_size": [40, 36],
        "max_size": [200, 10],
        "modes": {"RGB": 8, "L": 1},
        "repeated": 2,
        "repeated_with_another_label": 1,
    }
    assert report["test"]["also_in_train"] == 1
    text = format_image_report(report)
    assert "8 colour, 1 grey" in text
    assert "look: 1 image(s) of train have several labels" in text
    assert "look: 1 image(s) of test also occur in train" in text


@pytest.mark.skipif(not CIFAR10.exists(), reason="needs ../shared/data/cifar10")
def test_cifar10_has_the_rows_that_its_index_states() -> None:
    data = load(test=CIFAR10 / "test.zip", train=CIFAR10 / "test.zip")
    assert np.bincount(data.labels("test")).tolist() == [200] * 10
    assert data.label_names[:3] == ["airplane", "automobile", "bird"]
    assert set(data.column("test", "width")) == set(data.column("test", "height")) == {32}
    with zipfile.ZipFile(CIFAR10 / "test.zip") as archive:
        assert read_bytes(data.encoded["test"][0]["image"]) == archive.read("airplane/0000.jpg")
