"""Rewrites tags of IOB1 as IOB2: the files of CoNLL-2003 have IOB1 as they were published.

Under IOB1 an entity is marked by I- alone; B- begins one that stands right behind another one of the same type
(Tjong Kim Sang and Veenstra 1999, https://aclanthology.org/E99-1023). A few B- elsewhere begin an entity too, as in the
CoNLL evaluation: the train file of CoNLL-2003 has two.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from nlp_ft.data.stored import stored_map
from nlp_ft.data.words.spans import OUTSIDE, PREFIXES, first_break

MOST_ELSEWHERE = 0.01
"""Most entities behind another type or `O` that may begin with B-, as a share; more would be IOB2 with mistakes."""


def reads_as_iob1(codes: np.ndarray, lengths: np.ndarray, names: Sequence[str]) -> bool:
    """Whether tags break IOB2, and read as IOB1.

    Args:
        codes: the tags of all rows, one row after the other, as positions in `names`, (words,).
        lengths: number of words of each row, (rows,), each above 0.
        names: the different tags.
    """
    inside = [name for name in names if name != OUTSIDE]
    if any(name[:1] not in PREFIXES["iob2"] or name[1:2] != "-" for name in inside):
        return False
    if first_break(codes, lengths, names, "iob2") is None:
        return False
    types = {name: i for i, name in enumerate(dict.fromkeys(name[2:] for name in inside))}
    of_code = np.array([-1 if name == OUTSIDE else types[name[2:]] for name in names])
    is_b = np.array([name.startswith("B-") for name in names])
    before, here = np.roll(of_code[codes], 1), of_code[codes]
    before[np.cumsum(lengths) - lengths] = -1
    return float(is_b[codes[(here >= 0) & (here != before)]].mean()) <= MOST_ELSEWHERE


def as_iob2(rows: Dataset, tags: str) -> Dataset:
    """Rewrite the tags of rows, cached on the disk.

    Args:
        rows: rows whose tags follow IOB1.
        tags: the column of the tags.
    """
    return stored_map(rows, _rewrite, {"tags": tags}, features=rows.features, desc="Reading IOB1")


def _rewrite(batch: Mapping[str, list[Any]], tags: str) -> dict[str, list[Any]]:
    return {tags: [_of_row(of_row) for of_row in batch[tags]]}


def _of_row(tags: Sequence[str]) -> list[str]:
    return [
        f"B-{tag[2:]}" if tag != OUTSIDE and before[2:] != tag[2:] else tag for before, tag in zip(["", *tags], tags)
    ]
