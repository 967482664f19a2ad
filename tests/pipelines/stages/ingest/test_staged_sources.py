"""Sources that are staged, through whole runs: the same decisions, resumed, refreshed, cleaned."""

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation import storage
from curation.errors import ConfigError, IntegrityError
from pipelines.answers.clean import clean, find_leftovers
from pipelines.answers.verify import verify
from pipelines.cli import main as cli
from pipelines.config.run_config import RunConfig, validate
from pipelines.engine.heal import item_to_heal
from pipelines.engine.step import Receipt
from pipelines.plan.how_far import how_far
from pipelines.run import RunResult

Run = Callable[..., RunResult]


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """Forty small pictures by name."""
    rng = np.random.default_rng(3)
    found = {}
    for number in range(40):
        out = io.BytesIO()
        noise = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        noise.resize((96, 72), Image.Resampling.BICUBIC).save(out, "PNG" if number % 7 == 0 else "JPEG")
        found[f"{number:04d}.{'png' if number % 7 == 0 else 'jpg'}"] = out.getvalue()
    return found


def write_ways(root: Path, pictures: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """The same pictures as files, parquet and compressed tars; returns the source of each."""
    root.mkdir(parents=True)
    names = list(pictures)
    (root / "folder").mkdir()
    for name, data in pictures.items():
        (root / "folder" / name).write_bytes(data)
        (root / "folder" / name).with_suffix(".json").write_bytes(caption(name))
    for folder in ("tars", "parquet"):
        (root / folder).mkdir()
    for number, part in enumerate((names[:25], names[25:])):
        captions = [json.loads(caption(name))["caption"] for name in part]
        table = pa.table({"image": [pictures[name] for name in part], "caption": captions})
        pq.write_table(table, root / "parquet" / f"{number}.parquet", row_group_size=10)
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as tar:
            for name in part:
                add(tar, name, pictures[name])
                add(tar, f"{Path(name).stem}.json", caption(name))
        packed = gzip.compress(plain.getvalue(), mtime=0)
        # One of the two tars has ranges, and stays where it is.
        name, data = (f"{number}.tar.gz", packed) if number else (f"{number}.tar", plain.getvalue())
        (root / "tars" / name).write_bytes(data)
    kinds = {"folder": "folder", "tars": "tars", "parquet": "parquet"}
    return {name: {"kind": kind, "path": str(root / name)} for name, kind in kinds.items()}


def caption(name: str) -> bytes:
    return json.dumps({"caption": f"of {name}"}, separators=(",", ":")).encode()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def config_of(run_dir: Path, *sources: dict[str, Any], **stages: Any) -> RunConfig:
    data = {
        "run_dir": str(run_dir),
        "pools": {"web": {"role": "uncurated", "sources": list(sources)}},
        "describe": {"embed": {"embedder": "gist"}, "decode_threads": 1},
        "ingest": {"part_rows": 12},
        "shard": {"max_samples": 15},
        "executor": {"kind": "local"},
    }
    return validate(data | stages, where="the test's config")


def lineage(rows_of: Callable[..., pa.Table], run_dir: Path) -> list[tuple[Any, ...]]:
    columns = ("image_id", "decision", "stage", "reason", "component", "shard", "shard_index")
    return [tuple(row[name] for name in columns) for row in rows_of(run_dir, "lineage").to_pylist()]


def members(run_dir: Path) -> list[tuple[str, bytes]]:
    """Every member of every shard but KEY.json, in order."""
    found = []
    for path in sorted(run_dir.glob("dataset-*/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                if stream is not None and not (member.name.count(".") == 1 and member.name.endswith(".json")):
                    found.append((member.name, stream.read()))
    return found


def test_every_way_gives_the_same_dataset(
    pictures: dict[str, bytes],
    tmp_path: Path,
    run_quietly: Run,
    rows_of: Callable[..., pa.Table],
    capsys: pytest.CaptureFixture[str],
):
    ways = write_ways(tmp_path / "in", pictures)
    for name, source in ways.items():
        assert run_quietly(config_of(tmp_path / name, source)).exit_code == 0
        assert not verify(str(tmp_path / name))
    for name in ("tars", "parquet"):
        assert lineage(rows_of, tmp_path / name) == lineage(rows_of, tmp_path / "folder")
        assert members(tmp_path / name) == members(tmp_path / "folder")
    assert len(members(tmp_path / "folder")) == 80
    assert cli.main(["explain", str(tmp_path / "parquet"), "0.parquet/00000003"]) == 0
    assert f"{tmp_path}/in/parquet/0.parquet#00000003" in capsys.readouterr().out


def test_a_rerun_does_nothing_and_a_plan_counts_units(
    pictures: dict[str, bytes], tmp_path: Path, run_quietly: Run
):
    ways = write_ways(tmp_path / "in", pictures)
    config = config_of(tmp_path / "run", ways["parquet"], ways["tars"])
    assert [(s.name, s.num_items, s.num_done) for s in how_far(config)] == [("ingest_units", 2, 0)]
    run_quietly(config, until="ingest")
    states = {s.name: (s.num_items, s.num_done) for s in how_far(config)}
    # Two parquet files and the one tar that has no ranges.
    assert states["ingest_units"] == (2, 2)
    assert states["ingest_stage"] == (3, 3)
    assert run_quietly(config).exit_code == 0
    again = run_quietly(config)
    assert all(state.num_done == state.num_items for state in again.states)
    # All that the config uses stays, and with it the bytes of what was staged.
    assert not [f for f in find_leftovers(str(tmp_path / "run"), keep_current=True) if "ingest" in f.path]
    clean(str(tmp_path / "run"), keep_current=False)
    assert not verify(str(tmp_path / "run"))


def test_what_was_staged_already_is_not_staged_again(
    pictures: dict[str, bytes], tmp_path: Path, run_quietly: Run, digests: Callable[[Path], dict[str, str]]
):
    ways = write_ways(tmp_path / "in", pictures)
    undisturbed, config = (config_of(tmp_path / n, ways["parquet"]) for n in ("undisturbed", "run"))
    run_quietly(undisturbed)
    run_quietly(config, until="ingest")
    stage = tmp_path / "run" / "steps" / "ingest_stage"
    first, second = sorted(path for path in stage.iterdir() if path.name != "markers")
    shutil.rmtree(second)  # as if the run had been killed before it was done
    shutil.rmtree(stage / "markers")
    shutil.rmtree(tmp_path / "run" / "steps" / "ingest")
    before = (first / "receipt.json").stat().st_mtime_ns
    result = run_quietly(config)
    assert {s.name: s.num_done for s in result.states}["ingest_stage"] == 1
    assert (first / "receipt.json").stat().st_mtime_ns == before
    assert digests(tmp_path / "run") == digests(tmp_path / "undisturbed")


def test_refresh_stages_what_is_new_or_changed_alone(
    pictures: dict[str, bytes], tmp_path: Path, run_quietly: Run
):
    source = write_ways(tmp_path / "in", pictures)["parquet"]
    config = config_of(tmp_path / "run", source)
    run_quietly(config)
    names = list(pictures)
    table = pa.table({"image": [pictures[name] for name in names[:5]], "caption": ["new"] * 5})
    pq.write_table(table, tmp_path / "in" / "parquet" / "1.parquet")
    pq.write_table(table.slice(0, 2), tmp_path / "in" / "parquet" / "2.parquet")
    assert all(s.num_done == s.num_items for s in run_quietly(config).states)  # the saved listing
    result = run_quietly(config, refresh=True)
    states = {s.name: (s.num_items, s.num_done) for s in result.states}
    assert states["ingest_stage"] == (3, 1)
    assert states["describe"] == (
        4,
        2,
    )  # two parts of 0.parquet as they were, one with a changed row, one new
    rows = rows_of_newest(tmp_path / "run")
    assert len(rows) == 25 + 5 + 2
    assert sum(row["reason"] == "exact_copy" for row in rows) == 7
    assert not verify(str(tmp_path / "run"))
    # A later listing is found by the receipts of earlier ones, so these stay; what they list may go.
    gone = clean(str(tmp_path / "run"), keep_current=True)
    assert any(folder.path.startswith("steps/ingest/") for folder in gone)
    assert find_leftovers(str(tmp_path / "run"), keep_current=True) == []
    assert all(s.num_done == s.num_items for s in run_quietly(config).states)
    assert rows_of_newest(tmp_path / "run") == rows


def rows_of_newest(run_dir: Path) -> list[dict[str, Any]]:
    manifest = json.loads((run_dir / "manifest.json").read_text())
    tables = [storage.read_table(str(run_dir / entry["path"])) for entry in manifest["lineage"]]
    return pa.concat_tables(tables).to_pylist()


def test_a_file_that_cannot_be_read_degrades_the_run(
    pictures: dict[str, bytes], tmp_path: Path, run_quietly: Run
):
    source = write_ways(tmp_path / "in", pictures)["parquet"]
    broken = tmp_path / "in" / "parquet" / "1.parquet"
    broken.write_bytes(broken.read_bytes()[:-500])
    result = run_quietly(config_of(tmp_path / "run", source))
    assert result.exit_code == 3
    assert result.manifest is not None
    [unread] = result.manifest["unread"]
    assert (unread["path"], unread["what"]) == (str(broken), "not_parquet")
    assert result.manifest["counts"]["web"]["images"] == 25


def test_a_file_that_changes_before_it_is_staged_is_named(
    pictures: dict[str, bytes], tmp_path: Path, run_quietly: Run
):
    source = write_ways(tmp_path / "in", pictures)["parquet"]
    config = config_of(tmp_path / "run", source)
    run_quietly(config, until="ingest")
    shutil.rmtree(tmp_path / "run" / "steps" / "ingest_stage")
    file = tmp_path / "in" / "parquet" / "1.parquet"
    pq.write_table(pq.read_table(file).slice(3), file)
    result = run_quietly(config)
    assert result.exit_code == 3
    assert result.manifest is not None
    assert [problem["what"] for problem in result.manifest["unread"]] == ["changed"]
    result = run_quietly(config, refresh=True)
    assert result.exit_code == 0
    assert result.manifest is not None
    assert result.manifest["counts"]["web"]["images"] == 37


def test_a_wrong_column_is_a_config_error(pictures: dict[str, bytes], tmp_path: Path, run_quietly: Run):
    source = write_ways(tmp_path / "in", pictures)["parquet"]
    with pytest.raises(ConfigError, match="caption"):
        run_quietly(config_of(tmp_path / "run", source | {"image": "picture"}))


@pytest.mark.parametrize("until", ["ingest", "select"])
def test_a_staged_tar_that_is_damaged_is_staged_anew(
    *,
    until: str,
    pictures: dict[str, bytes],
    tmp_path: Path,
    run_quietly: Run,
    digests: Callable[[Path], dict[str, str]],
):
    """Describe would decode other pictures, and shard copy another caption: rows know no hash of either."""
    ways = write_ways(tmp_path / "in", pictures)
    undisturbed, config = (config_of(tmp_path / n, ways["parquet"]) for n in ("undisturbed", "run"))
    run_quietly(undisturbed)
    run_quietly(config, until=until)
    tar = sorted((tmp_path / "run" / "steps" / "ingest_stage").glob("*/000000.tar"))[0]
    whole = tar.read_bytes()
    at = whole.index(b"of 00" if until == "select" else b"\xff\xd8") + 3
    tar.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert run_quietly(config).exit_code == 0
    assert tar.read_bytes() == whole
    assert digests(tmp_path / "run") == digests(tmp_path / "undisturbed")
    assert not verify(str(tmp_path / "run"))


def test_what_a_later_generation_points_into_is_refused(tmp_path: Path):
    """Staged anew, the earlier tar might hold other bytes where the later rows look."""
    earlier = Receipt("ingest_stage", "a", "steps/ingest_stage/a", {}, {"earlier": []})
    later = Receipt("ingest_stage", "b", "steps/ingest_stage/b", {}, {"earlier": ["steps/ingest_stage/a"]})
    found = {"ingest_stage": [earlier, later]}
    for folder, is_healed in (("a", False), ("b", True)):
        path = f"{tmp_path}/steps/ingest_stage/{folder}/000000.tar"
        error = IntegrityError("damaged", path=path)
        if is_healed:
            assert item_to_heal(str(tmp_path), error, receipts=found, healed=()).endswith("/b")
        else:
            with pytest.raises(IntegrityError, match="Restore it from a copy"):
                item_to_heal(str(tmp_path), error, receipts=found, healed=())
    elsewhere = IntegrityError("damaged", path=f"{tmp_path}/dataset-0/x.tar")
    with pytest.raises(IntegrityError) as refused:
        item_to_heal(str(tmp_path), elsewhere, receipts=found, healed=())
    assert refused.value is elsewhere


def test_what_is_so_in_every_file_is_noted_once(tmp_path: Path, pictures: dict[str, bytes], run_quietly: Run):
    (tmp_path / "tables").mkdir()
    images = list(pictures.values())[:4]
    for number in range(3):
        table = pa.table({"image": images, "mask": images})
        pq.write_table(table, tmp_path / "tables" / f"{number}.parquet")
    source = {"kind": "parquet", "path": str(tmp_path / "tables")}
    result = run_quietly(config_of(tmp_path / "run", source))
    notes = [note for note in result.manifest["notes"] if note["what"] == "no_text"]
    assert [(note["path"], note["detail"][:13]) for note in notes] == [(source["path"], "column 'mask'")]
