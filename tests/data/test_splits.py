"""A validation share: the rows that scikit-learn draws by the labels themselves, without an object for each row."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from sklearn.model_selection import train_test_split

from nlp_ft.data.splits import draw_validation

FEATURES: dict[str, tuple[list[Any], Any]] = {
    "names": (["b", "a", "ü", "B", "long name with words"], Value("string")),
    "numbers": ([10, -1, 2, 7, 300], Value("int64")),
    "truth": ([True, False], Value("bool")),
    "ids": ([2, 0, 1], ClassLabel(names=["z", "y", "x"])),
}


def labelled(kind: str, count: int) -> tuple[Dataset, list[Any]]:
    values, feature = FEATURES[kind]
    drawn = np.random.default_rng(0).integers(0, len(values), count)
    labels = [values[i] for i in drawn]
    return Dataset.from_dict(
        {"label": labels, "row": range(count)}, Features(label=feature, row=Value("int64"))
    ), labels


@pytest.mark.parametrize("is_selection", [False, True])
@pytest.mark.parametrize("kind", FEATURES)
def test_the_rows_are_those_drawn_by_the_labels_themselves(kind: str, is_selection: bool) -> None:
    rows, labels = labelled(kind, 300)
    numbers = np.arange(300)
    if is_selection:
        numbers = np.random.default_rng(1).permutation(300)[:200]
        rows, labels = rows.select(numbers), [labels[i] for i in numbers]
    train, held_out = train_test_split(np.arange(len(labels)), test_size=0.3, stratify=labels, random_state=0)
    drawn = draw_validation({"train": rows, "test": rows}, "label", ["row"], "30%")
    assert drawn["train"]["row"][:] == numbers[np.sort(train)].tolist()
    assert drawn["validation"]["row"][:] == numbers[np.sort(held_out)].tolist()
    assert drawn["test"] is rows


def test_the_share_is_drawn_without_an_object_for_each_row() -> None:
    rows, _ = labelled("names", 50_000)
    tracemalloc.start()
    draw_validation({"train": rows}, "label", ["row"], "10%")
    peak = tracemalloc.get_traced_memory()[1] / len(rows)
    tracemalloc.stop()
    # A few arrays of 8 bytes a row; the labels as Python strings took 295 in all.
    assert peak < 100


def test_rows_with_equal_inputs_are_drawn_together_and_classes_keep_their_shares() -> None:
    # 100 different texts of each of two classes, those of the first three times and in two spellings.
    texts = [f"{spelling} {i}" for spelling in ("Text", "text", "text ") for i in range(100)] + [
        f"other {i}" for i in range(100)
    ]
    rows = Dataset.from_dict({"text": texts, "label": ["a"] * 300 + ["b"] * 100})
    drawn = draw_validation({"train": rows}, "label", ["text"], "20%")
    assert {split: drawn[split]["label"][:].count("a") for split in drawn} == {"train": 240, "validation": 60}
    assert {split: drawn[split]["label"][:].count("b") for split in drawn} == {"train": 80, "validation": 20}
    plain = {split: {text.lower().strip() for text in drawn[split]["text"]} for split in drawn}
    assert not plain["train"] & plain["validation"]


def test_the_two_texts_of_a_pair_count_together_and_a_class_of_one_text_stays_in_train() -> None:
    pairs = [(f"a{i // 2}", f"b{i % 2}") for i in range(40)]
    rows = Dataset.from_dict(
        {
            "one": [a for a, _ in pairs] + ["c"] * 5,
            "two": [b for _, b in pairs] + ["c"] * 5,
            "label": [0] * 40 + [1] * 5,
        }
    )
    drawn = draw_validation({"train": rows}, "label", ["one", "two"], "10%")
    # All 40 pairs differ, though each text occurs twice; the five rows of the second class are one input.
    assert (len(drawn["train"]), drawn["validation"]["label"][:]) == (41, [0] * 4)


def test_a_toy_set_of_two_texts_is_drawn_by_rows() -> None:
    rows = Dataset.from_dict({"text": ["good", "bad"] * 50, "label": [1, 0] * 50})
    drawn = draw_validation({"train": rows}, "label", ["text"], "10%")["validation"]
    assert sorted(drawn["label"]) == [0] * 5 + [1] * 5
