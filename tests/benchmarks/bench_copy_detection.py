"""How well copies are found: recall and precision of every kind of comparison, by edit and strength.

    python tests/benchmarks/bench_copy_detection.py [--num N] [--others M] [--descriptor SPEC=MIN] …

N photographs are edited in eight ways at three strengths; every copy is compared with every original and with
M photographs that were not edited (the PCA hash is fitted on all of these). Recall is the share of copies
that are linked to their own original, precision the share of the links of such copies that lead there.
`pHash` is what a run does: hashes where they know enough, pixels where not; `every pHash` would believe all.
A table comes first, then one JSON line. What people took for near duplicates (cifar10_pairs), and what
another tool made of a photograph (pdq_edits), is counted likewise.

A descriptor is any spec of describe.descriptor, with the cosine that makes a link and, after a comma, the
side of the model's input: `--descriptor gist=0.95 --descriptor sscd:FILE=0.75,64`. With `auto` for the cosine
it is the score that one pair in 100,000 of the photographs that were not edited reaches.
"""

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from graded_edits import STRENGTHS, graded_edit

from curation.dedup.pca_hash import fit_pca_hash, pca_hash
from curation.describe.describe import DescribeConfig, Described, describe
from curation.describe.embed import EmbedConfig, Embedder
from curation.describe.phash import MIN_CERTAIN_BITS
from curation.search.binary import hamming_pairs
from curation.search.exact import cosine_pairs
from curation.search.miniatures import LEAST_SCORE, miniature_scores
from pipelines.demo.edits import EDITS
from pipelines.models.embedders import load_embedder
from pipelines.models.identity import resolve

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
SUMMED = ("all", "cifar10_pairs", "pdq_edits")
POOLS = ("pool/photos", "pool/pets", "pool/posters", "imagenette/train")


@dataclass(frozen=True)
class Collection:
    """Pictures with hashes and, by spec, descriptors."""

    phash: np.ndarray
    certain_bits: np.ndarray
    miniatures: list[bytes | None]
    descriptors: dict[str, np.ndarray]


@dataclass(frozen=True)
class Detector:
    """A name, and the links that it sees between the pictures of two collections (rows, columns)."""

    name: str
    in_a_run: bool  # a part of the union
    links: Callable[[Collection, Collection], tuple[np.ndarray, np.ndarray]]


def main() -> None:
    """Measure, and print the table and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--real", type=Path, default=REAL, help="photographs: pool/…, imagenette/…, neardup/…"
    )
    parser.add_argument("--num", type=int, default=300)
    parser.add_argument("--others", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--descriptor", action="append", metavar="SPEC=COSINE", help="default: gist=0.95")
    parser.add_argument("--phash-radius", type=int, default=6)
    parser.add_argument("--pca-radius", type=int, default=8)
    given = parser.parse_args()
    if not given.real.is_dir():
        print(json.dumps({"what": "copy detection", "skipped": f"no photographs at {given.real}"}))
        return
    start = time.perf_counter()
    asked = dict(_descriptor(text) for text in given.descriptor or ["gist=0.95"])
    models = {
        spec: load_embedder(resolve(EmbedConfig(embedder=spec, image_size_px=side)), threads=2)
        for spec, (_, side) in asked.items()
    }
    files = _choose(given.real, given.num + given.others, seed=given.seed)
    originals = _collect([file.read_bytes() for file in files], models)
    thresholds = {
        spec: _rare_score(originals.descriptors[spec]) if cosine is None else cosine
        for spec, (cosine, _) in asked.items()
    }
    detectors = _detectors(given, thresholds, originals)
    rows = []
    for kind in EDITS:
        for strength in STRENGTHS:
            rng = np.random.default_rng([given.seed, EDITS.index(kind), STRENGTHS.index(strength)])
            data = [graded_edit(_open(file), kind, strength, rng) for file in files[: given.num]]
            copies = _collect(data, models)
            rows.append((f"{kind} {strength}", _score(detectors, copies, originals)))
    rows.append(("all", _total(rows)))
    rows += _others(given.real / "neardup", detectors, models)
    _print_table([detector.name for detector in detectors] + ["union"], rows)
    line = {
        "what": "copies found by edit and strength: recall, precision",
        "size": {"copies": 24 * given.num, "originals": len(files), **thresholds}
        | {"phash_radius": given.phash_radius, "pca_radius": given.pca_radius},
        "found": {name: _rounded(scores) for name, scores in rows if name in SUMMED},
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(line))


def _rounded(scores: dict[str, "Score"]) -> dict[str, list[float]]:
    return {name: [round(share, 4) for share in score.shares] for name, score in scores.items()}


def _descriptor(text: str) -> tuple[str, tuple[float | None, int | None]]:
    spec, _, rest = text.rpartition("=")
    cosine, _, side_px = rest.partition(",")
    return spec, (None if cosine == "auto" else float(cosine), int(side_px) if side_px else None)


def _rare_score(vectors: np.ndarray) -> float:
    """The score that one pair of these in 100,000 reaches."""
    scores = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    return round(float(np.quantile(scores[np.triu_indices(len(scores), 1)], 1 - 1e-5)), 4)


def _choose(real: Path, num: int, *, seed: int) -> list[Path]:
    files = [file for pool in POOLS for file in sorted((real / pool).rglob("*")) if file.is_file()]
    chosen = np.random.default_rng(seed).choice(len(files), num, replace=False)
    return [files[i] for i in chosen]


def _open(file: Path) -> Image.Image:
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        return image.convert("RGB")


def _collect(data: Sequence[bytes], models: dict[str, Embedder]) -> Collection:
    """Describe pictures as a run does, by each model."""
    found: dict[str, Described] = {
        spec: describe(len(data), data.__getitem__, embedder=None, descriptor=model, config=DescribeConfig())
        for spec, model in models.items()
    }
    table = next(iter(found.values())).table
    hashes, bits = table["phash"].to_numpy(), table["certain_bits"].to_numpy()
    vectors = {spec: each.descriptors for spec, each in found.items() if each.descriptors is not None}
    return Collection(hashes, bits, table["miniature"].to_pylist(), vectors)


def _detectors(
    given: argparse.Namespace, thresholds: dict[str, float], originals: Collection
) -> list[Detector]:
    def phash(a: Collection, b: Collection) -> tuple[np.ndarray, np.ndarray]:
        return _near(a.phash, b.phash, radius=given.phash_radius)

    def believed(a: Collection, b: Collection) -> tuple[np.ndarray, np.ndarray]:
        by_hash, by_pixels = _near_where_known(a, b, radius=given.phash_radius), _equal_pixels(a, b)
        rows, columns = (np.concatenate(ends) for ends in zip(by_hash, by_pixels, strict=True))
        return rows, columns

    detectors = [Detector("every pHash", False, phash), Detector("pHash", True, believed)]
    for spec, threshold in thresholds.items():
        fitted = fit_pca_hash(originals.descriptors[spec])
        name = spec.partition(":")[0]

        def hashes(a: Collection, b: Collection, spec=spec, fitted=fitted) -> tuple[np.ndarray, np.ndarray]:
            codes = (pca_hash(x.descriptors[spec], fitted) for x in (a, b))
            return _near(*codes, radius=given.pca_radius)

        def cosines(
            a: Collection, b: Collection, spec=spec, least=threshold
        ) -> tuple[np.ndarray, np.ndarray]:
            pairs = cosine_pairs(a.descriptors[spec], b.descriptors[spec], threshold=least, same=False)
            return pairs.a, pairs.b

        detectors += [Detector(f"PCA({name})", True, hashes), Detector(name, True, cosines)]
    return detectors


def _near_where_known(a: Collection, b: Collection, *, radius: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = (np.flatnonzero(side.certain_bits >= MIN_CERTAIN_BITS) for side in (a, b))
    i, j = _near(a.phash[rows], b.phash[columns], radius=radius)
    return rows[i], columns[j]


def _equal_pixels(a: Collection, b: Collection) -> tuple[np.ndarray, np.ndarray]:
    """Every pair, one by one: there are few pictures with a miniature."""
    sides = [[i for i, data in enumerate(side.miniatures) if data is not None] for side in (a, b)]
    pairs = np.array(list(product(*sides)), np.int64).reshape(-1, 2)
    if not len(pairs):
        return pairs[:, 0], pairs[:, 1]
    left, right = (
        np.stack([np.frombuffer(side.miniatures[i] or b"", np.uint8) for i in ends.tolist()])
        for side, ends in zip((a, b), pairs.T, strict=True)
    )
    alike = miniature_scores(left, right) >= LEAST_SCORE
    return pairs[alike, 0], pairs[alike, 1]


def _near(a: np.ndarray, b: np.ndarray, *, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pair within the radius, equal ones too: the join of a run links one for all that are equal."""
    distinct, of = np.unique(b, return_inverse=True)
    pairs = hamming_pairs(a, distinct, radius=radius, same=False, every_a=True)
    members = [np.flatnonzero(of == code) for code in range(len(distinct))]
    rows = np.repeat(pairs.a, [len(members[code]) for code in pairs.b])
    return rows, np.concatenate([np.zeros(0, np.int64), *(members[code] for code in pairs.b)])


@dataclass(frozen=True)
class Score:
    """Copies found of those there are, and right links of those seen."""

    found: int
    copies: int
    right: int
    links: int

    @property
    def shares(self) -> tuple[float, float]:
        """Recall, and precision (1 where nothing was linked)."""
        return self.found / max(self.copies, 1), self.right / self.links if self.links else 1.0


def _score(detectors: list[Detector], copies: Collection, originals: Collection) -> dict[str, Score]:
    """Copy i is of original i."""
    union = np.zeros((len(copies.phash), len(originals.phash)), bool)
    scores = {}
    for detector in detectors:
        seen = np.zeros_like(union)
        seen[detector.links(copies, originals)] = True
        union |= seen & detector.in_a_run
        scores[detector.name] = _count(seen)
    return scores | {"union": _count(union)}


def _count(seen: np.ndarray) -> Score:
    right = int(np.diagonal(seen).sum())
    return Score(right, len(seen), right, int(seen.sum()))


def _total(rows: list[tuple[str, dict[str, Score]]]) -> dict[str, Score]:
    return {
        name: Score(*(sum(x) for x in zip(*(vars(scores[name]).values() for _, scores in rows), strict=True)))
        for name in rows[0][1]
    }


def _others(
    folder: Path, detectors: list[Detector], models: dict[str, Embedder]
) -> list[tuple[str, dict[str, Score]]]:
    """What people judged to be near duplicates, and one photograph edited by other tools."""
    with (folder / "cifar10_pairs.csv").open() as stream:
        judged = [(row["test_file"], row["other_file"]) for row in csv.DictReader(stream)]
    names = sorted({name for pair in judged for name in pair})
    place = {name: i for i, name in enumerate(names)}
    pairs = {frozenset((place[a], place[b])) for a, b in judged}
    cifar = _collect([(folder / "cifar10_pairs" / name).read_bytes() for name in names], models)
    edits = sorted((folder / "pdq_edits").iterdir())  # the original comes first
    pdq = _collect([file.read_bytes() for file in edits], models)
    star = {frozenset((0, i)) for i in range(1, len(edits))}
    return [
        ("cifar10_pairs", _among(detectors, cifar, pairs, others_are_right=False)),
        ("pdq_edits", _among(detectors, pdq, star, others_are_right=True)),
    ]


def _among(
    detectors: list[Detector], pictures: Collection, pairs: set[frozenset[int]], *, others_are_right: bool
) -> dict[str, Score]:
    union: set[frozenset[int]] = set()
    scores = {}

    def count(seen: set[frozenset[int]]) -> Score:
        right = len(seen) if others_are_right else len(seen & pairs)
        return Score(len(seen & pairs), len(pairs), right, len(seen))

    for detector in detectors:
        ends = zip(*(x.tolist() for x in detector.links(pictures, pictures)), strict=True)
        seen = {frozenset(pair) for pair in ends if pair[0] != pair[1]}
        union |= seen if detector.in_a_run else set()
        scores[detector.name] = count(seen)
    return scores | {"union": count(union)}


def _print_table(names: list[str], rows: list[tuple[str, dict[str, Score]]]) -> None:
    width = max(len(name) for name, _ in rows)
    print(f"{'recall | precision, %':<{width}}" + "".join(f"{name:>16}" for name in names))
    for title, scores in rows:
        cells = [f"{100 * r:7.1f} |{100 * p:6.1f}" for r, p in (scores[name].shares for name in names)]
        print(f"{title:<{width}}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
