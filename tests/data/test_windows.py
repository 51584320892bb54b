"""Windows of long texts: what they hold, and how values of windows become values of rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_ft import predict
from nlp_ft.data.tokens import encode_texts
from nlp_ft.data.windows import Windows, window_positions
from nlp_ft.errors import RecipeError
from nlp_ft.prediction.predict import evaluate_run
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.recipe.text import WindowPooling
from nlp_ft.training.evaluation import joined
from nlp_ft.training.run import train
from tests.data.test_tokens import CLS, LONG, SEP, SHORT, section, tokenizer
from tests.recipe.test_recipe import a_recipe
from tests.tiny import tiny_recipe


@pytest.mark.parametrize(
    ("length", "room", "stride", "starts"),
    [(5, 5, 2, [0]), (6, 5, 2, [0, 1]), (8, 5, 2, [0, 3]), (9, 5, 2, [0, 3, 4]), (9, 5, 0, [0, 4]), (10, 5, 0, [0, 5])],
)
def test_windows_share_the_stride_and_the_last_is_as_long_as_the_others(
    length: int, room: int, stride: int, starts: list[int]
) -> None:
    windows = window_positions(range(length), room, stride)
    assert [list(window) for window in windows] == [[*range(start, min(length, start + room))] for start in starts]


def test_windows_of_a_long_text_hold_every_token_and_each_begins_and_ends_with_the_special_tokens() -> None:
    data = section(max_length=20, truncation="windows", stride=4)
    encoded = encode_texts([[SHORT, LONG]], tokenizer(), data)
    [short, *windows] = encoded["input_ids"]
    whole = tokenizer()(LONG)["input_ids"]
    assert short == tokenizer()(SHORT)["input_ids"]
    assert encoded["begins_row"] == [True, True, *[False] * (len(windows) - 1)]
    assert encoded["num_tokens"] == [len(short), *[len(whole)] * len(windows)]
    assert encoded["window_tokens"] == [len(short), *[20] * len(windows)]
    assert all((window[0], window[-1]) == (CLS, SEP) for window in windows)
    step = 18 - 4
    rebuilt = [token for window in windows[:-1] for token in window[1 : 1 + step]]
    assert [CLS, *rebuilt] == whole[: 1 + step * (len(windows) - 1)]
    assert windows[-1] == [CLS, *whole[-19:]]


@pytest.mark.parametrize(
    ("pooling", "expected"), [("mean", [[2, 3], [5, 6], [6, 8]]), ("max", [[3, 4], [5, 6], [9, 10]])]
)
def test_logits_of_windows_are_pooled_for_each_row(pooling: WindowPooling, expected: list[list[int]]) -> None:
    windows = Windows(np.array([0, 0, 1, 2, 2, 2]), pooling)
    values = np.array([[1, 4], [3, 2], [5, 6], [2, 5], [7, 9], [9, 10]], np.float32)
    assert windows.pooled(values).tolist() == expected
    assert (windows.starts.tolist(), windows.num_rows) == ([0, 2, 3], 3)


def test_some_windows_keep_the_numbers_of_their_rows() -> None:
    windows = Windows(np.array([0, 0, 1, 2, 2, 2]))
    chosen = windows.of_rows(np.array([0, 2]))
    assert chosen.tolist() == [0, 1, 3, 4, 5]
    assert windows.selected(chosen).rows.tolist() == [0, 0, 2, 2, 2]


def test_arrays_of_different_widths_are_joined_with_ignored_labels_in_the_gaps() -> None:
    parts = [np.array([[1, 2]]), np.array([[3, 4, 5], [6, 7, 8]])]
    assert joined(parts).tolist() == [[1, 2, -100], [3, 4, 5], [6, 7, 8]]


def test_windows_are_refused_for_pairs_and_for_a_stride_that_leaves_no_room() -> None:
    with pytest.raises(RecipeError, match="truncation windows needs a single text"):
        recipe_from_dict(a_recipe(data={"train": "a.csv", "text": ["a", "b"], "truncation": "windows"}))
    with pytest.raises(RecipeError, match="stride must leave room for new tokens in a window of max_length 16, got 32"):
        recipe_from_dict(a_recipe(data={"train": "a.csv", "max_length": 16, "truncation": "windows"}))


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_evaluation_and_prediction_of_a_run_pool_the_logits_of_all_windows_of_a_text(
    pooling: WindowPooling, tmp_path: Path, tiny_encoder: Path
) -> None:
    texts = {"long one": LONG, "long two": f"{LONG} {LONG} red", "short": "red cat"}
    file = tmp_path / "long.csv"
    rows = [f'"{text}",{label}\n' for text, label in zip(texts.values(), "aba")]
    file.write_text("text,label\n" + "".join(rows) * 3)
    places: dict[str, Any] = {"train": str(file), "validation": str(file), "test": None}
    cut: dict[str, Any] = {"max_length": 16, "truncation": "windows", "stride": 4, "window_pooling": pooling}
    recipe = recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, data={**places, **cut}))
    train(recipe)
    folder = tmp_path / "run"
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    own = AutoTokenizer.from_pretrained(folder)
    expected = []
    for text in texts.values():
        windows = own(text, truncation=True, max_length=16, stride=4, return_overflowing_tokens=True)["input_ids"]
        assert len(windows) > (1 if text == LONG else 0)
        # The last window is as long as the others, unlike that of the tokenizer.
        whole = own(text, add_special_tokens=False)["input_ids"]
        windows[-1] = [own.cls_token_id, *whole[-14:], own.sep_token_id]
        with torch.inference_mode():
            logits = torch.cat([model(torch.tensor([window])).logits for window in windows])
        expected.append((logits.mean(0) if pooling == "mean" else logits.amax(0)).softmax(-1).tolist())
    found = [list(prediction.scores.values()) for prediction in predict(folder, list(texts.values()))]
    assert np.allclose(found, expected, atol=1e-5)
    predictions = evaluate_run(folder, split="validation")
    assert predictions.predicted.tolist() == np.argmax(expected * 3, -1).tolist()
    assert np.allclose(predictions.losses, -np.log([expected[i % 3][[0, 1, 0][i % 3]] for i in range(9)]), atol=1e-5)
