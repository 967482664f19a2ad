"""Models of open_clip and timm, from weights in the libraries' own formats, against the libraries by hand."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from drawn_vit import drawn, small
from PIL import Image
from safetensors.torch import save_file
from torch._dynamo.utils import counters

from curation.cpu import has_bf16
from curation.describe.embed import EmbedConfig, Embedder
from curation.errors import ConfigError, ModelError
from curation.pictures.views import View, render
from pipelines.models.embedders import load_embedder
from pipelines.models.identity import identity, resolve
from pipelines.models.own_weights import weights_file
from pretrain.data.augment import normalise
from pretrain.evaluate.probe import evaluation_view
from pretrain.model.vit import VisionTransformer
from pretrain.weights import metadata_of_config

ROWS = 4
TINY_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    rng = np.random.default_rng(7)
    sizes = [(90, 61), (64, 64), (50, 120), (200, 150)]
    made = []
    for width, height in sizes:
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        made.append(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return made


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The name of a small open_clip architecture, and a file of its weights."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip")
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, folder / "weights.pt")
    return "tiny-clip", str(folder / "weights.pt")


@pytest.fixture(scope="module")
def tiny_timm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights files of small timm models, with their classifiers, in both of timm's formats."""
    folder = tmp_path_factory.mktemp("timm")
    files = {}
    for name, suffix in (("test_vit", "safetensors"), ("test_resnet", "pth")):
        torch.manual_seed(1)
        state = timm.create_model(name).state_dict()
        files[name] = str(folder / f"{name}.{suffix}")
        if suffix == "pth":
            torch.save({"state_dict": state}, files[name])
        else:
            save_file(state, files[name])
    return files


@pytest.fixture(scope="module")
def own_vits(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionTransformer, dict[str, Path]]:
    """A small backbone, and it in a run directory of the trainer and as an official file."""
    folder = tmp_path_factory.mktemp("vit")
    shape = small()
    backbone = drawn(shape)
    places = {"run": folder / "run", "official": folder / "vit.pth"}
    for step in (5, 20):
        saved = places["run"] / "checkpoints" / f"step-{step:08d}"
        saved.mkdir(parents=True)
        state = {f"backbone.{name}": (step == 20) * x.detach() for name, x in backbone.named_parameters()}
        save_file(state, saved / "teacher.safetensors", metadata=metadata_of_config(shape))
        digest = hashlib.sha256((saved / "teacher.safetensors").read_bytes()).hexdigest()
        num_bytes = (saved / "teacher.safetensors").stat().st_size
        proof = {"teacher.safetensors": {"sha256": digest, "bytes": num_bytes}}
        (saved / "COMPLETE.json").write_text(json.dumps(proof))
    torch.save(backbone.state_dict(), places["official"])
    return backbone, places


def config(embedder: str, **fields: object) -> EmbedConfig:
    return EmbedConfig.model_validate(
        {"embedder": embedder, "compile": False, "device": "cpu", "batch_rows": ROWS, **fields}
    )


def vectors(embedder: Embedder | None, photos: list[Image.Image]) -> np.ndarray:
    assert embedder is not None
    pixels = np.stack([render(np.asarray(photo), embedder.view) for photo in photos])
    made = embedder.embed(pixels)
    assert made.dtype == np.float16
    assert made.shape == (ROWS, embedder.dim)
    assert np.abs(np.linalg.norm(made.astype(np.float64), axis=1) - 1).max() < 1e-3
    return made.astype(np.float64)


def assert_same(made: np.ndarray, by_hand: torch.Tensor) -> None:
    expected = torch.nn.functional.normalize(by_hand.double()).numpy()
    assert (made * expected).sum(axis=1).min() >= 0.999
    # The pictures differ by more than the tolerance, or the line above would prove nothing.
    apart = expected @ expected.T
    assert apart[~np.eye(ROWS, dtype=bool)].min() < 0.998


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_open_clip_as_by_hand(tiny_clip: tuple[str, str], photos: list[Image.Image], dtype: str) -> None:
    arch, path = tiny_clip
    model, preprocess = open_clip.create_model_from_pretrained(arch, path)
    with torch.inference_mode():
        by_hand = model.eval().encode_image(torch.stack([preprocess(photo) for photo in photos]))
    assert_same(
        vectors(load_embedder(config(f"open_clip:{arch}/{path}", dtype=dtype), threads=2), photos), by_hand
    )


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_timm_as_by_hand(tiny_timm: dict[str, str], photos: list[Image.Image], name: str, dtype: str) -> None:
    model = timm.create_model(name, checkpoint_path=tiny_timm[name]).eval()
    model.reset_classifier(0)
    preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        by_hand = model(torch.stack([preprocess(photo) for photo in photos]))
    assert_same(
        vectors(load_embedder(config(f"timm:{name}@{tiny_timm[name]}", dtype=dtype), threads=2), photos),
        by_hand,
    )


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("place", ["run", "official"])
@pytest.mark.parametrize("side_px", [None, 42])
def test_own_vit_as_by_hand(
    own_vits: tuple[VisionTransformer, dict[str, Path]],
    photos: list[Image.Image],
    place: str,
    dtype: str,
    side_px: int | None,
) -> None:
    backbone, places = own_vits
    embedder = load_embedder(config(f"vit:{places[place]}", dtype=dtype, image_size_px=side_px), threads=2)
    assert embedder is not None
    assert embedder.view == evaluation_view(side_px or 56)
    views = np.stack([render(np.asarray(photo), embedder.view) for photo in photos])
    with torch.inference_mode():
        [features] = backbone([normalise(torch.from_numpy(views).permute(0, 3, 1, 2))])
    assert_same(vectors(embedder, photos), features.cls)


COMPILE_ONE = """
import sys
import numpy as np
from curation.describe.embed import EmbedConfig
from pipelines.models.embedders import load_embedder

fields = {"embedder": sys.argv[1], "dtype": "fp32", "device": "cpu", "batch_rows": 4}
eager, compiled = (
    load_embedder(EmbedConfig(**fields, compile=compile_), threads=2) for compile_ in (False, True)
)
side = eager.view.side_px
pixels = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8)
np.testing.assert_allclose(eager.embed(pixels), compiled.embed(pixels), atol=2e-3)
"""


@pytest.mark.accept
def test_a_compiled_own_vit_gives_the_same_vectors(
    own_vits: tuple[VisionTransformer, dict[str, Path]],
) -> None:
    """In a process of its own: the shapes that are checked in this one cannot be traced."""
    command = [sys.executable, "-W", "error", "-c", COMPILE_ONE, f"vit:{own_vits[1]['run']}"]
    subprocess.run(command, check=True, timeout=300)


def test_own_vit_cannot_take_every_size(own_vits: tuple[VisionTransformer, dict[str, Path]]) -> None:
    with pytest.raises(ConfigError, match=r"patches of 14 px.*42 or 56"):
        load_embedder(config(f"vit:{own_vits[1]['run']}", image_size_px=50), threads=2)


def test_own_vit_is_known_by_its_newest_weights(
    own_vits: tuple[VisionTransformer, dict[str, Path]], tmp_path: Path
) -> None:
    run = own_vits[1]["run"]
    newest = run / "checkpoints" / "step-00000020" / "teacher.safetensors"
    assert weights_file(str(run)) == str(newest)
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes(newest.read_bytes())
    assert identity(config(f"vit:{run}"), threads=2) == identity(config(f"vit:{moved}"), threads=2)
    older = run / "checkpoints" / "step-00000005"
    assert identity(config(f"vit:{run}"), threads=2) != identity(config(f"vit:{older}"), threads=2)
    # What a library says beside its weights changes what is made of them.
    (tmp_path / "config.json").write_text("{}")
    assert identity(config(f"vit:{run}"), threads=2) != identity(config(f"vit:{moved}"), threads=2)


def test_own_vit_that_lacks_a_tensor_is_refused_by_name(
    own_vits: tuple[VisionTransformer, dict[str, Path]], tmp_path: Path
) -> None:
    state = own_vits[0].state_dict()
    del state["blocks.1.norm2.bias"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(ModelError, match=r"missing.*blocks\.1\.norm2\.bias"):
        load_embedder(config(f"vit:{tmp_path}/less.pth"), threads=2)
    with pytest.raises(ModelError, match="No weights"):
        identity(config(f"vit:{tmp_path}/none.pth"), threads=2)


def test_a_compiled_forward_gives_the_same_vectors(
    tiny_clip: tuple[str, str], photos: list[Image.Image]
) -> None:
    spec = "open_clip:{}/{}".format(*tiny_clip)
    eager = vectors(load_embedder(config(spec, dtype="bf16"), threads=2), photos)
    counters.clear()
    compiled_embedder = load_embedder(config(spec, dtype="bf16", compile=True), threads=2)
    if has_bf16():  # the weights were frozen: each linear layer is oneDNN's, packed
        assert counters["inductor"]["mkldnn_linear_weight_pack_matcher_count"] >= 8
    compiled = vectors(compiled_embedder, photos)
    assert (eager * compiled).sum(axis=1).min() >= 0.999
    np.testing.assert_array_equal(compiled, vectors(compiled_embedder, photos))


def test_another_image_size_resamples_the_positions(tiny_timm: dict[str, str]) -> None:
    for name, path in tiny_timm.items():
        embedder = load_embedder(config(f"timm:{name}@{path}", image_size_px=64), threads=2)
        assert embedder is not None
        assert embedder.view.side_px == 64


def test_weights_that_lack_a_tensor_are_refused_by_name(
    tiny_clip: tuple[str, str], tiny_timm: dict[str, str], tmp_path: Path
) -> None:
    state = torch.load(tiny_clip[1], weights_only=True)["state_dict"]
    del state["visual.ln_post.bias"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(ModelError, match=r"missing.*visual\.ln_post\.bias"):
        load_embedder(config(f"open_clip:tiny-clip/{tmp_path}/less.pt"), threads=2)
    state = timm.models.load_state_dict(tiny_timm["test_vit"])
    del state["norm.weight"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ModelError, match=r"missing.*norm\.weight"):
        load_embedder(config(f"timm:test_vit@{tmp_path}/less.safetensors"), threads=2)


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("pwned"),))


@pytest.mark.usefixtures("tiny_clip")
def test_a_pickle_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"state_dict": _Evil()}, protocol=2))
    torch.save({"state_dict": _Evil()}, tmp_path / "zipped.pth")
    said = r"Python objects, which are code and are not read: .*getattr"
    for name in ("plain", "zipped"):
        file = f"{tmp_path}/{name}.pth"
        for spec in (f"timm:test_vit@{file}", f"open_clip:tiny-clip/{file}", f"vit:{file}"):
            with pytest.raises(ModelError, match=said) as caught:
                load_embedder(config(spec), threads=2)
            assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pkl").write_bytes(b"")
    with pytest.raises(ModelError, match="safetensors"):
        load_embedder(config(f"timm:test_vit@{tmp_path}/weights.pkl"), threads=2)


def test_unknown_names_and_absent_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vit_small_patch14_dinov2"):
        load_embedder(config("timm:vit_small_patch14_dinov3x"), threads=2)
    with pytest.raises(ConfigError, match="ViT-B-32"):
        load_embedder(config("open_clip:ViT-B-33/openai"), threads=2)
    with pytest.raises(ModelError, match="laion2b_s34b_b79k"):  # the tags that there are
        load_embedder(config(f"open_clip:ViT-B-32/{tmp_path}/none.pt"), threads=2)


def test_resolve_leaves_no_auto_and_fixes_what_does_not_matter() -> None:
    resolved = resolve(EmbedConfig(embedder="timm:test_vit"))
    assert "auto" not in (resolved.dtype, resolved.compile, resolved.device)
    assert resolve(resolved) == resolved
    gist = resolve(EmbedConfig(embedder="gist", dtype="bf16", compile=True))
    assert (gist.dtype, gist.compile, gist.device) == ("fp32", False, "cpu")


def test_identity_follows_the_weights_not_their_place(tiny_timm: dict[str, str], tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes(Path(tiny_timm["test_vit"]).read_bytes())
    here, there = (config(f"timm:test_vit@{path}") for path in (tiny_timm["test_vit"], moved))
    assert identity(here, threads=2) == identity(there, threads=2)
    moved.write_bytes(moved.read_bytes()[:-1] + b"\x01")
    assert identity(here, threads=2) != identity(there, threads=2)
    fp32, bf16 = (identity(here.model_copy(update={"dtype": dtype}), threads=2) for dtype in ("fp32", "bf16"))
    assert fp32 != bf16


def test_gist_is_the_default_and_precomputed_has_no_model() -> None:
    embedder = load_embedder(EmbedConfig(), threads=2)
    assert embedder is not None
    assert isinstance(embedder.view, View)
    assert load_embedder(config("precomputed:vectors.parquet"), threads=2) is None
