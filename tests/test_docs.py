"""The documents are true: what a page shows parses and validates, and what it names is there."""

import argparse
import ast
import importlib.util
import re
import shlex
import sys
import tomllib
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import curation
import pipelines
from curation import schema
from pipelines.cli.main import build_parser
from pipelines.config.run_config import validate
from pipelines.words import MEANING
from pretrain.distill_config import DistillConfig

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"
PACKAGES = ("curation", "pipelines", "pretrain", "tests")
MAX_README_LINES = 150
ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PAGES = sorted([*ROOT_PAGES, *(f"docs/{path.name}" for path in DOCS.glob("*.md"))])
TEMPLATES = sorted(str(path.relative_to(REPO)) for path in (REPO / ".github").rglob("*.md"))
REFERENCE = "docs/config.md"  # made from the models: its names are fields
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
# Words that the pages use and the code has no place for; those of the code stand in `curation.schema`.
WORDS = (
    "unit", "item", "block", "group", "bucket", "wave", "generation", "marker", "part", "pool", "edge",
    "shard", "receipt", "identity", "step", "settings", "task", "gist", "RankMe", "k-means", "FSDP",
)  # fmt: skip


def text_of(page: str) -> str:
    return (REPO / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(text_of(page)) if language in languages]


def inline(page: str) -> list[str]:
    """What stands in backticks within the text of a page."""
    return INLINE.findall(BLOCK.sub("", text_of(page)))


def commands(page: str) -> list[str]:
    lines = "\n".join(blocks(page, "", "sh", "console")).replace("\\\n", " ").splitlines()
    stripped = (line.strip().removeprefix("$ ") for line in lines)
    return [line for line in stripped if line.startswith("lvd ")]


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The commands of lvd."""
    (found,) = (a.choices for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(command: str, parser: argparse.ArgumentParser, *, where: str) -> None:
    try:
        parser.parse_args(shlex.split(command, comments=True)[1:])
    except SystemExit as error:
        if error.code:
            pytest.fail(f"{where} shows a command that does not parse: {command}")


@cache
def names_in(file: Path) -> frozenset[str]:
    """What a module defines, `Class.member` too."""
    found: set[str] = set()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            match node:
                case ast.FunctionDef(name=name):
                    found.add(prefix + name)
                case ast.ClassDef(name=name, body=inner):
                    found.add(prefix + name)
                    walk(inner, f"{prefix}{name}.")
                case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=names)):
                    found.update(str(name.value) for name in names if isinstance(name, ast.Constant))
                case ast.Assign(targets=targets):
                    found.update(prefix + one.id for one in targets if isinstance(one, ast.Name))
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(prefix + name)

    walk(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return frozenset(found)


def is_defined(dotted: str) -> bool:
    """Whether a dotted name is a module, or what one defines."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = REPO.joinpath(*parts[:length])
        rest = ".".join(parts[length:])
        if (file := path.with_suffix(".py")).is_file():
            return not rest or rest in names_in(file)
        if path.is_dir():
            return not rest or rest in names_in(path / "__init__.py")
    return False


@cache
def fields() -> frozenset[str]:
    """The fields of a config, and those of a training's without `pretrain.` or `distill.`, by their paths."""
    found: set[str] = set()
    for section in re.split(r"^## ", text_of(REFERENCE), flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0]
        path = "" if heading == "The config" else heading.split("`")[1] + "."
        found.update(path + name for name in re.findall(r"^\| `([\w]+)` \|", section, re.MULTILINE))
    return frozenset(found | {re.sub(r"^(pretrain|distill)\.", "", name) for name in found})


def slugs(page: str) -> set[str]:
    """The anchors of a page's headings."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", BLOCK.sub("", text_of(page)), re.MULTILINE):
        plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return found


def rows_of_tables(page: str) -> Iterator[list[str]]:
    """The cells of the tables of a page."""
    for line in BLOCK.sub("", text_of(page)).splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_config_reference_is_current() -> None:
    made = load(DOCS / "make_config_reference.py").reference()
    assert made == text_of(REFERENCE), f"run {Path(sys.executable).name} docs/make_config_reference.py"


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("page", PAGES)
def test_every_command_parses(page: str) -> None:
    parser = build_parser()
    for command in commands(page):
        parse(command, parser, where=page)


def test_commands_are_found() -> None:
    assert len(commands("README.md")) >= 4
    assert sum(len(commands(page)) for page in PAGES) >= 25


def test_every_command_of_lvd_is_on_some_page() -> None:
    shown = {command.split()[1] for page in PAGES for command in commands(page)}
    assert set(parsers()) <= shown


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_are_there(page: str) -> None:
    known = parsers()
    for code in inline(page):
        if re.match(r"lvd [a-z]", code):
            name, *words = code.split()[1:]
            assert name in known, code
            flags = {flag for action in known[name]._actions for flag in action.option_strings}
            asked = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert asked <= flags, code


@pytest.mark.parametrize("page", [*PAGES, *TEMPLATES])
def test_every_target_of_make_is_there(page: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE))
    asked = re.findall(r"(?:^ {4}|`)make ([\w-]+)", text_of(page), re.MULTILINE)
    assert set(asked) <= targets


def test_every_config_is_valid() -> None:
    whole = [(page, block) for page in PAGES for block in blocks(page, "yaml") if "pools:" in block]
    assert whole
    for page, block in whole:
        validate(yaml.safe_load(block), where=page)


def test_every_fragment_is_valid() -> None:
    whole = (block for page in PAGES for block in blocks(page, "yaml") if "pools:" in block)
    first = yaml.safe_load(next(whole))
    for page in PAGES:
        for block in blocks(page, "yaml"):
            fragment = yaml.safe_load(block)
            if "students" in fragment:
                DistillConfig.model_validate(
                    {"batch_images": 1, "teacher": {"path": "x"}, "schedule": {"iterations": 1}, **fragment}
                )
            else:
                validate({**first, **fragment}, where=page)


@pytest.mark.parametrize("page", PAGES)
def test_every_piece_of_python_compiles_and_imports_what_is_there(page: str) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                for name in node.names:
                    assert is_defined(f"{node.module}.{name.name}"), f"{node.module}.{name.name}"


@pytest.mark.parametrize("page", [*PAGES, *TEMPLATES])
def test_every_path_is_there(page: str) -> None:
    """Those that begin with a folder of the repository, and modules named without one."""
    top = {path.name for path in REPO.iterdir() if path.is_dir()} - {"runs", "site"}
    modules = {path.name for package in (*PACKAGES, "docs") for path in (REPO / package).rglob("*.py")}
    for code in inline(page):
        for word in code.split():
            if "/" in word and word.split("/")[0] in top:
                assert any(REPO.glob(word.rstrip("/"))), f"{page}: {word}"
            elif re.fullmatch(r"\w+\.py", word):
                assert word in modules, f"{page}: {word}"
            elif re.fullmatch(r"\.\./\S+", word):
                assert word.startswith("../shared/"), f"{page}: {word}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != REFERENCE])
def test_every_module_and_every_field_is_there(page: str) -> None:
    sections = {name.split(".")[0] for name in fields()}
    for code in inline(page):
        name = code.split(":")[0].split("=")[0].strip()
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", name) or name.endswith((".py", ".yaml", ".md", ".json")):
            continue
        first = name.split(".")[0]
        if first in PACKAGES:
            assert is_defined(name) or name in fields(), f"{page}: {name}"
        elif first in sections:
            assert name in fields(), f"{page}: {name}"


@pytest.mark.parametrize("page", PAGES)
def test_functions_stand_in_the_file_that_is_named_before_them(page: str) -> None:
    """In a table with a column of files and one of their functions."""
    for cells in rows_of_tables(page):
        file = re.fullmatch(r"`(\S+\.py)`", cells[0])
        names = [INLINE.fullmatch(cell.strip()) for cell in cells[1].split(",")] if len(cells) > 2 else []
        if file and names and all(names):
            found = {name[1] for name in names if name}
            assert found <= names_in(REPO / file[1]), f"{page}: {file[1]}"


def test_every_folder_has_a_line_that_says_what_to_change_there() -> None:
    told = {
        path.rstrip("/")
        for cells in rows_of_tables("docs/architecture.md")
        for path in INLINE.findall(cells[0])
    }
    folders = {
        path.parent.relative_to(REPO)
        for package in ("curation", "pipelines", "pretrain")
        for path in (REPO / package).rglob("*.*")
        if path.suffix in (".py", ".yaml")
    }
    within = [folder for folder in folders if len(folder.parts) > 1]
    assert len(within) > 20
    assert sorted(str(folder) for folder in within if str(folder) not in told) == []


def test_every_entry_of_the_api_is_there() -> None:
    entries = re.findall(r"^::: (\S+)$", text_of("docs/api.md"), re.MULTILINE)
    assert len(entries) > 20
    assert [name for name in entries if not is_defined(name)] == []
    faces = {f"{face.__name__}.{name}" for face in (curation, pipelines) for name in face.__all__}
    assert faces <= set(entries)


@pytest.mark.parametrize("page", [*PAGES, *TEMPLATES])
def test_every_link_leads_somewhere(page: str) -> None:
    folder = (REPO / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text_of(page))):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (folder / path).resolve() if path else REPO / page
        assert there.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in slugs(str(there.relative_to(REPO))), f"{page}: {target}"


def test_every_page_is_in_the_site_and_in_the_readme() -> None:
    listed = re.findall(r"^ +- (?:\w+: )?([\w-]+\.md)$", text_of("mkdocs.yml"), re.MULTILINE)
    pages = {path.name for path in DOCS.glob("*.md")}
    assert sorted(listed) == sorted(pages)
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", text_of("README.md")))
    assert linked == pages - {"index.md"}


def test_the_site_asks_no_other_server() -> None:
    """What its theme would load from elsewhere is off, and nothing is added."""
    site = yaml.safe_load(text_of("mkdocs.yml"))
    assert site["theme"]["font"] is False
    assert not {"extra_javascript", "repo_url"} & set(site)  # a repository is asked for its stars
    assert all((DOCS / sheet).is_file() for sheet in site["extra_css"])
    assert not [page for page in PAGES if blocks(page, "mermaid")]


def test_the_glossary_has_every_word() -> None:
    of_code = re.findall(r"^([a-z][\w ]*?) {2,}\S", schema.__doc__ or "", re.MULTILINE)
    assert len(of_code) > 10
    there = {word.strip(" `") for cells in rows_of_tables("docs/glossary.md") for word in cells[0].split(",")}
    assert {*WORDS, *of_code} - there == set()


def test_every_reason_is_told() -> None:
    tables = rows_of_tables("docs/decisions.md")
    told = [cells for cells in tables if len(cells) == 3 and cells[0] in schema.STAGES]
    assert told == [[stage, f"`{r}`", MEANING[r]] for stage in schema.STAGES for r in schema.REASONS[stage]]


def test_every_extra_is_told() -> None:
    extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
    told = {word for cells in rows_of_tables("README.md") for word in INLINE.findall(cells[0])}
    assert set(extras) <= told


def test_every_file_of_infra_parses() -> None:
    documents = list(yaml.safe_load_all((REPO / "infra" / "kuberay.yaml").read_text(encoding="utf-8")))
    config_map, job = documents
    validate(yaml.safe_load(config_map["data"]["curate.yaml"]), where="infra/kuberay.yaml")
    parse(job["spec"]["entrypoint"], build_parser(), where="infra/kuberay.yaml")
    constraints = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={job['spec']['rayClusterSpec']['rayVersion']}" in constraints
