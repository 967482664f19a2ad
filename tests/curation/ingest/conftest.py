"""Tars of given members, and an S3 server of our own."""

import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from s3_server import s3, s3_endpoint  # noqa: F401 — fixtures


@pytest.fixture(scope="session")
def write_tar() -> Callable[..., Path]:
    """Write a tar of these members (name and bytes; pairs where a name comes twice) and return its path."""

    def write(
        path: Path, members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=kind) as tar:
            for name, data in members.items() if isinstance(members, Mapping) else members:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return path

    return write
