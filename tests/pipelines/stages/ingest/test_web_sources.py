"""URL lists and the links of web crawls, from the list to the shards; a rerun asks for what failed."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import Loopback, answer, serving
from PIL import Image

from curation import storage
from curation.errors import ConfigError
from curation.shard.read import open_dataset
from pipelines.cli.main import main
from pipelines.config.run_config import RunConfig, validate
from pipelines.run import RunResult


@pytest.fixture
def server() -> Any:
    with serving() as loopback:
        yield loopback


def jpeg(number: int) -> bytes:
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    out = io.BytesIO()
    small.resize((96, 96), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def config_for(source: dict[str, Any], run_dir: Path, **download: Any) -> RunConfig:
    settings = {"allow_private": ["127.0.0.0/8"], "backoff_s": 0.01, "read_s": 2.0, **download}
    data = {
        "name": "web",
        "run_dir": str(run_dir),
        "pools": {"web": {"role": "uncurated", "sources": [{**source, "download": settings}]}},
        "executor": {"kind": "local"},
        "ingest": {"part_rows": 6},
        "describe": {"decode_threads": 1},
    }
    return validate(data, where="the test's config")


def decisions(run_dir: Path) -> dict[str, str]:
    """The reason of every row, by its number, in the dataset that the manifest names."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    lineage = [storage.read_table(str(run_dir / entry["path"])) for entry in manifest["lineage"]]
    rows = [row for table in lineage for row in table.to_pylist()]
    return {row["key"].rpartition("/")[2]: row["reason"] for row in rows}


def test_a_list_of_urls_becomes_shards(
    server: Loopback, tmp_path: Path, run_quietly: Callable[..., RunResult]
):
    server.routes = {f"/{i}.jpg": answer(jpeg(i)) for i in range(10)}
    server.routes["/3.jpg"] = answer(b"", 503)
    server.routes["/4.jpg"] = answer(b"<html>", headers={"Content-Type": "text/html"})
    server.routes["/robots.txt"] = answer(b"User-agent: *\nDisallow: /5.jpg\n")
    lines = ["url,caption", *(f"{server.url(f'/{i}.jpg')},picture {i}" for i in range(10))]
    lines += [
        f"{server.url('/0.jpg')},again",
        "http://192.168.0.1/x.jpg,inside",
        f"{server.url('/gone')},gone",
    ]
    urls = tmp_path / "urls.csv"
    urls.write_text("\n".join(lines) + "\n")
    source = {"kind": "urls", "path": str(urls), "unit_rows": 4}
    config = config_for(source, tmp_path / "run", num_retries=0)
    result = run_quietly(config)
    assert result.exit_code == 0  # a URL that fails is a row, and no missing source
    want = {f"{i:08d}": "curated" for i in range(13)}
    reasons = decisions(tmp_path / "run")
    failed = {
        "00000003": "http_error",
        "00000004": "not_an_image",
        "00000005": "opted_out",
        "00000010": "exact_copy",  # the same URL, in another unit
        "00000011": "forbidden_address",
        "00000012": "not_found",
    }
    assert {key: reason for key, reason in reasons.items() if key in failed} == failed
    assert len(set(reasons.values()) - set(failed.values())) == 1
    assert set(reasons) == set(want)
    reader, _ = open_dataset(str(tmp_path / "run"))
    with reader:
        samples = list(reader.iterate())
    assert {sample.data for sample in samples} == {jpeg(i) for i in (0, 1, 2, 6, 7, 8, 9)}
    assert {json.loads(sample.sidecars["json"])["caption"] for sample in samples} == {
        f"picture {i}" for i in (0, 1, 2, 6, 7, 8, 9)
    }
    assert samples[0].meta["uri"].startswith("http://127.0.0.1:")

    # A rerun asks nobody; nor does one with other limits.
    asked = len(server.requests)
    run_quietly(config, until="ingest")
    run_quietly(config_for(source, tmp_path / "run", num_retries=0, max_requests=7), until="ingest")
    assert len(server.requests) == asked

    # `--refresh` asks for what failed, and for no more.
    server.routes["/3.jpg"] = answer(jpeg(3))
    server.requests.clear()
    run_quietly(config, refresh=True)
    assert [r.path for r in server.requests] == ["/robots.txt", "/3.jpg"]
    assert decisions(tmp_path / "run")["00000003"] == reasons["00000000"]
    assert main(["verify", str(tmp_path / "run")]) == 0

    # What is kept of the first time is not cleaned away, and a third run finds all of it.
    assert main(["clean", str(tmp_path / "run"), "--keep-current", "--yes"]) == 0
    server.requests.clear()
    run_quietly(config, refresh=True)
    assert not server.requests
    assert main(["verify", str(tmp_path / "run")]) == 0


def test_links_of_a_crawl_are_fetched(
    server: Loopback, tmp_path: Path, run_quietly: Callable[..., RunResult], rows_of: Callable
):
    pytest.importorskip("fastwarc")
    server.routes = {f"/{i}.jpg": answer(jpeg(i)) for i in range(6)}
    page = f'<img src="/0.jpg" alt="zero"><img src="/1.jpg"><img src="{server.url("/0.jpg")}">'
    shy = '<meta name="robots" content="noai"><img src="/2.jpg">'
    records = [
        warc_record(server.url("/a.html"), page, "text/html; charset=utf-8"),
        warc_record(server.url("/b.html"), shy, "text/html"),
        warc_record(server.url("/c.txt"), '<img src="/3.jpg">', "text/plain"),
        warc_record(server.url("/d.html"), '<img src="/4.jpg">', "text/html", status="404 Not Found"),
    ]
    (tmp_path / "crawl.warc.gz").write_bytes(b"".join(gzip.compress(record) for record in records))
    (tmp_path / "crawl.wat.gz").write_bytes(gzip.compress(wat_record(server.url("/e.html"))))
    source = {"kind": "warc", "take": "links", "path": str(tmp_path)}
    run_quietly(config_for(source, tmp_path / "run", honour_robots=False))
    lineage = rows_of(tmp_path / "run", "lineage").to_pylist()
    found = {row["key"]: (row["uri"].rpartition("/")[2], row["decision"], row["reason"]) for row in lineage}
    kept = next(reason for _, decision, reason in found.values() if decision == "kept")
    assert found == {
        "crawl.warc.gz/00000000": ("0.jpg", "kept", kept),
        "crawl.warc.gz/00000001": ("1.jpg", "kept", kept),
        "crawl.warc.gz/00000002": ("0.jpg", "dropped", "repeated_url"),
        "crawl.warc.gz/00000003": ("2.jpg", "dropped", "opted_out"),
        "crawl.wat.gz/00000000": ("5.jpg", "kept", kept),
    }
    assert {request.path for request in server.requests} == {"/0.jpg", "/1.jpg", "/5.jpg"}
    reader, _ = open_dataset(str(tmp_path / "run"))
    with reader:
        texts = [json.loads(sample.sidecars["json"]) for sample in reader.iterate()]
    assert {"alt": "zero", "page": server.url("/a.html")} in texts
    assert {"alt": "five", "page": server.url("/e.html")} in texts


def test_whose_opt_outs_count_is_part_of_what_is_staged_of_a_crawl(
    tmp_path: Path, run_quietly: Callable[..., RunResult]
):
    pytest.importorskip("fastwarc")
    tags = ["noai", "otherbot: noindex", "index"]
    records = [
        _record(
            "response",
            f"http://a.example/{i}.jpg",
            "application/http; msgtype=response",
            f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nX-Robots-Tag: {tag}\r\n\r\n".encode() + jpeg(i),
        )
        for i, tag in enumerate(tags)
    ]
    (tmp_path / "crawl.warc").write_bytes(b"".join(records))
    source = {"kind": "warc", "path": str(tmp_path)}

    def left_out(**download: Any) -> list[bool]:
        run_quietly(config_for(source, tmp_path / "run", **download))
        return [reason == "opted_out" for _, reason in sorted(decisions(tmp_path / "run").items())]

    assert left_out(honour_opt_outs=False) == [False, False, False]
    assert left_out() == [True, False, False]
    assert left_out(user_agent="otherbot/1.0") == [True, True, False]


def warc_record(url: str, body: str, kind: str, *, status: str = "200 OK") -> bytes:
    payload = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n{body}".encode()
    return _record("response", url, "application/http; msgtype=response", payload)


def wat_record(url: str) -> bytes:
    links = [
        {"path": "IMG@/src", "url": "/5.jpg", "alt": "five"},
        {"path": "A@/href", "url": "/4.jpg"},
        {"path": "IMG@/src", "url": "data:image/gif;base64,AAAA"},
    ]
    response = {"HTML-Metadata": {"Head": {"Metas": []}, "Links": links}, "Headers": {"Server": "x"}}
    data = {"Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": response}}}
    return _record("metadata", url, "application/json", json.dumps(data).encode())


def _record(kind: str, url: str, content_type: str, payload: bytes) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload + b"\r\n\r\n"


def test_lists_of_blocked_domains_are_part_of_what_is_staged(
    server: Loopback, tmp_path: Path, run_quietly: Callable[..., RunResult]
):
    server.routes = {"/0.jpg": answer(jpeg(0)), "/1.jpg": answer(jpeg(1))}
    urls, blocked = tmp_path / "urls.txt", tmp_path / "blocked.txt"
    urls.write_text(f"{server.url('/0.jpg')}\n{server.url('/1.jpg', 'localhost')}\n")
    blocked.write_text("evil.example\n")
    source = {"kind": "urls", "path": str(urls)}
    options = {"honour_robots": False, "blocked_domains": [str(blocked)]}
    run_quietly(config_for(source, tmp_path / "run", **options))
    assert "blocked_domain" not in decisions(tmp_path / "run").values()
    blocked.write_text("localhost\n")
    run_quietly(config_for(source, tmp_path / "run", **options))
    assert decisions(tmp_path / "run")["00000001"] == "blocked_domain"
    with pytest.raises(ConfigError, match="blocked"):
        run_quietly(config_for(source, tmp_path / "run", blocked_domains=[str(tmp_path / "absent")]))


@pytest.mark.accept
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_workers_of_a_cluster_share_the_limits_of_a_host(
    server: Loopback, tmp_path: Path, run_quietly: Callable[..., RunResult]
):
    server.routes = {f"/{i}.jpg": answer(jpeg(i), wait_s=0.02) for i in range(60)}
    urls = tmp_path / "urls.txt"
    urls.write_text("".join(f"{server.url(f'/{i}.jpg')}\n" for i in range(60)))
    source = {"kind": "urls", "path": str(urls), "unit_rows": 10}
    ours = {}
    for kind in ("local", "ray"):
        config = config_for(source, tmp_path / kind, max_requests_per_host=3)
        executor = config.executor.model_copy(update={"kind": kind, "workers": 2, "num_cpus": 4})
        server.most_at_once.clear()
        run_quietly(config.model_copy(update={"executor": executor}))
        assert server.most_at_once["127.0.0.1"] <= 3
        reader, digest = open_dataset(str(tmp_path / kind))
        reader.close()
        ours[kind] = (digest, decisions(tmp_path / kind))
    assert ours["local"] == ours["ray"]
    assert len(server.requests) == 2 * (60 + 6)  # and robots.txt, once a unit


def test_what_another_attempt_left_of_a_unit_is_in_nobody_s_way(
    server: Loopback, tmp_path: Path, run_quietly: Callable[..., RunResult]
):
    server.routes = {f"/{i}.jpg": answer(jpeg(i)) for i in range(3)}
    server.routes["/2.jpg"] = answer(b"", 503)
    urls = tmp_path / "urls.txt"
    urls.write_text("".join(server.url(f"/{i}.jpg") + "\n" for i in range(3)))
    source = {"kind": "urls", "path": str(urls)}
    config = config_for(source, tmp_path / "run", num_retries=0, honour_robots=False)
    run_quietly(config, until="ingest")
    staged = tmp_path / "run" / "steps" / "ingest_stage"
    for path in [*staged.glob("*/receipt.json"), *staged.glob("markers/*")]:
        path.unlink()
    [left] = staged.glob("*/000000.tar")
    before = left.read_bytes()
    server.routes["/1.jpg"] = answer(jpeg(7))
    run_quietly(config)
    assert left.read_bytes() == before

    def pictures() -> set[bytes]:
        reader, _ = open_dataset(str(tmp_path / "run"))
        with reader:
            return {sample.data for sample in reader.iterate()}

    assert pictures() == {jpeg(0), jpeg(7)}
    server.routes["/2.jpg"] = answer(jpeg(2))
    run_quietly(config, refresh=True)  # rows of the earlier generation are given on as they are
    assert pictures() == {jpeg(0), jpeg(7), jpeg(2)}
    assert main(["clean", str(tmp_path / "run"), "--keep-current", "--yes"]) == 0
    server.requests.clear()
    run_quietly(config)
    assert not server.requests
    assert pictures() == {jpeg(0), jpeg(7), jpeg(2)}


def test_what_a_signed_url_carries_is_in_no_file_of_the_run(
    server: Loopback, tmp_path: Path, run_quietly: Callable[..., RunResult], capsys: Any
):
    queries = [
        "X-Amz-Credential=HUSH&X-Amz-Security-Token=HUSH&X-Amz-Signature=HUSH&w=1",
        "sv=2022&sp=r&sig=HUSH%2F",
        "GoogleAccessId=HUSH&Expires=1&Signature=HUSH",
        "AWSAccessKeyId=HUSH&Signature=HUSH",
        "access_token=HUSH",
        "Policy=HUSH&Key-Pair-Id=HUSH",
        "id=6&next=https%3A%2F%2Fo%2Fx%3Fapi_key%3DHUSH",
    ]
    paths = [f"/{number}.jpg?{query}" for number, query in enumerate(queries)]
    server.routes = {path: answer(jpeg(number)) for number, path in enumerate(paths[:-2])}
    server.routes |= {path.partition("?")[0]: route for path, route in server.routes.items()}
    userinfo = server.url("/9.jpg").replace("://", "://user:HU/SH@")
    lines = [*(server.url(path) for path in paths), userinfo, userinfo.replace("HU/SH", "HUSH")]
    bare = [userinfo.removeprefix("http:"), f"{userinfo.partition('@')[2]}?sig=HU;SH#HUSH"]
    lines += bare
    (tmp_path / "urls.txt").write_text("\n".join(lines) + "\n")
    run_dir = tmp_path / "run"
    run_quietly(config_for({"kind": "urls", "path": str(tmp_path / "urls.txt")}, run_dir, num_retries=0))
    reader, _ = open_dataset(str(run_dir))
    with reader:
        uris = {sample.meta["uri"].partition("?")[2] for sample in reader.iterate()}
    assert "X-Amz-Credential=***&X-Amz-Security-Token=***&X-Amz-Signature=***&w=1" in uris
    for path in run_dir.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".parquet":  # its pages are compressed
                data += repr(storage.read_table(str(path)).to_pylist()).encode()
            assert b"HUSH" not in data, path
            assert b"SH@" not in data, path
    # Asked for by its whole URL, an image is found.
    capsys.readouterr()
    for line in (lines[0], *bare):
        assert main(["explain", str(run_dir), f" {line}"]) == 0
    assert main(["explain", str(run_dir), lines[0] + "&x=no"]) == 2
    said = capsys.readouterr()
    assert "HUSH" not in said.out + said.err
