"""Names that come more than once are told apart, and none is lost."""

from dataclasses import replace

import pyarrow as pa

from curation.ingest.problems import Problem
from curation.ingest.rows import FoundRows
from curation.schema import IMAGES


class UniqueNames:
    """Gives every member of something a name of its own: the second `a.jpg` becomes `a.jpg#2`."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}  # every name in use -> the number that its next double tries first
        self.num_repeated = 0

    def take(self, name: str) -> str:
        """`name`, or the first `name#N` that nobody has."""
        unique, number = name, self._next.get(name, 1)
        while unique in self._next:
            number += 1
            unique = f"{name}#{number}"
        if unique != name:
            self.num_repeated += 1
            self._next[name] = number
        self._next[unique] = 1
        return unique


def repeated_keys_note(path: str, num_repeated: int) -> Problem:
    """That rows of a file have keys that others had before them."""
    detail = f"{num_repeated} rows have a key that came before; all are kept, told apart by #2 and so on"
    return Problem(path, "duplicate_name", detail)


def with_unique_keys(unit: FoundRows, names: UniqueNames, *, path: str) -> FoundRows:
    """The unit, its rows under keys that no other has; what a source is cut into changes none of them.

    Args:
        unit: what a unit gave; the units of a source come in order.
        names: that its rows, and those of the units before it, have.
    """
    num_before = names.num_repeated
    keys = pa.array([names.take(key) for key in unit.table["key"].to_pylist()], IMAGES.field("key").type)
    index = IMAGES.get_field_index("key")
    notes = unit.notes
    if num_repeated := names.num_repeated - num_before:
        notes = [*notes, repeated_keys_note(path, num_repeated)]
    return replace(unit, table=unit.table.set_column(index, IMAGES.field("key"), keys), notes=notes)
