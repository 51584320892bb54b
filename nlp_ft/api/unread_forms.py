"""Refuses forms of rows that would be misread in silence, and says how pandas turns them into one that is read."""

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.compute

from nlp_ft.data.file_advice import looks_like_text
from nlp_ft.errors import DataError, listed

ROWS_SEEN = 1000
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
WORD_NAMES = ("word", "token", "words", "tokens")
TAG_NAMES = ("tag", "tags", "ner_tag", "ner_tags", "ner", "entity", "label", "labels", "iob", "bio", "pos", "upos")
SENTENCE = re.compile(r"(sentence|sent|doc|document|text|tweet)[ _-]*(#|id|idx|no|num|number|index)?")
LIST = re.compile(r"""\s*\[\s*((['"0-9.+-]|True|False|None|nan).*)?\]\s*""", re.DOTALL)
"""A list as Python or NumPy writes it; not `[pos]`, or `[CLS] a text [SEP]`."""
IOB = re.compile(r"O|[BIESLU]-.+")
WITHOUT_COMMAS = re.compile(r"""['"]\s+['"]""")


def check_long_form(rows: pyarrow.Table, where: str, file: str) -> None:
    """Check that there is no word a line, with its sentence in another column, as in Kaggle's ner_dataset.csv.

    Args:
        rows: all rows.
        where: name of the rows in error messages.
        file: the file that they are from.

    Raises:
        DataError: there is one; the message holds the program that writes a row a sentence.
    """
    word, tag, sentence = long_columns(rows)
    if not (word and tag and sentence):
        return
    program = (
        f"pandas.read_csv({file!r}, keep_default_na=False, na_values={{{sentence!r}: ['']}}).ffill()"
        f".rename(columns={{{word!r}: 'tokens', {tag!r}: 'ner_tags'}}).groupby({sentence!r}, sort=False)"
        "[['tokens', 'ner_tags']].agg(list).to_json('train.jsonl', orient='records', lines=True)"
    )
    raise DataError(
        f"{where} has a word a line (columns {listed([sentence, word, tag])}), and each row must be a sentence; write "
        f"it so with pandas: {program}"
    )


def long_columns(rows: pyarrow.Table) -> tuple[str, str, str]:
    """Name the columns of word, tag and sentence of rows of a word each; an empty text for one that is not there."""
    lower = {name.lower(): name for name in rows.column_names}
    word = next((lower[name] for name in WORD_NAMES if name in lower and _are_words(rows, lower[name])), "")
    tag = next((lower[name] for name in TAG_NAMES if name in lower and lower[name] != word), "")
    others = [name for name in lower if lower[name] not in (word, tag)]
    sentence = next((lower[name] for name in others if SENTENCE.fullmatch(name) and _are_names(rows, lower[name])), "")
    repeats = sentence and pyarrow.compute.count_distinct(rows.column(sentence)).as_py() < rows.num_rows
    return word, tag, sentence if repeats else ""


def check_no_tagged_words(rows: pyarrow.Table, text: str, label: str) -> None:
    """Check that rows are no single words with tags such as `B-PER`, which would be learned without their sentence.

    Raises:
        DataError: they are; the message says what to do.
    """
    tags = set(_texts(rows, label))
    if text in rows.column_names and _are_words(rows, text) and "O" in tags and all(map(IOB.fullmatch, tags)):
        raise DataError(
            f"data: column {text!r} holds a word a row and column {label!r} its tag, and each row must be a sentence; "
            f"with a column that numbers the sentences, pandas writes it so: "
            f"df.groupby('sentence', sort=False)[[{text!r}, {label!r}]].agg(list); or task='text_classification' "
            "learns the tag of a word by itself"
        )


def check_all_accepted(rows: pyarrow.Table, where: str) -> None:
    """Check that no row of Prodigy was rejected or ignored. Raises: DataError."""
    answers = set(_texts(rows, "answer"))
    if answers & {"reject", "ignore"} and answers <= {"accept", "reject", "ignore"}:
        raise DataError(
            f"{where} has rows whose answer is {listed(sorted(answers - {'accept'}))}, as Prodigy writes it; keep "
            "those with accept alone, as pandas does: rows[rows['answer'] == 'accept']"
        )


def check_texts_are_texts(rows: pyarrow.Table, names: Sequence[str], what: str) -> None:
    """Check that columns hold no lists written as texts, such as "['a', 'b']" in a CSV, and no paths of images.

    Raises:
        DataError: one does; the message says what to do.
    """
    for name in names:
        found = _texts(rows, name)
        if found and all(Path(text).suffix.lower() in IMAGES for text in found):
            raise DataError(
                f"{what}: column {name!r} holds paths of images, such as {found[0]!r:.60}; copy each image into a "
                "folder with the name of its label, and name the folder of these folders: docs/images.md"
            )
        if not found or not all(LIST.fullmatch(text) for text in found):
            continue
        if any(WITHOUT_COMMAS.search(text) for text in found):
            advice = "NumPy wrote them without commas, so write the data again, with DataFrame.to_parquet"
        else:
            advice = (
                f"read each such column with pandas.read_csv(FILE, converters={{{name!r}: ast.literal_eval}}), and "
                "give the DataFrame to nlp_ft.fit, or write it with to_parquet"
            )
        shown = f"column {name!r} holds lists that are written as texts, such as {found[0]!r:.60}"
        raise DataError(f"{what}: {shown}; {advice}")


def _are_words(rows: pyarrow.Table, name: str) -> bool:
    found = _texts(rows, name)
    return bool(found) and not any(len(text.split()) > 1 for text in found)


def _are_names(rows: pyarrow.Table, name: str) -> bool:
    """Whether a column names sentences or numbers them, rather than holds them."""
    return not pyarrow.types.is_nested(rows.schema.field(name).type) and not any(
        map(looks_like_text, _texts(rows, name))
    )


def _texts(rows: pyarrow.Table, name: str) -> list[str]:
    """The first texts of a column that are not empty; none where it holds something else."""
    if name not in rows.column_names:
        return []
    values = rows.column(name).slice(0, ROWS_SEEN).to_pylist()
    return [value for value in values if value] if all(isinstance(value, str | None) for value in values) else []
