"""YAML as people mean it: every key once, keys are text, numbers are numbers and words are words."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import ConfigError
from pipelines.config.read import apply_override, read_yaml
from pipelines.config.run_config import load_config
from pipelines.config.strict_yaml import dump_yaml, parse_yaml
from pipelines.plan.rates import read_rates
from pipelines.training.pretraining import load_pretraining


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", ["a stands twice, in lines 1 and 3"]),
        ("{a: 1, b: {c: 1, c: 2}}", ["b.c stands twice, in line 1"]),
        ("a:\n- {x: 1}\n- x: 1\n  y: 2\n  'x': 3", ["a.1.x stands twice, in lines 3 and 5"]),
        ("1: a\n'1': b", ["1 stands twice"]),  # keys are text
        ("a: 1\na: 2\na: 3", ["lines 1 and 2", "lines 1 and 3"]),
        ("x: &x {k: 1, k: 2}\ny: *x", ["x.k stands twice, in line 1"]),
        ("x: &x {k: 1}\ny: {<<: *x, k: 2, k: 3}", ["y.k stands twice, in line 2"]),
        ("x: &x {k: 1}\ny:\n  <<: *x\n  <<: *x", ["y.<< stands twice, in lines 3 and 4"]),
    ],
)
def test_a_key_stands_once(text: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, where="here.yaml")
    for part in ["here.yaml: the key ", *said]:
        assert part in str(caught.value)


def test_merged_keys_may_be_said_again() -> None:
    text = "base: &base {k: 1, l: 2}\nother: {<<: *base, k: 3}\nboth: {<<: [*base, {l: 9, m: 4}]}"
    data = parse_yaml(text, where="here")
    assert data["other"] == {"k": 3, "l": 2}
    assert data["both"] == {"k": 1, "l": 2, "m": 4}


def test_what_an_alias_stands_for_is_set_at_one_place_alone() -> None:
    data = parse_yaml("a: &rule {k: 1}\nb: *rule", where="here")
    apply_override(data, "a.k=2")
    assert data == {"a": {"k": 2}, "b": {"k": 1}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1e6),
        ("1E+6", 1e6),
        ("-1.5e3", -1500.0),
        ("1.0e6", 1e6),
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("1_000", 1000),
        ("12", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("-.inf", float("-inf")),
        ("true", True),
        ("null", None),
        ("~", None),
        # What YAML 1.1 would make numbers, dates and switches of.
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("On", "On"),
        ("=", "="),
        ("1e6x", "1e6x"),
        ("'1e6'", "1e6"),
    ],
)
def test_what_text_without_quotes_stands_for(text: str, value: object) -> None:
    found = parse_yaml(f"a: {text}", where="here")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("key", ["no", "on", "null", "1e3", "010", "2024-01-01", "="])
def test_keys_are_text(key: str) -> None:
    assert parse_yaml(f"{key}: 1", where="here") == {key: 1}


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.from_regex(r"[-+~.]?[0-9_]{1,4}[.:eExo-]?[-+]?[0-9]{0,4}", fullmatch=True)
    | st.sampled_from(["no", "On", "y", "~", "<<", "=", "1e6", "010", "true", "null", ".inf", "1:30"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_written_reads_back(data: Any) -> None:
    text = dump_yaml(data)
    assert parse_yaml(text, where="here") == data
    assert parse_yaml(text.encode(), where="here") == data


@given(st.text(max_size=6) | st.sampled_from(["1e6", "no", "010", "0o7", "1:30", "<<", "="]))
def test_other_readers_take_our_text_for_text(text: str) -> None:
    assert yaml.safe_load(dump_yaml({"a": text})) == {"a": text}


def test_a_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("name: x\npath: a: b\n")
    with pytest.raises(ConfigError, match=r"config\.yaml, line 2, column 8: this is not YAML") as caught:
        read_yaml(file)
    assert "byte string" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"--set judge\.x, line 1, column 3: this is not YAML"):
        apply_override({}, "judge.x=[1")


def bomb(link: str) -> str:
    """Eight mappings, each of which stands for ten times the one before it."""
    text = "x0: &x0 {" + ", ".join(f"k{i}: 1" for i in range(10)) + "}\n"
    for number in range(1, 9):
        aliases = ", ".join([f"*x{number - 1}"] * 10)
        text += f"x{number}: &x{number} " + link.format(aliases) + "\n"
    return text


@pytest.mark.parametrize("link", ["{{<<: [{}]}}", "[{}]", "{{k: [{}], l: 2}}", "{{<<: [{}], k0: 2}}"])
def test_what_stands_for_too_many_values_is_refused_before_they_are_made(link: str) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError, match="here stands for too many values"):
        parse_yaml(bomb(link), where="here")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("text", ["a: &a [1, *a]", "a: &a {b: *a}", "a: &a {<<: *a}"])
def test_what_stands_in_itself_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="stands for too many values"):
        parse_yaml(text, where="here")


def test_as_many_values_as_may_be_are_read() -> None:
    data = parse_yaml("a: &a [" + "1, " * 999 + "]\nb: [" + "*a, " * 90 + "]", where="here")
    assert len(data["b"]) == 90


def test_doubles_are_told_in_the_order_of_the_text() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml("a: {x: 1, x: 2}\nb: 1\nc:\n- {y: 1, y: 2}\nb: 2\nd: {z: 1, z: 2}", where="here")
    said = str(caught.value)
    assert sorted(said.index(f"{key} stands") for key in ("a.x", "c.0.y", " b", "d.z")) == [
        said.index(f"{key} stands") for key in ("a.x", "c.0.y", " b", "d.z")
    ]


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("a: 1\n---\nb: 2", "Keep one document"),
        ("a: !!python/object/apply:os.system [x]", "Remove the tag"),
        ("a: !env HOME", "Remove the tag"),
        ("a: !x!y 1", "Remove the tag"),
        ("a: *.tar", "Put text that begins with `*` in quotes"),
        ("a: &.", "begins with `&` in quotes"),
        ("a: *base", "Write &NAME where the value first stands"),
        ("? [a, b]\n: 1", "Write the key as text"),
        ("path: {{folder}}", "Write the key as text"),
        ("a: {<<: 3}", "After `<<:` name"),
        ("name: caf\xe9".encode("latin-1"), "Save the file as UTF-8"),
        (b"name: a\x00b", "Remove the character"),
        ("a: [1", "close every bracket"),
        ("a: b: c", "put a value with `: `"),
    ],
)
def test_the_remedy_fits(text: str | bytes, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, where="here")
    assert remedy in str(caught.value)
    assert ("close every bracket" in str(caught.value)) == (text in ("a: [1", "a: b: c"))


def test_every_file_of_settings_is_read_so(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("kind: GPU\nrates: {}\nkind: CPU\n")
    with pytest.raises(ConfigError, match="kind stands twice, in lines 1 and 3"):
        read_rates(str(file))
    file.write_text("kind: GPU\nrates: {}\nimages: {no: 1.2e9}\n")
    assert read_rates(str(file)).images == {"no": 1_200_000_000}
    file.write_text("batch_images: 4\nschedule: {iterations: 2, iterations: 3}\n")
    with pytest.raises(ConfigError, match=r"schedule\.iterations stands twice"):
        load_pretraining(str(file), [])
    with pytest.raises(ConfigError, match=r"--set judge: the key min_side_px stands twice"):
        load_config("dedup_only.yaml", ["judge={min_side_px: 1, min_side_px: 2}"])


def test_whole_numbers_may_be_written_as_plan_takes_them() -> None:
    config = load_config("dedup_only.yaml", ["ingest.part_rows=1e4", "judge.min_side_px=1.28e2"])
    assert (config.ingest.part_rows, config.judge.min_side_px) == (10_000, 128)
    with pytest.raises(ConfigError, match=r"ingest\.part_rows.*1\.5"):
        load_config("dedup_only.yaml", ["ingest.part_rows=1.5"])
    with pytest.raises(ConfigError, match=r"name: text is expected \(got 1000000\.0\); put it in quotes"):
        load_config("dedup_only.yaml", ["name=1e6"])
    assert load_config("dedup_only.yaml", ["name='1e6'"]).name == "1e6"
