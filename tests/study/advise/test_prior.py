"""The textbook's table, and what is believed of each strategy before anything is measured."""

import pytest

from nlp_ft.study.advise.prior import GAINS, Belief, Prior, belief, table_answer


@pytest.mark.parametrize(
    ("num_rows", "tokens_per_word", "strategy"),
    [
        (999, 1.3, "head_only"),
        (999, 1.31, "top_layers"),
        (1_000, 1.3, "llrd"),
        (1_000, 1.31, "scratch"),
        (50, None, "head_only"),
        (50_000, None, "llrd"),
    ],
)
def test_the_table_answers_by_rows_and_domain(num_rows: int, tokens_per_word: float | None, strategy: str) -> None:
    assert table_answer(num_rows, tokens_per_word).strategy == strategy


@pytest.mark.parametrize(
    ("tokens_per_word", "distance", "strategy"),
    [(1.31, 1.6, "head_only"), (1.3, 1.61, "head_only"), (1.31, 1.61, "top_layers"), (None, 1.61, "top_layers")],
)
def test_a_domain_is_different_if_all_that_is_measured_says_so(
    tokens_per_word: float | None, distance: float, strategy: str
) -> None:
    assert table_answer(999, tokens_per_word, distance).strategy == strategy


def test_the_table_says_which_cell_it_was_and_where_its_borders_are() -> None:
    assert table_answer(96, 1.04).cell == (
        "little data (96 rows, border 1,000), similar domain (1.04 tokens a word, border 1.3)"
    )
    assert table_answer(96, 1.04, 1.126).cell.endswith(
        "similar domain (1.04 tokens a word, border 1.3; 1.13 x the distance within general English, border 1.6)"
    )
    assert table_answer(2_000, None).cell == "much data (2,000 rows, border 1,000), similar domain (no measure)"


def test_a_belief_leans_to_the_answer_of_the_table_and_no_other_moves() -> None:
    little = Prior("head_only", "")
    assert belief("head_only", little) == Belief(-3.0, 6.0)
    assert belief("head_only", Prior("llrd", "")) == Belief(-6.0, 6.0)
    assert belief("full", little) == GAINS["full"] == Belief(0.0, 1.0)
    assert belief("llrd", Prior("llrd", "")) == Belief(0.0, 0.0)


def test_a_strategy_without_published_gain_is_believed_to_be_like_the_default() -> None:
    assert belief("lora", Prior("llrd", "")) == Belief(0.0, 2.0)
