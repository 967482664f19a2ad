"""Samples and counts over the lineage: the same however it is cut into files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation import storage
from curation.schema import LINEAGE
from pipelines.answers.lineage import Lineage
from pipelines.report.pictures import draw, pictures_at, sample
from pipelines.report.scan import find_members, scan


def rows(num: int) -> list[dict]:
    rng = np.random.default_rng(0)
    found = []
    for i in range(num):
        kept = bool(rng.integers(2))
        reason = ("select", "sampled") if kept else [("dedup", "near_copy"), ("judge", "too_small")][i % 2]
        found.append(
            dict.fromkeys(LINEAGE.names)
            | {
                "pool": f"p{i % 3}",
                "key": f"{i}.jpg",
                "uri": f"/{i}",
                "decision": "kept" if kept else "dropped",
            }
            | {"stage": reason[0], "reason": reason[1]}
            | {"component": int(rng.integers(9)) if i % 4 else None}
            | {"cluster": int(rng.integers(5)) if kept else None}
        )
    return found


def write(folder: Path, table: list[dict], cuts: list[int]) -> Lineage:
    entries = []
    for start, stop in zip([0, *cuts], [*cuts, len(table)], strict=True):
        path = f"part-{len(entries)}.parquet"
        storage.write_table(folder / path, pa.Table.from_pylist(table[start:stop], schema=LINEAGE))
        sha256, _ = storage.sha256_file(str(folder / path))
        entries.append({"path": path, "rows": stop - start, "sha256": sha256})
    return Lineage(str(folder), entries)


@pytest.mark.parametrize("cuts", [[], [1, 2, 150], [100, 100, 299]])
def test_scan_counts_like_plain_python(tmp_path: Path, cuts: list[int]) -> None:
    table = rows(300)
    lineage = write(tmp_path, table, cuts)
    found = scan(lineage, num_samples=7, seed=5)
    for (stage, reason), num in found.num_by_reason.items():
        mine = [i for i, r in enumerate(table) if (r["stage"], r["reason"]) == (stage, reason)]
        assert num == len(mine)
        assert found.reasons[stage, reason].tolist() == sample(np.array(mine), 7, seed=5).tolist()
        pools = [table[i]["pool"] for i in mine]
        assert found.pools_by_reason[stage, reason] == {p: pools.count(p) for p in set(pools)}
    assert set(found.num_by_reason) == {("dedup", "near_copy"), ("judge", "too_small")}
    for name, size in (("cluster", found.cluster_size), ("component", found.component_size)):
        values = [r[name] for r in table if r[name] is not None]
        assert size.tolist() == [values.count(n) for n in range(max(values) + 1)]
    assert found.cluster_kept.tolist() == found.cluster_size.tolist()
    members = find_members(lineage, "component", wanted=[3, 7], num_samples=1000, seed=5)
    assert {n: sorted(m.tolist()) for n, m in members.items()} == {
        n: [i for i, r in enumerate(table) if r["component"] == n] for n in (3, 7)
    }


def test_pictures_are_found_by_global_row(tmp_path: Path) -> None:
    lineage = write(tmp_path, rows(50), [10, 10, 35])
    found = pictures_at(lineage, [49, 0, 10, 10])
    assert {row: picture.key for row, picture in found.items()} == {0: "0.jpg", 10: "10.jpg", 49: "49.jpg"}
    assert lineage.num_rows == 50
    assert pictures_at(lineage, []) == {}


def test_draws_are_spread_and_seeded() -> None:
    numbers = draw(np.arange(20_000), 1)
    assert len(np.unique(numbers)) == 20_000
    bits = np.unpackbits(numbers.view(np.uint8)).mean()
    assert abs(bits - 0.5) < 0.005
    assert not (numbers == draw(np.arange(20_000), 2)).any()
    chosen = sample(np.arange(20_000), 2000, seed=1)
    assert abs(chosen.mean() - 10_000) < 500
    assert sample(np.arange(3), 7, seed=1).tolist() == sample(np.arange(3), 3, seed=1).tolist()
