"""The science of `lvd`, for whoever calls it from Python: the names of `__all__`.

A name is imported when it is asked for (PEP 562): whatever imports a module of this package comes through
here, `lvd status` too, and that waits for no torch. The block of `TYPE_CHECKING` shows the same names to
editors, to mypy and to the pages of docs/.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curation.errors import ConfigError, IntegrityError, LvdError, SourceError
    from curation.search.edges import Pairs
    from curation.search.topk import TopK
    from curation.shard.read import ShardReader, open_dataset
    from curation.shard.sample import Sample
    from curation.vectors import (
        Clustering,
        VectorCopies,
        balanced_sample,
        copies_among,
        hierarchy,
        kmeans,
        nearest_neighbours,
        unit_vectors,
    )

__all__ = [
    "Clustering",
    "ConfigError",
    "IntegrityError",
    "LvdError",
    "Pairs",
    "Sample",
    "ShardReader",
    "SourceError",
    "TopK",
    "VectorCopies",
    "balanced_sample",
    "copies_among",
    "hierarchy",
    "kmeans",
    "nearest_neighbours",
    "open_dataset",
    "unit_vectors",
]
_HOMES = {
    **dict.fromkeys(("ConfigError", "IntegrityError", "LvdError", "SourceError"), "curation.errors"),
    **dict.fromkeys(("ShardReader", "open_dataset"), "curation.shard.read"),
    "Pairs": "curation.search.edges",
    "Sample": "curation.shard.sample",
    "TopK": "curation.search.topk",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "curation.vectors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
