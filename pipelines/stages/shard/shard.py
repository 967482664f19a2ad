"""shard: the bytes of selected images, read once part by part, shuffled in buckets, written as tars."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from curation import storage
from curation.ingest.problems import Problem, Unread
from curation.ingest.rows import has_changed, read_sample, read_sidecars, sample_ranges
from curation.pictures.decode import DecodeConfig
from curation.ranges import RangeReader
from curation.read_ahead import ReadAhead
from curation.schema import image_id
from curation.select import CURATED, SAMPLED
from curation.shard.layout import ShardConfig, cut_shards, lead_with_typical, plan_buckets, shuffle_order
from curation.shard.sample import Sample, sample_bytes
from curation.shard.write import write_shard
from pipelines.config.run_config import RunConfig
from pipelines.engine.digest import Without
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Receipt, Step, Work
from pipelines.rows.arrow_columns import numbers
from pipelines.rows.parts import Part, PlacesOf, column, read, read_array, row_table
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
PLACED_FILE = "placed.parquet"


def tar_file(number: int) -> str:
    """The name of a bucket's shard, before it has one in the dataset."""
    return f"{number:06d}.tar"


def index_file(number: int) -> str:
    """The name of the index of a bucket's shard."""
    return f"{number:06d}.parquet"


@dataclass(frozen=True)
class BucketSettings:
    """How a bucket is written."""

    config: Annotated[ShardConfig, Without(("bucket_bytes",), "what it makes is a bucket's parts")]
    seed: int
    decoding: DecodeConfig


@dataclass(frozen=True)
class BucketTask:
    """A bucket's parts, and what was decided of their rows."""

    # Of the run: a sample names the key of the image that caused it, and that one may lie in any part.
    parts: Annotated[tuple[Part, ...], PlacesOf("images")]
    bucket: Annotated[tuple[Part, ...], PlacesOf("images", "described", "faces")]
    outcomes: Outcomes
    cluster: FileRef


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
    settings = BucketSettings(config.shard, config.seed, config.describe.decode)
    step = Step("shard", 2, settings, _load, "shard")
    every, blurs = tuple(parts), config.shard.blur_faces is not None
    # Faces that nobody blurs are no part of what a bucket is made from.
    read_of = every if blurs else tuple(replace(part, faces=None) for part in every)
    items = [
        Item(BucketTask(every, tuple(read_of[i] for i in bucket), outcomes, clusters.cluster))
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
    sizes = numbers(column([part], "described", "num_bytes"), null=0)
    return int(sizes[rows - part.offset].sum()) + len(rows)


def _bucket(receipt: Receipt, run_dir: str) -> Bucket:
    numbers = range(receipt.facts["num_shards"])
    return Bucket(
        tuple(receipt.file(run_dir, tar_file(i)) for i in numbers),
        tuple(receipt.file(run_dir, index_file(i)) for i in numbers),
        tuple(receipt.facts["num_samples"]),
        receipt.file(run_dir, PLACED_FILE),
    )


@dataclass(frozen=True)
class _Spooled:
    """A sample whose bytes wait in the spool; `sample` has none."""

    row: int
    sample: Sample
    offset: int
    lengths: tuple[int, ...]  # of the image, then of each sidecar
    size_bytes: int  # in a tar


@dataclass
class _Missing:
    """What a bucket is without."""

    lost: dict[int, int] = field(default_factory=dict)  # row → why
    sidecars: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class _Chosen:
    """The selected rows of a part, and what is known of each."""

    rows: np.ndarray  # global
    images: list[dict[str, Any]]
    described: list[dict[str, Any]]
    metas: list[dict[str, Any]]  # KEY.json
    faces: list[Float32[np.ndarray, "n 5"] | None]


def _load(settings: BucketSettings) -> Work[BucketTask]:
    def work(attempt: Attempt[BucketTask]) -> Facts:
        missing = _Missing()
        # Unlinked at once: nothing to clean up, whatever happens.
        with tempfile.TemporaryFile(dir=attempt.out) as spool:
            waiting: list[_Spooled] = []
            for row, sample in _samples(attempt.task, settings, missing):
                waiting.append(_spool(spool, row, sample))
                attempt.tell(len(waiting))
            ids = np.frombuffer(bytes.fromhex("".join(w.sample.key for w in waiting)), np.uint8).reshape(
                -1, 16
            )
            ordered = [waiting[i] for i in shuffle_order(settings.seed, ids)]
            cuts = cut_shards(np.array([w.size_bytes for w in ordered], np.int64), settings.config)
            placed = [(row, -1, why) for row, why in missing.lost.items()]
            for number, (start, stop) in enumerate(cuts):
                group = _lead(ordered[start:stop])
                _write(attempt.out, number, group, spool)
                placed += [(w.row, number, position) for position, w in enumerate(group)]
        rows, shards, positions = np.array(sorted(placed), np.int64).reshape(-1, 3).T
        table = pa.table(
            {"row": rows, "shard": shards.astype(np.int32), "position": positions.astype(np.int32)}
        )
        storage.write_table(attempt.out / PLACED_FILE, table)
        return {
            "num_shards": len(cuts),
            "num_samples": [stop - start for start, stop in cuts],
            "num_rows": len(rows),
            "num_lost": len(missing.lost),
            "unread": [asdict(problem) for problem in missing.sidecars],
        }

    return work


def _samples(task: BucketTask, settings: BucketSettings, missing: _Missing) -> Iterator[tuple[int, Sample]]:
    """The samples of a bucket, each part read once in the order of its bytes; notes what is missing."""
    selected = _selected(task.outcomes)
    for part in task.bucket:
        chosen = _choose(task, part, _within(part, selected))
        places = [(image["path"], image["offset"]) for image in chosen.images]
        order = sorted(range(len(places)), key=places.__getitem__)
        to_read = (one for i in order for one in sample_ranges(chosen.images[i]))
        with ReadAhead(to_read) as reader:
            for i in order:
                made = _sample(reader, chosen, i, settings=settings, missing=missing)
                if made is not None:
                    yield int(chosen.rows[i]), made


def _choose(task: BucketTask, part: Part, rows: np.ndarray) -> _Chosen:
    local = pa.array(rows - part.offset)
    metas = _metas(task, part, rows)
    images = read(part.images).take(local)
    prove_staged(images)
    described = read(part.described, ["sha256", "format"]).take(local)
    faces = faces_by_row(part)
    found = [faces.get(row) for row in local.to_pylist()]
    return _Chosen(rows, images.to_pylist(), described.to_pylist(), metas, found)


def _sample(
    reader: RangeReader, chosen: _Chosen, i: int, *, settings: BucketSettings, missing: _Missing
) -> Sample | None:
    """One of the selected images with what lies beside it, as it goes into a shard; None where it is lost."""
    row, image, known = int(chosen.rows[i]), chosen.images[i], chosen.described[i]
    try:
        data = read_sample(reader, image)
    except OSError as error:
        missing.lost[row] = CHANGED if has_changed(error) else UNREADABLE
        return None
    if hashlib.sha256(data).digest() != known["sha256"]:
        missing.lost[row] = CHANGED
        return None
    without: list[tuple[str, OSError]] = []
    sidecars = read_sidecars(reader, image, lost=without)
    missing.sidecars += [_without_sidecar(path, error) for path, error in without]
    meta, kind = chosen.metas[i], known["format"]
    made = edited(
        Sample(meta["image_id"], EXTENSIONS[kind], data, meta, sidecars),
        settings.config,
        decoding=settings.decoding,
        file_format=kind,
        faces=chosen.faces[i],
    )
    if made is None:
        missing.lost[row] = UNREADABLE
    return made


def _without_sidecar(path: str, error: OSError) -> Problem:
    what: Unread = "changed" if has_changed(error) else "unreadable"
    return Problem(path, what, f"a sidecar is left out: {error}")


def _metas(task: BucketTask, part: Part, rows: np.ndarray) -> list[dict[str, Any]]:
    """KEY.json of the selected rows of one part."""
    outcomes = task.outcomes
    local = pa.array(rows - part.offset)
    keys = read(part.images, ["key", "uri"]).take(local).to_pylist()
    described = read(part.described, ["sha256", "width", "height"]).take(local).to_pylist()
    outcome, by = read_array(outcomes.outcome)[rows], read_array(outcomes.by)[rows]
    score, label = read_array(outcomes.score)[rows], read_array(task.cluster)[rows]
    causes = np.unique(by[by >= 0])
    cause_keys = row_table(task.parts, causes)["key"].to_pylist()
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


def _write(out: Path, number: int, group: list[_Spooled], spool: IO[bytes]) -> None:
    receipt = write_shard(out / tar_file(number), (_unspool(spool, waiting) for waiting in group))
    storage.write_table(out / index_file(number), receipt.index)
