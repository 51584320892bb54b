"""The model card shows what others wrote letter by letter."""

import pytest

from nlp_ft.tasks.task import Card
from nlp_ft.training.model_card import markdown_text, model_card

SUMMARY = {
    "strategy": "llrd",
    "seed": 0,
    "num_trainable_parameters": 1,
    "num_parameters": 1,
    "train_seconds": 1.0,
    "train_examples_per_second": 1.0,
    "device": "cpu",
    "verdict": [{"code": "never_predicted", "says": "1 label is never predicted: <b>.", "do": "add rows"}],
}


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("card_arrival", "card_arrival"),
        ("<img src=x>", r"\<img src=x\>"),
        ("![i](http://e/x.png)", r"\!\[i\](http\://e/x.png)"),
        ("```\n# heading", r"\`\`\`\\n\# heading"),
        ("_a_ *b* &amp; |", r"\_a\_ \*b\* \&amp; \|"),
        ("www.e.com a@e.com $x$", r"www\.e.com a\@e.com \$x\$"),
    ],
)
def test_labels_and_the_models_name_are_escaped_in_the_model_card(label: str, shown: str) -> None:
    assert markdown_text(label) == shown
    card = model_card(Card(f"Tuned from {label}", "text-classification", False, '"a"', [label, "b"]), SUMMARY, "")
    assert f"# Tuned from {shown}\n" in card
    assert f"2 labels: {shown}, b.\n" in card
    assert "- 1 label is never predicted: \\<b\\>. To do: add rows.\n" in card
