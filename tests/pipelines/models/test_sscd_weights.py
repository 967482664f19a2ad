"""`sscd:FILE` from every form in which weights are published, against the TorchScript archives themselves."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published_sscd import ClassyModel, TorchvisionModel, load_torchscript, save_torchscript, settled
from safetensors.numpy import save_file as numpy_save_file
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.transforms import v2

from curation.describe.describe import DescribeConfig, describe
from curation.describe.embed import EmbedConfig, Embedder, parse_embedder
from curation.describe.gist import Gist
from curation.describe.sscd import Sscd, Whitening
from curation.errors import ModelError
from curation.pictures.views import View, render
from pipelines.config.paths import absolute
from pipelines.config.run_config import RunConfig
from pipelines.models.embedders import load_embedder
from pipelines.models.identity import identity
from pipelines.models.sscd_weights import load_sscd, new_trunk

ROWS = 4
SIDE_PX = 64
LAYOUTS = ("torchvision", "classy")


@dataclass(frozen=True)
class Published:
    """One model in its three forms."""

    torchscript: Path
    tensors: Path
    safetensors: Path

    @property
    def sha256(self) -> str:
        return sha256(self.torchscript)

    @property
    def pinned(self) -> str:
        return f"sscd:{self.torchscript}@{self.sha256}"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Published]]:
    folder = tmp_path_factory.mktemp("sscd")
    files = {}
    for seed, (layout, kind) in enumerate(zip(LAYOUTS, (TorchvisionModel, ClassyModel), strict=True)):
        torch.manual_seed(seed)
        model = settled(kind())
        made = Published(
            folder / f"{layout}.torchscript.pt", folder / f"{layout}.pt", folder / f"{layout}.safetensors"
        )
        save_torchscript(model, made.torchscript)
        torch.save(model.state_dict(), made.tensors)
        save_file(model.state_dict(), made.safetensors)
        files[layout] = made
    yield files
    shutil.rmtree(folder)  # 600 MB


@pytest.fixture(scope="module")
def embedders(published: dict[str, Published]) -> dict[str, Embedder]:
    """From the archives, in fp32."""
    made = {layout: load_embedder(config(published[layout].pinned), threads=2) for layout in LAYOUTS}
    return {layout: embedder for layout, embedder in made.items() if embedder is not None}


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    rng = np.random.default_rng(7)
    made = []
    for size in [(90, 161), (128, 128), (50, 120), (200, 150)]:
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        made.append(coarse.resize(size, Image.Resampling.BICUBIC))
    return made


def config(embedder: str, **fields: object) -> EmbedConfig:
    fixed = {"compile": False, "device": "cpu", "dtype": "fp32", "batch_rows": ROWS, "image_size_px": SIDE_PX}
    return EmbedConfig.model_validate({"embedder": embedder, **fixed, **fields})


def vectors(embedder: Embedder | None, photos: list[Image.Image]) -> np.ndarray:
    assert embedder is not None
    pixels = np.stack([render(np.asarray(photo), embedder.view) for photo in photos])
    made = embedder.embed(pixels)
    assert made.shape == (ROWS, embedder.dim)
    return made.astype(np.float64)


def by_hand(file: Path, photos: list[Image.Image]) -> np.ndarray:
    """The archive's own descriptors, after torchvision's own preprocessing."""
    prepare = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize((SIDE_PX, SIDE_PX)),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    with torch.inference_mode():
        return load_torchscript(file)(torch.stack([prepare(photo) for photo in photos])).double().numpy()


def cosines(made: np.ndarray, expected: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(expected, axis=1)
    return (made * expected).sum(axis=1) / lengths


@pytest.mark.parametrize("layout", LAYOUTS)
def test_descriptors_as_the_archive_gives_them(
    published: dict[str, Published], embedders: dict[str, Embedder], photos: list[Image.Image], layout: str
) -> None:
    expected = by_hand(published[layout].torchscript, photos)
    apart = expected @ expected.T
    assert apart[~np.eye(ROWS, dtype=bool)].max() < 0.99  # or the next line would prove nothing
    made = vectors(embedders[layout], photos)
    assert made.shape == (ROWS, 512)
    assert cosines(made, expected).min() >= 0.9999


@pytest.mark.accept
def test_in_bf16_the_descriptors_are_close(
    published: dict[str, Published], embedders: dict[str, Embedder], photos: list[Image.Image]
) -> None:
    in_bf16 = load_embedder(config(published["classy"].pinned, dtype="bf16"), threads=2)
    assert cosines(vectors(in_bf16, photos), vectors(embedders["classy"], photos)).min() >= 0.98


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_form_gives_the_same_tensors(
    published: dict[str, Published], tmp_path: Path, layout: str
) -> None:
    archive = load_sscd(parse_embedder(published[layout].pinned))
    save_file(archive.state_dict(), tmp_path / "own.safetensors")
    for file in (published[layout].tensors, published[layout].safetensors, tmp_path / "own.safetensors"):
        model = load_sscd(parse_embedder(f"sscd:{file}"))
        for (name, ours), (_, theirs) in zip(
            model.named_parameters(), archive.named_parameters(), strict=True
        ):
            assert torch.equal(ours, theirs), name


def test_its_own_size_is_288_px_squashed(published: dict[str, Published]) -> None:
    spec = f"sscd:{published['classy'].tensors}"
    embedder = load_embedder(config(spec, image_size_px=None, batch_rows=1), threads=2)
    assert embedder is not None
    assert embedder.view == View(288, "squash", "bilinear")


def test_the_deeper_trunk_has_the_tensors_of_resnext101_32x4d() -> None:
    with torch.device("meta"):
        ours = Sscd(new_trunk("resnext101_32x4d"), dim=1024).trunk.state_dict()
        theirs = ResNet(Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4).state_dict()
    expected = {name: x.shape for name, x in theirs.items() if not name.startswith("fc.")}
    assert {name: x.shape for name, x in ours.items()} == expected


def test_tensors_that_are_missing_or_too_many_are_all_named(
    published: dict[str, Published], tmp_path: Path
) -> None:
    state = torch.load(published["classy"].tensors, weights_only=True)
    del state["backbone.blocks.2.block2-3.convolutional_block.4.running_var"]
    del state["embeddings.1.bias"]
    state["backbone.blocks.0.block0-1.bn.weight"] = torch.zeros(3)
    state["backbone.blocks.0.block0-1.extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(ModelError) as error:
        load_embedder(config(f"sscd:{tmp_path}/odd.pt"), threads=2)
    message = str(error.value)
    assert "2 missing: trunk.layer3.3.bn2.running_var, head.linear.bias" in message
    assert "1 of another shape: trunk.layer1.1.bn3.weight (3,) float32 for (256,)" in message
    assert "1 not expected: trunk.blocks.0.block0-1.extra.weight" in message
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="267 missing"):  # 318 less the counters of 53 norms, and the head
        load_embedder(config(f"sscd:{tmp_path}/other.pt"), threads=2)


def test_another_file_than_the_one_named_is_refused(published: dict[str, Published]) -> None:
    for file in (published["classy"].torchscript, published["classy"].tensors):
        named = config(f"sscd:{file}@{'0f' * 32}")
        for refuse in (load_embedder, identity):
            with pytest.raises(ModelError, match=f"Got: SHA-256 {sha256(file)}. Expected: {'0f' * 32}"):
                refuse(named, threads=2)


def test_a_program_is_opened_by_its_hash_alone(published: dict[str, Published]) -> None:
    archive = published["torchvision"]
    with pytest.raises(ModelError, match=f"is a program.*{archive.sha256}"):
        load_embedder(config(f"sscd:{archive.torchscript}"), threads=2)
    load_sscd(parse_embedder(f"sscd:{archive.torchscript}@{archive.sha256.upper()}"))


def test_a_frozen_archive_holds_no_tensors_by_name(tmp_path: Path) -> None:
    file = tmp_path / "frozen.pt"
    save_torchscript(nn.Conv2d(3, 2, 1).eval(), file, frozen=True)
    with pytest.raises(ModelError, match=r"was frozen.*\.torchvision\.pt"):
        load_embedder(config(f"sscd:{file}@{sha256(file)}"), threads=2)


def test_absent_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "w.pkl").write_bytes(b"")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    for name, says in (("none.pt", "No weights"), ("w.pkl", "safetensors"), ("cut.pt", "cannot be read")):
        with pytest.raises(ModelError, match=says):
            load_embedder(config(f"sscd:{tmp_path}/{name}"), threads=2)


def test_a_whitening_follows(
    published: dict[str, Published],
    embedders: dict[str, Embedder],
    photos: list[Image.Image],
    tmp_path: Path,
) -> None:
    plain = vectors(embedders["classy"], photos)
    rng = np.random.default_rng(0)
    drawn = Whitening(rng.normal(size=(64, 512)).astype(np.float32), rng.normal(size=64).astype(np.float32))
    file = tmp_path / "white.safetensors"
    numpy_save_file(drawn._asdict(), file)
    whitened = f"{published['classy'].pinned},whitening={file}"
    made = vectors(load_embedder(config(f"{whitened}@{sha256(file)}"), threads=2), photos)
    assert made.shape == (ROWS, 64)
    assert cosines(made, plain @ drawn.weight.T + drawn.bias).min() >= 0.9999
    assert identity(config(whitened), threads=2) != identity(config(published["classy"].pinned), threads=2)
    with pytest.raises(ModelError, match="SHA-256"):
        load_embedder(config(f"{whitened}@{'0f' * 32}"), threads=2)
    save_file({"weight": torch.zeros(8, 100), "bias": torch.zeros(8)}, file)
    with pytest.raises(
        ModelError, match=r"whitening of 512 numbers.*weight \(8, 100\) float32 for \(8, 512\)"
    ):
        load_embedder(config(whitened), threads=2)


def test_identity_is_the_bytes_of_the_files(published: dict[str, Published], tmp_path: Path) -> None:
    here = published["classy"].safetensors
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes(here.read_bytes())
    same = [f"sscd:{here}", f"sscd:{moved}", f"sscd:{moved}@{sha256(moved)}"]
    assert (
        identity(config(same[0]), threads=2)
        == identity(config(same[1]), threads=2)
        == identity(config(same[2]), threads=2)
    )
    moved.write_bytes(moved.read_bytes()[:-1] + b"\x01")
    assert identity(config(f"sscd:{moved}"), threads=2) != identity(config(same[0]), threads=2)


def test_it_describes_copies_beside_an_embedder(
    published: dict[str, Published],
    embedders: dict[str, Embedder],
    photos: list[Image.Image],
    tmp_path: Path,
) -> None:
    spec = published["torchvision"].pinned
    settings = DescribeConfig(
        embed=config("gist", image_size_px=None), descriptor=spec, descriptor_size_px=SIDE_PX
    )
    assert settings.descriptor_embed == config(spec)
    files = []
    for number, photo in enumerate(photos):
        photo.save(tmp_path / f"{number}.png")
        files.append((tmp_path / f"{number}.png").read_bytes())
    files[2] = b"no picture"
    described = describe(
        ROWS,
        files.__getitem__,
        embedder=Gist(),
        descriptor=embedders["torchvision"],
        config=settings,
    )
    assert described.descriptors is not None
    assert not described.descriptors[2].any()
    rows = [0, 1, 3]
    np.testing.assert_array_equal(
        described.descriptors[rows], vectors(embedders["torchvision"], photos)[rows]
    )


def test_the_descriptor_has_a_size_of_its_own() -> None:
    embed = config("timm:test_vit", image_size_px=64)
    alone = DescribeConfig(embed=embed, descriptor="sscd:d.pt").descriptor_embed
    assert alone == embed.model_copy(update={"embedder": "sscd:d.pt", "image_size_px": None})
    shared = DescribeConfig(embed=embed, descriptor="timm:test_vit").descriptor_embed
    assert shared == embed


def test_paths_of_a_config_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pin = "@" + "0f" * 32
    settings = RunConfig.model_validate(
        {
            "run_dir": "run",
            "pools": {"web": {"role": "uncurated", "sources": [{"kind": "folder", "path": "photos"}]}},
            "describe": {"descriptor": f"sscd:d.pt{pin},whitening=w.pt{pin}"},
        }
    )
    found = absolute(settings).describe.descriptor
    assert found == f"sscd:{tmp_path}/d.pt{pin},whitening={tmp_path}/w.pt{pin}"
