"""Baselines of tags: the most frequent tag for all words, which is mostly `O`, and for each word its own in train."""

from collections import Counter, defaultdict

from nlp_ft.data.words.data import WordData
from nlp_ft.data.words.plain_rows import TAGS, WORDS
from nlp_ft.tasks.baselines import Scores, held_out
from nlp_ft.tasks.tag_metrics import score_tags


def score_tag_baselines(data: WordData) -> Scores:
    """Score both baselines on every split but train; a word that train does not have gets the most frequent tag."""
    of_word: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in data.raw["train"]:
        for word, tag in zip(row[WORDS], row[TAGS], strict=True):
            of_word[word][tag] += 1
    totals: Counter[str] = Counter()
    for counter in of_word.values():
        totals.update(counter)
    most = totals.most_common(1)[0][0]
    best = {word: counter.most_common(1)[0][0] for word, counter in of_word.items()}
    scores: Scores = {}
    for split in held_out(data.encoded):
        rows = data.raw[split]
        words, references = rows[WORDS][:], rows[TAGS][:]
        constant = [[most] * len(of_row) for of_row in words]
        by_word = [[best.get(word, most) for word in of_row] for of_row in words]
        scores[split] = {
            "most_frequent_tag": score_tags(constant, references, data.scheme),
            "tag_of_word": score_tags(by_word, references, data.scheme),
        }
    return scores
