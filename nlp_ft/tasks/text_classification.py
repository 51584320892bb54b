"""Text classification: one of several labels for each text or pair of texts."""

import numpy as np

from nlp_ft.data.columns import unique_values, value_codes
from nlp_ft.data.labels import label_counts
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.text_labels import ClassLabels
from nlp_ft.recipe import TextRecipe
from nlp_ft.tasks.baselines import Scores, held_out, logistic_regression, predict_by_words, score_majority
from nlp_ft.tasks.classes import Classification
from nlp_ft.tasks.metrics import score
from nlp_ft.tasks.text_inputs import TextInputs


class TextClassification(TextInputs, Classification):
    """Learns a label for each text or pair of texts. See `Task`."""

    recipe: TextRecipe
    label_kind = ClassLabels
    title = "Text classifier"

    def label_counts(self) -> dict[str, int]:
        """Count the rows of train for each label; if the rows are not tokenized yet, the raw rows are counted."""
        if "data" in vars(self):
            return label_counts(self.data.labels("train"), self.data.label_names)
        with progress_bars(False):
            raw, labels = ClassLabels.load(self.recipe.data, self.recipe.seed)
            rows, column, ids = raw["train"], labels.column, {value: i for i, value in enumerate(labels.name_of)}
            values = unique_values(rows, column)
            of_value = np.array([ids[value] for value in values])
            return label_counts(of_value[value_codes(rows, column, values)], labels.names)

    def label_names(self) -> list[str]:
        """Read the labels of the raw rows."""
        with progress_bars(False):
            return ClassLabels.load(self.recipe.data, self.recipe.seed)[1].names

    def score_baselines(self) -> Scores:
        """Score the majority label, and TF-IDF with logistic regression."""
        data = self.data
        labels = {split: data.labels(split) for split in held_out(data.encoded)}
        scores = score_majority(data.labels("train"), labels)
        if len(set(data.labels("train").tolist())) < 2:  # `data.train_rows` may have drawn rows of one label
            return scores
        for split, predicted in predict_by_words(data, logistic_regression(), list(labels)).items():
            scores[split]["tfidf_logistic_regression"] = score(predicted, labels[split])
        return scores
