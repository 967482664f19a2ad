"""An S3 server of our own on a loopback port: fixtures for the conftest files that want it, and a program."""

import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# The server as a program of its own, for tests that fork or that must not share its threads.
SERVER = (
    sys.executable, "-c",
    "import logging, threading; logging.getLogger('werkzeug').setLevel(logging.ERROR)\n"
    "from moto.moto_server.threaded_moto_server import ThreadedMotoServer\n"
    "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False); server.start()\n"
    "print(server.get_host_and_port()[1], flush=True); threading.Event().wait()\n",
)  # fmt: skip


@contextmanager
def serving(command: Sequence[str]) -> Iterator[int]:
    """Start a server that prints its port, and stop it again."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def s3_environment(endpoint: str, folder: Path) -> dict[str, str]:
    """Settings by which `s3://` means one server; no file of `folder` has anyone's credentials."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


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
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

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

    for name, value in s3_environment(s3_endpoint, tmp_path).items():
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
