"""The sections of a recipe for texts: where the texts and labels come from, and the encoder."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nlp_ft.defaults import Pooling
from nlp_ft.recipe.sections import DataSection, ModelSection
from nlp_ft.recipe.values import Paths, Place, Real, Text, Whole

WindowPooling = Literal["mean", "max"]


class TextFilesSection(DataSection):
    """Which files hold the rows of a task on texts."""

    source: Paths | None = Field(
        None,
        description="One place that holds all splits: file(s), a saved dataset folder, or a Hub id. `train`, "
        "`validation` and `test` then name its splits, or values of `split_column`. Null: they name files themselves.",
    )
    train: Paths = Field(
        "train",
        description="Training rows: CSV, TSV, JSON Lines or Parquet file(s), globs, or saved dataset folders. Paths "
        "are relative to the folder in which the command runs; `package:NAME/PATH` is a file in an installed package. "
        "With `source`: the name of a split.",
    )
    split_column: Text | None = Field(
        None, description="Column of the `source` files that names the split of each row; null where there is none."
    )
    num_proc: Whole | None = Field(
        None,
        ge=1,
        le=1024,
        description="Processes that tokenize the data; null chooses from the number of rows and cores.",
    )

    @model_validator(mode="after")
    def _check_split_column(self) -> Self:
        if self.split_column and not self.source:
            raise ValueError("split_column needs source, the file(s) that hold that column")
        return self


class TextDataSection(TextFilesSection):
    """Where the texts and labels come from, and how they become tokens."""

    text: Text | list[Text] = Field("text", description="Column with the text, or a list of two columns for pairs.")
    label: Text | list[Text] = Field(  # type: ignore[assignment]  # images have one column
        "label",
        description="Name of the column with the label: strings or whole numbers for a classifier, numbers for a "
        "regression, lists or separated texts for several labels a text. multi_label_classification also takes a list "
        "of columns, one for each label, with 1 in the rows that have it and 0 in the others; text_regression one for "
        "each number.",
    )
    label_separator: Annotated[str, Field(min_length=1, max_length=10)] | None = Field(
        None,
        description="What is between the labels of one text, such as `|`, if the label column holds them as one text; "
        "null where it holds lists. For multi_label_classification only.",
    )
    max_length: Whole = Field(
        128, ge=3, le=1_000_000, description="Most tokens of an input, special tokens included; longer texts are cut."
    )
    truncation: Literal["head", "tail", "head_tail", "windows"] = Field(
        "head",
        description="Which part of a longer text is kept. `head`: its beginning. `tail`: its end. `head_tail`: the "
        "first `head_tokens` tokens, then its end. `windows`: all of it, in windows of `max_length` tokens; each "
        "window is a row of training, and the outputs for a text are those of its windows, pooled by "
        "`window_pooling`.",
    )
    head_tokens: Whole = Field(
        128,
        ge=1,
        le=1_000_000,
        description="Tokens kept from the beginning of a longer text under `head_tail` (Sun et al. 2019 keep 128 of "
        "512).",
    )
    stride: Whole = Field(
        32, ge=0, le=1_000_000, description="Tokens that neighbouring windows of a text share under `windows`."
    )
    window_pooling: WindowPooling = Field(
        "mean", description="How the logits of the windows of a text become those of the text: their mean or maximum."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.text, list) and len(self.text) != 2:
            raise ValueError(f"text must be one column or a list of two, got {len(self.text)}")
        if isinstance(self.text, list) and self.text[0] == self.text[1]:
            raise ValueError(f"text must name two columns for pairs, got {self.text[0]!r} twice")
        if isinstance(self.label, list):
            self._check_label_columns(self.label)
        if isinstance(self.text, list) and self.truncation == "head_tail":
            raise ValueError("truncation head_tail needs a single text; use head or tail for pairs")
        if self.truncation == "head_tail" and self.head_tokens > self.max_length - 3:
            raise ValueError(
                f"head_tokens must leave room for the end of the text within max_length {self.max_length}, "
                f"got {self.head_tokens}"
            )
        if isinstance(self.text, list) and self.truncation == "windows":
            raise ValueError("truncation windows needs a single text; use head or tail for pairs")
        if self.truncation == "windows" and self.stride > self.max_length - 4:
            raise ValueError(
                f"stride must leave room for new tokens in a window of max_length {self.max_length}, got {self.stride}"
            )
        return self

    def _check_label_columns(self, columns: list[str]) -> None:
        if len(columns) < 2:
            raise ValueError(f"label must be one column or a list of two or more, got {columns}")
        repeated = [name for name in columns if columns.count(name) > 1]
        if repeated:
            raise ValueError(f"label must name each column once, got {repeated[0]!r} twice")
        for field in ("label_separator", "label_names"):
            if getattr(self, field) is not None:
                raise ValueError(f"{field} is for labels in one column, but label names {len(columns)} columns")


class TextModelSection(ModelSection):
    """The pretrained encoder, its pooling and its head."""

    name: Place = Field(
        description="Hub id, folder, or `package:NAME/PATH` in an installed package, of the encoder. Its weights must "
        "be safetensors."
    )
    revision: Text | None = Field(
        None, description="Commit, branch or tag of a Hub model; null for its main branch. Folders have none."
    )
    pooling: Literal["auto", Pooling] = Field(
        "auto",
        description="How the vectors of all tokens become one vector. `auto`: as a model of sentence-transformers was "
        "trained, else as the architecture's own classifier does it. `cls`: the CLS token, or the last token in a "
        "decoder. `mean`, `max`: the mean or the maximum over the tokens. `attention`: a mean whose weights are "
        "learned (Yang et al. 2016). `layer_mix`: the mean over the tokens of a learned weighted sum of the embeddings "
        "and all blocks (Peters et al. 2018). `last_4`: the means over the tokens of the last four blocks, side by "
        "side (Devlin et al. 2019). `pooler`: the encoder's pretrained pooler.",
    )
    keep_head: bool = Field(
        False,
        description="Start from the head of a finished classifier, which must have the same labels in the same order. "
        "False puts a new head in its place.",
    )
    dropout: Real | None = Field(
        None,
        ge=0,
        lt=1,
        description="Dropout probability inside the encoder, from 0 to below 1; null keeps its pretraining value.",
    )
    trust_remote_code: bool = Field(
        False,
        description="Run the Python code that comes with the model, which then has its own pooling and head. Turn it "
        "on only if you trust its author.",
    )
