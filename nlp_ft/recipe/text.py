"""The sections of a recipe for text classification: where the texts come from, and the encoder."""

from typing import Literal, Self

from pydantic import Field, model_validator

from nlp_ft.recipe.sections import DataSection, ModelSection
from nlp_ft.recipe.values import Paths, Place, Real, Text, Whole


class TextDataSection(DataSection):
    """Where the texts and labels come from."""

    source: Paths | None = Field(
        None,
        description="One place that holds all splits: file(s), a saved dataset folder, or a Hub id. With it, `train`, "
        "`validation` and `test` are names of splits (or values of `split_column`); without it they are files.",
    )
    train: Paths = Field(
        "train",
        description="CSV, TSV, JSON Lines or Parquet file(s), globs, or saved dataset folders; relative to the folder "
        "the command runs in; `package:NAME/PATH` lies inside an installed package. With `source`: a split.",
    )
    split_column: Text | None = Field(None, description="Column of `source` that tells each row's split.")
    text: Text | list[Text] = Field("text", description="Column with the text, or the two columns of a text pair.")
    max_length: Whole = Field(
        128, ge=3, le=1_000_000, description="Tokens of the longest input, special tokens included."
    )
    truncation: Literal["head", "tail", "head_tail"] = Field(
        "head", description="What is kept of a longer text: its beginning, its end, or `head_tokens` and then the end."
    )
    head_tokens: Whole = Field(
        128,
        ge=1,
        le=1_000_000,
        description="Tokens kept from the beginning under `head_tail` (Sun et al. 2019 keep 128 of 512).",
    )
    num_proc: Whole | None = Field(None, ge=1, le=1024, description="Processes that tokenize; null: as many as help.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.text, list) and len(self.text) != 2:
            raise ValueError(f"text must be one column or a list of two, got {len(self.text)}")
        if isinstance(self.text, list) and self.truncation == "head_tail":
            raise ValueError("truncation head_tail needs a single text; use head or tail for pairs")
        if self.truncation == "head_tail" and self.head_tokens > self.max_length - 3:
            raise ValueError(
                f"head_tokens must leave room for the end of the text within max_length {self.max_length}, "
                f"got {self.head_tokens}"
            )
        if self.split_column and not self.source:
            raise ValueError("split_column needs source, the file(s) that hold that column")
        return self


class TextModelSection(ModelSection):
    """The pretrained encoder, its pooling and its head."""

    name: Place = Field(
        description="Hub id, folder, or `package:NAME/PATH` inside an installed package, of an encoder with "
        "safetensors weights."
    )
    revision: Text | None = Field(None, description="Commit, branch or tag of a Hub model.")
    pooling: Literal["auto", "cls", "mean", "max", "pooler"] = Field(
        "auto",
        description="From token vectors to one: `auto` and `pooler` as the architecture itself does it, or its CLS "
        "token, or the mean or maximum over the tokens.",
    )
    keep_head: bool = Field(
        False,
        description="Start from the head of a finished classifier; it needs the same labels in the same order. False "
        "puts a new head in its place.",
    )
    dropout: Real | None = Field(
        None, ge=0, lt=1, description="Dropout inside the encoder, share of units, 0 to 1; null: as pretrained."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model. Know its author.")
