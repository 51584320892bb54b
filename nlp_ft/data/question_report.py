"""The report on questions before training: sizes, windows, answers, and rows to look at."""

from typing import Any

import numpy as np

from nlp_ft.data.answer_checks import NEAR
from nlp_ft.data.columns import numbers, text_hash
from nlp_ft.data.question_windows import QuestionData
from nlp_ft.tables import terminal_width, text_table, wrapped

COLUMNS = {
    "rows": "questions",
    "contexts": "contexts",
    "windows_a_question": "windows",
    "median_tokens": "tokens",
    "median_answer_words": "words",
    "max_answer_words": "longest",
    "unanswerable": "no answer",
}
"""Key of the report -> head of its column, in short: windows of a question, median of the tokens of a window, median
and most words of an answer."""


def describe_questions(data: QuestionData) -> dict[str, Any]:
    """Describe every split in plain values, which `format_question_report` prints and a run records.

    Returns:
        Split name -> `rows` (questions), `contexts`, `windows`, `windows_a_question`, `median_tokens` of a window,
        words of the first answers, `unanswerable` (share), and counts of rows to look at; all splits but `train` also
        get `also_in_train`, the questions whose context is in train.
    """
    hashes = {split: [text_hash([context]) for context in rows["context"]] for split, rows in data.raw.items()}
    return {split: _describe(data, split, hashes) for split in data.raw}


def _describe(data: QuestionData, split: str, hashes: dict[str, list[int]]) -> dict[str, Any]:
    rows, windows = data.raw[split], data.windows_of[split]
    answers = rows["answers"][:]
    words = [len(of_row[0].split()) for of_row in answers if of_row] or [0]
    row_of_window = data.windows(split).rows
    pairs = [(hashed, question.lower()) for hashed, question in zip(hashes[split], rows["question"])]
    described: dict[str, Any] = {
        "rows": len(rows),
        "labels": {},
        "contexts": len(set(hashes[split])),
        "windows": len(windows),
        "windows_a_question": round(len(windows) / len(rows), 2),
        "median_tokens": float(np.median(data.lengths(split))),
        "median_answer_words": float(np.median(words)),
        "max_answer_words": max(words),
        "unanswerable": sum(not of_row for of_row in answers) / len(rows),
        "several_answers": sum(len(of_row) > 1 for of_row in answers),
        "respaced_answers": sum(rows["is_respaced"]),
        "moved_answers": sum(rows["is_moved"]),
        "cut_questions": len(np.unique(row_of_window[numbers(windows, "is_question_cut")])),
        "repeated": len(pairs) - len(set(pairs)),
    }
    if split != "train":
        train = set(hashes["train"])
        described["also_in_train"] = sum(hashed in train for hashed in hashes[split])
    return described


def format_question_report(report: dict[str, Any]) -> str:
    """Format the report of `describe_questions` as a table, followed by one line for each thing to look at."""
    cells = [[split, *(_cell(key, described[key]) for key in COLUMNS)] for split, described in report.items()]
    header = ["split", *COLUMNS.values()]
    table = text_table(header, cells, right=range(1, len(header)), width=terminal_width())
    return wrapped("\n".join([table, *(line for split in report for line in _remarks(split, report[split]))]))


def _cell(key: str, value: float) -> str:
    return f"{value:.1%}" if key == "unanswerable" else f"{value:,}" if key in ("rows", "contexts") else f"{value:g}"


def _remarks(split: str, described: dict[str, Any]) -> list[str]:
    found = {
        "respaced_answers": "have an answer whose white space differs from that of its context; the context's is taken",
        "moved_answers": f"have an answer that stands up to {NEAR} characters beside its answer_start: it is taken "
        "from there, the only place where the context has it",
        "cut_questions": "are cut, because they would leave too little of a window for the context: raise "
        "data.max_length",
        "repeated": "occur again with the same context: remove the repetitions",
        "also_in_train": "have a context that is also in train: the scores there are too good; split by article",
    }
    counts = {key: described.get(key) for key in found}
    lines = [f"look: {count} question(s) of {split} {found[key]}" for key, count in counts.items() if count]
    if described["several_answers"] and split == "train":
        lines.append(
            f"{described['several_answers']} question(s) of train have several answers: the first one is learned"
        )
    return lines
