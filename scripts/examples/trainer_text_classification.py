"""Fine-tune a text classifier with the Hugging Face Trainer: a CSV file with the columns text and label.

    python scripts/examples/trainer_text_classification.py --model_name_or_path bert-base-uncased \
        --train_file train.csv --validation_file validation.csv --output_dir runs/trainer --eval_strategy epoch

Every setting of TrainingArguments is an option, see --help. On several processes: torchrun --nproc_per_node 2.
"""

from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)


@dataclass
class DataArguments:
    """What to train on, and from where to begin."""

    model_name_or_path: str = field(metadata={"help": "A Hub id or a folder."})
    train_file: str = field(metadata={"help": "CSV file with the columns text and label."})
    validation_file: str = field(metadata={"help": "CSV file with the columns text and label."})
    max_length: int = field(default=128, metadata={"help": "Tokens of a text; what is longer is cut."})


def load_data(options: DataArguments) -> datasets.DatasetDict:
    """Both files, with labels as numbers in the order of their names."""
    files = {"train": options.train_file, "validation": options.validation_file}
    raw = datasets.load_dataset("csv", data_files=files)
    return raw.cast_column("label", datasets.ClassLabel(names=sorted(set(raw["train"]["label"]))))


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Share of rows whose highest logit is that of their label."""
    predicted = np.argmax(prediction.predictions, axis=-1)
    return {"accuracy": float((predicted == prediction.label_ids).mean())}


def main() -> None:
    """Read, tokenize, train, evaluate, save."""
    parser = HfArgumentParser((DataArguments, TrainingArguments))  # type: ignore[arg-type]  # its own documented use
    options, training = parser.parse_args_into_dataclasses()
    set_seed(training.seed)
    raw = load_data(options)
    names = raw["train"].features["label"].names
    tokenizer = AutoTokenizer.from_pretrained(options.model_name_or_path)
    model = AutoModelForSequenceClassification.from_pretrained(
        options.model_name_or_path, id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)}
    )

    def tokenize(rows: dict[str, Any]) -> Any:
        return tokenizer(rows["text"], truncation=True, max_length=options.max_length)

    with training.main_process_first():
        encoded = raw.map(tokenize, batched=True, remove_columns=["text"])
    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,
    )
    result = trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    trainer.save_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
