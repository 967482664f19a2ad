"""Where an exact search runs, as a user says it. Apart from the code, which is slow to import."""

from typing import Literal

Device = Literal["cpu", "cuda"]
Backend = Literal["torch", "faiss", "cuda"]  # the first two on cores, cuda on a GPU
