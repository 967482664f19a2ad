"""Whatever is damaged in a finished dataset is found and named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation import storage
from curation.errors import IntegrityError
from pipelines.answers.verify import verify
from pipelines.cli.main import main
from pipelines.config.listed import write_manifest
from pipelines.config.run_dir import read_manifest
from pipelines.engine.local import LocalExecutor
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner
from pipelines.lvd import curate


def pick(run_dir: Path, pattern: str) -> Path:
    return sorted(run_dir.glob(pattern))[0]


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0x10
    path.write_bytes(data)


def edit_manifest(run_dir: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = read_manifest(str(run_dir))
    change(manifest)
    write_manifest(str(run_dir), manifest)


@pytest.mark.parametrize(
    "pattern",
    [
        "dataset-*/*.tar",
        "dataset-*/lineage/*.parquet",
        "dataset-*/selection/*.parquet",
        "dataset-*/index.json",
    ],
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_named(
    damageable: Path, pattern: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pick(damageable, pattern)
    match damage:
        case "flipped":
            flip(path, 0.02)
        case "cut":
            path.write_bytes(path.read_bytes()[:-700])
        case "gone":
            path.unlink()
    assert main(["verify", str(damageable), "--json"]) == 1
    assert path.name in " ".join(json.loads(capsys.readouterr().out)["faults"])


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["counts"]["web"].update(kept=1),
        lambda m: m["counts"]["web"].update(duplicates=0),
        lambda m: m["counts"]["trusted"].update(images=7),
        lambda m: m["counts"].update(dataset=9),
        lambda m: m["funnel"][0].update(out=0),
        lambda m: m["funnel"].pop(),
        lambda m: m["shards"].pop(),
        lambda m: m["shards"].reverse(),
        lambda m: m["shards"][0].update(num_samples=1),
        lambda m: m["shards"][0].update(bytes=1),
        lambda m: m["selection"].pop(1),
        lambda m: m["lineage"][0].update(rows=1),
    ],
)
def test_a_manifest_that_says_something_else_is_found(
    damageable: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit_manifest(damageable, change)
    assert verify(str(damageable))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"x"', '{"lineage": 3}', "\0"])
def test_what_is_no_manifest_is_named(
    damageable: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (damageable / "manifest.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        verify(str(damageable))
    assert main(["verify", str(damageable)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_damaged_intermediate_file_is_found_before_it_is_used(
    damageable: Path, configure: Any, run_quietly: Any
) -> None:
    path = pick(damageable, "steps/describe/*/described.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\0")
    config = configure(damageable, "judge.min_side_px=3")
    with pytest.raises(IntegrityError, match=str(path)):
        curate(Runner(str(damageable), LocalExecutor(), Progress(quiet=True)), config, refresh=False)
    assert run_quietly(config).exit_code == 0
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index["shardlist"].pop(),
        lambda index: index["shardlist"].reverse(),
        lambda index: index["shardlist"][0].update(nsamples=1),
        lambda index: index["shardlist"][0].update(url=3),
        lambda index: index["shardlist"].append("x"),
        lambda index: index.pop("shardlist"),
        lambda index: index.update(shardlist=None),
    ],
)
def test_an_index_that_disagrees_with_the_manifest_is_named(
    damageable: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = pick(damageable, "dataset-*/index.json")
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    assert "index.json" in " ".join(verify(str(damageable)))


def test_a_shards_index_with_other_columns_is_named(damageable: Path) -> None:
    path = pick(damageable, "dataset-*/index/*.parquet")
    table = storage.read_table(str(path))
    storage.write_table(path, table.drop_columns(["sample"]))
    assert path.name in " ".join(verify(str(damageable)))
