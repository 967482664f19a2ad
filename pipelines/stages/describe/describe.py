"""describe and judge: every image is read and decoded once; thresholds are applied to what was measured."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from curation import storage
from curation.describe.describe import DescribeConfig, Described, describe, with_vectors
from curation.describe.embed import EmbedConfig, Embedder, parse_embedder
from curation.describe.filters import JudgeConfig, judge
from curation.ingest.precomputed import PrecomputedVectors, has_pool_column
from curation.ingest.problems import Problem
from curation.ingest.rows import image_range, read_sample
from curation.read_ahead import ReadAhead
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Item, Receipt, Step, Work
from pipelines.engine.watchdog import Watchdog
from pipelines.models.embedders import identity, load_embedder, resolve
from pipelines.models.face_detectors import faces_identity, load_faces
from pipelines.rows.parts import Part, read
from pipelines.rows.staged import prove_staged
from pipelines.rows.unique_keys import require_unique_keys


def describe_parts(
    runner: Runner, config: RunConfig, parts: Sequence[Part], *, refresh: bool
) -> tuple[Part, ...]:
    """Measure, hash and embed every image; `refresh` tries again where a source could not be read."""
    settings = config.describe
    embed = resolve(settings.embed)
    # From the config as it was written: what one model resolves to says nothing about the other.
    copies = resolve(settings.descriptor_embed) if settings.descriptor_embed else None
    for_heads = resolve(settings.heads_embed) if settings.heads_embed else None
    identity_of = {
        "embed": _model_identity(embed),
        "descriptor": _model_identity(copies) if copies else None,
        "decode": settings.decode.model_dump(mode="json"),
    }
    # What is off is no part of the identity: heads on the embedding itself change nothing here.
    if for_heads is not None:
        identity_of["heads"] = _model_identity(for_heads)
    if settings.faces is not None:
        identity_of["faces"] = faces_identity(settings.faces)
    step = Step(
        "describe",
        4,
        identity_of,
        partial(_load, settings, (embed, copies, for_heads)),
        "map",
        "describe",
        settings.embed.threads,
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


def _model_identity(config: EmbedConfig) -> dict[str, Any]:
    """What of a model changes the output: not the place of its weights, but their bytes."""
    spec = parse_embedder(config.embedder)
    if spec.library != "precomputed":
        return identity(config)
    # A file of vectors may be terabytes: its size and time stand for it.
    return {"precomputed": storage.stat(spec.weights).version}


def _item(runner: Runner, step: Step, part: Part, *, refresh: bool, by_pool: bool) -> Item:
    # A file of vectors may tell equal keys of two pools apart.
    inputs = (part.images.sha256, part.pool) if by_pool else (part.images.sha256,)
    item = Item(inputs, {"part": part}, part.num_rows)
    return runner.newest(step, item, again=lambda receipt: refresh and receipt.facts["num_unreadable"] > 0)


def _described(part: Part, receipt: Receipt, run_dir: str) -> Part:
    def file(name: str) -> Any:
        return receipt.file(run_dir, name) if name in receipt.files else None

    return replace(
        part,
        described=file("described.parquet"),
        embeddings=file("embeddings.npy"),
        descriptors=file("descriptors.npy"),
        head_vectors=file("head_vectors.npy"),
        faces=file("faces.parquet"),
    )


def _load(config: DescribeConfig, models: tuple[EmbedConfig, EmbedConfig | None, EmbedConfig | None]) -> Work:
    embed, copies, for_heads = models
    embedder, embeddings = _source_of_vectors(embed)
    # The same model twice is run once: the embeddings are the descriptors.
    descriptor, descriptors = _source_of_vectors(copies) if copies and copies != embed else (None, None)
    looked_at, head_vectors = (None, None) if for_heads is None else _source_of_vectors(for_heads)
    faces = load_faces(config.faces) if config.faces else None

    def work(attempt: Attempt) -> dict[str, Any]:
        part: Part = attempt.payload["part"]
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
                name=lambda row: f"{part.pool}/{rows[row]['key']} ({rows[row]['uri']})",
                tell=attempt.tell,
            )
        keys = images["key"].to_pylist()
        files = {"embeddings": embeddings, "descriptors": descriptors, "vectors of heads": head_vectors}
        unknown = {what: _unknown(file, keys, part.pool) for what, file in files.items() if file is not None}
        if embeddings is not None:
            found = with_vectors(found, *embeddings.lookup(keys, part.pool))
        if descriptors is not None:
            found = with_vectors(found, *descriptors.lookup(keys, part.pool), into="descriptors")
        if head_vectors is not None:
            found = with_vectors(found, *head_vectors.lookup(keys, part.pool), into="head_vectors")
        _write(attempt.out, found)
        return {
            "num_rows": part.num_rows,
            "num_unreadable": len(found.read_errors),
            "unknown": {what: found for what, found in unknown.items() if found is not None},
        }

    return work


def _unknown(file: PrecomputedVectors, keys: Sequence[str], pool: str) -> dict[str, Any] | None:
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
    storage.write_table(out / "described.parquet", found.table)
    storage.write_vectors(out / "embeddings.npy", found.embeddings)
    if found.descriptors is not None:
        storage.write_vectors(out / "descriptors.npy", found.descriptors)
    if found.head_vectors is not None:
        storage.write_vectors(out / "head_vectors.npy", found.head_vectors)
    if found.faces is not None:
        storage.write_table(out / "faces.parquet", found.faces)


def _known(row: Mapping[str, Any], config: DescribeConfig) -> str | None:
    """The reason not to read a row at all: what ingest found, or more bytes than may be held at once."""
    if row["reason"] is None and row["num_bytes"] > config.decode.max_file_bytes:
        return "file_too_large"
    return row["reason"]


def _source_of_vectors(config: EmbedConfig) -> tuple[Embedder | None, PrecomputedVectors | None]:
    spec = parse_embedder(config.embedder)
    if spec.library == "precomputed":
        return None, PrecomputedVectors(spec.weights)
    return load_embedder(config), None


def judge_parts(runner: Runner, config: RunConfig, parts: Sequence[Part]) -> tuple[Part, ...]:
    """Apply the thresholds to what was measured."""
    step = Step(
        "judge", 3, config.judge.model_dump(mode="json"), partial(_load_judge, config.judge), "map", "judge"
    )
    items = [Item((_sha(part), *_sha_of_scores(part)), {"part": part}, part.num_rows) for part in parts]
    receipts = runner.run(step, items)
    return tuple(
        replace(part, verdicts=receipt.file(runner.run_dir, "verdicts.parquet"))
        for part, receipt in zip(parts, receipts, strict=True)
    )


def _sha(part: Part) -> str:
    assert part.described is not None
    return part.described.sha256


def _sha_of_scores(part: Part) -> tuple[str, ...]:
    return () if part.scores is None else (part.scores.sha256,)


def _load_judge(config: JudgeConfig) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        part: Part = attempt.payload["part"]
        described = read(part.described)
        scores = None if part.scores is None else read(part.scores)
        storage.write_table(attempt.out / "verdicts.parquet", judge(described, config, scores=scores))
        return {"num_rows": described.num_rows}

    return work
