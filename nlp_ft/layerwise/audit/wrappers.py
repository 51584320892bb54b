"""Checks of wrappers that looked at `requires_grad` once: DistributedDataParallel and compiled graphs.

What is read here of torch is not public; a version that has it no more makes the check say so instead of a guess.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from torch.fx import Graph, GraphModule, Node
from torch.nn.parallel import DistributedDataParallel

from nlp_ft.layerwise.audit.setup import CannotTell, Finding, TrainingSetup, counted

NO_GRAD = '"grad_mode":false'
"""In the guards of a graph that is for evaluation alone, and so never stale."""


def stale_ddp_wrapper(setup: TrainingSetup) -> Iterator[Finding]:
    """A DistributedDataParallel that is older than the trainable set.

    Its reducer lists the parameters with `requires_grad` once, when the wrapper is made. Their list is read from the
    reducer's buckets, for which torch fills tensors of the gradients' size with zeros for a moment.
    """
    for prefix, wrapper in setup.model.named_modules():
        if isinstance(wrapper, DistributedDataParallel):
            yield from _compare_with_reducer(f"{prefix}." if prefix else "", wrapper)


def _compare_with_reducer(prefix: str, wrapper: DistributedDataParallel) -> Iterator[Finding]:
    reduced = _reduced_parameters(wrapper)
    ignored = {f"module.{name}" for name in wrapper.parameters_to_ignore}
    unfrozen, frozen = [], []
    for name, parameter in wrapper.named_parameters():
        if parameter.requires_grad and id(parameter) not in reduced and name not in ignored:
            unfrozen.append(prefix + name)
        if not parameter.requires_grad and id(parameter) in reduced:
            frozen.append(prefix + name)
    remedy = "Wrap model.module in a new DistributedDataParallel at each change of what trains."
    if unfrozen:
        yield Finding(
            "stale_ddp_wrapper",
            "error",
            f"{counted(len(unfrozen), 'trainable parameter')} unknown to an older DistributedDataParallel",
            tuple(unfrozen),
            "Their gradients are not averaged: the weights of the processes drift apart, without a message.",
            remedy,
        )
    if frozen and (wrapper.static_graph or not wrapper.find_unused_parameters):
        yield Finding(
            "stale_ddp_wrapper",
            "error",
            f"{counted(len(frozen), 'frozen parameter')} awaited by an older DistributedDataParallel",
            tuple(frozen),
            "It waits for their gradients: wrong averages, then RuntimeError: Expected to have finished reduction.",
            f"{remedy} Or make it with find_unused_parameters=True.",
        )


def _reduced_parameters(wrapper: DistributedDataParallel) -> set[int]:
    """ids of the parameters whose gradients are averaged. Raises: CannotTell: they are not shown."""
    try:
        buckets = wrapper.reducer._get_zeros_like_grad_buckets()
    except (AttributeError, RuntimeError):
        # Another version of torch, or gradients that are sparse: torch 2.15 fails to make buckets for those.
        raise CannotTell("torch does not show what this DistributedDataParallel averages") from None
    return {id(parameter) for bucket in buckets for parameter in bucket.parameters()}


def stale_compiled_graph(setup: TrainingSetup) -> Iterator[Finding]:
    """A graph of torch.compile that is older than the trainable set, and that torch would go on using.

    torch 2.15 checks `requires_grad` before it reuses a graph and compiles anew (earlier versions did not always:
    https://github.com/pytorch/pytorch/issues/139476), but not where `guard_filter_fn` takes these checks away. So a
    graph counts as stale where it was traced with another `requires_grad` and has no check of it. A graph that runs
    as it was traced (backend "eager") is right either way. Not seen: graphs after a graph break, graphs that were
    exported or loaded from a file, and compiled functions that are no module.
    """
    stale: dict[int, None] = {}
    unreadable = False
    for root, function in _compiled_functions(setup.model):
        for entry in _cache_entries(function):
            graphs = _traced_graphs(entry, function)
            unreadable |= None in graphs
            for graph in filter(None, graphs):
                stale.update(dict.fromkeys(_unnoticed(root, graph, entry)))
    names = [name for name, parameter in setup.parameters.items() if id(parameter) in stale]
    if names:
        yield Finding(
            "stale_compiled_graph",
            "error",
            f"{counted(len(names), 'trainable parameter')} frozen in a compiled graph that will not notice",
            tuple(names),
            "The old graph is used again and gives them no gradient, without a message.",
            "Call torch.compiler.reset() at each change of what trains, or drop guard_filter_fn.",
        )
    if unreadable:
        raise CannotTell("a compiled graph does not show what it was traced with")


def _compiled_functions(model: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    """(module, function whose frame torch may have compiled) of the compiled modules and of all within them."""
    # Where dynamo has not been imported nothing is compiled; importing it takes seconds.
    dynamo: Any = sys.modules.get("torch._dynamo.eval_frame")
    for module in model.modules() if dynamo else ():
        if isinstance(module, dynamo.OptimizedModule):
            yield module._orig_mod, getattr(module.forward, "_torchdynamo_orig_callable", None)
        elif getattr(module, "_compiled_call_impl", None) is None:
            continue
        for inner in module.modules():
            function: Any = type(inner).forward
            while function is not None:
                yield inner, function
                function = getattr(function, "__wrapped__", None)


def _cache_entries(function: Any) -> Sequence[Any]:
    """What torch compiled of a function. Raises: CannotTell: this torch does not show it."""
    code = getattr(function, "__code__", None)
    try:
        entries = sys.modules["torch._dynamo.eval_frame"]._debug_get_cache_entry_list
    except AttributeError:
        raise CannotTell("this version of torch does not show what it compiled") from None
    found: Sequence[Any] = entries(code) if code else ()
    return found


def _traced_graphs(entry: Any, function: Any) -> list[Graph | None]:
    """The graphs that a cache entry calls; None for one that does not show its parameters."""
    names = [name for name in entry.code.co_names if name.startswith("__compiled_fn")]
    called = [function.__globals__.get(name) for name in names]
    called = [getattr(each, "_torchdynamo_orig_callable", each) for each in called]
    return [_graph_of(each) for each in called if not _runs_as_traced(each)]


def _runs_as_traced(function: Any) -> bool:
    """Whether it is the traced graph itself, as with backend "eager"; what calls compiled parts is not."""
    owner = getattr(function, "__self__", None)
    return isinstance(owner, GraphModule) and not owner.graph.find_nodes(op="call_module")


def _graph_of(function: Any) -> Graph | None:
    """The traced graph behind what AOTAutograd compiled: the one whose `named_parameters` it carries."""
    owner = getattr(getattr(function, "named_parameters", None), "__self__", None)
    return owner.graph if isinstance(owner, GraphModule) else None


def _unnoticed(root: nn.Module, graph: Graph, entry: Any) -> list[int]:
    """ids of the trainable parameters that the graph was traced with as frozen, and does not check before its use."""
    changed: dict[str, int] = {}
    for node in graph.find_nodes(op="placeholder"):
        source = _source_name(node)
        parameter, traced = _parameter_at(root, source), node.meta.get("example_value")
        if parameter is None or traced is None or traced.shape != parameter.shape:
            continue
        if parameter.requires_grad and not traced.requires_grad:
            changed[source] = id(parameter)
    checked = str(entry.guard_manager) if changed else ""
    if NO_GRAD in checked:
        return []
    return [key for source, key in changed.items() if f"check_tensor({source}," not in checked]


def _source_name(node: Node) -> str:
    """What dynamo calls an input of a graph: L['self']._modules['a']._parameters['weight']."""
    source = getattr(node, "_dynamo_source", None)
    name = getattr(source, "name", "")
    # A method in earlier versions of torch.
    return str(name() if callable(name) else name)


def _parameter_at(root: nn.Module, source: str) -> nn.Parameter | None:
    """The parameter of the module that has the name, or None: other inputs, or a function of another module."""
    keys = re.findall(r"\._modules\['([^']+)'\]", source)
    last = re.search(r"\._parameters\['([^']+)'\]$", source)
    try:
        return root.get_parameter(".".join([*keys, last[1]])) if last else None
    except AttributeError:
        return None
