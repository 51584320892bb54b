"""What is kept for the next run is found by content, and read only if it is whole."""

import errno
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from datasets import Dataset
from transformers import BertTokenizer

from nlp_ft.data import stored
from nlp_ft.data.text import TextData, load_text_data
from nlp_ft.errors import DataError
from nlp_ft.recipe.text import TextDataSection

KINDS = ["rows", "map"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def load(**data: int) -> TextData:
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "x", "y"])})
    return load_text_data(TextDataSection(train="a.csv", **data), tokenizer)


def write(rows: str) -> None:
    Path("a.csv").write_text(f"text,label\n{rows}")
    os.utime("a.csv", (1, 1))


def kept(kind: str) -> Path:
    [file] = Path("cache/nlp_ft").glob(f"{kind}-*.arrow")
    return file


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read_anew() -> None:
    write("x,a\ny,b\n")
    assert load().encoded["train"]["input_ids"][:] == [[2, 4, 3], [2, 5, 3]]
    write("y,a\nx,b\n")
    assert load().encoded["train"]["input_ids"][:] == [[2, 5, 3], [2, 4, 3]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["cut", "zeroed", "flipped", "empty", "record lost", "record broken", "of another"])
def test_kept_rows_that_are_damaged_are_made_anew(kind: str, damage: str) -> None:
    write("x,a\ny,b\n")
    expected = load().encoded["train"].to_list()
    file = kept(kind)
    whole = file.read_bytes()
    if damage == "record lost":
        file.with_suffix(".json").unlink()
        file.write_bytes(b"what somebody else left")
    elif damage == "record broken":
        file.with_suffix(".json").write_text("[]")
    else:
        place = whole.rindex(b"xy" if kind == "rows" else bytes([4, 0, 0, 0, 3]))
        flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        other = kept(KINDS[1 - KINDS.index(kind)]).read_bytes()
        file.write_bytes(
            {
                "cut": whole[:-100],
                "zeroed": bytes(len(whole)),
                "flipped": flipped,
                "empty": b"",
                "of another": other,
            }[damage]
        )
    assert load().encoded["train"].to_list() == expected
    assert kept(kind).read_bytes() == whole


def test_what_is_kept_is_used_whatever_the_files_name_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    write("x,a\ny,b\n")
    load()
    Path("b.csv").write_bytes(Path("a.csv").read_bytes())
    monkeypatch.setattr("nlp_ft.data.row_files.RowFiles.tables", None)
    monkeypatch.setattr("nlp_ft.data.text.encode_rows", load)  # of another name: it would be another key
    rows = TextDataSection(train="b.csv")
    from nlp_ft.data.sources import load_raw_splits

    assert load_raw_splits(rows)["train"]["text"][:] == ["x", "y"]


def test_several_processes_keep_their_parts_and_damage_of_one_is_noticed() -> None:
    write("x,a\ny,b\n" * 4)
    expected = load(num_proc=2).encoded["train"].to_list()
    files = sorted(Path("cache/nlp_ft").glob("map-*.arrow"))
    assert len(files) == 2
    files[1].write_bytes(files[1].read_bytes()[:-50])
    assert load(num_proc=2).encoded["train"].to_list() == expected


def test_files_that_another_process_makes_anew_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    write("x,a\ny,b\n")
    of_datasets = Dataset.map

    def removed_after(rows: Dataset, *arguments: Any, **options: Any) -> Dataset:
        mapped = of_datasets(rows, *arguments, **options)
        Path(options["cache_file_name"]).unlink()
        return mapped

    monkeypatch.setattr(Dataset, "map", removed_after)
    assert load().encoded["train"]["input_ids"][:] == [[2, 4, 3], [2, 5, 3]]


def test_a_full_disk_names_the_folder_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write("x,a\ny,b\n")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stored, "_write", full)
    with pytest.raises(DataError, match=r"cache: No space left on device; rows are stored .* set HF_DATASETS_CACHE"):
        load()
    assert list(Path("cache/nlp_ft").iterdir()) == []


def test_an_error_on_the_way_leaves_no_half_written_rows() -> None:
    def tables() -> object:
        yield pyarrow.table({"a": ["x"]})
        raise DataError("half way")

    with pytest.raises(DataError, match="half way"):
        stored.stored_rows("key", tables)  # type: ignore[arg-type]
    assert list(Path("cache/nlp_ft").iterdir()) == []
