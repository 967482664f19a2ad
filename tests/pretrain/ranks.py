"""Several ranks on this machine, as torchrun would start them."""

import contextlib
import multiprocessing
import os
import random
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch

TIMEOUT_S = 120.0


def run_ranks(
    job: Callable[..., Any], size: int, *arguments: Any, timeout_s: float = TIMEOUT_S, may_die: bool = False
) -> list[Any]:
    """Call a function of a module on `size` processes that find one another; its results, by rank.

    No process is left behind, whatever happens. With `may_die`, the result of a rank that did is None, or a
    text.
    """
    start_server()
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        files = [Path(folder) / f"{rank}.pt" for rank in range(size)]
        processes = [
            context.Process(target=_work, args=(job, arguments, _Rank(rank, size, port), str(file)))
            for rank, file in enumerate(files)
        ]
        try:
            for process in processes:
                process.start()
            _wait(processes, time.monotonic() + timeout_s)
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()
        found = [torch.load(file, weights_only=False) if file.exists() else None for file in files]
    if may_die:
        return found
    faults = [text for text in found if isinstance(text, _Fault)] + [
        _Fault(f"rank {rank} ended with nothing") for rank, text in enumerate(found) if text is None
    ]
    if faults:
        raise AssertionError("\n\n".join(faults))
    return found


def start_server() -> None:
    """Let a server import the trainer once; ranks and loader workers are then forked from it in no time.

    `torch._dynamo` is what torch imports when the first optimiser is made, and takes longer than the rest.
    """
    multiprocessing.set_forkserver_preload(["torch._dynamo", "pretrain.train", "pytest"])
    forkserver.ensure_running()


def children_of_server(timeout_s: float = 20.0) -> list[int]:
    """The processes forked by the server that still run, once they were given time to end."""
    end = time.monotonic() + timeout_s
    while (left := _children_of(forkserver._forkserver._forkserver_pid)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def _children_of(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, of = stat.read_text().rpartition(")")[2].split()[:2]
            if int(of) == parent and state != "Z":
                found.append(int(stat.parent.name))
    return found


class _Fault(str):
    """What went wrong in a rank."""


def _wait(processes: list[Any], end: float) -> None:
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        if process.exitcode is None:
            raise AssertionError("a rank takes too long")
        if process.exitcode:
            return  # the others may wait for it forever


@dataclass(frozen=True)
class _Rank:
    number: int
    size: int
    port: int


def _work(job: Callable[..., Any], arguments: tuple[Any, ...], rank: _Rank, file: str) -> None:
    torch.set_num_threads(1)
    # Loader workers come from the same server: one of a rank's own would import everything anew.
    forkserver._forkserver.ensure_running = lambda: None
    os.environ |= {
        "RANK": str(rank.number),
        "LOCAL_RANK": str(rank.number),
        "WORLD_SIZE": str(rank.size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(rank.port),
    }
    try:
        result = job(*arguments)
    except BaseException:
        torch.save(_Fault(f"rank {rank.number}:\n{traceback.format_exc()}"), file)
        raise SystemExit(1) from None
    torch.save(result, file)


def free_port() -> int:
    """A port of the loopback device that nobody listens on.

    It lies below those that the kernel hands out (from 32,768 on): of these, one that is free now may be a
    connection's by the time that a rank listens.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
