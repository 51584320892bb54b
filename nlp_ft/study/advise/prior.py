"""What is believed before anything is measured: the textbook's table, and published gains of each strategy.

The table is that of courses, such as https://cs231n.github.io/transfer-learning/ (Karpathy): little or much data, in a
domain that is similar to that of pretraining or different. No textbook gives the borders; these are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT = "llrd"
"""The strategy that is advised where nothing tells the others apart; all gains are over it."""
FEW_ROWS = 1_000
"""Fewer rows of train are little data."""
SIMILAR = 1.3
"""Up to so many tokens a word, texts are like those that the tokenizer was made from.

With the tokenizer of BERT, plain English has 1.03 to 1.12, and tweets have 1.09 to 1.18.
"""


@dataclass(frozen=True)
class Belief:
    """A gain over the default, in points, as a normal distribution."""

    mean: float
    deviation: float


GAINS: Mapping[str, Belief] = {
    DEFAULT: Belief(0.0, 0.0),
    "full": Belief(0.0, 1.0),
    "lp_ft": Belief(0.0, 1.5),
    "gradual": Belief(-0.5, 1.5),
    "top_layers": Belief(-2.0, 3.0),
    "head_only": Belief(-6.0, 6.0),
    "scratch": Belief(-20.0, 10.0),
}
"""Strategy -> its gain over the default, from published numbers.

full: LLRD is worth 0.10 +- 0.06 points on IMDb, and within one deviation on small GLUE sets (Zhang et al. 2021,
https://arxiv.org/abs/2006.05987). lp_ft: +1 in distribution (Kumar et al. 2022, https://arxiv.org/abs/2202.10054).
gradual: no gain on TREC-6 and AG (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146), -0.78 on GLUE (Raffel et
al. 2020, https://arxiv.org/abs/1910.10683). head_only: fine-tuning was -0.25 to +25 points better than a probe on the
same splits. top_layers and scratch: ours, between these and below.
"""
LEAN = 0.5
"""The share of its deficit that the table's answer is forgiven."""


@dataclass(frozen=True)
class Prior:
    """The answer of the table, with the cell that it stands in."""

    strategy: str
    cell: str


def table_answer(num_rows: int, tokens_per_word: float | None) -> Prior:
    """Look up the table.

    Args:
        num_rows: rows of train.
        tokens_per_word: the measure of the domain; None where there are no words, which counts as similar.
    """
    is_little = num_rows < FEW_ROWS
    is_similar = tokens_per_word is None or tokens_per_word <= SIMILAR
    answers = {
        (True, True): "head_only",
        (True, False): "top_layers",
        (False, True): DEFAULT,
        (False, False): "scratch",
    }
    rows = f"{'little' if is_little else 'much'} data ({num_rows:,} rows, border {FEW_ROWS:,})"
    measure = "no measure" if tokens_per_word is None else f"{tokens_per_word:.2f} tokens a word, border {SIMILAR}"
    domain = f"{'similar' if is_similar else 'different'} domain ({measure})"
    return Prior(answers[is_little, is_similar], f"{rows}, {domain}")


def belief(strategy: str, prior: Prior) -> Belief:
    """Return the belief in a strategy, which leans to the answer of the table."""
    found = GAINS[strategy] if strategy in GAINS else Belief(0.0, 2.0)
    if strategy == prior.strategy and found.mean < 0:
        return Belief((1 - LEAN) * found.mean, found.deviation)
    return found
