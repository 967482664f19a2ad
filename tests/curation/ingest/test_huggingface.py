"""Data sets of Hugging Face `datasets`, as that library itself writes and reads them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation import storage
from curation.errors import ConfigError, SourceError
from curation.ingest import imagefolder
from curation.ingest.huggingface import split_of
from curation.ingest.problems import Findings
from curation.ingest.sources import HuggingFaceSource
from curation.ingest.stage_unit import stage_unit
from curation.ingest.staging import Place
from curation.ingest.units import cut_units
from curation.ingest.walk import WalkRules, walk_source


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    found = []
    for number in range(7):
        out = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), number * 30, np.uint8)).save(out, "PNG")
        found.append(out.getvalue())
    return found


def rows_of(source: HuggingFaceSource, out: Path) -> list[tuple[str, bytes | None, Any]]:
    """Key, bytes and json of every row."""
    found = []
    for number, unit in enumerate(cut_units(source)):
        place = Place(out / f"{number}", f"{number}")
        place.out.mkdir(parents=True)
        staged = stage_unit(source, unit, place, before=None)
        assert (staged.problems, staged.notes) == ([], [])
        for row in staged.table.to_pylist():
            files = [read(out, row)] + [read(out, sidecar) for sidecar in row["sidecars"]]
            data = None if row["reason"] else files[0]
            found.append((row["key"], data, json.loads(files[1]) if len(files) > 1 else None))
    return found


def read(out: Path, place: dict[str, Any]) -> bytes:
    data = (out / place["path"]).read_bytes()
    return data[place["offset"] : place["offset"] + place["num_bytes"]]


def test_what_save_to_disk_wrote(tmp_path: Path, pictures: list[bytes]):
    import datasets

    columns = {"image": [{"bytes": data, "path": None} for data in pictures], "label": list(range(7))}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    data = datasets.Dataset.from_dict(columns, features=features)
    data.save_to_disk(tmp_path / "one", num_shards=3)
    found = rows_of(HuggingFaceSource(path=str(tmp_path / "one")), tmp_path / "staged")
    assert [(image, label) for _, image, label in found] == [
        (image, {"label": i}) for i, image in enumerate(pictures)
    ]
    assert found[3][0] == "data-00001-of-00003.arrow/00000000"
    both = datasets.DatasetDict({"train": data.select(range(5)), "test": data.select([6, 5])})
    both.save_to_disk(tmp_path / "both")
    found = rows_of(HuggingFaceSource(path=str(tmp_path / "both"), split="test"), tmp_path / "staged-2")
    assert [image for _, image, _ in found] == [pictures[6], pictures[5]]
    with pytest.raises(ConfigError, match="train, test"):
        list(cut_units(HuggingFaceSource(path=str(tmp_path / "both"))))
    with pytest.raises(ConfigError, match="no split 'dev'"):
        list(cut_units(HuggingFaceSource(path=str(tmp_path / "both"), split="dev")))


def test_parquet_files_of_a_split(tmp_path: Path, pictures: list[bytes]):
    (tmp_path / "set" / "data").mkdir(parents=True)
    for name, part in (("train-00000-of-00002", pictures[:3]), ("train-00001-of-00002", pictures[3:6])):
        pq.write_table(pa.table({"image": part}), tmp_path / "set" / "data" / f"{name}.parquet")
    pq.write_table(pa.table({"image": pictures[6:]}), tmp_path / "set" / "data" / "test.parquet")
    source = HuggingFaceSource(path=str(tmp_path / "set"), split="train")
    assert [image for _, image, _ in rows_of(source, tmp_path / "staged")] == pictures[:6]


@pytest.mark.parametrize(
    ("key", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"),
        ("data/challenge-00000-of-00001-ab12.parquet", "challenge"),
        ("valid/x.parquet", "validation"),
        ("my_dev_set.parquet", "validation"),
        ("contest/latest.parquet", "train"),
        ("eval/", "test"),
    ],
)
def test_splits(key: str, split: str):
    assert split_of(key) == split


def write_folder(root: Path, pictures: list[bytes], names: list[str]) -> None:
    for name, data in zip(names, pictures, strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def test_an_imagefolder_of_labels(tmp_path: Path, pictures: list[bytes]):
    import datasets

    root = tmp_path / "set"
    write_folder(root, pictures, ["train/cat/b.png", "train/cat/a.png", "train/dog/c.png", "test/cat/d.png"])
    (root / "train" / "cat" / "notes.txt").write_text("no picture")
    source = HuggingFaceSource(path=str(root), split="train", key_prefix="p/")
    found = []
    for unit in cut_units(source):
        place = Place(tmp_path / unit.file.key.replace("/", "-"), "f")
        place.out.mkdir()
        for row in stage_unit(source, unit, place, before=None).table.to_pylist():
            # The pictures stay where they are; only the labels are staged.
            assert Path(row["path"]).read_bytes() == pictures["bac".index(row["key"][-5])]
            assert row["version"] == storage.stat(row["path"]).version
            [sidecar] = row["sidecars"]
            label = (place.out / "000000.tar").read_bytes()[sidecar["offset"] :][: sidecar["num_bytes"]]
            found.append((row["key"], json.loads(label)["label"]))
    assert found == [("p/train/cat/a.png", "cat"), ("p/train/cat/b.png", "cat"), ("p/train/dog/c.png", "dog")]
    reference = datasets.load_dataset(
        "imagefolder", data_dir=str(root), split="train", cache_dir=str(tmp_path / "cache")
    )
    names = reference.features["label"].names
    assert sorted(names[i] for i in reference["label"]) == [label for _, label in found]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_imagefolder_with_metadata(tmp_path: Path, pictures: list[bytes], kind: str):
    root = tmp_path / "set"
    write_folder(root, pictures, ["a.png", "sub/b.png", "sub/c.png"])
    rows = [{"file_name": "a.png", "text": 'ä, "one"'}, {"file_name": "sub/c.png", "text": "three"}]
    match kind:
        case "csv":
            quoted = [f'{r["file_name"]},"{r["text"].replace(chr(34), chr(34) * 2)}"' for r in rows]
            (root / "metadata.csv").write_text("\n".join(["file_name,text", *quoted]))
        case "jsonl":
            (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), root / "metadata.parquet")
    source, found = HuggingFaceSource(path=str(root)), {}
    units = list(cut_units(source))
    assert [unit.file.key for unit in units] == ["/", "sub/"]
    for unit in units:
        place = Place(tmp_path / f"out{unit.file.key.strip('/')}", "f")
        place.out.mkdir()
        for row in stage_unit(source, unit, place, before=None).table.to_pylist():
            tar = (place.out / "000000.tar").read_bytes()
            texts = [tar[s["offset"] :][: s["num_bytes"]] for s in row["sidecars"]]
            found[row["key"]] = [json.loads(text) for text in texts]
    assert found == {"a.png": [{"text": 'ä, "one"'}], "sub/b.png": [], "sub/c.png": [{"text": "three"}]}
    # Each file that a unit is made of counts for its version.
    (root / "sub" / "b.png").write_bytes(b"other")
    place = Place(tmp_path / "later", "f")
    place.out.mkdir()
    assert [p.what for p in stage_unit(source, units[1], place, before=None).problems] == ["changed"]


def test_odd_metadata_cost_no_more_than_themselves(tmp_path: Path, pictures: list[bytes]):
    root = tmp_path / "set"
    write_folder(root, pictures, ["a.png", "b.png", "c.png"])
    deep = "[" * 300 + "]" * 300
    lines = [
        b'{"file_name": "a.png", "text": "half \\ud800"}',
        b'{"file_name": "b.png", "text": %s}' % deep.encode(),
        b'{"file_name": "c.png", "text": "th\xffree"}',
        b"[" * 100_000,
        b"7",
    ]
    (root / "metadata.jsonl").write_bytes(b"\n".join(lines))
    source = HuggingFaceSource(path=str(root))
    [unit] = cut_units(source)
    place = Place(tmp_path / "out", ".")
    place.out.mkdir()
    staged = stage_unit(source, unit, place, before=None)
    texts = [
        [json.loads(read(place.out, s))["text"] for s in row["sidecars"]] for row in staged.table.to_pylist()
    ]
    assert texts == [["half \ud800"], [], ["th\udcffree"]]
    assert not staged.problems
    notes = [(note.what, note.detail) for note in staged.notes]
    assert notes == [
        (
            "bad_rows",
            "2 rows cannot be read, the first of them row 3: a bad quote, too many or too few fields, or no "
            "JSON object",
        ),
        ("odd_sidecar", "b.png: json is left out: values are nested more than 64 deep"),
    ]
    # Damage ends the metadata, and not the run.
    (root / "metadata.jsonl").unlink()
    (root / "metadata.parquet").write_bytes(b"PAR1 and no more")
    [unit] = cut_units(source)
    staged = stage_unit(source, unit, place, before=None)
    assert [problem.what for problem in staged.problems] == ["corrupt"]
    assert staged.table.num_rows == 3


def described(root: Path, out: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The json of every picture (None: it has none), and the notes of the listing and of all units."""
    source, findings, found = HuggingFaceSource(path=str(root)), Findings(), {}
    notes: list[Any] = []
    for number, unit in enumerate(cut_units(source, findings)):
        place = Place(out / str(number), ".")
        place.out.mkdir(parents=True)
        staged = stage_unit(source, unit, place, before=None)
        assert not staged.problems
        notes += staged.notes
        for row in staged.table.to_pylist():
            texts = [json.loads(read(place.out, sidecar)) for sidecar in row["sidecars"]]
            found[row["key"]] = texts[0] if texts else None
    return found, [(note.what, note.detail) for note in (*findings.notes, *notes)]


def test_rows_of_metadata_that_fit_no_picture(tmp_path: Path, pictures: list[bytes]):
    root = tmp_path / "set"
    write_folder(root, pictures, ["a.png", "b.png", "c.png"])
    names = ["a.png", "./b.png", "gone.png", "a.png", "none/d.png", None]
    rows = [{"file_name": name, "n": number} for number, name in enumerate(names)]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"n": 6}])))
    (root / "metadata.parquet").write_bytes(b"")
    found, notes = described(root, tmp_path / "out")
    assert found == {"a.png": {"n": 3}, "b.png": {"n": 1}, "c.png": None}
    assert notes == [
        ("other_metadata", "left out: metadata.jsonl lies beside it, and is read"),
        ("unmatched", "1 rows name pictures in folders without any, such as none/d.png"),
        ("bad_rows", "2 rows have no file_name, the first of them row 5"),
        ("duplicate_name", "1 rows name a picture again, such as a.png: the last counts"),
        ("unmatched", "1 rows name pictures that are not there, such as gone.png"),
        ("unmatched", "1 pictures have no row, such as c.png"),
    ]


def test_names_of_metadata_that_are_bytes(tmp_path: Path, pictures: list[bytes]):
    write_folder(tmp_path / "set", pictures, ["a.png"])
    pq.write_table(pa.table({"file_name": [b"a.png"], "t": [b"x"]}), tmp_path / "set" / "metadata.parquet")
    assert described(tmp_path / "set", tmp_path / "out") == ({"a.png": {"t": "x"}}, [])


@pytest.mark.parametrize(
    ("header", "remedy"),
    [("file_name;text", "by ';': save it with commas"), ("picture,text", "Name the column of the pictures")],
)
def test_metadata_without_names(tmp_path: Path, pictures: list[bytes], header: str, remedy: str):
    write_folder(tmp_path / "set", pictures, ["a.png"])
    line = "a.png;x" if ";" in header else "a.png,x"
    (tmp_path / "set" / "metadata.csv").write_text(f"{header}\n{line}\n")
    with pytest.raises(ConfigError, match=rf"Expected: file_name: .*{remedy}"):
        described(tmp_path / "set", tmp_path / "out")


def test_metadata_are_read_once_for_all_folders(
    tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
):
    names = [f"{number}/a.png" for number in range(4)]
    write_folder(tmp_path / "set", pictures[:1] * 4, names)
    (tmp_path / "set" / "metadata.csv").write_text("file_name,t\n" + "".join(f"{n},{n[0]}\n" for n in names))
    opened: list[str] = []
    real = storage.open_stream
    monkeypatch.setattr(storage, "open_stream", lambda path: (opened.append(path), real(path))[1])
    found, notes = described(tmp_path / "set", tmp_path / "out")
    assert found == {name: {"t": name[0]} for name in names}
    assert [path for path in opened if path.endswith(".csv")] == [str(tmp_path / "set" / "metadata.csv")]
    assert notes == []
    monkeypatch.setattr("curation.ingest.tables.image_metadata._HELD_BYTES", 1)
    assert described(tmp_path / "set", tmp_path / "again") == (found, [])


def test_extensions_of_what_is_decoded(tmp_path: Path, pictures: list[bytes]):
    names = ["a.jpe", "b.apng", "c.dib", "d.JFIF"]
    write_folder(tmp_path / "set", pictures[:1] * 4, names)
    assert list(described(tmp_path / "set", tmp_path / "out")[0]) == names


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-be"])
def test_metadata_in_any_unicode_with_a_bad_quote(tmp_path: Path, pictures: list[bytes], encoding: str):
    root = tmp_path / "set"
    write_folder(root, pictures, ["a.png", "b.png", "c.png"])
    text = 'file_name,text\na.png,one\nb.png,"Foo" bar\nc.png,"drei\nTöne"\n'
    (root / "metadata.csv").write_bytes(text.encode(encoding))
    [unit] = cut_units(HuggingFaceSource(path=str(root)))
    place = Place(tmp_path / "out", ".")
    place.out.mkdir()
    staged = stage_unit(HuggingFaceSource(path=str(root)), unit, place, before=None)
    texts = [[json.loads(read(place.out, s)) for s in row["sidecars"]] for row in staged.table.to_pylist()]
    assert texts == [[{"text": "one"}], [], [{"text": "drei\nTöne"}]]
    assert (staged.problems, [note.what for note in staged.notes]) == ([], ["bad_rows", "unmatched"])


def test_a_folder_is_staged_without_a_look_at_others(
    tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "set"
    write_folder(root, pictures, ["a.png", "x/b.png", "x/y/c.png", "z/d.png"])
    for name in ("metadata.csv", "x/metadata.csv", "x/metadata.jsonl"):
        (root / name).write_text(f"file_name,text\ny/c.png,{name}\nz/d.png,{name}\n")
    source = HuggingFaceSource(path=str(root))
    units = {unit.file.key: unit for unit in cut_units(source)}
    assert list(units) == ["/", "x/", "x/y/", "z/"]
    asked: list[str] = []

    def listed(folder: str, rules: WalkRules, *, findings: Findings) -> Any:
        assert not rules.deep
        asked.append(folder.removeprefix(str(root)))
        return walk_source(folder, rules, findings=findings)

    monkeypatch.setattr(imagefolder, "walk_source", listed)
    for key, texts in (("/", [None]), ("x/y/", ["x/metadata.csv"]), ("z/", ["metadata.csv"])):
        asked.clear()
        place = Place(tmp_path / f"out-{len(key)}", ".")
        place.out.mkdir()
        staged = stage_unit(source, units[key], place, before=None)
        assert not staged.problems
        found = [
            [json.loads(read(place.out, s))["text"] for s in r["sidecars"]] for r in staged.table.to_pylist()
        ]
        assert found == [[text] if text else [] for text in texts]
        assert {path.strip("/") for path in asked} == {key.strip("/")}

    # A store that fails is a finding, wherever it does.
    def failing(after: int) -> None:
        calls = iter(range(10))

        def fail(folder: str, rules: WalkRules, *, findings: Findings) -> Any:
            if next(calls) >= after:
                raise OSError(5, "Input/output error")
            return walk_source(folder, rules, findings=findings)

        monkeypatch.setattr(imagefolder, "walk_source", fail)

    for after in (0, 1):
        failing(after)
        staged = stage_unit(source, units["z/"], place, before=None)
        assert [problem.what for problem in staged.problems] == ["unreadable"]
        assert staged.num_again == 1


def test_a_data_set_that_names_files_elsewhere_is_refused(tmp_path: Path):
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../etc/passwd"}]}))
    with pytest.raises(SourceError, match="outside of itself"):
        list(cut_units(HuggingFaceSource(path=str(tmp_path))))
    for text in ("[]", "{", '"x"'):
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(SourceError):
            list(cut_units(HuggingFaceSource(path=str(tmp_path))))


def test_a_folder_without_a_data_set(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match="no data set"):
        list(cut_units(HuggingFaceSource(path=str(tmp_path))))
