"""The page: one HTML file with everything in it, and a policy that lets it load nothing else."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

import jinja2

from pipelines.report import words
from pipelines.report.content import Content
from pipelines.report.thumbnails import Thumbnail

HERE = Path(__file__).parent


def render(content: Content, thumbnails: Mapping[int, Thumbnail]) -> str:
    """The page's HTML.

    Every value is escaped by the template engine; names that come from sources are made visible first.

    Args:
        content: all sections.
        thumbnails: of every picture in them, by global row.
    """
    style = (HERE / "style.css").read_text("utf-8")
    page = _environment().get_template("page.html")
    return page.render(
        page=content,
        manifest=content.manifest,
        counts=content.pool_counts,
        thumbnails=thumbnails,
        style=style,
        policy=content_security_policy(style),
    )


def content_security_policy(style: str) -> str:
    """Nothing may run, load or be sent: inline images and this one style sheet alone."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        words.spaced, words.number, words.counted, words.score, words.size, words.seconds, words.visible,
        words.shortened, words.measured,
    ):  # fmt: skip
        environment.filters[function.__name__] = function
    environment.globals.update(percent=words.percent, stage_verb=words.STAGE_VERB)
    return environment
