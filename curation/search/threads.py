"""How many threads FAISS uses."""

from curation.search.installed import load_faiss


def set_search_threads(threads: int) -> None:
    """Use so many threads for every FAISS search of this process."""
    load_faiss().omp_set_num_threads(threads)
