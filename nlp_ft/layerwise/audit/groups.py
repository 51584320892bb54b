"""Checks of the optimizer's groups: they hold all that trains and nothing else, and move nothing that is frozen."""

from collections.abc import Iterator

import torch
from torch import nn

from nlp_ft.layerwise.audit.setup import Finding, Group, TrainingSetup, about, counted
from nlp_ft.layerwise.param_groups import no_weight_decay_names

FIRST_MOMENTS = ("momentum_buffer", "exp_avg")
"""Entries of an optimizer's state (torch's, lion-pytorch's) that move a parameter even if its gradient is zero."""
REMEDY_FOR_ZEROS = "Set .grad = None when freezing, and leave zero_grad(set_to_none=True) as it is."


def everything_frozen(setup: TrainingSetup) -> Iterator[Finding]:
    """Find models in which no parameter has `requires_grad`."""
    if not setup.trainable():
        yield Finding(
            "everything_frozen",
            "error",
            f"all {len(setup.parameters)} parameters are frozen",
            tuple(setup.parameters),
            "backward() raises an error; or if the loss has parameters of its own, only those are trained.",
            "Leave the head trainable: set_trainable(model, layer_map, layer_map.head_layer).",
        )


def trainable_without_group(setup: TrainingSetup) -> Iterator[Finding]:
    """Find parameters with `requires_grad` that the optimizer does not hold."""
    names = [name for name, parameter in setup.trainable().items() if id(parameter) not in setup.groups_of]
    yield from about(
        names,
        "trainable_without_group",
        "error",
        f"{counted(len(names), 'trainable parameter')} in no group of the optimizer",
        "They get gradients, and no step ever updates them.",
        "Build the optimizer over all parameters, the frozen ones too, before freezing any of them.",
    )


def parameter_in_two_groups(setup: TrainingSetup) -> Iterator[Finding]:
    """Find parameters with one name that are in the optimizer more than once."""
    names = [
        names[0] for key, names in setup.all_names.items() if len(setup.groups_of.get(key, ())) > 1 and len(names) == 1
    ]
    yield from about(
        names,
        "parameter_in_two_groups",
        "error",
        f"{counted(len(names), 'parameter')} in the optimizer more than once",
        "Each step updates them several times, with the rate of each group.",
        "Put each parameter into one group, once; layerwise_param_groups checks that.",
    )


def tied_weight_in_two_groups(setup: TrainingSetup) -> Iterator[Finding]:
    """Find weights with several names that are in the optimizer more than once."""
    by_storage: dict[int, list[tuple[list[str], Group]]] = {}
    for parameter in setup.parameters.values():
        # Tensors without storage of their own (meta, sharded) have the address 0.
        address = parameter.data_ptr() if parameter.numel() else 0
        for group in setup.groups_of.get(id(parameter), ()):
            by_storage.setdefault(address or id(parameter), []).append((setup.all_names[id(parameter)], group))
    for entries in by_storage.values():
        names = list(dict.fromkeys(name for names, _ in entries for name in names))
        if len(entries) < 2 or len(names) < 2:
            continue
        rates = " and ".join(f"{setup.rate(group):g}" for _, group in entries)
        yield Finding(
            "tied_weight_in_two_groups",
            "error",
            f"one tied weight of {len(names)} names is in the optimizer {len(entries)} times, at the rates {rates}",
            tuple(names),
            "Each step updates the same numbers several times, with one rate after the other.",
            "Tie by the same Parameter object, and give it to one group: model.named_parameters() names it once.",
        )


def foreign_parameter(setup: TrainingSetup) -> Iterator[Finding]:
    """Find parameters in the optimizer that the model does not have."""
    names = [
        name
        for group in setup.groups
        for parameter, name in zip(group["params"], setup.names_in(group))
        if id(parameter) not in setup.all_names
    ]
    if names:
        lost = any(id(parameter) not in setup.groups_of for parameter in setup.trainable().values())
        yield Finding(
            "foreign_parameter",
            # If the optimizer holds the whole model, they may be parameters of a loss. If it lacks some of the model's,
            # they are those of an older model.
            "error" if lost else "warning",
            f"{counted(len(names), 'parameter')} in the optimizer but not in this model",
            tuple(names),
            "The optimizer holds and updates tensors that the model does not compute with.",
            "Build the optimizer when the model is final: after loading it, replacing its head and moving it.",
        )


def frozen_with_gradient(setup: TrainingSetup) -> Iterator[Finding]:
    """Find frozen parameters in the optimizer that keep a gradient from an earlier step."""
    names = [name for name, _, grad, _ in _frozen_with_grad(setup) if not _is_zero(grad)]
    yield from about(
        names,
        "frozen_with_gradient",
        "error",
        f"{counted(len(names), 'frozen parameter')} in the optimizer with a gradient from before",
        "The next step moves them by that gradient; the optimizer does not look at requires_grad.",
        "Set .grad = None when freezing, as set_trainable does.",
    )


def frozen_but_decayed(setup: TrainingSetup) -> Iterator[Finding]:
    """Find frozen parameters in a group with weight decay whose gradient is zeros instead of None."""
    names = [name for name, _, grad, group in _frozen_with_grad(setup) if _is_zero(grad) and group.get("weight_decay")]
    yield from about(
        names,
        "frozen_but_decayed",
        "error",
        f"{counted(len(names), 'frozen parameter')} in a group with weight decay, with a gradient of zeros",
        "Each step shrinks them: only a gradient of None keeps a parameter out of the update.",
        REMEDY_FOR_ZEROS,
    )


def frozen_with_momentum(setup: TrainingSetup) -> Iterator[Finding]:
    """Find frozen parameters with momentum left whose gradient is zeros instead of None."""
    names = [
        name
        for name, parameter, grad, _ in _frozen_with_grad(setup)
        if _is_zero(grad) and _has_momentum(setup.optimizer, parameter)
    ]
    yield from about(
        names,
        "frozen_with_momentum",
        "error",
        f"{counted(len(names), 'frozen parameter')} in the optimizer with momentum, with a gradient of zeros",
        "The momentum of the steps before the freezing keeps moving them.",
        REMEDY_FOR_ZEROS,
    )


def norm_or_bias_decayed(setup: TrainingSetup) -> Iterator[Finding]:
    """Find trainable norms, biases and other parameters of one dimension in a group with weight decay."""
    spared = no_weight_decay_names(setup.model)
    names = [
        name
        for name, parameter, group in setup.optimized()
        if parameter.requires_grad and group.get("weight_decay") and name in spared
    ]
    yield from about(
        names,
        "norm_or_bias_decayed",
        "warning",
        f"{counted(len(names), 'norm weight or bias', 'norm weights and biases')} in a group with weight decay",
        "Decay pulls scales and offsets to zero; published fine-tuning recipes leave them out.",
        "Give them a group with weight_decay=0.0, as layerwise_param_groups does.",
    )


def _frozen_with_grad(setup: TrainingSetup) -> Iterator[tuple[str, nn.Parameter, torch.Tensor, Group]]:
    """Yield name, parameter, gradient and group of the frozen parameters that the next step would not skip."""
    for name, parameter, group in setup.optimized():
        if not parameter.requires_grad and parameter.grad is not None and setup.rate(group) > 0:
            yield name, parameter, parameter.grad, group


def _is_zero(tensor: torch.Tensor) -> bool:
    # A sparse gradient has entries, and a gradient on the meta device has no values to look at: neither counts as zero.
    return not (tensor.is_sparse or tensor.is_meta) and not bool(tensor.any())


def _has_momentum(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> bool:
    # `get`, because indexing the state would add an entry.
    state = optimizer.state.get(parameter, {})
    moments = [state[name] for name in FIRST_MOMENTS if isinstance(state.get(name), torch.Tensor)]
    return any(not _is_zero(moment) for moment in moments)
