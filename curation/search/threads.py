"""How many threads FAISS uses."""

import faiss


def set_search_threads(threads: int) -> None:
    """Use so many threads for every FAISS search of this process."""
    faiss.omp_set_num_threads(threads)
