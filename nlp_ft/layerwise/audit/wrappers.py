"""The check of DistributedDataParallel, which looks at `requires_grad` only once, in its constructor.

The check reads a private attribute of torch; in a version of torch without it, the check reports that it cannot tell.
"""

from collections.abc import Iterator

from torch.nn.parallel import DistributedDataParallel

from nlp_ft.layerwise.audit.setup import CannotTell, Finding, TrainingSetup, counted


def stale_ddp_wrapper(setup: TrainingSetup) -> Iterator[Finding]:
    """Find a DistributedDataParallel that was made before the last change of the trainable parameters.

    Its reducer lists the parameters with `requires_grad` once, when the wrapper is made. The check reads that list from
    the reducer's buckets, for which torch makes zeros of the gradients' size for a moment.
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
    """Return the `id` of each parameter whose gradient is averaged. Raises `CannotTell` if torch does not show them."""
    try:
        buckets = wrapper.reducer._get_zeros_like_grad_buckets()
    except (AttributeError, RuntimeError):
        # Another version of torch, or sparse gradients, for which torch 2.15 fails to make buckets.
        raise CannotTell("torch does not show what this DistributedDataParallel averages") from None
    return {id(parameter) for bucket in buckets for parameter in bucket.parameters()}
