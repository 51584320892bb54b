"""Find names in texts with the Hugging Face Trainer, in the form of Transformers' run_ner.py.

    python scripts/examples/trainer_token_classification.py --model_name_or_path bert-base-cased \
        --train_file train.jsonl --validation_file validation.jsonl --output_dir runs/ner --eval_strategy epoch

A row has `words` and `tags`, two lists of one length. On several processes: torchrun --nproc_per_node 2.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    EvalPrediction,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)

IGNORED = -100
"""Label of tokens that no loss and no score counts."""


@dataclass
class DataArguments:
    """What to train on, and from where to begin."""

    model_name_or_path: str = field(metadata={"help": "A Hub id or a folder."})
    train_file: str = field(metadata={"help": "JSON Lines file."})
    validation_file: str = field(metadata={"help": "JSON Lines file."})
    max_length: int = field(default=128, metadata={"help": "Most tokens of an input."})


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Share of words whose tag is right."""
    counted = prediction.label_ids != IGNORED
    right = np.argmax(prediction.predictions, axis=-1) == prediction.label_ids
    return {"accuracy": float(right[counted].mean())}


def main() -> None:
    """Read, tokenize, train, evaluate, save."""
    parser = HfArgumentParser((DataArguments, TrainingArguments))  # type: ignore[arg-type]  # its own documented use
    options, training = parser.parse_args_into_dataclasses()
    set_seed(training.seed)
    files = {"train": options.train_file, "validation": options.validation_file}
    raw = datasets.load_dataset("json", data_files=files)
    names = sorted({tag for tags in raw["train"]["tags"] for tag in tags})
    ids = {name: i for i, name in enumerate(names)}
    tokenizer = AutoTokenizer.from_pretrained(options.model_name_or_path, add_prefix_space=True)
    model = AutoModelForTokenClassification.from_pretrained(
        options.model_name_or_path, id2label=dict(enumerate(names)), label2id=ids
    )

    def tokenize(rows: dict[str, Any]) -> Any:
        """Give the first token of each word its tag; the others are ignored."""
        encoded = tokenizer(rows["words"], is_split_into_words=True, truncation=True, max_length=options.max_length)
        words = [encoded.word_ids(row) for row in range(len(rows["words"]))]
        encoded["labels"] = [
            [IGNORED if word in (None, before) else ids[tags[word]] for before, word in pairwise([None, *of_row])]
            for tags, of_row in zip(rows["tags"], words)
        ]
        return encoded

    with training.main_process_first():
        encoded = raw.map(tokenize, batched=True, remove_columns=raw["train"].column_names)
    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        compute_metrics=compute_metrics,
    )
    result = trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    trainer.save_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
