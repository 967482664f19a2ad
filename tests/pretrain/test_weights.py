"""Files of every library, opened; and what is wrong with a file, named."""

import argparse
import hashlib
import json
import os
import pickle
import re
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path, PosixPath

import numpy as np
import pytest
import timm
import torch
from drawn_vit import drawn, images, randomise, small, tokens
from safetensors.torch import load_file, save_file
from torch import Tensor

from curation.errors import ModelError
from pretrain.checkpoint_files import MARKER, TEACHER
from pretrain.model.heads import HeadConfig, ProjectionHead
from pretrain.model.vit import VisionTransformer, ViTConfig
from pretrain.weight_files import find_weights
from pretrain.weights import config_of_metadata, load_backbone, metadata_of_config, read_state

KINDS = [("mlp", 0), ("mlp", 4), ("swiglu", 0), ("swiglu", 4)]
TOLERANCE = 1e-4
GOLDEN = Path(os.environ.get("LVD_GOLDEN_DIR", Path(__file__).parents[1] / "data" / "golden"))


def kinds(ids: list[tuple[str, int]] = KINDS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("ffn", "registers"), ids)


def save_ours(model: VisionTransformer, folder: Path, name: str = TEACHER) -> Path:
    """As a training run saves a teacher."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"backbone.{key}": tensor for key, tensor in model.state_dict().items()}
    state |= {"dino_head.mlp.0.weight": torch.ones(3, 3), "ibot_head.last_layer.weight_g": torch.ones(3, 1)}
    save_file(state, folder / name, metadata=metadata_of_config(model.config))
    return folder / name


def prove(folder: Path) -> None:
    """Put the marker beside a teacher, as a training run does."""
    data = (folder / TEACHER).read_bytes()
    proof = {TEACHER: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}
    (folder / MARKER).write_text(json.dumps(proof))


def assert_same(made: VisionTransformer, expected: Tensor, side_px: int = 56) -> None:
    assert not made.training
    found = tokens(made, images(side_px))
    assert expected.std() > 0.3  # nothing is compared with nothing
    difference = (found - expected).abs().max().item()
    print(f"max |Δ| {difference:.1e}")
    assert difference < TOLERANCE


@kinds()
def test_our_own_checkpoint(tmp_path: Path, ffn: str, registers: int) -> None:
    config = replace(small(ffn=ffn, registers=registers, dim=96, num_heads=3), drop_path=0.3)
    config = replace(config, position_offset=0.0, position_antialias=True)
    model = drawn(config)
    save_ours(model, tmp_path)
    for path in (tmp_path, tmp_path / TEACHER, str(tmp_path)):
        made = load_backbone(path)
        assert made.config == config
        assert {tensor.dtype for tensor in made.state_dict().values()} == {torch.float32}
        assert all(tensor.requires_grad for tensor in made.parameters())
        assert torch.equal(tokens(made, images(70)), tokens(model, images(70)))


def test_a_loaded_backbone_outlives_its_file(tmp_path: Path) -> None:
    model = drawn(small())
    expected = tokens(model, images())
    torch.save(model.state_dict(), tmp_path / "model.pth")
    for file in (save_ours(model, tmp_path), tmp_path / "model.pth"):
        made = load_backbone(file)
        with file.open("r+b") as open_file:
            open_file.write(bytes(file.stat().st_size))
        assert torch.equal(tokens(made, images()), expected)


def test_half_precision_becomes_full(tmp_path: Path) -> None:
    model = drawn(small()).to(torch.bfloat16)
    torch.save(model.state_dict(), tmp_path / "half.pth")
    made = load_backbone(tmp_path / "half.pth")
    assert made.norm.weight.dtype is torch.float32
    assert torch.equal(made.norm.weight, model.norm.weight.float())


def test_the_newest_complete_checkpoint_of_a_run(tmp_path: Path) -> None:
    steps = tmp_path / "run" / "checkpoints"
    for step in (900, 1000, 10000, 11000):
        save_ours(drawn(small(), seed=step), steps / f"step-{step:08d}")
    with pytest.raises(ModelError, match=r"no complete checkpoint.*Expected: step-…/ with COMPLETE\.json"):
        find_weights(tmp_path / "run")
    for step in (900, 1000, 10000):
        prove(steps / f"step-{step:08d}")
    (steps / "step-99999999.tmp").mkdir()
    (steps / "step-99999999.tmp" / MARKER).write_text("{}")
    assert find_weights(str(tmp_path / "run")) == steps / "step-00010000" / TEACHER
    found = load_backbone(tmp_path / "run")
    assert torch.equal(tokens(found, images()), tokens(drawn(small(), seed=10000), images()))


@pytest.mark.parametrize(
    "marker", ["{}", '{"training.json": {}}', None, "[]", "3", "[" * 100_000, '["teacher.safetensors"]']
)
def test_weights_of_a_checkpoint_without_a_proof_are_refused(tmp_path: Path, marker: str | None) -> None:
    run_dir = tmp_path / "run"
    folder = run_dir / "checkpoints" / "step-00000006"
    file = save_ours(drawn(small()), folder)
    prove(folder)
    load_backbone(run_dir)
    load_backbone(file)
    if marker is None:
        (folder / MARKER).unlink()
    else:
        (folder / MARKER).write_text(marker)
    for path in (folder, file, run_dir):
        with pytest.raises(ModelError, match=r"damaged|holds no complete checkpoint"):
            load_backbone(path)
    # Other people's files have no proof, and neither have ours that somebody has put elsewhere.
    (tmp_path / "alone").mkdir()
    shutil.copy(file, tmp_path / "alone" / TEACHER)
    load_backbone(tmp_path / "alone" / TEACHER)
    load_backbone(tmp_path / "alone")


def test_what_is_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"No weights\. Got: .*absent"):
        find_weights(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(
        ModelError, match=r"holds no weights\. Got: notes\.txt\. Expected: teacher\.safetensors"
    ):
        find_weights(tmp_path)
    with pytest.raises(ModelError, match="no kind of weights file"):
        read_state(tmp_path / "notes.txt")
    for name, content in (
        ("cut.safetensors", b"\x09"),
        ("noise.pth", bytes(range(256))),
        ("empty.pt", b""),
        ("model.safetensors.index.json", b"{}"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{re.escape(name)} cannot be read"):
            load_backbone(tmp_path / name)
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(ModelError, match="a Tensor where a dict was expected"):
        load_backbone(tmp_path / "tensor.pt")


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("pwned"),))


def test_a_pickle_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = drawn(small()).state_dict() | {"evil": _Evil()}
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"teacher": _Evil()}, protocol=2))
    torch.save({"teacher": state}, tmp_path / "zipped.pt")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text("{}")
    torch.save(state, tmp_path / "hub" / "pytorch_model.bin")
    for name in ("plain.pth", "zipped.pt", "legacy.pth", "hub"):
        with pytest.raises(ModelError, match=r"cannot be read.*Python objects.*builtins\.getattr"):
            load_backbone(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


@kinds()
def test_official_files(tmp_path: Path, ffn: str, registers: int) -> None:
    model = drawn(small(ffn=ffn, registers=registers))
    expected = tokens(model, images(70))
    state = model.state_dict()
    trained = {f"backbone.{name}": tensor for name, tensor in state.items()}
    for number, content in enumerate((state, {"teacher": trained | {"dino_head.x": torch.ones(1)}})):
        for legacy in (False, True):
            file = tmp_path / f"{number}{legacy}.pth"
            torch.save(content, file, _use_new_zipfile_serialization=not legacy)
            made = load_backbone(file)
            assert made.config == model.config
            assert_same(made, expected, side_px=70)


@pytest.mark.parametrize("case", sorted(GOLDEN.glob("*_*.safetensors")), ids=lambda path: path.stem)
def test_what_the_official_code_computed(tmp_path: Path, case: Path) -> None:
    """The teacher, which is taken of the two in a file, and the student, which is taken where it is alone."""
    fields, golden = json.loads(case.with_suffix(".json").read_text()), load_file(case)
    teacher = load_backbone(case, num_heads=fields["num_heads"])
    head = ProjectionHead(
        HeadConfig(
            fields["embed_dim"],
            fields["dino_prototypes"],
            fields["head_hidden_dim"],
            fields["head_bottleneck_dim"],
        )
    )
    prefix = "teacher.dino_head."
    head.load_state_dict({n.removeprefix(prefix): t for n, t in golden.items() if n.startswith(prefix)})
    torch.save({n: t for n, t in golden.items() if n.startswith("student.")}, tmp_path / "student.pth")
    student = load_backbone(tmp_path / "student.pth", num_heads=fields["num_heads"])
    with torch.inference_mode():
        [features] = teacher([golden["in.collated_global_crops"]])
        [rect] = student([golden["in.rect"]])
        assert (head(features.cls) - golden["out.teacher_head_cls"]).abs().max() < 1e-5
    assert (rect.cls - golden["out.rect_cls"]).abs().max() < 1e-5


@pytest.mark.parametrize(
    "missing", [["norm.bias"], ["blocks.0.ls1.gamma", "mask_token"], ["pos_embed", "cls_token"]]
)
def test_every_missing_tensor_is_named(tmp_path: Path, missing: list[str]) -> None:
    state = dict(drawn(small(registers=4)).state_dict())
    for name in missing:
        del state[name]
    torch.save(
        {"teacher": {f"backbone.{key}": tensor for key, tensor in state.items()}}, tmp_path / "less.pth"
    )
    with pytest.raises(ModelError) as caught:
        load_backbone(tmp_path / "less.pth")
    assert "less.pth cannot be loaded: the tensors are not those of the backbone" in str(caught.value)
    assert f"{len(missing)} missing" in str(caught.value)
    assert all(name in str(caught.value) for name in missing)


def test_metadata_names_what_the_tensors_cannot(tmp_path: Path) -> None:
    """A file that lost its last block, and one without a mask token, look complete without their metadata."""
    model = drawn(small())
    lost = {name: t for name, t in model.state_dict().items() if not name.startswith("blocks.2.")}
    save_file(lost, tmp_path / "lost.safetensors", metadata=metadata_of_config(model.config))
    with pytest.raises(ModelError, match=r"14 missing: blocks\.2\.norm1\.weight"):
        load_backbone(tmp_path / "lost.safetensors")
    lost = {name: t for name, t in model.state_dict().items() if name != "mask_token"}
    save_file(lost, tmp_path / "maskless.safetensors", metadata=metadata_of_config(model.config))
    with pytest.raises(ModelError, match="1 missing: mask_token"):
        load_backbone(tmp_path / "maskless.safetensors")


def test_wrong_shapes_and_strangers_are_named(tmp_path: Path) -> None:
    state = drawn(small()).state_dict() | {
        "norm.weight": torch.ones(7),
        "blocks.0.attn.q_norm.weight": torch.ones(1),
    }
    torch.save(state, tmp_path / "odd.pth")
    shape = r"1 of another shape: norm\.weight \(7,\) float32 for \(128,\)"
    with pytest.raises(ModelError, match=rf"{shape}; 1 not expected: blocks\.0\.attn\.q_norm\.weight"):
        load_backbone(tmp_path / "odd.pth")
    rectangle = drawn(small()).state_dict() | {"pos_embed": torch.ones(1, 13, 128)}
    torch.save(rectangle, tmp_path / "rectangle.pth")
    with pytest.raises(ModelError, match=r"pos_embed \(1, 13, 128\) float32 for \(1, 10, 128\)"):
        load_backbone(tmp_path / "rectangle.pth")


def test_metadata_is_held_against_the_tensors(tmp_path: Path) -> None:
    model = drawn(small())
    save_file(
        dict(model.state_dict()), tmp_path / "a.safetensors", metadata=metadata_of_config(small(registers=4))
    )
    with pytest.raises(ModelError, match=r"1 missing: register_tokens"):
        load_backbone(tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=r"Got: 4\. Expected: 2"):
        load_backbone(save_ours(model, tmp_path), num_heads=4)


def test_metadata_that_is_no_shape() -> None:
    assert config_of_metadata(metadata_of_config(small())) == small()
    for text in ("{", "[]", "{}", '{"dim": 64, "depth": 1, "num_heads": 5}', '{"dim": 64, "rope": true}'):
        with pytest.raises(ModelError, match="not the shape of a backbone"):
            config_of_metadata({"vit": text})
    with pytest.raises(ModelError, match="ffn"):
        config_of_metadata({"vit": '{"dim": 64, "depth": 1, "num_heads": 1, "ffn": "moe"}'})


def test_heads_must_be_given_where_nothing_tells_them(tmp_path: Path) -> None:
    model = drawn(small(dim=96, num_heads=3))
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ModelError, match="how many attention heads share 96 channels"):
        load_backbone(tmp_path / "bare.pth")
    assert_same(load_backbone(tmp_path / "bare.pth", num_heads=3), tokens(model, images()))


def huggingface_model(ffn: str, registers: int, *, classifier: bool = False) -> torch.nn.Module:
    """A model of transformers with 3 heads of 32 channels, drawn."""
    import transformers

    fields = {
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 56,
        "patch_size": 14,
        "use_swiglu_ffn": ffn == "swiglu",
    }
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**fields, num_register_tokens=registers)
        kind = transformers.Dinov2WithRegistersForImageClassification if classifier else None
        return randomise((kind or transformers.Dinov2WithRegistersModel)(config)).eval()
    config = transformers.Dinov2Config(**fields)
    kind = transformers.Dinov2ForImageClassification if classifier else transformers.Dinov2Model
    return randomise(kind(config)).eval()


@kinds()
@pytest.mark.parametrize("classifier", [False, True])
def test_what_transformers_saved(tmp_path: Path, ffn: str, registers: int, classifier: bool) -> None:
    model = huggingface_model(ffn, registers, classifier=classifier)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="300KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    with torch.inference_mode():
        expected = model.base_model(images()).last_hidden_state
    for name in ("whole", "whole/model.safetensors", "shards"):
        made = load_backbone(tmp_path / name)
        assert made.config == replace(small(ffn=ffn, registers=registers, dim=96, num_heads=3))
        assert_same(made, expected)


def test_what_is_wrong_with_a_directory_of_transformers(tmp_path: Path) -> None:
    huggingface_model("mlp", 0).save_pretrained(tmp_path, max_shard_size="300KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(ModelError, match="outside of its directory"):
        load_backbone(tmp_path)
    index.write_text(json.dumps(content))
    config = tmp_path / "config.json"
    fields = json.loads(config.read_text())
    for changed in ({"hidden_act": "relu"}, {"layer_norm_eps": 1e-5}, {"model_type": "vit"}):
        config.write_text(json.dumps(fields | changed))
        with pytest.raises(ModelError, match="a model that is not built here"):
            load_backbone(tmp_path)
    config.write_text(json.dumps(fields | {"num_hidden_layers": 4}))
    with pytest.raises(ModelError, match=r"14 missing: blocks\.3"):
        load_backbone(tmp_path)
    config.write_text("{")
    with pytest.raises(ModelError, match="no JSON"):
        load_backbone(tmp_path)
    config.write_text(json.dumps(fields))
    next(tmp_path.glob("model-00001*")).unlink()
    with pytest.raises(ModelError, match=r"cannot be read.*model-00001"):
        load_backbone(tmp_path)


TIMM = {
    "plain": ("vit_small_patch14_dinov2", {}),
    "registers": ("vit_small_patch14_reg4_dinov2", {}),
    "registers with positions": ("vit_small_patch14_reg4_dinov2", {"no_embed_class": False}),
    "no position of the class": ("vit_small_patch14_dinov2", {"no_embed_class": True}),
    "swiglu": ("vit_giant_patch14_dinov2", {"mlp_ratio": 512 / 96}),
    "swiglu, registers": ("vit_giant_patch14_reg4_dinov2", {"mlp_ratio": 512 / 96, "reg_tokens": 2}),
}


@pytest.mark.parametrize("kind", TIMM)
def test_what_timm_saved(tmp_path: Path, kind: str) -> None:
    name, args = TIMM[kind]
    size = {"img_size": 56, "embed_dim": 96, "depth": 3, "num_heads": 3, "num_classes": 5}
    model = randomise(timm.create_model(name, **size, **args)).eval()
    with torch.inference_mode():
        expected = model.forward_features(images())
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.save({"state_dict": model.state_dict(), "epoch": 3, "arch": name}, tmp_path / "model.pth")
    for file in ("model.safetensors", "model.pth"):
        assert_same(load_backbone(tmp_path / file, num_heads=3), expected)
    for safe in (True, False):
        timm.models.save_for_hf(model, tmp_path / f"hub{safe}", safe_serialization=safe)
        made = load_backbone(tmp_path / f"hub{safe}")
        assert_same(made, expected)
        assert not made.mask_token.any()


def test_a_timm_architecture_lends_its_heads(tmp_path: Path) -> None:
    model = randomise(
        timm.create_model("vit_small_patch14_dinov2", img_size=28, embed_dim=96, depth=2)
    ).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    made = load_backbone(tmp_path)
    assert (made.config.num_heads, made.config.grid) == (6, 2)
    with torch.inference_mode():
        assert_same(made, model.forward_features(images(28)), side_px=28)
    config = tmp_path / "config.json"
    fields = json.loads(config.read_text())
    for changed in ({"architecture": "test_vit"}, {"model_args": {"act_layer": "relu"}}):
        config.write_text(json.dumps(fields | changed))
        with pytest.raises(ModelError, match="a model that is not built here"):
            load_backbone(tmp_path)


def test_a_config_of_something_else_is_not_taken(tmp_path: Path) -> None:
    model = drawn(small())
    torch.save(model.state_dict(), tmp_path / "official.pth")
    (tmp_path / "config.json").write_text('{"model_type": "bert", "num_attention_heads": 8}')
    assert load_backbone(tmp_path / "official.pth").config == ViTConfig(128, 3, 2, grid=4)


def dinov3_state(dim: int = 64) -> dict[str, Tensor]:
    """Names of a DINOv3 backbone as its authors publish it: rotary embeddings, and no positions."""
    return {
        "cls_token": torch.zeros(1, 1, dim),
        "storage_tokens": torch.zeros(1, 4, dim),
        "mask_token": torch.zeros(1, dim),
        "rope_embed.periods": torch.ones(16),
        "patch_embed.proj.weight": torch.zeros(dim, 3, 8, 8),
        "blocks.0.attn.qkv.weight": torch.zeros(3 * dim, dim),
        "blocks.0.attn.qkv.bias_mask": torch.zeros(3 * dim),
    }


def test_rotary_embeddings_are_not_supported(tmp_path: Path) -> None:
    torch.save(dinov3_state(), tmp_path / "dinov3.pth")
    with pytest.raises(ModelError, match=r"rotary embeddings \(DINOv3\)") as caught:
        load_backbone(tmp_path / "dinov3.pth")
    assert "pos_embed" not in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        # Hugging Face's DINOv3ViTModel, in memory and on disk; timm's; and one of EVA.
        ["embeddings.cls_token", "model.layer.0.attention.q_proj.weight", "norm.weight"],
        ["embeddings.cls_token", "layer.11.attention.o_proj.weight", "norm.weight"],
        ["cls_token", "reg_token", "patch_embed.proj.weight", "blocks.0.gamma_1", "blocks.0.attn.qkv.weight"],
        ["pos_embed", "rope.freqs_cos", "blocks.0.attn.qkv.weight"],
    ],
)
def test_rotary_embeddings_are_known_under_any_names(tmp_path: Path, names: list[str]) -> None:
    save_file({name: torch.zeros(4) for name in names}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"otary embeddings \(DINOv3\) are not supported"):
        load_backbone(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (argparse.Namespace(lr=1.0), "argparse.Namespace"),
        (np.float64(0.1), "numpy._core.multiarray.scalar"),
        (PosixPath("/data"), "pathlib.PosixPath"),
        (defaultdict(list), "collections.defaultdict"),
        (ViTConfig(64, 1, 1), "pretrain.model.vit.ViTConfig"),
    ],
    ids=["arguments", "scalar", "path", "defaultdict", "class"],
)
@pytest.mark.parametrize("is_zipped", [True, False])
def test_a_checkpoint_with_python_objects_names_their_classes(
    tmp_path: Path, value: object, name: str, is_zipped: bool
) -> None:
    content = {"model": {"cls_token": torch.zeros(1, 1, 64)}, "args": value}
    file = tmp_path / "withargs.pth"
    torch.save(content, file, _use_new_zipfile_serialization=is_zipped)
    with pytest.raises(ModelError, match=re.escape(name)) as caught:
        load_backbone(file)
    text = str(caught.value)
    assert "\x1b" not in text
    assert "weights_only" not in text
    assert "\n" not in text


def test_a_pickle_of_another_version_is_read_for_its_names(tmp_path: Path) -> None:
    for protocol in range(2, 6):
        (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": argparse.Namespace()}, protocol=protocol))
        with pytest.raises(ModelError, match=r"argparse\.Namespace"):
            load_backbone(tmp_path / "plain.pth")


def test_a_pipe_is_no_weights(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(ModelError, match=r"Got: a pipe, a socket or a device.*Give a weights file"):
            find_weights(path)
