"""The layers of the design, held by walking the syntax trees: an import goes downwards only."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGES = ("curation", "pipelines", "pretrain")
MAX_LINES = 400
VAGUE = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc", "core"}
# Stages that know nothing of one another; `search` and `pictures` are libraries for all of them.
STAGES = {"ingest", "describe", "dedup", "cluster", "retrieve", "select", "shard"}
PURE = {"pictures", "describe", "search", "dedup", "cluster", "retrieve", "select", "vectors"}
# What runs, from the top down: a module imports of its own folder, and of those after it.
FLOORS = (
    "cli", "demo", "run", "report", "answers", "plan", "lvd", "training", "stages", "config", "rows",
    "models", "engine", "words",
)  # fmt: skip
STAGE_FLOORS = ("shard", "retrieve", "cluster", "copies", "ingest", "describe", "forecast")
# What touches the world: files, the environment, clocks, processes, networks, logs, other machines.
IMPURE = {
    "os", "pathlib", "shutil", "tempfile", "glob", "time", "datetime", "logging", "subprocess", "socket",
    "multiprocessing", "urllib", "requests", "random", "fsspec", "ray", "rich", "yaml", "open_clip", "timm",
    "curation.storage", "curation.ranges", "curation.ingest", "curation.shard", "pipelines", "pretrain",
    "curation.disk_errors", "curation.local_files", "curation.local_reads", "curation.orphans",
}  # fmt: skip

DEFINITIONS = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.If,
)  # fmt: skip


def modules() -> list[str]:
    """Every module of the packages, by its dotted name."""
    files = (path.relative_to(REPO) for package in PACKAGES for path in (REPO / package).rglob("*.py"))
    return sorted(".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files)


def file_of(module: str) -> Path:
    path = REPO / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module: str) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it, `from a import b` as `a.b`."""
    for node in ast.walk(ast.parse(file_of(module).read_text())):
        match node:
            case ast.Import():
                yield from (name.name for name in node.names)
            case ast.ImportFrom():
                assert node.level == 0, f"{module}: relative import"
                yield from (f"{node.module}.{name.name}" for name in node.names)


def imported_modules(module: str) -> set[str]:
    """The modules of our own that a module imports, wherever in it."""
    known = set(modules())
    found = (name if name in known else name.rpartition(".")[0] for name in imports(module))
    return {name for name in found if name in known} - {module}


def floors_of(module: str) -> tuple[int, ...]:
    """Where a module of `pipelines` stands: its floor, and within `stages` that of its stage."""
    parts = module.split(".")[1:]
    if not parts:
        return ()
    inner = (STAGE_FLOORS.index(parts[1]),) if parts[0] == "stages" and len(parts) > 1 else ()
    return (FLOORS.index(parts[0]), *inner)


def uses(module: str, package: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in imports(module))


def stage_of(module: str) -> str | None:
    """The stage of the library that a module belongs to."""
    package, _, rest = module.partition(".")
    name = rest.split(".")[0]
    return name if package == "curation" and name in STAGES else None


def users_of(package: str) -> set[str]:
    return {module for module in modules() if uses(module, package)}


@pytest.mark.parametrize("module", modules())
def test_a_module_is_small_and_named_for_what_it_is(module: str) -> None:
    assert len(file_of(module).read_text().splitlines()) <= MAX_LINES
    assert not VAGUE & set(module.split("."))


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("pipelines.")])
def test_data_walks_downhill(module: str) -> None:
    """Within `stages` too; an import within a function is an import."""
    here = floors_of(module)
    for name in imported_modules(module):
        if name.startswith("pipelines."):
            there = floors_of(name)
            assert there[:1] >= here[:1], name
            assert there[:1] > here[:1] or there >= here, name


def test_no_class_name_stands_for_two_things() -> None:
    """In `curation` and `pipelines`; `pretrain` keeps the words of its field, such as `Block`."""
    places: dict[str, list[str]] = {}
    for module in modules():
        if not module.startswith("pretrain"):
            for node in ast.parse(file_of(module).read_text()).body:
                if isinstance(node, ast.ClassDef):
                    places.setdefault(node.name, []).append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_nothing_goes_round_in_a_circle() -> None:
    """Modules that import one another, at whatever time, are one module in several files."""
    graph = {module: imported_modules(module) for module in modules()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", [m for m in modules() if m.split(".")[0] == "curation"])
def test_curation_knows_nothing_above_it(module: str) -> None:
    for package in ("pipelines", "ray", "rich", "yaml"):
        assert not uses(module, package), package
    # Models are loaded by pipelines; `pretrain.model` is plain torch, for `describe`.
    assert all(name.startswith("pretrain.model") for name in imports(module) if name.startswith("pretrain"))


@pytest.mark.parametrize(
    "module", ["curation.errors", "curation.hidden", "curation.printed", "curation.schema"]
)
def test_the_bottom_does_no_io(module: str) -> None:
    allowed = ("typing", "pyarrow", "re", "unicodedata", "urllib.parse", "curation.printed")
    assert not [name for name in imports(module) if not name.startswith(allowed)]


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("curation.")])
def test_stage_code_is_pure(module: str) -> None:
    if module.split(".")[1] not in PURE:
        return
    # It swaps the attention that timm's and open_clip's models have; it loads none of them.
    allowed = {"open_clip", "timm"} if module == "curation.describe.fast_vit" else set()
    for package in IMPURE - allowed:
        assert not uses(module, package), package
    opened = [
        node
        for node in ast.walk(ast.parse(file_of(module).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
    ]
    assert not opened


@pytest.mark.parametrize("module", [m for m in modules() if stage_of(m)])
def test_one_stage_never_imports_another(module: str) -> None:
    others = {name.split(".")[1] for name in imports(module) if name.startswith("curation.")} & STAGES
    assert others <= {stage_of(module)}


def test_faiss_is_search() -> None:
    assert users_of("faiss")
    assert all(module.startswith("curation.search.") for module in users_of("faiss"))


def test_fsspec_is_storage() -> None:
    assert users_of("fsspec") == {"curation.storage"}


def test_ray_is_its_executor() -> None:
    assert users_of("ray") == {"pipelines.engine.on_ray"}
    # At the top, so that whoever imports it finds out at once; others import it late, or not at all.
    top = {m for m in modules() if _imports_at_top(m, "pipelines.engine.on_ray")}
    assert not top


def _imports_at_top(module: str, name: str) -> bool:
    body = ast.parse(file_of(module).read_text()).body
    found = [node for node in body if isinstance(node, ast.ImportFrom) and node.module]
    return any(f"{node.module}.{alias.name}".startswith(name) for node in found for alias in node.names)


def test_models_are_loaded_in_one_place() -> None:
    for library in ("open_clip", "timm"):
        users = {module for module in users_of(library) if not module.startswith("pretrain")}
        places = {"embedders", "known_models", "prompts", "sscd_weights"}
        assert users <= {"curation.describe.fast_vit", *(f"pipelines.models.{place}" for place in places)}
        for place in ("embedders", "known_models"):
            assert not _imports_at_top(f"pipelines.models.{place}", library)


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("pretrain")])
def test_pretrain_reads_shards_and_no_more(module: str) -> None:
    assert not uses(module, "pipelines")
    assert not uses(module, "ray")
    of_curation = [name for name in imports(module) if name.startswith("curation.")]
    # Through the same decoder and the same views the trainer sees exactly the pixels that curation saw.
    allowed = (
        "curation.cpu", "curation.errors", "curation.printed", "curation.hidden", "curation.orphans",
        "curation.schema", "curation.shard.read", "curation.shard.manifest", "curation.disk_errors",
        "curation.local_files", "curation.packages",
        "curation.pictures.decode", "curation.pictures.samples", "curation.pictures.views",
        # Of tars that are not ours: the same walk over their headers that curation has, and file access.
        "curation.ingest.tars.tar_format", "curation.hashes", "curation.local_reads", "curation.packages",
        "curation.ranges", "curation.storage",
    )  # fmt: skip
    assert all(name.startswith(allowed) for name in of_curation)


def test_transformers_is_a_matter_of_tests() -> None:
    """What Hugging Face reads is written without it."""
    assert not users_of("transformers")


@pytest.mark.parametrize("module", modules())
def test_importing_a_module_does_nothing(module: str) -> None:
    """At the top stand definitions; a call is there only to give a constant its value."""
    for node in ast.parse(file_of(module).read_text()).body:
        is_doc = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_definition = isinstance(
            node,
            ast.Import
            | ast.ImportFrom
            | ast.FunctionDef
            | ast.AsyncFunctionDef
            | ast.ClassDef
            | ast.Assign
            | ast.AnnAssign
            | ast.If,
        )
        assert is_doc or is_definition, f"line {node.lineno}"
