"""Somebody else's tars by row: found, indexed once, checked, and told where something is not taken."""

import os
import pickle
import shutil
import tarfile
from pathlib import Path

import pytest
from foreign_tars import draw_png, sample, write_tar, write_webdataset

from curation.errors import ConfigError, IntegrityError, SourceError
from pretrain.data import tar_images
from pretrain.data.config import DataConfig
from pretrain.data.image_set import ImageSet
from pretrain.data.opening import open_images
from pretrain.data.order import FullShuffle
from pretrain.data.spool import Spool
from pretrain.data.tar_images import TarImages
from pretrain.data.tar_listing import extension_of, is_image, list_tars, names_tars


def opened(path: str, folder: Path, *, said: list[str] | None = None, **settings: object) -> ImageSet:
    return open_images(
        DataConfig.model_validate({"path": path, **settings}),
        cache=folder / "cache",
        spool=Spool(folder / "spool", 1 << 30),
        say=[].append if said is None else said.append,
    )


@pytest.mark.parametrize(
    "pattern", ["in-{000000..000002}.tar", "in-*.tar", "**/in-00000?.tar", "in-00000{0,1,2}.tar"]
)
def test_every_image_by_its_row(pattern: str, tmp_path: Path) -> None:
    images = write_webdataset(tmp_path / "data")
    found = opened(f"{tmp_path}/data/{pattern}", tmp_path)
    assert isinstance(found, TarImages)
    assert isinstance(found, ImageSet)
    assert [found.read(row) for row in range(20)] == images
    assert found.num_images == len(found) == 20
    assert found.is_exact
    assert isinstance(found.order(seed=0, window_images=1), FullShuffle)
    again = pickle.loads(pickle.dumps(found))
    assert [again.read(row) for row in (19, 0, 7)] == [images[19], images[0], images[7]]


def test_places_are_those_of_tarfile(tmp_path: Path) -> None:
    """In every format, with long names, folders and a link; a hard link is what it leads to."""
    for number, kind in enumerate((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        with tarfile.open(tmp_path / f"x-{number}.tar", "w", format=kind) as tar:
            for name, data in [*sample(1, folder="a/" + "long" * 20 + "/"), *sample(2)]:
                (tmp_path / "member").write_bytes(data)
                tar.add(tmp_path / "member", name)
    found = opened(f"{tmp_path}/x-*.tar", tmp_path)
    expected = []
    for number in range(3):
        with tarfile.open(tmp_path / f"x-{number}.tar") as tar:
            names = [name for name in tar.getnames() if name.lower().endswith(("1.jpg", "2.png"))]
            expected += [tar.extractfile(name).read() for name in names]
    assert [found.read(row) for row in range(len(found))] == expected
    assert len(expected) == 6


def test_extensions_are_webdatasets() -> None:
    names = {"a/b.jpg": "jpg", "a.b/c.SEG.png": "seg.png", "x.1.jpg": "1.jpg", ".jpg": "", "readme": ""}
    assert {name: extension_of(name) for name in names} == names
    assert is_image("a/x.JPG", ("jpg",))
    assert not is_image("a/._x.jpg", ("jpg",))
    assert not is_image("__MACOSX/x.jpg", ("jpg",))


def test_what_is_not_taken_is_told_and_can_be_asked_for(tmp_path: Path) -> None:
    write_webdataset(tmp_path)
    line = opened(f"{tmp_path}/in-*.tar", tmp_path).describe()
    assert "20 images in 3 tars" in line
    assert "resumes exactly" in line
    assert line.endswith("not taken (data.extensions): 20 .seg.png")
    masks = opened(f"{tmp_path}/in-*.tar", tmp_path, extensions=["seg.png"])
    assert masks.read(3) == draw_png(7)
    with pytest.raises(SourceError, match=r"No member .* 20 \.json, 20 \.seg\.png.*data\.extensions"):
        opened(f"{tmp_path}/in-*.tar", tmp_path, extensions=["webp"])


def test_tars_are_indexed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_webdataset(tmp_path / "data")
    pattern, said = f"{tmp_path}/data/*.tar", []
    first = opened(pattern, tmp_path, said=said)
    assert said == [f"indexing 3 tars of {pattern}"]
    with monkeypatch.context() as patched:
        patched.setattr(tar_images, "_walk_all", None)
        assert opened(pattern, tmp_path).digest == first.digest
    for path in (tmp_path / "cache").iterdir():  # damage of either file is found
        path.write_bytes(path.read_bytes()[:-1] + b" ")
        again = opened(pattern, tmp_path, said=said)
        assert again.digest == first.digest
        assert [again.read(row) for row in range(20)] == images
    assert len(said) == 3


def test_a_copy_is_the_same_dataset_and_other_images_are_not(tmp_path: Path) -> None:
    write_webdataset(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)  # with other times
    first = opened(f"{tmp_path}/a/*.tar", tmp_path)
    assert opened(f"{tmp_path}/b/*.tar", tmp_path / "other").digest == first.digest
    write_webdataset(tmp_path / "b", sizes=(7, 5, 9))
    assert opened(f"{tmp_path}/b/*.tar", tmp_path).digest != first.digest
    assert opened(f"{tmp_path}/a/in-00000[01].tar", tmp_path).digest != first.digest


@pytest.mark.parametrize("how", ["longer", "touched", "gone"])
def test_a_tar_that_changes_meanwhile_is_an_error(how: str, tmp_path: Path) -> None:
    write_webdataset(tmp_path)
    images = opened(f"{tmp_path}/*.tar", tmp_path)
    images.read(8)
    changed = tmp_path / "in-000001.tar"
    match how:
        case "longer":
            changed.write_bytes(changed.read_bytes() + bytes(512))
        case "touched":
            os.utime(changed, ns=(1, 1))
        case "gone":
            changed.unlink()
    assert images.read(0)
    with pytest.raises(IntegrityError, match=r"in-000001\.tar (was changed|is gone).* again"):
        images.read(8)
    if how == "touched":
        assert opened(f"{tmp_path}/*.tar", tmp_path).digest == images.digest


def test_a_tar_that_breaks_off_is_told_and_its_whole_images_are_taken(tmp_path: Path) -> None:
    images = write_webdataset(tmp_path / "data", sizes=(7, 5))
    broken = tmp_path / "data" / "in-000001.tar"
    found = opened(f"{tmp_path}/data/*.tar", tmp_path)
    place = found._places[11]
    broken.write_bytes(broken.read_bytes()[: int(place["offset"]) + 10])
    said: list[str] = []
    left = opened(f"{tmp_path}/data/*.tar", tmp_path, said=said)
    assert [left.read(row) for row in range(len(left))] == images[:11]
    assert any("in-000001.tar is damaged from byte" in line for line in said)
    said.clear()
    opened(f"{tmp_path}/data/*.tar", tmp_path, said=said)  # and told at each start
    assert len(said) == 1


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, b"\x1f\x8b" + bytes(600)])
def test_what_is_no_tar_is_refused_by_name(data: bytes, tmp_path: Path) -> None:
    write_webdataset(tmp_path)
    (tmp_path / "in-000001.tar").write_bytes(data)
    with pytest.raises(SourceError, match=r"in-000001\.tar is no tar"):
        opened(f"{tmp_path}/*.tar", tmp_path)


def test_which_paths_are_tars(drawn: Path, tmp_path: Path) -> None:
    for path in ("/a/x.tar", "/a/{00..09}.tar", "/a/*", "http://h/x.tar?s=1", "https://h/x", "pipe:cat x",
                 "s3://b/x.tar", "/a/x.tgz", "file:///a/x.tar.gz", "memory://b/*.tar"):  # fmt: skip
        assert names_tars(path), path
    for path in (str(drawn), f"{drawn}/manifest.json", "s3://b/run", "http://h/manifest.json"):
        assert not names_tars(path), path
    assert len(opened(str(drawn), tmp_path)) == 37


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("in-{000000..000003}.tar", r"no tar .*in-000003\.tar.*braces"),
        ("out-*.tar", "no tars to train on.*out-"),
        ("", r"has tars in it, and no manifest\.json.*data\.path=.*\*\.tar"),
    ],
)
def test_a_pattern_that_leads_nowhere_is_told(pattern: str, words: str, tmp_path: Path) -> None:
    write_webdataset(tmp_path)
    with pytest.raises((SourceError, ConfigError), match=words):
        opened(f"{tmp_path}/{pattern}", tmp_path)


def test_hidden_files_and_repeated_names_are_passed_over(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", sample(1))
    shutil.copy(tmp_path / "a.tar", tmp_path / "._a.tar")
    (tmp_path / "folder.tar").mkdir()
    assert list_tars(f"{tmp_path}/*.tar", allow_pipe=False) == [f"{tmp_path}/a.tar"]
    assert list_tars(f"{tmp_path}/{{a,a,*}}.tar", allow_pipe=False) == [f"{tmp_path}/a.tar"]
