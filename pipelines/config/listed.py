"""The files that `manifest.json` lists, which are read once their bytes are seen to be those that it names.

What a run has hashed as it assembled a dataset is remembered in a marker, so that who asks about one image
does not read the whole lineage first; `lvd verify` takes nobody's word and hashes everything.
"""

import functools
import json

import pyarrow as pa

from curation import storage
from curation.errors import IntegrityError
from curation.hashes import Hashes
from curation.sealed import sealed
from curation.shard.manifest import Entry, Manifest

# A marker among those of steps, and removed with them.
_RECORD = "steps/hashes/markers/dataset.jsonl"


def hashes_of(run_dir: str, *, writes: bool = False) -> Hashes:
    """What is remembered of a dataset's files; a run directory on an object store has no record."""
    if not storage.is_local(run_dir):
        return Hashes()
    return Hashes(storage.local_path(storage.join(run_dir, _RECORD)), writes=writes)


_known_hashes = functools.lru_cache(maxsize=8)(hashes_of)


def proven(run_dir: str, entry: Entry, *, anew: bool = False) -> str:
    """The path of a listed file, once its bytes are seen to be those that were listed.

    Args:
        entry: of the manifest, with `path` and `sha256`.
        anew: take nobody's word for what the bytes hash to.

    Raises:
        IntegrityError: naming the file, when it is gone or its bytes are others.
    """
    path = storage.join(run_dir, entry["path"])
    hashes = Hashes() if anew else _known_hashes(run_dir)
    if (sha256 := hashes.told(path)) != entry["sha256"]:
        raise IntegrityError(
            f"A file of the dataset is damaged: {path}",
            got=f"SHA-256 {sha256}",
            expected=entry["sha256"],
            remedy="Run the same config again: it is put right",
        )
    return path


def read_listed(run_dir: str, entry: Entry, columns: list[str] | None = None) -> pa.Table:
    """A listed table, or some columns of it; raises as `proven` does."""
    return storage.read_table(proven(run_dir, entry), columns)


def entry_of(manifest: Manifest, path: str) -> Entry | None:
    """The entry of one of the `files`; None where the manifest, of an earlier version, lists none such."""
    return next((entry for entry in manifest.get("files", ()) if entry["path"] == path), None)


def file_entry(run_dir: str, path: str, *, hashes: Hashes) -> Entry:
    """The entry of a file that lies in the dataset now."""
    whole = storage.join(run_dir, path)
    return {"path": path, "bytes": storage.stat(whole).num_bytes, "sha256": hashes.sha256(whole)}


def with_file(manifest: Manifest, entry: Entry) -> Manifest:
    """The manifest with a file in the place of the one of that path."""
    return {**without_file(manifest, entry["path"]), "files": [*_others(manifest, entry["path"]), entry]}


def without_file(manifest: Manifest, path: str) -> Manifest:
    """The manifest without the file of that path."""
    return {**manifest, "files": _others(manifest, path)}


def _others(manifest: Manifest, path: str) -> list[Entry]:
    return [entry for entry in manifest.get("files", ()) if entry["path"] != path]


def write_manifest(run_dir: str, manifest: Manifest) -> None:
    """Replace the manifest as a whole: after everything that it lists."""
    text = json.dumps(sealed(manifest), indent=1, ensure_ascii=False) + "\n"
    storage.publish_bytes(storage.join(run_dir, "manifest.json"), text.encode(), replace=True)
