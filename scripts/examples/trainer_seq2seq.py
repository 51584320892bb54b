"""Turn texts into texts with the Hugging Face Seq2SeqTrainer, in the form of Transformers' run_translation.py.

    python scripts/examples/trainer_seq2seq.py --model_name_or_path t5-small \
        --train_file train.jsonl --validation_file validation.jsonl --output_dir runs/seq2seq --eval_strategy epoch

A row has `source` and `target`. On several processes: torchrun --nproc_per_node 2.
"""

from dataclasses import dataclass, field
from typing import Any

import datasets
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    HfArgumentParser,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    set_seed,
)


@dataclass
class DataArguments:
    """What to train on, and from where to begin."""

    model_name_or_path: str = field(metadata={"help": "A Hub id or a folder."})
    train_file: str = field(metadata={"help": "JSON Lines file."})
    validation_file: str = field(metadata={"help": "JSON Lines file."})
    max_length: int = field(default=128, metadata={"help": "Most tokens of an input."})


def main() -> None:
    """Read, tokenize, train, evaluate, save."""
    parser = HfArgumentParser((DataArguments, Seq2SeqTrainingArguments))  # type: ignore[arg-type]  # its own documented use
    options, training = parser.parse_args_into_dataclasses()
    set_seed(training.seed)
    files = {"train": options.train_file, "validation": options.validation_file}
    raw = datasets.load_dataset("json", data_files=files)
    tokenizer = AutoTokenizer.from_pretrained(options.model_name_or_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(options.model_name_or_path)

    def tokenize(rows: dict[str, Any]) -> Any:
        return tokenizer(rows["source"], text_target=rows["target"], truncation=True, max_length=options.max_length)

    with training.main_process_first():
        encoded = raw.map(tokenize, batched=True, remove_columns=["source", "target"])
    trainer = Seq2SeqTrainer(
        model=model,
        args=training,
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
    )
    result = trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    trainer.save_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
