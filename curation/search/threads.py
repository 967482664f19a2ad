"""How many threads FAISS uses."""


def set_search_threads(threads: int) -> None:
    """Use so many threads for every FAISS search of this process."""
    import faiss

    faiss.omp_set_num_threads(threads)
