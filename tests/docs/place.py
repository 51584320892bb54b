"""A folder that holds what the code blocks speak of, small: data, an encoder, images, recipes and finished runs."""

import json
import shutil
from functools import cache
from pathlib import Path

from nlp_ft.recipe.loader import load_recipe, recipe_from_dict, recipe_to_dict
from nlp_ft.training.run import train
from tests.docs.blocks import README, ROOT, blocks_of
from tests.tiny import WORDS, save_tiny_encoder, write_tiny_csv
from tests.tiny_images import COLOURS, noisy_image
from tests.tiny_questions import tiny_questions
from tests.tiny_words import tagged_rows, write_rows

RECIPES = {
    "mine.yaml": README,
    "flowers.yaml": ROOT / "docs/images.md",
    "entities.yaml": ROOT / "docs/words.md",
    "squad.yaml": ROOT / "docs/question-answering.md",
    "swag.yaml": ROOT / "docs/multiple-choice.md",
}
"""Name of a recipe in the folder -> the page that begins with it."""


def fill(folder: Path) -> None:
    """Write all but the runs; `bert-base-uncased` is a tiny BERT of 6 blocks in the folder."""
    save_tiny_encoder(folder / "bert-base-uncased", num_hidden_layers=6)
    for seed, (name, rows) in enumerate({"train": 96, "test": 24, "labelled": 12, "new": 9}.items()):
        write_tiny_csv(folder / f"{name}.csv", rows, seed)
    write_splits(folder / "all.csv", 60)
    write_pairs(folder / "pairs.csv", 40)
    write_emotions(folder / "comments.csv", 40)
    write_rows(folder / "words.jsonl", tagged_rows(40))
    span = {"start": 4, "end": 7, "label": "animal"}
    write_rows(folder / "spans.jsonl", [{"text": "the cat sleeps", "spans": [span]}, {"text": "the", "spans": []}] * 20)
    write_flowers(folder / "flowers")
    for name in ("recipes", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    write_squad(folder / "squad")
    (folder / "questions.csv").write_text("question,context\nwho?,the cat\n")
    write_swag(folder / "swag")
    (folder / "prompts.csv").write_text("sent1,sent2,ending0,ending1,ending2,ending3\nThe cup,fell,a,b,c,d\n")
    write_others(folder)
    for name, page in RECIPES.items():
        [recipe, *_] = [block for block in blocks_of(page) if block.language == "yaml"]
        (folder / name).write_text(recipe.code)


def train_runs() -> None:
    """Train what the pages predict with, in the working folder."""
    for recipe in RECIPES:
        train_small(recipe)
    shutil.copytree("runs/mine", "runs/quickstart")


def train_small(path: str) -> Path:
    """Train a recipe for few steps, images without pretrained weights; gives the run folder."""
    recipe = load_recipe(path)
    if recipe.task == "image_classification":
        small = ["model.weights=null", "data.image_size=32", "training.duration=1st"]
    else:
        # As many epochs as there are phases of one epoch.
        small = ["training.duration=5ep" if recipe.strategy.unfreeze else "training.duration=1ep"]
    return _trained(json.dumps(recipe_to_dict(load_recipe(path, small)), sort_keys=True))


@cache
def _trained(recipe: str) -> Path:
    """Train a recipe that several blocks show only once."""
    found = recipe_from_dict(json.loads(recipe))
    train(found, overwrite=True)
    return Path(found.output_dir)


def write_splits(file: Path, rows: int) -> None:
    """Texts and labels with a column that tells the split of each row."""
    header, *lines = write_tiny_csv(file, rows).read_text().splitlines()
    splits = ["train", "train", "train", "validation", "test"]
    lines = [f"{line},{splits[row // 3 % len(splits)]}" for row, line in enumerate(lines)]
    file.write_text("\n".join([f"{header},split", *lines]) + "\n")


def write_pairs(file: Path, rows: int) -> None:
    """Pairs of texts, and a number that is higher where the two are equal."""
    lines = ["sentence1,sentence2,score"]
    lines += [f"the cat,{'the cat' if row % 2 else 'a red dog'},{(row % 2) + row / 1000}" for row in range(rows)]
    file.write_text("\n".join(lines) + "\n")


def write_emotions(file: Path, rows: int) -> None:
    """Texts with no label, one or two."""
    kinds = ["the,", "the cat,joy", "the dog,anger", "the cat red,joy|surprise"]
    file.write_text("\n".join(["text,emotions", *(kinds[row % len(kinds)] for row in range(rows))]) + "\n")


def write_squad(folder: Path) -> None:
    """Questions in the form of SQuAD, one article for each context."""
    folder.mkdir()
    for seed, (split, rows) in enumerate({"train": 40, "dev": 10}.items()):
        articles = []
        for number, row in enumerate(tiny_questions(rows, seed, no_answer_every=4)):
            question = {"id": str(number), "question": row["question"], "answers": row["answers"]}
            articles.append({"title": str(number), "paragraphs": [{"context": row["context"], "qas": [question]}]})
        (folder / f"{split}-v2.0.json").write_text(json.dumps({"version": "v2.0", "data": articles}))


def write_swag(folder: Path) -> None:
    """Prompts in two columns and candidates in four, as in SWAG."""
    folder.mkdir()
    for split, rows in {"train": 40, "val": 10}.items():
        lines = ["sent1,sent2,ending0,ending1,ending2,ending3,label"]
        lines += [f"the {row},then,{','.join(f'{word} {row}' for word in WORDS[:4])},{row % 4}" for row in range(rows)]
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def write_others(folder: Path) -> None:
    """Files in forms that the pages turn into others: of Kaggle, Prodigy, PIQA and MMLU, and a table of images."""
    lines = ["Sentence #,Word,POS,Tag", "Sentence: 1,the,DT,O", ",caf\u00e9,NN,B-animal", "Sentence: 2,NA,NN,O"]
    (folder / "ner_dataset.csv").write_text("\n".join([*lines, ""]), encoding="cp1252")
    write_rows(folder / "prodigy.jsonl", [{"text": "the", "answer": "accept"}, {"text": "a", "answer": "reject"}])
    write_rows(folder / "valid.jsonl", [{"goal": "the cat", "sol1": "red", "sol2": "blue"}] * 2)
    (folder / "valid-labels.lst").write_text("0\n1\n")
    (folder / "anatomy_test.csv").write_text("who?,a,b,c,d,B\n")
    (folder / "images.csv").write_text("path,label\nflowers/test/rose/0.jpg,rose\n")


def write_flowers(folder: Path) -> None:
    """Images of three kinds of flowers, each of one colour."""
    for split, per_class in (("train", 10), ("test", 2)):
        for kind, colour in zip(("daisy", "rose", "tulip"), COLOURS, strict=True):
            (folder / split / kind).mkdir(parents=True)
            for number in range(per_class):
                noisy_image(colour, number).save(folder / split / kind / f"{number}.jpg")
