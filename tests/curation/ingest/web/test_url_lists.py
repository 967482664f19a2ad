"""Lists of URLs, in every format that img2dataset takes, cut anywhere."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peak_memory import risen_mb

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Findings
from curation.ingest.sources import UrlSource
from curation.ingest.web.text_lists import ListRow
from curation.ingest.web.url_lists import cut_list, list_rows

ROWS = [
    {"url": "http://a.example/1.jpg", "caption": 'one, "quoted"'},
    {"url": "http://a.example/2.jpg", "caption": "two\nlines"},
    {"url": "http://a.example/é.jpg", "caption": "drei ✓"},
    {"url": "", "caption": "no URL"},
    {"url": "http://a.example/5.jpg", "caption": ""},
]


def read(
    path: Path, source: UrlSource | None = None, **start: tuple[int, int]
) -> tuple[list[ListRow], Findings]:
    findings = Findings()
    info = storage.stat(str(path))
    return list(list_rows(info, source or UrlSource(path=str(path)), findings=findings, **start)), findings


def pairs(rows: list[ListRow]) -> list[tuple[str | None, object]]:
    return [(row.url, row.values.get("caption")) for row in rows]


def as_csv(rows: list[dict[str, str]], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["url", "caption"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows: list[dict[str, str]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=2)
    return out.getvalue()


FORMATS: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    "csv": as_csv,
    "tsv": lambda rows: as_csv(rows, "\t"),
    "jsonl": lambda rows: b"".join(json.dumps(row).encode() + b"\n" for row in rows),
    "json": lambda rows: json.dumps(rows, indent=1, ensure_ascii=False).encode(),
    "parquet": as_parquet,
}


def test_bytes_of_a_table_are_text(tmp_path: Path):
    columns = {
        "url": [b"http://h/1.jpg", b"http://h/\xff.jpg"],
        "caption": [b"one", "zwölf".encode()],
        "thumb": [b"\x89PNG", b"\x89PNG"],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    found, findings = read(tmp_path / "a.parquet")
    assert pairs(found) == [("http://h/1.jpg", "one"), (None, "zwölf")]
    assert "thumb" not in found[0].values
    assert [note.what for note in findings.notes] == ["no_text", "bad_rows"]
    pq.write_table(pa.table({"url": [[b"http://h/1.jpg"]]}), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match="holds no text"):
        read(tmp_path / "b.parquet")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str, packed: bool):
    data = FORMATS[kind](ROWS)
    if packed and kind == "parquet":
        return
    path = tmp_path / (f"list.{kind}.gz" if packed else f"list.{kind}")
    path.write_bytes(gzip.compress(data) if packed else data)
    rows, findings = read(path)
    assert pairs(rows) == [(row["url"], row["caption"]) for row in ROWS]
    assert [row.number for row in rows] == [0, 1, 2, 3, 4]
    assert not findings.problems


@pytest.mark.parametrize("kind", [*FORMATS, "txt"])
@pytest.mark.parametrize("unit_rows", [1, 2, 3, 100])
def test_a_list_may_be_cut_anywhere(tmp_path: Path, kind: str, unit_rows: int):
    path = tmp_path / f"list.{kind}"
    text = "\n# comment\n".join(row["url"] for row in ROWS).encode()
    path.write_bytes(FORMATS[kind](ROWS) if kind != "txt" else text)
    source = UrlSource(path=str(path), unit_rows=unit_rows)
    whole, whole_findings = read(path)
    cuts = cut_list(storage.stat(str(path)), source)
    assert len(cuts) == -(-len(whole) // unit_rows)
    pieces, notes = [], 0
    for first, stop, offset in cuts:
        rows, findings = read(path, source, start=(first, offset))
        pieces += [row for row in rows if stop is None or row.number < stop]
        notes += len(findings.notes)
    assert pieces == whole
    assert bool(notes) == bool(whole_findings.notes)


CELLS = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=12)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.text(max_size=8), st.text(max_size=12)), min_size=1, max_size=8), st.integers(1, 4)
)
def test_any_csv_may_be_cut_anywhere(tmp_path_factory: pytest.TempPathFactory, cells: list, unit_rows: int):
    """Whatever is quoted: the bytes at which a unit starts are those of a record."""
    path = tmp_path_factory.mktemp("lists") / "list.csv"
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["url", "caption"])
    clean = [[a.replace("\r", "").replace("\0", "") for a in row] for row in cells]
    writer.writerows([[url or "x", caption] for url, caption in clean])
    path.write_bytes(out.getvalue().encode("utf-8", "replace"))
    source = UrlSource(path=str(path), unit_rows=unit_rows)
    whole, _ = read(path)
    pieces = []
    for first, stop, offset in cut_list(storage.stat(str(path)), source):
        rows, _ = read(path, source, start=(first, offset))
        pieces += [row for row in rows if stop is None or row.number < stop]
    assert pieces == whole
    assert len(whole) == len(cells)


def test_bad_lines_are_rows_without_a_url(tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_bytes(
        b"url,caption\nhttp://a/1,x\nhttp://a/2\nhttp://a/3,x,y\n\nhttp://a/\xe9,x\nhttp://a/5,z\n"
    )
    rows, findings = read(path)
    assert [row.url for row in rows] == ["http://a/1", None, None, None, "http://a/5"]
    assert [(n.what, n.detail) for n in findings.notes] == [
        ("no_rows", "1 lines are blank or comments"),
        ("bad_rows", "3 rows cannot be read, the first of them row 1: 1 fields, and 2 columns"),
    ]
    path = tmp_path / "list.jsonl"
    path.write_bytes(
        b'{"url": "http://a/1"}\n[1]\n{"url": 3}\n{"url"\n{}\n{"url": null}\n' + b"[" * 10**6 + b"\n"
    )
    rows, _ = read(path)
    assert [row.url for row in rows] == ["http://a/1"] + [None] * 6


LATIN_1 = {
    "csv": b"caption,url\ncaf\xe9,http://a/1\nx,http://a/2\nx,http://a/\xe9\n\xe9\xe8,http://a/4\n",
    "jsonl": b'{"caption": "caf\xe9", "url": "http://a/1"}\n{"caption": "x", "url": "http://a/2"}\n'
    b'{"caption": "x", "url": "http://a/\xe9"}\n{"url": "http://a/4", "caption": "\xe9\xe8"}\n',
}
LATIN_1["tsv"] = LATIN_1["csv"].replace(b",", b"\t")
LATIN_1["csv.gz"] = gzip.compress(LATIN_1["csv"], mtime=0)


@pytest.mark.parametrize("kind", LATIN_1)
def test_a_caption_that_is_no_utf_8_costs_no_row(tmp_path: Path, kind: str):
    path = tmp_path / f"list.{kind}"
    path.write_bytes(LATIN_1[kind])
    rows, findings = read(path)
    assert pairs(rows) == [
        ("http://a/1", "caf\ufffd"),
        ("http://a/2", "x"),
        (None, None),
        ("http://a/4", "\ufffd\ufffd"),
    ]
    assert not findings.problems
    assert [note.what for note in findings.notes] == ["bad_rows", "odd_text"]
    assert all("save the list as UTF-8" in note.detail for note in findings.notes)
    assert findings.notes[1].detail.startswith("2 rows, the first of them row 0, ")


@pytest.mark.parametrize(
    ("name", "header", "remedy"),
    [
        ("a.csv", "URL;caption", "by ';': save it with commas"),
        ("a.csv", "url|caption", r"by '\|': save it with commas"),
        ("a.csv.gz", "url\tcaption", "set `format: tsv`"),
        ("a.tsv", "url,caption", "set `format: csv`"),
        ("a.tsv", "url;caption", "by ';': save it with commas"),
    ],
)
def test_another_delimiter_is_named(tmp_path: Path, name: str, header: str, remedy: str):
    data = f"{header}\nhttp://a/1;x\n".encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(ConfigError, match=remedy):
        read(path)


def test_a_line_without_end_is_held_in_part(tmp_path: Path):
    path = tmp_path / "list.txt.gz"
    with gzip.open(path, "wb", 1) as out:
        for _ in range(64):
            out.write(b"x" * (1 << 20))
        out.write(b"\nhttp://a.example/\n")
    rows, _ = read(path)
    assert [len(row.url or "") for row in rows] == [1 << 20, 17]


@pytest.mark.parametrize(
    ("name", "data", "what", "num_rows"),
    [
        ("cut.csv.gz", gzip.compress(as_csv(ROWS * 500))[:-20], "truncated", None),
        ("not.csv.gz", b"url\nhttp://a/1\n", "corrupt", 0),
        ("not.parquet", b"url\nhttp://a/1\n", "not_parquet", 0),
        ("empty.parquet", b"", "empty_file", 0),
        ("cut.json", b'[{"url": "http://a/1"}, {"url": "http:', "bad_list", 1),
    ],
)
def test_a_damaged_list(tmp_path: Path, name: str, data: bytes, what: str, num_rows: int | None):
    path = tmp_path / name
    path.write_bytes(data)
    rows, findings = read(path)
    assert [problem.what for problem in findings.problems] == [what]
    assert num_rows is None or len(rows) == num_rows
    assert cut_list(storage.stat(str(path)), UrlSource(path=str(path)))[-1][1] is None


@pytest.mark.parametrize("kind", [*FORMATS, "txt"])
def test_a_list_without_rows_is_noted(tmp_path: Path, kind: str):
    path = tmp_path / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"url": pa.array([], pa.string())}), path)
    else:
        path.write_bytes({"csv": b"url,caption\n", "tsv": b"url\n", "json": b"[]"}.get(kind, b""))
    rows, findings = read(path)
    assert (rows, [note.what for note in findings.notes], findings.problems) == ([], ["empty_table"], [])
    assert len(cut_list(storage.stat(str(path)), UrlSource(path=str(path)))) == 1


def as_array(*urls: str) -> bytes:
    return json.dumps([{"url": url} for url in urls]).encode()


def test_arrays_one_behind_another(tmp_path: Path):
    path = tmp_path / "list.json"
    path.write_bytes(as_array("u1", "u2") + b"\n" + as_array() + as_array("u3") + b"\n")
    rows, findings = read(path)
    assert ([row.url for row in rows], findings.problems) == (["u1", "u2", "u3"], [])
    assert [row.number for row in rows] == [0, 1, 2]
    path.write_bytes(as_array("u1") + b"\n{}")
    rows, findings = read(path)
    assert [row.url for row in rows] == ["u1"]
    assert [(p.what, p.detail) for p in findings.problems] == [
        ("bad_list", "behind 1 elements: what follows the array is no other")
    ]


LONG = b'{"url": "%s"}' % (b"x" * (3 << 20))
ELEMENTS = {
    "long": (LONG, "more than 1048576 bytes"),
    "long, with brackets and quotes": (
        b'{"url": "%s"}' % (rb"\"}],{[" * (1 << 19)),
        "more than 1048576 bytes",
    ),
    "no value": (b'{"url": nothing, "n": [1, 2]}', "Expecting value"),
    "no comma": (b'{"url": "u" "n": 1}', "Expecting ',' delimiter"),
    "too deep": (b"[" * 100_000 + b"]" * 100_000, "recursion"),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_an_element_costs_itself(tmp_path: Path, name: str):
    element, fault = ELEMENTS[name]
    path = tmp_path / "list.json"
    path.write_bytes(b'[{"url": "u1"}, %s, {"url": "u3"}]' % element)
    rows, findings = read(path)
    assert ([row.url for row in rows], findings.problems) == (["u1", None, "u3"], [])
    assert fault in (rows[1].fault or "")
    assert [note.what for note in findings.notes] == ["bad_rows"]
    path.write_bytes(b'[{"url": "u1"}, %s' % element[:-1])
    assert [p.what for p in read(path)[1].problems] == ["bad_list"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_what_follows_the_packed_text_costs_no_row(tmp_path: Path, kind: str):
    path = tmp_path / f"list.{kind}.gz"
    path.write_bytes(gzip.compress(FORMATS[kind](ROWS)) + b"garbage")
    rows, findings = read(path)
    assert [row.url for row in rows] == [row["url"] for row in ROWS]
    [problem] = findings.problems
    assert (problem.what, problem.detail[:36]) == ("corrupt", "behind the packed text, which was re")
    source = UrlSource(path=str(path), unit_rows=1)
    assert len(cut_list(storage.stat(str(path)), source)) == len(ROWS)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (gzip.compress(as_csv(ROWS)), "packed by gzip, .* Let its name end in .gz"),
        (pa.compress(as_csv(ROWS), "zstd", asbytes=True), "packed by zstd, .* Unpack it"),
        (as_parquet(ROWS), "parquet, .* Set `format: parquet`"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "txt"])
def test_packed_lists_whose_names_do_not_say_so(tmp_path: Path, data: bytes, what: str, kind: str):
    path = tmp_path / f"list.{kind}"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=what):
        read(path)


def test_spaces_around_names_of_columns(tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_text("url , caption\nhttp://a/1,one\n")
    assert pairs(read(path)[0]) == [("http://a/1", "one")]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_columns_that_are_not_there(tmp_path: Path, kind: str):
    path = tmp_path / f"list.{kind}"
    path.write_bytes(FORMATS[kind](ROWS))
    for wrong in ({"url": "link"}, {"key": "id"}, {"columns": ("text",)}):
        with pytest.raises(ConfigError, match="url, caption"):
            read(path, UrlSource(path=str(path), **wrong))


def test_a_name_that_tells_no_format(tmp_path: Path):
    path = tmp_path / "list.dat"
    path.write_bytes(as_csv(ROWS))
    with pytest.raises(ConfigError, match="format"):
        read(path)
    assert len(read(path, UrlSource(path=str(path), format="csv"))[0]) == len(ROWS)


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz"])
def test_a_bad_quote_costs_its_own_row(tmp_path: Path, kind: str):
    text = 'url,caption\nhttp://a/1,plain\nhttp://a/2,"Foo" bar\nhttp://a/3,plain\nhttp://a/4,plain\n'
    data = text.replace(",", "\t" if kind == "tsv" else ",").encode()
    path = tmp_path / f"list.{kind}"
    path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    rows, findings = read(path)
    assert [row.url for row in rows] == ["http://a/1", None, "http://a/3", "http://a/4"]
    assert not findings.problems
    assert "the first of them row 1" in findings.notes[0].detail


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-8-sig"])
@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl", "json", "csv.gz"])
def test_lists_in_any_unicode(tmp_path: Path, kind: str, encoding: str):
    made = FORMATS[kind.removesuffix(".gz")](ROWS) if kind != "txt" else b"http://a/1\r\nhttp://a/2\r\n"
    data = made.decode().encode(encoding)
    path = tmp_path / f"list.{kind}"
    path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    plain = tmp_path / f"plain.{kind.removesuffix('.gz')}"
    plain.write_bytes(made)
    assert read(path)[0] == read(plain)[0]
    assert not read(path)[1].problems
    source = UrlSource(path=str(path), unit_rows=2)
    cuts = cut_list(storage.stat(str(path)), source)
    pieces = [read(path, source, start=(first, offset))[0] for first, _, offset in cuts]
    assert [row for piece in pieces for row in piece[:2]] == read(plain)[0]


def test_what_is_no_utf_16_costs_its_own_row(tmp_path: Path):
    path = tmp_path / "list.txt"
    lines = [b"http://a/1", b"http://a/\x00\xd8", b"http://a/3", b"http://a/4\x00"]
    encoded = [line.decode("latin-1").encode("utf-16-le") for line in lines]
    encoded[1] = "http://a/".encode("utf-16-le") + b"\x00\xd8"
    encoded[3] = encoded[3][:-1]
    path.write_bytes(b"\xff\xfe" + "\n".encode("utf-16-le").join(encoded))
    rows, findings = read(path)
    assert [row.url for row in rows] == ["http://a/1", None, "http://a/3", None]
    assert [note.what for note in findings.notes] == ["bad_rows"]


ODD_ROWS = {
    "unbalanced at the end": ([b'http://a/2,"never closed'], [None]),
    "closed below": (
        [b'http://a/2,"Foo', b"http://a/3,x", b'http://a/4,12" wide'],
        [None, "http://a/3", "http://a/4"],
    ),
    "closed by the next": ([b'http://a/2,"Foo', b'http://a/3,12"'], [None, "http://a/3"]),
    "two lines and a quote": ([b'http://a/2,"one', b'two "three"', b'four"'], [None, None, None]),
    "two good lines": ([b'http://a/2,"one', b'two ""three"" http://b/', b'four"'], ["http://a/2"]),
    "zero bytes": ([b"http://a/2,x\0y", b"http://a/\0,x"], ["http://a/2", "http://a/\0"]),
    "a bare return": ([b"http://a/2,x\ry"], [None]),
    "a return in quotes": ([b'http://a/2,"x\ry"'], ["http://a/2"]),
    "other line ends": ([b"http://a/2,x\r", b"http://a/3,x"], ["http://a/2", "http://a/3"]),
    "latin-1": ([b"http://a/\xe9,x"], [None]),
    "a very long field": (
        [b"http://a/2," + b"x" * 200_000, b'http://a/3,"' + b"x" * 200_000 + b'"'],
        [None, None],
    ),
    "a very long line": ([b'http://a/2,"' + b'x,"' * 500_000], [None]),
    "quotes all along": ([b'http://a/2,"x'] * 3000, [None] * 3000),
}


@pytest.mark.parametrize("name", ODD_ROWS)
@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz"])
def test_an_odd_row_costs_no_other(tmp_path: Path, name: str, kind: str):
    odd, urls = ODD_ROWS[name]
    data = b"\n".join([b"url,caption", b"http://a/1,x", *odd, b'http://a/8,"x, y"', b"http://a/9,z", b""])
    if kind == "tsv":
        data = data.replace(b",", b"\t")
    path = tmp_path / f"list.{kind}"
    path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    rows, findings = read(path)
    assert [row.url for row in rows] == ["http://a/1", *urls, "http://a/8", "http://a/9"]
    assert [row.number for row in rows] == list(range(len(rows)))
    assert not findings.problems
    assert bool(findings.notes) == (None in urls)
    for first, _, offset in cut_list(storage.stat(str(path)), UrlSource(path=str(path), unit_rows=1))[:20]:
        assert next(iter(read(path, start=(first, offset))[0])) == rows[first]


def test_quoted_text_before_the_url(tmp_path: Path):
    """The line that closes the quotes ends in the URL, and is no row of its own."""
    path = tmp_path / "list.csv"
    path.write_text(
        'caption,url\n"one\ntwo",http://a/1\n"three\n,http://b/\nfour",http://a/2\n"five,http://a/3\nsix,http://a/4\n'
    )
    rows, _ = read(path)
    assert pairs(rows) == [
        ("http://a/1", "one\ntwo"),
        (None, None),  # a line within has a URL where a row has it: the quotes may have been open by mistake
        ("http://b/", ""),
        ("http://a/2", 'four"'),
        (None, None),
        ("http://a/4", "six"),
    ]


def test_lines_that_end_in_returns_alone(tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_bytes(as_csv(ROWS).replace(b"\n", b"").replace(b"two", b"2"))
    assert [row.url for row in read(path)[0]] == [row["url"] for row in ROWS]


@pytest.mark.parametrize("data", [b'"url,caption\nhttp://a/1,x\n', b'url,"cap"tion\nhttp://a/1,x\n'])
def test_names_of_columns_that_cannot_be_read(tmp_path: Path, data: bytes):
    path = tmp_path / "list.csv"
    path.write_bytes(data)
    rows, findings = read(path)
    assert not rows
    assert [problem.what for problem in findings.problems] == ["bad_list"]


def test_one_text_repeated_is_not_held_for_every_row(tmp_path: Path):
    for name, size in (("small", 10), ("bomb", 100_000)):
        columns = {"url": [f"http://h/{i}" for i in range(4096)], "caption": ["x" * size] * 4096}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet", store_schema=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < 200_000
    setup = """
        from curation import storage
        from curation.ingest.problems import Findings
        from curation.ingest.web.url_lists import list_rows
        from curation.ingest.sources import UrlSource
    """
    work = """
        rows = list_rows(storage.stat(path), UrlSource(path=path), findings=Findings())
        assert sum(1 for _ in rows) == 4096
    """
    tried = {"harmless": tmp_path / "small.parquet", "tried": tmp_path / "bomb.parquet"}
    assert risen_mb(setup, work, **tried) < 100


# --- the bad set ------------------------------------------------------------------------------------------


def bad(shared_dir: Path, name: str) -> tuple[list[ListRow], Findings]:
    return read(shared_dir / "badset" / name)


def test_bad_set_text(shared_dir: Path):
    rows, findings = bad(shared_dir, "url/crlf_bom.txt")
    assert [row.url for row in rows] == ["http://a/1.jpg", "http://a/2.jpg", "http://a/1.jpg"]
    assert findings.notes[0].detail == "2 lines are blank or comments"
    rows, _ = bad(shared_dir, "url/latin1.csv")
    assert [(row.number, row.url) for row in rows] == [(0, None)]
    rows, findings = bad(shared_dir, "url/quotes.csv")
    assert [row.url for row in rows] == [None, "http://a/2.jpg"]
    assert [note.what for note in findings.notes] == ["bad_rows"]


def test_bad_set_parquet(shared_dir: Path):
    counts = {"good": 200, "zero_rows": 0, "large_string_2MB_url": 2, "null_bytes": 3, "formula_captions": 3}
    for name, num_rows in counts.items():
        rows, findings = bad(shared_dir, f"parquet/{name}.parquet")
        assert (len(rows), findings.problems) == (num_rows, [])
    assert [row.url for row in bad(shared_dir, "parquet/null_urls.parquet")[0]][1:4] == ["", "", " "]
    assert pairs(bad(shared_dir, "parquet/schema_drift_b.parquet")[0]) == [("http://a/1.jpg", 5)]
    for name, got in {"missing_column": "link", "wrong_type": "int64", "dup_columns": "one name"}.items():
        with pytest.raises(ConfigError, match=got):
            bad(shared_dir, f"parquet/{name}.parquet")
    broken = {
        "trunc_50pct": "not_parquet",
        "zero": "empty_file",
        "no_magic_tail": "not_parquet",
        "text": "not_parquet",
        "torn_page": "corrupt",
        "footer_len_2GB": "not_parquet",
    }
    for name, what in broken.items():
        _, findings = bad(shared_dir, f"parquet/{name}.parquet")
        assert [problem.what for problem in findings.problems] == [what], name
