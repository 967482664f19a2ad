"""Vectors drawn by lot, in parts of a run, and inner steps of an outcome to cluster them."""

import hashlib
from pathlib import Path

import numpy as np

from curation import storage
from pipelines.engine.inner import InnerSteps
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part
from pipelines.stages.cluster.training_set import Training
from tests.fake_executor import FakeExecutor

DIM = 16


def published(path: Path, array: np.ndarray) -> FileRef:
    storage.write_vectors(path, array)
    data = path.read_bytes()
    return FileRef(str(path), len(data), hashlib.sha256(data).hexdigest())


def train_on(folder: Path, vectors: np.ndarray) -> Training:
    """Two rows of three of `vectors`, which lie in parts of 50."""
    folder.mkdir()
    rows = np.flatnonzero(np.arange(len(vectors)) % 3)
    parts = []
    for number, first in enumerate(range(0, len(vectors), 50)):
        own = vectors[first : first + 50]
        file = published(folder / f"{number}.npy", own)
        parts.append(Part(number, "web", "uncurated", first, len(own), file, embeddings=file))
    counts = [int(((rows >= p.offset) & (rows < p.offset + p.num_rows)).sum()) for p in parts]
    trained_on = published(folder / "rows.npy", rows)
    return Training.on(parts, counts, trained_on)


def inner_of(run_dir: Path, executor: FakeExecutor) -> InnerSteps:
    return InnerSteps(Runner(str(run_dir), executor, Progress(quiet=True)), "steps/outcome/inner")


def unit_vectors(num_rows: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((num_rows, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
