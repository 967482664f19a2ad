"""The whole story of one image: what each stage measured, what it decided, and by which threshold.

Everything comes from what the run saved; nothing is computed anew but a few products of vectors, which tell
how far an image was from being retrieved.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from curation import storage
from curation.describe.filters import JudgeConfig, filters, measurements
from curation.describe.miniature import MAKE_BELOW_BITS
from curation.describe.phash import MIN_CERTAIN_BITS, NUM_BITS
from curation.retrieve import ClusterRetrieval, SampleRetrieval
from curation.shard.sample import index_name
from pipelines.answers.find_image import Found, find_images
from pipelines.answers.finished_run import FinishedRun, require_run
from pipelines.answers.made import Made
from pipelines.config.listed import entry_of, read_listed
from pipelines.rows.arrow_columns import numbers, rows_at
from pipelines.rows.parts import Part, gather_vectors, in_pools, read, read_array, roles, vector_blocks

MAX_MEMBERS = 20
MAX_HITS = 5


def explain(run_dir: str, image: str, *, pool: str | None) -> dict[str, Any]:
    """The story of every image whose key, pool/key or URI is `image`, or whose id begins with it.

    Returns:
        Plain data: `images`, each with its row of the lineage, the `copies` in its component, and its `story`
        by stage; a stage of which nothing is known any more is missing there.

    Raises:
        ConfigError: when there is none; names what comes near.
    """
    run = require_run(run_dir)
    return {"images": [_image(run, one) for one in find_images(run, image, pool=pool)]}


def _image(run: FinishedRun, found: Found) -> dict[str, Any]:
    members = _members(run, found.lineage)
    story: dict[str, Any] = {}
    if run.made is not None:
        part = run.part_of(found.row)
        story["ingest"] = _source(run.made, part, found.row - part.offset)
        story["describe"] = _described(run, part, found.row - part.offset)
        story["judge"] = judged(run.config.judge, part, found.row - part.offset)
        story["dedup"] = _component(run, run.made, found.row, part=part, described=story["describe"])
        story["decontaminate"] = _leak(run, run.made, found.row, part=part, described=story["describe"])
        story["cluster"] = _cluster(run, run.made, found.row)
        story["retrieve"] = [
            answer
            for name, settings in run.config.pools.items()
            if settings.role == "curated"
            if (answer := _retrieved(run, run.made, found.row, pool=name))
        ]
    story["select"] = {"max_images": run.config.select.max_images}
    story["shard"] = _place(run, found.lineage)
    return {**found.lineage, "copies": members, "story": story}


def _members(run: FinishedRun, image: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The images of its component, at most `MAX_MEMBERS`, as the lineage has them."""
    members: list[dict[str, Any]] = []
    if image["component"] is None:
        return members
    columns = ["pool", "key", "decision", "reason", "score", "component"]
    for _, table in run.lineage.tables(columns):
        places = np.flatnonzero(numbers(table["component"]) == image["component"])
        members += rows_at(table, places[: MAX_MEMBERS - len(members)])
    return members


def _source(made: Made, part: Part, local: int) -> dict[str, Any]:
    row = read(part.images).slice(local, 1).to_pylist()[0]
    sidecars = [sidecar["name"] for sidecar in row.pop("sidecars")]
    return {
        "role": part.role,
        "part": part.number,
        "num_parts": len(made.parts),
        "row_of_part": local,
        "rows_of_part": part.num_rows,
        "sidecars": sidecars,
        **{name: row[name] for name in ("path", "offset", "num_bytes", "reason")},
    }


def _described(run: FinishedRun, part: Part, local: int) -> dict[str, Any]:
    """Everything that describe measured: all columns, with scores of heads where there are any."""
    row: dict[str, Any] = read(part.described).slice(local, 1).to_pylist()[0]
    scores = getattr(part, "scores", None)
    if scores is not None:
        row |= read(scores).slice(local, 1).to_pylist()[0]
    row["sha256"] = row["sha256"] and row["sha256"].hex()
    del row["miniature"]  # bytes, of which nobody reads anything
    row["has_poor_hash"] = _most(row) < MIN_CERTAIN_BITS
    row["phash"] = None if row["phash"] is None else f"{row['phash']:016x}"
    vectors = read_array(part.embeddings)
    row["embedder"], row["dim"] = run.config.describe.embed.embedder, vectors.shape[1]
    return row


def judged(config: JudgeConfig, part: Part, local: int) -> dict[str, object]:
    """Each bound in force beside what was measured, judged as the stage judges a row of a part."""
    described = read(part.described).slice(local, 1)
    scores = read(part.scores).slice(local, 1) if part.scores else None
    if described["reason"][0].is_valid:
        return {"bounds": []}
    measured = measurements(described, scores)
    bounds = []
    for one in filters(config):
        value, is_refused = measured[one.measure][0].as_py(), one(measured)[0].as_py()
        passes = not (one.refuses_unknown if is_refused is None else is_refused)
        bound = {"field": f"judge.{one.field}", "limit": one.limit, "measured": value, "passes": passes}
        bounds.append(bound)
    return {"bounds": bounds}


def _compared_by(thresholds: Mapping[str, float], described: Mapping[str, Any]) -> dict[str, float]:
    """Those of the kinds of comparison that a picture takes part in: see `copies.poor_pictures`."""
    by_pixels = _most(described) < MAKE_BELOW_BITS
    by_others = not described["has_poor_hash"]
    return {k: value for k, value in thresholds.items() if (by_pixels if k == "pixels" else by_others)}


def _most(described: Mapping[str, Any]) -> int:
    """The certain bits of its hash; all, where it has none."""
    return NUM_BITS if described["certain_bits"] is None else described["certain_bits"]


def _component(
    run: FinishedRun, made: Made, row: int, *, part: Part, described: Mapping[str, Any]
) -> dict[str, Any]:
    """Its group of copies: who stays, how close it is, and the weakest edge that holds the group together."""
    thresholds = _compared_by(run.config.dedup.thresholds, described)
    copies = read(made.copies)
    place = np.flatnonzero(numbers(copies["row"]) == row)
    if not len(place):
        is_compared = run.config.pools[part.pool].may_enter_dataset
        return {"component": None, "thresholds": thresholds, "is_compared": is_compared}
    mine = copies.slice(int(place[0]), 1).to_pylist()[0]
    health = read(made.health).slice(mine["component"], 1).to_pylist()[0]
    names = run.names([health["weakest_a"], health["weakest_b"], mine["representative"]])
    return {
        "component": mine["component"],
        "thresholds": thresholds,
        "representative": names[mine["representative"]],
        "is_representative": mine["representative"] == row,
        "reason": mine["reason"],
        "score": mine["score"],
        "size": health["size"],
        "distinct": health["distinct"],
        "diameter": health["diameter"],
        "weakest_edge": {
            "a": names[health["weakest_a"]],
            "b": names[health["weakest_b"]],
            "score": health["weakest"],
            "kind": health["weakest_kind"],
        },
        "alarm": health["alarm"],
    }


def _leak(
    run: FinishedRun, made: Made, row: int, *, part: Part, described: Mapping[str, Any]
) -> dict[str, Any]:
    rule = run.config.decontaminate
    holdouts = [name for name, pool in run.config.pools.items() if pool.role == "holdout"]
    table = read(made.leaks)
    place = np.flatnonzero(numbers(table["row"]) == row)
    leak = None
    if len(place):
        leak = table.slice(int(place[0]), 1).to_pylist()[0]
        [leak["holdout"]] = run.names([leak["holdout"]]).values()
    is_compared = run.config.is_decontaminated(part.pool)
    return {
        "holdouts": holdouts,
        "thresholds": _compared_by(rule.thresholds, described),
        "component_threshold": rule.component_threshold,
        "is_compared": is_compared,
        "leak": leak,
    }


def _cluster(run: FinishedRun, made: Made, row: int) -> dict[str, Any] | None:
    """Its cluster: how many images are in it, and how many of each curated pool, its seeds."""
    cluster = np.asarray(read_array(made.cluster))
    if cluster[row] < 0:
        return None
    members = cluster == cluster[row]
    curated = [name for name, pool in run.config.pools.items() if pool.role == "curated"]
    seeds = {name: int((members & in_pools(made.parts, [name])).sum()) for name in curated}
    return {
        "cluster": int(cluster[row]),
        "closeness": float(read_array(made.closeness)[row]),
        "size": int(members.sum()),
        "num_pool": int((members & roles(made.parts, "uncurated")).sum()),
        "seeds": seeds,
    }


def _retrieved(run: FinishedRun, made: Made, row: int, *, pool: str) -> dict[str, Any] | None:
    """What the curated pool has to do with it: it was brought in, or how far it was from that; or as one of
    the pool's own, what it brought in. None where there is nothing to say.
    """
    rule = run.config.pools[pool].retrieval
    if rule.method == "none" or not read_array(made.alive)[row]:
        return None
    part, hits = run.part_of(row), read(made.hits[pool])
    answer: dict[str, Any] = {"pool": pool, "rule": rule.model_dump()}
    if part.pool == pool:
        return answer | _brought(run, hits, row)
    if part.role != "uncurated":
        return None
    places = np.flatnonzero(numbers(hits["row"]) == row)
    places = places[np.argsort(-numbers(hits["score"])[places], kind="stable")]
    best = rows_at(hits, places[:MAX_HITS])
    names = run.names([hit["query"] for hit in best if hit["query"] is not None])
    answer["num_hits"] = len(places)
    answer["hits"] = [
        {"by": names.get(hit["query"]), "rank": hit["rank"] + 1, "score": hit["score"]} for hit in best
    ]
    if not best:
        missed = _missed(run, made, hits, row=row, pool=pool) if isinstance(rule, SampleRetrieval) else None
        answer["missed"] = missed
    if isinstance(rule, ClusterRetrieval):
        seeds = _cluster(run, made, row)
        answer["num_seeds"] = seeds["seeds"][pool] if seeds else 0
    return answer


def _brought(run: FinishedRun, hits: pa.Table, row: int) -> dict[str, object]:
    places = np.flatnonzero(numbers(hits["query"]) == row)
    places = places[np.argsort(numbers(hits["rank"])[places], kind="stable")]
    first = rows_at(hits, places[:MAX_HITS])
    names = run.names([hit["row"] for hit in first])
    brought = [{"image": names[hit["row"]], "rank": hit["rank"] + 1, "score": hit["score"]} for hit in first]
    return {"num_brought": len(places), "brought": brought}


def _missed(run: FinishedRun, made: Made, hits: pa.Table, *, row: int, pool: str) -> dict[str, object] | None:
    """The curated image that came nearest to bringing it in, and the score of the last one that it took.

    The score is the fp64 product of the stored vectors, as in the search itself.
    """
    queries = np.flatnonzero(np.asarray(read_array(made.alive)) & in_pools(made.parts, [pool]))
    [vector] = gather_vectors(made.parts, "embeddings", np.array([row])).astype(np.float64)
    scores = np.full(len(queries), -np.inf)
    for rows, vectors in vector_blocks(made.parts, "embeddings", queries):
        scores[np.searchsorted(queries, rows)] = vectors.astype(np.float64) @ vector
    last = np.full(len(queries), np.inf)
    place = np.searchsorted(queries, numbers(hits["query"]))
    np.minimum.at(last, place, numbers(hits["score"]))
    if not np.isfinite(last).any():
        return None
    nearest, closest = int(np.argmax(scores)), int(np.argmin(last - scores))
    names = run.names([int(queries[nearest]), int(queries[closest])])
    return {
        "nearest": {"by": names[int(queries[nearest])], "score": float(scores[nearest])},
        "closest": {
            "by": names[int(queries[closest])],
            "score": float(scores[closest]),
            "needed": float(last[closest]),
        },
    }


def _place(run: FinishedRun, image: Mapping[str, Any]) -> dict[str, object] | None:
    """Where in which tar its bytes lie."""
    if image["shard"] is None:
        return None
    name = index_name(image["shard"])
    entry = entry_of(run.manifest, f"{run.manifest['dataset_dir']}/{name}")
    if entry:
        index = read_listed(run.run_dir, entry)
    else:
        index = storage.read_table(storage.join(run.dataset_dir, name))
    members = rows_at(index, np.flatnonzero(numbers(index["sample"]) == image["shard_index"]))
    return {
        "path": storage.join(run.dataset_dir, image["shard"]),
        "members": [{key: m[key] for key in ("name", "offset", "num_bytes")} for m in members],
    }
