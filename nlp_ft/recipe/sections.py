"""The sections that recipes of every task share, and the bases of those that differ between tasks. Imports no torch."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nlp_ft.defaults import LAYER_DECAY, WEIGHT_DECAY, Convention, HeadType, ScheduleName
from nlp_ft.durations import Duration
from nlp_ft.recipe.values import MOST_LAYERS, DurationField, Paths, Pattern, Place, Real, Text, TrainRows, Whole

ClassMetric = Literal["accuracy", "macro_f1", "micro_f1", "weighted_f1", "matthews", "loss"]
MultiLabelMetric = Literal[
    "macro_f1",
    "micro_f1",
    "weighted_f1",
    "samples_f1",
    "average_precision",
    "subset_accuracy",
    "hamming_loss",
    "matthews",
    "loss",
]
NumberMetric = Literal["spearman", "pearson", "mse", "rmse", "mae", "loss"]
TagMetric = Literal["span_f1", "span_precision", "span_recall", "macro_f1", "accuracy", "loss"]
QuestionMetric = Literal["f1", "exact_match", "loss"]
ChoiceMetric = Literal["accuracy", "above_chance", "loss"]
Metric = Literal[ClassMetric, MultiLabelMetric, NumberMetric, TagMetric, QuestionMetric, ChoiceMetric]


def is_share(where: object) -> bool:
    """Whether `data.validation` is a share of the train split, such as `10%`."""
    return isinstance(where, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?\s*%", where) is not None


def percent_of(share: object) -> float:
    """The 10 of `10%`."""
    return float(str(share).rstrip("% "))


class Section(BaseModel):
    """The base of all sections of a recipe: unknown keys are errors, and no value can be changed afterwards."""

    # A Duration is a dataclass of ours: pydantic is told to take it as it is.
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class DataSection(Section):
    """The keys of `data` that every task has; the sections of the tasks describe `source` and `train`."""

    draws_test: ClassVar[bool] = False
    """Whether `test` may be a share of train."""

    source: Paths | None = None
    config: Text | None = Field(
        None, description="Configuration of a Hub data set, such as `sst2` of `glue`; null for none. Needs `source`."
    )
    revision: Text | None = Field(
        None, description="Commit, branch or tag of a Hub data set; null for its main branch. Needs `source`."
    )
    train: Paths = "train"
    validation: Paths | None = Field(
        None,
        description="Validation rows, given as in `train`; or a share of the train split such as `10%`, drawn at "
        "random with the same share of each label, rows with equal inputs together. Null for no validation.",
    )
    test: Paths | None = Field(
        None, description="Test rows, given as in `train`; they are scored once, after training. Null for no test."
    )
    train_rows: TrainRows | None = Field(
        None,
        description="How many rows of train to train on, drawn at random by `seed`, so that each seed has its own: a "
        "number such as `1000`, with the same share of each class where a row has one; or `10/class`, so many of each "
        "class. They are drawn after the shares for validation and test, which are the same for all seeds. Null for "
        "all rows.",
    )
    label: Text = Field(
        "label",
        description="Name of the column with the label: strings or whole numbers for a classifier, numbers for a "
        "regression.",
    )
    label_names: list[Text] | None = Field(
        None,
        min_length=2,
        description="All labels in the order of their ids; where the labels are numbers, the names of 0, 1, ... . Null "
        "takes the labels found in the train split, sorted. A label listed here may have no rows in train.",
    )

    @field_validator("validation", mode="before")
    @classmethod
    def _check_share(cls, value: object) -> object:
        if isinstance(value, int | float | str) and re.fullmatch(r"0?\.[0-9]+", str(value)):
            raise ValueError(f"must be a place, or a share such as {100 * float(value):g}%")
        return value

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        for field in ("source", "train", "validation", "test"):
            if getattr(self, field) == []:
                raise ValueError(f"{field} must name at least one file, got []")
        repeated = [name for name in self.label_names or [] if (self.label_names or []).count(name) > 1]
        if repeated:
            raise ValueError(f"label_names must name each label once, got {repeated[0]!r} twice")
        if is_share(self.validation) and not 0 < percent_of(self.validation) < 100:
            raise ValueError(f"validation must be a share between 0% and 100%, got {self.validation}")
        if is_share(self.test) and not self.draws_test:
            raise ValueError(f"test must be rows of their own, got {self.test}; a share of train is for validation")
        if (self.config or self.revision) and not self.source:
            raise ValueError("config and revision belong to a Hub data set; name it in source")
        # A folder may be called `train` too; so may the split, which need not be written.
        if "train" not in self.model_fields_set and not self.source:
            raise ValueError("train must name the training file(s), or source the data set")
        return self


class HeadSection(Section):
    """The task layers on top of the pooled vector."""

    type: HeadType = Field(
        "linear",
        description="`linear`: dropout, then one linear layer. `bottleneck`: linear layer, activation, dropout, linear "
        "layer.",
    )
    bottleneck_size: Whole = Field(
        128, ge=1, le=65_536, description="Number of hidden units of a `bottleneck` head; `linear` has none."
    )
    activation: Literal["relu", "gelu", "tanh", "silu"] = Field(
        "relu", description="Activation function of a `bottleneck` head; `linear` has none."
    )
    dropout: Real | None = Field(
        None,
        ge=0,
        lt=1,
        description="Dropout probability before the last layer, from 0 to below 1. Null uses the model's own value "
        "(in most families that is `model.dropout`, if it is set), or 0.1 with a pooling or head that the model itself "
        "does not have.",
    )


class ModelSection(Section):
    """The keys of `model` that every task has; the sections of the tasks describe `name`."""

    name: Place
    head: HeadSection = Field(HeadSection(), description="The task layers.")
    layer_rules: list[tuple[Pattern, Annotated[Whole, Field(ge=0, le=MOST_LAYERS)] | Literal["head"]]] = Field(
        [],
        description="Layers given by hand, for a network whose structure does not show which layer a parameter belongs "
        "to: pairs [PATTERN, LAYER]. PATTERN is a regular expression that is searched in the parameter's full name; "
        "LAYER is 0 (embeddings or stem), 1 to L (blocks, from input to output) or `head`. The first rule that matches "
        "decides, before the structure does.",
    )


class OptimizerSection(Section):
    """The optimizer and its learning rates."""

    name: Literal["adamw", "adafactor", "sgd", "lion"] = Field(
        "adamw", description="The optimizer; `lion` needs the package lion-pytorch."
    )
    lr: Real | None = Field(
        None,
        gt=0,
        lt=10,
        description="Base learning rate, above 0; `convention` says which layer has exactly this rate. Null derives it "
        "from the width of the encoder: 1e-4 for MiniLM, 5e-5 for BERT-base, 3.8e-5 for BERT-large.",
    )
    head_lr: Real | None = Field(
        None,
        gt=0,
        lt=10,
        description="Learning rate of the head, above 0. Null derives it for a new head on a pretrained encoder: "
        "100 x `lr` if it is one linear layer, 10 x `lr` if it has more (such as a pooler or a bottleneck), for tags "
        "and for images. It is `lr` for a kept head, random weights, the head alone, and a `convention` other than "
        "`top`.",
    )
    layer_decay: Real = Field(
        LAYER_DECAY,
        gt=0,
        le=1,
        description="Layer-wise learning-rate decay: the factor on the learning rate from each block to the next one "
        "below, above 0 and at most 1. 1 gives all blocks the same rate.",
    )
    convention: Convention = Field(
        "top",
        description="Which layer has the base rate `lr`. `top`: the top block, and the head unless `head_lr` is set. "
        "`beit`: the head, one step of `layer_decay` above the top block. `electra`: the head, two steps above it. "
        "`ulmfit`: the top third of the blocks, and `layer_decay` is the factor from each third to the next.",
    )
    weight_decay: Real = Field(
        WEIGHT_DECAY,
        ge=0,
        lt=10,
        description="Weight decay of the optimizer; 0 for none. Norms and biases never decay.",
    )
    betas: tuple[Real, Real] | None = Field(
        None,
        description="Beta coefficients of AdamW or Lion, two numbers from 0 to below 1; null uses the optimizer's "
        "default.",
    )
    eps: Real | None = Field(
        None,
        gt=0,
        le=1,
        description="Term that AdamW adds to the denominator, above 0; null uses the optimizer's default.",
    )
    momentum: Real | None = Field(None, ge=0, lt=1, description="Momentum of SGD, from 0 to below 1; null uses 0.9.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        takes = {"betas": ("adamw", "lion"), "eps": ("adamw",), "momentum": ("sgd",)}
        for field, names in takes.items():
            if getattr(self, field) is not None and self.name not in names:
                raise ValueError(f"{field} is a setting of {' and '.join(names)}, not of {self.name}")
        if self.name == "sgd" and self.lr is None:
            raise ValueError("lr must be given for sgd, for which no rate is derived; try 1e-2")
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {list(self.betas)}")
        return self


class ScheduleSection(Section):
    """How the learning rates change over the run: one factor for all layers, so their ratios stay the same."""

    name: ScheduleName = Field(
        "linear",
        description="Course of the rates after the warm-up. `linear`: down to 0 in a straight line. `cosine`: down to "
        "0 along half a cosine. `constant`: no change. `slanted_triangular`: up in the warm-up from 1/`ratio` of the "
        "rate, then down to 1/`ratio` (Howard and Ruder 2018).",
    )
    warmup: DurationField = Field(
        Duration(10, "%"),
        description="Length of the linear warm-up: epochs (`0.5ep`), optimizer steps (`200st`) or a share of the run "
        "(`10%`); `0st` for none.",
    )
    ratio: Real = Field(
        32, gt=1, le=1e6, description="Highest rate divided by lowest rate under `slanted_triangular`, above 1."
    )


class LossSection(Section):
    """Weights and smoothing of the cross-entropy loss; a task that learns numbers has neither."""

    class_weights: Literal["balanced"] | dict[Text, Annotated[Real, Field(ge=1e-6, le=1e6)]] | None = Field(
        None,
        description="Weight of each label in the loss: `balanced` gives rows / (number of labels x rows of the label), "
        "`{LABEL: WEIGHT, ...}` names a weight above 0 for every label; null weights all labels equally. For "
        "multi_label_classification, it weights the rows that have the label, and `balanced` gives rows without the "
        "label / rows with it.",
    )
    label_smoothing: Real = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the target that is spread evenly over all labels, from 0 to below 1. For "
        "multi_label_classification, 0.1 turns the targets 1 and 0 of each label into 0.95 and 0.05.",
    )
