"""shard: the bytes of selected images, read once part by part, shuffled in buckets, written as tars."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import IO, Any

import numpy as np
import pyarrow as pa

from curation import storage
from curation.describe.decode import DecodeConfig
from curation.ingest.problems import Problem, Unread
from curation.ingest.rows import has_changed, read_sample, read_sidecars, sample_ranges
from curation.read_ahead import ReadAhead
from curation.schema import image_id
from curation.select import CURATED, SAMPLED
from curation.shard.layout import ShardConfig, cut_shards, lead_with_typical, plan_buckets, shuffle_order
from curation.shard.sample import Sample, sample_bytes
from curation.shard.write import write_shard
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Receipt, Step, Work, digest_of
from pipelines.rows.parts import Part, as_numpy, column, read, read_array, row_table
from pipelines.rows.staged import prove_staged
from pipelines.stages.cluster.cluster import Clusters
from pipelines.stages.retrieve.select import Outcomes, origin_of
from pipelines.stages.shard.edit_sample import edited, faces_by_row

EXTENSIONS = {
    "JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "AVIF": "avif",
}  # fmt: skip
# Why a selected image is in no shard.
CHANGED, UNREADABLE = range(2)
OPTIONAL_META = ("by_key", "score", "cluster")


@dataclass(frozen=True)
class Bucket:
    """What one worker wrote: shards in order, each with its index, and where every row went."""

    shards: tuple[FileRef, ...]
    indexes: tuple[FileRef, ...]
    num_samples: tuple[int, ...]
    placed: FileRef  # row, shard within the bucket, position; shard -1: lost, position says why


def shard(
    runner: Runner,
    config: RunConfig,
    parts: Sequence[Part],
    *,
    clusters: Clusters,
    outcomes: Outcomes,
    refresh: bool,
) -> list[Bucket]:
    """Write the dataset's shards, bucket by bucket; `refresh` tries again where images were lost."""
    selected = _selected(outcomes)
    part_bytes = [_bytes_of(part, _within(part, selected)) for part in parts]
    buckets = plan_buckets(
        [part.number for part in parts], part_bytes, seed=config.seed, bucket_bytes=config.shard.bucket_bytes
    )
    settings = config.shard.model_dump(mode="json", exclude={"bucket_bytes"})
    settings |= {"seed": config.seed, "decode": config.describe.decode.model_dump(mode="json")}
    load = partial(_load, config.shard, config.seed, config.describe.decode)
    step = Step("shard", 2, settings, load, "task", "shard")
    shared = {"parts": tuple(parts), "clusters": clusters, "outcomes": outcomes}
    # A sample names the key of the image that caused it, and that one may lie in any part.
    keys = digest_of([part.digest("images") for part in parts])
    read_of = ("described", "faces") if config.shard.blur_faces is not None else ("described",)
    items = [
        Item(
            (outcomes.digest, clusters.digest, keys, *(parts[i].digest(*read_of) for i in bucket)),
            {**shared, "bucket": bucket},
        )
        for bucket in buckets
    ]
    items = [
        runner.newest(step, item, again=lambda receipt: refresh and _may_mend(receipt)) for item in items
    ]
    return [_bucket(receipt, runner.run_dir) for receipt in runner.run(step, items)]


def _may_mend(receipt: Receipt) -> bool:
    """Whether a bucket lost what another try may bring back."""
    return receipt.facts["num_lost"] > 0 or bool(receipt.facts["unread"])


def _selected(outcomes: Outcomes) -> np.ndarray:
    outcome = read_array(outcomes.outcome)
    return np.flatnonzero((outcome >= CURATED) & (outcome <= SAMPLED))


def _within(part: Part, rows: np.ndarray) -> np.ndarray:
    start, stop = np.searchsorted(rows, [part.offset, part.offset + part.num_rows])
    return rows[start:stop]


def _bytes_of(part: Part, rows: np.ndarray) -> int:
    """What some rows of a part take in a shard, about: one part at a time, as the driver asks for all."""
    if not len(rows):
        return 0
    sizes = as_numpy(column([part], "described", "num_bytes"), null=0)
    return int(sizes[rows - part.offset].sum()) + len(rows)


def _bucket(receipt: Any, run_dir: str) -> Bucket:
    numbers = range(receipt.facts["num_shards"])
    return Bucket(
        tuple(receipt.file(run_dir, f"{i:06d}.tar") for i in numbers),
        tuple(receipt.file(run_dir, f"{i:06d}.parquet") for i in numbers),
        tuple(receipt.facts["num_samples"]),
        receipt.file(run_dir, "placed.parquet"),
    )


@dataclass(frozen=True)
class _Spooled:
    """A sample whose bytes wait in the spool; `sample` has none."""

    row: int
    sample: Sample
    offset: int
    lengths: tuple[int, ...]  # of the image, then of each sidecar
    size_bytes: int  # in a tar


def _load(config: ShardConfig, seed: int, decoding: DecodeConfig) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        lost: dict[int, int] = {}
        unread: list[Problem] = []
        # Unlinked at once: nothing to clean up, whatever happens.
        with tempfile.TemporaryFile(dir=attempt.out) as spool:
            waiting: list[_Spooled] = []
            for row, sample in _samples(attempt, config, decoding, lost, unread):
                waiting.append(_spool(spool, row, sample))
                attempt.tell(len(waiting))
            ids = np.frombuffer(bytes.fromhex("".join(w.sample.key for w in waiting)), np.uint8).reshape(
                -1, 16
            )
            ordered = [waiting[i] for i in shuffle_order(seed, ids)]
            cuts = cut_shards(np.array([w.size_bytes for w in ordered], np.int64), config)
            placed = [(row, -1, why) for row, why in lost.items()]
            for number, (start, stop) in enumerate(cuts):
                group = _lead(ordered[start:stop])
                _write(attempt, number, group, spool)
                placed += [(w.row, number, position) for position, w in enumerate(group)]
        rows, shards, positions = np.array(sorted(placed), np.int64).reshape(-1, 3).T
        table = pa.table(
            {"row": rows, "shard": shards.astype(np.int32), "position": positions.astype(np.int32)}
        )
        storage.write_table(attempt.out / "placed.parquet", table)
        num_samples = [stop - start for start, stop in cuts]
        return {
            "num_shards": len(cuts),
            "num_samples": num_samples,
            "num_rows": len(rows),
            "num_lost": len(lost),
            "unread": [asdict(problem) for problem in unread],
        }

    return work


def _samples(
    attempt: Attempt,
    config: ShardConfig,
    decoding: DecodeConfig,
    lost: dict[int, int],
    unread: list[Problem],
) -> Iterator[tuple[int, Sample]]:
    """The samples of a bucket, each part read once in the order of its bytes; notes what is missing."""
    parts: tuple[Part, ...] = attempt.payload["parts"]
    selected = _selected(attempt.payload["outcomes"])
    for number in attempt.payload["bucket"]:
        rows = _within(parts[number], selected)
        metas = _metas(attempt, parts, parts[number], rows)
        local = pa.array(rows - parts[number].offset)
        chosen = read(parts[number].images).take(local)
        prove_staged(chosen)
        images = chosen.to_pylist()
        described = read(parts[number].described, ["sha256", "format"]).take(local).to_pylist()
        faces = faces_by_row(parts[number]) if config.blur_faces is not None else {}
        order = sorted(range(len(rows)), key=lambda i: (images[i]["path"], images[i]["offset"]))
        to_read = (one for i in order for one in sample_ranges(images[i]))
        with ReadAhead(to_read) as reader:
            for i in order:
                try:
                    data = read_sample(reader, images[i])
                except OSError as error:
                    lost[int(rows[i])] = CHANGED if has_changed(error) else UNREADABLE
                    continue
                if hashlib.sha256(data).digest() != described[i]["sha256"]:
                    lost[int(rows[i])] = CHANGED
                    continue
                kind = described[i]["format"]
                without: list[tuple[str, OSError]] = []
                sidecars = read_sidecars(reader, images[i], lost=without)
                unread += [_without_sidecar(path, error) for path, error in without]
                sample = Sample(metas[i]["image_id"], EXTENSIONS[kind], data, metas[i], sidecars)
                found = faces.get(int(local[i].as_py()))
                made = edited(sample, config, decoding=decoding, file_format=kind, faces=found)
                if made is None:
                    lost[int(rows[i])] = UNREADABLE
                    continue
                yield int(rows[i]), made


def _without_sidecar(path: str, error: OSError) -> Problem:
    what: Unread = "changed" if has_changed(error) else "unreadable"
    return Problem(path, what, f"a sidecar is left out: {error}")


def _metas(attempt: Attempt, parts: Sequence[Part], part: Part, rows: np.ndarray) -> list[dict[str, Any]]:
    """KEY.json of the selected rows of one part."""
    outcomes: Outcomes = attempt.payload["outcomes"]
    clusters: Clusters = attempt.payload["clusters"]
    local = pa.array(rows - part.offset)
    keys = read(part.images, ["key", "uri"]).take(local).to_pylist()
    described = read(part.described, ["sha256", "width", "height"]).take(local).to_pylist()
    outcome, by = read_array(outcomes.outcome)[rows], read_array(outcomes.by)[rows]
    score, label = read_array(outcomes.score)[rows], read_array(clusters.cluster)[rows]
    causes = np.unique(by[by >= 0])
    cause_keys = row_table(parts, causes)["key"].to_pylist()
    by_key = dict(zip(causes.tolist(), cause_keys, strict=True))
    return [
        {
            "image_id": image_id(described[i]["sha256"]),
            "pool": part.pool,
            "key": keys[i]["key"],
            "uri": keys[i]["uri"],
            "origin": origin_of(int(outcome[i])),
            "by_key": by_key.get(int(by[i])),
            "score": None if np.isnan(score[i]) else float(score[i]),
            "cluster": None if label[i] < 0 else int(label[i]),
            "width": described[i]["width"],
            "height": described[i]["height"],
        }
        for i in range(len(rows))
    ]


def _spool(spool: IO[bytes], row: int, sample: Sample) -> _Spooled:
    offset = spool.tell()
    pieces = [sample.data, *sample.sidecars.values()]
    for piece in pieces:
        spool.write(piece)
    empty = replace(sample, data=b"", sidecars=dict.fromkeys(sample.sidecars, b""))
    return _Spooled(row, empty, offset, tuple(map(len, pieces)), sample_bytes(sample))


def _unspool(spool: IO[bytes], waiting: _Spooled) -> Sample:
    spool.seek(waiting.offset)
    data, *others = [spool.read(length) for length in waiting.lengths]
    return replace(
        waiting.sample, data=data, sidecars=dict(zip(waiting.sample.sidecars, others, strict=True))
    )


def _lead(group: list[_Spooled]) -> list[_Spooled]:
    """A shard's samples with typical ones in front, for readers that learn columns from them."""
    members = [(w.sample.ext, *sorted(w.sample.sidecars)) for w in group]
    kinds = {kind: number for number, kind in enumerate(sorted(set(members)))}
    known = np.array([[w.sample.meta[name] is not None for name in OPTIONAL_META] for w in group])
    order = lead_with_typical(np.array([kinds[m] for m in members], np.int64), known)
    return [group[i] for i in order]


def _write(attempt: Attempt, number: int, group: list[_Spooled], spool: IO[bytes]) -> None:
    path = attempt.out / f"{number:06d}.tar"
    receipt = write_shard(path, (_unspool(spool, waiting) for waiting in group))
    storage.write_table(attempt.out / f"{number:06d}.parquet", receipt.index)
