"""Questions are read from every form of file, checked against their contexts, and divided into windows."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nlp_ft.data.question_windows import PLACES, encode_questions
from nlp_ft.data.questions import draw_by_article, load_question_splits, read_questions, squad_inputs
from nlp_ft.errors import DataError
from nlp_ft.recipe.questions import QuestionDataSection
from tests.tiny_questions import tiny_questions, write_questions

CONTEXT = "The  cat sleeps.\nThe dog\u00a0runs."
ROW: dict[str, Any] = {"question": "who runs?", "context": CONTEXT, "answers": [{"text": "dog", "answer_start": 21}]}
SECTION = QuestionDataSection(train="-")


def read(folder: Path, *rows: Any, name: str = "a.jsonl", **keys: Any) -> list[dict[str, Any]]:
    file = write_questions(folder / name, list(rows))
    found: list[dict[str, Any]] = read_questions(
        str(file), "data.train", QuestionDataSection(train="-", **keys)
    ).to_list()
    return found


def squad(*rows: dict[str, Any]) -> dict[str, Any]:
    paragraphs = [
        {"context": row["context"], "qas": [{key: row[key] for key in row if key != "context"}]} for row in rows
    ]
    return {"version": "v2.0", "data": [{"title": "Animals", "paragraphs": paragraphs}]}


def test_json_in_the_form_of_squad_is_read_with_its_articles_and_impossible_questions(tmp_path: Path) -> None:
    impossible = {**ROW, "is_impossible": True, "plausible_answers": ROW["answers"], "answers": []}
    (tmp_path / "a.json").write_text(json.dumps(squad({**ROW, "id": "1"}, impossible), indent=1))
    found = read_questions(str(tmp_path / "a.json"), "data.train", SECTION)
    assert found["article"][:] == ["Animals", "Animals"]
    assert (found["answers"][:], found["starts"][:]) == ([["dog"], []], [[21], []])


def test_the_forms_of_answers_give_the_same_rows(tmp_path: Path) -> None:
    expected = read(tmp_path, ROW)
    assert (expected[0]["answers"], expected[0]["starts"], expected[0]["article"]) == (["dog"], [21], CONTEXT)
    lists = {**ROW, "answers": {"text": ["dog"], "answer_start": [21]}}
    flat = {**ROW, "answers": "dog", "answer_start": 21}
    quoted = {**ROW, "answers": [{"text": "dog", "answer_start": "21"}]}
    assert read(tmp_path, quoted) == expected
    renamed = {"q": ROW["question"], "c": CONTEXT, "a": "dog", "s": 21}
    assert read(tmp_path, lists) == read(tmp_path, flat) == expected
    assert read(tmp_path, renamed, question="q", context="c", answers="a", answer_start="s") == expected
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([lists]), tmp_path / "a.parquet")
    assert read_questions(str(tmp_path / "a.parquet"), "data.train", SECTION).to_list() == expected
    (tmp_path / "a.csv").write_text(f'question,context,answers,answer_start\nwho runs?,"{CONTEXT}",dog,21\n')
    assert read_questions(str(tmp_path / "a.csv"), "data.train", SECTION).to_list() == expected


@pytest.mark.parametrize(("text", "start", "place"), [("dog", 16, 21), ("dog", 26, 21), ("The dog runs.", 13, 17)])
def test_an_answer_that_its_context_has_once_is_taken_from_beside_its_place(
    tmp_path: Path, text: str, start: int, place: int
) -> None:
    [found] = read(tmp_path, {**ROW, "answers": [{"text": text, "answer_start": start}]})
    assert (found["starts"], found["is_moved"]) == ([place], True)
    assert CONTEXT[place:].startswith(found["answers"][0])
    assert not read(tmp_path, ROW)[0]["is_moved"]


def test_an_answer_that_its_context_has_twice_is_not_moved(tmp_path: Path) -> None:
    row = {**ROW, "context": "a dog, a dog", "answers": [{"text": "dog", "answer_start": 3}]}
    with pytest.raises(DataError, match=r"answer_start 3 is wrong: .*, which begins at 2, 9"):
        read(tmp_path, row)


def test_several_answers_are_kept_and_the_same_one_only_once(tmp_path: Path) -> None:
    answers = [*ROW["answers"], {"text": "The dog", "answer_start": 17}, *ROW["answers"]]
    [found] = read(tmp_path, {**ROW, "answers": answers})
    assert (found["answers"], found["starts"]) == (["dog", "The dog"], [21, 17])


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        (" dog ", 20, ("dog", 21)),
        ("dog", 20, ("dog", 21)),
        ("The cat", 0, ("The  cat", 0)),
        ("sleeps. The dog", 9, ("sleeps.\nThe dog", 9)),
        ("dog runs", 21, ("dog\u00a0runs", 21)),
    ],
)
def test_an_answer_that_differs_in_white_space_alone_is_that_of_the_context(
    tmp_path: Path, text: str, start: int, expected: tuple[str, int]
) -> None:
    [found] = read(tmp_path, {**ROW, "answers": [{"text": text, "answer_start": start}]})
    assert (found["answers"][0], found["starts"][0]) == expected
    assert found["is_respaced"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": [{"text": "dog", "answer_start": 4}]}, "' ca' there, and the answer is 'dog', which begins at 21"),
        ({"answers": [{"text": "DOG", "answer_start": 21}]}, "which begins at 21 in other case"),
        ({"answers": [{"text": "horse", "answer_start": 4}]}, "which the context does not hold"),
        ({"answers": [{"text": "dog", "answer_start": -3}]}, "the context has nothing there"),
        ({"answers": [{"text": "dog", "answer_start": 900}]}, "the context has nothing there"),
        ({"answers": [{"text": "dog", "answer_start": None}]}, "must have answer_start, the position of"),
        ({"answers": [{"text": "dog", "answer_start": 2.5}]}, "must have answer_start, the position of"),
        ({"answers": [{"text": "dog"}]}, "must have answer_start"),
        ({"answers": [{"text": "  ", "answer_start": 3}]}, "an answer must have a text"),
        ({"answers": [{"text": None, "answer_start": 3}]}, "an answer must have a text"),
        ({"answers": "dog"}, "must have answer_start"),
        ({"answers": "dog", "answer_start": "x"}, "got 'x'"),
        ({"answers": 3}, "its answers must be a list of {text, answer_start}, got 3"),
        ({"answers": ["dog"]}, "must have answer_start"),
        ({"question": " "}, "has no question, got ' '"),
        ({"question": None}, "has no question, got None"),
        ({"context": ""}, "has no context, got ''"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named_with_what_is_wrong(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    good = {**ROW, "answers": [] if isinstance(change.get("answers"), list) else change.get("answers", [])}
    rows = [{**ROW, **change}] if not isinstance(change.get("answers", []), list) else [good, {**ROW, **change}]
    with pytest.raises(DataError) as caught:
        read(tmp_path, *rows)
    assert f"a.jsonl): row {len(rows) - 1} (from 0)" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: write_questions(file, [{"question": "q", "context": "c"}]), "data.answers is 'answers', but"),
        (
            lambda file: write_questions(file, [{**ROW, "question": 3}]),
            "data.question is 'question', a column of int64",
        ),
        (lambda file: write_questions(file, [{**ROW, "context": ["a"]}]), "data.context is 'context', a column of"),
        (lambda file: file.write_text('{"data": [{"paragraphs": [{"qas": []}]}]}'), "has no questions"),
        (lambda file: file.write_text('{"data": [{"title": "a"}]}'), "article 0 (from 0) does not have the form"),
        (lambda file: file.write_text('{"data": []}'), "has no questions"),
        (lambda file: file.write_text("{"), "cannot be read as json"),
    ],
)
def test_a_file_that_holds_no_questions_is_refused(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "a.json")
    with pytest.raises(DataError) as caught:
        read_questions(str(tmp_path / "a.json"), "data.train", SECTION)
    assert message in str(caught.value)


def test_a_question_to_predict_that_is_no_text_is_refused_and_not_called_none(tmp_path: Path) -> None:
    content = {"data": [{"paragraphs": [{"context": "a cat", "qas": [{"id": "7", "question": None}]}]}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"question and context must be texts, got None \(id 7\)$"):
        list(squad_inputs([str(tmp_path / "a.json")], "--file", 10))


def test_several_files_are_named_one_after_the_other(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for file in files:
        Path(file).write_text('{"data": []}')
    with pytest.raises(DataError, match=re.escape(f"data.train ({files[0]}, {files[1]}) has no questions")):
        read_questions(files, "data.train", SECTION)


def test_shares_are_drawn_by_article_and_no_context_is_in_two_splits(tmp_path: Path) -> None:
    file = write_questions(tmp_path / "a.jsonl", tiny_questions(70, 0))
    section = QuestionDataSection(train=str(file), validation="15%", test="30%")
    splits = load_question_splits(section)
    assert list(splits) == ["train", "validation", "test"]
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 40, "validation": 10, "test": 20}
    articles = [set(rows["article"]) for rows in splits.values()]
    assert len(set.union(*articles)) == sum(map(len, articles)) == 7
    without = load_question_splits(section.model_copy(update={"validation": None}))
    assert without["test"]["question"][:] == splits["test"]["question"][:]


@pytest.mark.parametrize(("validation", "test"), [("20%", "60%"), ("1%", "98%"), ("30%", "30%")])
def test_every_split_gets_an_article_if_there_are_enough(validation: str, test: str) -> None:
    train = Dataset.from_dict({"article": ["a", "b", "c"] * 4})
    splits = draw_by_article({"train": train}, {"validation": validation, "test": test})
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 4, "validation": 4, "test": 4}


def test_shares_of_rows_without_title_are_drawn_by_context(tmp_path: Path) -> None:
    rows = [{**row, "context": f"{row['context']} {i // 2}"} for i, row in enumerate(tiny_questions(20, 0))]
    file = write_questions(tmp_path / "a.jsonl", [{k: row[k] for k in row if k != "title"} for row in rows])
    splits = load_question_splits(QuestionDataSection(train=str(file), validation="20%"))
    assert not set(splits["train"]["context"]) & set(splits["validation"]["context"])
    one = write_questions(tmp_path / "b.jsonl", [ROW, ROW])
    with pytest.raises(DataError, match=r"data.validation: shares are drawn by article, and train has 1 article\(s\)"):
        load_question_splits(QuestionDataSection(train=str(one), validation="20%"))


def batch_of(*rows: dict[str, Any]) -> dict[str, list[Any]]:
    flat = [(row["question"], row["context"], row["answers"]) for row in rows]
    return {
        "question": [question for question, _, _ in flat],
        "context": [context for _, context, _ in flat],
        "answers": [[answer["text"] for answer in answers] for _, _, answers in flat],
        "starts": [[answer["answer_start"] for answer in answers] for _, _, answers in flat],
    }


def row_of(context: str, answer: str, question: str = "the") -> dict[str, Any]:
    return {
        "question": question,
        "context": context,
        "answers": [{"text": answer, "answer_start": context.index(answer)}],
    }


def learned(encoded: dict[str, list[Any]], context: str) -> list[str | None]:
    """What each window learns: a part of the context, an empty text for `no answer`, None for nothing."""
    found: list[str | None] = []
    for labels, starts, ends in zip(encoded["labels"], *(encoded[key] for key in PLACES)):
        candidates = [label for label in labels if label != -100]
        assert len(candidates) == len(starts)
        first, last = (next((i for i, label in enumerate(candidates) if label & bit), None) for bit in (1, 2))
        if first is None or last is None:
            assert (first, last) == (None, None)
            found.append(None)
        else:
            found.append("" if starts[first] == -1 else context[starts[first] : ends[last]])
    return found


def test_windows_overlap_and_each_learns_the_answer_that_it_holds_whole(tiny_encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    context = "red green blue warm cold big small cat dog bird"
    # Four tokens are the question's and special, so 4 of the context fit, of which 2 are shared.
    encoded = encode_questions(batch_of(row_of(context, "warm cold")), tokenizer, 8, 2)
    texts = [tokenizer.decode(ids) for ids in encoded["input_ids"]]
    assert texts == [f"[CLS] the [SEP] {part} [SEP]" for part in (
        "red green blue warm", "blue warm cold big", "cold big small cat", "small cat dog bird"
    )]  # fmt: skip
    assert learned(encoded, context) == [None, "warm cold", None, ""]
    assert encoded["begins_row"] == [True, False, False, False]
    assert encoded["token_type_ids"][0] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert learned(encode_questions(batch_of(row_of(context, "red")), tokenizer, 8, 2), context)[0] == "red"
    assert learned(encode_questions(batch_of(row_of(context, "bird")), tokenizer, 8, 2), context)[-1] == "bird"
    none = {**row_of(context, "bird"), "answers": []}
    assert learned(encode_questions(batch_of(none), tokenizer, 8, 2), context) == [""] * 4


def test_of_an_answer_longer_than_every_window_each_learns_its_part(tiny_encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    context = "red green blue warm cold big small cat"
    encoded = encode_questions(batch_of(row_of(context, "blue warm cold big small")), tokenizer, 8, 2)
    assert learned(encoded, context) == ["blue warm", "blue warm cold big", "cold big small"]


def test_a_question_is_cut_only_where_it_leaves_too_little_of_the_window(tiny_encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    question = " ".join(["dog"] * 30)
    encoded = encode_questions(
        batch_of(row_of("red green blue", "green", question), row_of("red green", "red")), tokenizer, 12, 4
    )
    assert encoded["is_question_cut"] == [True, False]
    assert tokenizer.decode(encoded["input_ids"][0]) == "[CLS] dog dog dog dog dog dog [SEP] red green blue [SEP]"


def byte_level(add_prefix_space: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of RoBERTa's kind, whose tokens hold the blank before a word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" cat dog bird sleeps runs"] * 9, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>"}
    )


@pytest.mark.parametrize("answer", ["cat", "dog", "cat sleeps", "runs"])
def test_a_tokenizer_whose_tokens_hold_the_blank_before_a_word_finds_the_answer(answer: str) -> None:
    context = "cat sleeps\t dog  runs"
    encoded = encode_questions(batch_of(row_of(context, answer, "bird")), byte_level(False), 32, 4)
    assert "token_type_ids" not in encoded
    [found] = learned(encoded, context)
    assert found is not None
    assert found.strip() == answer


def test_every_answer_of_random_contexts_is_learned_by_one_window_and_no_token_is_lost(tiny_encoder: Path) -> None:
    tokenizer, generator = AutoTokenizer.from_pretrained(tiny_encoder), np.random.default_rng(0)
    for row in range(200):
        words = [str(word) for word in generator.choice(["red", "green", "cat", "dog"], int(generator.integers(1, 40)))]
        context = str(generator.choice([" ", "  ", "\n", "\u00a0 "])).join(words)
        start = int(generator.integers(len(words)))
        blank = len(context) - sum(map(len, words))
        first = sum(map(len, words[:start])) + (start * blank // (len(words) - 1) if start else 0)
        given = {"question": "the dog", "context": context, "answers": [{"text": words[start], "answer_start": first}]}
        encoded = encode_questions(batch_of(given), tokenizer, int(generator.integers(8, 40)), 3)
        assert words[start] in learned(encoded, context), row
        covered = {place for starts in encoded[PLACES[0]] for place in starts} - {-1}
        assert len(covered) == len(words)
