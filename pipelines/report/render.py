"""The page: one HTML file with everything in it, and a policy that lets it load nothing else."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from curation.printed import visible
from pipelines import words
from pipelines.report.thumbnails import Thumbnail

if TYPE_CHECKING:  # it brings the whole flow along, which a page of search results does without
    from pipelines.report.content import Content

HERE = Path(__file__).parent


def render(content: "Content", thumbnails: Mapping[int, Thumbnail]) -> str:
    """The page's HTML.

    Every value is escaped by the template engine; names that come from sources are made visible first.

    Args:
        content: all sections.
        thumbnails: of every picture in them, by global row.
    """
    values = {
        "page": content,
        "manifest": content.manifest,
        "counts": content.pool_counts,
        "thumbnails": thumbnails,
    }
    return render_page("page.html", values)


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """The HTML of any page: the style and the policy that goes with it come from here."""
    style = (HERE / "style.css").read_text("utf-8")
    page = _environment().get_template(template)
    return page.render(**values, style=style, policy=content_security_policy(style))


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
        words.spaced, words.number, words.counted, words.score, words.size, words.seconds, visible,
        words.shortened, words.measured,
    ):  # fmt: skip
        environment.filters[function.__name__] = function
    environment.globals.update(percent=words.percent, stage_verb=words.STAGE_VERB, meanings=words.MEANING)
    return environment
