"""A trained tagger, which finds entities in texts, or in lists of words."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from transformers import AutoModelForTokenClassification

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.row_files import Rows
from nlp_ft.data.sources import expand
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.streaming import CHUNK_ROWS, stream_columns, stream_lines
from nlp_ft.data.windows import BEGINS_ROW
from nlp_ft.data.words.batches import WordCollator
from nlp_ft.data.words.conll import conll_words, is_conll, may_be_text
from nlp_ft.data.words.data import WordData, encode_word_split, load_word_data, load_word_rows
from nlp_ft.data.words.encoding import encode_for_tagging, word_tokenizer
from nlp_ft.data.words.plain_rows import check_words, divided
from nlp_ft.errors import DataError
from nlp_ft.models.labels import label_names
from nlp_ft.prediction.tokens import TokenRun, batches_of
from nlp_ft.prediction.trained_run import Source, chunked, damage_named
from nlp_ft.recipe import WordsRecipe
from nlp_ft.tasks.entities import TaggedWords

Input = str | Sequence[str]
"""A text, which is divided into words, or the words themselves."""
WRITTEN_LIST = re.compile(r"""\s*\[\s*(['"]).*\1\s*\]\s*""", re.DOTALL)
"""A list of texts as Python or JSON writes it."""


class WordRun(TokenRun):
    """A trained run that reads words. See `TokenRun`."""

    input_name = "text"
    auto_class = AutoModelForTokenClassification
    recipe: WordsRecipe

    def __init__(self, folder: Path, recipe: WordsRecipe, trust_remote_code: bool = False) -> None:
        super().__init__(folder, recipe, trust_remote_code)
        with damage_named(folder, "tokenizer"):
            self.tokenizer = word_tokenizer(self.tokenizer)

    def is_single(self, inputs: Any) -> bool:
        """Whether this is a text; a list of texts is several of them, and never the words of one."""
        return isinstance(inputs, str)

    def activated(self, inputs: Sequence[Input], done: Callable[[int], object] = lambda count: None) -> np.ndarray:
        """Compute the probabilities of the tags of each input's words: an array of `TaggedWords`, (inputs,)."""
        texts = [_in_words(item, number) for number, item in enumerate(inputs)]
        encoded = encode_for_tagging([words for _, words, _ in texts], self.tokenizer, self.recipe.data)
        rows = np.cumsum(encoded.pop(BEGINS_ROW)) - 1
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        batches = batches_of(lengths, self.device)
        collator = self.collator()
        found = [np.zeros((len(words), len(label_names(self.model))), np.float32) for _, words, _ in texts]
        with self.computing() as compute:
            for batch in batches:
                collated = collator([{key: encoded[key][window] for key in encoded} for window in batch])
                words_of = collated.pop("words").numpy()
                probabilities = self.outputs.activate(compute(collated)).cpu().numpy()
                for window, words, values in zip(batch, words_of, probabilities, strict=True):
                    decided = words != IGNORED_LABEL
                    found[rows[window]][words[decided]] = values[decided]
                done(len(np.unique(rows[batch])))
        result = np.empty(len(texts), object)
        result[:] = [TaggedWords(*text, values) for text, values in zip(texts, found, strict=True)]
        return result

    def read(self, source: Source) -> Iterator[tuple[Sequence[Input], Rows]]:
        """Read texts or lists of words: a CoNLL file, or the column `data.words`, `data.text` or `text` of another."""
        if source.file and is_conll(files := expand(source.file, "--file")) and not any(map(may_be_text, files)):
            for rows in conll_words(files, "--file", self.recipe.data.conll_columns, CHUNK_ROWS):
                yield rows, pyarrow.table({self.recipe.data.words: rows})
            return
        if source.file:
            text, words = self.recipe.data.text, self.recipe.data.words
            names = [text, words] if text else [words, "text"]
            with progress_bars(False):
                for items, whole in stream_columns(source.file, "--file", names):
                    _refuse_written_lists(items, source.file)
                    yield items, whole
            return
        for texts in chunked(source.words) if source.lines is None else stream_lines(source.lines, "standard input"):
            yield texts, pyarrow.table({"text": list(texts)})

    def shown(self, item: Input) -> str:
        """Return the text, or the words joined by blanks."""
        return item if isinstance(item, str) else " ".join(item)

    def labelled(self, data: str | list[str] | None, split: str) -> WordData:
        """Read words with tags. Raises: DataError."""
        section = self.recipe.data
        if data is None:
            return load_word_data(section, self.tokenizer, self.recipe.seed)
        with progress_bars(False):
            rows = load_word_rows(data, "--data", section)
        return encode_word_split(rows, split, f"--data ({data})", self.tokenizer, section, label_names(self.model))

    def collator(self) -> WordCollator:
        """Make the collator that pads rows to the longest of their batch."""
        return WordCollator(self.tokenizer)


def _refuse_written_lists(items: Sequence[Any], file: str) -> None:
    """Refuse lists of words that are written as texts, whose brackets would be words. Raises: DataError."""
    found = next((item for item in items if isinstance(item, str) and WRITTEN_LIST.fullmatch(item)), None)
    if found is not None:
        raise DataError(
            f"--file ({file}) holds lists of words that are written as texts, such as {found!r:.60}; write them as "
            "lists, in JSON Lines, Parquet or CoNLL, or as plain texts"
        )


def _in_words(item: Any, number: int) -> tuple[str, list[str], list[int]]:
    """Divide an input into words: its text, the words, and where they begin. Raises: DataError: it is no such input."""
    where = f"input {number} (from 0)"
    if not isinstance(item, str | list | tuple):
        raise DataError(f"{where} must be a text or a list of words, got {item!r:.60}")
    if isinstance(item, str):
        text, (words, starts) = item, divided(item)
    else:
        words = check_words(item, where) if item else []
        text = " ".join(words)
        starts = [0, *np.cumsum([len(word) + 1 for word in words]).tolist()][: len(words)]
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where} cannot be encoded as UTF-8") from None
    return text, words, starts
