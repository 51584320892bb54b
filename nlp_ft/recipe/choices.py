"""The data section of a recipe for multiple choice: prompts, candidates and labels. Imports no torch."""

from typing import Self

from pydantic import Field, model_validator

from nlp_ft.recipe.text import TextFilesSection
from nlp_ft.recipe.values import Text, Whole


class ChoiceDataSection(TextFilesSection):
    """Where the prompts, candidates and labels come from, and how they become tokens."""

    text: Text | list[Text] = Field(
        "text",
        description="Column with the prompt; or a list of two, such as context and question, whose texts are joined by "
        "a blank.",
    )
    candidates: Text | list[Text] = Field(
        "candidates",
        description="Column with a list of texts, whose number may differ between rows; or a list of columns, one for "
        "each candidate.",
    )
    label: Text = Field(
        "label",
        description="Column that names the right candidate: its index (see `first_index`); its letter, from A; or its "
        "exact text. One of the columns of candidates, such as correct_answer, holds the right one of each row.",
    )
    first_index: Whole = Field(
        0,
        ge=0,
        le=1,
        description="Index of the first candidate in `label`: 1 where labels count from 1, as in WinoGrande.",
    )
    max_length: Whole = Field(
        128,
        ge=4,
        le=1_000_000,
        description="Most tokens of the prompt with one candidate, special tokens included. A longer prompt loses its "
        "beginning; a candidate loses its end only where it is too long by itself, and the data report counts it.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        # A dumped recipe names every key, so a default is no mistake.
        if self.label_names is not None:
            raise ValueError("label_names is for classes; label names the right one of the candidates of a row")
        if isinstance(self.text, list) and len(self.text) != 2:
            raise ValueError(f"text must be one column or a list of two, got {len(self.text)}")
        if isinstance(self.candidates, list) and len(self.candidates) < 2:
            raise ValueError(
                f"candidates must be one column, which holds lists, or two columns or more, got {self.candidates}"
            )
        columns = [*self.text_columns, *self.candidate_columns]
        columns += [self.label] if not isinstance(self.candidates, list) or self.label not in self.candidates else []
        if twice := next((name for name in columns if columns.count(name) > 1), None):
            raise ValueError(f"text, candidates and label must be different columns, got {twice!r} twice")
        return self

    @property
    def text_columns(self) -> list[str]:
        """The columns of the prompt, one or two."""
        return [self.text] if isinstance(self.text, str) else self.text

    @property
    def candidate_columns(self) -> list[str]:
        """The columns of the candidates: one that holds lists, or one for each candidate."""
        return [self.candidates] if isinstance(self.candidates, str) else self.candidates
