"""Checks of the modules: dropout and statistics active in frozen parts, and gradients that checkpointing cuts off."""

from collections.abc import Iterator, Mapping

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise.audit.setup import CannotTell, Finding, TrainingSetup, about, counted
from nlp_ft.layerwise.modes import draws_itself, is_kept_inside, modules_to_pin

DROP_RATES = ("dropout", "attention_dropout", "embedding_dropout", "drop_prob", "layerdrop")
"""Attributes in which modules of torch, Transformers and timm keep the rate of a dropout in their `forward`."""


def live_batch_norm(setup: TrainingSetup) -> Iterator[Finding]:
    """Find BatchNorms in frozen modules that still update their running statistics."""
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
    """Find active dropout or stochastic depth in frozen layers, or between them in a container."""
    live = _in_train_mode(setup.model, {name: module for name, module in _still(setup).items() if _drops(module)})
    yield from about(
        live,
        "live_dropout",
        "warning",
        f"{counted(len(live), 'dropout')} live in a frozen module",
        "The features of the frozen part differ from pass to pass and from those in use; a cache would keep one draw.",
        "Put the module in eval mode after each model.train(), or freeze with set_trainable, which keeps it there.",
    )


def reentrant_checkpointing(setup: TrainingSetup) -> Iterator[Finding]:
    """Find trainable parameters in blocks under reentrant checkpointing with only frozen layers below them."""
    blocks = _checkpointed(setup.model)
    if not blocks or any(getattr(module, "_require_grads_hook", None) for module in setup.model.modules()):
        return
    inside = {f"{block}.{name}" for block, module in blocks.items() for name, _ in module.named_parameters()}
    layers = {name: setup.layer_map.layer_id(name) for name in setup.trainable()}
    flows_from = min((layer for name, layer in layers.items() if name not in inside), default=len(setup.parameters))
    lost = [name for name, layer in layers.items() if name in inside and layer <= flows_from]
    yield from about(
        lost,
        "reentrant_checkpointing",
        "error",
        f"{counted(len(lost), 'trainable parameter')} in blocks under reentrant checkpointing, "
        "with nothing trainable before them",
        "Reentrant checkpointing passes gradients only if a block's input needs one, so their gradients stay None.",
        'Checkpoint with {"use_reentrant": False}, or call model.enable_input_require_grads().',
    )


def _frozen_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Find the modules whose parameters are all frozen; a module without parameters counts as its parent does."""
    frozen: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        parameters = list(module.parameters())
        is_frozen = not any(p.requires_grad for p in parameters) if parameters else name.rpartition(".")[0] in frozen
        if is_frozen:
            frozen[name] = module
    return frozen


def _still(setup: TrainingSetup) -> dict[str, nn.Module]:
    """Find the modules that must draw no random numbers: those of frozen layers, and containers between them."""
    try:
        layers = {setup.layer_map.aligned_layer(name) for name in setup.trainable()}
        pinned = modules_to_pin(setup.model, setup.layer_map, layers)
    except LayerMapError:
        return _frozen_modules(setup.model)
    still = {inner for module, pin in pinned.items() if pin == "whole" for inner in module.modules()}
    still |= {m for m, pin in pinned.items() if pin != "whole" and draws_itself(m) and not is_kept_inside(m)}
    return {name: module for name, module in setup.model.named_modules() if module in still}


def _in_train_mode(model: nn.Module, modules: Mapping[str, nn.Module]) -> list[str]:
    """List those of the modules that are in train mode.

    Raises:
        CannotTell: the whole model is in eval mode, so the effect of `model.train()` on the modules is unknown.
    """
    if modules and not model.training:
        raise CannotTell("the model is in eval mode; call audit after model.train()")
    return [name for name, module in modules.items() if module.training]


def _drops(module: nn.Module) -> bool:
    """Whether a module has a dropout rate above 0, or draws random numbers with a rate that cannot be found."""
    is_dropout = isinstance(module, _DropoutNd) or type(module).__name__ == "StochasticDepth"
    values = [getattr(module, name, None) for name in (("p",) if is_dropout else DROP_RATES)]
    rates = [float(value) for value in values if isinstance(value, int | float)]
    return max(rates) > 0 if rates else draws_itself(module)


def _checkpointed(model: nn.Module) -> dict[str, nn.Module]:
    """Find the innermost modules that Transformers runs under reentrant checkpointing, which is torch's default."""
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
