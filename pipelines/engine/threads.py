"""Fixes the threads of a worker: the order of floating-point sums depends on them, and so does the output."""


def set_threads(threads: int) -> None:
    """Use so many threads for torch and FAISS in this process."""
    import torch

    from curation.search.installed import set_search_threads

    torch.set_num_threads(threads)
    set_search_threads(threads)
