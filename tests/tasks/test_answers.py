"""Answers out of logits, and their scores: against brute force, torchmetrics and the definitions of SQuAD."""

import math
import re
import string
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F
from torchmetrics.functional.text import squad
from transformers import AutoTokenizer

from nlp_ft.data.question_windows import QuestionCollator, QuestionWindows, encode_questions
from nlp_ft.tasks.answer_baselines import nearest_sentences, sentences
from nlp_ft.tasks.answer_metrics import (
    Gold,
    answer_length,
    best_threshold,
    exact_match,
    grouped,
    question_word,
    score_answers,
    token_f1,
)
from nlp_ft.tasks.answer_spans import N_BEST, Answer, Candidates, joined_spans
from nlp_ft.tasks.answers import AnswerOutputs
from nlp_ft.tasks.losses import SpanLoss
from tests.tiny_questions import tiny_questions

PIECES = [
    "the",
    "a",
    "An",
    "cat",
    "Cat",
    "dog!",
    "U.S.",
    "--",
    "",
    " ",
    "\u00e9t\u00e9",
    "1,000",
    "theatre",
    "\t",
    "cat's",
]


def official(text: str) -> str:
    """`normalize_answer` of the evaluation script of SQuAD, written out anew: its steps in their order."""
    lowered = "".join(char for char in text.lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", lowered).split())


def random_texts(generator: np.random.Generator) -> str:
    return " ".join(generator.choice(PIECES, int(generator.integers(0, 5))))


def test_version_1_scores_are_those_of_torchmetrics_in_1000_random_cases() -> None:
    generator = np.random.default_rng(0)
    for _ in range(1000):
        predicted, answers = random_texts(generator), [random_texts(generator) for _ in range(generator.integers(1, 4))]
        expected = squad(
            [{"prediction_text": predicted, "id": "1"}],
            [{"answers": {"text": answers, "answer_start": [0] * len(answers)}, "id": "1"}],
        )
        found = score_answers([predicted], [Gold("?", tuple(answers))])
        assert 100 * found["exact_match"] == expected["exact_match"].item(), (predicted, answers)
        # Of two texts without words, version 1 of the script gives 0, and torchmetrics 1 as version 2 does.
        f1 = expected["f1"].item() if official(predicted) else 0.0
        assert 100 * found["f1"] == pytest.approx(f1, abs=1e-4), (predicted, answers)


def official_version_2(predicted: str, answers: list[str]) -> tuple[float, float]:
    """Exact match and F1 as `evaluate-v2.0.py` defines them."""
    golds = [answer for answer in answers if official(answer)] or [""]
    best = 0.0
    for gold in golds:
        words, expected = official(predicted).split(), official(gold).split()
        if not words or not expected:
            best = max(best, float(words == expected))
            continue
        shared = sum((Counter(words) & Counter(expected)).values())
        if shared:
            precision, recall = shared / len(words), shared / len(expected)
            best = max(best, 2 * precision * recall / (precision + recall))
    return float(any(official(predicted) == official(gold) for gold in golds)), best


def test_version_2_scores_follow_their_definition_in_1000_random_cases() -> None:
    generator = np.random.default_rng(1)
    predicted = [random_texts(generator) for _ in range(1000)]
    answers = [[random_texts(generator) for _ in range(generator.integers(0, 3))] for _ in range(1000)]
    rows = np.array([official_version_2(text, of_row) for text, of_row in zip(predicted, answers)])
    has = np.array([bool(of_row) for of_row in answers])
    found = score_answers(predicted, [Gold("?", tuple(of_row)) for of_row in answers])
    expected = {
        "exact_match": rows[:, 0].mean(),
        "f1": rows[:, 1].mean(),
        "has_answer_exact_match": rows[has, 0].mean(),
        "has_answer_f1": rows[has, 1].mean(),
        "no_answer_accuracy": rows[~has, 0].mean(),
    }
    assert found == pytest.approx(expected, abs=1e-12)


def test_scores_by_hand() -> None:
    assert exact_match("The U.S.", "us") == 1
    assert token_f1("the black cat", "a black, black dog") == pytest.approx(2 * 1 / (2 + 3))
    assert (token_f1("", "the"), token_f1("", "the", has_unanswerable=True)) == (0, 1)
    golds = [Gold("?", ("cat",)), Gold("?", ())]
    assert score_answers(["", ""], golds)["no_answer_accuracy"] == 1
    assert score_answers(["", "cat"], golds)["no_answer_accuracy"] == 0


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("How many cats are there?", "how many"),
        ("how is it?", "how"),
        ("In what year?", "what"),
        ("The man whose cat, who is he?", "whose"),
        ("WHO?", "who"),
        ("Name a cat", "other"),
        ("Wer ist das?", "other"),
    ],
)
def test_the_first_question_word_names_the_group(question: str, word: str) -> None:
    assert question_word(Gold(question, ("a",))) == word


def test_errors_are_grouped_by_question_word_and_answer_length() -> None:
    golds = [
        Gold("who?", ("Ada",)),
        Gold("who is it?", ("Ada Lovelace",)),
        Gold("when?", ()),
        Gold("why?", ("a " * 11,)),
    ]
    assert [answer_length(gold) for gold in golds] == ["1 word", "2 words", "no answer", "more than 10 words"]
    assert grouped(["Ada"] * 4, golds, question_word)[0] == ("who", 2, 0.5, (1 + 2 / 3) / 2)


def encoded_batch(
    encoder: Path, num_rows: int = 9, side: str = "right"
) -> tuple[dict[str, torch.Tensor], QuestionWindows]:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokenizer.padding_side = side
    rows = tiny_questions(num_rows, 0, no_answer_every=4)
    # Contexts of different lengths.
    for number, row in enumerate(rows):
        row["context"] += " cat\n dog" * (number % 3)
    raw = {
        "question": [row["question"] for row in rows],
        "context": [row["context"] for row in rows],
        "answers": [[answer["text"] for answer in row["answers"]] for row in rows],
        "starts": [[answer["answer_start"] for answer in row["answers"]] for row in rows],
    }
    encoded = Dataset.from_dict(encode_questions(raw, tokenizer, 12, 3))
    batch = QuestionCollator(tokenizer)([{**row, "row": number} for number, row in enumerate(encoded)])
    windows = QuestionWindows(np.cumsum(encoded["begins_row"]) - 1, None, encoded, Dataset.from_dict(raw))
    return batch, windows


def brute_force(
    logits: torch.Tensor, labels: torch.Tensor, places: dict[str, Any], most: int
) -> list[tuple[float, int, int]]:
    """All valid spans of one window: probability, first character, the one after the last; the likeliest first."""
    positions = [i for i, label in enumerate(labels.tolist()) if label != -100]
    shares = logits[positions].double().softmax(0)
    found = []
    for i, first in enumerate(places["first_characters"]):
        for j, last in enumerate(places["end_characters"]):
            if first >= 0 and last >= 0 and 0 <= j - i < most:
                found.append(((shares[i, 0] * shares[j, 1]).item(), first, last))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_best_spans_of_each_window_are_those_of_brute_force(tiny_encoder: Path, side: str) -> None:
    batch, windows = encoded_batch(tiny_encoder, side=side)
    torch.manual_seed(0)
    logits = 3 * torch.randn(*batch["labels"].shape, 2)
    kept = AnswerOutputs(None, 3).of_batch(logits, batch, windows)
    assert kept["spans"].shape == (len(batch["labels"]), N_BEST, 2)
    for row, labels in enumerate(batch["labels"]):
        expected = brute_force(logits[row], labels, windows.places[row], 3)[:N_BEST]
        num = int((kept["scores"][row] > 0).sum())
        assert num == len(expected)
        torch.testing.assert_close(
            kept["scores"][row, :num], torch.tensor([score for score, _, _ in expected]).double()
        )
        assert kept["spans"][row, :num].tolist() == [[first, last] for _, first, last in expected]


def test_a_padded_batch_gives_the_values_of_single_windows_whatever_stands_at_padding(tiny_encoder: Path) -> None:
    batch, windows = encoded_batch(tiny_encoder)
    outputs, torch_rows = AnswerOutputs(None, 30), range(len(batch["labels"]))
    logits = torch.randn(*batch["labels"].shape, 2)
    whole = outputs.of_batch(logits, batch, windows)
    for row in torch_rows:
        length = int(batch["attention_mask"][row].sum())
        single = {
            key: value[row : row + 1, :length] if value.ndim == 2 else value[row : row + 1]
            for key, value in batch.items()
        }
        alone = outputs.of_batch(logits[row : row + 1, :length], single, windows)
        for key in ("no_answer", "losses", "chance_losses"):
            torch.testing.assert_close(alone[key][0], whole[key][row], equal_nan=True)
        num = min(alone["scores"].shape[1], N_BEST)
        torch.testing.assert_close(alone["scores"][0, :num], whole["scores"][row, :num])


def test_the_loss_is_the_mean_of_the_two_cross_entropies_over_candidate_tokens(tiny_encoder: Path) -> None:
    batch, _ = encoded_batch(tiny_encoder)
    labels = batch["labels"]
    logits = torch.randn(*labels.shape, 2, requires_grad=True)
    expected, known = torch.zeros(()), 0
    for row in range(len(labels)):
        candidates = labels[row] != -100
        codes = labels[row][candidates]
        if (codes & 1).any():
            places = [int((codes & bit).nonzero()) for bit in (1, 2)]
            expected = (
                expected
                + sum(
                    F.cross_entropy(logits[row, candidates, side], torch.tensor(place))
                    for side, place in enumerate(places)
                )
                / 2
            )
            known += 1
    loss = SpanLoss()
    assert known == len(labels)
    assert loss.weight(labels) == known
    torch.testing.assert_close(loss.total(logits, labels), expected)
    # In parts, with rows that only fill up a batch, the sum is the same.
    filled = torch.cat([labels, torch.full_like(labels[:2], -100)])
    more = torch.cat([logits, torch.randn(2, *logits.shape[1:])])
    parts = [(more[i : i + 4], filled[i : i + 4]) for i in range(0, len(filled), 4)]
    torch.testing.assert_close(sum(loss.total(*part) for part in parts), expected)
    nothing = loss.total(logits[:2], torch.full_like(labels[:2], -100))
    assert nothing.item() == 0
    assert nothing.requires_grad


def kept_of(*no_answers: float, scores: list[list[float]]) -> dict[str, np.ndarray]:
    num = len(no_answers)
    return {
        "spans": np.array([[[0, 3], [4, 7]]] * num),
        "scores": np.array(scores),
        "no_answer": np.array(no_answers),
        "losses": np.array([1.0, math.nan, 3.0][:num]),
        "chance_losses": np.full(num, 2.0),
    }


QUESTIONS = Dataset.from_dict({"question": ["q"], "context": ["cat dog"], "answers": [["cat"]], "starts": [[0]]})


def one_question(kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    windows = QuestionWindows(np.zeros(len(kept["no_answer"]), int), None, None, QUESTIONS)
    return AnswerOutputs(0.0, 30).of_rows(kept, windows)


def test_a_question_has_no_answer_only_if_every_window_says_so() -> None:
    """The null score of a question is the least of its windows: a notebook that takes the greatest is wrong."""
    kept = kept_of(0.05, 0.99, scores=[[0.6, 0.1], [0.004, 0.001]])
    values = one_question(kept)
    found = values["predicted"][0]
    assert found.no_answer == 0.05
    assert AnswerOutputs(0.0, 30).chosen(found) == Answer("cat", 0.6, 0, 3)
    assert values["losses"][0] == 1.0, "a window that learns nothing has no loss"
    everywhere = one_question(kept_of(0.9, 0.99, scores=[[0.06, 0.01], [0.004, 0.001]]))["predicted"][0]
    assert AnswerOutputs(0.0, 30).chosen(everywhere) == Answer("", 0.9)
    assert AnswerOutputs(None, 30).chosen(everywhere).text == "cat"


def test_windows_without_any_span_give_no_answer() -> None:
    values = one_question(kept_of(1.0, 1.0, scores=[[0.0, 0.0], [-100.0, -100.0]]))
    found = values["predicted"][0]
    assert found.answers == ()
    for threshold in (None, 0.0, 1.0):
        outputs = AnswerOutputs(threshold, 30)
        prediction = outputs.prediction(found)
        assert (prediction.answer, prediction.score, prediction.start, prediction.end) == ("", 1.0, None, None)
        assert outputs.lines(prediction, 3) == ["1.0000  (no answer)"]
        assert outputs.tuned(values["predicted"], values["references"]) == outputs


def test_the_threshold_is_on_the_difference_of_probabilities() -> None:
    found = Candidates((Answer("cat", 0.3, 0, 3), Answer("dog", 0.2, 4, 7)), 0.5)
    assert found.margin == pytest.approx(0.2)
    assert AnswerOutputs(0.21, 30).chosen(found).text == "cat"
    assert AnswerOutputs(0.19, 30).chosen(found).text == ""
    lines = AnswerOutputs(0.19, 30).lines(AnswerOutputs(0.19, 30).prediction(found), 3)
    assert lines == ["0.5000  (no answer)", "0.3000  cat  (characters 0 to 3)", "0.2000  dog  (characters 4 to 7)"]


def test_the_tuned_threshold_has_the_best_f1_of_all() -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        num = int(generator.integers(1, 9))
        margins = np.round(generator.uniform(-1, 1, num), 1)
        of_answer, of_none = generator.integers(0, 2, num) * 1.0, generator.integers(0, 2, num) * 1.0
        threshold = best_threshold(margins, of_answer, of_none)

        borders = [threshold, *np.arange(-1.05, 1.06, 0.05), -2, 2]
        found = [np.where(margins > border, of_none, of_answer).sum() for border in borders]
        assert found[0] == max(found)


def test_spans_lose_the_blanks_at_their_ends_and_occur_once() -> None:
    spans = np.array([[0, 4], [1, 3], [3, 5], [5, 8], [4, 8]])
    answers = joined_spans(spans, np.array([0.1, 0.3, 0.9, 0.2, 0.15]), " ab  \ncd")
    assert answers == (Answer("ab", 0.3, 1, 3), Answer("cd", 0.2, 6, 8))


def test_sentences_are_found_and_the_one_that_shares_words_is_the_nearest() -> None:
    context = 'Ada wrote it. "Really?" The cat sleeps in the U.K. all day! End'
    found = sentences(context)
    assert (found[0], found[-1]) == ("Ada wrote it.", "End")
    assert nearest_sentences(["where is the cat?", "zzz"], [found, found]) == ["The cat sleeps in the U.K.", found[0]]
    assert sentences("no full stop") == ["no full stop"]


def test_of_contexts_without_words_the_first_sentence_is_the_nearest() -> None:
    assert nearest_sentences(["a b"], [["x y.", "z"]]) == ["x y."]
