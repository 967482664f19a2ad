"""What becomes of the rows of a list: asked for once, kept when asked again, every bad one accounted for."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback import Loopback, answer
from peak_memory import risen_mb

from curation import storage
from curation.ingest.problems import Findings
from curation.ingest.rows import FoundRows
from curation.ingest.sources import UrlSource
from curation.ingest.stage_unit import stage_unit, staged_settings
from curation.ingest.staging import Place, stage_images
from curation.ingest.unique_names import UniqueNames, with_unique_keys
from curation.ingest.units import Unit, cut_units, read_units, units_table
from curation.ingest.web import stage_urls
from curation.ingest.web.download_config import DownloadConfig
from curation.ingest.web.stage_urls import WebImage, fetch_images, listed_images

LOCAL = DownloadConfig(allow_private=("127.0.0.0/8",), honour_robots=False, num_retries=0, backoff_s=0)


def stage(
    source: UrlSource, tmp_path: Path, *, before: pa.Table | None = None, name: str = "out"
) -> FoundRows:
    out = tmp_path / name
    out.mkdir()
    [unit] = read_units(units_table(cut_units(source)))
    return stage_unit(source, unit, Place(out, f"steps/{name}"), before=before)


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        # The hosts of the set have no dot: they could only be names of the own network.
        ("url/crlf_bom.txt", {"forbidden_address": 2, "repeated_url": 1}),
        ("url/latin1.csv", {"bad_url": 1}),
        ("parquet/null_urls.parquet", {"forbidden_address": 1, "bad_url": 5}),
        ("parquet/null_bytes.parquet", {"bad_url": 3}),
        ("parquet/large_string_2MB_url.parquet", {"bad_url": 1, "forbidden_address": 1}),
        ("parquet/formula_captions.parquet", {"forbidden_address": 1, "repeated_url": 2}),
        ("parquet/schema_drift_b.parquet", {"forbidden_address": 1}),
        ("parquet/zero_rows.parquet", {}),
        ("parquet/good.parquet", {"forbidden_address": 200}),
    ],
)
def test_the_bad_set(shared_dir: Path, tmp_path: Path, name: str, reasons: dict[str, int]):
    found = stage(UrlSource(path=str(shared_dir / "badset" / name)), tmp_path)
    assert Counter(found.table["reason"].to_pylist()) == reasons
    assert not found.problems
    assert found.num_again == 0
    assert all(len(uri) <= 4096 for uri in found.table["uri"].to_pylist())


def test_asked_again_only_what_may_succeed(server: Loopback, tmp_path: Path):
    server.routes = {
        "/a": answer(b"a" * 600),
        "/b": answer(b"", 500),
        "/d": answer(b"d"),
        "/e": answer(b"", 403),
    }
    path = tmp_path / "list.jsonl"
    rows = [{"url": server.url(f"/{name}"), "text": name} for name in "abcde"] + [{"url": "ftp://x/"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = UrlSource(path=str(path), download=LOCAL)
    first = stage(source, tmp_path, name="first")
    reasons = [None, "http_error", "not_found", None, "http_error", "bad_url"]
    assert first.table["reason"].to_pylist() == reasons
    assert first.num_again == 2
    server.routes["/b"] = answer(b"b" * 10)
    server.requests.clear()
    second = stage(source, tmp_path, before=first.table, name="second")
    assert sorted(request.path for request in server.requests) == ["/b", "/e"]
    assert second.table["reason"].to_pylist() == [None, None, *reasons[2:]]
    assert second.num_again == 1
    same = [0, 2, 3, 5]
    assert second.table.take(same).equals(first.table.take(same))
    row = second.table.to_pylist()[1]
    tar = (tmp_path / row["path"].removeprefix("steps/")).read_bytes()
    assert tar[row["offset"] : row["offset"] + row["num_bytes"]] == b"b" * 10
    side = row["sidecars"][0]
    assert json.loads(tar[side["offset"] : side["offset"] + side["num_bytes"]]) == {"text": "b"}


def test_what_one_page_forbids_another_may_show(server: Loopback, tmp_path: Path):
    server.routes = {"/a": answer(b"a")}
    images = [
        WebImage("0", server.url("/a"), {}, "opted_out"),
        WebImage("1", server.url("/a"), {}),
        WebImage("2", server.url("/a"), {}),
        WebImage("3", server.url("/a"), {}, "opted_out"),
    ]
    before = None
    for name in ("first", "again"):
        place = Place(tmp_path / name, "steps/first")
        place.out.mkdir()
        fetched = fetch_images(images, LOCAL, place, before=before)
        before = stage_images(fetched, place, version="1", max_image_bytes=10)
        assert before["reason"].to_pylist() == ["opted_out", None, "repeated_url", "opted_out"]
    assert server.asked("/a") == 1


def test_no_credential_of_a_row_is_written(server: Loopback, tmp_path: Path):
    server.routes = {"/a?auth_key=secret": answer(b"a" * 600), "/a?auth_key=secretly": answer(b"b" * 600)}
    host = server.url("").removeprefix("http://")
    path = tmp_path / "list.jsonl"
    rows = [
        {"url": f"  {server.url('/a?auth_key=secret')} ", "https://u:secret@h/": {"//u:secret@h/x": 1}},
        {"url": server.url("/a?auth_key=secretly"), "page": "simplecache::https://u:secret@h/x"},
        {"url": f"//u:secret@{host}/a"},
        {"url": f"{host}/a?sig=secret"},
        {"url": server.url("/b"), "https://u:secret1@h/": 1, "https://u:secret2@h/": 2},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = UrlSource(path=str(path), download=LOCAL)
    found = stage(source, tmp_path)
    signed = server.url("/a?auth_key=***")
    assert found.table["uri"].to_pylist() == [
        signed, signed, f"//***@{host}/a", f"{host}/a?sig=***", server.url("/b"),
    ]  # fmt: skip
    # Two links that differ in what is hidden are two images.
    assert found.table["reason"].to_pylist() == [None, None, "bad_url", "bad_url", "not_found"]
    assert [note.what for note in found.notes] == ["odd_sidecar"]
    tars = b"".join(file.read_bytes() for file in (tmp_path / "out").glob("*.tar"))
    assert b'{"https://***@h/":{"//***@h/x":1}}' in tars
    assert b"simplecache::https://***@h/x" in tars
    assert b"secret" not in tars
    old = found.table.set_column(
        1, "uri", pa.array([f"{uri}&pw=secret" for uri in found.table["uri"].to_pylist()])
    )
    assert stage(source, tmp_path, before=old, name="again").table["uri"].equals(found.table["uri"])


def test_keys_and_sidecars(tmp_path: Path):
    path = tmp_path / "list.jsonl"
    rows = [
        {"url": "http://a.example/1", "id": "x", "n": 1, "t": "\ud800"},
        {"url": "http://a.example/2", "id": "x", "n": float("nan")},
        {"url": "http://a.example/3", "id": None, "n": [1, "é"]},
        {"url": "http://a.example/4", "id": "y", "n": "long" * 100},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    info = storage.stat(str(path))

    def listed(**fields: object) -> list:
        source = UrlSource.model_validate({"path": str(path), **fields})
        return list(listed_images(info, source, rows=(0, None, 0), findings=findings))

    findings = Findings()
    plain = listed(key_prefix="p/")
    assert [image.key for image in plain] == [f"p/list.jsonl/{i:08d}" for i in range(4)]
    assert json.loads(plain[0].sidecars["json"]) == {"id": "x", "n": 1, "t": "\ud800"}
    named = listed(key="id", columns=("n",), max_sidecar_bytes=100)
    assert [image.key.partition("/")[2] for image in named] == ["x", "x", "00000002", "y"]
    assert [image.sidecars.get("json") for image in named] == [
        b'{"n":1}',
        b'{"n":null}',
        '{"n":[1,"é"]}'.encode(),
        None,
    ]
    assert [note.what for note in findings.notes] == ["long_sidecar"]


def test_urls_beside_an_image_carry_no_credentials(tmp_path: Path):
    path = tmp_path / "list.jsonl"
    row = {
        "url": "http://a.example/1?sig=HUSH",
        "id": "http://a.example/1?sig=HUSH",
        "src": "http://u:HUSH@a.example/x",
        "more": [{"page": "https://a.example/?hdnts=exp=1~hmac=HUSH"}],
        "caption": "a sign: http://u:v@h/?sig=1",
    }
    path.write_text(json.dumps(row))
    source = UrlSource(path=str(path), key="id")
    [image] = listed_images(storage.stat(str(path)), source, rows=(0, None, 0), findings=Findings())
    assert image.url == row["url"]
    assert image.key == "list.jsonl/http://a.example/1?sig=***"
    assert json.loads(image.sidecars["json"]) == {
        "id": "http://a.example/1?sig=***",
        "src": "http://***@a.example/x",
        "more": [{"page": "https://a.example/?hdnts=***"}],
        "caption": row["caption"],
    }


def test_keys_are_those_of_the_whole_list_however_it_is_cut(server: Loopback, tmp_path: Path):
    server.routes = {f"/{i}": answer(bytes([i])) for i in range(6)}
    path = tmp_path / "list.jsonl"
    ids = ["x", "x", None, "x", "x#2", "00000002"]
    rows = [{"url": server.url(f"/{i}"), "id": name} for i, name in enumerate(ids)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for unit_rows in (1, 4, 10):
        source = UrlSource(path=str(path), key="id", unit_rows=unit_rows, download=LOCAL)
        names, found = UniqueNames(), []
        for unit in cut_units(source):
            out = tmp_path / f"{unit_rows}-{unit.first}"
            out.mkdir()
            once = stage_unit(source, unit, Place(out, "steps/x"), before=None)
            num_asked = len(server.requests)
            # Rows of one name are told apart by their places, and none is asked for again.
            again = stage_unit(source, unit, Place(out, "steps/y"), before=once.table)
            assert again.table.equals(once.table)
            assert len(server.requests) == num_asked
            found += with_unique_keys(once, names, path="a").table["key"].to_pylist()
        assert [key.partition("/")[2] for key in found] == [
            "x",
            "x#2",
            "00000002",
            "x#3",
            "x#2#2",
            "00000002#2",
        ]


def test_an_odd_value_costs_its_row_no_more_than_itself(tmp_path: Path):
    def text(*values: bytes) -> pa.StringArray:
        plain = pa.array(values, pa.binary())
        return pa.StringArray.from_buffers(len(plain), *plain.buffers()[1:])

    columns = {
        "url": text(b"http://a.example/1", b"http://a.example/\xff", b"http://a.example/3"),
        "caption": text(b"one", b"two", b"thr\xffee"),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    deep: Any = []
    for _ in range(600):
        deep = [deep]
    rows = [{"url": "http://a.example/4", "caption": deep}, {"url": "http://a.example/5", "caption": "five"}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source, findings, found = UrlSource(path=str(tmp_path)), Findings(), []
    for unit in cut_units(source):
        found += listed_images(unit.file, source, rows=(0, None, 0), findings=findings)
    assert [image.url and image.url[-1] for image in found] == ["1", None, "3", "4", "5"]
    captions = [json.loads(image.sidecars.get("json", "{}")).get("caption") for image in found]
    assert captions == ["one", "two", "thr\udcffee", None, "five"]
    assert not findings.problems
    assert [(note.what, note.detail[:5]) for note in findings.notes] == [
        ("bad_rows", "1 row"),
        ("odd_sidecar", "row 0"),
    ]


def test_how_fast_is_asked_changes_nothing_that_is_staged(tmp_path: Path):
    blocked = tmp_path / "blocked"
    blocked.write_text("evil.example\n")

    def settings(**download: object) -> dict:
        return staged_settings(UrlSource.model_validate({"path": "x.txt", "download": download}))

    agent = "LVD-image-downloader/2.0 (me@example.org)"
    assert settings() == settings(max_requests=7, total_s=3, num_retries=0, user_agent=agent)
    assert settings() != settings(honour_robots=False)
    # Sites address a crawler by its name.
    assert settings() != settings(user_agent="me/1.0")
    assert settings() != settings(blocked_domains=[str(blocked)])
    before = settings(blocked_domains=[str(blocked)])
    blocked.write_text("evil.example\nworse.example\n")
    assert settings(blocked_domains=[str(blocked)]) != before


def test_units_of_a_list(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"http://a.example/{i}\n" for i in range(10)))
    units = list(cut_units(UrlSource(path=str(tmp_path), unit_rows=4)))
    assert [(unit.first, unit.stop, unit.offset) for unit in units] == [(0, 4, 0), (4, 8, 76), (8, None, 152)]
    assert read_units(units_table(units)) == units
    assert all(isinstance(unit, Unit) and unit.file.key == "a.txt" for unit in units)


def test_a_unit_with_long_captions_is_fetched_in_pieces(tmp_path: Path):
    """One caption that a 9 kB table repeats is not held for all of a unit's rows."""
    for name, size in (("small", 10), ("bomb", 100_000)):
        columns = {"url": [f"ftp://h/{i}" for i in range(4096)], "caption": ["x" * size] * 4096}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet", compression="zstd")
    setup = """
        import tempfile
        from pathlib import Path
        from curation.ingest.stage_unit import stage_unit
        from curation.ingest.staging import Place
        from curation.ingest.units import cut_units
        from curation.ingest.sources import UrlSource
    """
    work = """
        source = UrlSource(path=path)
        [unit] = cut_units(source)
        with tempfile.TemporaryDirectory() as out:
            (Path(out) / "out").mkdir()
            staged = stage_unit(source, unit, Place(Path(out) / "out", "out"), before=None)
        assert staged.table["reason"].to_pylist() == ["bad_url"] * 4096
    """
    small, bomb = tmp_path / "small.parquet", tmp_path / "bomb.parquet"
    assert risen_mb(setup, work, harmless=small, tried=bomb) < 150


def test_a_unit_has_no_more_bytes_than_one_may_have(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is beyond is asked for again, as far as there is room again; captions count, too."""
    monkeypatch.setattr(stage_urls, "MAX_UNIT_BYTES", 1000)
    monkeypatch.setattr(stage_urls, "_BATCH_URLS", 3)
    server.routes = {f"/{i}": answer(bytes([i]) * 100) for i in range(10)}
    path = tmp_path / "list.jsonl"
    rows = [{"url": server.url(f"/{i}"), "text": "x" * 89} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = UrlSource(path=str(path), download=LOCAL.model_copy(update={"max_image_bytes": 150}))
    first = stage(source, tmp_path, name="first")
    assert first.table["reason"].to_pylist() == [None] * 5 + ["unit_full"] * 5
    assert first.num_again == 5
    second = stage(source, tmp_path, before=first.table, name="second")
    assert second.table["reason"].to_pylist() == [None] * 10
    assert second.table.slice(0, 5).equals(first.table.slice(0, 5))
