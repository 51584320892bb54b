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
NEAR = 1.6
"""Up to so many times the distance within general English, texts are near it in the middle layer of the encoder.

With MiniLM, 14 sets of English prose and tweets have 1.1 to 1.5; code, other languages and noise have 2.0 to 3.0.
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


def table_answer(num_rows: int, tokens_per_word: float | None, distance: float | None = None) -> Prior:
    """Look up the table. A domain is different if all that is measured says so: each measure alone has false alarms.

    Args:
        num_rows: rows of train.
        tokens_per_word: how far the tokenizer must split the words; None where there are none.
        distance: how far the texts are from general English, see `Domain`; None where that is not measured.
    """
    is_little = num_rows < FEW_ROWS
    measures = [
        (tokens_per_word, SIMILAR, "tokens a word"),
        (distance, NEAR, "x the distance within general English"),
    ]
    measured = [(value, border, what) for value, border, what in measures if value is not None]
    is_similar = not measured or any(value <= border for value, border, _ in measured)
    answers = {
        (True, True): "head_only",
        (True, False): "top_layers",
        (False, True): DEFAULT,
        (False, False): "scratch",
    }
    rows = f"{'little' if is_little else 'much'} data ({num_rows:,} rows, border {FEW_ROWS:,})"
    said = "; ".join(f"{value:.2f} {what}, border {border}" for value, border, what in measured)
    domain = f"{'similar' if is_similar else 'different'} domain ({said or 'no measure'})"
    return Prior(answers[is_little, is_similar], f"{rows}, {domain}")


def belief(strategy: str, prior: Prior) -> Belief:
    """Return the belief in a strategy, which leans to the answer of the table."""
    found = GAINS[strategy] if strategy in GAINS else Belief(0.0, 2.0)
    if strategy == prior.strategy and found.mean < 0:
        return Belief((1 - LEAN) * found.mean, found.deviation)
    return found
