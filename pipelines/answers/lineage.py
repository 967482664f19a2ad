"""The lineage of a finished dataset, for whoever reads it: file by file, each once it is proved."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curation.schema import LINEAGE
from curation.shard.manifest import Entry
from pipelines.config.listed import read_listed
from pipelines.rows.arrow_columns import places_with_prefix, rows_at


class Lineage:
    """One row of `schema.LINEAGE` for every image that ever came in; each file has the images of one part.

    Args:
        run_dir: what the paths are relative to.
        entries: `lineage` of the manifest: path, rows and SHA-256 of every file, in the order of parts.
    """

    def __init__(self, run_dir: str, entries: Sequence[Entry]) -> None:
        self._run_dir, self._entries = run_dir, entries
        self._offsets = np.cumsum([0] + [entry["rows"] for entry in entries])

    @property
    def num_rows(self) -> int:
        """Rows of all files."""
        return int(self._offsets[-1])

    def tables(self, columns: list[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Every file, or some columns of it, with the global row of its first row.

        Raises:
            IntegrityError: naming a file whose bytes are others.
        """
        for entry, offset in zip(self._entries, self._offsets.tolist(), strict=False):
            yield offset, read_listed(self._run_dir, entry, columns)

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """All of it at once, or some columns."""
        none = LINEAGE.empty_table().select(columns or LINEAGE.names)
        return pa.concat_tables([none, *(table for _, table in self.tables(columns))])

    def at(self, rows: Iterable[int]) -> dict[int, dict[str, Any]]:
        """What is known of some global rows, by row; only files that hold one of them are read."""
        wanted = np.unique(np.fromiter(rows, np.int64))
        bounds = np.searchsorted(wanted, self._offsets).tolist()
        found: dict[int, dict[str, Any]] = {}
        for number, entry in enumerate(self._entries):
            mine = wanted[bounds[number] : bounds[number + 1]]
            if len(mine):
                table = read_listed(self._run_dir, entry)
                known = rows_at(table, mine - self._offsets[number])
                found |= dict(zip(mine.tolist(), known, strict=True))
        return found

    def kept(self) -> Int64[np.ndarray, " k"]:
        """Global rows of the dataset."""
        places = [
            np.array(places_with_prefix(table["decision"], "kept"), np.int64) + offset
            for offset, table in self.tables(["decision"])
        ]
        return np.concatenate([np.zeros(0, np.int64), *places])
