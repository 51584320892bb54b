"""The data section of a recipe for question answering: questions, contexts and answers. Imports no torch."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from nlp_ft.recipe.sections import DataSection, is_share, percent_of
from nlp_ft.recipe.values import Paths, Text, Whole


class QuestionDataSection(DataSection):
    """Where the questions, contexts and answers come from, and how they become tokens."""

    draws_test: ClassVar[bool] = True
    source: Paths | None = Field(
        None,
        description="One place that holds all splits: a saved dataset folder or a Hub id. `train`, `validation` and "
        "`test` then name its splits. Null: they name files themselves.",
    )
    train: Paths = Field(
        "train",
        description="Training rows: JSON file(s) in the form of SQuAD, or CSV, TSV, JSON Lines or Parquet file(s), "
        "globs, or saved dataset folders. Paths are relative to the folder in which the command runs; "
        "`package:NAME/PATH` is a file in an installed package. With `source`: the name of a split.",
    )
    validation: Paths | None = Field(
        None,
        description="Validation rows, given as in `train`; or a share of the train split such as `10%`, drawn at "
        "random by `article`, so that no text is in two splits. Null for no validation.",
    )
    test: Paths | None = Field(
        None,
        description="Test rows, given as in `train`, or a share of it as in `validation`; they are scored once, after "
        "training. Null for no test.",
    )
    question: Text = Field("question", description="Column with the question. Files in the form of SQuAD need none.")
    context: Text = Field("context", description="Column with the text in which the answer is.")
    answers: Text = Field(
        "answers",
        description="Column with the answers: a list of `{text, answer_start}`, or `{text: [...], answer_start: "
        "[...]}`, or the text of one answer. An empty one means that the context does not answer the question.",
    )
    answer_start: Text = Field(
        "answer_start",
        description="Column with the position of the answer's first character in the context, from 0, where `answers` "
        "holds texts.",
    )
    article: Text | None = Field(
        None,
        description="Column with the name of the article that a context is from; shares are drawn by article. Null "
        "takes `title` if the rows have it, else the context itself.",
    )
    max_length: Whole = Field(
        384,
        ge=8,
        le=1_000_000,
        description="Most tokens of a window: the question, a part of the context, and special tokens. A question is "
        "cut only where it would leave less than a quarter of the window for the context.",
    )
    stride: Whole = Field(
        128,
        ge=0,
        le=1_000_000,
        description="Tokens that neighbouring windows of a context share, so that no answer is cut.",
    )
    max_answer_length: Whole = Field(
        30, ge=1, le=1_000_000, description="Most tokens of an answer that the model gives."
    )
    num_proc: Whole | None = Field(
        None,
        ge=1,
        le=1024,
        description="Processes that tokenize the data; null chooses from the number of rows and cores.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field in ("label", "label_names"):
            # A dumped recipe names every key, so a default is no mistake.
            if getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{field} is for labels; answers names the column with the answers")
        columns = [self.question, self.context, self.answers]
        if twice := next((name for name in columns if columns.count(name) > 1), None):
            raise ValueError(f"question, context and answers must be three columns, got {twice!r} twice")
        if self.stride > self.max_length - 4:
            raise ValueError(
                f"stride must leave room for new tokens in a window of max_length {self.max_length}, got {self.stride}"
            )
        shares = [percent_of(share) for share in (self.validation, self.test) if is_share(share)]
        if shares and not (all(share > 0 for share in shares) and sum(shares) < 100):
            raise ValueError(f"validation and test must be shares above 0% and together below 100%, got {shares}")
        return self
