"""A Hub that does not answer: one message within five seconds, and the cache where the model is in it."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants
from transformers import BertForSequenceClassification

from nlp_ft import hub
from nlp_ft.data.sources import load_raw_splits
from nlp_ft.errors import DataError, ModelError
from nlp_ft.models.text import build_classifier, load_tokenizer
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.recipe.text import TextDataSection, TextModelSection
from nlp_ft.training.inspection import describe_layers, find_problems
from tests.tiny import tiny_recipe

COMMIT = "a" * 40
NAME = "some-one/tiny"
UNKNOWN = "model.name: some-one/tiny: it is no folder here, and not in the cache of the Hugging Face Hub"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub, and no answer that is known."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    monkeypatch.setattr(hub, "_known", {})
    return folder


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub whose port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A slow Hub without any model; the paths that were asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            time.sleep(1)
            paths.append(self.path)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield paths
        server.shutdown()


def the_error(name: str = NAME) -> tuple[str, float]:
    """The message of loading the tokenizer, and the seconds until it came."""
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        load_tokenizer(TextModelSection(name=name))
    return str(caught.value), time.monotonic() - started


def in_cache(cache: Path, encoder: Path) -> Path:
    folder = cache / "models--some-one--tiny"
    snapshot = folder / "snapshots" / COMMIT
    shutil.copytree(encoder, snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.mark.usefixtures("silent")
def test_a_hub_that_never_answers_is_one_error_within_five_seconds(cache: Path) -> None:
    message, seconds = the_error()
    assert message == (
        f"{UNKNOWN} ({cache}); the Hub cannot be reached, so this id cannot be checked either: {constants.ENDPOINT} "
        "did not answer within 4 s (HF_HUB_ETAG_TIMEOUT sets another limit). Check the id and the network. Without a "
        "network, HF_HUB_OFFLINE=1 reads models of the cache at once; otherwise name a folder or package:NAME/PATH"
    )
    assert 3.9 < seconds < 5


@pytest.mark.usefixtures("refusing")
def test_a_hub_that_refuses_is_the_same_error_at_once(cache: Path) -> None:
    message, seconds = the_error()
    assert message.startswith(f"{UNKNOWN} ({cache}); the Hub cannot be reached")
    assert f"{constants.ENDPOINT}: [Errno 111] Connection refused. Check the id" in message
    assert seconds < 2


@pytest.mark.usefixtures("silent")
def test_a_command_waits_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LIMIT", 2)
    recipe = recipe_from_dict(
        tiny_recipe(tmp_path, tmp_path, model={"name": NAME}, training={"max_tokens_per_batch": 99})
    )
    started = time.monotonic()
    [problem] = find_problems(recipe)
    with pytest.raises(ModelError) as caught:
        describe_layers(NAME)
    assert problem == str(caught.value)
    assert problem.startswith(UNKNOWN)
    assert time.monotonic() - started < 4


def test_a_hub_that_answers_slowly_is_asked_for_the_model(asked: list[str]) -> None:
    message, _ = the_error()
    assert "some-one/tiny is not a local folder and is not a valid model identifier" in message
    assert asked[:2] == ["/", "/some-one/tiny/resolve/main/config.json"]


@pytest.mark.usefixtures("refusing")
def test_without_a_hub_a_model_of_the_cache_is_loaded_at_once(cache: Path, tiny_encoder: Path) -> None:
    snapshot = in_cache(cache, tiny_encoder)
    section = TextModelSection(name=NAME, revision=None)
    started = time.monotonic()
    tokenizer = load_tokenizer(section)
    model = build_classifier(section, ["a", "b"], tokenizer)
    assert time.monotonic() - started < 5
    assert isinstance(model, BertForSequenceClassification)
    assert tokenizer("red cat")["input_ids"] == [2, 5, 12, 3]
    assert hub.place_of_model(NAME, "main") == str(snapshot)


def test_offline_mode_asks_nobody_and_says_what_it_reads(
    asked: list[str], cache: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message, _ = the_error()
    assert message == (
        f"{UNKNOWN} ({cache}), which alone is read while HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE to download it, "
        "or name a folder or package:NAME/PATH"
    )
    in_cache(cache, tiny_encoder)
    assert hub.place_of_model(NAME, None) == NAME
    assert asked == []


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("name", ["no/such/folder", "./here", "../x y"])
def test_what_can_be_no_id_of_the_hub_is_not_asked_for(name: str) -> None:
    assert hub.place_of_model(name, None) == name


def test_a_data_set_of_a_hub_that_does_not_answer_is_one_message_within_five_seconds(silent: None) -> None:
    started = time.monotonic()
    with pytest.raises(DataError) as error:
        load_raw_splits(TextDataSection(source="some-one/rows"))
    assert time.monotonic() - started < 5
    assert "some-one/rows is not a file or folder here, and loading it from the Hub failed" in str(error.value)
    assert "HF_HUB_OFFLINE=1 reads data sets of the cache at once" in str(error.value)
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)
