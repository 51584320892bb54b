"""Scores of tags: spans that agree in both borders and in type, overall and by type, and the share of right words.

The spans are counted here and not by seqeval, which had its last release in 2020 and has no wheel; the tests compare
with it. They are those of its strict mode, because `predict` reports the same spans.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nlp_ft.data.words.spans import spans_of
from nlp_ft.recipe.words import TagScheme

Tags = Sequence[Sequence[str]]
"""The tags of each row."""


@dataclass(frozen=True)
class Counts:
    """Numbers of spans: in both, predicted, and in the data."""

    both: int = 0
    predicted: int = 0
    support: int = 0

    @property
    def precision(self) -> float:
        """Share of the predicted spans that are in the data; 0 if there is none."""
        return self.both / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the spans of the data that are predicted; 0 if there is none."""
        return self.both / self.support if self.support else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are."""
        total = self.predicted + self.support
        return 2 * self.both / total if total else 0.0


def count_spans(predicted: Tags, references: Tags, scheme: TagScheme) -> dict[str, Counts]:
    """Count the spans of each type that occurs, in the order of the types' names."""
    both: Counter[str] = Counter()
    of_predicted: Counter[str] = Counter()
    of_references: Counter[str] = Counter()
    for tags, true_tags in zip(predicted, references, strict=True):
        found, true = set(spans_of(tags, scheme)), set(spans_of(true_tags, scheme))
        for counter, spans in ((both, found & true), (of_predicted, found), (of_references, true)):
            counter.update(span.label for span in spans)
    types = sorted(of_predicted.keys() | of_references.keys())
    return {name: Counts(both[name], of_predicted[name], of_references[name]) for name in types}


def total(counts: Iterable[Counts]) -> Counts:
    """Add up the counts of several types."""
    found = list(counts)
    return Counts(sum(c.both for c in found), sum(c.predicted for c in found), sum(c.support for c in found))


def score_tags(predicted: Tags, references: Tags, scheme: TagScheme) -> dict[str, float]:
    """Compute `span_f1`, `span_precision` and `span_recall` over all spans, `macro_f1`, `accuracy`.

    `macro_f1` is the mean F1 of the types that occur; `accuracy` is the share of words with the right tag.
    """
    counts = count_spans(predicted, references, scheme)
    overall = total(counts.values())
    pairs = [pair for tags, true in zip(predicted, references) for pair in zip(tags, true, strict=True)]
    return {
        "span_f1": overall.f1,
        "span_precision": overall.precision,
        "span_recall": overall.recall,
        "macro_f1": sum(of.f1 for of in counts.values()) / len(counts) if counts else 0.0,
        "accuracy": sum(tag == true for tag, true in pairs) / len(pairs),
    }


def per_type(predicted: Tags, references: Tags, scheme: TagScheme) -> list[dict[str, Any]]:
    """Compute `type`, `precision`, `recall`, `f1`, `support` and `predicted` of each type that occurs."""
    return [
        {
            "type": name,
            "precision": of.precision,
            "recall": of.recall,
            "f1": of.f1,
            "support": of.support,
            "predicted": of.predicted,
        }
        for name, of in count_spans(predicted, references, scheme).items()
    ]
