"""Operations of training steps, against counts by hand for a tiny BERT."""

from pathlib import Path
from typing import Any

import pytest

from nlp_ft.data.batch import model_inputs
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.study.flops import flops_of_phases, flops_of_run, typical_batches
from nlp_ft.tasks.registry import task_of
from tests.tiny import tiny_recipe

ROWS, SEQ_LEN, HIDDEN, WIDE, LABELS = 8, 7, 16, 32, 3
TOKENS = ROWS * SEQ_LEN
PROJECTION = 2 * TOKENS * HIDDEN * HIDDEN
"""One of the query, key, value and output of attention."""
BLOCK = 4 * PROJECTION + 2 * (2 * TOKENS * HIDDEN * WIDE) + 2 * (2 * ROWS * SEQ_LEN * SEQ_LEN * HIDDEN)
HEAD = 2 * ROWS * HIDDEN * LABELS
FORWARD = 2 * BLOCK + HEAD
FULL = 3 * FORWARD
"""Each product costs two more in the backward pass: for its weights, and for what it was computed from."""
HEAD_ONLY = FORWARD + HEAD
"""What the head is computed from needs no gradient."""
TOP_BLOCK = FORWARD + 2 * HEAD + 2 * BLOCK - 3 * PROJECTION
"""The lowest block that trains gives no gradient to what is below its query, key and value."""


def test_the_counts_by_hand_are_these() -> None:
    assert (BLOCK, FULL, HEAD_ONLY, TOP_BLOCK) == (254_464, 1_529_088, 510_464, 934_144)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("full", [FULL]),
        ("head_only", [HEAD_ONLY]),
        ("lp_ft", [HEAD_ONLY, FULL]),
        ({"name": "top_layers", "trainable_blocks": 1}, [TOP_BLOCK]),
    ],
)
def test_what_is_frozen_costs_no_backward_pass(
    strategy: Any, expected: list[int], tmp_path: Path, tiny_encoder: Path
) -> None:
    recipe = recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, strategy=strategy))
    task = task_of(recipe)
    [batch] = typical_batches(recipe, task)
    assert model_inputs(batch)["input_ids"].shape == (ROWS, SEQ_LEN)
    assert flops_of_phases(recipe, task) == expected


def test_a_run_costs_the_steps_of_its_phases() -> None:
    summary = {"phases": [{"step": 0}, {"step": 15}], "global_step": 60}
    assert flops_of_run(summary, [10, 1000]) == 15 * 10 + 45 * 1000
    assert flops_of_run({**summary, "phases": [{"step": 0}]}, [10, 1000]) == 60 * 10
