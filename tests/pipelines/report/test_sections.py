"""The sections of the page: each against the lineage and the manifest of a small run, in plain Python."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from report_runs import MakeRun, jpeg

from curation import storage
from curation.dedup.config import DedupConfig
from curation.dedup.edges import Edges
from curation.describe.describe import DescribeConfig
from curation.describe.embed import EmbedConfig
from curation.describe.filters import JudgeConfig
from curation.pictures.blur import BlurConfig
from curation.schema import EDGE_KINDS, FACES
from curation.shard.layout import ShardConfig
from pipelines.answers.finished_run import FinishedRun, require_run
from pipelines.engine.step import FileRef, Receipt
from pipelines.report.clusters import gather_clusters
from pipelines.report.content import Content, gather
from pipelines.report.edges import gather_edges
from pipelines.report.embedder import note_embedder
from pipelines.report.faces import gather_faces
from pipelines.report.filters import gather_filters, pictures_of
from pipelines.report.leaks import gather_leaks
from pipelines.report.reasons import gather_reasons
from pipelines.report.retrieval import gather_retrieval
from pipelines.report.scan import scan
from pipelines.report.timings import gather_timings
from pipelines.rows.parts import read
from pipelines.stages.copies.saved_edges import read_edges


@pytest.fixture(scope="module")
def asked(rich_run: Path) -> FinishedRun:
    return require_run(str(rich_run))


@pytest.fixture(scope="module")
def rows(asked: FinishedRun) -> list[dict[str, Any]]:
    return asked.lineage.table().to_pylist()


@pytest.fixture(scope="module")
def content(asked: FinishedRun) -> Content:
    return gather(asked)


def test_every_reason_has_its_number_and_examples_of_it(
    asked: FinishedRun, rows: list[dict[str, Any]], content: Content
) -> None:
    dropped = Counter((r["stage"], r["reason"]) for r in rows if r["decision"] == "dropped")
    assert {(one.stage, one.reason): one.num for one in content.reasons} == dropped
    for one in content.reasons:
        assert sum(one.by_pool.values()) == one.num
        assert len(one.examples) == min(one.num, 11)
        assert {(p.stage, p.reason) for p in one.examples} == {(one.stage, one.reason)}
    few = gather_reasons(asked.lineage, scan(asked.lineage, num_samples=1, seed=3))
    assert [len(one.examples) for one in few] == [1] * len(dropped)


def test_clusters_are_counted(asked: FinishedRun, rows: list[dict[str, Any]], content: Content) -> None:
    sizes = Counter(row["cluster"] for row in rows if row["cluster"] is not None)
    kept = Counter(row["cluster"] for row in rows if row["decision"] == "kept")
    found = content.clusters
    assert found is not None
    assert (found.num, found.num_images) == (len(sizes), sum(sizes.values()))
    assert (found.largest, found.smallest) == (max(sizes.values()), min(sizes.values()))
    assert found.num_untouched == sum(number not in kept for number in sizes)
    for one in found.shown:
        assert (one.size, one.num_kept) == (sizes[one.number], kept[one.number])
        assert {picture.cluster for picture in one.examples} == {one.number}
    assert [p.row for p in found.pictures()] == [p.row for one in found.shown for p in one.examples]
    nothing = scan(asked.lineage, num_samples=1, seed=0)
    nothing.cluster_size = np.zeros(0, np.int64)
    assert gather_clusters(asked.lineage, nothing, seed=0) is None


def test_leaks_stand_beside_what_they_leak(
    asked: FinishedRun, rows: list[dict[str, Any]], content: Content
) -> None:
    leaks = content.leaks
    assert leaks is not None
    leaked = [row for row in rows if row["reason"] == "leaks_holdout"]
    assert leaks.num == len(leaks.pairs) == len(leaked) > 0
    assert leaks.num_holdout == len({row["by_key"] for row in leaked})
    for pair in leaks.pairs:
        row = rows[pair.image.row]
        assert (row["by_pool"], row["by_key"]) == (pair.holdout.pool, pair.holdout.key)
        assert row["score"] == pair.score
    assert leaks.pictures()[:2] == [leaks.pairs[0].image, leaks.pairs[0].holdout]
    assert gather_leaks(asked.lineage, None, seed=0) is None


def test_hits_are_those_of_the_run(asked: FinishedRun, content: Content) -> None:
    retrieved, made = content.retrieval, asked.curated
    assert retrieved is not None
    assert made is not None
    [pool] = retrieved.pools
    hits = read(made.hits["trusted"]).to_pylist()
    assert (pool.pool, pool.nominal, pool.unique) == ("trusted", len(hits), len({h["row"] for h in hits}))
    assert (retrieved.nominal, retrieved.unique) == (pool.nominal, pool.unique)
    assert pool.num_queries == len({hit["query"] for hit in hits})
    assert pool.rule == "by sample: the 4 nearest pool images of every curated image"
    for shown in pool.rows:
        mine = sorted((h for h in hits if h["query"] == shown.query.row), key=lambda h: h["rank"])
        assert [hit.picture.row for hit in shown.hits] == [hit["row"] for hit in mine][:8]
        assert [hit.score for hit in shown.hits] == [hit["score"] for hit in mine][:8]
        assert shown.num_hits == len(mine)
    assert gather_retrieval(asked.lineage, None, pools=asked.config.pools, seed=0) is None


def test_filters_show_what_lies_beside_their_threshold(asked: FinishedRun) -> None:
    made = asked.curated
    assert made is not None
    described = [row for part in made.parts for row in read(part.described).to_pylist()]
    stds = {i: row["pixel_std"] for i, row in enumerate(described) if row["reason"] is None}
    limit = float(np.median(list(stds.values()))) + 1e-4
    views = gather_filters(asked.lineage, made, config=JudgeConfig(min_pixel_std=limit))
    assert views is not None
    [view] = [view for view in views if view.field == "min_pixel_std"]
    below = sorted((limit - std, i) for i, std in stds.items() if std < limit)
    above = sorted((std - limit, i) for i, std in stds.items() if std >= limit)
    assert (view.num_measured, view.num_refused, view.limit) == (len(stds), len(below), limit)
    assert [one.picture.row for one in view.refused] == [i for _, i in below[:5]]
    assert [one.picture.row for one in view.passed] == [i for _, i in above[:5]]
    assert [one.score for one in view.passed] == [stds[i] for _, i in above[:5]]
    beside = [one.picture for one in (*reversed(view.passed), *view.refused)]
    assert pictures_of([view]) == beside
    assert gather_filters(asked.lineage, None, config=JudgeConfig()) is None


def listed(edges: Edges) -> list[tuple[int, int, float, str]]:
    kinds = (EDGE_KINDS[kind] for kind in edges.kind)
    return list(zip(edges.a.tolist(), edges.b.tolist(), edges.score.tolist(), kinds, strict=True))


def test_edges_among_rows_and_their_spread(asked: FinishedRun, rows: list[dict[str, Any]]) -> None:
    made, config = asked.curated, asked.config.dedup
    assert made is not None
    every = [edge for file in made.copies.edges for edge in listed(read_edges(file))]
    near = [i for i, row in enumerate(rows) if row["component"] is not None]
    among, scores = gather_edges(made, np.array(near), config=config)
    deciding = [e for e in every if e[3] != "cosine" or e[2] >= config.cosine_threshold]
    assert deciding
    assert sorted(listed(among)) == sorted(deciding)
    assert len(gather_edges(made, np.array([near[0]]), config=config)[0]) == 0
    assert {one.kind: one.num for one in scores} == {"perceptual hash": len(every)}
    nothing, none = gather_edges(None, np.array(near), config=DedupConfig())
    assert (len(nothing), none) == (0, [])


def test_faces_are_counted_where_they_were_looked_for(
    asked: FinishedRun, rows: list[dict[str, Any]], save_table: Callable[..., FileRef]
) -> None:
    made = asked.curated
    assert made is not None
    assert gather_faces(asked.lineage, made, config=ShardConfig(), seed=0) is None
    kept = int(asked.lineage.kept()[0])
    lost = next(i for i, row in enumerate(rows) if row["decision"] == "dropped")
    found = [(kept, 0.9), (kept, 0.6), (lost, 0.6)]
    parts = []
    for part in made.parts:
        mine = [
            (row - part.offset, score) for row, score in found if asked.part_of(row).number == part.number
        ]
        parts.append(replace(part, faces=save_table(mine)))
    with_faces = replace(made, parts=tuple(parts))
    every = gather_faces(asked.lineage, with_faces, config=ShardConfig(), seed=0)
    assert every is not None
    assert (every.num_images, every.num, every.num_images_kept, every.num_kept) == (2, 3, 1, 2)
    assert [(picture.row, num) for picture, num in every.examples] == [(kept, 2)]
    surer = ShardConfig(blur_faces=BlurConfig(min_score=0.8))
    few = gather_faces(asked.lineage, with_faces, config=surer, seed=0)
    assert few is not None
    assert (few.num_images, few.num, few.is_blurred) == (1, 1, True)


@pytest.fixture
def save_table(tmp_path: Path) -> Callable[..., FileRef]:
    """Saves faces, each a row and a score."""

    def save(found: list[tuple[int, float]]) -> FileRef:
        path = str(tmp_path / f"faces-{len(list(tmp_path.iterdir()))}.parquet")
        blank = dict.fromkeys(FACES.names, 0)
        faces = [blank | {"row": row, "score": score} for row, score in found]
        storage.write_table(path, pa.Table.from_pylist(faces, FACES))
        sha256, num_bytes = storage.sha256_file(path)
        return FileRef(path, num_bytes, sha256)

    return save


def test_timings_add_up_the_receipts() -> None:
    def receipt(num_rows: int, work_s: float) -> Receipt:
        timings = {"work_s": work_s, "publish_s": 0.25}
        return Receipt("describe", "", "", {"a": (10, ""), "b": (5, "")}, {"num_rows": num_rows}, timings)

    bare = Receipt("select", "", "", {}, {})
    first, second = gather_timings({"describe": [receipt(6, 1.5), receipt(4, 0.5)], "select": [bare]})
    assert (first.step, first.num_items, first.num_rows, first.num_bytes) == ("describe", 2, 10, 30)
    assert (first.work_s, first.publish_s, first.rows_per_s) == (2.0, 0.5, 5.0)
    assert (second.num_items, second.work_s, second.rows_per_s) == (1, 0.0, None)


@pytest.mark.parametrize(
    ("embedder", "is_warning", "words"),
    [
        ("gist", True, "weight-free default"),
        ("precomputed:/data/vectors.parquet", False, "brought along"),
        ("timm:resnet50", False, "A trained model"),
    ],
)
def test_what_made_the_vectors_is_said(embedder: str, is_warning: bool, words: str) -> None:
    note = note_embedder(DescribeConfig(embed=EmbedConfig(embedder=embedder)))
    assert (note.name, note.is_warning) == (embedder, is_warning)
    assert words in note.text


def test_the_page_lists_each_picture_as_often_as_it_shows_it(content: Content, asked: FinishedRun) -> None:
    shown = content.pictures()
    assert content.retrieval is not None
    assert content.clusters is not None
    assert content.leaks is not None
    sections = (
        sum(len(reason.examples) for reason in content.reasons)
        + len(pictures_of(content.filters or ()))
        + len(content.duplicates.pictures())
        + len(content.leaks.pictures())
        + sum(len(pool.pictures()) for pool in content.retrieval.pools)
        + len(content.clusters.pictures())
    )
    assert len(shown) == sections
    assert content.roles == {"trusted": "curated", "web <u>": "uncurated", "exam": "holdout"}
    assert content.has_steps
    assert [timing.step for timing in content.timings] == list(asked.receipts)


def test_without_intermediate_data_the_lineage_alone_is_told(make_run: MakeRun, tmp_path: Path) -> None:
    files = {f"{i}.jpg": jpeg(i) for i in range(3)} | {"copy.jpg": jpeg(0, 40)}
    run_dir = make_run(tmp_path, {"web": ("uncurated", files)})
    whole = gather(require_run(str(run_dir)))
    shutil.rmtree(run_dir / "steps")
    bare = gather(require_run(str(run_dir)))
    assert whole.has_steps
    assert not bare.has_steps
    assert (bare.filters, bare.faces, bare.leaks, bare.retrieval, bare.timings) == (
        None,
        None,
        None,
        None,
        [],
    )
    assert bare.reasons == whole.reasons
    assert bare.clusters == whole.clusters
    assert bare.duplicates.num_components == whole.duplicates.num_components == 1
    assert bare.duplicates.scores == ()
