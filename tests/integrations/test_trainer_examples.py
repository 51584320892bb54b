"""Scripts in the form of run_ner, run_qa, run_swag and run_translation: three changed lines at most, and they run."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BartConfig,
)

from nlp_ft.layerwise import LayerMap
from tests.integrations.examples import FOLDER, run_example
from tests.integrations.processes import in_processes
from tests.integrations.test_examples import diff_lines
from tests.tiny import MARKERS, WORDS

Row = dict[str, Any]


def ner_rows(draw: random.Random) -> Iterator[Row]:
    """The tag of a word is its kind."""
    kinds = {word: kind for kind, words in MARKERS.items() for word in words}
    while True:
        words = draw.choices(WORDS, k=draw.randint(2, 9))
        yield {"words": words, "tags": [kinds.get(word, "O") for word in words]}


def qa_rows(draw: random.Random) -> Iterator[Row]:
    """The answer is the colour in the context; of a long context several windows are made."""
    while True:
        before, after = draw.choices(["the", "cat", "runs"], k=draw.randint(0, 30)), draw.choices(["eats"], k=4)
        colour, start = draw.choice(MARKERS["colour"]), len(" ".join([*before, ""]))
        answers = [{"text": colour, "answer_start": start}]
        yield {"question": "the colour", "context": " ".join([*before, colour, *after]), "answers": answers}


def choice_rows(draw: random.Random) -> Iterator[Row]:
    """The choice of the prompt's kind is right."""
    while True:
        kinds = draw.sample(list(MARKERS), 2)
        label = draw.randrange(2)
        prompt = " ".join([draw.choice(MARKERS[kinds[label]])] * 3)
        yield {"prompt": prompt, "choices": [draw.choice(MARKERS[kind]) for kind in kinds], "label": label}


def translation_rows(draw: random.Random) -> Iterator[Row]:
    while True:
        words = draw.choices(WORDS, k=draw.randint(1, 6))
        yield {"source": " ".join(words), "target": " ".join(reversed(words))}


EXAMPLES: dict[str, tuple[Callable[[random.Random], Iterator[Row]], Any, str]] = {
    "trainer_token_classification": (ner_rows, AutoModelForTokenClassification, "eval_accuracy"),
    "trainer_question_answering": (qa_rows, AutoModelForQuestionAnswering, "eval_exact_match"),
    "trainer_multiple_choice": (choice_rows, AutoModelForMultipleChoice, "eval_accuracy"),
    "trainer_seq2seq": (translation_rows, AutoModelForSeq2SeqLM, "eval_loss"),
}
RUNS = [(f"{name}{form}", 1) for name in EXAMPLES for form in ("", "_layerwise")]


def write_rows(file: Path, rows: Callable[[random.Random], Iterator[Row]], count: int, seed: int) -> str:
    made = rows(random.Random(seed))
    file.write_text("".join(json.dumps(next(made)) + "\n" for _ in range(count)))
    return str(file)


@pytest.fixture(scope="module")
def tiny_bart(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """An encoder and a decoder of two blocks each, with the tokenizer of the tiny BERT."""
    folder = tmp_path_factory.mktemp("bart")
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    sizes: dict[str, Any] = {f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in SIZES.items()}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "d_model": 16}
    ids: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(BartConfig(**sizes, **ids)).save_pretrained(folder)
    return folder


SIZES = {"layers": 2, "ffn_dim": 32, "attention_heads": 2}


def arguments(folder: Path, model: Path, name: str, processes: int) -> list[str]:
    rows, _, _ = EXAMPLES[name.removesuffix("_layerwise")]
    files = {"train": write_rows(folder / "train.jsonl", rows, 48, 0)}
    files["validation"] = write_rows(folder / "validation.jsonl", rows, 21, 1)
    named = [f"--{split}_file={file}" for split, file in files.items()]
    silent = ["--report_to=none", "--disable_tqdm=true", "--save_strategy=no", "--use_cpu=true"]
    length = ["--num_train_epochs=2", "--learning_rate=1e-3", f"--per_device_train_batch_size={8 // processes}"]
    window = ["--max_length=24"] + (["--stride=8"] if "question" in name else [])
    return [f"--model_name_or_path={model}", *named, *silent, *length, *window, f"--output_dir={folder / 'run'}"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_stock_script_changes_in_three_lines_that_the_docs_show(name: str) -> None:
    lines = diff_lines(name)
    added = [line for line in lines if line[0] == "+"]
    assert 0 < len(added) <= 3
    assert len(lines) <= 2 * len(added)
    docs = (FOLDER.parents[1] / "docs/other-loops.md").read_text(encoding="utf-8")
    assert all(line in docs for line in lines)


@pytest.mark.parametrize(("name", "processes"), [*RUNS, ("trainer_question_answering_layerwise", 2)])
def test_a_script_runs_and_saves_a_model_that_its_auto_class_loads(
    tmp_path: Path, tiny_encoder: Path, tiny_bart: Path, name: str, processes: int
) -> None:
    stock = name.removesuffix("_layerwise")
    _, auto_class, metric = EXAMPLES[stock]
    model = tiny_bart if stock == "trainer_seq2seq" else tiny_encoder
    results = in_processes(processes, run_example, f"{name}.py", *arguments(tmp_path, model, name, processes))
    assert results == [results[0]] * processes
    assert len(results[0]) == len(set(results[0])) >= 12
    assert json.loads((tmp_path / "run/eval_results.json").read_text())[metric] > 0
    loaded = auto_class.from_pretrained(tmp_path / "run")
    assert LayerMap.from_model(loaded).num_layers >= 2
