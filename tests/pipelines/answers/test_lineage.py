"""The lineage of a dataset: the same rows however it is cut into files, all of them whole."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation import storage
from curation.errors import IntegrityError
from curation.schema import LINEAGE
from pipelines.answers.lineage import Lineage

ROWS: list[dict[str, Any]] = [
    dict.fromkeys(LINEAGE.names)
    | {"pool": f"p{i % 3}", "key": f"{i}.jpg", "uri": f"/{i}", "stage": "select", "reason": "sampled"}
    | {"decision": "kept" if i % 4 == 1 else "dropped", "score": None if i % 2 else i / 8, "cluster": i}
    for i in range(50)
]


def write(folder: Path, cuts: list[int]) -> Lineage:
    entries = []
    for start, stop in zip([0, *cuts], [*cuts, len(ROWS)], strict=True):
        path = f"part-{len(entries)}.parquet"
        storage.write_table(folder / path, pa.Table.from_pylist(ROWS[start:stop], schema=LINEAGE))
        sha256, _ = storage.sha256_file(str(folder / path))
        entries.append({"path": path, "rows": stop - start, "sha256": sha256})
    return Lineage(str(folder), entries)


@pytest.mark.parametrize("cuts", [[], [1, 2, 49], [10, 10, 35], [0, 50]])
def test_rows_are_found_by_their_number(tmp_path: Path, cuts: list[int]) -> None:
    lineage = write(tmp_path, cuts)
    assert lineage.num_rows == 50
    assert lineage.at([49, 0, 10, 10, 9]) == {row: ROWS[row] for row in (0, 9, 10, 49)}
    assert lineage.at([]) == {}
    assert lineage.kept().tolist() == [i for i, row in enumerate(ROWS) if row["decision"] == "kept"]
    assert lineage.table().to_pylist() == ROWS
    assert lineage.table(["uri", "key"]).to_pylist()[7] == {"uri": "/7", "key": "7.jpg"}
    found = [(offset, table.to_pylist()) for offset, table in lineage.tables(["key"])]
    assert [offset for offset, _ in found] == [0, *cuts]
    assert [row["key"] for _, rows in found for row in rows] == [row["key"] for row in ROWS]


def test_of_no_file_there_is_an_empty_table(tmp_path: Path) -> None:
    lineage = Lineage(str(tmp_path), [])
    assert (lineage.num_rows, lineage.table().num_rows, len(lineage.kept())) == (0, 0, 0)
    assert lineage.table().schema == LINEAGE


def test_only_files_that_are_asked_for_are_read_and_none_that_has_changed(tmp_path: Path) -> None:
    lineage = write(tmp_path, [10, 35])
    path = tmp_path / "part-1.parquet"
    path.write_bytes(path.read_bytes()[::-1])
    assert set(lineage.at([3, 49])) == {3, 49}
    with pytest.raises(IntegrityError, match="part-1"):
        lineage.at([20])
    with pytest.raises(IntegrityError, match="part-1"):
        lineage.table()
