"""The section of a recipe that says which layers train, and when. Imports no torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nlp_ft.defaults import Embeddings, Grain, Order
from nlp_ft.durations import Duration
from nlp_ft.recipe.presets import STRATEGY_PRESETS, UNFREEZING, StrategyName
from nlp_ft.recipe.probe import ProbeSection
from nlp_ft.recipe.sections import Metric, Section
from nlp_ft.recipe.values import MOST_LAYERS, DurationField, MinDelta, Pattern, Real, Text, Whole

REPLACED_BY_LAYERS = ("order", "blocks_per_phase", "embeddings")
"""Settings of `UnfreezeSection` whose place its `layers` takes."""


class TriggerSection(Section):
    """The shortest and the longest length of a phase that a condition ends."""

    at_least: DurationField | None = Field(
        None, description="Shortest length of a phase: `1ep`, `200st` or `10%` of the run; null for no bound."
    )
    at_most: DurationField | None = Field(
        None, description="Longest length of a phase: `1ep`, `200st` or `10%` of the run; null for no bound."
    )

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        low, high = self.at_least, self.at_most
        if high is not None and high.value == 0:
            raise ValueError(f"at_most must be above 0, got {high}")
        # In different units the length of the run decides; then the plan of the run looks.
        if low is not None and high is not None and low.unit == high.unit and low.value > high.value:
            raise ValueError(f"at_least must be at most at_most, which is {high}, got {low}")
        return self


class PlateauSection(TriggerSection):
    """Ends a phase when a validation metric no longer improves."""

    metric: Metric = Field(
        "loss", description="Validation score to watch; losses and errors improve downwards, all others upwards."
    )
    patience: Whole = Field(
        1,
        ge=1,
        le=1_000_000,
        description="The phase ends after this many evaluations in a row without a better value.",
    )
    min_delta: MinDelta = 0.0


class LossBelowSection(TriggerSection):
    """Ends a phase when the training loss is small enough."""

    value: Real = Field(
        gt=0,
        le=1000,
        description="The phase ends when the mean training loss of the last steps (at most 10) is below this number.",
    )


class UnfreezeSection(Section):
    """When layers begin to train, in phases: first the head, then the others in their `order`."""

    order: Order = Field(
        "top_down",
        description="Order in which blocks begin to train, after the head. `top_down`: from the output to the input. "
        "`bottom_up`: from the input to the output. `all_at_once`: all in the second phase. `one_at_a_time`: each "
        "layer alone, from the input to the output, then all together.",
    )
    every: DurationField | None = Field(
        None,
        description="Length of a phase: epochs (`1ep`), optimizer steps (`200st`) or a share of the run (`10%`). Null "
        "divides the run into equal phases.",
    )
    plateau: PlateauSection | None = Field(
        None, description="Ends a phase when a validation metric no longer improves; replaces `every`. Null for none."
    )
    loss_below: LossBelowSection | None = Field(
        None, description="Ends a phase when the training loss is small enough; replaces `every`. Null for none."
    )
    blocks_per_phase: Whole = Field(
        1, ge=1, le=MOST_LAYERS, description="Blocks (or stages, see `grain`) that begin to train together."
    )
    embeddings: Embeddings = Field(
        "last", description="When the embeddings (or the stem) begin to train: `last`, after all blocks, or `never`."
    )
    layers: Text | None = Field(
        None,
        description="Each layer with the time at which it begins to train, such as `head: 0ep, 10-12: 1ep, 1-9: 30%, "
        "embeddings: never`; replaces `order`, `every`, `plateau`, `loss_below`, `blocks_per_phase` and `embeddings`. "
        "Null for none.",
    )
    lr_scales: list[Annotated[Real, Field(gt=0, le=1e6)]] | None = Field(
        None, description="One factor above 0 for each phase, on all learning rates in it; null uses 1 throughout."
    )
    layer_warmup: DurationField = Field(
        Duration(0, "st"),
        description="Time over which the rate of a layer rises to its full value after it begins to train: `0.5ep`, "
        "`100st` or `2%` of the run; `0st` for none.",
    )
    restart_lr: bool = Field(
        False, description="Run the whole learning-rate schedule in each phase, instead of once over the run."
    )
    restore_best: bool = Field(
        False, description="Begin each phase with the best weights of the phase before; needs `data.validation`."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        ends = [name for name in ("every", "plateau", "loss_below") if getattr(self, name) is not None]
        if len(ends) > 1:
            raise ValueError(f"{' and '.join(ends)} cannot both end a phase; give one")
        fields = type(self).model_fields
        doubled = [*ends, *(name for name in REPLACED_BY_LAYERS if getattr(self, name) != fields[name].default)]
        if self.layers is not None and doubled:
            raise ValueError(f"layers says when each layer trains, so {doubled[0]} has no place beside it")
        if self.order == "all_at_once" and self.blocks_per_phase != 1:
            raise ValueError(
                f"blocks_per_phase {self.blocks_per_phase} has no place under order all_at_once, whose second phase "
                "trains all blocks"
            )
        return self


class LoraSection(Section):
    """The adapters of `lora`: two small matrices beside a frozen weight (Hu et al. 2021)."""

    rank: Whole = Field(8, ge=1, le=4096, description="Rank of the product of the two matrices.")
    alpha: Real = Field(
        16, gt=0, le=65_536, description="Scale of an adapter: its product is multiplied by alpha / rank."
    )
    dropout: Real = Field(0.0, ge=0, lt=1, description="Dropout probability before an adapter, from 0 to below 1.")
    target_modules: Literal["auto"] | Annotated[list[Pattern], Field(min_length=1)] = Field(
        "auto",
        description="Linear layers that get an adapter, in the blocks of `trainable_blocks`. `auto`: the queries and "
        "values of the attention, as PEFT's table names them for the architecture. Else a list of regular expressions "
        "that are searched in the names of the layers, such as `[query, value, dense]`.",
    )


class StrategySection(Section):
    """Which layers train, and when. In place of the section, the name of a strategy alone uses its preset."""

    name: StrategyName = Field(
        "llrd",
        description="The strategy, whose preset sets other keys. `full`: everything, one rate below the head. `llrd`: "
        "everything, lower layers at lower rates. `head_only`: the head. `top_layers`: the head and the top blocks. "
        "`gradual`: the head, then block by block from the top. `lp_ft`: the head, then everything. `discriminative`: "
        "everything, one rate for the head and one for all below. `ulmfit`: as Howard and Ruder (2018). `lora`: the "
        "head, and small adapters beside frozen weights (Hu et al. 2021). `probe`: a linear model on frozen features, "
        "solved without steps. `scratch`: everything, from random weights.",
    )
    trainable_blocks: Annotated[Whole, Field(ge=0, le=MOST_LAYERS)] | Literal["all"] = Field(
        "all",
        description="Number of blocks (or stages, see `grain`) that train, counted from the top, beside the head: 0 "
        "for the head alone, `all` for all blocks and the embeddings or stem. Under `lora`: the blocks with adapters.",
    )
    lora: LoraSection | None = Field(None, description="The adapters of `lora`. Null under any other strategy.")
    probe: ProbeSection | None = Field(None, description="The linear model of `probe`. Null under any other strategy.")
    unfreeze: UnfreezeSection | None = Field(
        None,
        description="When layers begin to train, for gradual, lp_ft and ulmfit. Null: the layers of `trainable_blocks` "
        "train from the start.",
    )
    reinit_top: Whole = Field(
        0,
        ge=0,
        le=MOST_LAYERS,
        description="Number of top blocks that begin with random weights in place of pretrained ones (Zhang et al. "
        "2021). They must train, and the head above them is new.",
    )
    grain: Grain = Field(
        "block",
        description="What counts as one layer of an image network: each residual `block`, or each `stage`. Texts have "
        "`block` only.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        expected = STRATEGY_PRESETS[self.name]["strategy"].get("trainable_blocks", "all")
        if self.trainable_blocks != expected and self.name not in ("top_layers", "lora"):
            raise ValueError(
                f"trainable_blocks must be {expected} under {self.name}, got {self.trainable_blocks}; "
                "did you mean strategy.name: top_layers?"
            )
        if self.unfreeze is None and self.name in UNFREEZING:
            raise ValueError(f"unfreeze must not be null under {self.name}; take the line away for its preset")
        if self.unfreeze is not None and self.name not in UNFREEZING:
            raise ValueError(f"unfreeze belongs to {', '.join(UNFREEZING)}, got it under {self.name}")
        if self.reinit_top and self.name == "scratch":
            raise ValueError("reinit_top has no meaning under scratch, where all weights are random")
        if self.reinit_top and self.name == "probe":
            raise ValueError("reinit_top has no place under probe, which would read the features of random weights")
        return self

    @model_validator(mode="after")
    def _check_own_sections(self) -> Self:
        for section in ("lora", "probe"):
            if (getattr(self, section) is not None) != (self.name == section):
                has = (
                    f"must not be null under {section}; take the line away for its preset"
                    if self.name == section
                    else (f"belongs to strategy {section}, got it under {self.name}")
                )
                raise ValueError(f"{section} {has}")
        return self

    @model_validator(mode="after")
    def _check_lora(self) -> Self:
        if self.lora is not None and self.trainable_blocks == 0:
            raise ValueError("trainable_blocks must be at least 1 under lora; head_only trains the head alone")
        if self.lora is not None and self.reinit_top:
            raise ValueError("reinit_top has no place under lora, which would leave the new weights frozen and random")
        return self
