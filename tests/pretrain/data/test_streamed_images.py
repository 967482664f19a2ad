"""Tars that are read from start to end: over HTTP, from a command, compressed, by webdataset's own reader."""

import itertools
import pickle
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from foreign_tars import sample, serving, write_tar, write_webdataset
from ranks import start_server
from tiny import tiny_config
from webdataset.tariterators import group_by_keys, tar_file_expander

from curation.errors import ConfigError, SourceError
from pretrain.data import stream as module
from pretrain.data.config import DataConfig
from pretrain.data.image_set import ImageSet
from pretrain.data.loader import Share, StepDataset, batches, order_of, raised
from pretrain.data.opening import open_images
from pretrain.data.spool import Spool
from pretrain.data.stream import StreamedImages

CONFIG = tiny_config()


def opened(path: str, folder: Path, *, said: list[str] | None = None, **settings: object) -> StreamedImages:
    images = open_images(
        DataConfig.model_validate({"path": path, **settings}),
        cache=folder / "cache",
        spool=Spool(folder / "spool", 1 << 30),
        batch_images=8,
        say=[].append if said is None else said.append,
    )
    assert isinstance(images, StreamedImages)
    assert isinstance(images, ImageSet)
    return images


def taken(images: StreamedImages, num: int, *, reader: int = 0, of: int = 1, start: int = 0) -> list[bytes]:
    own = pickle.loads(pickle.dumps(images))  # as a worker gets it
    own.begin(reader, of, seed=(0, start))
    return [own.read(row) for row in range(num)]


def test_over_http(tmp_path: Path) -> None:
    expected = write_webdataset(tmp_path / "data")
    with serving(tmp_path / "data") as server:
        said: list[str] = []
        images = opened(f"{server.url}/in-{{000000..000002}}.tar", tmp_path, said=said, buffer_images=4)
        assert server.asked == []  # nothing is fetched before it is needed
        [line] = said
        assert "3 tars, read as a stream: a stopped training goes on with other images" in line
        assert line == images.describe()
        assert not images.is_exact
        assert images.num_images is None
        found = taken(images, 40)
        by_epoch = [sorted(found[:20]), sorted(found[20:])]
        assert Counter(found).total() == 40
        # The buffer of four carries at most four images of an epoch into the next.
        assert all(len(set(epoch) & set(expected)) >= 16 for epoch in by_epoch)
        assert set(found) == set(expected)
        assert found[:20] != expected
        assert taken(images, 20) == found[:20]
        assert taken(images, 20, start=5) != found[:20]
        assert Counter(server.asked[:3]) == {f"/in-{n:06d}.tar": 1 for n in range(3)}


def test_what_webdataset_itself_reads(tmp_path: Path) -> None:
    """An epoch has the samples that the package itself makes of the tars."""
    write_webdataset(tmp_path, suffix=".tar.gz")
    theirs = []
    for path in sorted(tmp_path.glob("*.tar.gz")):
        with path.open("rb") as file:
            samples = group_by_keys(tar_file_expander([{"url": str(path), "stream": file}]))
            theirs += [sample.get("jpg", sample.get("png")) for sample in samples]
    images = opened(f"{tmp_path}/in-*.tar.gz", tmp_path, buffer_images=1)
    assert sorted(taken(images, 20)) == sorted(theirs)


def test_a_look_before_a_reader_begins_takes_nothing_from_it(tmp_path: Path) -> None:
    expected = write_webdataset(tmp_path, suffix=".tar.gz")
    images = opened(f"{tmp_path}/*.tar.gz", tmp_path, buffer_images=1)
    assert sorted(images.read(row) for row in range(20)) == sorted(expected)
    images.begin(0, 1, seed=(0, 0))
    found = [images.read(0) for _ in range(10)]
    images.begin(0, 1, seed=(0, 1))  # its next step: it goes on
    assert found + [images.read(0) for _ in range(10)] == taken(images, 20)


@pytest.mark.parametrize(("num_tars", "num_readers"), [(6, 2), (3, 4), (1, 3), (7, 3)])
def test_readers_share_the_tars(num_tars: int, num_readers: int, tmp_path: Path) -> None:
    """Whatever their numbers, each tar is read as often as any other."""
    for number in range(num_tars):
        write_tar(tmp_path / f"x-{number}.tar.gz", sample(1))
    images = opened(f"{tmp_path}/x-*.tar.gz", tmp_path)
    lists = [
        list(itertools.islice(images._tars(reader, num_readers, (0, 0)), num_tars))
        for reader in range(num_readers)
    ]
    in_turn = [path for turn in zip(*lists, strict=True) for path in turn]
    epochs = np.array(in_turn).reshape(num_readers, num_tars)
    assert all(len(set(epoch)) == num_tars for epoch in epochs.tolist())
    if num_tars == 7:
        assert epochs[0].tolist() != epochs[1].tolist()


def test_a_command_runs_where_that_is_allowed_alone(tmp_path: Path) -> None:
    expected = write_webdataset(tmp_path)
    ran = tmp_path / "ran"
    command = f"pipe:touch {ran}; cat {tmp_path}/in-{{000000..000002}}.tar"
    for path in (command, command.replace("pipe:", "PIPE:")):
        with pytest.raises(ConfigError, match=r"not allowed.*the command 'touch .*data\.allow_pipe: true"):
            opened(path, tmp_path)
    assert not ran.exists()
    images = opened(command, tmp_path, allow_pipe=True, buffer_images=1)
    assert not ran.exists()
    assert sorted(taken(images, 20)) == sorted(expected)
    assert ran.exists()


def test_the_environment_makes_no_command_of_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """webdataset has a variable that rewrites URLs, to pipes too."""
    expected = write_webdataset(tmp_path / "data", sizes=(5,))
    ran = tmp_path / "ran"
    with serving(tmp_path / "data") as server:
        monkeypatch.setenv("GOPEN_REWRITE", f"{server.url}=pipe:touch {ran}; cat ")
        images = opened(f"{server.url}/in-000000.tar", tmp_path, buffer_images=1)
        assert sorted(taken(images, 5)) == sorted(expected)
    assert not ran.exists()


def test_an_answer_that_breaks_off_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.0)
    expected = write_webdataset(tmp_path / "data", sizes=(12,))
    with serving(tmp_path / "data") as server:
        server.cuts["/in-000000.tar"] = 15_000
        images = opened(f"{server.url}/in-000000.tar", tmp_path, buffer_images=1)
        assert taken(images, 12) == expected  # none twice, none lost
        assert len(server.asked) == 2


@pytest.mark.parametrize("what", ["false", "cut", "no tar"])
def test_a_tar_that_stays_broken_is_an_error(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.0)
    write_webdataset(tmp_path, sizes=(3,))
    tar = tmp_path / "in-000000.tar"
    commands = {"false": "false", "cut": f"head -c 5000 {tar}", "no tar": "echo hello"}
    images = opened(f"pipe:{commands[what]}", tmp_path, allow_pipe=True)
    with pytest.raises(SourceError, match=r"breaks off after \d images: pipe:.*3 tries.*last checkpoint"):
        taken(images, 9)


def test_tars_without_images_end_it(tmp_path: Path) -> None:
    write_webdataset(tmp_path, suffix=".tar.gz")
    images = opened(f"{tmp_path}/*.tar.gz", tmp_path, extensions=["webp"])
    with pytest.raises(SourceError, match=r"none in 3 tars in a row.*data\.extensions"):
        taken(images, 1)


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_webdataset(tmp_path, suffix=".tar.gz")
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ConfigError, match=r"pip install 'lvd\[stream\]'"):
        opened(f"{tmp_path}/*.tar.gz", tmp_path)


def dataset_of(images: ImageSet, share: Share) -> StepDataset:
    return StepDataset(
        images,
        order_of(images, DataConfig(), seed=0),
        share,
        crops=CONFIG.crops,
        masking=CONFIG.masking,
        grid=(CONFIG.grid, CONFIG.grid),
        seed=0,
        read_threads=3,
    )


def test_workers_make_batches_of_a_stream(tmp_path: Path) -> None:
    """Two workers of two ranks are four readers: each has tars of its own."""
    start_server()
    write_webdataset(tmp_path, sizes=(4, 4, 4, 4), suffix=".tar.gz")
    images = opened(f"{tmp_path}/*.tar.gz", tmp_path, buffer_images=1)
    config = DataConfig(workers=2, prefetch=1)
    made = []
    for rank in range(2):
        dataset = dataset_of(images, Share(8, rank, 2))
        made += list(raised(batches(dataset, config, steps=range(6, 8), pin_memory=False)))
    assert [batch.step for batch in made] == [6, 7, 6, 7]
    assert len({batch.globals_.numpy().tobytes() for batch in made}) == 4
    assert made[0].rows.tolist() == [48, 49, 50, 51]
    readers: list[tuple[int, int, tuple[int, ...]]] = []

    class Noted(StreamedImages):
        def begin(self, reader: int, num_readers: int, *, seed: tuple[int, ...]) -> None:
            readers.append((reader, num_readers, seed))
            super().begin(reader, num_readers, seed=seed)

    noted = Noted("x", images._paths, extensions=("jpg", "png"), buffer_images=1)
    dataset_of(noted, Share(8, 1, 2))[6]
    assert readers == [(1, 2, (0, 6))]


def test_the_signature_of_a_url_is_no_identity(tmp_path: Path) -> None:
    one, two, other = (
        StreamedImages("x", [f"https://h/{path}"], extensions=("jpg",), buffer_images=1).digest
        for path in ("a.tar?sig=1", "a.tar?sig=2", "b.tar?sig=1")
    )
    assert one == two != other
    assert "sig=1" not in opened("https://h/a.tar?sig=1", tmp_path).describe()
    assert not any(tmp_path.iterdir())
