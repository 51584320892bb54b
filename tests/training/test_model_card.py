"""The model card shows what others wrote letter by letter, and what a reader must know of the run."""

from typing import Any

import pytest

from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.tasks.task import Card
from nlp_ft.training.model_card import markdown_text, model_card

RECIPE = recipe_from_dict(
    {
        "data": {"train": ["/home/me/train.csv", "more/rows.csv"], "max_length": 32},
        "model": {"name": "bert"},
        "output_dir": "run",
    }
)
SUMMARY: dict[str, Any] = {
    "strategy": "llrd",
    "seed": 0,
    "num_trainable_parameters": 1,
    "num_parameters": 1,
    "train_seconds": 1.0,
    "train_examples_per_second": 1.0,
    "device": "cpu",
    "metrics": {"test": {"macro_f1": 0.75}},
    "margins": {"test": {"macro_f1": 0.05}},
    "data": {"train": {"rows": 1200}, "test": {"rows": 300}},
    "data_hashes": {"train": "ab", "test": "cd"},
    "phases": [{"step": 0, "layers": "head", "why": "the run began"}],
    "global_step": 20,
    "best_step": 10,
    "keep": "best",
    "effective_batch_size": 16,
    "num_processes": 1,
    "precision": "fp32",
    "peak_memory_bytes": 2**20,
    "versions": {"torch": "2.0"},
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
    of_task = Card(f"Tuned from {label}", "text-classification", False, '"a"', [label, "b"])
    card = model_card(of_task, RECIPE, SUMMARY, "", "")
    assert f"# Tuned from {shown}\n" in card
    assert f"2 labels: {shown}, b.\n" in card
    assert "- 1 label is never predicted: \\<b\\>. To do: add rows.\n" in card


def test_the_card_has_intervals_data_cost_and_limits_and_no_folder_of_the_data() -> None:
    card = model_card(Card("T", "text-classification", False, '"a"', ["a", "b"]), RECIPE, SUMMARY, "table", "layers")
    for said in (
        "library_name: transformers\n",
        "- test, 300 rows: macro f1 0.7500 ± 0.0500 (95 % interval)\n",
        "From train.csv, more/rows.csv. Licence of the data: (fill in).\n",
        "| train | 1,200 | `ab` |\n| test | 300 | `cd` |\n",
        "20 steps of 16 rows in fp32 on 1 x cpu; 1.0 seconds of training, 1 MiB of memory at most. The weights are"
        " those of step 10.\n",
        "```text\nlayers\n```",
        "- Each input gets one of the labels above, also one that fits none of them.\n",
        "- Of an input of more than 32 tokens, the model reads a part.\n",
        "nlp-ft train recipe.yaml output_dir=runs/again",
        "\ntorch 2.0.\n",
    ):
        assert said in card, said
    assert "after step" not in card
    assert "the pipeline above reads the beginning alone" not in card


@pytest.mark.parametrize("truncation", ["windows", "head_tail"])
def test_the_card_says_where_a_pipeline_reads_less_than_the_scores_are_of(truncation: str) -> None:
    section = RECIPE.data.model_copy(update={"truncation": truncation})
    recipe = RECIPE.model_copy(update={"data": section})
    card = model_card(Card("T", "text-classification", False, '"a"', ["a", "b"]), recipe, SUMMARY, "table", "layers")
    assert (
        "- Of an input of more than 32 tokens, the pipeline above reads the beginning alone; `nlp-ft predict` reads it "
        f"as for the scores, by truncation `{truncation}`.\n"
    ) in card


def test_the_card_has_a_table_of_several_phases_and_names_the_class_that_must_be_imported() -> None:
    phases = [*SUMMARY["phases"], {"step": 5, "layers": "head, block 2", "why": "loss on a *plateau*"}]
    calibrated = {"temperature": 1.5, "ece_before": {"test": 0.2}, "ece_after": {"test": 0.1}}
    summary = {**SUMMARY, "phases": phases, "calibration": calibrated}
    card = model_card(Card("T", "text-classification", True, '"a"', ["a", "b"]), RECIPE, summary, "", "")
    assert "| 5 | head, block 2 | loss on a \\*plateau\\* |\n" in card
    assert "library_name: nlp_ft\n" in card
    assert "import nlp_ft  # registers the model's class\n" in card
    assert "- temperature 1.500, fitted on validation: calibration error (ECE) test 0.2000 -> 0.1000\n" in card


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, 'tags: [t, nlp_ft]\nbase_model: "bert"\n---\n'),
        ({"model": {"name": "."}, "data": {"source": "org/data"}}, 'tags: [t, nlp_ft]\ndatasets: ["org/data"]\n---\n'),
        ({"model": {"name": "./bert"}, "data": {"source": "./data.csv"}}, "tags: [t, nlp_ft]\n---\n"),
        ({"task": "image_classification", "model": {"name": "resnet18"}}, "tags: [t, nlp_ft]\n---\n"),
    ],
)
def test_base_model_and_data_are_named_where_they_are_on_the_hub(changes: dict[str, Any], said: str) -> None:
    values = {"data": {"train": "train"}, "model": {"name": "bert"}, "output_dir": "run", **changes}
    card = model_card(Card("T", "t", False, '"a"', ["a", "b"]), recipe_from_dict(values), SUMMARY, "", "")
    assert card.startswith(f"---\nlibrary_name: transformers\npipeline_tag: t\n{said}")
