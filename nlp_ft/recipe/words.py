"""The data section of a recipe for words with tags."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nlp_ft.recipe.text import TextFilesSection
from nlp_ft.recipe.values import Text, Whole

TagScheme = Literal["iob2", "iobes", "none"]
Scheme = Literal["auto", TagScheme]
Column = Annotated[Whole, Field(ge=-1000, le=1000)]


class WordsDataSection(TextFilesSection):
    """Where the words and their tags come from, and how they become tokens."""

    words: Text = Field(
        "tokens", description="Column with the list of the words of a row. CoNLL files have no names: `conll_columns`."
    )
    label: Text = Field(
        "ner_tags",
        description="Column with the list of the tags of the words: strings, or ids with names (a ClassLabel, or "
        "`label_names`).",
    )
    conll_columns: tuple[Column, Column] | None = Field(
        None,
        description="Columns of the word and the tag in CoNLL files (a word a line; a blank line ends a row), counted "
        "from 0; -1 is the last one. Null: [0, -1], or [-1, 0] where the first column holds tags; where it "
        "numbers the words, [1, 2], and [1, 3], which is the part of speech, if there are 10 columns, as in CoNLL-U.",
    )
    text: Text | None = Field(
        None,
        description="Column with the plain text of a row, if entities are given as character spans in `spans`; its "
        "words are runs of letters and digits, and single punctuation marks. Null: the rows have words.",
    )
    spans: Text = Field(
        "spans",
        description="With `text`: column with a list of {start, end, label}; `start` and `end` count characters of the "
        "text from 0, and `end` is not included.",
    )
    scheme: Scheme = Field(
        "auto",
        description="How tags mark entities. `iob2`: B-TYPE begins each, I-TYPE goes on. `iobes`: also E-TYPE at the "
        "end, and S-TYPE for a single word. `none`: plain tags such as parts of speech, one a word. `auto`: as the "
        "tags of the data look; IOB1, which the files of CoNLL-2003 have, is rewritten as `iob2`; `iob2` for spans.",
    )
    max_length: Whole = Field(
        128,
        ge=3,
        le=1_000_000,
        description="Most tokens of an input, special tokens included; a longer row is read in windows, and each word "
        "gets its tag in the window with most context around it.",
    )
    stride: Whole = Field(32, ge=0, le=1_000_000, description="Tokens that neighbouring windows of a row share.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stride > self.max_length - 4:
            raise ValueError(
                f"stride must leave room for new tokens in a window of max_length {self.max_length}, got {self.stride}"
            )
        if self.text is None and self.words == self.label:
            raise ValueError(f"words and label are one column, {self.label!r}; each needs its own")
        if self.text is not None and self.text == self.spans:
            raise ValueError(f"text and spans are one column, {self.text!r}; each needs its own")
        if self.text is None and self.spans != "spans":
            raise ValueError("spans needs text, the column whose characters they count")
        return self
