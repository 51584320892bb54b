"""The report on prompts and candidates before training: sizes, lengths, cuts, and rows to look at."""

from typing import Any

import numpy as np

from nlp_ft.data.choices.encoding import ChoiceData
from nlp_ft.data.columns import numbers, text_hash
from nlp_ft.data.report import num_repeated, num_shared
from nlp_ft.tables import terminal_width, text_table, wrapped

COLUMNS = {
    "rows": "rows",
    "candidates": "candidates",
    "median_tokens": "tokens",
    "max_tokens": "longest",
    "cut_prompts": "cut prompts",
    "cut_candidates": "cut candidates",
}
"""Key of the report -> head of its column: tokens are those of a prompt with its longest candidate, as they are read,
median and maximum."""


def describe_choices(data: ChoiceData) -> dict[str, Any]:
    """Describe every split in plain values, which `format_choice_report` prints and a run records.

    Returns:
        Split name -> `rows`, `candidates` of a row (such as `4`, or `2 to 5`), median and maximum of the tokens that
        the model reads at once, rows with a cut prompt, cut candidates, and counts of rows to look at; all splits but
        `train` also get `also_in_train`, the rows with the prompt and the candidates of a row of train.
    """
    hashes = {
        split: np.array([text_hash([row["prompt"], *sorted(row["candidates"])]) for row in rows])
        for split, rows in data.raw.items()
    }
    return {split: _describe(data, split, hashes) for split in data.raw}


def _describe(data: ChoiceData, split: str, hashes: dict[str, np.ndarray]) -> dict[str, Any]:
    rows, encoded = data.raw[split], data.rows_of[split]
    candidates = rows["candidates"][:]
    counts = data.num_candidates(split)
    tokens = numbers(encoded, "num_tokens") // counts
    least, most = int(counts.min()), int(counts.max())
    described: dict[str, Any] = {
        "rows": len(rows),
        "labels": {},
        "candidates": str(most) if least == most else f"{least} to {most}",
        "median_tokens": float(np.median(tokens)),
        "max_tokens": int(tokens.max()),
        "cut_prompts": int(numbers(encoded, "is_prompt_cut").sum()),
        "cut_candidates": int(numbers(encoded, "cut_candidates").sum()),
        "same_candidates": sum(len(set(of_row)) < len(of_row) for of_row in candidates),
        "repeated": num_repeated(hashes[split]),
    }
    if split != "train":
        described["also_in_train"] = num_shared(hashes[split], hashes["train"])
    return described


def format_choice_report(report: dict[str, Any]) -> str:
    """Format the report of `describe_choices` as a table, followed by one line for each thing to look at."""
    cells = [[split, *(_cell(described[key]) for key in COLUMNS)] for split, described in report.items()]
    header = ["split", *COLUMNS.values()]
    table = text_table(header, cells, right=range(1, len(header)), width=terminal_width())
    return wrapped("\n".join([table, *(line for split in report for line in _remarks(split, report[split]))]))


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _remarks(split: str, described: dict[str, Any]) -> list[str]:
    found = {
        "cut_candidates": "candidate(s) of {} are cut, because they are too long even without a prompt: raise "
        "data.max_length",
        "cut_prompts": "row(s) of {} lose the beginning of their prompt: raise data.max_length",
        "same_candidates": "row(s) of {} have a candidate twice, so that one of the two is called wrong",
        "repeated": "row(s) of {} occur again with the same prompt and candidates: remove the repetitions",
        "also_in_train": "row(s) of {} are also in train: the scores there are too good",
    }
    counts = {key: described.get(key) for key in found}
    return [f"look: {count:,} {found[key].format(split)}" for key, count in counts.items() if count]
