"""The section of a recipe for the strategy `probe`. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field

from nlp_ft.recipe.sections import Section
from nlp_ft.recipe.values import MOST_LAYERS, Whole

ProbeClassifier = Literal["logistic", "svm"]
POOLINGS = ("auto", "cls", "mean", "max")
"""Poolings without weights of their own, that read one layer."""


class ProbeSection(Section):
    """The linear model of `probe`, and the features that it reads."""

    layer: Literal["auto", "mean"] | Annotated[Whole, Field(ge=0, le=MOST_LAYERS)] = Field(
        "auto",
        description="The features: the output of one block, counted from 1 at the input (0 for the embeddings), or the "
        "`mean` of all of them. `auto` takes the last block, or what is better in cross-validation by more than one "
        "standard error. Images have the input of the head alone.",
    )
    classifier: ProbeClassifier = Field(
        "logistic",
        description="`logistic`: logistic regression. `svm`: a linear support vector machine, whose scores are no "
        "probabilities. Numbers have a ridge regression instead.",
    )
    folds: Whole = Field(
        5, ge=2, le=100, description="Parts of train in the cross-validation that chooses layer and penalty."
    )
