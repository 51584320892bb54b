"""Words with tags from lists, CoNLL files and character spans; their tokens and windows; what is wrong is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from tokenizers import Regex, pre_tokenizers
from transformers import AutoTokenizer

from nlp_ft.data.words.conll import is_conll
from nlp_ft.data.words.data import load_tagged_rows, load_word_rows
from nlp_ft.data.words.encoding import encode_words, wants_leading_space, word_tokenizer
from nlp_ft.data.words.plain_rows import divided
from nlp_ft.errors import DataError
from nlp_ft.recipe.words import WordsDataSection
from tests.tiny_words import byte_level_tokenizer, write_rows

GOOD = {"tokens": ["the", "cat"], "ner_tags": ["O", "B-animal"]}
SPAN = {"start": 4, "end": 7, "label": "animal"}


def section(train: Path, **changes: Any) -> WordsDataSection:
    return WordsDataSection.model_validate({"train": str(train), **changes})


def words_and_tags(data: WordsDataSection) -> list[tuple[list[str], list[str]]]:
    found = load_tagged_rows(data)
    return [(row["words"], row["tags"]) for row in found.raw["train"]]


EXPECTED = [(["the", "cat"], ["O", "B-animal"]), (["cat"], ["B-animal"])]


def test_json_lines_parquet_and_a_saved_data_set_with_ids_give_the_same_rows(tmp_path: Path) -> None:
    rows = [GOOD, {"tokens": ["cat"], "ner_tags": ["B-animal"]}]
    assert words_and_tags(section(write_rows(tmp_path / "a.jsonl", rows))) == EXPECTED
    Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    assert words_and_tags(section(tmp_path / "a.parquet")) == EXPECTED
    ids = [{"tokens": row["tokens"], "ner_tags": [int(tag != "O") for tag in row["ner_tags"]]} for row in rows]
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-animal"]))})
    DatasetDict({"train": Dataset.from_list(ids, features)}).save_to_disk(tmp_path / "saved")
    data = WordsDataSection.model_validate({"source": str(tmp_path / "saved"), "train": "train"})
    assert words_and_tags(data) == EXPECTED
    file = write_rows(tmp_path / "ids.jsonl", ids)
    assert words_and_tags(section(file, label_names=["O", "B-animal"])) == EXPECTED
    with pytest.raises(DataError, match=r"a column of numbers without names; list the names of 0, 1, ... in data.la"):
        load_tagged_rows(section(file))


def test_tags_of_iob1_are_rewritten_as_iob2_unless_the_scheme_is_given(tmp_path: Path) -> None:
    tags = ["I-A", "I-A", "O", "I-A", "B-A", "I-B", "I-B", "B-B", "I-B"]
    file = write_rows(
        tmp_path / "a.jsonl", [{"tokens": ["x"] * 9, "ner_tags": tags}, {"tokens": ["x"], "ner_tags": ["I-B"]}]
    )
    found = load_tagged_rows(section(file))
    assert found.raw["train"]["tags"][:] == [["B-A", "I-A", "O", "B-A", "B-A", "B-B", "I-B", "B-B", "I-B"], ["B-B"]]
    assert (found.scheme, found.label_names) == ("iob2", ["O", "B-A", "I-A", "B-B", "I-B"])
    with pytest.raises(DataError, match=r"word 0 \('x'\) has the tag 'I-A' between the beginning and 'I-A'"):
        load_tagged_rows(section(file, scheme="iob2"))


def test_one_entity_of_a_hundred_may_begin_with_b_in_iob1_and_no_more(tmp_path: Path) -> None:
    rows = [{"tokens": ["x"], "ner_tags": ["I-A"]}] * 99 + [{"tokens": ["x", "x"], "ner_tags": ["B-A", "I-A"]}]
    found = load_tagged_rows(section(write_rows(tmp_path / "a.jsonl", rows)))
    assert found.raw["train"]["tags"][98:] == [["B-A"], ["B-A", "I-A"]]
    with pytest.raises(DataError, match="which breaks the scheme iob2"):
        load_tagged_rows(section(write_rows(tmp_path / "b.jsonl", [*rows, rows[-1]])))


@pytest.mark.parametrize("tags", [["I-A", "O", "B-A"], ["I-A", "B-B"], ["I-A", "E-A"]])
def test_tags_that_break_iob2_and_iob1_are_an_error(tmp_path: Path, tags: list[str]) -> None:
    file = write_rows(tmp_path / "a.jsonl", [{"tokens": ["x"] * len(tags), "ner_tags": tags}])
    with pytest.raises(DataError, match="which breaks the scheme"):
        load_tagged_rows(section(file))


def test_listed_tags_decide_on_the_scheme_as_they_do_in_the_trained_model(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [{"tokens": ["x"] * 3, "ner_tags": ["B-A", "I-A", "O"]}])
    names = ["O", "B-A", "I-A", "E-A", "S-A"]
    assert load_tagged_rows(section(file, label_names=names[:3])).scheme == "iob2"
    with pytest.raises(DataError, match="which breaks the scheme iobes"):
        load_tagged_rows(section(file, label_names=names))


def test_conll_files_are_read_by_their_columns_and_document_lines_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(
        "-DOCSTART- -X- O O\n\nthe DT B-NP O\ncat NN I-NP B-animal\n\n\ncat NN B-NP B-animal"
    )
    assert words_and_tags(section(tmp_path / "a.conll")) == EXPECTED
    chunks = words_and_tags(section(tmp_path / "a.conll", conll_columns=[0, 2]))
    assert [tags for _, tags in chunks] == [["B-NP", "I-NP"], ["B-NP"]]
    (tmp_path / "tabs.bio").write_text("the\tO\r\ncat\tB-animal\r\n\r\ncat\tB-animal\r\n")
    assert words_and_tags(section(tmp_path / "tabs.bio")) == EXPECTED


CONLL_U = (
    "# newdoc\n# text = Der Hund am Ufer\n1\tDer\tder\tDET\tART\t_\t2\tdet\t_\t_\n"
    "2\tHund\tHund\tNOUN\tNN\t_\t0\troot\t_\t_\n3-4\tam\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "3\tan\tan\tADP\tAPPR\t_\t5\tcase\t_\t_\n4\tdem\tder\tDET\tART\t_\t5\tdet\t_\t_\n"
    "4.1\tSee\t_\t_\t_\t_\t_\t_\t_\t_\n\n# sent_id = 2\n1\tUfer\tUfer\tNOUN\tNN\t_\t0\troot\t_\t_\n\n"
)
GERMEVAL = (
    "#\thttp://a.de\t[2009-10-17]\t\n1\t#\tO\tO\n2\tSchartau\tB-PER\tO\n3\tBonn\tB-LOC\tB-ORG\n\n"
    "#\thttp://b.de\t[2009-10-17]\t\n1\tja\tO\tO\n\n"
)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "de.conllu",
            CONLL_U,
            [(["Der", "Hund", "an", "dem"], ["DET", "NOUN", "ADP", "DET"]), (["Ufer"], ["NOUN"])],
        ),
        ("dev.tsv", GERMEVAL, [(["#", "Schartau", "Bonn"], ["O", "B-PER", "B-LOC"]), (["ja"], ["O"])]),
        ("mit.bio", "O\tthe\nB-animal\tcat\n\nB-animal\tcat\n", EXPECTED),
        ("devel.tsv", "the\tO\ncat\tB-animal\n\ncat\tB-animal\n", EXPECTED),
        ("eng.testb", "-DOCSTART- -X- O\n\nthe DT O\ncat NN B-animal\n\ncat NN B-animal\n", EXPECTED),
    ],
)
def test_conll_files_are_read_as_they_are_published(
    tmp_path: Path, name: str, content: str, expected: list[tuple[list[str], list[str]]]
) -> None:
    (tmp_path / name).write_text(content)
    assert words_and_tags(section(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "text\tlabel\nthe cat\tyes\n\na dog\tno\n"),
        ("b.tsv", "word\tlabel\ncat\tyes\ndog\tno\n"),
        ("e.tsv", "label\ttext\nyes\tthe cat\n\nno\ta dog\n"),
        ("f.tsv", "text\tlabel\ncat\tyes\n\ndog\tno\n"),
        ("g.tsv", "id\ttext\tlabel\n1\tthe cat\tyes\n\n2\ta dog\tno\n"),
        ("c.csv", "the O\n\ncat O\n"),
        ("d.lst", "0\n\n1\n"),
    ],
)
def test_files_of_texts_are_no_conll_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert not is_conll([str(tmp_path / name)])


@pytest.mark.parametrize(
    "span",
    [
        [4, 7, "animal"],
        {"start_offset": 4, "end_offset": 7, "label": "animal", "id": 3},
        {"start": 4, "end": 7, "text": "cat", "labels": ["animal"]},
    ],
)
def test_spans_are_read_as_other_tools_write_them(tmp_path: Path, span: Any) -> None:
    file = write_rows(tmp_path / "a.jsonl", [{"text": "the cat", "spans": [span]}, {"text": "no", "spans": []}])
    found = load_tagged_rows(section(file, text="text")).raw["train"]
    assert found["tags"][:] == [["O", "B-animal"], ["O"]]


def test_character_spans_become_tags_of_the_words_and_keep_their_places(tmp_path: Path) -> None:
    spans = [{"start": 4, "end": 11, "label": "animal"}, {"start": 13, "end": 16, "label": "colour"}]
    file = write_rows(
        tmp_path / "a.jsonl", [{"text": "the cat dog, red.", "spans": spans}, {"text": "no", "spans": []}]
    )
    found = load_tagged_rows(section(file, text="text"))
    assert found.scheme == "iob2"
    [row, _] = found.raw["train"]
    assert row["words"] == ["the", "cat", "dog", ",", "red", "."]
    assert row["tags"] == ["O", "B-animal", "I-animal", "O", "B-colour", "O"]
    assert row["starts"] == [0, 4, 8, 11, 13, 16]
    iobes = load_tagged_rows(section(file, text="text", scheme="iobes")).raw["train"][0]["tags"]
    assert iobes == ["O", "B-animal", "E-animal", "O", "S-colour", "O"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't go, 3.5km!", ["Don", "'", "t", "go", ",", "3", ".", "5km", "!"]),
        ("a_b  c\u00e9\u200bd", ["a_b", "c\u00e9\u200bd"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
        ("\u5317\u4eac 5", ["\u5317", "\u4eac", "5"]),
        ("\u200b \u00a0", []),
    ],
)
def test_a_text_is_divided_into_words(text: str, words: list[str]) -> None:
    found, starts = divided(text)
    assert found == words
    assert [text[start : start + len(word)] for start, word in zip(starts, found)] == words


def test_tags_are_in_order_and_an_inside_tag_may_occur_in_validation_alone(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "a.jsonl", [GOOD, {"tokens": ["red"], "ner_tags": ["B-colour"]}])
    other = write_rows(tmp_path / "b.jsonl", [{"tokens": ["cat", "dog"], "ner_tags": ["B-animal", "I-animal"]}])
    found = load_tagged_rows(section(train, validation=str(other)))
    assert found.label_names == ["O", "B-animal", "I-animal", "B-colour"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["the"], "ner_tags": ["O", "O"]}, r"row 1 \(from 0\) has 1 word\(s\) and 2 tag\(s\)"),
        ({"tokens": ["the"], "ner_tags": None}, r"row 1 \(from 0\) has 1 word\(s\) and no tags"),
        ({"tokens": [], "ner_tags": []}, r"row 1 \(from 0\) has no words"),
        ({"tokens": None, "ner_tags": ["O"]}, r"row 1 \(from 0\) has no list of words, but None"),
        ({"tokens": ["a", " "], "ner_tags": ["O", "O"]}, r"row 1 \(from 0\): word 1 \(from 0\) is ' ', which is blank"),
        ({"tokens": ["a", None], "ner_tags": ["O", "O"]}, r"word 1 \(from 0\) must be a text, got None"),
        ({"tokens": ["a"], "ner_tags": [None]}, r"row 1 \(from 0\): word 0 \(from 0\) has the tag None"),
        ({"tokens": ["a"], "ner_tags": ["O "]}, r"has the tag 'O ', which must be a text without blanks"),
        ({"tokens": ["a", "b"], "ner_tags": ["O", "I-animal"]},
         r"train: row 1 \(from 0\), word 1 \('b'\) has the tag 'I-animal' between 'O' and the end, which br"),
        ({"tokens": ["a", "b"], "ner_tags": ["B-animal", "I-colour"]}, r"'I-colour' between 'B-animal' and the end"),
        ({"tokens": ["a"], "ner_tags": ["animal"]}, r"the tags must be O, B-TYPE, I-TYPE .* but there are: animal"),
        ({"tokens": ["a"], "ner_tags": ["L-animal"]}, r"but there are: L-animal"),
        ({"tokens": "a cat", "ner_tags": ["O"]}, r"'tokens' is a text, and a list in the rows before it"),
        ({"tokens": ["a", 1], "ner_tags": ["O", "O"]}, r"'tokens' holds a value that cannot be stored"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_tagged_rows(section(write_rows(tmp_path / "a.jsonl", [GOOD, row])))


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([{**SPAN, "end": 99}], r"row 1 \(from 0\): the span 4 to 99 is not in the text of 13 characters"),
        ([{**SPAN, "start": -1}], r"the span -1 to 7 is not in the text"),
        ([{**SPAN, "end": 4}], r"the span 4 to 4 is not in the text"),
        ([SPAN, {**SPAN, "end": 11}], r"two spans overlap at character 4"),
        ([{**SPAN, "end": 6}], r"the span 4 to 6 \('ca'\) cuts the word 'cat' \(4 to 7\) in two"),
        ([{**SPAN, "start": 11, "end": 12}], r"the span 11 to 12 \(' '\) holds no word"),
        ([{**SPAN, "label": ""}], r"the span 4 to 7 has the label ''"),
        ([{**SPAN, "label": None}], r"a span must be {start, end, label}"),
        (None, r"row 1 \(from 0\) has no list of spans, but None; write \[\] where there is none"),
    ],
)
def test_a_wrong_span_is_named(tmp_path: Path, spans: Any, message: str) -> None:
    rows = [{"text": "the cat", "spans": [SPAN]}, {"text": "the cat dog  ", "spans": spans}]
    with pytest.raises(DataError, match=message):
        load_tagged_rows(section(write_rows(tmp_path / "a.jsonl", rows), text="text"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the O\ncat\n", r"a.conll, line 2 has 1 column\(s\), and the lines before it have 2"),
        ("the\ncat\n", r"line 1 has 1 column\(s\), so data.conll_columns \[0, -1\] names no word and tag"),
        (
            "ID\tText\tLabel\n1\tA group of kids is playing\tNEUTRAL\n",
            "line 2 holds a text, A group of kids is playing; CoNLL files hold a word and its tag a line; a table",
        ),
        ("the\tO\n\tO\n", r"line 2 has no word in column 0"),
        ("-DOCSTART- O\n\n", r"has no rows"),
        ("\n\n", r"has no rows"),
    ],
)
def test_a_wrong_line_of_a_conll_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.conll").write_text(content)
    with pytest.raises(DataError, match=message):
        load_tagged_rows(section(tmp_path / "a.conll"))


def test_files_without_lists_and_unknown_tags_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("tokens,ner_tags\nthe cat,O O\n")
    with pytest.raises(
        DataError, match="a CSV file has no lists; write words and tags as JSON Lines, Parquet or CoNLL"
    ):
        load_tagged_rows(section(tmp_path / "a.csv"))
    (tmp_path / "latin.conll").write_bytes(b"caf\xe9 O\n")
    with pytest.raises(DataError, match="is not UTF-8"):
        load_tagged_rows(section(tmp_path / "latin.conll"))
    train = write_rows(tmp_path / "a.jsonl", [GOOD])
    other = write_rows(tmp_path / "b.jsonl", [{"tokens": ["x"], "ner_tags": ["B-anima"]}])
    with pytest.raises(
        DataError, match=r"validation: row 0 .* has the tag 'B-anima', that the train split does not have"
    ):
        load_tagged_rows(section(train, validation=str(other)))
    with pytest.raises(DataError, match=r"data\.words is 'words', but the columns are: .*"):
        load_word_rows(str(train), "data.train", section(train, words="words"))
    text = write_rows(tmp_path / "c.jsonl", [{"tokens": "the cat", "ner_tags": ["O"]}])
    with pytest.raises(DataError, match=r"data\.words is 'tokens', a column of string, not of lists of strings"):
        load_tagged_rows(section(text))


def test_the_first_token_of_a_word_has_its_tag_and_the_others_none(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(byte_level_tokenizer(tmp_path))
    assert wants_leading_space(tokenizer)
    words = ["cat", "Paris", "catdog", "!"]
    encoded = encode_words([words], tokenizer, WordsDataSection(train="-"))
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    assert tokens[:2] == ["<s>", "\u0120cat"]
    firsts = [(tokens[i], words[w]) for i, w in enumerate(encoded["words"][0]) if w != -100]
    assert [word for _, word in firsts] == words
    assert all(token.startswith("\u0120") for token, _ in firsts)
    assert "".join(tokens[1:-1]) == "\u0120cat\u0120Paris\u0120catdog\u0120!"
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert loaded.tokenize("cat Paris") == tokenizer.tokenize("cat Paris")
    assert loaded.tokenize("cat Paris")[0] == "\u0120cat"


def test_words_have_a_leading_space_where_the_tokenizer_cannot_add_one(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer(tmp_path)
    parts = [pre_tokenizers.Split(Regex(" ?[a-z]+"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    encoded = encode_words([["cat", "red"]], word_tokenizer(tokenizer), WordsDataSection(train="-"))
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]) == ["<s>", "\u0120cat", "\u0120red", "</s>"]


def test_wordpiece_gives_pieces_without_tag_and_drops_invisible_words(tiny_encoder: Path) -> None:
    tokenizer = word_tokenizer(AutoTokenizer.from_pretrained(tiny_encoder))
    assert not wants_leading_space(tokenizer)
    encoded = encode_words([["cat", "red-dog", "\u200b", "the"]], tokenizer, WordsDataSection(train="-"))
    assert encoded["words"] == [[-100, 0, 1, -100, -100, 3, -100]]


def test_each_word_is_decided_once_where_most_tokens_are_around_it(tiny_encoder: Path) -> None:
    tokenizer = word_tokenizer(AutoTokenizer.from_pretrained(tiny_encoder))
    data = WordsDataSection(train="-", max_length=8, stride=2)
    encoded = encode_words([["cat"] * 10, ["dog"]], tokenizer, data)
    # Windows of 6 tokens: words 0 to 5 and 4 to 9. Word 4 has one token behind it in the first, none before it in the
    # second; word 5 the other way round.
    assert [[word for word in words if word != -100] for words in encoded["words"]] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [0],
    ]
    assert encoded["begins_row"] == [True, False, True]
    generator = np.random.default_rng(0)
    for _ in range(200):
        words = [
            json.loads(f'"{"-".join(["cat"] * int(n))}"') for n in generator.integers(1, 5, generator.integers(1, 30))
        ]
        length = int(generator.integers(6, 20))
        section_of = WordsDataSection(train="-", max_length=length, stride=int(generator.integers(0, length - 4)))
        found = encode_words([words], tokenizer, section_of)
        assert sorted(w for of in found["words"] for w in of if w != -100) == list(range(len(words)))
        assert max(map(len, found["input_ids"])) <= length
