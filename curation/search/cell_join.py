"""Joins the rows that meet in cells: the pairs above a threshold of which one visits the other's home.

What is found is scored exactly, as by `curation.search.exact`; what is lost, is lost by the choice of cells
alone (`curation.search.recall` measures it). The cost is num_rows² · num_probes / num_cells products.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Int64, UInt16
from numpy import ndarray

from curation.search.codes import Codes, encode
from curation.search.collapse import Groups, equal_vectors, fingerprints
from curation.search.edges import EdgeCollector, Pairs
from curation.search.exact import TILE_COLUMNS, TILE_ROWS, propose
from curation.search.product import ProposeDtype, buffer_for, exact_scores, fastest_dtype


@dataclass(frozen=True)
class Visitors:
    """Rows and the cells that they visit.

    rows: ascending global rows. vectors: fp16, unit rows. cells: those visited, home first; a row that visits
    none but its home names it again in the other places.
    """

    rows: Int64[ndarray, " m"]
    vectors: Float16[ndarray, "m d"]
    cells: UInt16[ndarray, "m p"]

    def __getitem__(self, places: Int64[ndarray, " k"]) -> "Visitors":
        """Return some of them."""
        return Visitors(self.rows[places], self.vectors[places], self.cells[places])


def join_cells(
    residents: Visitors,
    visitors: Iterable[Visitors],
    *,
    cells: range,
    rows: Int64[ndarray, " n"],
    threshold: float,
    max_edges_per_row: int | None = None,
    dtype: ProposeDtype | None = None,
) -> Pairs:
    """Find the pairs with score >= threshold that meet in a run of cells.

    From all runs together every pair comes once: two rows that visit each other's homes are joined in the
    cell of smaller number. Of equal vectors the first resident stands for all, and the others, who are at
    home in its run, are linked to it by score 1; of equal visitors the first stands for all, or they would
    fill the places that a limit leaves.

    Args:
        residents: the rows at home in the run, all of them.
        visitors: rows that visit a cell of the run which is not their home, ascending, in any chunks.
        cells: the run.
        rows: int64 (n,), ascending: the global rows of all residents and visitors.
        threshold: smallest score of a pair, -1 to 1.
        max_edges_per_row: see `curation.search.edges.limit_edges`; None for all.
        dtype: arithmetic of the proposals; None: `fastest_dtype`. It does not change the result.

    Returns:
        Pairs of global rows, a < b, sorted.
    """
    groups = equal_vectors(residents.vectors)
    edges = EdgeCollector(len(rows), len(rows), True, max_edges_per_row)
    join = _Join(residents[groups.first], cells, threshold=threshold, dtype=dtype, edges=edges, rows=rows)
    join.at_home()
    for chunk in visitors:
        join.add(chunk)
    return _with_copies(join.edges.pairs(), rows, residents=residents, groups=groups)


class _Join:
    """The cells of a run, with the residents' codes, and the edges found so far."""

    def __init__(
        self,
        residents: Visitors,
        cells: range,
        *,
        threshold: float,
        dtype: ProposeDtype | None,
        edges: EdgeCollector,
        rows: np.ndarray,
    ) -> None:
        self._residents, self._cells = residents, cells
        self._threshold, self._dtype = threshold, dtype or fastest_dtype()
        self.edges, self._rows = edges, rows
        self._order, self._starts = _by_cell(residents.cells[:, 0], np.arange(len(residents.rows)), cells)
        self._columns: list[list[Codes]] = []
        for cell in range(len(cells)):
            vectors = residents.vectors[self._of_cell(cell)]
            starts = range(0, len(vectors), TILE_COLUMNS)
            self._columns.append(
                [encode(vectors[s : s + TILE_COLUMNS], dtype=self._dtype, one_scale=True) for s in starts]
            )
        self._buffer = buffer_for(self._dtype, num_products=TILE_ROWS * TILE_COLUMNS)
        self._were_here: set[bytes] = set()

    def _of_cell(self, cell: int) -> Int64[ndarray, " k"]:
        return self._order[self._starts[cell] : self._starts[cell + 1]]

    def at_home(self) -> None:
        """Join the residents of every cell with each other."""
        codes = encode(self._residents.vectors, dtype=self._dtype)
        for cell in range(len(self._cells)):
            own = self._of_cell(cell)
            for i, j in self._propose(codes[own], cell, upper=True):
                upper = own[i] < own[j]
                self._keep(self._residents, own[i][upper], own[j][upper])

    def add(self, visitors: Visitors) -> None:
        """Join the residents of every cell with some of its visitors."""
        visitors = self._first_of_equals(visitors)
        codes = encode(visitors.vectors, dtype=self._dtype)
        visited = visitors.cells[:, 1:]
        row, place = np.nonzero(
            (visited >= self._cells.start) & (visited < self._cells.stop) & (visited != visitors.cells[:, :1])
        )
        order, starts = _by_cell(visited[row, place], row, self._cells)
        for cell in range(len(self._cells)):
            guests = order[starts[cell] : starts[cell + 1]]
            own = self._of_cell(cell)
            if not len(guests) or not len(own):
                continue
            for i, j in self._propose(codes[guests], cell):
                guest, resident = guests[i], own[j]
                # Where each visits the other, the smaller cell has the pair.
                home = visitors.cells[guest, :1]
                mutual = (self._residents.cells[resident, 1:] == home).any(axis=1)
                first = ~mutual | (self._cells[cell] < home[:, 0])
                self._keep(visitors, guest[first], resident[first])

    def _first_of_equals(self, visitors: Visitors) -> Visitors:
        """Those of which no equal was here before."""
        visited = visitors.cells[:, 1:]
        visits = ((visited >= self._cells.start) & (visited < self._cells.stop)).any(axis=1)
        places = np.flatnonzero(visits)
        is_new = np.zeros(len(places), bool)
        for number, row in enumerate(fingerprints(visitors.vectors[places])):
            before = len(self._were_here)
            self._were_here.add(row.tobytes())
            is_new[number] = len(self._were_here) > before
        return visitors[places[is_new]]

    def _propose(
        self, codes: Codes, cell: int, *, upper: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs that may be near: places among the codes, and among the cell's residents."""
        column = 0
        for columns in self._columns[cell]:
            last_row = min(len(codes), column + len(columns)) if upper else len(codes)
            for i, j in propose(codes[:last_row], columns, threshold=self._threshold, buffer=self._buffer):
                yield i, j + column
            column += len(columns)

    def _keep(self, visitors: Visitors, guest: np.ndarray, resident: np.ndarray) -> None:
        score = exact_scores(visitors.vectors, self._residents.vectors, rows=guest, columns=resident)
        keep = score >= self._threshold
        a, b = visitors.rows[guest[keep]], self._residents.rows[resident[keep]]
        a, b = np.searchsorted(self._rows, np.minimum(a, b)), np.searchsorted(self._rows, np.maximum(a, b))
        self.edges.add(a, b, score[keep])


def _by_cell(cell: np.ndarray, place: np.ndarray, cells: range) -> tuple[np.ndarray, np.ndarray]:
    """Places sorted by cell, and where each cell's begin."""
    order = np.argsort(cell, kind="stable")
    return place[order], np.searchsorted(cell[order], np.arange(cells.start, cells.stop + 1))


def _with_copies(found: Pairs, rows: np.ndarray, *, residents: Visitors, groups: Groups) -> Pairs:
    """By global rows, with the link of every equal resident to the first."""
    first, copies = groups.stars
    a = np.concatenate([rows[found.a], residents.rows[first]])
    b = np.concatenate([rows[found.b], residents.rows[copies]])
    score = np.concatenate([found.score, np.ones(len(copies))])
    order = np.lexsort((b, a))
    return Pairs(a[order], b[order], score[order], found.num_hub_rows, found.num_dropped, groups.largest)
