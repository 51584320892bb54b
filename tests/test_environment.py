"""What the environment says is read in one place: it is right, ignored as its rules demand, or refused by its name."""

import os
import re
from pathlib import Path

import pytest
from accelerate import Accelerator, PartialState

from nlp_ft.cli import main
from nlp_ft.environment import check_environment, feature_folder, ignore_unusable_folders, is_main_process, launching
from nlp_ft.errors import MachineError
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.training.accelerator import start_accelerator

TWO = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost"}


def set_variables(patch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        patch.setenv(name, value)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "x.yaml").write_text(
        f"task: text_classification\nmodel: {{name: m}}\ndata: {{train: t.csv}}\noutput_dir: {tmp_path}/run\n"
    )
    return load_recipe(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number of 1 to 1000000, got 'two'"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE must be a whole number of 1 to 1000000, got ''"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE must be a whole number of 1 to 1000000, got '0'"),
        ({"WORLD_SIZE": "9" * 400}, "WORLD_SIZE must be a whole number of 1 to 1000000, got '9"),
        ({"WORLD_SIZE": "²"}, "WORLD_SIZE must be a whole number of 1 to 1000000, got '²'"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set: start all processes with torchrun"),
        ({**TWO, "MASTER_ADDR": ""}, "WORLD_SIZE is 2, but MASTER_ADDR is not set: start all processes with torchrun"),
        ({**TWO, "RANK": "2"}, "RANK must be a whole number of 0 to 1, got '2'"),
        ({"RANK": "first"}, "RANK must be a whole number of 0 to 1000000, got 'first'"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK must be a whole number of -1 to 1000000, got 'x'"),
        ({**TWO, "MASTER_PORT": "70000"}, "MASTER_PORT must be a whole number of 0 to 65535, got '70000'"),
        ({"ACCELERATE_USE_CPU": "maybe"}, "ACCELERATE_USE_CPU must be true or false, got 'maybe'"),
        ({"ACCELERATE_USE_FSDP": ""}, "ACCELERATE_USE_FSDP must be true or false, got ''"),
        ({"ACCELERATE_DEBUG_MODE": "2"}, "ACCELERATE_DEBUG_MODE must be true or false, got '2'"),
        ({"NLP_FT_CACHE": "here"}, "NLP_FT_CACHE must be an absolute path, got here; did you mean /"),
    ],
    ids=str,
)
def test_a_variable_that_makes_no_sense_is_refused_by_its_name_before_anything_starts(
    variables: dict[str, str],
    message: str,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    set_variables(monkeypatch, variables)
    with pytest.raises(MachineError, match=f"^{re.escape(message)}"):
        start_accelerator(recipe, tmp_path)
    with pytest.raises(SystemExit) as exit_info:
        main(["train", "x.yaml"])
    err = capsys.readouterr().err
    assert (exit_info.value.code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {message}")
    assert os.listdir() == ["x.yaml"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_TORCH_DEVICE": "toaster"}, r"toaster.*; the environment says: .*ACCELERATE_TORCH_DEVICE=toaster"),
        (
            {"ACCELERATE_DYNAMO_BACKEND": "fast"},
            r"'FAST' is not a valid DynamoBackend; .*ACCELERATE_DYNAMO_BACKEND=fast",
        ),
    ],
    ids=str,
)
def test_what_accelerate_refuses_is_one_error_and_the_next_start_is_a_fresh_one(
    variables: dict[str, str], message: str, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PartialState._reset_state()
    with monkeypatch.context() as patch:
        set_variables(patch, variables)
        with pytest.raises(MachineError, match=f"^the launch cannot be joined: .*{message}"):
            start_accelerator(recipe, tmp_path)
        with pytest.raises(MachineError, match=r"^the launch cannot be joined: "), launching():
            Accelerator()
    assert start_accelerator(recipe, tmp_path).num_processes == 1


@pytest.mark.parametrize(
    "variables",
    [{}, TWO, {"RANK": "3"}, {"LOCAL_RANK": "-1"}, {"WORLD_SIZE": " 1 "}, {"ACCELERATE_USE_CPU": "Yes"}],
    ids=str,
)
def test_what_launchers_set_is_taken(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, variables)
    check_environment()
    assert is_main_process() == (variables is not TWO)


def test_folders_that_name_none_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    unusable = {"HOME": "", "XDG_CACHE_HOME": "here", "XDG_CONFIG_HOME": " ", "HF_HOME": "", "TORCH_HOME": " "}
    usable = {"HF_DATASETS_CACHE": "data", "HF_HUB_CACHE": "/hub"}
    set_variables(monkeypatch, {**unusable, **usable})
    ignore_unusable_folders()
    assert unusable.keys().isdisjoint(os.environ)
    assert {name: os.environ[name] for name in usable} == usable


def test_features_lie_in_the_folder_of_ours_or_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, {"HOME": "/home/me", "NLP_FT_CACHE": "", "XDG_CACHE_HOME": ""})
    assert feature_folder() == Path("/home/me/.cache/nlp_ft/features")
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert feature_folder() == Path("/home/me/.cache/nlp_ft/features")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert feature_folder() == Path("/caches/nlp_ft/features")
    monkeypatch.setenv("NLP_FT_CACHE", "~/own")
    assert feature_folder() == Path("/home/me/own/features")


def test_without_any_home_no_folder_named_tilde_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, {"NLP_FT_CACHE": "", "XDG_CACHE_HOME": ""})
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(MachineError, match="HOME is not set, and this user has no home folder"):
        check_environment()
