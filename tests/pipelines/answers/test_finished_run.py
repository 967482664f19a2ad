"""A finished run: each thing of it is read when it is asked for, and what is gone is None."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation.errors import ConfigError, IntegrityError
from pipelines.answers.finished_run import find_run, require_run
from pipelines.answers.made import made_of, read_made, save_made
from pipelines.cli.main import main
from pipelines.rows.parts import names_of


def test_its_rows_have_parts_and_names(finished: Path, rows_of: Callable[..., Any]) -> None:
    run = require_run(str(finished))
    rows = rows_of(finished, "lineage")
    assert run.lineage.table().equals(rows)
    assert run.pools == list(run.config.pools)
    assert run.made is not None
    assert run.made.num_rows == run.lineage.num_rows == len(rows)
    names = run.names(range(len(rows)))
    assert names == {i: f"{row['pool']}/{row['key']}" for i, row in enumerate(rows.to_pylist())}
    assert names_of(run.made.parts, [7, 3, 7]) == {3: names[3], 7: names[7]}
    for row in (0, 39, 40, len(rows) - 1):
        part = run.part_of(row)
        assert part.offset <= row < part.offset + part.num_rows
    assert run.config_text == (finished / "run.yaml").read_text()
    assert list(run.receipts)[-1] == "lineage"


def test_what_is_saved_is_what_the_flow_finds(damageable: Path, tmp_path: Path) -> None:
    run = require_run(str(damageable))
    assert run.curated is not None
    assert run.made == made_of(run.curated)
    save_made(str(damageable), run.manifest, run.made)
    moved = tmp_path / "moved"
    shutil.copytree(damageable, moved)
    found = read_made(str(moved), run.manifest)
    assert found is not None
    assert found.copies.path == run.made.copies.path.replace(str(damageable), str(moved))
    assert [part.only("images").num_rows for part in found.parts] == [p.num_rows for p in run.made.parts]
    Path(found.cluster.path).unlink()
    assert read_made(str(moved), run.manifest) is None


CHANGES: list[Callable[[dict[str, Any]], object]] = [
    lambda data: data.pop("hits"),
    lambda data: data.update(schema=2),
    lambda data: data.update(more=1),
    lambda data: data["parts"][0].update(more=1),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_another_version_has_saved_is_not_read(damageable: Path, change: Any) -> None:
    [marker] = (damageable / "steps" / "dataset" / "markers").iterdir()
    data = json.loads(marker.read_text())
    del data["sealed_by"]
    marker.write_text(json.dumps(data))
    run = require_run(str(damageable))
    assert read_made(str(damageable), run.manifest) == run.made  # the same without a seal
    change(data)
    marker.write_text(json.dumps(data))
    assert read_made(str(damageable), run.manifest) is None
    assert require_run(str(damageable)).made == run.made  # the flow is asked


def test_another_dataset_is_not_taken_for_it(damageable: Path, configure: Any, run_quietly: Any) -> None:
    """What is there made another dataset since, or is gone."""
    before = (damageable / "manifest.json").read_bytes()
    folder = require_run(str(damageable)).dataset_dir
    run_quietly(configure(damageable, "select.max_images=3"))
    assert require_run(str(damageable)).curated is not None
    (damageable / "manifest.json").write_bytes(before)
    assert require_run(str(damageable)).dataset_dir == folder
    assert require_run(str(damageable)).curated is not None  # steps of both lie beside each other
    shutil.rmtree(damageable / "steps" / "select")
    run = require_run(str(damageable))
    assert (run.curated, run.receipts) == (None, {})
    assert run.made is not None  # of which single images still tell
    shutil.rmtree(damageable / "steps" / "dataset")
    assert require_run(str(damageable)).made is None


def test_whether_a_run_has_finished_is_told_by_its_manifest(
    damageable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_run(str(tmp_path / "nothing")) is None
    with pytest.raises(ConfigError, match="No finished dataset"):
        require_run(str(tmp_path / "nothing"))
    for config in (damageable / "configs").iterdir():
        config.unlink()
    run = find_run(str(damageable))
    assert run is not None
    assert main(["verify", str(damageable)]) == 1  # the config is one of the files of the dataset
    (damageable / "run.yaml").unlink()
    with pytest.raises(ConfigError, match="not known any more"):
        _ = require_run(str(damageable)).config
    with pytest.raises(ConfigError, match="not known any more"):  # and is not taken for gone data
        _ = require_run(str(damageable)).curated
    assert main(["dedup", str(damageable)]) == 2  # and dedup answers for no other config
    assert "not known any more" in capsys.readouterr().err
    (damageable / "manifest.json").write_text("{")
    with pytest.raises(IntegrityError, match="is no manifest"):
        find_run(str(damageable))
