"""Reports on words with tags before training: sizes, entities by type, tokens, and rows to look at."""

from collections import Counter
from typing import Any

import numpy as np

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.report import num_repeated, num_shared, shared_warnings
from nlp_ft.data.words.data import WordData, flat_tags
from nlp_ft.data.words.plain_rows import TAGS
from nlp_ft.data.words.spans import spans_of, types_of
from nlp_ft.errors import listed, printable
from nlp_ft.tables import terminal_width, text_table, wrapped

TYPES_SHOWN = 20


def describe_words(data: WordData) -> dict[str, Any]:
    """Describe every split in plain values, which `format_words_report` prints and a run records.

    Returns:
        Split name -> `rows`, `words`, `labels` (spans of each type), tokens, counts of rows to look at; all splits but
        `train` also get `also_in_train`.
    """
    return {split: _describe(data, split) for split in data.encoded}


def format_words_report(report: dict[str, Any]) -> str:
    """Format the report of `describe_words` as tables, followed by one line for each thing to look at."""
    fields = ["rows", "words", "entities", "windows", "tokens_per_word", "max_tokens", "repeated"]
    heads = {"tokens_per_word": "tokens a word", "max_tokens": "longest"}
    rows = [[split, *(_cell(described[field]) for field in fields)] for split, described in report.items()]
    header = ["split", *(heads.get(field, field) for field in fields)]
    table = text_table(header, rows, range(1, len(header)), terminal_width())
    return wrapped("\n".join([table, _types(report), *_warnings(report)]))


def _describe(data: WordData, split: str) -> dict[str, Any]:
    encoded, raw = data.encoded[split], data.raw[split]
    num_tokens, hashes = data.by_row(split, "num_tokens"), data.by_row(split, "text_hash")
    _, lengths = flat_tags(raw, data.label_names)
    counts = Counter(span.label for tags in raw[TAGS] for span in spans_of(tags, data.scheme))
    num_words = int(lengths.sum())
    decided = sum(int((np.concatenate(part["words"]) != IGNORED_LABEL).sum()) for part in _parts(encoded))
    described = {
        "rows": len(raw),
        "words": num_words,
        "entities": counts.total(),
        "labels": {name: counts[name] for name in types_of(data.label_names, data.scheme)},
        "windows": len(encoded),
        "median_tokens": float(np.median(num_tokens)),
        "p95_tokens": float(np.percentile(num_tokens, 95)),
        "max_tokens": int(num_tokens.max()),
        "tokens_per_word": round(float(num_tokens.sum()) / num_words, 2),
        "words_without_tokens": num_words - decided,
        "repeated": num_repeated(hashes),
    }
    if split != "train":
        described["also_in_train"] = num_shared(hashes, data.by_row("train", "text_hash"))
    return described


def _parts(encoded: Any) -> Any:
    return encoded.select_columns(["words"]).with_format("numpy").iter(10_000)


def _cell(value: float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}"


def _types(report: dict[str, Any]) -> str:
    counts = report["train"]["labels"]
    names = sorted(counts, key=lambda name: -counts[name])
    rows = [[printable(name), *(f"{of['labels'][name]:,}" for of in report.values())] for name in names[:TYPES_SHOWN]]
    header = ["type", *report]
    more = f"\nand {len(names) - TYPES_SHOWN} more types" if len(names) > TYPES_SHOWN else ""
    return "\n" + text_table(header, rows, range(1, len(header)), terminal_width()) + more


def _warnings(report: dict[str, Any]) -> list[str]:
    lines = []
    absent = [printable(name) for name, count in report["train"]["labels"].items() if not count]
    if absent:
        lines.append(f"look: no row of train has the type(s) {listed(absent)}: add such rows, or remove the type")
    for split, described in report.items():
        if count := described["words_without_tokens"]:
            lines.append(
                f"look: the tokenizer drops {count} word(s) of {split}, such as words of invisible characters: they "
                "always get the tag O; remove them"
            )
        lines += shared_warnings("row", split, described)
    return lines
