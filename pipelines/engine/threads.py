"""Fixes the threads of a worker: the order of floating-point sums depends on them, and so does the output."""

import os
import sys


def set_threads(threads: int) -> None:
    """Use so many threads for torch and FAISS in this process, and load neither: that takes seconds.

    What is loaded later reads the environment, as every OpenMP and MKL does, once.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    if faiss := sys.modules.get("faiss"):
        faiss.omp_set_num_threads(threads)
