"""The page as a whole: right numbers, nothing but escaped text, nothing from outside, and no gaps."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from report_runs import HOSTILE, MakeRun, jpeg

from curation.errors import ConfigError
from pipelines.config.run_dir import read_manifest
from pipelines.report.render import content_security_policy
from pipelines.report.write import write_report

ALLOWED_TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "main",
        "section",
        "nav",
        "footer",
        "article",
    ),
    *("h1", "h2", "h3", "p", "div", "span", "strong", "code", "pre", "ul", "li", "a", "bdi", "br"),
    *(
        "table",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "th",
        "td",
        "details",
        "summary",
        "figure",
        "figcaption",
        "img",
    ),
    *("svg", "defs", "lineargradient", "stop", "path", "line", "rect", "circle", "g", "text"),
}


class Page(HTMLParser):
    """Tags, attributes and text of a page; raises nothing and believes nothing."""

    def __init__(self, path: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = Path(path).read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.open.append(tag)
        if tag in ("img", "meta", "br"):
            self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(rich_run: Path) -> Page:
    return Page(write_report(str(rich_run)))


def manifest_of(run_dir: Path) -> dict:
    return read_manifest(str(run_dir))


def test_lies_beside_the_dataset(rich_run: Path, page: Page) -> None:
    assert (rich_run / manifest_of(rich_run)["dataset_dir"] / "report.html").is_file()
    assert page.open == []


def test_numbers_are_the_manifests(rich_run: Path, page: Page) -> None:
    manifest = manifest_of(rich_run)
    rows = re.findall(r"<tr><th scope=\"row\"><span class=\"dot.*?</tr>", page.html)
    pools = {pool: count for pool, count in manifest["counts"].items() if pool != "dataset"}
    assert len(rows) == len(pools)
    names = ("images", "rejected", "duplicates", "contaminated", "retrieved", "kept")
    for row, count in zip(rows, pools.values(), strict=True):
        cells = [int(cell) for cell in re.findall(r'<td class="n">(\d+)</td>', row)]
        assert cells == [count[name] for name in names]
    assert f"{manifest['counts']['dataset']} are in the dataset" in page.text
    drops = {reason: 0 for level in manifest["funnel"] for reason in level["dropped"]}
    for level in manifest["funnel"]:
        for reason, num in level["dropped"].items():
            drops[reason] += num
    assert {"exact_copy", "near_copy", "leaks_holdout", "empty", "truncated", "over_cap"} <= set(drops)
    for reason, num in drops.items():
        assert f'<span>{reason.replace("_", " ")}</span> <span class="num">{num}</span>' in page.html


def test_hostile_names_are_text(page: Page) -> None:
    assert {tag for tag, _ in page.tags} <= ALLOWED_TAGS
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not {"style", "srcset", "action", "formaction", "data"} & set(attributes), tag
    titles = " ".join(attributes.get("title", "") for _, attributes in page.tags)
    for name in HOSTILE[:-1]:
        assert name in titles
    assert "\u202e" not in page.html
    assert r"gnp.\u202egpj.jpg" in titles


def test_is_self_contained(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            if name in attributes:
                assert attributes[name].startswith("data:image/jpeg;base64," if tag == "img" else "#")
        if "fill" in attributes:
            assert attributes["fill"] == "url(#fade)"
    anchors = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert anchors <= {a["id"] for _, a in page.tags if "id" in a}
    style = re.search(r"<style>(.*?)</style>", page.html, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    policies = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [content_security_policy(style[1])]


def test_is_accessible(page: Page) -> None:
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes["aria-label"]


def test_thumbnails_are_small_jpegs_without_metadata(page: Page) -> None:
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) > 40
    for source in sources:
        data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG"
            assert max(image.size) <= 128
            assert "exif" not in image.info
    assert len(page.html) < 1_000_000


def test_says_what_made_the_vectors(page: Page) -> None:
    assert "Vectors: gist . The vectors are gist, the weight-free default" in page.text


def test_shows_copies_leaks_and_hits(rich_run: Path, page: Page) -> None:
    assert "representative" in page.text
    assert re.search(r"1 – 2 exact 1\.0000", page.text)
    assert re.search(r"1 image of curated and uncurated pools would leak 1 evaluation image", page.text)
    hits = next(rich_run.glob("steps/retrieve/*/hits.parquet"))
    rows = pq.read_table(hits)["row"].to_pylist()
    assert f"{len(rows)} {len(set(rows))} " in page.text


def test_is_the_same_when_written_again(rich_run: Path, page: Page) -> None:
    assert Path(write_report(str(rich_run))).read_text("utf-8") == page.html


def test_is_written_without_intermediate_data(rich_run: Path, tmp_path: Path) -> None:
    cleaned = tmp_path / "run"
    shutil.copytree(rich_run, cleaned)
    shutil.rmtree(cleaned / "steps")
    with pytest.raises(ConfigError, match="shows more than can be written anew"):
        write_report(str(cleaned))
    [report] = cleaned.glob("dataset-*/report.html")
    report.unlink()
    write_report(str(cleaned))
    bare = Page(write_report(str(cleaned)))  # a short one may be written again
    assert "intermediate data is gone" in bare.text
    assert "source not known any more" in bare.text
    for section in ("Why images are not in the dataset", "Component", "Clusters", "near copy"):
        assert section in bare.text
    assert sum(tag == "img" for tag, _ in bare.tags) > 10  # kept images come out of the shards


def test_shows_the_config_of_its_dataset(rich_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(rich_run, other)
    text = (other / "run.yaml").read_text()
    (other / "run.yaml").write_text(text.replace("phash_radius: 6", "phash_radius: 5"))
    page = Page(write_report(str(other)))
    assert "phash_radius: 6" in page.text
    assert "phash_radius: 5" not in page.text
    assert "intermediate data is gone" not in page.text


def test_changed_sources_are_not_shown(make_run: MakeRun, tmp_path: Path) -> None:
    run_dir = make_run(
        tmp_path, {"web": ("uncurated", {"a.jpg": jpeg(1), "b.jpg": jpeg(1, 40), "c.jpg": jpeg(2)})}
    )
    source = tmp_path / "pools" / "0" / "b.jpg"
    source.write_bytes(source.read_bytes()[:-3] + b"\0\0\0")
    assert "source has changed since" in Page(write_report(str(run_dir))).text


def test_page_stays_within_its_budget(rich_run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(rich_run, copied)
    page = Page(write_report(str(copied), max_thumbnail_bytes=20_000))
    shown = sum(len(attributes["src"]) for tag, attributes in page.tags if tag == "img")
    assert 0 < shown <= 20_000
    assert "left out to keep the page small" in page.text


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        (
            {
                "web": ("uncurated", {"a.jpg": jpeg(1), "b.jpg": jpeg(2)}),
                "none": ("uncurated", {"c.jpg": b""}),
            },
            ["There is no curated pool", "No two images are copies", "There is no holdout pool", "2 pools"],
        ),
        ({"web": ("uncurated", {"a.jpg": b"no image"})}, ["The dataset is empty", "Nothing was clustered"]),
        (
            {"good": ("curated", {"a.jpg": jpeg(1)}), "exam": ("holdout", {"b.jpg": jpeg(2)})},
            ["No image leaks", "by sample: the 4 nearest pool images of every curated image 0 0 0 –"],
        ),
    ],
)
def test_gaps_do_not_break_it(
    make_run: MakeRun,
    tmp_path: Path,
    pools: dict[str, tuple[str, dict[str, bytes]]],
    expected: list[str],
) -> None:
    text = Page(write_report(str(make_run(tmp_path, pools)))).text
    assert [words for words in expected if words not in text] == []


def test_degraded_run_names_its_unread_sources(rich_run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(rich_run, copied)
    manifest = manifest_of(copied)
    manifest["complete"] = False
    manifest["unread"] = [
        {"path": "/data/<b>x</b>.tar", "what": "damaged_tar", "detail": "no header", "offset": 5120},
        {"pool": "web <u>", "what": "unreadable", "detail": "3 images"},
    ]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    page = Page(write_report(str(copied)))
    assert "Degraded." in page.text
    assert "/data/<b>x</b>.tar : damaged tar at byte 5,120 – no header" in page.text
    assert "web <u> : unreadable – 3 images" in page.text


def test_unfinished_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        write_report(str(tmp_path))
