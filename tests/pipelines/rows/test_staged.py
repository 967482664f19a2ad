"""Tars that were staged are used as they were staged, or not at all."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation import storage
from curation.errors import IntegrityError
from curation.schema import IMAGES
from pipelines.engine.step import RECEIPT, Receipt
from pipelines.rows.staged import STAGED_STEP, prove_staged, staged_receipt

UNIT = f"steps/{STAGED_STEP}/{'0' * 32}"


def rows(*paths: str, sidecar: str | None = None) -> pa.Table:
    beside: list[dict[str, Any]] = []
    if sidecar is not None:
        beside = [{"name": "txt", "path": sidecar, "offset": 0, "num_bytes": 1}]
    nothing = {"uri": "/x", "num_bytes": 1, "offset": 0, "version": "", "sidecars": beside, "reason": None}
    return pa.Table.from_pylist([nothing | {"key": str(i), "path": p} for i, p in enumerate(paths)], IMAGES)


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """A staged tar with its receipt."""
    path = tmp_path / UNIT / "000000.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"bytes of a tar")
    sha256, num_bytes = storage.sha256_file(str(path))
    receipt = Receipt(STAGED_STEP, "0" * 32, UNIT, {path.name: (num_bytes, sha256)}, {})
    (path.parent / RECEIPT).write_text(receipt.to_json())
    return path


def test_a_tar_as_it_was_staged_is_proved(tar: Path, tmp_path: Path) -> None:
    assert staged_receipt(str(tmp_path), UNIT).files[tar.name][0] == len(b"bytes of a tar")
    never_begun = str(tar.with_name("000001.tar"))
    prove_staged(rows(str(tar), never_begun, str(tmp_path / "of a source.tar"), ""))
    prove_staged(rows("/a/source.tar", sidecar=str(tar)))


@pytest.mark.parametrize("as_sidecar", [False, True])
def test_one_that_has_changed_is_named(tar: Path, as_sidecar: bool) -> None:
    tar.write_bytes(b"other bytes")
    with pytest.raises(IntegrityError, match=tar.name):
        prove_staged(rows("/a/source.tar", sidecar=str(tar)) if as_sidecar else rows(str(tar)))


def test_one_without_a_receipt_is_named(tar: Path) -> None:
    (tar.parent / RECEIPT).unlink()
    with pytest.raises(IntegrityError, match="has no receipt") as caught:
        prove_staged(rows(str(tar)))
    assert str(tar) in str(caught.value)
