"""The example of a server, started as a process: it answers what `nlp_ft.predict` gives, also many at once."""

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import nlp_ft
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.training.run import train
from tests.integrations.examples import FOLDER
from tests.prediction.test_predict import texts
from tests.tiny import tiny_recipe
from tests.tiny_choices import choice_recipe
from tests.tiny_questions import question_recipe
from tests.tiny_words import words_recipe

ROOT = Path(__file__).parents[2]
needs_server = pytest.mark.skipif(
    not (find_spec("fastapi") and find_spec("uvicorn")),
    reason="FastAPI is not installed: pip install 'nlp-ft[serve]'",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("served")
    train(recipe_from_dict(tiny_recipe(folder, tiny_encoder, training={"duration": "20st"})))
    return folder / "run"


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "scripts/examples/serve.py", str(folder), "--port", "0"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr
    try:
        said = (re.search(r"running on (http://\S+)", line) for line in server.stderr)
        yield next(found for found in said if found)[1]
    finally:
        server.kill()
        server.communicate()


def answer(address: str, inputs: Any) -> Any:
    sent = Request(f"{address}/predict", json.dumps(inputs).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urlopen(sent) as response:  # noqa: S310
        return json.load(response)


@needs_server
@pytest.mark.slow
def test_the_server_answers_what_predict_gives_to_many_at_once(address: str, folder: Path) -> None:
    several = texts(400)
    requests = [several[start : start + 5] for start in range(0, 400, 5)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda inputs: answer(address, inputs), requests))
    run = nlp_ft.load(folder)
    assert answers == [[asdict(prediction) for prediction in nlp_ft.predict(run, inputs)] for inputs in requests]
    assert len({prediction["label"] for predictions in answers for prediction in predictions}) == 3


@needs_server
@pytest.mark.slow
def test_the_server_says_what_is_wrong_with_an_input(address: str) -> None:
    assert answer(address, []) == []
    with pytest.raises(HTTPError) as error:
        answer(address, ["a cat", 3])
    assert (error.value.code, json.load(error.value)) == (422, {"detail": "input 1 (from 0) must be a text, got 3"})


@needs_server
@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe_of", "given"),
    [
        (question_recipe, ("the red", "red green blue warm")),
        (choice_recipe, ("the cat", ["runs", "sleeps"])),
        (words_recipe, ["the", "cat", "sleeps"]),
    ],
)
def test_inputs_and_predictions_of_other_tasks_pass_as_json(
    recipe_of: Any, given: Any, tmp_path: Path, tiny_encoder: Path
) -> None:
    train(recipe_from_dict(recipe_of(tmp_path, tiny_encoder, training={"duration": "2st"})))
    run = nlp_ft.load(tmp_path / "run")
    app = runpy.run_path(str(FOLDER / "serve.py"))["app_of"](run)
    [predict] = [route.endpoint for route in app.routes if route.path == "/predict"]
    encode = import_module("fastapi.encoders").jsonable_encoder
    answered = json.dumps(encode(predict(json.loads(json.dumps([given])))))
    assert answered == json.dumps(encode(nlp_ft.predict(run, [given])))
    assert len(json.loads(answered)) == 1
