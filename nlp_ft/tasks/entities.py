"""What a model says about the words of an input: entities with their place, and the words that they were read from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nlp_ft.data.words.spans import OUTSIDE, spans_of
from nlp_ft.recipe.words import TagScheme


@dataclass(frozen=True)
class Entity:
    """A span of words with its type; the fields `start`, `end` and `label` are those of `data.spans`.

    Args:
        start: position of its first character in the text, from 0; of words, in the words joined by blanks.
        end: position behind its last character.
        label: its type, such as `location`; of plain tags the tag of a word.
        score: mean probability of the tags of its words.
        text: its characters.
        words: position of its first word, and position behind its last word.
    """

    start: int
    end: int
    label: str
    score: float
    text: str
    words: tuple[int, int]


@dataclass(frozen=True)
class TaggedWords:
    """An input with the probabilities of its tags.

    Args:
        text: the text; the words joined by blanks where the input was words.
        words: the words.
        starts: position of the first character of each word in the text.
        probabilities: (words, num_labels); a row of zeros for a word without tokens, which gets the tag `O`.
    """

    text: str
    words: Sequence[str]
    starts: Sequence[int]
    probabilities: np.ndarray

    def tags(self, label_names: Sequence[str]) -> list[str]:
        """The most likely tag of each word."""
        best, known = self.probabilities.argmax(-1), np.any(self.probabilities, -1)
        return [label_names[i] if is_known else OUTSIDE for i, is_known in zip(best.tolist(), known.tolist())]

    def entities(self, label_names: Sequence[str], scheme: TagScheme) -> list[Entity]:
        """Read the entities from the most likely tags."""
        scores = self.probabilities.max(-1)
        found = []
        for span in spans_of(self.tags(label_names), scheme):
            start, last = self.starts[span.start], span.end - 1
            end = self.starts[last] + len(self.words[last])
            score = float(scores[span.start : span.end].mean())
            found.append(Entity(start, end, span.label, score, self.text[start:end], (span.start, span.end)))
        return found


def record(entity: Entity) -> dict[str, Any]:
    """Make the plain values that files hold: all but the positions of words, the score with six decimals."""
    values = asdict(entity)
    del values["words"]
    return {**values, "score": round(entity.score, 6)}
