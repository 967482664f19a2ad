"""`~` and variables mean what they mean in a shell, in every path of every config, or are refused by name."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from curation.errors import ConfigError
from pipelines.config.path_text import EMBEDDERS, PATHS, STAGE_PATHS, expand_embedder, expand_path
from pipelines.config.paths import absolute
from pipelines.config.run_config import RunConfig, load_config, resolved_yaml
from pipelines.training.chain_config import ChainConfig
from pipelines.training.pretraining import load_pretraining, pretraining_of
from pretrain.config import PretrainConfig
from pretrain.distill_config import DistillConfig

DIGEST = "a" * 64


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data/$RAW")
    monkeypatch.setenv("BUCKET", "pictures")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOT_SET", raising=False)


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("~", "/home/me"),
        ("~/runs/x", "/home/me/runs/x"),
        ("~root/x", f"{os.path.expanduser('~root')}/x"),  # noqa: PTH111
        ("file://~/x", "file:///home/me/x"),
        ("file://localhost/x", "file:///x"),
        ("FILE:///x", "file:///x"),
        ("file:/x", "file:///x"),
        ("file:x", "file:x"),
        ("$DATA/x", "/data/$RAW/x"),  # a value is taken as it stands
        ("${DATA}x/$BUCKET", "/data/$RAWx/pictures"),
        ("s3://$BUCKET/{000..099}.tar", "s3://pictures/{000..099}.tar"),
        ("/a/$$DATA", "/a/$DATA"),
        ("/a/$folder$", None),
        ("/a/x$", "/a/x$"),
        ("/a/$1", "/a/$1"),
        ("/a/~/b", "/a/~/b"),
        ("./~", "./~"),
        ("a~", "a~"),
        ("", ""),
    ],
)
def test_a_path(path: str, expanded: str | None) -> None:
    if expanded is None:
        with pytest.raises(ConfigError, match=r"\$folder is not set"):
            expand_path(path, at="")
    else:
        assert expand_path(path, at="") == expanded


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("$NOT_SET/x", r"run_dir: \$NOT_SET is not set, or empty\. Got: \$NOT_SET/x.*\$\$"),
        ("/a/${NOT_SET}", r"\$NOT_SET is not set"),
        ("$EMPTY/x", r"\$EMPTY is not set, or empty"),
        ("${DATA:-x}", r"\$DATA:-x is not set"),
        ("~nobody-of-this-name/x", r"~nobody-of-this-name is nobody's home"),
    ],
)
def test_what_means_nothing_is_refused_by_name(path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_config("dedup_only.yaml", [f"run_dir={path}"])
    assert "dedup_only.yaml: run_dir: " in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "expanded"),
    [
        ("gist", "gist"),
        ("vit:~/run", "vit:/home/me/run"),
        ("timm:vit_small@$BUCKET.pth", "timm:vit_small@pictures.pth"),
        ("open_clip:ViT-B-32/~/b.pt", "open_clip:ViT-B-32//home/me/b.pt"),
        ("open_clip:ViT-B-32/laion2b", "open_clip:ViT-B-32/laion2b"),
        ("sscd:~/a.pt,whitening=$BUCKET/w.pt", "sscd:/home/me/a.pt,whitening=pictures/w.pt"),
        ("precomputed:s3://$BUCKET/e.parquet", "precomputed:s3://pictures/e.parquet"),
    ],
)  # fmt: skip
def test_an_embedder(spec: str, expanded: str) -> None:
    assert expand_embedder(spec, at="") == expanded


SETTINGS = f"""
run_dir: ~/run
root: ~/root
pools:
  web: {{role: uncurated, sources: [{{kind: urls, path: $BUCKET/l.txt, download: {{user_agent: "me (+https://me.example)",
    blocked_domains: [~/blocked.txt]}}}}, {{kind: folder, path: ~/pictures, links: {{within: ~/}}}}]}}
describe:
  embed: {{embedder: "open_clip:ViT-B-32/~/b.pt"}}
  descriptor: "sscd:~/a.pt@{DIGEST}"
  heads:
    embedder: "precomputed:~/e.parquet"
    nsfw: {{kind: weights, weights: "~/n.pt@{DIGEST}", form: linear}}
  faces: {{model: ~/faces.onnx}}
dedup: {{cosine_threshold: 0.9}}
pretrain:
  batch_images: 2
  schedule: {{iterations: 1}}
  run_dir: ~/vit
  data: {{path: ~/run, spool_dir: ~/spool}}
  model: {{weights: ~/w.pth}}
  probe: {{train: ~/train, test: ~/test}}
  sinks: [{{kind: tensorboard, dir: ~/board}}]
"""


def test_every_path_of_a_config(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(SETTINGS)
    config = load_config(str(file), [])
    text = resolved_yaml(config)
    assert "~" not in text
    assert "$" not in text
    file.write_text(text)
    assert load_config(str(file), []) == config
    assert [source.path for source in absolute(config).pools["web"].sources] == [
        "/home/me/root/pictures/l.txt",
        "/home/me/pictures",
    ]
    # As many as there are: the table of fields names none in vain.
    assert text.count("/home/me") == SETTINGS.count("~")
    assert len(PATHS) + len(EMBEDDERS) == 27  # data.mix takes the place of data.path, start that of weights
    training = pretraining_of(config)
    assert training.data.path == "/home/me/run"


def test_every_path_of_a_training(tmp_path: Path) -> None:
    file = tmp_path / "training.yaml"
    start = SETTINGS.index("  batch_images")
    file.write_text("\n".join(line[2:] for line in SETTINGS[start:].splitlines()))
    found = load_pretraining(str(file), ["data.path=$DATA"])
    assert found.probe is not None
    assert (found.run_dir, found.data.path) == ("/home/me/vit", "/data/$RAW")
    assert found.data.spool_dir == "/home/me/spool"
    assert (found.model.weights, found.probe.train, found.probe.test) == (
        "/home/me/w.pth",
        "/home/me/train",
        "/home/me/test",
    )
    mixed = load_pretraining(str(file), ["data.path=null", "data.mix=[{path: ~/a}, {path: $DATA}]"])
    assert [part.path for part in mixed.data.mix or ()] == ["/home/me/a", "/data/$RAW"]


# The other fields whose values are text.
NO_PATHS = (
    "name",
    "executor.address",
    "model.arch",
    "students.*.model.arch",
    *(f"{at}data.{name}" for at in ("", "pretrain.") for name in ("extensions.*", "mix.*.name")),
    *(f"pools.*.sources.*.{name}" for name in ("key_prefix", "sidecars.*", "image", "key", "columns.*")),
    *(f"pools.*.sources.*.{name}" for name in ("split", "url")),
    *(f"pools.*.sources.*.download.{name}" for name in ("user_agent", "allow_private.*")),
    *(f"describe.heads.*.{name}" for name in ("like.*", "unlike.*")),
    *(f"sinks.*.{name}" for name in ("tracking_uri", "experiment", "project", "entity", "space")),
)


def text_fields(kind: Any, at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The fields of text in a model, and in those in it; `*` is any name or number."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is str:
        yield at
    elif origin is None:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, field in kind.model_fields.items():
                yield from text_fields(field.annotation, (*at, name))
    elif origin is Annotated:
        yield from text_fields(inner[0], at)
    elif origin is not Literal:
        deeper = at if origin in (Union, UnionType) else (*at, "*")
        for one in inner[1:] if isinstance(origin, type) and issubclass(origin, Mapping) else inner:
            yield from text_fields(one, deeper)


@pytest.mark.parametrize("kind", [RunConfig, PretrainConfig, DistillConfig, ChainConfig])
def test_every_field_of_text_is_a_path_or_known_to_be_none(kind: type[BaseModel]) -> None:
    known = [field.split(".") for field in (*PATHS, *STAGE_PATHS, *EMBEDDERS, *NO_PATHS)]
    found = set(text_fields(kind, ()))
    assert len(found) > 3
    for field in found:
        same = [one for one in known if len(one) == len(field)]
        assert any(all(a in ("*", b) for a, b in zip(one, field, strict=True)) for one in same), field


def test_a_file_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a field: a file of another machine.*//elsewhere/x.*Mount"):
        expand_path("file://elsewhere/x", at="a field: ")


def test_a_bare_tilde_is_explained(tmp_path: Path) -> None:
    """YAML takes it for nothing."""
    file = tmp_path / "c.yaml"
    for text in ("~", ""):
        file.write_text(f"pools:\n  web: {{role: uncurated, sources: [{{kind: folder, path: {text}}}]}}\n")
        with pytest.raises(ConfigError, match=r"a bare ~ and an empty value.*in quotes"):
            load_config(str(file), [f"run_dir={tmp_path}/run"])
