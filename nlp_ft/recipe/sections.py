"""The sections that recipes of every task share, and the bases of those that differ. Imports no torch."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nlp_ft.defaults import LAYER_DECAY, LR, WEIGHT_DECAY
from nlp_ft.durations import Duration
from nlp_ft.recipe.values import MOST_LAYERS, DurationField, Paths, Pattern, Place, Real, Text, Whole

ClassMetric = Literal["accuracy", "macro_f1", "micro_f1", "weighted_f1", "matthews", "loss"]
NumberMetric = Literal["spearman", "pearson", "mse", "mae", "loss"]
Metric = Literal[ClassMetric, NumberMetric]


def is_share(where: object) -> bool:
    """Whether `data.validation` is a share of the train split, such as `10%`."""
    return isinstance(where, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?\s*%", where) is not None


class Section(BaseModel):
    """Part of a recipe: unknown keys are refused and nothing can be changed afterwards."""

    # A Duration is a dataclass of ours: pydantic is told to take it as it is.
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class DataSection(Section):
    """Where rows and labels come from, whatever the task."""

    source: Paths | None = Field(
        None,
        description="One place that holds all splits: file(s), a saved dataset folder, or a Hub id. With it, `train`, "
        "`validation` and `test` are names of splits; without it they are places.",
    )
    config: Text | None = Field(None, description="Configuration of a Hub data set, such as `sst2` of `glue`.")
    revision: Text | None = Field(None, description="Commit, branch or tag of a Hub data set.")
    train: Paths = Field("train", description="Place of the training rows. With `source`: a split.")
    validation: Paths | None = Field(
        None, description="As `train`, or a share of the train split such as `10%`, drawn by class; null for none."
    )
    test: Paths | None = Field(None, description="As `train`; null for none.")
    label: Text = Field("label", description="Column with the label: strings or whole numbers.")
    label_names: list[Text] | None = Field(
        None,
        min_length=2,
        description="All labels in the order of their ids; for numeric labels the name of 0, 1, ... . Null: the labels "
        "found in the train split, sorted. A label listed here may be missing from train.",
    )

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        for field in ("source", "train", "validation", "test"):
            if getattr(self, field) == []:
                raise ValueError(f"{field} must name at least one file, got []")
        repeated = [name for name in self.label_names or [] if (self.label_names or []).count(name) > 1]
        if repeated:
            raise ValueError(f"label_names must name each label once, got {repeated[0]!r} twice")
        if is_share(self.validation) and not 0 < float(str(self.validation).rstrip("% ")) < 100:
            raise ValueError(f"validation must be a share between 0% and 100%, got {self.validation}")
        if (self.config or self.revision) and not self.source:
            raise ValueError("config and revision belong to a Hub data set; name it in source")
        # A folder may be called `train` too; so may the split, which need not be written.
        if "train" not in self.model_fields_set and not self.source:
            raise ValueError("train must name the training file(s), or source the data set")
        return self


class HeadSection(Section):
    """The task layers on top of the pooled vector."""

    type: Literal["linear", "bottleneck"] = Field(
        "linear", description="`linear`: dropout and one layer. `bottleneck`: layer, activation, dropout, layer."
    )
    bottleneck_size: Whole = Field(
        128, ge=1, le=65_536, description="Units of the hidden layer of a `bottleneck` head."
    )
    activation: Literal["relu", "gelu", "tanh", "silu"] = Field("relu", description="Of a `bottleneck` head.")
    dropout: Real | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of units dropped before the last layer, 0 to 1; null: the model's own.",
    )


class ModelSection(Section):
    """The pretrained network and its head, whatever the task."""

    name: Place = Field(description="Name of the network.")
    head: HeadSection = Field(HeadSection(), description="The task layers.")
    layer_rules: list[tuple[Pattern, Annotated[Whole, Field(ge=0, le=MOST_LAYERS)] | Literal["head"]]] = Field(
        [],
        description="For a network whose structure does not tell where a parameter is: pairs of a regular expression, "
        "searched in the parameter's full name, and a layer id (0 embeddings or stem, 1 to L blocks) or `head`. The "
        "first match wins, and goes before the structure.",
    )


class OptimizerSection(Section):
    """The optimizer and its rates."""

    name: Literal["adamw", "adafactor", "sgd", "lion"] = Field("adamw", description="`lion` needs lion-pytorch.")
    lr: Real = Field(LR, gt=0, lt=10, description="Base learning rate, per optimizer step.")
    head_lr: Real | None = Field(None, gt=0, lt=10, description="Learning rate of the head; null: `lr`.")
    layer_decay: Real = Field(
        LAYER_DECAY,
        gt=0,
        le=1,
        description="Factor on the rate from one block to the next below, above 0 to 1; 1 is none.",
    )
    convention: Literal["top", "beit", "electra", "ulmfit"] = Field(
        "top",
        description="Which layer has the base rate: the top block (`top`), or the head, one or two above it. `ulmfit`: "
        "the top third of the blocks; `layer_decay` is from a third to the next.",
    )
    weight_decay: Real = Field(
        WEIGHT_DECAY, ge=0, lt=10, description="Decoupled weight decay; none on norms and biases."
    )
    betas: tuple[Real, Real] | None = Field(None, description="Of AdamW and Lion; null: the optimizer's own.")
    eps: Real | None = Field(None, gt=0, le=1, description="Of AdamW; null: the optimizer's own.")
    momentum: Real | None = Field(None, ge=0, lt=1, description="Of SGD; null: 0.9.")

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
    ratio: Real = Field(32, gt=1, le=1e6, description="Of the highest to the lowest rate of the slanted triangle.")


class LossSection(Section):
    """Cross-entropy and its weights."""

    class_weights: Literal["balanced"] | dict[Text, Annotated[Real, Field(ge=1e-6, le=1e6)]] | None = Field(
        None, description="Weight of each label by name, or `balanced`: rows / (labels x rows of the label)."
    )
    label_smoothing: Real = Field(0.0, ge=0, lt=1, description="Share of the target spread over all labels, 0 to 1.")
    average: Literal["sample", "token"] = Field(
        "sample",
        description="What the mean of an effective batch is over: samples, or labelled tokens. They differ only where "
        "a sample has several labels.",
    )


class EarlyStoppingSection(Section):
    """When to end a run that no longer improves."""

    patience: Whole = Field(
        3, ge=1, le=1_000_000, description="Evaluations in a row without a new best before the run ends."
    )
    min_delta: Real = Field(0.0, ge=0, le=1000, description="Improvement of the metric below which it counts as none.")


class TrainingSection(Section):
    """The loop."""

    duration: DurationField = Field(Duration(3, "ep"), description="Length of the run: 3ep or 2000st.")
    per_device_batch_size: Whole = Field(
        32, ge=1, le=1_000_000, description="Samples of one device before accumulation."
    )
    max_tokens_per_batch: Whole | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Tokens of one device before accumulation, padding included, in place of `per_device_batch_size`: "
        "as many texts of like length as fit go together, and a text that is longer goes alone. Null: go by samples.",
    )
    eval_batch_size: Whole = Field(64, ge=1, le=1_000_000, description="Samples of one device when evaluating.")
    gradient_accumulation_steps: Whole = Field(
        1, ge=1, le=1_000_000, description="Batches of one device for one optimizer step."
    )
    group_by_length: bool = Field(True, description="Batch texts of like length together, which saves padding.")
    max_grad_norm: Real | None = Field(
        1.0, gt=0, le=1e9, description="Clip the norm of all gradients to this; null: never."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="`auto`: bf16 where the hardware computes in it natively, else fp32. fp16 needs a GPU."
    )
    evaluate_every: DurationField = Field(Duration(1, "ep"), description="1ep or 200st between evaluations.")
    checkpoint_every: DurationField = Field(
        Duration(1, "ep"), description="1ep or 200st between checkpoints, from which --resume goes on."
    )
    metric: Metric = Field(
        "accuracy",
        description="Metric that chooses the best model: of labels accuracy, the F1s, matthews or loss; of numbers "
        "spearman (the default of text_regression), pearson, mse, mae or loss.",
    )
    keep: Literal["best", "last"] = Field("best", description="The model to save; without validation the last.")
    early_stopping: EarlyStoppingSection | None = Field(None, description="Null: the run goes its full length.")
    feature_cache: Literal["auto", "off"] = Field(
        "auto",
        description="`auto`: what frozen blocks give for a text is computed once and kept on disk for all epochs and "
        "for the next runs, where that is expected to pay.",
    )
    feature_cache_gb: Real = Field(
        10.0, gt=0, le=1e6, description="Room on disk for what all runs keep, in GB (10^9 bytes)."
    )
    feature_precision: Literal["auto", "fp32", "half"] = Field(
        "auto", description="Of what is kept. `auto`: that of the run; `half`: bf16, or fp16 in a run of that."
    )
    deterministic: bool = Field(True, description="Ask for deterministic kernels on accelerators.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field in ("duration", "evaluate_every", "checkpoint_every"):
            length: Duration = getattr(self, field)
            if length.unit == "%" or length.value == 0:
                raise ValueError(f"{field} must be epochs or steps above 0, such as 3ep or 200st, got {length}")
        if self.max_tokens_per_batch is not None and not self.group_by_length:
            raise ValueError(
                "max_tokens_per_batch puts texts of like length together, so group_by_length: false has no place "
                "beside it; take one of the two away"
            )
        return self
