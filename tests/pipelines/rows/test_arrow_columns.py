"""Numbers and rows out of Arrow tables are those that Arrow gives, and cost no import of pandas."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation import storage
from pipelines.rows.arrow_columns import numbers, places_of, places_with_prefix, rows_at

TABLE = pa.table({"key": ["a.jpg", "b.jpg", "a.jpgx", "ä.jpg", "a.jpg"], "n": [0, 1, None, 3, 4]})


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64(), pa.float32(), pa.float64()], ids=str
)
def test_numbers_are_arrows_own(kind: pa.DataType) -> None:
    values = [3, None, 0, 7, None, 100, *range(20)]
    column = pa.chunked_array([pa.array(values[:3], kind), pa.array([], kind), pa.array(values[3:], kind)])
    for part in (column, column.slice(1, 9), column.slice(20), column.slice(4, 0)):
        expected = part.fill_null(9).to_numpy()
        found = numbers(part, null=9)
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist()
    assert numbers(pa.chunked_array([], kind)).tolist() == []
    assert numbers(column.drop_null()).tolist() == column.drop_null().to_pylist()


def test_rows_come_in_the_order_asked_for() -> None:
    assert rows_at(TABLE, np.array([4, 0, 2])) == [TABLE.to_pylist()[i] for i in (4, 0, 2)]
    assert rows_at(TABLE, []) == []


def test_places_of_a_text_and_of_its_beginning() -> None:
    chunked = pa.chunked_array([TABLE["key"].chunk(0).slice(0, 2), TABLE["key"].chunk(0).slice(2)])
    assert places_of(chunked, "a.jpg") == [0, 4]
    assert places_with_prefix(chunked, "a.jpg") == [0, 2, 4]
    assert places_of(chunked, "nobody") == places_with_prefix(chunked, "z") == []


CODE = """
import sys
from curation.storage import read_table
from pipelines.rows.arrow_columns import numbers, places_of, places_with_prefix, rows_at

table = read_table(sys.argv[1])
found = numbers(table["n"]).tolist(), rows_at(table, [0]), places_with_prefix(table["key"], "b")
print(found, places_of(table["key"], "a.jpg"), "pandas" in sys.modules)
"""


def test_pandas_is_not_imported(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    storage.write_table(file, TABLE)
    done = subprocess.run([sys.executable, "-c", CODE, file], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "([0, 1, -1, 3, 4], [{'key': 'a.jpg', 'n': 0}], [1]) [0, 4] False"
