"""What a user says of a search by cells. Apart from the code that searches, which takes seconds to import."""

from pydantic import BaseModel, ConfigDict, Field

MAX_CELLS = 1 << 16  # a cell's number is stored in 16 bits
MAX_PROBES = 256  # more than these are not told apart where recall is measured


class CellsConfig(BaseModel):
    """How a pool is searched cell by cell, and how much of what is there must be found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_cells: int | None = Field(
        None, ge=1, le=MAX_CELLS, description="cells; null: 4·√N, at least 8 rows each"
    )
    num_probes: int | None = Field(
        None, ge=1, le=MAX_CELLS, description="cells that a row visits; null: chosen on sampled rows"
    )
    min_recall: float = Field(
        0.99,
        gt=0,
        le=1,
        description="share of the pairs above the threshold that must be found, measured on sampled rows "
        "against the whole pool; a run that finds less is refused",
    )
    recall_rows: int = Field(
        4096, ge=2, le=1 << 20, description="rows sampled to measure recall; where probes are chosen, on half"
    )
    sample_rows_per_cell: int = Field(64, ge=1, description="rows a cell to train on, drawn by the seed")
    group_rows: int = Field(
        262_144,
        ge=1,
        description="rows of a group of cells, the unit of work and resume; 2 kB of memory each",
    )

    def cells_of(self, num_rows: int) -> int:
        """Cells of a pool of so many rows."""
        return self.num_cells or default_num_cells(num_rows)

    def groups_of(self, num_rows: int) -> int:
        """Groups of the cells of a pool of so many rows, at most."""
        return -(-num_rows // self.group_rows) or 1


def default_num_cells(num_rows: int) -> int:
    """Cells for a pool: 4·√N, at least 8 rows each."""
    wanted: int = round(4 * num_rows**0.5)
    return max(1, min(wanted, num_rows // 8, MAX_CELLS))
