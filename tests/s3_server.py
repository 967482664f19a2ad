"""An S3 server of our own on a loopback port, as fixtures for the conftest files that want it."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer


@dataclass(frozen=True)
class S3:
    """A running server with one empty bucket."""

    endpoint: str
    bucket: str

    def upload(self, folder: Path, prefix: str = "") -> str:
        """Put every file below `folder` under `prefix`, and return the URL of that prefix."""
        import fsspec

        fs = fsspec.filesystem("s3")
        root = f"{self.bucket}/{prefix}".rstrip("/")
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            fs.pipe_file(f"{root}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        return f"s3://{root}"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of moto's server, stopped when the tests are over."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3]:
    """A bucket, and an environment in which `s3://` means this server and no one's credentials are read."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    bucket = "pool"
    fs.mkdir(bucket)
    try:
        yield S3(s3_endpoint, bucket)
    finally:
        fs.invalidate_cache()
        fs.rm(bucket, recursive=True)
        s3fs.S3FileSystem.clear_instance_cache()
