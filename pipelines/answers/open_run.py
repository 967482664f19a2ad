"""A finished run for whoever asks it from Python: its tables, its vectors, its shards, and why and where."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float16, Int64

from curation.errors import ConfigError
from curation.schema import LINEAGE
from curation.shard.manifest import Manifest
from curation.shard.read import ShardReader, open_dataset
from pipelines.answers import explain, finished_run, nearest
from pipelines.answers.explain_words import explain_lines
from pipelines.answers.nearest import NearestQuery, Vectors
from pipelines.config.run_config import RunConfig
from pipelines.rows.parts import gather_vectors

NEIGHBOURS = pa.schema([pa.field("row", pa.int64()), pa.field("score_with_query", pa.float64()), *LINEAGE])


class OpenRun:
    """A dataset, and what it was made from as far as that is still there; each is read when it is asked for.

    Rows are *global*: row i of `lineage()` is row i of `vectors()`, and what `search` calls row i. `explain`,
    `search` and `shards` ask the dataset that stands in the run directory by then.
    """

    def __init__(self, run_dir: str) -> None:
        self._run = finished_run.require_run(run_dir)
        self.run_dir = run_dir

    @property
    def config(self) -> RunConfig:
        """The config that the dataset was made with, whatever has run since."""
        return self._run.config

    @property
    def manifest(self) -> Manifest:
        """What the dataset is made of, as in `manifest.json`."""
        return self._run.manifest

    def lineage(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The table with a row for every image that came in, in the order of global rows.

        Args:
            columns: of `curation.schema.LINEAGE`; None: all.

        Raises:
            ConfigError: no such column.
            IntegrityError: a file of it is damaged.
        """
        if columns is not None and (unknown := sorted(set(columns) - set(LINEAGE.names))):
            raise ConfigError(
                "No column of the lineage", got=", ".join(unknown), expected=", ".join(LINEAGE.names)
            )
        return self._run.lineage.table(LINEAGE.names if columns is None else list(columns))

    def vectors(
        self, rows: Int64[np.ndarray, " m"] | None = None, *, by: Vectors = "embeddings"
    ) -> Float16[np.ndarray, "m d"]:
        """The vectors that the run has made, of unit length; zeros for an image that has none.

        Args:
            rows: global rows, in any order; None: all, which is as much memory as they take on disk.
            by: `embeddings`, or copy `descriptors`.

        Raises:
            ConfigError: no such row; the intermediate data is gone, or the run has no descriptors.
            IntegrityError: a file of them is damaged.
        """
        made = nearest.require_vectors(self._run, by)
        file = "copy_vectors" if by == "descriptors" else "embeddings"
        if rows is None:
            return gather_vectors(made.parts, file, np.arange(made.num_rows))
        wanted, place = np.unique(rows, return_inverse=True)
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < made.num_rows:
            raise ConfigError(
                "No row of the run", got=f"{wanted[0]} to {wanted[-1]}", expected=f"0 to {made.num_rows - 1}"
            )
        return gather_vectors(made.parts, file, wanted)[place]

    def explain(self, image: str, *, pool: str | None = None) -> list[dict[str, Any]]:
        """The story of every image whose key, pool/key or URI is `image`, or whose id begins with it.

        Returns:
            Plain data of each, as `lvd explain --json` gives it: its row of the lineage, the `copies` in its
            component, and its `story` by stage.

        Raises:
            ConfigError: there is none; names what comes near.
        """
        images: list[dict[str, Any]] = explain.explain(self.run_dir, image, pool=pool)["images"]
        return images

    def explain_in_words(self, image: str, *, pool: str | None = None) -> str:
        """The same as `lvd explain` says it."""
        return "\n".join(explain_lines({"images": self.explain(image, pool=pool)}))

    def search(
        self,
        image: str | None = None,
        *,
        file: str | None = None,
        k: int = 10,
        by: Vectors = "embeddings",
        pool: str | None = None,
        kept: bool = False,
    ) -> pa.Table:
        """The images of the run that are nearest to one of them, or to a file, nearest first.

        Args:
            image: an id, the beginning of one, or a key; or
            file: a picture's path, which the run's own model makes a vector of.
            k: images, at most; for very many queries use `vectors` and `curation.nearest_neighbours`.
            by: `embeddings` find what looks like it, copy `descriptors` find copies of it.
            pool: search in this pool alone.
            kept: search in the dataset alone.

        Returns:
            `row` (global), `score_with_query` (the exact cosine), and the columns of the lineage.

        Raises:
            ConfigError: no such image, no vector to search by, or not exactly one of `image` and `file`.
        """
        if (image is None) == (file is None):
            raise ConfigError(
                "A search is for one image or one file", got=f"image={image!r}, file={file!r}", expected="one"
            )
        asked = NearestQuery(image, file, by, k, pool, kept)
        hits = nearest.search(self.run_dir, asked).hits
        return pa.Table.from_pylist([dict(hit) for hit in hits], schema=NEIGHBOURS)

    def shards(self) -> ShardReader:
        """The shards of the dataset, to be read in any order; close it, or use it in a `with`."""
        return open_dataset(self.run_dir)[0]


def open_run(run_dir: str) -> OpenRun:
    """Open a finished run.

    Raises:
        ConfigError: when no dataset was finished in `run_dir`, or its config is not known.
        IntegrityError: when what it says of itself is damaged.
    """
    return OpenRun(run_dir)
