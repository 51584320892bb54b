"""Loads the splits of a recipe for words with tags: reads and checks them, tokenizes them once, caches them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset, List, Value
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.columns import numbered, numbers
from nlp_ft.data.sources import (
    Columns,
    check_columns,
    expand,
    field_with_files,
    load_files,
    named_splits,
    rows_from_source,
)
from nlp_ft.data.splits import draw_rows, progress_bars
from nlp_ft.data.text import NOT_IN_KEY, ROWS_ENCODED_TOGETHER, ROWS_WORTH_A_PROCESS
from nlp_ft.data.tokenized import tokenized
from nlp_ft.data.windows import BEGINS_ROW, Windows
from nlp_ft.data.words.conll import is_conll, load_conll
from nlp_ft.data.words.encoding import encode_tagged
from nlp_ft.data.words.iob1 import as_iob2, reads_as_iob1
from nlp_ft.data.words.plain_rows import TAGS, TEXT, WORDS, plain_rows
from nlp_ft.data.words.spans import OUTSIDE, find_scheme, first_break, tag_order, type_of, types_of
from nlp_ft.errors import DataError, listed
from nlp_ft.recipe.words import TagScheme, WordsDataSection
from nlp_ft.suggest import did_you_mean


@dataclass(frozen=True)
class TaggedRows:
    """The splits of a recipe before tokenization.

    Args:
        raw: split name -> rows with `words` and `tags`, and `text` and `starts` where the words come from texts.
        label_names: the tags in the order of their ids.
        scheme: how the tags mark spans.
    """

    raw: dict[str, Dataset]
    label_names: list[str]
    scheme: TagScheme


@dataclass(frozen=True)
class WordData:
    """The splits of a recipe, by name (`train`, `validation`, `test`). See `Data` in tasks/task.py.

    Args:
        raw: split name -> rows, as in `TaggedRows`.
        encoded: split name -> the windows of these rows, in order, with the columns of `encode_tagged`.
        label_names: the tags in the order of their ids.
        scheme: how the tags mark spans.
    """

    raw: dict[str, Dataset]
    encoded: dict[str, Dataset]
    label_names: list[str]
    scheme: TagScheme

    def lengths(self, split: str) -> np.ndarray:
        """Number of tokens of each window, (windows,)."""
        return numbers(self.encoded[split], "window_tokens").astype(np.int64)

    def windows(self, split: str) -> Windows:
        """Which row each window belongs to; the outputs put the words of a row together."""
        return Windows.of(self.encoded[split])

    def by_row(self, split: str, column: str) -> np.ndarray:
        """Read a column of numbers of the windows, once for each row, (rows,)."""
        return np.asarray(numbers(self.encoded[split], column)[self.windows(split).starts])

    def labels(self, split: str) -> np.ndarray:
        """Tag ids of the words of each row, (rows, most words), filled up with -100."""
        codes, lengths = flat_tags(self.raw[split], self.label_names)
        filled = np.full((len(lengths), lengths.max()), IGNORED_LABEL, np.int64)
        filled[np.arange(lengths.max()) < lengths[:, None]] = codes
        return filled

    def inputs(self, split: str, rows: np.ndarray) -> pyarrow.Table:
        """`row`, the number in the data that was read, and the text or the words of some rows of a split."""
        raw = self.raw[split]
        name = TEXT if TEXT in raw.column_names else WORDS
        return numbered(raw, [name], rows)


def columns_of_words(data: WordsDataSection) -> Columns:
    """List the columns that a recipe names, as (key of the recipe, name of the column)."""
    if data.text is not None:
        return [("text", data.text), ("spans", data.spans)]
    return [("words", data.words), ("label", data.label)]


def load_word_rows(paths: str | Sequence[str], field: str, data: WordsDataSection) -> Dataset:
    """Read rows of words with tags from files or folders, see `plain_rows`. Raises: DataError."""
    files = expand(paths, field)
    if is_conll(files):
        if data.text is not None:
            raise DataError(f"{field}: {files[0]} is a CoNLL file, which has words, not texts; leave out data.text")
        rows = load_conll(files, field, data.conll_columns, (data.words, data.label))
    else:
        if any(Path(file).suffix.lower() in (".csv", ".tsv") for file in files):
            raise DataError(
                f"{field}: {files[0]}: a CSV file has no lists; write words and tags as JSON Lines, Parquet or CoNLL"
            )
        rows = load_files(paths, field, columns_of_words(data))
    return _plain(rows, field_with_files(field, paths), data)


def load_tagged_rows(data: WordsDataSection, seed: int = 0) -> TaggedRows:
    """Read the splits of a recipe, find their tags and scheme, and draw rows as it says, by its seed.

    Raises:
        DataError: a row is wrong, see `plain_rows`; a tag breaks the scheme, or train lacks its type.
    """
    raw: dict[str, Dataset] = {}
    for split, field, where in named_splits(data):
        if data.source:
            columns = columns_of_words(data)
            raw[split] = _plain(rows_from_source(data, split, where, columns), f"{field} ({where})", data)
        else:
            raw[split] = load_word_rows(where, field, data)
    tags = {split: _different_tags(rows) for split, rows in raw.items()}
    every = set().union(*tags.values())
    # By the names too, which a trained model knows alone.
    known = every.union(data.label_names or ())
    scheme = find_scheme(data.scheme, known, "data.label" if data.text is None else "data.spans")
    label_names = data.label_names or _names(raw["train"], tags, scheme)
    for split, rows in raw.items():
        source = "data.label_names" if data.label_names else "the train split"
        _check_tags(rows, split, label_names, scheme, f"that {source} does not have")
    return TaggedRows(draw_rows(raw, None, [WORDS], data, seed), list(label_names), scheme)


def load_word_data(data: WordsDataSection, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> WordData:
    """Read, check and tokenize the splits of a recipe. Raises: DataError: see `load_tagged_rows`."""
    with progress_bars(False):
        found = load_tagged_rows(data, seed)
    encoded = {s: _encode(rows, s, tokenizer, data, found.label_names) for s, rows in found.raw.items()}
    return WordData(found.raw, encoded, found.label_names, found.scheme)


def encode_word_split(
    rows: Dataset,
    split: str,
    where: str,
    tokenizer: PreTrainedTokenizerBase,
    data: WordsDataSection,
    label_names: Sequence[str],
) -> WordData:
    """Encode plain rows for a trained model, as data of one split.

    Args:
        rows: the rows, from `load_word_rows`.
        split: name of the split in the result.
        where: name of the rows in error messages.
        tokenizer: the encoder's tokenizer.
        data: the data section of the run.
        label_names: the model's tags in the order of the ids.

    Raises:
        DataError: a tag is not one of the model's, or breaks the scheme.
    """
    scheme = find_scheme(data.scheme, label_names, "the model")
    _check_tags(rows, where, label_names, scheme, "that the model does not have")
    encoded = _encode(rows, split, tokenizer, data, label_names)
    return WordData({split: rows}, {split: encoded}, list(label_names), scheme)


def flat_tags(rows: Dataset, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read the tags of plain rows, one row after the other.

    Returns:
        Positions in `names`, (words,), -1 for other tags; and the number of words of each row, (rows,).
    """
    codes, lengths = [], []
    for table in rows.select_columns([TAGS]).with_format("arrow").iter(100_000):
        lengths.append(pyarrow.compute.list_value_length(table[TAGS]).to_numpy())
        flat = pyarrow.compute.list_flatten(table[TAGS])
        found = pyarrow.compute.index_in(flat, value_set=pyarrow.array(names, flat.type))
        codes.append(found.fill_null(-1).to_numpy())
    return np.concatenate(codes).astype(np.int64), np.concatenate(lengths).astype(np.int64)


def _plain(rows: Dataset, where: str, data: WordsDataSection) -> Dataset:
    check_columns(rows.column_names, columns_of_words(data), where)
    if len(rows) == 0:
        raise DataError(f"{where} has no rows")
    plain = plain_rows(rows, where, data)
    if data.scheme == "auto" and data.text is None:
        names = sorted(_different_tags(plain))
        if reads_as_iob1(*flat_tags(plain, names), names):
            return as_iob2(plain, TAGS)
    return plain


def _different_tags(rows: Dataset) -> set[str]:
    found: set[str] = set()
    for table in rows.select_columns([TAGS]).with_format("arrow").iter(100_000):
        found |= set(pyarrow.compute.unique(pyarrow.compute.list_flatten(table[TAGS])).to_pylist())
    return found


def _names(train: Dataset, tags: Mapping[str, set[str]], scheme: TagScheme) -> list[str]:
    """Order the tags of train, and those of other splits whose type train has: an I- may occur in them alone."""
    known = types_of(tags["train"], scheme)
    found = {tag for of in tags.values() for tag in of if tag != OUTSIDE and type_of(tag, scheme) in known}
    names = sorted(found | {OUTSIDE} & tags["train"] | ({OUTSIDE} if scheme != "none" else set()), key=tag_order)
    if len(names) < 2:
        raise DataError(f"data.label: token_classification needs two tags or more; train holds only: {listed(names)}")
    return names


def _check_tags(rows: Dataset, where: str, label_names: Sequence[str], scheme: TagScheme, what: str) -> None:
    """Check that all tags are known and that they follow the scheme. Raises: DataError: names the first wrong one."""
    codes, lengths = flat_tags(rows, label_names)
    unknown = np.flatnonzero(codes < 0)
    if len(unknown):
        place, tag, _ = _named(rows, lengths, int(unknown[0]), where)
        near = did_you_mean(tag, label_names)
        raise DataError(
            f"{place} has the tag {tag!r}, {what}: {listed(label_names, 9)}{near}; correct it, or list every tag in "
            "data.label_names"
        )
    wrong = first_break(codes, lengths, label_names, scheme)
    if wrong is not None:
        place, tag, (before, after) = _named(rows, lengths, wrong, where)
        raise DataError(
            f"{place} has the tag {tag!r} between {before} and {after}, which breaks the scheme {scheme} "
            f"({_rule(scheme)}); correct it, or set data.scheme to none, which takes tags as they are"
        )


def _rule(scheme: TagScheme) -> str:
    if scheme == "iob2":
        return "each entity begins with B-, and I- goes on with the same type"
    return "B-, any I-, E- of one type, or S- alone"


def _named(rows: Dataset, lengths: np.ndarray, position: int, where: str) -> tuple[str, str, tuple[str, str]]:
    """Describe a tag by its position among all: its place in words, the tag, and its neighbours."""
    ends = np.cumsum(lengths)
    row = int(np.searchsorted(ends, position, side="right"))
    word = position - int(ends[row] - lengths[row])
    found = rows[row]
    tags = found[TAGS]
    before = repr(tags[word - 1]) if word else "the beginning"
    after = repr(tags[word + 1]) if word + 1 < len(tags) else "the end"
    place = f"{where}: row {row} (from 0), word {word} ({found[WORDS][word]!r:.40})"
    return place, tags[word], (before, after)


def _encode(
    rows: Dataset, split: str, tokenizer: PreTrainedTokenizerBase, data: WordsDataSection, label_names: Sequence[str]
) -> Dataset:
    columns = {
        **dict.fromkeys(("words", "labels", "tags"), List(Value("int32"))),
        **dict.fromkeys(("num_tokens", "window_tokens"), Value("int32")),
        BEGINS_ROW: Value("bool"),
        "text_hash": Value("int64"),
    }
    kept = {
        "tokenizer": tokenizer,
        "data": data.model_copy(update=NOT_IN_KEY),
        "label_ids": {name: i for i, name in enumerate(label_names)},
    }
    return tokenized(
        rows, split, encode_tagged, kept, columns, data.num_proc, ROWS_ENCODED_TOGETHER, ROWS_WORTH_A_PROCESS
    )
