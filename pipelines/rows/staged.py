"""Tars that ingest has staged, as rows name them: whose bytes they must have."""

import pyarrow as pa
import pyarrow.compute as pc

from curation import storage
from curation.errors import IntegrityError
from pipelines.engine.step import RECEIPT, FileRef, Receipt
from pipelines.rows.parts import verified

STAGED_STEP = "ingest_stage"


def prove_staged(images: pa.Table) -> None:
    """See that the tars that rows lie in are those that were staged; files of sources have no known hash.

    Args:
        images: rows of `schema.IMAGES`, with absolute paths.

    Raises:
        IntegrityError: naming a tar whose bytes are others.
    """
    sidecars = pc.struct_field(pc.list_flatten(images["sidecars"]), "path")
    paths = {*images["path"].unique().to_pylist(), *sidecars.unique().to_pylist()}
    for path in sorted(path for path in paths if path and f"/steps/{STAGED_STEP}/" in path):
        name = path.rpartition("/")[2]
        root, steps, rest = path.rpartition(f"/steps/{STAGED_STEP}/")
        try:
            files = staged_receipt(f"{root}{steps}", rest.partition("/")[0]).files
        except FileNotFoundError as error:
            raise _no_receipt(path) from error
        if name in files:  # a row without bytes names a tar that was never begun
            verified(FileRef(path, *files[name]))


def _no_receipt(path: str) -> IntegrityError:
    return IntegrityError(
        f"What was staged in {path} has no receipt",
        expected=f"{RECEIPT} beside it",
        remedy="Restore it, or remove the folder and run again: it is staged anew",
    )


def staged_receipt(run_dir: str, folder: str) -> Receipt:
    """The receipt of a staged unit, by its folder relative to `run_dir`."""
    path = storage.join(run_dir, folder, RECEIPT)
    return Receipt.from_json(storage.read_bytes(path), where=path)
