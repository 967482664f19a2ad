"""`lvd search`: the images of a run that are nearest to one of them, or to a file."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float16, Int64

from curation import storage
from curation.errors import ConfigError, SourceError
from curation.pictures.decode import DecodeConfig
from curation.printed import visible
from curation.schema import image_id
from curation.search.nearest import Nearest, candidates, no_rows, take_best
from pipelines.answers.find_image import find_images, no_pool, rows_of_id
from pipelines.answers.finished_run import FinishedRun, require_run
from pipelines.answers.made import Made
from pipelines.rows.parts import Part, read, read_array
from pipelines.stages.copies.poor_pictures import is_poor
from pipelines.words import score, spaced, table_lines

Vectors = Literal["embeddings", "descriptors"]


@dataclass(frozen=True)
class NearestQuery:
    """What is looked for: an image of the run by id or key, or a file; and where."""

    image: str | None = None  # an id, the beginning of one, or a key
    file: str | None = None
    by: Vectors = "embeddings"
    k: int = 10
    pool: str | None = None  # search in this pool alone
    kept: bool = False  # search in the dataset alone


@dataclass(frozen=True)
class SearchAnswer:
    """The nearest images of a run: their rows of the lineage with the score, nearest first."""

    run: FinishedRun
    asked: NearestQuery
    query: Mapping[str, Any]  # its row of the lineage, or the name and id of a file
    query_row: int | None  # global; None for a file
    hits: tuple[Mapping[str, Any], ...]
    rows: tuple[int, ...]  # global rows of the hits


def search(run_dir: str, asked: NearestQuery) -> SearchAnswer:
    """Find the nearest images of a finished run, exactly.

    Every image of the run that has a vector takes part, kept or dropped. An image is not its own neighbour;
    other images with the same bytes are.

    Raises:
        ConfigError: no such image, no vector to search by, or vectors that are gone.
    """
    if asked.k < 1:
        raise ConfigError("A search for no neighbours", got=f"-k {asked.k}", expected="1 or more")
    run = require_run(run_dir)
    made = require_vectors(run, asked.by)
    if asked.pool is not None and asked.pool not in run.pools:
        raise no_pool(run, asked.pool)
    if asked.file is not None:
        vector, query = _of_file(run, asked)
        row = None
    else:
        assert asked.image is not None, "a search for nothing"
        row, vector, query = _of_image(run, asked)
    kept = run.lineage.kept() if asked.kept else None
    found = _nearest(made, vector, asked=asked, leave_out=row, kept=kept)
    rows = found.row.tolist()
    known = run.lineage.at(rows)
    hits = tuple(
        {"score_with_query": value, "row": one, **known[one]}
        for one, value in zip(rows, found.score.tolist(), strict=True)
    )
    return SearchAnswer(run, asked, query, row, hits, tuple(rows))


def require_vectors(run: FinishedRun, by: Vectors) -> Made:
    """What has the vectors of a run; raises ConfigError where they are gone, or never were."""
    if run.made is None:
        raise ConfigError(
            f"The vectors of {run.run_dir} are gone",
            got="no intermediate data of its dataset",
            remedy="Run its config again: what is missing is made anew",
        )
    if by == "descriptors" and run.config.describe.descriptor is None:
        raise ConfigError(
            f"{run.run_dir} has no copy descriptors",
            got="describe.descriptor: null",
            remedy="Search without --descriptor, or set describe.descriptor and run again",
        )
    return run.made


def _vectors_of(part: Part, by: Vectors) -> np.ndarray:
    """The vectors of a part; where one model serves as both, the embeddings are the descriptors."""
    return read_array(part.copy_vectors if by == "descriptors" else part.embeddings)


def _of_image(
    run: FinishedRun, asked: NearestQuery
) -> tuple[int, Float16[np.ndarray, " d"], Mapping[str, Any]]:
    assert asked.image is not None, "an image that has no name"
    found = find_images(run, asked.image)
    if len({one.lineage["image_id"] for one in found}) > 1:
        names = [f"{one.lineage['pool']}/{one.lineage['key']} {one.lineage['image_id']}" for one in found[:5]]
        raise ConfigError(f"{asked.image!r} names several images", got="; ".join(names), expected="one id")
    row = found[0].row
    vector, part = _vector_at(run, row, by=asked.by), run.part_of(row)
    if not _knows(part, asked.by)[row - part.offset]:
        raise ConfigError(
            f"{found[0].lineage['pool']}/{found[0].lineage['key']} has too little in it to search by this",
            got="a picture of poor hash, whose copy descriptor says nothing",
            remedy="Search without --descriptor",
        )
    if not vector.any():
        raise ConfigError(
            f"{found[0].lineage['pool']}/{found[0].lineage['key']} has no vector to search by",
            got=f"{found[0].lineage['stage']}: {found[0].lineage['reason']}",
        )
    return row, vector, found[0].lineage


def _knows(part: Part, by: Vectors) -> Bool[np.ndarray, " n"]:
    """The rows whose vectors say something: all, but no copy descriptor of a picture of poor hash."""
    return np.ones(part.num_rows, bool) if by == "embeddings" else ~is_poor([part])


def _vector_at(run: FinishedRun, row: int, *, by: Vectors) -> Float16[np.ndarray, " d"]:
    part = run.part_of(row)
    return np.asarray(_vectors_of(part, by)[row - part.offset])


def _of_file(run: FinishedRun, asked: NearestQuery) -> tuple[Float16[np.ndarray, " d"], Mapping[str, Any]]:
    """The vector of a file: the one that the run has of the same bytes, or made by the run's own model."""
    assert asked.file is not None, "a file that has no name"
    data = read_asked(asked.file, run.config.describe.decode)
    query = {"file": asked.file, "image_id": image_id(hashlib.sha256(data).digest())}
    for row in rows_of_id(run, query["image_id"]):
        vector = _vector_at(run, row, by=asked.by)
        if vector.any():
            return vector, query
    from pipelines.models.embed_file import (
        embed_file,  # decoders and a model, for a file that no run has read
    )

    settings = run.config.describe
    embed = settings.descriptor_embed if asked.by == "descriptors" else settings.embed
    assert embed is not None, "no descriptor: seen to before"
    threads = run.config.executor.threads
    return embed_file(data, embed, threads=threads, decoding=settings.decode, path=asked.file), query


def read_asked(file: str, decoding: DecodeConfig) -> bytes:
    """The bytes of a file to search by.

    Raises:
        SourceError: it cannot be read, is no regular file, or is larger than what is decoded.
    """
    try:
        return storage.read_capped(file, decoding.max_file_bytes)
    except OSError as error:
        raise SourceError(
            f"{file} cannot be read",
            got=error.strerror or str(error),
            expected=f"a picture's file of at most {decoding.max_file_bytes:,} bytes "
            "(describe.decode.max_file_bytes of the run)",
        ) from error


def _nearest(
    made: Made,
    vector: Float16[np.ndarray, " d"],
    *,
    asked: NearestQuery,
    leave_out: int | None,
    kept: Int64[np.ndarray, " n"] | None,
) -> Nearest:
    best = no_rows()
    for part in made.parts:
        if asked.pool not in (None, part.pool):
            continue
        floor = float(best.score[-1]) if len(best.score) == asked.k else -np.inf
        vectors = _vectors_of(part, asked.by)
        rows = part.offset + np.flatnonzero(_knows(part, asked.by))
        if kept is not None:
            rows = np.intersect1d(rows, kept, assume_unique=True)
        if len(rows) < part.num_rows:
            vectors = vectors[rows - part.offset]
        # One more: the image itself may be among them.
        near = candidates(vector, vectors, k=asked.k + 1, floor=floor)
        chosen = near.index[rows[near.index] != leave_out] if leave_out is not None else near.index
        if len(chosen):
            score_of = dict(zip(near.index.tolist(), near.score.tolist(), strict=True))
            scores = np.array([score_of[i] for i in chosen.tolist()])
            ids = _id_words(part, rows[chosen] - part.offset)
            best = take_best(best, Nearest(rows[chosen], scores, ids), k=asked.k)
    return best


def _id_words(part: Part, local: Int64[np.ndarray, " c"]) -> np.ndarray:
    sha256 = read(part.described, ["sha256"])["sha256"]
    data = b"".join(sha256[i].as_py()[:16] for i in local.tolist())
    return np.frombuffer(data, ">u8").astype(np.uint64).reshape(-1, 2)


def search_data(answer: SearchAnswer) -> dict[str, object]:
    """The answer as plain data."""
    return {"query": dict(answer.query), "by": answer.asked.by, "hits": [dict(hit) for hit in answer.hits]}


def search_lines(answer: SearchAnswer) -> list[str]:
    """The answer for people: a table, nearest first."""
    query, by = answer.query, answer.asked.by
    name = query["file"] if "file" in query else f"{query['pool']}/{query['key']}"
    model = answer.run.config.describe
    spec = model.descriptor if by == "descriptors" else model.embed.embedder
    what = "copy descriptor" if by == "descriptors" else "embedding"
    lines = [f"nearest to {visible(name)}, id {query['image_id']}, by the {what} {visible(str(spec))}"]
    if not answer.hits:
        return [*lines, "no other image has a vector"]
    rows = [("", "score", "verdict", "image", "id")]
    for number, hit in enumerate(answer.hits, 1):
        verdict = f"{hit['decision']}: {spaced(hit['reason'])}"
        image = f"{visible(hit['pool'])}/{visible(hit['key'])}"
        rows.append((str(number), score(hit["score_with_query"]), verdict, image, hit["image_id"][:12]))
    return [*lines, *table_lines(rows)]
