"""Choose among endings with the Hugging Face Trainer, in the form of Transformers' run_swag.py.

    python scripts/examples/trainer_multiple_choice.py --model_name_or_path bert-base-uncased \
        --train_file train.jsonl --validation_file validation.jsonl --output_dir runs/choice --eval_strategy epoch

A row has `prompt`, `choices` (a list, as long in every row) and `label`, the number of the right choice from 0.
On several processes: torchrun --nproc_per_node 2.
"""

from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
from transformers import (
    AutoModelForMultipleChoice,
    AutoTokenizer,
    DataCollatorForMultipleChoice,
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
    train_file: str = field(metadata={"help": "JSON Lines file."})
    validation_file: str = field(metadata={"help": "JSON Lines file."})
    max_length: int = field(default=128, metadata={"help": "Most tokens of an input."})


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Share of rows whose highest logit is that of the right choice."""
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}


def main() -> None:
    """Read, tokenize, train, evaluate, save."""
    parser = HfArgumentParser((DataArguments, TrainingArguments))  # type: ignore[arg-type]  # its own documented use
    options, training = parser.parse_args_into_dataclasses()
    set_seed(training.seed)
    files = {"train": options.train_file, "validation": options.validation_file}
    raw = datasets.load_dataset("json", data_files=files)
    tokenizer = AutoTokenizer.from_pretrained(options.model_name_or_path)
    model = AutoModelForMultipleChoice.from_pretrained(options.model_name_or_path)

    def tokenize(rows: dict[str, Any]) -> dict[str, list[Any]]:
        """Pair the prompt with each choice."""
        size = len(rows["choices"][0])
        prompts = [prompt for prompt in rows["prompt"] for _ in range(size)]
        choices = [choice for of_row in rows["choices"] for choice in of_row]
        pairs = tokenizer(prompts, choices, truncation=True, max_length=options.max_length)
        return {key: [values[i : i + size] for i in range(0, len(values), size)] for key, values in pairs.items()}

    with training.main_process_first():
        encoded = raw.map(tokenize, batched=True, remove_columns=["prompt", "choices"])
    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorForMultipleChoice(tokenizer),
        compute_metrics=compute_metrics,
    )
    result = trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    trainer.save_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
