"""Effective batches: each row once, the same for any number of processes, little padding, by rows or by tokens."""

import numpy as np
import pytest
import torch

from nlp_ft.data.batch_sampling import (
    PADDING_ROW,
    RowBatches,
    TokenBatches,
    epoch_batches,
    micro_batches,
    token_batches,
)

LENGTHS = np.random.default_rng(0).integers(3, 65, 5000)


def padding_ratio(batches: list[np.ndarray], lengths: np.ndarray) -> float:
    """Tokens with padding over tokens without."""
    return sum(len(rows) * int(lengths[rows].max()) for rows in batches) / int(lengths.sum())


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
    flat = micro_batches(batch, 3, num_processes)
    parts = [flat[index::num_processes] for index in range(num_processes)]
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
    found = [micro.tolist() for micro in micro_batches(np.arange(rows), 3, 2)]
    assert [found[index::2] for index in range(2)] == expected


TWELVE = np.array([3, 8, 5, 2, 7, 8, 4, 6, 5, 7, 8, 4])
"""Sorted and cut at 16 tokens: 8 8 | 8 7 | 7 6 | 5 5 4 | 4 3 2."""
SHAPES = [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (3, 4)]
"""Accumulation steps and processes."""


def rows_of(batch: list[np.ndarray]) -> list[int]:
    return [int(row) for micro in batch for row in micro if row != PADDING_ROW]


@pytest.mark.parametrize(
    ("accumulation", "processes", "expected"),
    [
        (1, 1, [[[8, 8]], [[8, 7]], [[7, 6]], [[5, 5, 4]], [[4, 3, 2]]]),
        (2, 1, [[[8, 8], [8, 7]], [[7, 6], [5, 5, 4]], [[4, 3, 2]]]),
        (1, 2, [[[8, 8], [8, 7]], [[7, 6], [5, 5, 4]], [[4, 3, 2], [PADDING_ROW]]]),
        (1, 3, [[[8, 8], [8, 7], [7, 6]], [[5, 5, 4], [4, 3, 2], [PADDING_ROW]]]),
        (3, 2, [[[8, 8], [8, 7], [7, 6], [5, 5, 4], [4, 3, 2], [PADDING_ROW]]]),
    ],
)
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_rows_of_like_length_are_cut_by_tokens_alike_in_every_epoch(
    accumulation: int, processes: int, expected: list[list[list[int]]], epoch: int
) -> None:
    batches = TokenBatches(16, accumulation, processes).of_epoch(TWELVE, 3, epoch)
    found = [[[PADDING_ROW if r == PADDING_ROW else int(TWELVE[r]) for r in micro] for micro in b] for b in batches]
    assert sorted(found, reverse=True) == expected


@pytest.mark.parametrize(("accumulation", "processes"), SHAPES)
@pytest.mark.parametrize("rows", [1, 2, 100, 1601])
@pytest.mark.parametrize("budget", [1, 64, 1000])
def test_by_tokens_an_epoch_has_each_row_once_in_the_steps_it_was_said_to_have(
    accumulation: int, processes: int, rows: int, budget: int
) -> None:
    by_tokens = TokenBatches(budget, accumulation, processes)
    for epoch in range(4):
        batches = by_tokens.of_epoch(LENGTHS[:rows], 0, epoch)
        assert len(batches) == by_tokens.steps_per_epoch(LENGTHS[:rows])
        assert sorted(row for batch in batches for row in rows_of(batch)) == list(range(rows))
        assert all(len(batch) % processes == 0 for batch in batches)


def test_no_micro_batch_exceeds_the_tokens_but_a_row_that_is_longer_alone() -> None:
    micro = [rows for batch in TokenBatches(60, 2, 2).of_epoch(LENGTHS, 0, 0) for rows in batch if rows[0] >= 0]
    above = [rows for rows in micro if len(rows) * LENGTHS[rows].max() > 60]
    assert sorted(LENGTHS[np.concatenate(above)].tolist()) == sorted(LENGTHS[LENGTHS > 60].tolist())
    assert {len(rows) for rows in above} == {1}
    # No row of the next batch would have fitted: 60 tokens hold 20 rows of 3.
    assert max(map(len, micro)) == 20


def test_by_tokens_only_the_product_of_processes_and_accumulation_matters() -> None:
    one, accumulated, two = [TokenBatches(512, *shape).of_epoch(LENGTHS, 0, 0) for shape in [(4, 1), (2, 2), (1, 4)]]
    assert [rows_of(batch) for batch in one] == [rows_of(b) for b in accumulated] == [rows_of(b) for b in two]
    assert [rows_of(batch) for batch in one] != [rows_of(b) for b in TokenBatches(512, 1, 1).of_epoch(LENGTHS, 0, 0)]


def test_by_tokens_the_order_and_the_company_of_a_row_depend_on_seed_and_epoch_alone() -> None:
    def batches(seed: int, epoch: int) -> list[list[int]]:
        return [rows_of(batch) for batch in TokenBatches(512, 1, 1).of_epoch(LENGTHS, seed, epoch)]

    first = batches(3, 1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert batches(3, 1) == first
    for seed, epoch in [(3, 0), (3, 2), (4, 0), (1, 3)]:
        other = batches(seed, epoch)
        assert {frozenset(rows) for rows in other}.isdisjoint(frozenset(rows) for rows in first)
        assert [int(LENGTHS[rows].max()) for rows in other] != [int(LENGTHS[rows].max()) for rows in first]


def test_by_tokens_the_padding_is_nearly_that_of_sorting_everything() -> None:
    batches = TokenBatches(512, 2, 2).of_epoch(LENGTHS, 0, 0)
    micro = [rows for batch in batches for rows in batch if rows[0] != PADDING_ROW]
    assert round(padding_ratio(micro, LENGTHS), 3) == 1.005


def test_what_is_said_of_batches_by_rows_is_what_they_hold() -> None:
    by_rows = RowBatches(16, 2, 3, group_by_length=True)
    assert by_rows.describe(LENGTHS) == "96 = 16 per device x 3 process(es) x 2 accumulated"
    assert by_rows.effective_batch_size(LENGTHS) == 96
    assert [len(rows_of(batch)) for batch in by_rows.of_epoch(LENGTHS[:192], 0, 0)] == [96, 96]


def test_what_is_said_of_batches_by_tokens_is_the_mean_of_what_they_hold() -> None:
    by_tokens = TokenBatches(16, 1, 2)
    # 12 rows in 5 micro-batches, and these in 3 effective batches.
    assert by_tokens.describe(TWELVE) == (
        "about 4 rows = about 2 (at most 16 tokens, or one row) per device x 2 process(es) x 1 accumulated"
    )
    assert by_tokens.effective_batch_size(TWELVE) == 4
    sizes = [len(rows_of(batch)) for batch in TokenBatches(1024, 2, 3).of_epoch(LENGTHS, 0, 0)]
    assert TokenBatches(1024, 2, 3).effective_batch_size(LENGTHS) == round(sum(sizes) / len(sizes), 1) == 172.4


def test_the_longest_rows_come_first_and_each_row_is_in_one_batch() -> None:
    batches = token_batches(np.array([3, 9, 4, 3, 20, 4]), 12)
    # A row of 20 tokens is more than the 12 of a batch, and stands alone.
    assert [batch.tolist() for batch in batches] == [[4], [1], [2, 5, 0], [3]]


def test_no_batch_has_more_tokens_than_asked_with_its_padding() -> None:
    lengths = np.random.default_rng(0).integers(2, 65, 3000)
    batches = token_batches(lengths, 1024)
    assert max(len(batch) * lengths[batch].max() for batch in batches) <= 1024
    assert sorted(np.concatenate(batches).tolist()) == list(range(3000))
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert padded / lengths.sum() < 1.02
