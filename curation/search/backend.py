"""What an exact search runs on, as a user says it. Apart from the code, which takes seconds to import."""

from typing import Literal

Backend = Literal["torch", "faiss", "cuda"]  # the first two on cores, cuda on a GPU
