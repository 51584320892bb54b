"""Spans and their scores, beside seqeval on random tags, and by hand."""

import numpy as np
import pytest
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, IOBES, Entities

from nlp_ft.data.words.spans import Span, find_scheme, first_break, spans_of, tags_of
from nlp_ft.errors import DataError
from nlp_ft.recipe.words import TagScheme
from nlp_ft.tasks.tag_metrics import count_spans, per_type, score_tags

TYPES = ["person", "place", "work"]
SCHEMES = {"iob2": (IOB2, "BI"), "iobes": (IOBES, "BIES")}


def random_tags(generator: np.random.Generator, prefixes: str) -> list[list[str]]:
    """Rows of tags in any order, most of them broken."""
    tags = ["O", "O", *(f"{prefix}-{name}" for prefix in prefixes for name in TYPES[: generator.integers(1, 4)])]
    return [generator.choice(tags, generator.integers(1, 9)).tolist() for _ in range(generator.integers(1, 5))]


@pytest.mark.parametrize("scheme", ["iob2", "iobes"])
def test_the_spans_and_scores_of_a_thousand_random_cases_are_those_of_seqeval_in_strict_mode(scheme: TagScheme) -> None:
    theirs, prefixes = SCHEMES[scheme]
    generator = np.random.default_rng(0)
    num_spans = 0
    for _ in range(1000):
        references = random_tags(generator, prefixes)
        changed = random_tags(generator, prefixes)
        predicted = [
            [tag if generator.random() < 0.7 else str(generator.choice(changed[0])) for tag in row]
            for row in references
        ]
        expected = Entities(predicted, theirs).entities
        found = [[(span.label, span.start, span.end) for span in spans_of(row, scheme)] for row in predicted]
        assert found == [[(e.tag, e.start, e.end) for e in row] for row in expected]
        num_spans += sum(map(len, found))
        scores = score_tags(predicted, references, scheme)
        if any(expected) or any(Entities(references, theirs).entities):
            options = {"mode": "strict", "scheme": theirs, "zero_division": 0}
            for name, function in {"precision": precision_score, "recall": recall_score, "f1": f1_score}.items():
                assert scores[f"span_{name}"] == pytest.approx(function(references, predicted, **options))
            assert scores["macro_f1"] == pytest.approx(f1_score(references, predicted, average="macro", **options))
    assert num_spans > 1000


@pytest.mark.parametrize("scheme", ["iob2", "iobes"])
def test_tags_that_keep_the_scheme_have_the_spans_of_seqevals_default_mode_too(scheme: TagScheme) -> None:
    generator = np.random.default_rng(1)
    for _ in range(1000):
        spans, position = [], 0
        while position < 8:
            position += int(generator.integers(0, 3))
            end = position + int(generator.integers(1, 4))
            spans.append(Span(position, end, str(generator.choice(TYPES))))
            position = end
        tags = tags_of(spans, 16, scheme)
        assert spans_of(tags, scheme) == spans
        assert [(label, start, end + 1) for label, start, end in get_entities(tags)] == [
            (span.label, span.start, span.end) for span in spans
        ]
        names = sorted(set(tags))
        codes = np.array([names.index(tag) for tag in tags])
        assert first_break(codes, np.array([16]), names, scheme) is None


def test_scores_are_those_worked_out_by_hand() -> None:
    references = [["B-a", "I-a", "O"], ["B-b", "O", "B-a"]]
    predicted = [["B-a", "O", "O"], ["B-b", "I-a", "B-a"]]
    # Right: b and the last a. Predicted a(0:1), b, a: 3; in the data a(0:2), b, a: 3. `I-a` behind `B-b` is no span.
    assert score_tags(predicted, references, "iob2") == pytest.approx(
        {"span_f1": 2 / 3, "span_precision": 2 / 3, "span_recall": 2 / 3, "macro_f1": (0.5 + 1) / 2, "accuracy": 4 / 6}
    )
    assert [(row["type"], row["f1"], row["support"]) for row in per_type(predicted, references, "iob2")] == [
        ("a", 0.5, 2),
        ("b", 1.0, 1),
    ]


def test_plain_tags_count_word_by_word_and_o_is_no_span() -> None:
    scores = score_tags([["NOUN", "O", "VERB"]], [["NOUN", "VERB", "VERB"]], "none")
    assert scores["span_precision"] == 1.0
    assert scores["span_recall"] == pytest.approx(2 / 3)
    assert count_spans([["O"]], [["O"]], "none") == {}


@pytest.mark.parametrize(
    ("tags", "setting", "scheme"),
    [
        (["O", "B-a", "I-a"], "auto", "iob2"),
        (["B-a"], "auto", "iob2"),
        (["O", "B-a", "E-a"], "auto", "iobes"),
        (["O", "S-a"], "auto", "iobes"),
        (["NOUN", "VERB", "X"], "auto", "none"),
        (["O", "B-a"], "none", "none"),
        (["O", "B-a"], "iobes", "iobes"),
    ],
)
def test_the_scheme_is_seen_in_the_tags(tags: list[str], setting: TagScheme, scheme: str) -> None:
    assert find_scheme(setting, tags, "data.label") == scheme


@pytest.mark.parametrize(
    ("tags", "setting"), [(["O", "B-a", "L-a"], "auto"), (["O", "B-a", "PER"], "auto"), (["O", "S-a"], "iob2")]
)
def test_tags_of_another_scheme_are_named(tags: list[str], setting: TagScheme) -> None:
    with pytest.raises(DataError, match=rf"data.label: the tags must be O, B-TYPE, .* but there are: {tags[-1]}"):
        find_scheme(setting, tags, "data.label")


@pytest.mark.parametrize(
    ("rows", "scheme", "position"),
    [
        ([["O", "I-a"]], "iob2", 1),
        ([["B-a"], ["I-a"]], "iob2", 1),
        ([["B-a", "I-b"]], "iob2", 1),
        ([["O", "B-a", "I-a"]], "iob2", None),
        ([["B-a", "O"]], "iobes", 1),
        ([["O"], ["B-a"]], "iobes", 1),
        ([["S-a", "I-a"]], "iobes", 1),
        ([["B-a", "I-a", "E-a", "S-a"]], "iobes", None),
        ([["E-a"]], "iobes", 0),
    ],
)
def test_the_first_break_of_a_scheme_is_found(rows: list[list[str]], scheme: TagScheme, position: int | None) -> None:
    names = sorted({tag for row in rows for tag in row})
    codes = np.array([names.index(tag) for row in rows for tag in row])
    assert first_break(codes, np.array([len(row) for row in rows]), names, scheme) == position
