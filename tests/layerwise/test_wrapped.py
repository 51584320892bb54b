"""Layer maps of wrapped models: each parameter keeps its layer, an adapter takes that of what it adapts."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from nlp_ft.layerwise import LayerMap
from tests.layerwise.text_census import build

# Adapted modules, and one of the task head to train whole.
TARGETS = {
    "bert": (["query", "value", "dense", "word_embeddings"], "classifier"),
    "deberta-v2": (["query_proj", "value_proj"], "classifier"),
    "llama": (["q_proj", "v_proj", "down_proj"], "score"),
    "t5": (["q", "v", "wo"], "classification_head"),
}
ADAPTER = re.compile(
    r"\.(base_layer|original_module"
    r"|(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|ia3_l|modules_to_save)\.(default|second))\b"
)


def layers(model: nn.Module) -> dict[str, int]:
    """Name -> layer."""
    layer_map = LayerMap.from_model(model)
    return {name: layer_map.layer_id(name) for name, _ in model.named_parameters()}


def adapted(name: str) -> str:
    """Module that a parameter of a PEFT model stands in or adapts, named as before."""
    name = ADAPTER.sub("", name.removeprefix("base_model.").removeprefix("model.") if "base_model" in name else name)
    return re.sub(r"\.(weight|bias)$", "", name)


@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
@pytest.mark.parametrize("model_type", TARGETS)
def test_an_adapter_has_the_layer_of_the_module_that_it_adapts(model_type: str, method: str) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    targets, whole = TARGETS[model_type]
    model = build(model_type)
    num_layers = LayerMap.from_model(model).num_layers
    before = {adapted(name): layer for name, layer in layers(model).items()}
    if method == "ia3":
        config = peft.IA3Config(target_modules=targets[:2], feedforward_modules=[], modules_to_save=[whole])
    else:
        config = peft.LoraConfig(r=2, target_modules=targets, modules_to_save=[whole], use_dora=method == "dora")
    adapted_model = peft.get_peft_model(model, config)
    adapted_model.add_adapter("second", config)
    after = layers(adapted_model)
    added = [name for name in after if re.search("lora_|ia3_", name)]
    assert len(added) >= 12
    assert after == {name: before[adapted(name)] for name in after}
    assert LayerMap.from_model(adapted_model).num_layers == num_layers


def test_prompts_that_are_learned_belong_to_the_embeddings() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model = build("bert")
    before = layers(model)
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3, num_layers=3, token_dim=32)
    after = layers(peft.get_peft_model(model, config))
    assert after.pop("prompt_encoder.default.embedding.weight") == 0
    assert {adapted(name): layer for name, layer in after.items()} == {adapted(n): layer for n, layer in before.items()}


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """This process alone, over gloo."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def distributed(model: nn.Module) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model)


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model)  # type: ignore[return-value]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: build("bert"),
    "bart": lambda: build("bart"),
    "resnet18": torchvision.models.resnet18,
}
WRAPPERS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "distributed": (distributed, "module."),
    "compiled": (compiled, "_orig_mod."),
    "compiled and distributed": (lambda model: distributed(compiled(model)), "module._orig_mod."),
    "distributed and compiled": (lambda model: compiled(distributed(model)), "_orig_mod.module."),
    "data parallel": (nn.DataParallel, "module."),
}


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", MODELS)
def test_a_wrapped_model_is_mapped_as_the_model_itself(name: str, wrapper: str) -> None:
    wrap, prefix = WRAPPERS[wrapper]
    model = MODELS[name]()
    before, modules = layers(model), LayerMap.from_model(model).embedding_modules
    wrapped = wrap(model)
    assert layers(wrapped) == {prefix + parameter: layer for parameter, layer in before.items()}
    assert LayerMap.from_model(wrapped).embedding_modules == {prefix + module for module in modules}


@pytest.mark.usefixtures("process_group")
def test_an_adapted_compiled_distributed_model_is_mapped_too() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model = peft.get_peft_model(build("bert"), peft.LoraConfig(r=2, target_modules=["query"]))
    before = layers(model)
    prefix = "_orig_mod.module."
    assert layers(compiled(distributed(model))) == {prefix + name: layer for name, layer in before.items()}


def int8_by_torch(model: nn.Module) -> nn.Module:
    # Outdated by torch's own word, and still what people have.
    with pytest.warns(DeprecationWarning, match="torch.ao.quantization is deprecated"):
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)


def int8_by_torchao(model: nn.Module) -> nn.Module:
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    return model


@pytest.mark.parametrize("quantise", [int8_by_torch, int8_by_torchao])
@pytest.mark.parametrize("model_type", ["bert", "llama", "t5"])
def test_what_quantisation_leaves_as_parameters_keeps_its_layer(
    model_type: str, quantise: Callable[[nn.Module], nn.Module]
) -> None:
    model = build(model_type).eval()
    before = layers(model)
    after = layers(quantise(model))
    assert after
    assert after == {name: before[name] for name in after}
