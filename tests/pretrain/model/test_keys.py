"""Names of the other libraries, by hand and against modules built as the official code builds them."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from drawn_vit import drawn, small
from torch import Tensor, nn

from curation.errors import ModelError
from pretrain.model.keys import check_fit, detect, expected_shapes, infer_config, to_official
from pretrain.model.keys_huggingface import from_huggingface, huggingface_config, to_huggingface
from pretrain.model.keys_official import flatten
from pretrain.model.keys_timm import from_timm, read_timm_config, timm_config, to_timm
from pretrain.model.vit import ViTConfig, variant, with_registers

KINDS = [("mlp", 0), ("mlp", 4), ("swiglu", 0), ("swiglu", 4)]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}reg")
def config(request: pytest.FixtureRequest) -> ViTConfig:
    ffn, registers = request.param
    return small(ffn=ffn, registers=registers)


@pytest.fixture
def state(config: ViTConfig) -> dict[str, Tensor]:
    return dict(drawn(config).state_dict())


def assert_same(made: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert made.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(made[name], tensor), name


def test_official_names_stay(state: dict[str, Tensor], config: ViTConfig) -> None:
    converted = to_official(state)
    assert converted.library == "official"
    assert converted.filled == ()
    assert_same(converted.state, state)
    assert infer_config(state) == config


def test_what_training_wraps_names_in(state: dict[str, Tensor]) -> None:
    trained = {f"backbone.{name}": tensor for name, tensor in state.items()}
    trained |= {"dino_head.mlp.0.weight": torch.ones(1), "ibot_head.last_layer.weight_g": torch.ones(1)}
    other = {name: tensor + 1 for name, tensor in trained.items()}
    both = {f"teacher.{name}": tensor for name, tensor in trained.items()}
    both |= {f"student.{name}": tensor for name, tensor in other.items()}
    sharded = {name.replace("backbone.", "backbone._fsdp_wrapped_module."): t for name, t in trained.items()}
    contents = [
        trained,
        {"teacher": trained},
        {"teacher": trained, "student": other, "epoch": 3},
        {"student": trained},
        {"model": both | {"dino_loss.center": torch.ones(1)}, "iteration": 7},
        {"state_dict": state},
        {f"module.{name}": tensor for name, tensor in state.items()},
        {f"student.module.{name}": tensor for name, tensor in sharded.items()},
        {f"_orig_mod.{name}": tensor for name, tensor in trained.items()},
        state | {"head.weight": torch.ones(1)},
    ]
    for content in contents:
        assert detect(content) == "official"
        assert_same(to_official(content).state, state)


@pytest.mark.parametrize("num_chunks", [1, 2, 4])
def test_chunks_as_the_official_code_makes_them(num_chunks: int) -> None:
    """dinov2/models/vision_transformer.py: `[nn.Identity()] * i + blocks_list[i : i + chunksize]`."""
    model = drawn(ViTConfig(64, 4, 1, grid=2))
    state = dict(model.state_dict())
    blocks, size = list(model.blocks), 4 // num_chunks
    chunks = [
        nn.ModuleList([*[nn.Identity()] * first, *blocks[first : first + size]])
        for first in range(0, 4, size)
    ]
    chunked = {name: tensor for name, tensor in state.items() if not name.startswith("blocks.")}
    chunked |= {f"blocks.{name}": tensor for name, tensor in nn.ModuleList(chunks).state_dict().items()}
    assert f"blocks.{num_chunks - 1}.3.ls1.gamma" in chunked
    assert_same(to_official(chunked).state, state)
    assert_same(to_official({"teacher": {f"backbone.{n}": t for n, t in chunked.items()}}).state, state)


def test_two_tensors_of_one_name_are_refused() -> None:
    numbered_anew = {f"blocks.{chunk}.0.ls1.gamma": torch.ones(2) for chunk in range(2)}
    with pytest.raises(ModelError, match=r"both blocks\.0\.ls1\.gamma"):
        to_official(numbered_anew)


def test_other_things_than_tensors_are_refused() -> None:
    for content in ({"arch": "vit"}, {0: torch.ones(1)}, {"optimizer": {"state": {}}}):
        with pytest.raises(ModelError, match="something else than tensors"):
            flatten(content)
    for content in ({}, {"layer1.0.conv1.weight": torch.ones(1)}, {"teacher": {}}):
        with pytest.raises(ModelError, match="No vision transformer of a known library"):
            detect(content)


def test_huggingface_names_by_hand() -> None:
    rows = torch.arange(12.0).view(6, 2)
    theirs = {
        "encoder.layer.3.attention.attention.query.weight": rows[:2],
        "encoder.layer.3.attention.attention.key.weight": rows[2:4],
        "encoder.layer.3.attention.attention.value.weight": rows[4:],
        "encoder.layer.3.attention.output.dense.bias": torch.ones(2),
        "encoder.layer.3.layer_scale2.lambda1": torch.ones(2) * 2,
        "encoder.layer.3.mlp.weights_in.bias": torch.ones(2) * 3,
        "embeddings.position_embeddings": torch.ones(2) * 4,
        "layernorm.weight": torch.ones(2) * 5,
    }
    ours = {
        "blocks.3.attn.qkv.weight": rows,
        "blocks.3.attn.proj.bias": torch.ones(2),
        "blocks.3.ls2.gamma": torch.ones(2) * 2,
        "blocks.3.mlp.w12.bias": torch.ones(2) * 3,
        "pos_embed": torch.ones(2) * 4,
        "norm.weight": torch.ones(2) * 5,
    }
    assert_same(from_huggingface(theirs), ours)
    assert_same(to_huggingface(ours), theirs)
    for prefix in ("dinov2.", "dinov2_with_registers."):
        classifier = {prefix + name: tensor for name, tensor in theirs.items()}
        assert_same(to_official(classifier | {"classifier.weight": torch.ones(1)}).state, ours)


def test_huggingface_and_back(state: dict[str, Tensor]) -> None:
    converted = to_official(to_huggingface(state))
    assert converted.library == "huggingface"
    assert converted.filled == ()
    assert_same(converted.state, state)


def test_a_third_of_the_attention_is_not_enough(state: dict[str, Tensor], config: ViTConfig) -> None:
    theirs = to_huggingface(state)
    del theirs["encoder.layer.1.attention.attention.key.bias"]
    with pytest.raises(ModelError, match=r"1 missing: blocks\.1\.attn\.qkv\.bias;.*query\.bias"):
        check_fit(to_official(theirs).state, config)


def test_timm_and_back(state: dict[str, Tensor], config: ViTConfig) -> None:
    theirs = to_timm(state)
    assert detect(theirs) == "timm"
    converted = to_official(theirs)
    assert converted.filled == ("mask_token",)
    expected = state | {"mask_token": torch.zeros(1, config.dim)}
    if config.registers:  # the class token keeps the position that timm has added to it
        assert not converted.state["pos_embed"][:, 0].any()
        expected["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        expected["pos_embed"] = state["pos_embed"].clone()
        expected["pos_embed"][:, 0] = 0
    assert_same(converted.state, expected)
    assert infer_config(converted.state) == config
    assert_same(to_timm(converted.state), theirs)


def test_timm_positions_of_registers_go_into_the_registers() -> None:
    positions = torch.arange(7.0).view(1, 7, 1)  # class token, two registers, 2 × 2 patches
    theirs = {"cls_token": torch.ones(1, 1, 1), "reg_token": torch.ones(1, 2, 1), "pos_embed": positions}
    made, _ = from_timm(theirs)
    assert made["cls_token"].flatten().tolist() == [1]
    assert made["register_tokens"].flatten().tolist() == [2, 3]
    assert made["pos_embed"].flatten().tolist() == [0, 3, 4, 5, 6]


def test_an_official_model_without_its_mask_token_is_no_timm_model() -> None:
    config = small()
    state = dict(drawn(config).state_dict())
    del state["mask_token"]
    assert detect(state) == "timm"
    trained = {"teacher": {f"backbone.{name}": tensor for name, tensor in state.items()}}
    assert detect(trained) == "official"
    with pytest.raises(ModelError, match="1 missing: mask_token"):
        check_fit(to_official(trained).state, config)


@pytest.mark.parametrize("arch", ["vit_tiny", "vit_small", "vit_base", "vit_large", "vit_giant"])
@pytest.mark.parametrize("registers", [0, 4])
def test_shapes_tell_every_released_config(arch: str, registers: int) -> None:
    config = variant(arch)  # type: ignore[arg-type]
    config = with_registers(config, registers) if registers else config
    empty = {name: torch.empty(shape, device="meta") for name, shape in expected_shapes(config).items()}
    assert infer_config(empty) == config
    assert infer_config(empty, num_heads=1).num_heads == 1


def test_heads_that_do_not_divide_the_width() -> None:
    state = dict(drawn(small(dim=96, num_heads=3)).state_dict())
    assert infer_config(state, num_heads=3).num_heads == 3
    for num_heads in (None, 5, 0):
        with pytest.raises(ModelError, match="how many attention heads share 96 channels"):
            infer_config(state, num_heads=num_heads)


def test_missing_tensors_are_named_even_where_the_shape_hangs_on_them(state: dict[str, Tensor]) -> None:
    for name in ("pos_embed", "norm.bias", "blocks.1.ls2.gamma"):
        del state[name]
    with pytest.raises(ModelError, match=r"3 missing: pos_embed, blocks\.1\.ls2\.gamma, norm\.bias\."):
        infer_config(state)


def test_a_tensor_with_other_axes_is_named(state: dict[str, Tensor], config: ViTConfig) -> None:
    flat = state | {"patch_embed.proj.weight": torch.ones(128, 588)}
    with pytest.raises(ModelError, match=r"patch_embed\.proj\.weight \(128, 588\) float32"):
        infer_config(flat)
    whole = state | {"norm.weight": torch.ones(128, dtype=torch.int8)}
    with pytest.raises(ModelError, match=r"1 of another shape: norm\.weight \(128,\) int8 for \(128,\)"):
        check_fit(whole, config)


def test_a_long_list_is_cut_and_counted() -> None:
    config = replace(small(registers=4), depth=4)
    assert len(expected_shapes(config)) == 64
    with pytest.raises(ModelError, match=r"64 missing: cls_token, .*, blocks\.3\.norm1\.bias and 14 more\."):
        check_fit({}, config)


def test_timm_configs_name_the_standard_architectures() -> None:
    names = {
        "vit_small": "vit_small_patch14_dinov2",
        "vit_base": "vit_base_patch14_dinov2",
        "vit_large": "vit_large_patch14_dinov2",
        "vit_giant": "vit_giant_patch14_dinov2",
    }
    for arch, name in names.items():
        config = variant(arch)  # type: ignore[arg-type]
        assert timm_config(config)["architecture"] == name
        assert read_timm_config(timm_config(config)) == (config.num_heads, config.depth)
        assert read_timm_config({"architecture": f"{name}.lvd142m"}) == (config.num_heads, config.depth)
        assert timm_config(with_registers(config))["architecture"] == name.replace("_dinov2", "_reg4_dinov2")


def test_timm_reaches_the_packed_width_of_every_dim() -> None:
    for dim in range(8, 2049, 8):
        ratio = timm_config(ViTConfig(dim, 1, 1, ffn="swiglu"))["model_args"]["mlp_ratio"]
        assert int(dim * ratio) == 2 * ((int(4 * dim * 2 / 3) + 7) // 8 * 8)


def test_huggingface_config_says_what_the_tensors_say(config: ViTConfig) -> None:
    fields = huggingface_config(config)
    assert fields["image_size"] == 56
    assert fields["use_swiglu_ffn"] is (config.ffn == "swiglu")
    assert fields.get("num_register_tokens", 0) == config.registers
