"""The section of a recipe for the training loop. Imports no torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nlp_ft.durations import Duration
from nlp_ft.recipe.sections import Metric, Section
from nlp_ft.recipe.values import DurationField, MinDelta, Real, Whole

Threshold = Literal["tuned", "tuned_per_label"] | Annotated[Real, Field(gt=0, lt=1)]
"""Probability from which on a label is predicted, or how it is found."""


class EarlyStoppingSection(Section):
    """When to end a run that no longer improves."""

    patience: Whole = Field(
        3,
        ge=1,
        le=1_000_000,
        description="The run ends after this many evaluations in a row without a new best value of `training.metric`.",
    )
    min_delta: MinDelta = 0.0


class TrainingSection(Section):
    """The training loop: length, batches, precision, evaluation, checkpoints and the feature cache."""

    duration: DurationField | None = Field(
        None,
        description="Length of the run: epochs (`3ep`) or optimizer steps (`2000st`). Null derives it from the rows of "
        "train: 3 epochs, or 300 steps where that is more, but at most 50 epochs.",
    )
    per_device_batch_size: Whole | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Samples in one batch on one device. One optimizer step sees this number x "
        "`gradient_accumulation_steps` x number of processes. Null takes 16, or 32 if train has more than 20,000 rows.",
    )
    max_tokens_per_batch: Whole | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Most tokens in one batch on one device, padding included; replaces `per_device_batch_size`. "
        "Texts of similar length share a batch, as many as fit; a longer text has a batch of its own. Null counts "
        "samples. For texts only.",
    )
    eval_batch_size: Whole = Field(
        64, ge=1, le=1_000_000, description="Samples in one batch on one device in evaluation."
    )
    gradient_accumulation_steps: Whole = Field(
        1, ge=1, le=1_000_000, description="Batches of each device whose gradients add up to one optimizer step."
    )
    group_by_length: bool = Field(
        True, description="Put texts of similar length in one batch, which saves padding. Images ignore it."
    )
    max_grad_norm: Real | None = Field(
        1.0,
        gt=0,
        le=1e9,
        description="Gradients are scaled down where their norm over all parameters exceeds this number, above 0; null "
        "turns clipping off.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="Number format of the computation. `auto`: bf16 where the hardware multiplies matrices in it, else "
        "fp32. `fp16` needs a GPU.",
    )
    evaluate_every: DurationField | None = Field(
        None,
        description="Time between two evaluations: epochs (`1ep`) or optimizer steps (`200st`). Null evaluates after "
        "each epoch, but at most 10 times a run (after each epoch where `strategy.unfreeze` has a plateau).",
    )
    checkpoint_every: DurationField | None = Field(
        None,
        description="Time between two checkpoints: epochs (`1ep`) or optimizer steps (`200st`). `--resume` continues "
        "from the last one. Null writes one after each epoch, but at most 3 times a run.",
    )
    metric: Metric = Field(
        "accuracy",
        description="Validation score that chooses the best model and that early stopping watches; losses and errors "
        "(loss, hamming_loss, mse, rmse, mae) are better when lower. For labels: accuracy, macro_f1, micro_f1, "
        "weighted_f1, matthews or loss. For several labels a text: macro_f1 (the default there), micro_f1, "
        "weighted_f1, samples_f1, average_precision, subset_accuracy, hamming_loss, matthews or loss. For numbers: "
        "spearman (the default of text_regression), pearson, mse, rmse, mae or loss. For tags: span_f1 (the default "
        "there), span_precision, span_recall, macro_f1, accuracy or loss. For answers: f1 (the default there), "
        "exact_match or loss. For choices: accuracy, above_chance or loss.",
    )
    threshold: Threshold | None = Field(
        None,
        description="Probability from which on a label is predicted, above 0 and below 1; or `tuned`, one for all "
        "labels, with the best micro F1 on validation, or `tuned_per_label`, one for each, with its best F1. The "
        "thresholds are saved with the model. Null takes `tuned` with validation, else 0.5. For "
        "multi_label_classification only.",
    )
    calibration: Literal["temperature"] | None = Field(
        None,
        description="`temperature`: after training, divide the logits by one number, fitted on validation, so that the "
        "probabilities are as high as the predictions are right; no prediction changes. Null leaves them as they are. "
        "For text_classification, multiple_choice and image_classification.",
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="Which model the run saves: `best` by `metric`, or `last`. Without validation it is the last.",
    )
    early_stopping: EarlyStoppingSection | None = Field(
        None, description="When to end a run that no longer improves, such as `{patience: 3}`; null runs to the end."
    )
    feature_cache: Literal["auto", "off"] = Field(
        "auto",
        description="`auto`: the output of frozen blocks is computed once for each text and kept on disk, for all "
        "epochs and later runs, if this is expected to save time. `off`: it is computed anew in every epoch.",
    )
    feature_cache_gb: Real = Field(
        10.0, gt=0, le=1e6, description="Most disk space of the feature cache, over all runs, in GB (10^9 bytes)."
    )
    feature_precision: Literal["auto", "fp32", "half"] = Field(
        "auto",
        description="Number format of the feature cache. `auto`: that of the run. `half`: fp16 in a run with fp16, "
        "else bf16; takes half the space of `fp32`.",
    )
    deterministic: bool = Field(
        True,
        description="On a GPU, use deterministic kernels. An operation that has none still runs, with a warning.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field in ("duration", "evaluate_every", "checkpoint_every"):
            length: Duration | None = getattr(self, field)
            if length is not None and (length.unit == "%" or length.value == 0):
                raise ValueError(f"{field} must be epochs or steps above 0, such as 3ep or 200st, got {length}")
        if self.max_tokens_per_batch is not None and not self.group_by_length:
            raise ValueError(
                "max_tokens_per_batch puts texts of like length together, so group_by_length: false has no place "
                "beside it; take one of the two away"
            )
        return self
