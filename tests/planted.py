"""Plants copies with known truth among real photographs, for a pool that has none of its own.

    python tests/planted.py --real DIR --out DIR --num 1500 --seed 0

DIR holds `imagenette/{train,val}`, `pool/…` and `mobilenet_embeddings.parquet`. Written are

    OUT/planted/NNNNN.jpg     copies of pool, curated (imagenette/train) and holdout (imagenette/val) images
    OUT/truth.parquet         key, kind, parent_pool (its role), parent_key
    OUT/embeddings.parquet    key, embedding: DIR's vectors, and for every copy its parent's vector

Keys are paths below DIR, and `planted/NNNNN.jpg` for the copies.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# A script's own folder comes first on the path, and tests/pipelines would be taken for the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.demo.edits import EDITS, edit_file
from pipelines.demo.score import TRUTH, Share, copies_found, drops_right, leaks_caught, total

KINDS = ("exact", *EDITS)
ROLES = {"pool/": "uncurated", "imagenette/train/": "curated", "imagenette/val/": "holdout"}
TRUTH_OF_COPIES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("parent_pool", pa.string(), nullable=False),
        pa.field("parent_key", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Measured:
    """How a run dealt with the planted copies."""

    recall: dict[str, Share]  # copies of pool and curated images, by kind
    precision: dict[str, Share]  # of all images dropped as copies, by kind
    precision_all: Share
    leaks: dict[str, Share]  # copies of holdout images that were caught, by kind
    leaks_named: Share


def plant(real: Path, out: Path, *, num: int = 1500, seed: int = 0) -> pa.Table:
    """Write `num` copies, the truth about them and their embeddings below `out`.

    A half of the copies is of pool images, a quarter each of curated and holdout images; no image is
    copied twice, and every kind is planted equally often.

    Returns:
        The truth: schema `TRUTH_OF_COPIES`, one row per copy.
    """
    embeddings = pq.read_table(real / "mobilenet_embeddings.parquet")
    rng = np.random.default_rng(seed)
    parents = _choose_parents(embeddings["key"].to_pylist(), num, rng)
    kinds = [KINDS[index % len(KINDS)] for index in range(num)]
    keys = [f"planted/{index:05d}.jpg" for index in rng.permutation(num)]
    (out / "planted").mkdir(parents=True, exist_ok=True)
    for index, (key, kind, parent) in enumerate(zip(keys, kinds, parents, strict=True)):
        (out / key).write_bytes(_copy(real / parent, kind, np.random.default_rng([seed, index])))
    truth = pa.table(
        {
            "key": keys,
            "kind": kinds,
            "parent_pool": [_role(parent) for parent in parents],
            "parent_key": parents,
        },
        schema=TRUTH_OF_COPIES,
    ).sort_by("key")
    pq.write_table(truth, out / "truth.parquet")
    rows = pc.index_in(truth["parent_key"], value_set=embeddings["key"])
    vectors = embeddings["embedding"].take(rows)
    planted = pa.table({"key": truth["key"], "embedding": vectors}, schema=embeddings.schema)
    pq.write_table(pa.concat_tables([embeddings, planted]), out / "embeddings.parquet")
    return truth


def measure(truth: pa.Table, lineage: pa.Table) -> Measured:
    """Measure a run over the photographs and the planted copies, as `pipelines.demo.score` defines it.

    Args:
        truth: schema `TRUTH_OF_COPIES`; its keys are unique over all pools of the run.
        lineage: schema `curation.schema.LINEAGE`; the run's pools may have any names.
    """
    pools = dict(zip(lineage["key"].to_pylist(), lineage["pool"].to_pylist(), strict=True))
    full = pa.table(
        {
            "pool": [pools[key] for key in truth["key"].to_pylist()],
            "key": truth["key"],
            "concept": pa.nulls(len(truth), pa.string()),
            "kind": truth["kind"],
            "parent_pool": [pools[key] for key in truth["parent_key"].to_pylist()],
            "parent_key": truth["parent_key"],
        },
        schema=TRUTH,
    )
    precision = drops_right(full, lineage)
    leaks, named = leaks_caught(full, lineage)
    return Measured(copies_found(full, lineage), precision, total(precision), leaks, named)


def _choose_parents(keys: list[str], num: int, rng: np.random.Generator) -> list[str]:
    """Distinct keys, in mixed order of role: a half pool, a quarter curated, a quarter holdout."""
    chosen: list[str] = []
    for role, share in (("holdout", 0.25), ("curated", 0.25), ("uncurated", 0.5)):
        candidates = sorted(key for key in keys if _role(key) == role)
        count = round(share * num) if role != "uncurated" else num - len(chosen)
        chosen += rng.choice(candidates, count, replace=False).tolist()
    return [chosen[index] for index in rng.permutation(num)]


def _role(key: str) -> str | None:
    return next((role for prefix, role in ROLES.items() if key.startswith(prefix)), None)


def _copy(path: Path, kind: str, rng: np.random.Generator) -> bytes:
    data = path.read_bytes()
    return data if kind == "exact" else edit_file(data, next(edit for edit in EDITS if edit == kind), rng)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="the photographs")
    parser.add_argument("--out", type=Path, required=True, help="where copies, truth and embeddings go")
    parser.add_argument("--num", type=int, default=1500, help="copies to plant (default: 1500)")
    parser.add_argument("--seed", type=int, default=0, help="decides everything (default: 0)")
    given = parser.parse_args()
    truth = plant(given.real, given.out, num=given.num, seed=given.seed)
    print(f"{len(truth)} copies in {given.out / 'planted'}")


if __name__ == "__main__":
    main()
