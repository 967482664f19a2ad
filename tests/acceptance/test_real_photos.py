"""Real photographs with planted copies through the whole pipeline, by foreign and by built-in embeddings."""

import hashlib
import os
import shutil
import tarfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from lvd_process import run_lvd
from outcome import Outcome
from planted import KINDS, measure

from curation.schema import REASONS, STAGES
from pipelines.demo.score import Share

pytestmark = pytest.mark.accept

POOLS = {
    "imagenette": "imagenette/train",
    "photos": "pool/photos",
    "pets": "pool/pets",
    "posters": "pool/posters",
    "planted": "planted",
    "imagenette_val": "imagenette/val",
}
UNCURATED = ("photos", "pets", "posters", "planted")
# Pairs that nobody planted and that are copies all the same: one picture, mirrored or cut or saved anew.
NATURAL_COPIES = {
    frozenset(f"pool/pets/ukbench00{number}.jpg" for number in pair)
    for pair in [("106", "230"), ("734", "756"), ("081", "522"), ("784", "787"), ("823", "911")]
}


@pytest.fixture(scope="module", params=["precomputed", "gist"])
def outcome(
    request: pytest.FixtureRequest, photographs: Any, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    run_dir = tmp_path_factory.mktemp(request.param) / "run"
    run_lvd(arguments(photographs, run_dir, embedder=request.param), log=run_dir.with_name("log"))
    return Outcome(run_dir)


def arguments(photographs: Any, run_dir: Path, *, embedder: str) -> list[str]:
    """The command line of a run over the photographs."""
    settings = [f"root={photographs.real}", f"run_dir={run_dir}"]
    settings.append(f"pools.planted.sources.0.path={photographs.planted / 'planted'}")
    if embedder == "precomputed":
        settings.append(f"describe.embed.embedder=precomputed:{photographs.planted / 'embeddings.parquet'}")
    return ["run", "real_photos.yaml", "--executor", "local", *(f"--set={setting}" for setting in settings)]


def files_of(photographs: Any) -> dict[tuple[str, str], Path]:
    """Every file of every pool, as the file system tells it: (pool, key) → path."""
    found = {}
    for pool, prefix in POOLS.items():
        top = (photographs.planted if pool == "planted" else photographs.real) / prefix
        for folder, _, names in os.walk(top):
            for name in names:
                path = Path(folder) / name
                found[pool, f"{prefix}/{path.relative_to(top)}"] = path
    return found


def test_lineage_has_one_row_for_each_file(outcome: Outcome, photographs: Any) -> None:
    files = files_of(photographs)
    rows = outcome.rows
    assert len(files) == 2999 + 998 + 4692 + 1500
    assert Counter((row["pool"], row["key"]) for row in rows) == Counter(dict.fromkeys(files, 1))
    for row in rows:
        path = files[row["pool"], row["key"]]
        assert row["uri"] == str(path)
        assert row["image_id"] == hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def test_counts_add_up_for_every_pool_and_stage(outcome: Outcome, photographs: Any) -> None:
    seen = Counter(
        (row["pool"], row["stage"], row["reason"]) for row in outcome.rows if row["decision"] == "dropped"
    )
    images = Counter(pool for pool, _ in files_of(photographs))
    kept = Counter(row["pool"] for row in outcome.rows if row["decision"] == "kept")
    levels = {(level["pool"], level["stage"]): level for level in outcome.manifest["funnel"]}
    assert len(levels) == len(outcome.manifest["funnel"]) == len(POOLS) * len(STAGES)
    for pool in POOLS:
        left = images[pool]
        for stage in STAGES:
            level = levels[pool, stage]
            drops = {r: n for r in REASONS[stage] if (n := seen[pool, stage, r])}
            left -= sum(drops.values())
            assert level["in"] == level["out"] + sum(level["dropped"].values())
            assert (level["out"], level["dropped"]) == (left, drops)
        counts = outcome.manifest["counts"][pool]
        assert (counts["images"], counts["kept"], left) == (images[pool], kept[pool], kept[pool])
    assert outcome.manifest["counts"]["dataset"] == kept.total() == outcome.selection.num_rows


def test_every_shard_is_what_the_manifest_says(outcome: Outcome, tmp_path: Path) -> None:
    for entry, path in zip(outcome.manifest["shards"], outcome.shards, strict=True):
        data = path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"])
        with tarfile.open(path) as tar:
            assert len({name.partition(".")[0] for name in tar.getnames()}) == entry["num_samples"]
    run_lvd(["verify", str(outcome.run_dir)], log=tmp_path / "log")


def test_webdataset_gives_the_original_bytes(outcome: Outcome, photographs: Any) -> None:
    webdataset = pytest.importorskip("webdataset")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves closing to the collector
        read = webdataset.WebDataset(
            list(map(str, outcome.shards)), shardshuffle=False, handler=webdataset.reraise_exception
        )
        check_bytes(((sample["__key__"], sample["jpg"]) for sample in read), outcome, photographs)


def test_hugging_face_datasets_give_the_original_bytes(
    outcome: Outcome, photographs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = pytest.importorskip("datasets")
        datasets.disable_progress_bars()
        read = datasets.load_dataset(
            "webdataset",
            data_files=[str(path) for path in outcome.shards],
            split="train",
            cache_dir=str(tmp_path),
        ).cast_column("jpg", datasets.Image(decode=False))
        check_bytes(((row["__key__"], row["jpg"]["bytes"]) for row in read), outcome, photographs)


def check_bytes(samples: Iterator[tuple[str, bytes]], outcome: Outcome, photographs: Any) -> None:
    """Each selected image came out once, in the order of the selection's places, with its file's bytes."""
    files = files_of(photographs)
    chosen = sorted(outcome.selection.to_pylist(), key=lambda row: (row["shard"], row["shard_index"]))
    for row, (key, data) in zip(chosen, samples, strict=True):
        assert key == row["image_id"]
        assert data == files[row["pool"], row["key"]].read_bytes()


def test_all_exact_copies_are_found(outcome: Outcome) -> None:
    same: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in outcome.rows:
        same[row["image_id"]].append(row)
    groups = [rows for rows in same.values() if len(rows) > 1]
    assert len(groups) >= len(KINDS)  # the planted ones at least
    for rows in groups:
        assert sum(row["decision"] == "kept" for row in rows) <= 1
        if any(row["reason"] == "holdout" for row in rows):
            assert {row["reason"] for row in rows} == {"holdout", "leaks_holdout"}
        else:
            assert len({row["component"] for row in rows} - {None}) == 1


def test_planted_copies_and_leaks(outcome: Outcome, photographs: Any) -> None:
    found = measure(photographs.truth, outcome.lineage)
    print(f"\n{'kind':>10} {'copies found':>14} {'drops right':>14} {'leaks caught':>14}")
    for kind in KINDS:
        cells = [shares.get(kind, Share(0, 0)) for shares in (found.recall, found.precision, found.leaks)]
        print(f"{kind:>10} " + " ".join(f"{share.hits:>6} of {share.of:>4}" for share in cells))
    wrong = wrong_pairs(outcome, photographs)
    print(f"drops right in all: {found.precision_all}; wrong: {wrong}")
    assert found.recall["exact"].value == 1
    for kind in ("reencode", "resize"):
        assert found.recall[kind].value >= 0.99
        assert found.precision[kind].value >= 0.99
    unplanted = sum(pair not in NATURAL_COPIES for pair in wrong)
    assert unplanted <= 0.01 * found.precision_all.of


def wrong_pairs(outcome: Outcome, photographs: Any) -> list[frozenset[str]]:
    """The originals of each image that was dropped for an image of another original."""
    originals = {row["key"]: row["parent_key"] for row in photographs.truth.to_pylist()}
    pairs = [
        frozenset(originals.get(row[name], row[name]) for name in ("key", "by_key"))
        for row in outcome.rows
        if row["reason"] in ("exact_copy", "near_copy")
    ]
    return [pair for pair in pairs if len(pair) > 1]


def test_reencoded_leaks_are_dropped_and_name_their_image(outcome: Outcome, photographs: Any) -> None:
    rows = {row["key"]: row for row in outcome.rows}
    named: dict[str, list[bool]] = defaultdict(list)
    for leak in photographs.truth.to_pylist():
        if leak["parent_pool"] == "holdout":
            row = rows[leak["key"]]
            blamed = (row["reason"], row["by_pool"], row["by_key"])
            named[leak["kind"]].append(blamed == ("leaks_holdout", "imagenette_val", leak["parent_key"]))
    print({kind: f"{sum(right)} of {len(right)}" for kind, right in sorted(named.items())})
    assert all(named["exact"])
    for kind in ("reencode", "resize"):
        assert np.mean(named[kind]) >= 0.99


def vectors_of(outcome: Outcome, photographs: Any) -> np.ndarray:
    """The foreign vector of every global row, fp64."""
    table = pq.read_table(photographs.planted / "embeddings.parquet")
    place = {key: i for i, key in enumerate(table["key"].to_pylist())}
    vectors = np.array(table["embedding"].to_pylist(), np.float16).astype(np.float64)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() <= 2**-10  # unit: taken bit for bit
    return vectors[[place[row["key"]] for row in outcome.rows]]


def alive(outcome: Outcome, *pools: str) -> np.ndarray:
    """The global rows of pools that came as far as retrieval."""
    late = ("retrieve", "select", "shard")
    return np.array(
        [i for i, row in enumerate(outcome.rows) if row["pool"] in pools and row["stage"] in late]
    )


@pytest.mark.parametrize("outcome", ["precomputed"], indirect=True)
def test_sample_retrieval_gives_the_exact_nearest(outcome: Outcome, photographs: Any) -> None:
    vectors, rows = vectors_of(outcome, photographs), outcome.rows
    queries, targets = alive(outcome, "imagenette"), alive(outcome, *UNCURATED)
    # Ties go by image id, then global row; sorted stably by score, targets in that order keep it.
    targets = np.array(sorted(targets, key=lambda i: (rows[i]["image_id"], i)))
    # Products of fp16 unit vectors are exact in fp64, whatever the order of the sum.
    scores = vectors[queries] @ vectors[targets].T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :4]
    hits = pq.read_table(outcome.step_file("retrieve", "hits.parquet"))
    assert hits["query"].to_pylist() == np.repeat(queries, 4).tolist()
    assert hits["rank"].to_pylist() == [0, 1, 2, 3] * len(queries)
    assert hits["row"].to_pylist() == targets[order].ravel().tolist()
    assert hits["score"].to_pylist() == np.take_along_axis(scores, order, axis=1).ravel().tolist()
    retrieved = {i for i, row in enumerate(rows) if row["reason"] == "retrieved_by_sample"}
    assert retrieved == set(hits["row"].to_pylist())


@pytest.mark.parametrize("outcome", ["precomputed"], indirect=True)
def test_cluster_retrieval_holds_quota_seed_hits_and_cap(
    outcome: Outcome, photographs: Any, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(outcome.run_dir, run_dir)  # so that all steps before retrieval are done
    rule = "{method: cluster, min_seed_hits: 4, per_cluster: 30, cap: 1000}"
    command = [
        *arguments(photographs, run_dir, embedder="precomputed"),
        f"--set=pools.imagenette.retrieve={rule}",
    ]
    run_lvd(command, log=tmp_path / "log")
    assert "describe" not in (tmp_path / "log").read_text()
    rows = Outcome(run_dir).rows
    seeds, pool = alive(outcome, "imagenette"), alive(outcome, *UNCURATED)
    label = np.array([-1 if row["cluster"] is None else row["cluster"] for row in rows])
    score = np.load(outcome.step_file("cluster", "score.npy"))
    num_seeds = np.bincount(label[seeds], minlength=label.max() + 1)
    giving = np.flatnonzero(num_seeds >= 4)
    taken = np.array([i for i in pool if rows[i]["reason"] == "retrieved_by_cluster"])
    assert set(label[taken]) <= set(giving)
    available = np.minimum(np.bincount(label[pool], minlength=len(num_seeds)), 30)[giving]
    given = np.bincount(label[taken], minlength=len(num_seeds))[giving]
    assert len(taken) == min(1000, available.sum())
    assert available.sum() > 1000, "the cap decides nothing"
    # Under the cap each cluster gives its first image before any gives its second.
    full = given.max()
    assert (given >= np.minimum(available, full - 1)).all()
    for cluster in giving:
        members = pool[label[pool] == cluster]
        chosen = np.isin(members, taken)
        if chosen.any() and not chosen.all():
            assert score[members[chosen]].min() >= score[members[~chosen]].max()
