"""A step that puts out other values than it did has another version: held by a golden for each."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.fingerprints import (
    StepOutput,
    column_name,
    columns_of,
    differences,
    fingerprint,
)
from tests.pipelines.golden_steps import GOLDENS, read_goldens, record, write_goldens
from tests.pipelines.stages.test_every_step import LOADERS

Recorded = tuple[dict[str, StepOutput], set[tuple[type, type]]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(tmp_path_factory.mktemp("golden"))


def test_every_step_puts_out_what_it_did(recorded: Recorded) -> None:
    outputs, _ = recorded
    lines = differences(read_goldens(), outputs)
    assert not lines, "\n".join(lines)


def test_every_step_of_the_code_is_reached(recorded: Recorded) -> None:
    _, kinds = recorded
    assert {name for name, pair in LOADERS.items() if pair not in kinds} == set()


def test_what_is_written_is_read(recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs, _ = recorded
    monkeypatch.setattr("tests.pipelines.golden_steps.GOLDENS", tmp_path / GOLDENS.name)
    write_goldens(outputs)
    assert read_goldens() == outputs


def output(*values: object, version: int = 1, reads: tuple[str, ...] = ()) -> StepOutput:
    return StepOutput(version, reads, {f"column {i}": fingerprint(value) for i, value in enumerate(values)})


GOLDEN = {"first": output([1, 2], "a"), "second": output([0.5], reads=("first",)), "third": output(b"x")}


def test_a_change_without_a_version_is_told_with_its_column_and_what_to_do() -> None:
    [line] = differences(GOLDEN, GOLDEN | {"first": output([1, 2], "b")})
    assert line.startswith("first: version 1 puts out other values than it did")
    assert "column 1. Mend it" in line
    assert "raise `version` of Step 'first'" in line
    assert "python -m tests.pipelines.golden_steps" in line


def test_what_reads_a_changed_step_follows_from_it() -> None:
    changed = {"first": output([1, 3], "a"), "second": output([0.7], reads=("first",))}
    _, line = differences(GOLDEN, GOLDEN | changed)
    assert line == "second: follows from first"


@pytest.mark.parametrize("values", [([1, 2], "a"), ([5], "b")])
def test_a_raised_version_wants_its_golden(values: tuple[object, ...]) -> None:
    [line] = differences(GOLDEN, GOLDEN | {"first": output(*values, version=2)})
    assert line.startswith("first: its golden is of version 1, and the step has 2; write")


def test_steps_and_goldens_are_the_same_ones() -> None:
    found = {name: one for name, one in GOLDEN.items() if name != "third"} | {"fourth": output()}
    new, gone = differences(GOLDEN, found)
    assert new.startswith("fourth: has no golden")
    assert gone.startswith("third: has a golden, and no run does it")


@pytest.mark.parametrize("columns", [{}, {"column 0": fingerprint([1, 2]), "more": fingerprint("a")}])
def test_a_column_that_comes_or_goes_counts(columns: dict[str, object]) -> None:
    [line] = differences(GOLDEN, GOLDEN | {"first": replace(GOLDEN["first"], columns=columns)})  # type: ignore[arg-type]
    assert "column 1" in line


def test_last_bits_of_floats_do_not_count_and_all_else_does() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 16)).astype(np.float16)
    golden = fingerprint(["rows", rows])
    near = np.nextafter(rows, rng.choice([-9, 9], rows.shape).astype(np.float16))
    assert golden.is_like(fingerprint(["rows", np.where(rng.random(rows.shape) < 0.05, near, rows)]))
    other = rows.copy()
    other[7] = 0
    for one in (other, rows[::-1], rows[:-1], np.where(rows > 3, np.nan, rows)):
        assert not golden.is_like(fingerprint(["rows", one]))
    assert fingerprint([1, 0.25, None, "a"]).is_like(fingerprint([1, 0.25 + 1e-9, None, "a"]))
    for values in ([1, None, 0.25, "a"], [2, 0.25, None, "a"], [1, 0.25, None, b"a"], [[1], 0.25, None, "a"]):
        assert not fingerprint([1, 0.25, None, "a"]).is_like(fingerprint(values))


def test_where_a_run_lies_does_not_count() -> None:
    one, other = (
        f"{root}/run/steps/ingest_stage/{'0123'[n] * 32}/0.tar" for n, root in enumerate(("/a", "/b"))
    )
    assert fingerprint(one, root="/a") == fingerprint(other, root="/b") != fingerprint(other, root="/a")


def test_a_file_is_read_by_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "part-000003.parquet")
    columns = columns_of(tmp_path / "part-000003.parquet")
    assert columns == {"schema": "a: int64\nb: string", "a": [1], "b": ["x"]}
    assert column_name("part-000003.parquet", "a") == "part-N.parquet a"
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(AssertionError, match=r"no rule says what is in x\.txt"):
        columns_of(tmp_path / "x.txt")
