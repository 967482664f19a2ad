"""Work on many vectors, block by block, each block by one thread on one core from end to end.

What one step of the work leaves in the cache the next one finds there, and NumPy's single-threaded steps cost
no idle core. Threads that share each product instead wait for one another at each of its steps; where other
work takes a core away for a moment, all of them wait.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice

import numpy as np
import torch
from jaxtyping import Float16

from curation.search.installed import set_search_threads

# Called with the place of a block's rows, counted over all arrays, and its vectors.
BlockWork = Callable[[slice, Float16[np.ndarray, "b d"]], None]

# With 512 rows an iteration of 1,000 clusters takes a fifth longer (calls), with more memory grows.
BLOCK_ROWS = 2048


def for_each_block(arrays: Iterable[Float16[np.ndarray, "_ d"]], make_work: Callable[[], BlockWork]) -> None:
    """Work on blocks of rows, on as many threads as torch is set to use; a single block stays on this one.

    Args:
        arrays: of vectors; the next one is asked for once the one before is handed out.
        make_work: called once a thread; what it returns gets that thread's blocks, in no fixed order.
    """
    blocks = _blocks(arrays)
    first = list(islice(blocks, 2))
    blocks = chain(first, blocks)
    lock = threading.Lock()

    def take() -> tuple[slice, Float16[np.ndarray, "b d"]] | None:
        with lock:
            return next(blocks, None)

    def run() -> None:
        block = take()
        work = make_work() if block is not None else None
        while block is not None and work is not None:
            work(*block)
            block = take()

    num_threads = torch.get_num_threads()
    if num_threads == 1 or len(first) < 2:
        run()
    else:
        _on_threads(run, num_threads)


def _on_threads(run: Callable[[], None], num_threads: int) -> None:
    try:
        with ThreadPoolExecutor(num_threads, initializer=_use_one_core) as pool:
            for done in [pool.submit(run) for _ in range(num_threads)]:
                done.result()
    finally:
        torch.set_num_threads(num_threads)  # torch gives to new threads what any thread has set last


def _use_one_core() -> None:
    torch.set_num_threads(1)
    set_search_threads(1)


def _blocks(
    arrays: Iterable[Float16[np.ndarray, "_ d"]],
) -> Iterator[tuple[slice, Float16[np.ndarray, "b d"]]]:
    offset = 0
    for vectors in arrays:
        for start in range(0, len(vectors), BLOCK_ROWS):
            block = vectors[start : start + BLOCK_ROWS]
            yield slice(offset + start, offset + start + len(block)), block
        offset += len(vectors)
