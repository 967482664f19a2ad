"""What every filter took, and what lies just beside its threshold, on either side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from curation.describe.filters import Filter, JudgeConfig, filters, measurements
from pipelines.answers.lineage import Lineage
from pipelines.lvd import Curated
from pipelines.report.pictures import Picture, Scored, pictures_at
from pipelines.rows.parts import Part, read

NUM_BESIDE = 5  # on either side; ten fill a line


@dataclass(frozen=True)
class FilterView:
    """One filter that is on."""

    reason: str
    field: str  # of the section `judge`
    limit: float
    refuses: str  # below | above
    num_measured: int  # images that have the measurement
    num_refused: int  # of these, also where another filter came first
    refused: tuple[Scored, ...]  # the nearest to the threshold first
    passed: tuple[Scored, ...]  # likewise


def gather_filters(lineage: Lineage, made: Curated | None, *, config: JudgeConfig) -> list[FilterView] | None:
    """Every filter that is on, in the order of their reasons; None where the measurements are gone."""
    if made is None:
        return None
    tallies = [_Tally(one) for one in filters(config)]
    for part in made.parts:
        measured = measurements(read(part.described), read(part.scores) if part.scores else None)
        for tally in tallies:
            tally.add(part, measured)
    rows = np.concatenate([np.zeros(0, np.int64), *(t.rows for t in tallies)])
    pictures = pictures_at(lineage, rows.tolist())
    return [tally.view(pictures) for tally in tallies]


def pictures_of(views: Sequence[FilterView]) -> list[Picture]:
    """In the order shown."""
    return [beside.picture for view in views for beside in (*reversed(view.passed), *view.refused)]


class _Tally:
    """Counts of one filter, and the rows nearest to its threshold so far."""

    def __init__(self, one: Filter) -> None:
        self._filter = one
        self._num_measured = self._num_refused = 0
        self._beside = {is_refused: _nothing() for is_refused in (False, True)}

    @property
    def rows(self) -> Int64[np.ndarray, " k"]:
        """Global rows of all that is shown."""
        return np.concatenate([rows for rows, _ in self._beside.values()])

    def add(self, part: Part, measured: pa.Table) -> None:
        """Take in a part."""
        column = measured[self._filter.measure]
        there = column.is_valid().to_numpy()
        values = column.cast(pa.float64()).fill_null(np.nan).to_numpy()
        refused = self._filter(measured).fill_null(False).to_numpy()
        self._num_measured += int(there.sum())
        self._num_refused += int(refused.sum())
        for is_refused, (rows, old) in self._beside.items():
            mine = np.flatnonzero(there & (refused == is_refused))
            all_rows, all_values = np.append(rows, mine + part.offset), np.append(old, values[mine])
            nearest = np.lexsort((all_rows, np.abs(all_values - self._filter.limit)))[:NUM_BESIDE]
            self._beside[is_refused] = all_rows[nearest], all_values[nearest]

    def view(self, pictures: dict[int, Picture]) -> FilterView:
        """What the page shows."""
        passed, refused = (
            tuple(
                Scored(pictures[row], value)
                for row, value in zip(rows.tolist(), values.tolist(), strict=True)
            )
            for rows, values in self._beside.values()
        )
        one = self._filter
        return FilterView(
            one.reason,
            one.field,
            one.limit,
            one.refuses,
            self._num_measured,
            self._num_refused,
            refused,
            passed,
        )


def _nothing() -> tuple[Int64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    return np.zeros(0, np.int64), np.zeros(0, np.float64)
