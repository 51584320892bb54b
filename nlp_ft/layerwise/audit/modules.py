"""Checks of the modules: what stays live in a frozen part, and gradients that checkpointing cuts off."""

from collections.abc import Iterator, Mapping

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise.audit.setup import CannotTell, Finding, TrainingSetup, counted
from nlp_ft.layerwise.modes import draws_itself, is_kept_inside, modules_to_pin

DROP_RATES = ("dropout", "attention_dropout", "embedding_dropout", "drop_prob", "layerdrop")
"""Attributes in which modules of torch, Transformers and timm keep a rate that `forward` applies in train mode."""


def live_batch_norm(setup: TrainingSetup) -> Iterator[Finding]:
    """A BatchNorm in a frozen module that goes on gathering statistics."""
    norms = {
        name: module
        for name, module in _frozen_modules(setup.model).items()
        if isinstance(module, _NormBase) and module.running_mean is not None
    }
    live = _in_train_mode(setup.model, norms)
    if live:
        yield Finding(
            "live_batch_norm",
            "error",
            f"{counted(len(live), 'normalisation')} live in a frozen module and gathering statistics",
            tuple(f"{name}.running_mean" for name in live),
            "Every forward pass moves the statistics, so the frozen part computes something else each time.",
            "Put them in eval mode after each model.train(), or freeze with set_trainable, which keeps them there.",
        )


def live_dropout(setup: TrainingSetup) -> Iterator[Finding]:
    """Dropout or stochastic depth in a frozen layer, or between two, where a container draws it."""
    live = _in_train_mode(setup.model, {name: module for name, module in _still(setup).items() if _drops(module)})
    if live:
        yield Finding(
            "live_dropout",
            "warning",
            f"{counted(len(live), 'dropout')} live in a frozen module",
            tuple(live),
            "The frozen part gives other features at each pass than in use, and a cache would fix one draw.",
            "Put the module in eval mode after each model.train(), or freeze with set_trainable, which keeps it there.",
        )


def reentrant_checkpointing(setup: TrainingSetup) -> Iterator[Finding]:
    """Blocks under reentrant checkpointing whose input needs no gradient, because all below them is frozen."""
    blocks = _checkpointed(setup.model)
    if not blocks or any(getattr(module, "_require_grads_hook", None) for module in setup.model.modules()):
        return
    inside = {f"{block}.{name}" for block, module in blocks.items() for name, _ in module.named_parameters()}
    layers = {name: setup.layer_map.layer_id(name) for name in setup.trainable()}
    flows_from = min((layer for name, layer in layers.items() if name not in inside), default=len(setup.parameters))
    lost = [name for name, layer in layers.items() if name in inside and layer <= flows_from]
    if lost:
        yield Finding(
            "reentrant_checkpointing",
            "error",
            f"{counted(len(lost), 'trainable parameter')} in blocks under reentrant checkpointing, "
            "with nothing trainable before them",
            tuple(lost),
            "Reentrant checkpointing passes gradients only where a block's input needs one: theirs stay None.",
            'Checkpoint with {"use_reentrant": False}, or call model.enable_input_require_grads().',
        )


def _frozen_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules all of whose parameters are frozen, and what lies in them; one without any belongs to its parent."""
    frozen: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        parameters = list(module.parameters())
        is_frozen = not any(p.requires_grad for p in parameters) if parameters else name.rpartition(".")[0] in frozen
        if is_frozen:
            frozen[name] = module
    return frozen


def _still(setup: TrainingSetup) -> dict[str, nn.Module]:
    """Modules that must draw nothing: those of frozen layers, and containers that draw between such."""
    try:
        layers = {setup.layer_map.aligned_layer(name) for name in setup.trainable()}
        pinned = modules_to_pin(setup.model, setup.layer_map, layers)
    except LayerMapError:
        return _frozen_modules(setup.model)
    still = {inner for module, pin in pinned.items() if pin == "whole" for inner in module.modules()}
    still |= {m for m, pin in pinned.items() if pin != "whole" and draws_itself(m) and not is_kept_inside(m)}
    return {name: module for name, module in setup.model.named_modules() if module in still}


def _in_train_mode(model: nn.Module, modules: Mapping[str, nn.Module]) -> list[str]:
    """Raises: CannotTell: the model as a whole is in eval mode, and what `train()` would do to these is not known."""
    if modules and not model.training:
        raise CannotTell("the model is in eval mode; call audit after model.train()")
    return [name for name, module in modules.items() if module.training]


def _drops(module: nn.Module) -> bool:
    """Whether a module has a rate above 0, or draws at one that it does not tell."""
    is_dropout = isinstance(module, _DropoutNd) or type(module).__name__ == "StochasticDepth"
    values = [getattr(module, name, None) for name in (("p",) if is_dropout else DROP_RATES)]
    rates = [float(value) for value in values if isinstance(value, int | float)]
    return max(rates) > 0 if rates else draws_itself(module)


def _checkpointed(model: nn.Module) -> dict[str, nn.Module]:
    """The innermost modules that Transformers runs under reentrant checkpointing (torch's default is reentrant)."""
    flagged = {
        name: module
        for name, module in model.named_modules()
        if getattr(module, "gradient_checkpointing", False)
        and getattr(getattr(module, "_gradient_checkpointing_func", None), "keywords", {}).get("use_reentrant", True)
    }
    return {
        name: module
        for name, module in flagged.items()
        if not any(other.startswith(f"{name}." if name else "") and other != name for other in flagged)
    }
