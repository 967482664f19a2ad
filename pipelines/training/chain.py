"""`lvd chain`: pretrain, adapt, distil, measure, export, in one command that can be stopped at any link."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Problem
from pipelines.config.faults import fault_lines
from pipelines.config.read import ALL_FOLDERS, read_config
from pipelines.config.strict_yaml import dump_yaml
from pipelines.engine.lock import lock
from pipelines.training import torchrun
from pipelines.training.chain_config import ChainConfig, EvaluateLink, ExportLink
from pipelines.training.chain_links import EVALUATION, Chain, DoneLink, require_same
from pipelines.training.continuing import adaptation_of
from pipelines.training.distilling import distill
from pipelines.training.distilling import validate as validate_distillation
from pipelines.training.evaluate import Measured, evaluate
from pipelines.training.pretraining import pretrain, require_data, validate
from pretrain.checkpoint_files import complete_steps, read_facts, step_dir
from pretrain.config import PretrainConfig
from pretrain.distill_config import DistillConfig
from pretrain.export import SUFFIXES, export
from pretrain.identity import FREE

Say = Callable[[str], None]


@dataclass(frozen=True)
class ChainPlan:
    """A chain whose trainings are all valid, before any of them has begun."""

    root: Path
    pretraining: PretrainConfig
    adaptation: PretrainConfig | None
    distillation: DistillConfig | None
    export: ExportLink | None
    evaluate: EvaluateLink | None


@dataclass(frozen=True)
class ChainOutcome:
    """The links of a chain that is done, and what its models are worth, by name."""

    links: list[DoneLink]
    measured: dict[str, Measured]


def load_chain(path: str, overrides: Sequence[str]) -> ChainPlan:
    """Read the config of a chain.

    Args:
        path: the file; a bare name is also looked for among the configs that come with lvd.
        overrides: each `pretrain.schedule.iterations=…`, by the fields of the file.

    Raises:
        ConfigError: naming the file, the field, the value and what is allowed, in any of its links.
    """
    file, data = read_config(path, overrides, folders=ALL_FOLDERS)
    return plan_chain(data, where=str(file))


def plan_chain(data: dict[str, Any], *, where: str) -> ChainPlan:
    """The chain that `data` describes.

    Raises:
        ConfigError: with a line for every field that is wrong.
    """
    try:
        config = ChainConfig.model_validate(data)
    except ValidationError as error:
        lines = fault_lines(error, ChainConfig, data)
        raise ConfigError(f"{where} is not a valid config of a chain: " + "; ".join(lines)) from error
    root = Path(config.run_dir or f"runs/{config.name}")
    common = {"seed": config.seed, "data": config.data, "parallel": config.parallel}
    first = {**common, **config.pretrain, "run_dir": str(root / "pretrain")}
    pretraining = require_data(validate(first, where=f"{where}: pretrain"), where=where)
    last, adaptation = pretraining.run_dir, None
    if config.adapt is not None:
        own = {**config.adapt, "run_dir": str(root / "adapt"), "start": {"checkpoint": last}}
        before = pretraining.model_dump(mode="json")
        adaptation = validate(adaptation_of(before, own), where=f"{where}: adapt")
        last = adaptation.run_dir
    distillation = None
    if config.distill is not None:
        teacher = {**config.distill.get("teacher", {}), "path": last}
        own = {**common, **config.distill, "run_dir": str(root / "distill"), "teacher": teacher}
        distillation = validate_distillation(own, where=f"{where}: distill")
    return ChainPlan(root, pretraining, adaptation, distillation, config.export, config.evaluate)


def run_chain(plan: ChainPlan, *, say: Say) -> ChainOutcome:
    """Do what is left of a chain; stopped at any moment, the same call goes on there.

    Args:
        plan: of all links.
        say: is told of each.

    Raises:
        LvdError: as the trainings, the exports and the measuring say; a link that is done stays.
        StoppedError: on SIGTERM, after a checkpoint.
        IntegrityError: what was done is not what was written.
    """
    if torchrun.is_rank():
        raise ConfigError(
            "A chain starts the processes of its trainings itself",
            got="a process that torchrun has started",
            expected="`lvd chain` by itself, with parallel.processes in its config",
        )
    plan.root.mkdir(parents=True, exist_ok=True)
    with lock(str(plan.root)):
        chain = Chain(plan.root)
        models = _trained(chain, plan, say)
        measured = _measured(chain, plan.evaluate, models, say) if plan.evaluate else {}
        if plan.export:
            _exported(chain, plan.export, models, say)
        for link in chain.links:
            require_same(plan.root, link)
    return ChainOutcome(chain.links, measured)


def _trained(chain: Chain, plan: ChainPlan, say: Say) -> dict[str, DoneLink]:
    """Every model of the chain, by its name: `pretrain`, `adapt`, and the names of the students."""
    link = _training(chain, "pretrain", plan.pretraining, None, say)
    models = {"pretrain": link}
    if plan.adaptation is not None:
        link = models["adapt"] = _training(chain, "adapt", plan.adaptation, link, say)
    if plan.distillation is not None:
        models |= _students(chain, plan.distillation, link, say)
    return models


def _training(chain: Chain, name: str, config: PretrainConfig, before: DoneLink | None, say: Say) -> DoneLink:
    assert config.run_dir is not None
    parent = before.sha256 if before else None
    settings = _settings(config)
    if (link := chain.done(name, parent=parent, settings=settings)) is not None:
        say(f"== {name} is done: step {link.step}, {link.sha256[:12]}")
        return link
    say(f"== {name}")
    if before is not None:
        _require_begun_with(Path(config.run_dir), parent)
        start = {"start": {**config.model_dump()["start"], "checkpoint": str(chain.root / before.path)}}
        config = PretrainConfig.model_validate({**config.model_dump(), **start})
    checkpoint = pretrain(config, arguments=["pretrain", _written(chain.root, name, config)])
    return chain.add(name, checkpoint, parent=parent, settings=settings)


def _students(chain: Chain, config: DistillConfig, before: DoneLink, say: Say) -> dict[str, DoneLink]:
    assert config.run_dir is not None
    parent, settings = before.sha256, _settings(config)
    done = {name: chain.done(f"distill/{name}", parent=parent, settings=settings) for name in config.students}
    found = {name: link for name, link in done.items() if link is not None}
    if len(found) == len(done):
        say(f"== distill is done: {', '.join(found)}")
        return found
    say(f"== distill: {', '.join(done)}")
    for name in config.students:
        _require_begun_with(Path(config.run_dir) / "students" / name, parent)
    teacher = {**config.model_dump()["teacher"], "path": str(chain.root / before.path)}
    config = DistillConfig.model_validate({**config.model_dump(), "teacher": teacher})
    checkpoints = distill(config, arguments=["distill", _written(chain.root, "distill", config)])
    return {
        name: chain.add(f"distill/{name}", checkpoint, parent=parent, settings=settings)
        for name, checkpoint in checkpoints.items()
    }


def _require_begun_with(run_dir: Path, parent: str | None) -> None:
    """See that a training that is to go on has begun with what the link before has come to."""
    steps = complete_steps(run_dir)
    began = (read_facts(step_dir(run_dir, steps[-1]))["parent"] or {}) if steps else {"sha256": parent}
    if began.get("sha256") != parent:
        raise ConfigError(
            f"{run_dir} has begun with another checkpoint than the link before has now",
            got=f"SHA-256 {began.get('sha256')}",
            expected=f"SHA-256 {parent}",
            remedy="Remove that folder to have the link trained anew, or give the chain another run_dir",
        )


def _measured(
    chain: Chain, asked: EvaluateLink, models: dict[str, DoneLink], say: Say
) -> dict[str, Measured]:
    """k-NN of every model; written for people, and beside each model for its card."""
    last, file = list(models.values())[-1].sha256, chain.root / EVALUATION
    of_models = "".join(link.sha256 for link in models.values())
    settings = hashlib.sha256((_settings(asked) + of_models).encode()).hexdigest()
    if chain.done("evaluate", parent=last, settings=settings) is not None:
        say("== evaluate is done")
        return {name: _measured_of(found) for name, found in json.loads(file.read_text()).items()}
    say("== evaluate")
    measured = {
        name: evaluate(
            f"vit:{chain.root / link.path}", train=asked.train, test=asked.test, neighbours=asked.neighbours
        )
        for name, link in models.items()
    }
    for name, found in measured.items():
        card = json.dumps([{**asdict(found), "embedder": name}], indent=1)
        run_dir = (chain.root / models[name].path).parents[1]
        storage.publish_bytes(str(run_dir / EVALUATION), card.encode(), replace=True)
    listed = {name: {**asdict(found), "sha256": models[name].sha256} for name, found in measured.items()}
    storage.publish_bytes(str(file), json.dumps(listed, indent=1).encode(), replace=True)
    chain.add("evaluate", file, parent=last, settings=settings)
    return measured


def _measured_of(listed: dict[str, Any]) -> Measured:
    """What was measured of a model, as `evaluation.json` has it."""
    fields = {name: value for name, value in listed.items() if name in Measured.__dataclass_fields__}
    knn = {int(k): share for k, share in fields["knn"].items()}
    problems = {name: tuple(Problem(**one) for one in fields[name]) for name in ("unread", "notes")}
    return Measured(**{**fields, **problems, "knn": knn})


def _exported(chain: Chain, asked: ExportLink, models: dict[str, DoneLink], say: Say) -> None:
    for name, link in models.items():
        if asked.of == "students" and not link.name.startswith("distill/"):
            continue
        for kind in asked.formats:
            suffix = SUFFIXES.get(kind, ("",))[0]
            out = chain.root / "export" / f"{name}-{kind}{suffix}"
            label, settings = f"export/{out.name}", _settings(asked)
            if chain.done(label, parent=link.sha256, settings=settings) is not None:
                say(f"== export of {out.name} is done")
                continue
            say(f"== export of {out.name}")
            _remove(out)
            export(chain.root / link.path, format=kind, out=out)
            chain.add(label, out, parent=link.sha256, settings=settings)


def _remove(out: Path) -> None:
    """Remove what was exported and is no link of the chain, or no longer: with its card, if it is a file."""
    for path in (out, out.with_name(f"{out.name}.md")):
        remove = storage.remove_tree if path.is_dir() else storage.remove_file
        if path.exists():
            remove(str(path))


def _settings(config: PretrainConfig | DistillConfig | EvaluateLink | ExportLink) -> str:
    """The SHA-256 of a link's settings, but for where it runs, and for what the chain gives to it."""
    settings = config.model_dump(mode="json", exclude=set(FREE - {"data"}))
    if isinstance(config, DistillConfig):
        settings["teacher"].pop("path")
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _written(root: Path, name: str, config: PretrainConfig | DistillConfig) -> str:
    """A link's config as a file, from which the processes of its training read it."""
    path = root / "configs" / f"{name}.yaml"
    storage.publish_bytes(str(path), dump_yaml(config.model_dump(mode="json")).encode(), replace=True)
    return str(path)
