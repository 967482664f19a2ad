"""describe: every image is read and decoded once, measured, hashed and embedded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from curation import storage
from curation.describe.describe import DescribeConfig, Described, describe, with_vectors
from curation.describe.embed import EmbedConfig, Embedder, parse_embedder
from curation.ingest.problems import Problem
from curation.ingest.rows import image_range, read_sample
from curation.read_ahead import ReadAhead
from pipelines.config.run_config import RunConfig
from pipelines.engine.digest import Unhashed
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Receipt, Step, Work
from pipelines.engine.watchdog import Watchdog
from pipelines.models.face_detectors import faces_identity, load_faces
from pipelines.models.identity import identity, resolve
from pipelines.models.precomputed import PrecomputedVectors, has_pool_column
from pipelines.rows.parts import FilesOf, Part, read
from pipelines.rows.staged import prove_staged
from pipelines.rows.unique_keys import require_unique_keys


class DescribeFile(StrEnum):
    """What describe puts out for a part; all but the first two where the config asks for them."""

    DESCRIBED = "described.parquet"
    EMBEDDINGS = "embeddings.npy"
    DESCRIPTORS = "descriptors.npy"
    HEAD_VECTORS = "head_vectors.npy"
    FACES = "faces.parquet"


@dataclass(frozen=True)
class DescribeSettings:
    """What describe does with every part."""

    identity: Mapping[str, object]  # of the decoder, and of every model: what of it changes the output
    config: Annotated[DescribeConfig, Unhashed("`identity` says what of it changes the output")]
    embed: Annotated[EmbedConfig, Unhashed("`identity` says what of it changes the output")]
    copies: Annotated[EmbedConfig | None, Unhashed("`identity` says what of it changes the output")]
    for_heads: Annotated[EmbedConfig | None, Unhashed("`identity` says what of it changes the output")]
    threads: Annotated[int, Unhashed("`identity` has it where a model makes forwards")]


@dataclass(frozen=True)
class DescribeTask:
    """The images of a part."""

    part: Annotated[Part, FilesOf("images")]
    pool: Annotated[str, Unhashed("it names an image in the watchdog's words")]
    pool_of_vectors: str | None  # where a file of vectors may tell equal keys of two pools apart


def describe_parts(
    runner: Runner, config: RunConfig, parts: Sequence[Part], *, refresh: bool
) -> tuple[Part, ...]:
    """Measure, hash and embed every image; `refresh` tries again where a source could not be read."""
    settings, threads = config.describe, config.executor.threads
    embed = resolve(settings.embed)
    # From the config as it was written: what one model resolves to says nothing about the other.
    copies = resolve(settings.descriptor_embed) if settings.descriptor_embed else None
    for_heads = resolve(settings.heads_embed) if settings.heads_embed else None
    identity_of = {
        "embed": _model_identity(embed, threads),
        "descriptor": _model_identity(copies, threads) if copies else None,
        "decode": settings.decode.model_dump(mode="json"),
    }
    # What is off is no part of the identity: heads on the embedding itself change nothing here.
    if for_heads is not None:
        identity_of["heads"] = _model_identity(for_heads, threads)
    if settings.faces is not None:
        identity_of["faces"] = faces_identity(settings.faces)
    step = Step(
        "describe",
        4,
        DescribeSettings(identity_of, settings, embed, copies, for_heads, threads),
        _load,
        "describe",
        threads,
        loads_model=True,
        num_gpus=int(any(model.device == "cuda" for model in (embed, copies, for_heads) if model)),
    )
    specs = [parse_embedder(model.embedder) for model in (embed, copies, for_heads) if model]
    files = sorted({spec.weights for spec in specs if spec.library == "precomputed"})
    by_pool = bool(files)
    if runner.executor is not None:
        for file in files:
            require_unique_keys(parts, has_pool_column=has_pool_column(file))
    items = [_item(runner, step, part, refresh=refresh, by_pool=by_pool) for part in parts]
    receipts = runner.run(step, items)
    return tuple(
        _described(part, receipt, runner.run_dir) for part, receipt in zip(parts, receipts, strict=True)
    )


def _model_identity(config: EmbedConfig, threads: int) -> dict[str, object]:
    """What of a model changes the output: not the place of its weights, but their bytes."""
    spec = parse_embedder(config.embedder)
    if spec.library != "precomputed":
        return identity(config, threads=threads)
    # A file of vectors may be terabytes: its size and time stand for it.
    return {"precomputed": storage.stat(spec.weights).version}


def _item(
    runner: Runner, step: Step[DescribeSettings, DescribeTask], part: Part, *, refresh: bool, by_pool: bool
) -> Item[DescribeTask]:
    item = Item(DescribeTask(part, part.pool, part.pool if by_pool else None), part.num_rows)
    return runner.newest(step, item, again=lambda receipt: refresh and receipt.facts["num_unreadable"] > 0)


def _described(part: Part, receipt: Receipt, run_dir: str) -> Part:
    def file(name: DescribeFile) -> FileRef | None:
        return receipt.file(run_dir, name) if name in receipt.files else None

    return replace(
        part,
        described=file(DescribeFile.DESCRIBED),
        embeddings=file(DescribeFile.EMBEDDINGS),
        descriptors=file(DescribeFile.DESCRIPTORS),
        head_vectors=file(DescribeFile.HEAD_VECTORS),
        faces=file(DescribeFile.FACES),
    )


def _load(settings: DescribeSettings) -> Work[DescribeTask]:
    threads = settings.threads
    config, embed, copies, for_heads = (
        settings.config, settings.embed, settings.copies, settings.for_heads,
    )  # fmt: skip
    embedder, embeddings = _source_of_vectors(embed, threads)
    # The same model twice is run once: the embeddings are the descriptors.
    descriptor, descriptors = (
        _source_of_vectors(copies, threads) if copies and copies != embed else (None, None)
    )
    looked_at, head_vectors = (None, None) if for_heads is None else _source_of_vectors(for_heads, threads)
    faces = load_faces(config.faces) if config.faces else None

    def work(attempt: Attempt[DescribeTask]) -> Facts:
        part, pool = attempt.task.part, attempt.task.pool_of_vectors or ""
        images = read(part.images)
        prove_staged(images)
        rows = images.to_pylist()
        known = {i: reason for i, row in enumerate(rows) if (reason := _known(row, config))}
        known |= attempt.condemned
        to_read = (image_range(row) for i, row in enumerate(rows) if i not in known)
        with ReadAhead(to_read) as reader, Watchdog() as watchdog:
            found = describe(
                part.num_rows,
                lambda row: read_sample(reader, rows[row]),
                embedder=embedder,
                descriptor=descriptor,
                config=config,
                for_heads=looked_at,
                faces=faces,
                known=known,
                guard=watchdog.guard,
                name=lambda row: f"{attempt.task.pool}/{rows[row]['key']} ({rows[row]['uri']})",
                tell=attempt.tell,
            )
        keys = images["key"].to_pylist()
        files = {"embeddings": embeddings, "descriptors": descriptors, "vectors of heads": head_vectors}
        unknown = {what: _unknown(file, keys, pool) for what, file in files.items() if file is not None}
        if embeddings is not None:
            found = with_vectors(found, *embeddings.lookup(keys, pool))
        if descriptors is not None:
            found = with_vectors(found, *descriptors.lookup(keys, pool), into="descriptors")
        if head_vectors is not None:
            found = with_vectors(found, *head_vectors.lookup(keys, pool), into="head_vectors")
        _write(attempt.out, found)
        return {
            "num_rows": part.num_rows,
            "num_unreadable": len(found.read_errors),
            "unknown": {what: found for what, found in unknown.items() if found is not None},
        }

    return work


def _unknown(file: PrecomputedVectors, keys: Sequence[str], pool: str) -> dict[str, object] | None:
    """How many images a file of vectors does not know, and a key of each side; None where it knows all."""
    unknown = np.flatnonzero(~file.known(keys, pool))
    if not len(unknown):
        return None
    return {"pool": pool, "num": len(unknown), "image": keys[unknown[0]], "key": file.first_key}


def other_keys(receipts: Iterable[Receipt]) -> list[dict[str, Any]]:
    """A note for each pool and file of vectors that has other keys than the pool's images.

    Args:
        receipts: of this step.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for receipt in receipts:
        for what, unknown in receipt.facts.get("unknown", {}).items():
            one = found.setdefault((unknown["pool"], what), {**unknown, "num": 0})
            one["num"] += unknown["num"]
    notes = []
    for (pool, what), one in found.items():
        detail = (
            f"the file of {what} lacks the keys of {one['num']} images, such as {one['image'][:200]!r}; "
            f"a key that it has is {one['key'][:200]!r}"
        )
        notes.append(asdict(Problem(f"pool {pool}", "other_keys", detail)))
    return notes


def _write(out: Path, found: Described) -> None:
    assert found.embeddings is not None, "an embedder that is neither a model nor a file"
    storage.write_table(out / DescribeFile.DESCRIBED, found.table)
    storage.write_vectors(out / DescribeFile.EMBEDDINGS, found.embeddings)
    if found.descriptors is not None:
        storage.write_vectors(out / DescribeFile.DESCRIPTORS, found.descriptors)
    if found.head_vectors is not None:
        storage.write_vectors(out / DescribeFile.HEAD_VECTORS, found.head_vectors)
    if found.faces is not None:
        storage.write_table(out / DescribeFile.FACES, found.faces)


def _known(row: Mapping[str, Any], config: DescribeConfig) -> str | None:
    """The reason not to read a row at all: what ingest found, or more bytes than may be held at once."""
    reason: str | None = row["reason"]
    is_large = reason is None and row["num_bytes"] > config.decode.max_file_bytes
    return "file_too_large" if is_large else reason


def _source_of_vectors(
    config: EmbedConfig, threads: int
) -> tuple[Embedder | None, PrecomputedVectors | None]:
    spec = parse_embedder(config.embedder)
    if spec.library == "precomputed":
        return None, PrecomputedVectors(spec.weights)
    from pipelines.models.embedders import load_embedder  # torch: seconds, which no dry run waits for

    return load_embedder(config, threads=threads), None
