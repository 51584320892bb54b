"""An architecture that structure cannot decide is supported by the rules in its recipe: one file."""

from pathlib import Path

from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.screen import at_level
from nlp_ft.training.inspection import describe_layers
from nlp_ft.training.run import train
from tests.tiny import save_tiny_encoder, tiny_recipe

RULES = [["word_embeddings", 0], ["embeddings", 1], ["head", "head"]]


def test_rules_of_a_recipe_place_the_parameters_of_an_encoder_without_blocks(tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder", num_hidden_layers=0)
    model = {"name": str(encoder), "pooling": "mean", "layer_rules": RULES}
    optimizer = {"lr": 1e-3, "layer_decay": 0.5, "head_lr": 1e-2}
    train(recipe_from_dict(tiny_recipe(tmp_path, encoder, model=model, strategy="llrd", optimizer=optimizer)))
    rows = [line.split() for line in (tmp_path / "run/layers.txt").read_text().splitlines()[2:5]]
    assert [(row[0], row[1], row[-4]) for row in rows] == [
        ("2", "head", "0.01"),
        ("1", "block", "0.001"),
        ("0", "embeddings", "0.0005"),
    ]


def test_a_rule_goes_before_the_structure(tiny_encoder: Path) -> None:
    def holders_of_the_embeddings(*overrides: str) -> list[str]:
        with at_level("verbose"):
            table = describe_layers(str(tiny_encoder), ["model.pooling=mean", *overrides])
        return [line.split()[0] for line in table.splitlines() if "embeddings." in line]

    assert holders_of_the_embeddings() == ["0"]
    assert holders_of_the_embeddings("model.layer_rules=[[position_embeddings, 1]]") == ["1", "0"]
