"""Fixtures for the tests of the core."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist


@pytest.fixture
def process_group() -> Iterator[None]:
    """One process, over gloo."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def compiler() -> Iterator[None]:
    """Without the graphs of other tests."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
