"""A recipe: what to train, on what, and how; validated as a whole and frozen. Imports no torch.

The field descriptions carry the units; the JSON Schema made from them completes recipes in editors.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator

from nlp_ft.durations import Duration

DurationField = Annotated[
    Duration,
    BeforeValidator(lambda value: value if isinstance(value, Duration) else Duration.parse(value)),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ep|st|%)$"}),
]
Paths = str | list[str]


def is_share(where: object) -> bool:
    """Whether `data.validation` is a share of the train split, such as `10%`."""
    return isinstance(where, str) and re.fullmatch(r"\d+(\.\d+)?\s*%", where) is not None


class Section(BaseModel):
    """Part of a recipe: unknown keys are refused and nothing can be changed afterwards."""

    # A Duration is a dataclass of ours: pydantic is told to take it as it is.
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class DataSection(Section):
    """Where the texts and labels come from."""

    source: Paths | None = Field(
        None,
        description="One place that holds all splits: file(s), a saved dataset folder, or a Hub id. With it, `train`, "
        "`validation` and `test` are names of splits (or values of `split_column`); without it they are files.",
    )
    config: str | None = Field(None, description="Configuration of a Hub data set, such as `sst2` of `glue`.")
    revision: str | None = Field(None, description="Commit, branch or tag of a Hub data set.")
    split_column: str | None = Field(None, description="Column of `source` that tells each row's split.")
    train: Paths = Field(
        "train",
        description="CSV, TSV, JSON Lines or Parquet file(s), globs, or saved dataset folders; relative to the folder "
        "the command runs in; `package:NAME/PATH` lies inside an installed package. With `source`: a split.",
    )
    validation: Paths | None = Field(
        None, description="As `train`, or a share of the train split such as `10%`, drawn by class; null for none."
    )
    test: Paths | None = Field(None, description="As `train`; null for none.")
    text: str | list[str] = Field("text", description="Column with the text, or the two columns of a text pair.")
    label: str = Field("label", description="Column with the label: strings or whole numbers.")
    label_names: list[str] | None = Field(
        None,
        min_length=2,
        description="All labels in the order of their ids; for numeric labels the name of 0, 1, ... . Null: the labels "
        "found in the train split, sorted. A label listed here may be missing from train.",
    )
    max_length: int = Field(128, ge=3, description="Tokens of the longest input, special tokens included.")
    truncation: Literal["head", "tail", "head_tail"] = Field(
        "head", description="What is kept of a longer text: its beginning, its end, or `head_tokens` and then the end."
    )
    head_tokens: int = Field(
        128, ge=1, description="Tokens kept from the beginning under `head_tail` (Sun et al. 2019 keep 128 of 512)."
    )
    num_proc: int | None = Field(None, ge=1, description="Processes that tokenize; null: as many as help.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.text, list) and len(self.text) != 2:
            raise ValueError(f"text must be one column or a list of two, got {len(self.text)}")
        if isinstance(self.text, list) and self.truncation == "head_tail":
            raise ValueError("truncation head_tail needs a single text; use head or tail for pairs")
        for field in ("source", "train", "validation", "test"):
            if getattr(self, field) == []:
                raise ValueError(f"{field} must name at least one file, got []")
        repeated = [name for name in self.label_names or [] if (self.label_names or []).count(name) > 1]
        if repeated:
            raise ValueError(f"label_names must name each label once, got {repeated[0]!r} twice")
        if self.truncation == "head_tail" and self.head_tokens > self.max_length - 3:
            raise ValueError(
                f"head_tokens must leave room for the end of the text within max_length {self.max_length}, "
                f"got {self.head_tokens}"
            )
        if self.split_column and not self.source:
            raise ValueError("split_column needs source, the file(s) that hold that column")
        if is_share(self.validation) and not 0 < float(str(self.validation).rstrip("% ")) < 100:
            raise ValueError(f"validation must be a share between 0% and 100%, got {self.validation}")
        if (self.config or self.revision) and not self.source:
            raise ValueError("config and revision belong to a Hub data set; name it in source")
        if self.train == "train" and not self.source:
            raise ValueError("train must name the training file(s), or source the data set")
        return self


class HeadSection(Section):
    """The task layers on top of the pooled vector."""

    type: Literal["linear", "bottleneck"] = Field(
        "linear", description="`linear`: dropout and one layer. `bottleneck`: layer, activation, dropout, layer."
    )
    bottleneck_size: int = Field(128, ge=1, description="Units of the hidden layer of a `bottleneck` head.")
    activation: Literal["relu", "gelu", "tanh", "silu"] = Field("relu", description="Of a `bottleneck` head.")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of units dropped before the last layer, 0 to 1; null: the model's own.",
    )


class ModelSection(Section):
    """The pretrained encoder, its pooling and its head."""

    name: str = Field(
        description="Hub id, folder, or `package:NAME/PATH` inside an installed package, of an encoder with "
        "safetensors weights."
    )
    revision: str | None = Field(None, description="Commit, branch or tag of a Hub model.")
    pooling: Literal["auto", "cls", "mean", "max", "pooler"] = Field(
        "auto",
        description="From token vectors to one: `auto` and `pooler` as the architecture itself does it, or its CLS "
        "token, or the mean or maximum over the tokens.",
    )
    head: HeadSection = Field(HeadSection(), description="The task layers.")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout inside the encoder, share of units, 0 to 1; null: as pretrained."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model. Know its author.")


class StrategySection(Section):
    """What is trained. A string stands for the preset of that name."""

    name: Literal["full", "llrd", "head_only", "top_layers"] = Field(
        "llrd",
        description="`full`: everything at one rate; `llrd`: everything, lower layers slower; `head_only`: the head; "
        "`top_layers`: the head and the blocks below it.",
    )
    trainable_blocks: int | Literal["all"] = Field(
        "all", description="Blocks trained, counted from the top; `all` includes the embeddings; 0 is the head alone."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        expected = {"full": "all", "llrd": "all", "head_only": 0}.get(self.name, self.trainable_blocks)
        if self.trainable_blocks != expected:
            raise ValueError(
                f"trainable_blocks must be {expected} under {self.name}, got {self.trainable_blocks}; "
                "did you mean strategy.name: top_layers?"
            )
        if isinstance(self.trainable_blocks, int) and self.trainable_blocks < 0:
            raise ValueError(f"trainable_blocks must be 0 or more, or all, got {self.trainable_blocks}")
        return self


class OptimizerSection(Section):
    """The optimizer and its rates."""

    name: Literal["adamw", "adafactor", "sgd", "lion"] = Field("adamw", description="`lion` needs lion-pytorch.")
    lr: float = Field(5e-5, gt=0, lt=10, description="Base learning rate, per optimizer step.")
    head_lr: float | None = Field(None, gt=0, lt=10, description="Learning rate of the head; null: `lr`.")
    layer_decay: float = Field(
        0.9, gt=0, le=1, description="Factor on the rate from one block to the next below, above 0 to 1; 1 is none."
    )
    convention: Literal["top", "beit", "electra"] = Field(
        "top", description="Which layer has the base rate: the top block (`top`), or the head, one or two above it."
    )
    weight_decay: float = Field(0.01, ge=0, lt=10, description="Decoupled weight decay; none on norms and biases.")
    betas: tuple[float, float] | None = Field(None, description="Of AdamW and Lion; null: the optimizer's own.")
    eps: float | None = Field(None, gt=0, description="Of AdamW; null: the optimizer's own.")
    momentum: float | None = Field(None, ge=0, lt=1, description="Of SGD; null: 0.9.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        takes = {"betas": ("adamw", "lion"), "eps": ("adamw",), "momentum": ("sgd",)}
        for field, names in takes.items():
            if getattr(self, field) is not None and self.name not in names:
                raise ValueError(f"{field} is a setting of {' and '.join(names)}, not of {self.name}")
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {list(self.betas)}")
        return self


class ScheduleSection(Section):
    """How the rates move over the run."""

    name: Literal["linear", "cosine", "constant", "slanted_triangular"] = Field(
        "linear", description="From the end of the warm-up on; `slanted_triangular` is Howard and Ruder's (2018)."
    )
    warmup: DurationField = Field(Duration(10, "%"), description="Linear warm-up: 0.5ep, 200st, or 10% of the run.")
    ratio: float = Field(32, gt=1, description="Of the highest to the lowest rate of the slanted triangle.")


class LossSection(Section):
    """Cross-entropy and its weights."""

    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None, description="Weight of each label by name, or `balanced`: rows / (labels x rows of the label)."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all labels, 0 to 1.")
    average: Literal["sample", "token"] = Field(
        "sample",
        description="What the mean of an effective batch is over: samples, or labelled tokens. They differ only where "
        "a sample has several labels.",
    )


class EarlyStoppingSection(Section):
    """When to end a run that no longer improves."""

    patience: int = Field(3, ge=1, description="Evaluations in a row without a new best before the run ends.")
    min_delta: float = Field(0.0, ge=0, description="Improvement of the metric below which it counts as none.")


class TrainingSection(Section):
    """The loop."""

    duration: DurationField = Field(Duration(3, "ep"), description="Length of the run: 3ep or 2000st.")
    per_device_batch_size: int = Field(32, ge=1, description="Samples of one device before accumulation.")
    eval_batch_size: int = Field(64, ge=1, description="Samples of one device when evaluating.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Batches of one device for one optimizer step.")
    group_by_length: bool = Field(True, description="Batch texts of like length together, which saves padding.")
    max_grad_norm: float | None = Field(1.0, gt=0, description="Clip the norm of all gradients to this; null: never.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="`auto`: bf16 where the hardware computes in it natively, else fp32. fp16 needs a GPU."
    )
    evaluate_every: DurationField = Field(Duration(1, "ep"), description="1ep or 200st between evaluations.")
    checkpoint_every: DurationField = Field(
        Duration(1, "ep"), description="1ep or 200st between checkpoints, from which --resume goes on."
    )
    metric: Literal["accuracy", "macro_f1", "micro_f1", "weighted_f1", "matthews", "loss"] = Field(
        "accuracy", description="By which the best model is chosen."
    )
    keep: Literal["best", "last"] = Field("best", description="The model to save; without validation the last.")
    early_stopping: EarlyStoppingSection | None = Field(None, description="Null: the run goes its full length.")
    deterministic: bool = Field(True, description="Ask for deterministic kernels on accelerators.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field in ("duration", "evaluate_every", "checkpoint_every"):
            length: Duration = getattr(self, field)
            if length.unit == "%" or length.value == 0:
                raise ValueError(f"{field} must be epochs or steps above 0, such as 3ep or 200st, got {length}")
        return self


class Recipe(Section):
    """A fine-tuning run, from data to run folder."""

    data: DataSection = Field(description="Where the texts and labels come from.")
    model: ModelSection = Field(description="The pretrained encoder, its pooling and its head.")
    strategy: StrategySection = Field(StrategySection(), description="What is trained.")
    optimizer: OptimizerSection = Field(OptimizerSection(), description="The optimizer and its rates.")
    schedule: ScheduleSection = Field(ScheduleSection(), description="How the rates move over the run.")
    loss: LossSection = Field(LossSection(), description="Cross-entropy and its weights.")
    training: TrainingSection = Field(TrainingSection(), description="The loop.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the head's weights, the order of the data and dropout.")
    output_dir: str = Field(description="The run folder; it must not exist, unless --overwrite or --resume is given.")
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        default_factory=list, description="Where metrics go beside metrics.jsonl; each needs its package."
    )
    baselines: bool = Field(
        False, description="Score the majority label and TF-IDF with logistic regression on the test split too."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.strategy.name == "full" and self.optimizer.layer_decay != 1:
            raise ValueError(
                f"strategy full trains all layers at one rate, but optimizer.layer_decay is "
                f"{self.optimizer.layer_decay}; set it to 1, or did you mean strategy: llrd?"
            )
        if self.data.validation is None and self.training.early_stopping is not None:
            raise ValueError("training.early_stopping needs data.validation, a split or a share such as 10%")
        weights, names = self.loss.class_weights, self.data.label_names
        if isinstance(weights, dict) and names is not None and set(weights) != set(names):
            raise ValueError(f"loss.class_weights must name exactly the labels of data.label_names: {names}")
        return self


STRATEGY_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "full": {"strategy": {"trainable_blocks": "all"}, "optimizer": {"layer_decay": 1.0}},
    "llrd": {"strategy": {"trainable_blocks": "all"}, "optimizer": {"layer_decay": 0.9}},
    "head_only": {"strategy": {"trainable_blocks": 0}, "optimizer": {"layer_decay": 1.0, "lr": 1e-3}},
    "top_layers": {"strategy": {"trainable_blocks": 2}, "optimizer": {"layer_decay": 1.0}},
}
"""What a strategy's name stands for: a part of a recipe, which the recipe itself goes before."""
