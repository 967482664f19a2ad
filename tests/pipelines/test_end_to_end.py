"""A whole run: what the manifest promises, resume, and sources that change under it."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from curation.schema import LINEAGE, SELECTION
from curation.shard.read import ShardReader
from pipelines.answers.verify import verify
from pipelines.config.run_config import load_config
from pipelines.config.run_dir import read_run_config
from pipelines.demo.concepts import CONCEPTS
from pipelines.demo.pictures import draw
from pipelines.engine import runner
from pipelines.engine.flow import FLOW
from pipelines.plan.how_far import how_far


def manifest_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "manifest.json").read_text())


def test_lineage_has_one_row_for_every_input_file(
    finished: Path, web: Path, rows_of: Callable[..., Any]
) -> None:
    lineage, truth = rows_of(finished, "lineage"), pq.read_table(web / "truth.parquet")
    assert lineage.schema == LINEAGE
    names = list(zip(lineage["pool"].to_pylist(), lineage["key"].to_pylist(), strict=True))
    assert len(set(names)) == len(names)
    assert set(names) == set(zip(truth["pool"].to_pylist(), truth["key"].to_pylist(), strict=True))


def test_the_list_of_stages_is_that_of_the_flow(finished: Path) -> None:
    states = how_far(read_run_config(str(finished)))
    assert tuple(dict.fromkeys(state.stage for state in states)) == FLOW


def test_what_was_broken_is_dropped_for_its_own_reason(
    finished: Path, web: Path, rows_of: Callable[..., Any]
) -> None:
    reasons = {(r["pool"], r["key"]): r["reason"] for r in rows_of(finished, "lineage").to_pylist()}
    wanted = {
        "broken_empty": {"empty"},
        "broken_html": {"not_an_image"},
        "broken_bomb": {"too_many_pixels"},
        "broken_truncated": {"truncated"},
        "broken_tiny": {"too_small"},
        "broken_aspect": {"aspect"},
        "exact": {"exact_copy", "leaks_holdout"},
        "leak_exact": {"leaks_holdout"},
    }
    for row in pq.read_table(web / "truth.parquet").to_pylist():
        if row["kind"] in wanted and row["kind"] != "exact":
            assert reasons[row["pool"], row["key"]] in wanted[row["kind"]], row


def test_the_funnel_adds_up_and_follows_from_the_lineage(finished: Path, rows_of: Callable[..., Any]) -> None:
    manifest, rows = manifest_of(finished), rows_of(finished, "lineage").to_pylist()
    for pool, counts in manifest["counts"].items():
        if pool == "dataset":
            continue
        mine = [row for row in rows if row["pool"] == pool]
        levels = [level for level in manifest["funnel"] if level["pool"] == pool]
        assert levels[0]["in"] == counts["images"] == len(mine)
        assert levels[-1]["out"] == counts["kept"] == sum(row["decision"] == "kept" for row in mine)
        for before, after in zip(levels, [*levels[1:], None], strict=True):
            assert before["in"] == before["out"] + sum(before["dropped"].values())
            assert after is None or before["out"] == after["in"]
            for reason, number in before["dropped"].items():
                dropped = [r for r in mine if (r["stage"], r["reason"]) == (before["stage"], reason)]
                assert len(dropped) == number
                assert {r["decision"] for r in dropped} == {"dropped"}
    kept = sum(row["decision"] == "kept" for row in rows)
    assert manifest["counts"]["dataset"] == kept == sum(s["num_samples"] for s in manifest["shards"])
    assert manifest["complete"]
    assert manifest["unread"] == []


def test_holdouts_stay_out_and_every_cause_is_named(finished: Path, rows_of: Callable[..., Any]) -> None:
    rows = rows_of(finished, "lineage").to_pylist()
    known = {(row["pool"], row["key"]): row for row in rows}
    for row in rows:
        if row["pool"] == "evaluation":
            assert row["decision"] == "dropped"
        if row["reason"] in ("exact_copy", "near_copy", "leaks_holdout", "retrieved_by_sample"):
            cause = known[row["by_pool"], row["by_key"]]
            assert 0 < row["score"] <= 1
            if row["reason"] == "leaks_holdout":
                assert cause["pool"] == "evaluation"
            if row["stage"] == "dedup":
                assert cause["component"] == row["component"]
        assert (row["shard"] is None) is (row["decision"] == "dropped")


def test_shards_hold_the_original_bytes(finished: Path, rows_of: Callable[..., Any]) -> None:
    manifest, selection = manifest_of(finished), rows_of(finished, "selection")
    assert selection.schema == SELECTION
    places = {(row["shard"], row["shard_index"]): row for row in selection.to_pylist()}
    assert len(places) == selection.num_rows
    assert [s["num_samples"] for s in manifest["shards"][:-1]] == [30] * (len(manifest["shards"]) - 1)
    with ShardReader(str(finished / manifest["dataset_dir"])) as reader:
        for number, shard in enumerate(manifest["shards"]):
            data = (finished / shard["path"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])
            for index in range(shard["num_samples"]):
                sample = reader.read(number, index)
                row = places.pop((Path(shard["path"]).name, index))
                assert sample.key == row["image_id"] == hashlib.sha256(sample.data).hexdigest()[:32]
                if "#" not in row["uri"]:
                    assert sample.data == Path(row["uri"]).read_bytes()
                else:  # what lay beside it in its tar travels along
                    assert b"a picture of" in sample.sidecars["txt"]
                assert (sample.meta["pool"], sample.meta["key"]) == (row["pool"], row["key"])
    assert not places


def test_nothing_is_done_again(
    *, damageable: Path, finished: Path, configure: Any, run_quietly: Any, digests: Any, monkeypatch: Any
) -> None:
    def never(*_args: object) -> None:
        raise AssertionError("there was nothing to do")

    monkeypatch.setattr(runner.Runner, "_do", never)
    assert run_quietly(configure(damageable)).exit_code == 0
    assert digests(damageable) == digests(finished)


def test_a_changed_threshold_describes_nothing_anew(
    damageable: Path, configure: Any, run_quietly: Any
) -> None:
    before = manifest_of(damageable)
    described = {path.name for path in (damageable / "steps" / "describe").iterdir()}
    assert run_quietly(configure(damageable, "judge.min_side_px=2")).exit_code == 0
    assert {path.name for path in (damageable / "steps" / "describe").iterdir()} == described
    after = manifest_of(damageable)
    assert after["dataset_dir"] != before["dataset_dir"]
    assert (damageable / before["dataset_dir"]).exists()  # beside the new one, never overwritten
    assert verify(str(damageable)) == []


def test_the_saved_config_is_the_run(
    damageable: Path, finished: Path, run_quietly: Any, digests: Any
) -> None:
    config = load_config(str(damageable / "run.yaml"), [f"run_dir={damageable}"])
    assert run_quietly(config).exit_code == 0
    assert digests(damageable) == digests(finished)


@pytest.fixture
def changing_web(web: Path, tmp_path: Path) -> Path:
    root = tmp_path / "web"
    shutil.copytree(web, root)
    return root


def test_a_source_that_changes_in_mid_run_is_dropped_and_said_so(
    changing_web: Path, tmp_path: Path, configure: Any, run_quietly: Any, rows_of: Any
) -> None:
    config = configure(tmp_path / "run", root=changing_web)
    assert run_quietly(config, until="select").manifest is None
    files = sorted((changing_web / "curated").rglob("*.jpg"))
    gone, other = [file for file in files if _is_selected(tmp_path / "run", file)][:2]
    gone.unlink()
    data = other.read_bytes()
    other.write_bytes(data[:-2] + bytes(2))
    result = run_quietly(config)
    assert result.exit_code == 3
    assert not result.manifest["complete"]
    lost = {"path": "pool trusted", "what": "source_changed", "detail": "2 images at shard", "offset": None}
    assert result.manifest["unread"] == [lost]
    rows = {row["uri"]: row for row in rows_of(tmp_path / "run", "lineage").to_pylist()}
    for file in (gone, other):
        assert (rows[str(file)]["stage"], rows[str(file)]["reason"]) == ("shard", "source_changed")
    assert verify(str(tmp_path / "run")) == []
    assert run_quietly(config).exit_code == 3  # the same again, until it is looked at anew
    refreshed = run_quietly(config, refresh=True)
    assert refreshed.exit_code == 0
    assert (
        refreshed.manifest["counts"]["trusted"]["images"]
        == result.manifest["counts"]["trusted"]["images"] - 1
    )


def _is_selected(run_dir: Path, file: Path) -> bool:
    """Whether a curated image survived up to select: not a copy, not a leak."""
    dropped = set()
    for folder, name in (("dedup_components", "copies"), ("decontaminate_leaks", "leaks")):
        for table in (run_dir / "steps" / folder).glob(f"*/{name}.parquet"):
            rows = pq.read_table(table)
            bad = rows.filter(rows["reason"].is_valid()) if "reason" in rows.column_names else rows
            dropped |= set(bad["row"].to_pylist())
    keys = []
    for table in sorted((run_dir / "steps" / "ingest").glob("*/part-*.parquet")):
        images = pq.read_table(table)
        if "/curated/" in images["path"][0].as_py():
            keys += images["path"].to_pylist()
    return keys.index(str(file)) not in dropped  # the curated pool comes first


def test_a_pool_without_anchors_keeps_what_is_clean_and_new(
    tmp_path: Path, configure: Any, run_quietly: Any
) -> None:
    config = configure(tmp_path / "run")
    pools = {name: pool for name, pool in config.pools.items() if pool.role == "uncurated"}
    result = run_quietly(config.model_copy(update={"pools": pools}))
    assert result.exit_code == 0
    counts = result.manifest["counts"]["web"]
    assert counts["kept"] == counts["images"] - counts["rejected"] - counts["duplicates"]
    assert not (tmp_path / "run" / "steps" / "retrieve").exists()
    assert verify(str(tmp_path / "run")) == []


def test_a_refresh_of_what_has_not_changed_describes_nothing_again(
    changing_web: Path, tmp_path: Path, configure: Any, run_quietly: Any
) -> None:
    config = configure(tmp_path / "run", root=changing_web)
    run_quietly(config, until="describe")
    before = sorted((tmp_path / "run" / "steps" / "describe").iterdir())
    result = run_quietly(config, until="describe", refresh=True)
    assert {state.name: state.num_done == state.num_items for state in result.states}["describe"]
    assert sorted((tmp_path / "run" / "steps" / "describe").iterdir()) == before


def test_an_image_lost_at_the_last_moment_comes_back_with_a_refresh(
    changing_web: Path, tmp_path: Path, configure: Any, run_quietly: Any
) -> None:
    config = configure(tmp_path / "run", root=changing_web)
    whole = run_quietly(config.model_copy(update={"run_dir": str(tmp_path / "whole")})).manifest
    assert run_quietly(config, until="select").manifest is None
    file = next(
        f for f in sorted((changing_web / "curated").rglob("*.jpg")) if _is_selected(tmp_path / "run", f)
    )
    file.rename(tmp_path / "away")
    assert run_quietly(config).exit_code == 3
    (tmp_path / "away").rename(file)
    again = run_quietly(config, refresh=True)
    assert again.exit_code == 0
    assert again.manifest["shards"] == [
        {**shard, "path": shard["path"].replace(whole["dataset_dir"], again.manifest["dataset_dir"])}
        for shard in whole["shards"]
    ]


def test_a_damaged_shard_is_put_right_by_the_next_run(
    damageable: Path, configure: Any, run_quietly: Any
) -> None:
    config = configure(damageable)
    [dataset] = damageable.glob("dataset-*")
    tar = sorted(dataset.glob("*.tar"))[0]
    tar.unlink()
    tar.write_bytes(b"damaged")
    assert verify(str(damageable))
    assert run_quietly(config).exit_code == 0
    assert verify(str(damageable)) == []

    tar.write_bytes(b"damaged")  # and now the step's file, which is the same one by a hard link
    assert [one.read_bytes() for one in damageable.glob("steps/shard/*/*.tar")].count(b"damaged") == 1
    assert run_quietly(config).exit_code == 0
    assert verify(str(damageable)) == []


def test_a_file_too_large_is_never_read(
    changing_web: Path, tmp_path: Path, configure: Any, run_quietly: Any, rows_of: Any
) -> None:
    huge = changing_web / "curated" / "huge.jpg"
    with huge.open("wb") as out:
        out.truncate(3 << 40)  # three terabytes of nothing
    run_quietly(configure(tmp_path / "run", root=changing_web))
    rows = {row["uri"]: row for row in rows_of(tmp_path / "run", "lineage").to_pylist()}
    assert (rows[str(huge)]["stage"], rows[str(huge)]["reason"]) == ("describe", "file_too_large")


def test_a_pool_that_grows_keeps_the_edges_of_the_others(
    changing_web: Path, tmp_path: Path, configure: Any, run_quietly: Any
) -> None:
    config = configure(tmp_path / "run", "dedup.block_rows=1024", root=changing_web)
    run_quietly(config, until="dedup")
    first = {path.name for path in (tmp_path / "run" / "steps" / "dedup_edges").iterdir()}
    [grown] = [name for name, pool in config.pools.items() if pool.role == "curated"]
    extra = tmp_path / "extra"
    extra.mkdir()
    picture = draw(CONCEPTS[0], np.random.default_rng(99))
    picture.save(extra / "new.png")
    pool = config.pools[grown]
    source = pool.sources[0].model_copy(update={"path": str(extra), "key_prefix": "extra/"})
    pools = dict(config.pools) | {grown: pool.model_copy(update={"sources": (*pool.sources, source)})}
    run_quietly(config.model_copy(update={"pools": pools}), until="dedup")
    second = {path.name for path in (tmp_path / "run" / "steps" / "dedup_edges").iterdir()}
    # Two blocks, one of each pool: three pairs. The web's with itself is as it was; only two are new.
    assert len(first - {"markers"}) == 3
    assert len(second - first) == 2
