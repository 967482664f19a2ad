"""A package that is missing, one that is broken, and a mistake of our own are three things."""

import sys
from pathlib import Path

import fsspec
import pytest

from curation import storage
from curation.errors import ConfigError
from curation.ingest.staging import Place
from curation.ingest.web import stage_urls
from curation.ingest.web.download_config import DownloadConfig
from curation.packages import is_of_ours, needing
from curation.search.installed import load_faiss


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'x'", name="x"), "A needs X, which is not installed"),
        (ModuleNotFoundError("No module named 'x.y'", name="x.y"), "A needs X, which is not installed"),
        (ImportError("libGL.so.1: cannot open shared object file"), "A needs X, which cannot be imported"),
        (ImportError("cannot import name 'y' from 'x'", name="x"), "A needs X, which cannot be imported"),
    ],
)
def test_missing_and_broken_are_told_apart(error: ImportError, said: str) -> None:
    with pytest.raises(ConfigError) as caught, needing("A needs X", install="pip install x"):
        raise error
    assert str(caught.value).startswith(f"{said}. Got: {error}.")
    assert "pip install x" in str(caught.value)


def test_a_mistake_of_our_own_is_let_through() -> None:
    for name in ("curation.nothing", "pipelines"):
        error = ModuleNotFoundError("ours", name=name)
        with pytest.raises(ModuleNotFoundError, match="ours"), needing("A needs X", install="pip install x"):
            raise error


def test_a_broken_package_is_not_told_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faiss.py").write_text("raise ImportError('libomp.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    with pytest.raises(ConfigError, match=r"FAISS, which cannot be imported\. Got: libomp"):
        load_faiss()


def test_without_aiohttp_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, "steps/x")
    monkeypatch.setitem(sys.modules, "curation.ingest.web.download", None)
    with pytest.raises(ModuleNotFoundError):
        stage_urls._download([], DownloadConfig(), place, max_bytes=1)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    for name in ("download", "fetch"):
        monkeypatch.delitem(sys.modules, f"curation.ingest.web.{name}", raising=False)
    with pytest.raises(ConfigError, match=r"aiohttp, which is not installed.*lvd\[web\]"):
        stage_urls._download([], DownloadConfig(), place, max_bytes=1)


def test_a_driver_that_is_broken_is_told_by_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_scheme: str) -> None:
        raise ImportError("Install s3fs to access S3") from ImportError(
            "cannot import name 'x' from 'botocore'"
        )

    monkeypatch.setattr(fsspec, "get_filesystem_class", broken)
    with pytest.raises(ConfigError, match=r"which cannot be imported\. Got: cannot import name 'x'"):
        storage.stat("s3://bucket/x")


@pytest.mark.parametrize(
    ("line", "is_ours"),
    [
        ("import no_such_package", False),
        ("from json import no_such_name", False),
        ("import curation.no_such_module", True),
        ("from pipelines.cli.main import no_such_name", True),
        ("import curationist", False),
    ],
)
def test_whose_import_fails(line: str, is_ours: bool) -> None:
    with pytest.raises(ImportError) as failed:
        exec(line, {})
    assert is_of_ours(failed.value) is is_ours
