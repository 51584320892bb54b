"""SST-2, STS-B, GoEmotions, WNUT17 or XQuAD with transformers.Trainer and the stock head: the peer of `tasks.py`.

Nothing of nlp_ft is in it. Rows of like length stand together and bf16 is on where the hardware has it, as its users
would set it. Prints one JSON line: the score on validation and test, and seconds of training.

    python scripts/bench/tasks_trainer.py --task stsb --model MODEL --data ../shared/data/stsb --epochs 4 --lr 1e-4
"""

import argparse
import collections
import json
import re
import string
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_caching
from scipy.stats import spearmanr
from seqeval.metrics import f1_score as span_f1
from seqeval.scheme import IOB2
from sklearn.metrics import f1_score
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

IGNORED = -100
LONGEST_ANSWER = 30


class Peer:
    """One data set: its rows as a Trainer wants them, its model, and its score."""

    max_length = 128
    of_class: Any = AutoModelForSequenceClassification

    def __init__(self, folder: Path, model: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        ending = "csv" if (folder / "train.csv").exists() else "jsonl"
        read = Dataset.from_csv if ending == "csv" else Dataset.from_json
        splits = ("train", "validation", "test")
        self.rows: dict[str, Dataset] = {split: read(str(folder / f"{split}.{ending}")) for split in splits}
        self.labels = self.label_names()

    def label_names(self) -> list[str]:
        """Name the labels; regression has one without a name."""
        return sorted(set(self.rows["train"]["label"]))

    def model_settings(self) -> dict[str, Any]:
        """Give what `from_pretrained` is told."""
        return {"num_labels": len(self.labels)}

    def encode(self, rows: dict[str, list[Any]]) -> Any:
        """Tokenize a batch of rows, and number their labels."""
        encoded = self.tokenizer(rows["text"], truncation=True, max_length=self.max_length)
        encoded["labels"] = [self.labels.index(label) for label in rows["label"]]
        return encoded

    def encoded(self, split: str) -> Dataset:
        """Tokenize a split."""
        rows = self.rows[split]
        return rows.map(self.encode, batched=True, batch_size=None, remove_columns=rows.column_names)

    def collator(self) -> Any:
        """Make what pads a batch."""
        return DataCollatorWithPadding(self.tokenizer)

    def score(self, split: str, logits: Any, references: Any) -> float:
        """Score logits: accuracy."""
        return float((logits.argmax(-1) == references).mean())


class Regression(Peer):
    """STS-B: pairs with a number; Spearman."""

    def label_names(self) -> list[str]:
        """Give the one output its place."""
        return ["score"]

    def encode(self, rows: dict[str, list[Any]]) -> Any:
        """Tokenize pairs."""
        encoded = self.tokenizer(rows["text_a"], rows["text_b"], truncation=True, max_length=self.max_length)
        encoded["labels"] = [float(score) for score in rows["score"]]
        return encoded

    def score(self, split: str, logits: Any, references: Any) -> float:
        """Score by Spearman."""
        return float(spearmanr(logits.ravel(), references.ravel()).statistic)


class LabelSets(Peer):
    """GoEmotions: any of 28 labels; macro F1 with one threshold a label, the best on validation."""

    max_length = 64
    thresholds: Any = None

    def label_names(self) -> list[str]:
        """Name every label that occurs."""
        return sorted({label for labels in self.rows["train"]["labels"] for label in labels})

    def model_settings(self) -> dict[str, Any]:
        """Ask for the loss of several labels."""
        return {"num_labels": len(self.labels), "problem_type": "multi_label_classification"}

    def encode(self, rows: dict[str, list[Any]]) -> Any:
        """Tokenize, and mark the labels of each row."""
        encoded = self.tokenizer(rows["text"], truncation=True, max_length=self.max_length)
        encoded["labels"] = [[float(label in labels) for label in self.labels] for labels in rows["labels"]]
        return encoded

    def score(self, split: str, logits: Any, references: Any) -> float:
        """Score by macro F1; validation, which comes first, chooses the thresholds."""
        if split == "validation":
            candidates = np.linspace(-4, 2, 61)
            self.thresholds = [
                max(candidates, key=lambda t: f1_score(gold, column > t, zero_division=0))
                for gold, column in zip(references.T, logits.T, strict=True)
            ]
        return float(f1_score(references, logits > self.thresholds, average="macro", zero_division=0))


class Tags(Peer):
    """WNUT17: a tag for each word; strict span F1."""

    of_class = AutoModelForTokenClassification

    def label_names(self) -> list[str]:
        """Name every tag that occurs."""
        return sorted({tag for tags in self.rows["train"]["tags"] for tag in tags})

    def encode(self, rows: dict[str, list[Any]]) -> Any:
        """Give the first token of each word its tag; the others are ignored."""
        encoded = self.tokenizer(rows["tokens"], is_split_into_words=True, truncation=True, max_length=self.max_length)
        encoded["labels"] = [
            [
                IGNORED if word in (None, before) else self.labels.index(tags[word])
                for before, word in pairwise([None, *encoded.word_ids(row)])
            ]
            for row, tags in enumerate(rows["tags"])
        ]
        return encoded

    def collator(self) -> Any:
        """Make what pads tags too."""
        return DataCollatorForTokenClassification(self.tokenizer)

    def score(self, split: str, logits: Any, references: Any) -> float:
        """Score by strict spans; words that were cut off are `O`."""
        predicted = []
        for tags, row, gold in zip(self.rows[split]["tags"], logits.argmax(-1), references, strict=True):
            found = [self.labels[tag] for tag in row[gold != IGNORED]]
            predicted.append(found + ["O"] * (len(tags) - len(found)))
        return float(span_f1(self.rows[split]["tags"], predicted, mode="strict", scheme=IOB2, zero_division=0))


class Answers(Peer):
    """XQuAD: an answer in a context, which is read in windows; F1 of words by SQuAD's definition."""

    max_length = 384
    of_class = AutoModelForQuestionAnswering

    def label_names(self) -> list[str]:
        """Give start and end their places."""
        return ["start", "end"]

    def model_settings(self) -> dict[str, Any]:
        """Add nothing: the class has two outputs."""
        return {}

    def encode(self, rows: dict[str, list[Any]]) -> Any:
        """Cut contexts into windows; without the whole answer, a window points at its first token."""
        encoded = self.tokenizer(
            rows["question"],
            rows["context"],
            truncation="only_second",
            max_length=self.max_length,
            stride=128,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        sources, all_offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
        marks: dict[str, list[int]] = {"start_positions": [], "end_positions": []}
        for window, (row, offsets) in enumerate(zip(sources, all_offsets, strict=True)):
            answer = rows["answers"][row][0]
            begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
            inside = [
                i
                for i, (part, (low, high)) in enumerate(zip(encoded.sequence_ids(window), offsets, strict=True))
                if part == 1 and low < end and high > begin
            ]
            whole = bool(inside) and offsets[inside[0]][0] <= begin and offsets[inside[-1]][1] >= end
            marks["start_positions"].append(inside[0] if whole else 0)
            marks["end_positions"].append(inside[-1] if whole else 0)
        self.windows = [
            (row, [o if part == 1 else None for part, o in zip(encoded.sequence_ids(w), offsets, strict=True)])
            for w, (row, offsets) in enumerate(zip(sources, all_offsets, strict=True))
        ]
        return {**encoded, **marks}

    def score(self, split: str, logits: Any, references: Any) -> float:
        """Score the best span of all windows of a row; the windows are those of the split that was encoded last."""
        rows = self.rows[split]
        best = [(-np.inf, "")] * len(rows)
        contexts = list(rows["context"])
        for start, end, (row, offsets) in zip(*logits, self.windows, strict=True):
            places = [i for i, offset in enumerate(offsets) if offset]
            sums = start[places][:, None] + end[places][None, :]
            sums = np.where(np.triu(np.tril(np.ones_like(sums), LONGEST_ANSWER - 1)), sums, -np.inf)
            first, last = np.unravel_index(sums.argmax(), sums.shape)
            if sums[first, last] > best[row][0]:
                text = contexts[row][offsets[places[first]][0] : offsets[places[last]][1]]
                best[row] = float(sums[first, last]), text
        gold = [[one["text"] for one in answers] for answers in rows["answers"]]
        return float(np.mean([max(word_f1(text, one) for one in ones) for (_, text), ones in zip(best, gold)]))


def word_f1(found: str, gold: str) -> float:
    """F1 of words without articles, case and punctuation (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250)."""

    def words(text: str) -> list[str]:
        bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", bare).split()

    a, b = words(found), words(gold)
    common = sum((collections.Counter(a) & collections.Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


PEERS = {"sst2": Peer, "stsb": Regression, "goemotions": LabelSets, "wnut17": Tags, "xquad": Answers}


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, choices=PEERS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path, help="folder of train, validation and test")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_seed(options.seed)
    disable_caching()
    peer = PEERS[options.task](options.data, options.model)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=peer.of_class.from_pretrained(options.model, **peer.model_settings()),
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=options.epochs,
                learning_rate=options.lr,
                warmup_steps=0.1,
                weight_decay=0.01,
                per_device_train_batch_size=options.batch_size,
                per_device_eval_batch_size=32,
                train_sampling_strategy="group_by_length",
                bf16=options.bf16,
                use_cpu=not torch.cuda.is_available(),
                save_strategy="no",
                seed=options.seed,
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=peer.encoded("train"),
            data_collator=peer.collator(),
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        # Else predictions would come in the order of the lengths.
        trainer.args.train_sampling_strategy = "random"
        scores = {}
        for split in ("validation", "test"):
            found = trainer.predict(peer.encoded(split))
            scores[split] = peer.score(split, found.predictions, found.label_ids)
    print(json.dumps({**scores, "train_s": seconds}))


if __name__ == "__main__":
    main()
