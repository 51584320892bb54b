"""The section of a recipe that says what is trained, and when. Imports no torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nlp_ft.durations import Duration
from nlp_ft.recipe.sections import Metric, Section
from nlp_ft.recipe.values import MOST_LAYERS, DurationField, Real, Text, Whole

UNFREEZING = ("gradual", "lp_ft", "ulmfit")
"""The strategies that train more and more layers."""


REPLACED_BY_LAYERS = ("order", "blocks_per_phase", "embeddings")
"""Settings of `UnfreezeSection` that its `layers` stands in place of."""


class TriggerSection(Section):
    """What ends a phase, and its bounds."""

    at_least: DurationField | None = Field(None, description="A phase lasts so long in any case: 1ep, 200st, 10%.")
    at_most: DurationField | None = Field(None, description="And no longer than this; null: without bound.")

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
    """A metric that no longer improves."""

    metric: Metric = Field("loss", description="On the validation split; the loss improves downwards.")
    patience: Whole = Field(1, ge=1, le=1_000_000, description="Evaluations in a row without a better value.")
    min_delta: Real = Field(0.0, ge=0, le=1000, description="Improvement of the metric below which it counts as none.")


class LossBelowSection(TriggerSection):
    """A training loss that is small enough."""

    value: Real = Field(
        gt=0, le=1000, description="Mean training loss since the record before, at most 10 steps, in nats."
    )


class UnfreezeSection(Section):
    """When layers begin to train. A phase trains the layers of the one before and the next; the first one the head."""

    order: Literal["top_down", "bottom_up", "all_at_once", "one_at_a_time"] = Field(
        "top_down",
        description="Of the blocks. `all_at_once`: all after the head; `one_at_a_time`: each alone from the input up, "
        "then all.",
    )
    every: DurationField | None = Field(
        None, description="Length of a phase: 1ep, 200st, 10%; null: the run is divided evenly."
    )
    plateau: PlateauSection | None = Field(None, description="In place of `every`: what ends a phase.")
    loss_below: LossBelowSection | None = Field(None, description="In place of `every`: what ends a phase.")
    blocks_per_phase: Whole = Field(1, ge=1, le=MOST_LAYERS, description="Blocks (or stages) that join at a time.")
    embeddings: Literal["last", "never"] = Field("last", description="When the embeddings (or the stem) join.")
    layers: Text | None = Field(
        None,
        description="In place of all above: layers and the time from which each trains, such as `head: 0ep, 10-12: "
        "1ep, 1-9: 30%, embeddings: never`.",
    )
    lr_scales: list[Annotated[Real, Field(gt=0, le=1e6)]] | None = Field(
        None, description="Factor on all learning rates in each phase; null: 1."
    )
    layer_warmup: DurationField = Field(
        Duration(0, "st"), description="Warm-up of a layer that begins to train: 100st, 2%."
    )
    restart_lr: bool = Field(False, description="Run the schedule of the rates anew in each phase.")
    restore_best: bool = Field(False, description="Begin a phase with the best weights of the one before.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        ends = [name for name in ("every", "plateau", "loss_below") if getattr(self, name) is not None]
        if len(ends) > 1:
            raise ValueError(f"{' and '.join(ends)} cannot both end a phase; give one")
        fields = type(self).model_fields
        doubled = [*ends, *(name for name in REPLACED_BY_LAYERS if getattr(self, name) != fields[name].default)]
        if self.layers is not None and doubled:
            raise ValueError(f"layers says when each layer trains, so {doubled[0]} has no place beside it")
        return self


class StrategySection(Section):
    """What is trained, and when. A string stands for the preset of that name."""

    name: Literal[
        "full", "llrd", "head_only", "top_layers", "gradual", "lp_ft", "discriminative", "ulmfit", "scratch"
    ] = Field(
        "llrd",
        description="`full`: everything at one rate; `llrd`: everything, lower layers slower; `head_only`: the head; "
        "`top_layers`: the head and the blocks below it; `gradual`: from the head down; `lp_ft`: the head, then all; "
        "`discriminative`: one rate for the head, one for all below; `ulmfit`: as Howard and Ruder (2018); `scratch`: "
        "everything, from random weights.",
    )
    trainable_blocks: Annotated[Whole, Field(ge=0, le=MOST_LAYERS)] | Literal["all"] = Field(
        "all",
        description="Blocks (or stages, see `grain`) trained, counted from the top; `all` includes the embeddings or "
        "stem; 0 is the head alone.",
    )
    unfreeze: UnfreezeSection | None = Field(
        None, description="When layers begin to train; null: those of `trainable_blocks` from the start."
    )
    reinit_top: Whole = Field(
        0,
        ge=0,
        le=MOST_LAYERS,
        description="Blocks, counted from the top, that begin from random weights (Zhang et al. 2021).",
    )
    grain: Literal["block", "stage"] = Field(
        "block", description="What counts as one layer of an image network: each residual block, or each stage."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        expected = {"head_only": 0, "top_layers": self.trainable_blocks}.get(self.name, "all")
        if self.trainable_blocks != expected:
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
        return self
