"""What a run stored is looked at before it is believed: what is damaged, or of another run, is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from nlp_ft.errors import Interrupted, RunFolderError
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.training import checkpoint_manager, durable, run
from nlp_ft.training.accelerator import start_accelerator
from nlp_ft.training.checkpoint import model_tensors, read_state, save_checkpoint
from nlp_ft.training.loop import Loop
from nlp_ft.training.optimizer_state import optimizer_state
from nlp_ft.training.run import train
from tests.tiny import tiny_recipe
from tests.training.test_run import same, weights

SETTINGS = {"duration": "1ep", "evaluate_every": "2st", "checkpoint_every": "2st", "per_device_batch_size": 8}


def recipe_in(folder: Path, encoder: Path, **changes: object) -> dict[str, object]:
    return tiny_recipe(folder, encoder, training=SETTINGS, **changes)


def stopped_before(step: int, values: dict[str, object], **options: bool) -> None:
    """Train until Ctrl-C within a step."""
    inner = Loop._step

    def stop(self: Loop, batches: object) -> object:
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return inner(self, batches)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_step", stop)
        with pytest.raises(Interrupted):
            train(recipe_from_dict(values), **options)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> tuple[Path, dict[str, object]]:
    """A folder with `run.partial` stopped after step 5 of 7, `other.partial` of the same recipe, and `whole`."""
    folder = tmp_path_factory.mktemp("begun")
    values = recipe_in(folder, tiny_encoder)
    for name in ("run", "other"):
        stopped_before(5, {**values, "output_dir": str(folder / name)})
    train(recipe_from_dict({**values, "output_dir": str(folder / "whole")}))
    return folder, values


@pytest.fixture
def values(begun: tuple[Path, dict[str, object]], tmp_path: Path) -> dict[str, object]:
    """The recipe of a copy of the unfinished run, which a test may damage; its data are copied too."""
    folder, values = begun
    shutil.copytree(folder / "run.partial", tmp_path / "run.partial")
    return {**values, "output_dir": str(tmp_path / "run")}


@pytest.fixture
def checkpoint(values: dict[str, object], tmp_path: Path) -> Path:
    return tmp_path / "run.partial/checkpoints/step-00000004"


def refusal(values: dict[str, object]) -> str:
    """The message of a resume that is refused, after proof that it left the unfinished run as it was."""
    partial = Path(str(values["output_dir"])).with_name("run.partial")
    before = {file: file.read_bytes() for file in partial.rglob("*") if file.is_file()}
    with pytest.raises(RunFolderError) as caught:
        train(recipe_from_dict(values), resume=True)
    assert {file: file.read_bytes() for file in partial.rglob("*") if file.is_file()} == before
    return str(caught.value)


def flip(file: Path, place: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(len(content) * place)] ^= 4
    file.write_bytes(content)


def rehash(checkpoint: Path) -> None:
    """As if the files had been written so."""
    hashes = json.loads((checkpoint / "hashes.json").read_text())
    (checkpoint / "hashes.json").write_text(json.dumps({n: durable.content_hash(checkpoint / n) for n in hashes}))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "metrics.jsonl", "hashes.json"]
)
def test_one_flipped_bit_in_a_file_of_a_checkpoint_is_refused(
    name: str, values: dict[str, object], checkpoint: Path
) -> None:
    flip(checkpoint / name, 0.6)
    assert "step-00000004/" in refusal(values)


def test_one_flipped_bit_in_the_best_weights_is_refused(values: dict[str, object], checkpoint: Path) -> None:
    [best, *_] = checkpoint.parent.glob("best-*.safetensors")
    flip(best, 0.9)
    assert f"{best} is damaged" in refusal(values)


def without_a_moment(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("|exp_avg_sq")}


def of_other_shapes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor[:1].clone() if tensor.dim() else tensor for name, tensor in tensors.items()}


def in_half(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.half() for name, tensor in tensors.items()}


@pytest.mark.parametrize("change", [without_a_moment, of_other_shapes, in_half, lambda tensors: {}])
def test_an_optimizer_state_of_other_entries_shapes_or_types_is_refused(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], values: dict[str, object], checkpoint: Path
) -> None:
    changed = change(load_file(checkpoint / "optimizer.safetensors"))
    save_file(changed, checkpoint / "optimizer.safetensors")
    rehash(checkpoint)
    assert "optimizer.safetensors is of another optimizer: " in refusal(values)
    # Even where the list of entries was written with it.
    state = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "state.json").write_text(json.dumps({**state, "optimizer_entries": sorted(changed)}))
    rehash(checkpoint)
    if changed:
        assert "optimizer.safetensors is of another optimizer: " in refusal(values)


def test_weights_of_another_type_are_refused(values: dict[str, object], checkpoint: Path) -> None:
    save_file(in_half(load_file(checkpoint / "model.safetensors")), checkpoint / "model.safetensors")
    rehash(checkpoint)
    assert "is torch.float16 (" in refusal(values)


@pytest.mark.parametrize("step", [3, 99])
def test_a_checkpoint_under_the_name_of_another_step_is_refused(
    step: int, values: dict[str, object], checkpoint: Path
) -> None:
    checkpoint.rename(checkpoint.with_name(f"step-{step:08d}"))
    assert f"step-{step:08d} holds the checkpoint after step 4" in refusal(values)


def test_a_checkpoint_beyond_the_end_of_the_run_is_refused(values: dict[str, object], checkpoint: Path) -> None:
    state = json.loads((checkpoint / "state.json").read_text())
    state["step"] = state["loop"]["global_step"] = 8
    (checkpoint / "state.json").write_text(json.dumps(state))
    rehash(checkpoint)
    checkpoint.rename(checkpoint.with_name("step-00000008"))
    assert "says that step 8 of 7 is done" in refusal(values)


def test_a_checkpoint_of_another_run_is_refused(
    begun: tuple[Path, dict[str, object]], values: dict[str, object], checkpoint: Path
) -> None:
    shutil.rmtree(checkpoint.parent)
    shutil.copytree(begun[0] / "other.partial/checkpoints", checkpoint.parent)
    assert "step-00000004 is of another run than " in refusal(values)


@pytest.mark.parametrize(
    ("split", "change", "named"),
    [
        ("validation", lambda text: text + "the cat,animal\n", "texts of validation, token ids of validation, labels"),
        ("validation", lambda text: text.replace(",animal", ",size", 1), "different: labels of validation;"),
        ("train", lambda text: text.replace(",animal", ",size", 1), "different: labels of train;"),
        ("train", lambda text: text.replace("the", "The", 1), "different: texts of train;"),
        ("train", lambda text: text.replace("the ", "the  ", 1), "different: texts of train;"),
        ("test", lambda text: text + "the cat,animal\n", "different: texts of test,"),
    ],
)
def test_other_rows_are_refused_by_the_name_of_what_differs(
    split: str, change: Callable[[str], str], named: str, values: dict[str, object], tmp_path: Path
) -> None:
    file = Path(values["data"][split])  # type: ignore[index]
    before = file.read_text()
    try:
        file.write_text(change(before))
        assert named in refusal(values)
    finally:
        file.write_text(before)


def test_renamed_classes_are_refused(values: dict[str, object]) -> None:
    files = [Path(file) for file in values["data"].values()]  # type: ignore[attr-defined]
    before = [file.read_text() for file in files]
    try:
        for file, text in zip(files, before):
            file.write_text(text.replace(",animal", ",beast"))
        assert "different: label names, configuration of the model" in refusal(values)
    finally:
        for file, text in zip(files, before):
            file.write_text(text)


def test_a_tokenizer_that_gives_other_ids_is_refused(
    values: dict[str, object], tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tiny_encoder / "tokenizer.json"
    before = tokenizer.read_text()
    vocabulary = json.loads(before)["model"]["vocab"]
    swapped = before.replace(f'"cat": {vocabulary["cat"]}', '"cat": ?').replace(
        f'"dog": {vocabulary["dog"]}', f'"dog": {vocabulary["cat"]}'
    )
    try:
        tokenizer.write_text(swapped.replace('"cat": ?', f'"cat": {vocabulary["dog"]}'))
        assert "vocabulary of the tokenizer, token ids of train" in refusal(values)
    finally:
        tokenizer.write_text(before)


def test_another_number_of_processes_is_refused_where_dropout_would_differ(
    values: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_manager, "read_state", lambda place: {**read_state(place), "num_processes": 2})
    assert "was begun on 2 process(es), and its steps would differ on 1: the model draws random" in refusal(values)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "recipe.yaml is missing"), (b"\xff\xfe\x00", "not UTF-8"), (b"data: [", "not valid YAML")],
)
def test_a_recipe_of_the_unfinished_run_that_cannot_be_read_is_refused(
    content: bytes | None, said: str, values: dict[str, object], tmp_path: Path
) -> None:
    file = tmp_path / "run.partial/recipe.yaml"
    file.unlink() if content is None else file.write_bytes(content)
    values = {**values, "optimizer": {"lr": 0.5}}
    assert said in refusal(values)


@pytest.mark.parametrize("content", [b"{broken\n", b"\xff\xfe", None])
def test_the_metrics_of_a_resumed_run_are_those_of_its_checkpoint_whatever_became_of_the_file(
    content: bytes | None,
    begun: tuple[Path, dict[str, object]],
    values: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "run.partial/metrics.jsonl"
    file.unlink() if content is None else file.write_bytes(content)
    train(recipe_from_dict(values), resume=True)
    assert "resuming after step 4 of 7" in capsys.readouterr().out
    assert (tmp_path / "run/metrics.jsonl").read_text() == (begun[0] / "whole/metrics.jsonl").read_text()
    assert same(weights(tmp_path / "run"), weights(begun[0] / "whole"))


def test_a_resume_with_other_threads_is_warned_of(
    values: dict[str, object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    train(recipe_from_dict(values), resume=True)
    said = f"warning: this run was begun in another environment (threads: {threads} then, 99 now); it goes on"
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_resume_without_a_checkpoint_says_that_it_begins_at_step_0(
    values: dict[str, object], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(checkpoint.parent)
    train(recipe_from_dict(values), resume=True)
    assert "run.partial has no checkpoint, so training begins at step 0" in " ".join(capsys.readouterr().out.split())


def test_a_file_in_the_place_of_an_unfinished_checkpoint_gives_way(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    names = [name for name, _ in model.named_parameters()]
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "param_names": names}], lr=0.1)
    (tmp_path / "writing").write_text("half")
    save_checkpoint(tmp_path, 1, model_tensors(model), *optimizer_state(optimizer), {}, "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]


def test_the_scale_of_float16_goes_on_where_the_checkpoint_was_written(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU in float32, which need no scale, so that only its own numbers are looked at."""
    scales: dict[str, float] = {}
    plain = Loop.run

    def scaled(self: Loop) -> None:
        plain(self)
        scales[Path(self.hooks.save.__self__.run_folder.final).name] = self.accelerator.scaler.get_scale()  # type: ignore

    def with_a_scaler(*args: object, **options: object) -> Accelerator:
        accelerator = start_accelerator(*args, **options)  # type: ignore[arg-type]
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        return accelerator

    monkeypatch.setattr(Loop, "run", scaled)
    monkeypatch.setattr(run, "start_accelerator", with_a_scaler)
    values = recipe_in(tmp_path, tiny_encoder)
    train(recipe_from_dict({**values, "output_dir": str(tmp_path / "whole")}))
    stopped_before(5, {**values, "output_dir": str(tmp_path / "broken")})
    train(recipe_from_dict({**values, "output_dir": str(tmp_path / "broken")}), resume=True)
    assert scales == {"whole": 64.0, "broken": 64.0}
    assert same(weights(tmp_path / "broken"), weights(tmp_path / "whole"))
