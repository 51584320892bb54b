"""Find answers in contexts with a subclass of the Trainer, in the form of run_qa.py of Transformers.

    python scripts/examples/trainer_question_answering.py --model_name_or_path bert-base-uncased \
        --train_file train.jsonl --validation_file validation.jsonl --output_dir runs/qa --eval_strategy epoch

A row has `question`, `context` and `answers`, a list of {text, answer_start}. A long context is read in windows; the
best span of all its windows is the answer. On several processes: torchrun --nproc_per_node 2.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DefaultDataCollator,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)

LONGEST_ANSWER = 30
"""Most tokens of an answer."""


@dataclass
class DataArguments:
    """What to train on, and from where to begin."""

    model_name_or_path: str = field(metadata={"help": "A Hub id or a folder."})
    train_file: str = field(metadata={"help": "JSON Lines file."})
    validation_file: str = field(metadata={"help": "JSON Lines file."})
    max_length: int = field(default=128, metadata={"help": "Most tokens of an input."})
    stride: int = field(default=32, metadata={"help": "Tokens that two windows of a context have in common."})


class QuestionAnsweringTrainer(Trainer):
    """Scores the answers made of the logits of all windows, instead of single windows."""

    def __init__(self, *args: Any, post_process: Callable[[Any], dict[str, float]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.post_process = post_process

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Predict all windows of the validation rows, and score the answers."""
        logits = self.predict(self.eval_dataset).predictions  # type: ignore[arg-type]
        metrics = {f"eval_{name}": value for name, value in self.post_process(logits).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def best_spans(logits: Any, windows: datasets.Dataset, contexts: list[str]) -> list[str]:
    """Find the text of the best span of each context."""
    best = [(-np.inf, "")] * len(contexts)
    for start, end, offsets, row in zip(*logits, windows["offset_mapping"], windows["row"]):
        sums = start[:, None] + end[None, :]
        allowed = np.triu(np.ones_like(sums)) * np.tril(np.ones_like(sums), LONGEST_ANSWER - 1)
        inside = np.array([offset is not None for offset in offsets])
        sums = np.where(allowed.astype(bool) & inside[:, None] & inside[None, :], sums, -np.inf)
        first, last = np.unravel_index(sums.argmax(), sums.shape)
        if sums[first, last] > best[row][0]:
            best[row] = sums[first, last], contexts[row][offsets[first][0] : offsets[last][1]]
    return [text for _, text in best]


def main() -> None:
    """Read, tokenize, train, evaluate, save."""
    parser = HfArgumentParser((DataArguments, TrainingArguments))  # type: ignore[arg-type]  # its own documented use
    options, training = parser.parse_args_into_dataclasses()
    set_seed(training.seed)
    files = {"train": options.train_file, "validation": options.validation_file}
    raw = datasets.load_dataset("json", data_files=files)
    tokenizer = AutoTokenizer.from_pretrained(options.model_name_or_path)
    model = AutoModelForQuestionAnswering.from_pretrained(options.model_name_or_path)

    def tokenize(rows: dict[str, Any]) -> dict[str, Any]:
        """Cut each context into windows; the labels of a window without the answer are its first token."""
        encoded = tokenizer(
            rows["question"],
            rows["context"],
            truncation="only_second",
            max_length=options.max_length,
            stride=options.stride,
            padding="max_length",
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        windows: dict[str, list[Any]] = {key: encoded[key] for key in tokenizer.model_input_names}
        windows |= {"row": encoded["overflow_to_sample_mapping"], "start_positions": [], "end_positions": []}
        windows["offset_mapping"] = [
            [offset if part == 1 else None for offset, part in zip(offsets, encoded.sequence_ids(window))]
            for window, offsets in enumerate(encoded["offset_mapping"])
        ]
        for row, offsets in zip(windows["row"], windows["offset_mapping"]):
            answer = rows["answers"][row][0]
            begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
            within = [i for i, offset in enumerate(offsets) if offset and offset[0] < end and offset[1] > begin]
            is_whole = bool(within) and offsets[within[0]][0] <= begin and offsets[within[-1]][1] >= end
            windows["start_positions"].append(within[0] if is_whole else 0)
            windows["end_positions"].append(within[-1] if is_whole else 0)
        return windows

    with training.main_process_first():
        columns = raw["train"].column_names
        encoded = raw.map(tokenize, batched=True, batch_size=None, remove_columns=columns)
    rows = raw["validation"]

    def exact_match(logits: Any) -> dict[str, float]:
        answers = best_spans(logits, encoded["validation"], list(rows["context"]))
        right = [answer in [one["text"] for one in gold] for answer, gold in zip(answers, rows["answers"])]
        return {"exact_match": float(np.mean(right))}

    trainer = QuestionAnsweringTrainer(
        model=model,
        args=training,
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        processing_class=tokenizer,
        data_collator=DefaultDataCollator(),
        post_process=exact_match,
    )
    result = trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    trainer.save_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
