"""Fresh processes that talk over gloo, forked from one that has imported everything: an import takes seconds."""

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["datasets", "lightning.pytorch", "tests.integrations.lightning_runs", "tests.integrations.hf_runs"]
)


def in_processes(num_processes: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work` gives in each process, by rank; the exit code (-9 for a kill) where it gave nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(num_processes):
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_work, args=(rank, num_processes, port, sender, work, arguments))
        process.start()
        sender.close()
        started.append((process, receiver))
    return [_result(process, receiver) for process, receiver in started]


def _result(process: Any, receiver: Connection) -> Any:
    try:
        result = pickle.loads(receiver.recv_bytes())  # noqa: S301 - from our own child
    except EOFError:
        result = None
    process.join()
    return result if process.exitcode == 0 else process.exitcode


def _work(
    rank: int, num_processes: int, port: int, sender: Connection, work: Callable[..., Any], arguments: Any
) -> None:
    if num_processes > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(num_processes),
            LOCAL_WORLD_SIZE=str(num_processes),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    # Not send(): its pickler would hand tensors over as files of a process that is gone by then.
    sender.send_bytes(pickle.dumps(work(*arguments)))
    sender.close()
