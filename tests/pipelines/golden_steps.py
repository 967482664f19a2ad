"""Two small runs that reach every step, and what each step put out when the goldens were written.

`python -m tests.pipelines.golden_steps` writes `golden_steps.json` anew.

Nothing in it tells of the machine: the pictures are drawn, the times of their files are set, and the runs lie
under a path of one length.
"""

import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import save_file

from pipelines.config.read import apply_override
from pipelines.config.run_config import RunConfig, validate
from pipelines.demo.web import demo_config, draw_web
from pipelines.engine.digest import narrowed
from pipelines.engine.local import LocalExecutor
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Outcomes
from pipelines.engine.step import AnyItem, AnyStep, FileRef, Receipt
from pipelines.run import run
from pipelines.stages.cluster import level, seeding
from pipelines.stages.retrieve import retrieve
from tests.pipelines.fingerprints import Fingerprint, StepOutput, column_name, columns_of, fingerprint

GOLDENS = Path(__file__).with_suffix(".json")
PATH_LENGTH = 120  # of the folder of everything: paths stand in shards, whose sizes stand in tables
WRITTEN = 1_700_000_000  # when all files were, in seconds
DIM = 8  # of the vectors that heads look at
OPAQUE = {
    ("ingest", "facts staged"),  # a hash of identities, in which paths count
    ("retrieve_index", "index.npy"),  # FAISS's own bytes, floats among them: what it finds counts
    ("shard", "N.parquet num_bytes"),  # a score's digits stand in a sample's JSON
}

AT_ONCE = (
    "ingest.part_rows=40",
    "describe.decode_threads=1",
    "executor.kind=local",
    "dedup.pca_radius=6",
    "decontaminate.pca_radius=4",
    "cluster.num_clusters=8",
    "hierarchy={splits: 5, levels: [{num_clusters: 2}], resampling_steps: 2, iterations: 5}",
    "select.balanced={num_images: 60}",
    "shard.max_samples=30",
    "shard.bucket_bytes=500000",
)
# Of another seed: what one run has clustered the other would find.
IN_STEPS = (
    *AT_ONCE,
    "seed=1",
    "dedup.search=cells",
    "cluster.group_rows=16",
    "pools.trusted.retrieve.search=ivf",
    "pools.trusted.retrieve.ivf={codes: flat, num_lists: 6, num_probes: 6, shard_rows: 50}",
    "pools.again.retrieve={method: sample, neighbours: 2}",
)
# What makes work of this size large enough for steps of its own.
LARGE_FROM = (
    (seeding, "MANY_ROWS", 0),
    (seeding, "GROUP_ROWS", 40),
    (level, "POINT_ROWS", 15),
    (retrieve, "TARGET_ROWS", 50),
)


@dataclass
class Recorded:
    """What one step has read and put out, by file and column, in the order of its items."""

    version: int
    reads: set[str] = field(default_factory=set)
    values: dict[str, list[Any]] = field(default_factory=dict)
    kinds: set[tuple[type, type]] = field(default_factory=set)  # of settings and task

    def output(self, root: str) -> StepOutput:
        """Its fingerprints."""
        columns = {name: fingerprint(self.values[name], root=root) for name in sorted(self.values)}
        return StepOutput(self.version, tuple(sorted(self.reads)), columns)


class Recorder:
    """Stands between runs and their executor."""

    def __init__(self) -> None:
        self.steps: dict[str, Recorded] = {}
        self._makers: dict[
            str, str
        ] = {}  # the step that made a file, by the hash of its bytes; of several, the last

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Note what is done on the local executor, the steps that are forgotten later on among it."""
        run_items = LocalExecutor.run

        def noted(executor: LocalExecutor, step: AnyStep, items: Sequence[AnyItem], run_dir: str) -> Outcomes:
            for position, receipt in run_items(executor, step, items, run_dir):
                assert isinstance(receipt, Receipt)
                self._note(step, items[position], receipt, run_dir)
                yield position, receipt

        with patch.object(LocalExecutor, "run", noted):
            yield

    def _note(self, step: AnyStep, item: AnyItem, receipt: Receipt, run_dir: str) -> None:
        found = self.steps.setdefault(step.name, Recorded(step.version))
        found.kinds.add((type(step.settings), type(item.task)))
        makers = {self._makers[sha256] for sha256 in _hashes(narrowed(item.task))}
        found.reads |= makers - {step.name}
        for name, fact in receipt.facts.items():
            self._add(step, column_name("facts", name), fact)
        for name in sorted(receipt.files):
            file = receipt.file(run_dir, name)
            self._makers[file.sha256] = step.name
            for column, values in columns_of(Path(file.path)).items():
                self._add(step, column_name(name, column), [name, values])

    def _add(self, step: AnyStep, column: str, values: Any) -> None:
        if (step.name, column) not in OPAQUE:
            self.steps[step.name].values.setdefault(column, []).append(values)


def _hashes(value: object) -> set[str]:
    """The hashes of all files that a task names."""
    match value:
        case FileRef():
            return {value.sha256}
        case dict():
            return _hashes(list(value.values()))
        case list() | tuple():
            return set().union(*map(_hashes, value))
    if is_dataclass(value):
        return _hashes([getattr(value, one.name) for one in fields(value)])
    return set()


def record(folder: Path) -> tuple[dict[str, StepOutput], set[tuple[type, type]]]:
    """Run twice in a folder, with large work at once and in steps.

    Returns:
        What every step put out, and the classes of settings and task that were met.
    """
    root = folder / "x".ljust(PATH_LENGTH - len(str(folder)) - 1, "-")
    assert len(str(root)) == PATH_LENGTH, f"{folder} is too long a path"
    draw(root)
    recorder = Recorder()
    with recorder.recording(), ExitStack() as patched:
        run(config_of(root, AT_ONCE), progress=Progress(quiet=True))
        for module, name, value in LARGE_FROM:
            patched.enter_context(patch.object(module, name, value))
        run(config_of(root, IN_STEPS), progress=Progress(quiet=True))
    outputs = {name: recorded.output(str(root)) for name, recorded in recorder.steps.items()}
    return outputs, set().union(*(recorded.kinds for recorded in recorder.steps.values()))


def draw(root: Path) -> None:
    """The demo's web, flat pictures, some more in a table, and a head with its vectors."""
    truth = draw_web(root, seed=1, num_images=20)
    for folder in ("uncurated/sites", "holdout"):
        for side_px in (64, 80):
            Image.new("RGB", (side_px, side_px), (200, 30, 30)).save(root / folder / f"flat-{side_px}.png")
    rng = np.random.default_rng(2)
    keys = [f"row-{number}" for number in range(12)]
    pictures = [_png(rng.integers(0, 256, (4, 4, 3), np.uint8)) for _ in keys]
    pq.write_table(pa.table({"image": pictures, "key": keys}), root / "table.parquet")
    vectors = rng.standard_normal((truth.num_rows, DIM)).astype(np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    pq.write_table(truth.select(["pool", "key"]).append_column("embedding", flat), root / "vectors.parquet")
    head = {"weight": rng.standard_normal((1, DIM)).astype(np.float32), "bias": np.zeros(1, np.float32)}
    save_file(head, root / "head.safetensors")
    for path in root.rglob("*"):
        os.utime(path, (WRITTEN, WRITTEN))


def _png(coarse: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def config_of(root: Path, overrides: Sequence[str]) -> RunConfig:
    """A run over what was drawn."""
    data = demo_config(root, root / "run")
    data["pools"]["web"]["sources"].append({"kind": "parquet", "path": str(root / "table.parquet")})
    data["pools"]["again"] = {
        "role": "curated",
        "sources": [{"kind": "folder", "path": str(root / "curated"), "key_prefix": "again/"}],
        "include": False,
        "retrieve": {"method": "cluster", "min_seed_hits": 1, "per_cluster": 3},
    }
    data["describe"]["heads"] = {
        "embedder": f"precomputed:{root / 'vectors.parquet'}",
        "aesthetic": {"kind": "weights", "weights": str(root / "head.safetensors"), "form": "linear"},
    }
    for override in overrides:
        apply_override(data, override)
    return validate(data, where="the goldens' config")


def read_goldens() -> dict[str, StepOutput]:
    """What the steps put out when the goldens were written."""
    found = {}
    for name, one in json.loads(GOLDENS.read_text()).items():
        columns = {
            column: Fingerprint(exact, tuple(floats)) for column, (exact, *floats) in one["columns"].items()
        }
        found[name] = StepOutput(one["version"], tuple(one["reads"]), columns)
    return found


def write_goldens(outputs: dict[str, StepOutput]) -> None:
    """Write them, a line for each column."""
    steps = {}
    for name, output in sorted(outputs.items()):
        columns = {column: [one.exact, *one.floats] for column, one in output.columns.items()}
        lines = ",\n".join(f"   {json.dumps(column)}: {json.dumps(one)}" for column, one in columns.items())
        head = f'  "version": {output.version},\n  "reads": {json.dumps(output.reads)},\n'
        steps[name] = f'{{\n{head}  "columns": {{\n{lines}\n  }}\n }}'
    text = ",\n".join(f" {json.dumps(name)}: {step}" for name, step in steps.items())
    GOLDENS.write_text(f"{{\n{text}\n}}\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        write_goldens(record(Path(scratch))[0])
