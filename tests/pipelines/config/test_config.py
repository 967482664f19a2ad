"""Every mistake in a config is one paragraph: the file, the field, the value, and what is allowed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.errors import ConfigError
from pipelines.config.read import FOLDERS, MAX_CONFIG_BYTES, apply_override
from pipelines.config.run_config import load_config, resolved_yaml, validate

POOLS = {
    "trusted": {"role": "curated", "sources": [{"kind": "folder", "path": "/data/trusted"}]},
    "web": {"role": "uncurated", "sources": [{"kind": "tars", "path": "s3://bucket/web"}]},
}


def minimal(**fields: Any) -> dict[str, Any]:
    return yaml.safe_load(yaml.safe_dump({"run_dir": "/runs/x", "pools": POOLS} | fields))


def write(tmp_path: Path, data: object) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return str(path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("bogus=1", ["bogus: there is no such field", "decontaminate, dedup"]),
        ("dedup.phash_radios=1", ["dedup.phash_radios: there is no such field; did you mean phash_radius?"]),
        ("describe.embed.dtyp=fp32", ["describe.embed.dtyp", "did you mean dtype?"]),
        ("pools.web.sources.0.key_prefx=a", ["pools.web.sources.0.key_prefx", "did you mean key_prefix?"]),
        ("dedup.phash_radius=99", ["dedup.phash_radius", "less than or equal to 32", "got 99"]),
        ("seed=-1", ["seed", "greater than or equal to 0", "got -1"]),
        ("seed=much", ["seed", "valid integer", "got 'much'"]),
        ("name=../up", ["name", "pattern", "got '../up'"]),
        ("executor.kind=slurm", ["executor.kind", "'ray' or 'local'", "got 'slurm'"]),
        ("pools.web.role=evil", ["pools.web.role", "'curated', 'uncurated' or 'holdout'", "got 'evil'"]),
        ("pools.web.sources=[]", ["pools.web.sources", "at least 1 item"]),
        ("pools.web.sources.0.kind=zip", ["pools.web.sources.0", "'folder', 'tars'", "zip"]),
        ("pools.web.sources.0.path=http://x/y", ["pools.web.sources.0.path", "http://x/y", "s3://"]),
        ("pools.web.sources.0.path=zip::s3://b/x.zip", ["pools.web.sources.0.path", "zip::s3://b/x.zip"]),
        ("root=ftp://host", ["root", "ftp://host"]),
        ("run_dir=s3://bucket/run", ["run_dir", "s3://bucket/run", "all workers share"]),
        ("pools.web.retrieve.method=sample", ["pools.web", "for curated pools", "uncurated"]),
        ("pools.trusted.retrieve.method=magic", ["pools.trusted.retrieve", "'sample'", "magic"]),
        ("pretrain=3", ["pretrain", "valid dictionary", "got 3"]),
        ("pretrain={batch_images: 0}", ["pretrain.schedule is missing", "pretrain.batch_images", "got 0"]),
        ("pretrain.shedule.x=1", ["pretrain.shedule: there is no such field; did you mean schedule?"]),
        (
            "pretrain={batch_images: 2, schedule: {iterations: 1}, crops: {local_size_px: 96}}",
            ["pretrain: crops.local_size_px (96)", "model.patch_px (14)"],
        ),
        ("describe.embed.embedder=clip", ["describe.embed.embedder", "open_clip:ARCH"]),
        ("describe.descriptor=sscd", ["describe.descriptor", "gist"]),
        ("dedup.cosine_threshold=0.9", ["dedup.cosine_threshold (0.9)", "set describe.descriptor"]),
        (
            "decontaminate.cosine_threshold=0.9",
            ["decontaminate.cosine_threshold (0.9)", "set describe.descriptor"],
        ),
        (
            "pools.web.sources.0={path: /x}",
            [
                "pools.web.sources.0.kind is missing; "
                "it is one of folder, huggingface, parquet, tars, urls, warc"
            ],
        ),
        (
            "pools.trusted.retrieve={neighbours: 4}",
            ["pools.trusted.retrieve.method is missing; it is one of cluster, none, sample"],
        ),
        ("pools={}", ["pools", "at least 1 item"]),
        ("dedup=3", ["dedup", "valid dictionary", "got 3"]),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_is_allowed(
    tmp_path: Path, override: str, said: list[str]
) -> None:
    path = write(tmp_path, minimal())
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override])
    text = str(caught.value)
    for part in [path, *said]:
        assert part in text
    assert "\n" not in text
    assert "secret" not in text


def test_all_mistakes_are_told_at_once_and_missing_fields_too(tmp_path: Path) -> None:
    data = minimal(seed=-1, dedup={"phash_radius": 99})
    del data["pools"]["web"]["role"]
    with pytest.raises(ConfigError, match=r"pools\.web\.role is missing") as caught:
        load_config(write(tmp_path, data), [])
    assert "seed" in str(caught.value)
    assert "dedup.phash_radius" in str(caught.value)


def test_holdouts_alone_are_no_run(tmp_path: Path) -> None:
    data = minimal(pools={"test": POOLS["web"] | {"role": "holdout"}})
    with pytest.raises(ConfigError, match="every pool is a holdout"):
        load_config(write(tmp_path, data), [])


BOMB = "\n".join(["a: &a [x,x,x,x,x,x,x,x,x,x]", *(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 10)}]" for i in range(9)
)])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- just\n- a list", "mapping"),
        ("", "mapping"),
        ("a: [1, 2", "is not YAML"),
        ("a: \x00", "is not YAML"),
        ("a: !!python/object/apply:os.system ['echo pwned']", "is not YAML"),
        ("a: 2026-02-31", "no such field"),
        ("[" * 5000, "is not YAML"),
        ("name: " + "x" * MAX_CONFIG_BYTES, "too large"),
        (BOMB, "too many values"),
        ("a: &a\n  b: *a", "too many values"),
    ],
    ids=["list", "empty", "open", "nul", "object", "date", "deep", "large", "bomb", "ring"],
)
def test_what_is_no_config_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(path, [])
    assert path in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(str(tmp_path / "none.yaml"), [])
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(str(tmp_path / "bytes.yaml"), [])


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("dedup.phash_radius=4", ("dedup", "phash_radius"), 4),
        ("empty.phash_radius=4", ("empty", "phash_radius"), 4),  # `empty:` with nothing behind it
        ("new.deep.field=null", ("new", "deep", "field"), None),
        ("pools.web.sources.0.path=/a=b", ("pools", "web", "sources", 0, "path"), "/a=b"),
        ("pools.web.sources.1={path: /c}", ("pools", "web", "sources", 1, "path"), "/c"),
        ("name=''", ("name",), ""),
        ("dedup.phash_radius=null", ("dedup", "phash_radius"), None),
    ],
)
def test_set_reaches_any_field(override: str, path: tuple[Any, ...], value: object) -> None:
    data = minimal(empty=None)
    apply_override(data, override)
    here: Any = data
    for part in path:
        here = here[part]
    assert here == value


@pytest.mark.parametrize(
    "override",
    ["seed", "=3", "pools.web.sources.7.path=/x", "run_dir.x.y=1", "seed=[1", "pools.web.sources.x=1"],
)
def test_set_that_leads_nowhere(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        apply_override(minimal(), override)


@pytest.mark.parametrize("override", ["dedup.phash_radius=", "name=  ", "describe="])
def test_set_without_a_value_is_refused(override: str) -> None:
    data = minimal()
    field = override.partition("=")[0]
    with pytest.raises(ConfigError, match=f"--set {field} has no value.*--set {field}=null"):
        apply_override(data, override)
    assert data == minimal()


def test_the_resolved_config_loads_again(tmp_path: Path) -> None:
    config = validate(minimal(describe={"descriptor": "gist"}, dedup={"cosine_threshold": 0.9}), where="here")
    assert load_config(write(tmp_path, resolved_yaml(config)), []) == config


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/web",
        "s3://key:sec/secret@bucket/web",
        "az://container/web?sv=1&sig=secret",
        "gs://bucket/web?X-Goog-Signature=secret",
        "s3://bucket/web?AWSAccessKeyId=secret&Expires=1",
        "http:/u:secret@host/web.tar",
        "//u:secret@host/web",
        "http://host/web.tar?rlkey=secret",
        "simplecache::http://u:secret@host/web",
    ],
)
def test_credentials_are_no_part_of_a_path(tmp_path: Path, url: str) -> None:
    fields = {
        "pools.web.sources.0.path": url,
        "root": url,
        "describe.embed.embedder": f"precomputed:{url}.parquet",
        "pretrain.data.path": url,
    }
    training = {"batch_images": 2, "schedule": {"iterations": 1}}
    path = write(tmp_path, minimal(pretrain=training))
    with pytest.raises(ConfigError) as caught:
        load_config(path, [f"{name}={value}" for name, value in fields.items()])
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert "secret" not in text
    for name in fields:
        assert f"{name}: it carries credentials" in text


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("s3://key:secret@bucket/web", "AWS_ACCESS_KEY_ID"),
        ("s3a://key:secret@bucket/web", "AWS_ACCESS_KEY_ID"),
        ("gs://bucket/web?X-Goog-Signature=secret", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://container/web?sv=1&sig=secret", "AZURE_STORAGE_SAS_TOKEN"),
        ("abfs://u:secret@account/web", "AZURE_STORAGE_SAS_TOKEN"),
        ("https://host/web.tar?X-Amz-Signature=secret", "download what it names"),
        ("sftp://me:secret@host:22/web", "download what it names"),
    ],
)
def test_where_credentials_go_is_told_by_the_store(tmp_path: Path, url: str, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, minimal()), [f"pools.web.sources.0.path={url}"])
    text = str(caught.value)
    assert advice in text
    assert ("AWS_ACCESS_KEY_ID" in text) == url.startswith("s3")


def test_paths_with_a_port_carry_no_credentials(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scheme that is not read") as caught:
        load_config(write(tmp_path, minimal()), ["pools.web.sources.0.path=hdfs://namenode:8020/a@b/x.tar"])
    assert "credentials" not in str(caught.value)


def test_run_dir_has_a_default(tmp_path: Path) -> None:
    data = minimal(name="cats")
    del data["run_dir"]
    assert load_config(write(tmp_path, data), []).run_dir == "runs/cats"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDERS[0].glob("*.yaml")))
def test_configs_that_come_with_lvd_are_valid(name: str) -> None:
    config = load_config(name, ["root=/data"])
    assert resolved_yaml(config)


TWICE = """\
name: twice
pools:
  web: {role: uncurated, sources: [{kind: folder, path: a}]}
  web: {role: uncurated, sources: [{kind: folder, path: b}]}
judge: {min_side_px: 100}
dedup: {phash_radius: 2}
judge: {min_pixel_std: 2.0}
"""


def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, TWICE), [])
    text = str(caught.value)
    assert "pools.web stands twice, in lines 3 and 4" in text
    assert "judge stands twice, in lines 5 and 7" in text
    assert caught.value.exit_code == 2


def test_a_tilde_in_a_path_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load_config(write(tmp_path, minimal(run_dir="~/runs/x")), []).run_dir == "/home/somebody/runs/x"


def test_the_resolved_config_names_the_same_azure_container(tmp_path: Path) -> None:
    url = "abfs://data@account.dfs.core.windows.net/web"
    config = load_config(write(tmp_path, minimal()), [f"pools.web.sources.0.path={url}"])
    assert load_config(write(tmp_path, resolved_yaml(config)), []) == config
