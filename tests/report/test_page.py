from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_content as content

import skinseg.report
from skinseg.report import wording
from skinseg.report.comparison_page import comparison_page
from skinseg.report.evaluation_page import evaluation_page

VOID = {"meta", "link", "img", "input", "br", "hr", "rect", "path", "use"}


class Reader(HTMLParser):
    """Collects elements and texts, and fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts.append(data)
        elif data.strip():
            self.texts.append(data.strip())

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items())
        ]

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def evaluated(**changes: Any) -> str:
    table = content.scores(200)
    return evaluation_page({**content.evaluation(table), **changes}, table, content.gallery())


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {
        "evaluation": evaluated(title=f"A & B {content.HOSTILE}", stamps=["LEAKY: 12 lesions were seen"]),
        "comparison": comparison_page(*content.comparison()),
    }


@pytest.fixture(params=["evaluation", "comparison"])
def page(request: pytest.FixtureRequest, pages: dict[str, str]) -> str:
    return pages[request.param]


def test_elements_nest_and_ids_are_unique(page: str) -> None:
    reader = read(page)
    assert [name for name, times in Counter(reader.ids()).items() if times > 1] == []
    assert reader.all("html", lang="en")
    assert len(reader.all("h1")) == 1
    targets = {attributes["href"] for attributes in reader.all("a")} | {
        f"#{name}"
        for _, attributes in reader.elements
        for key in ("aria-labelledby", "aria-describedby", "for")
        if (name := attributes.get(key))
    }
    inner = {str(target)[1:] for target in targets if str(target).startswith("#")}
    assert inner <= set(reader.ids())
    pointed = {attributes["href"] for attributes in reader.all("use")} | set(
        re.findall(r"url\((#[^)]+)\)", page)
    )
    assert {str(target)[1:] for target in pointed} <= set(reader.ids())


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    reader = read(page)
    for tag, attributes in reader.elements:
        for key in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(key) or ""
            assert value.startswith(("data:", "#", "./")) or not value, (tag, key, value[:80])
        assert not any(key.startswith("on") for key in attributes)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert not re.search(r"@import|https?://", page)
    assert not [attributes for attributes in reader.all("script") if "src" in attributes]


def test_names_stay_text(page: str) -> None:
    reader = read(page)
    assert content.HOSTILE in " ".join(reader.texts) or any(content.HOSTILE in text for text in reader.texts)
    assert not any(text.startswith("window.broken") for text in reader.scripts)
    assert not reader.all("b")


def test_only_our_scripts_may_run(page: str) -> None:
    policy = next(attributes for attributes in read(page).all("meta") if "http-equiv" in attributes)
    assert "default-src 'none'" in str(policy["content"])
    scripts = re.search(r"script-src ([^;]*);", str(policy["content"]))
    assert scripts
    assert len(scripts[1].split()) == 2
    assert "unsafe" not in scripts[1]


@pytest.mark.slow
def test_the_same_twice(pages: dict[str, str]) -> None:
    assert comparison_page(*content.comparison()) == pages["comparison"]
    assert evaluated() == evaluated()


def test_every_figure_says_what_it_shows(page: str) -> None:
    figures = read(page).all("svg", role="img")
    assert len(figures) >= 2
    assert all(len(str(figure["aria-label"])) > 30 for figure in figures)
    assert all(image["alt"] for image in read(page).all("img"))


def test_heads_of_tables_have_a_scope(page: str) -> None:
    heads = read(page).all("th")
    assert heads
    assert all(head.get("scope") in ("col", "row") for head in heads)


def test_outlines_are_in_native_pixels() -> None:
    square = np.array([[1, 2], [30, 2], [30, 40]])
    image = replace(content.gallery()[0], outlines={"truth": [square, square + 5], "prediction": []})
    table = content.scores(20)
    reader = read(evaluation_page(content.evaluation(table), table, [image]))
    assert [path["d"] for path in reader.all("path", **{"class": "line line-0 outline-truth"})] == [
        "M1,2 30,2 30,40ZM6,7 35,7 35,45Z"
    ]
    assert [path["d"] for path in reader.all("path", **{"class": "line line-1 outline-prediction"})] == [""]
    assert reader.all("svg", viewbox="0 0 600 450")


def test_missing_parts_are_left_out_or_said() -> None:
    table = content.scores(60)
    full = content.evaluation(table)
    bare = {key: full[key] for key in ("title", "metrics", "headline", "scores")}
    bare["scores"] = {
        **bare["scores"],
        "dice": {"mean": 0.9, "low": None, "high": None, "n": 3, "undefined": 0},
        "jaccard": {"mean": None, "low": None, "high": None, "n": 0, "undefined": 60},
    }
    page = evaluation_page(bare, table[["image_id", "dice"]], [])
    reader = read(page)
    assert not {"protocol", "strata", "calibration", "ceiling", "gallery", "training", "cost"} & set(
        reader.ids()
    )
    assert {"scores", "spread", "images", "reading"} <= set(reader.ids())
    assert "no interval: too few lesions" in page
    assert "undefined on every image" in page
    assert "is not recorded" in page
    nulls = dict.fromkeys(
        ("strata", "calibration", "ceiling", "curves", "scorings", "cost", "protocol", "stamps")
    )
    read(evaluation_page({**full, **nulls}, table, []))


def test_no_image_and_no_outline() -> None:
    table = content.scores(20)
    image = replace(content.gallery()[0], outlines={}, scores={}, note="")
    reader = read(evaluation_page(content.evaluation(table), table.iloc[:0], [image]))
    assert reader.all("img", alt="Photograph ISIC_0024306. Outlines: none")
    assert "spread" not in reader.ids()


def test_comparison_without_tests_or_gallery() -> None:
    full, _ = content.comparison()
    runs = [{"name": run["name"], "scores": run["scores"]} for run in full["runs"][:1]]
    page = comparison_page({"title": "One", "metric": "dice", "metrics": content.METRICS, "runs": runs}, [])
    reader = read(page)
    assert not {"protocol", "cost", "differ", "gallery"} & set(reader.ids())
    assert "No verdict was given." in page


def test_table_holds_every_image_and_marks_what_is_undefined() -> None:
    table = content.scores(120)
    table.loc[3, "hd95"] = np.inf
    page = evaluation_page(content.evaluation(content.scores(120)), table, [])
    embedded = next(text for text in read(page).scripts if text.startswith('{"columns"'))
    assert "<" not in embedded
    data = json.loads(embedded)
    labels = [column["label"] for column in data["columns"]]
    assert labels[:5] == ["Image", "Lesion", "Diagnosis", "Data set", "Dice"]
    assert {len(values) for values in data["values"]} == {120}
    assert data["values"][0][1] == content.HOSTILE
    distances = data["values"][labels.index("Hausdorff 95 (px)")]
    assert distances[3] == "inf"
    assert distances[60] is None
    # Without a script, the first fifty are there.
    rows = re.search(r'<table id="image-table">.*?</table>', page, re.DOTALL)
    assert rows
    assert rows[0].count("<tr>") == 51
    assert "The first 50 of 120 images" in page


def test_links_stay_beside_the_page() -> None:
    files = [["a", "javascript:alert(1)"], ["b", "//host/x"], ["c", "out puts/scores.csv"]]
    hrefs = [link["href"] for link in read(evaluated(files=files)).all("a")]
    assert hrefs[-3:] == ["./javascript%3Aalert%281%29", ".///host/x", "./out%20puts/scores.csv"]


def test_small_groups_are_marked() -> None:
    page = evaluated()
    assert page.count('<tr class="faint">') == page.count("small group</span>") > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.number(0.93994), "0.9399"),
        (wording.number(-0.00001, signed=True), "0.0000"),
        (wording.number(0.0021, signed=True), "+0.0021"),
        (wording.number(-12.345, "px"), "\N{MINUS SIGN}12.35"),
        (wording.number(float("nan")), wording.UNDEFINED),
        (wording.number(float("inf"), "px"), "∞"),
        (wording.number(None), wording.UNDEFINED),
        (wording.interval(0.9, None), ""),
        (wording.p_value(0.00001), "< 0.0001"),
        (wording.p_value(0.0421), "0.0421"),
        (wording.percent(0.4216), "42.2 %"),
        (wording.duration(9660), "2 h 41 min"),
        (wording.duration(3599), "1 h 00 min"),
        (wording.duration(12), "12 s"),
        (wording.moment("2025-11-03T14:05:00+00:00"), "3 November 2025, 14:05 UTC"),
        (wording.moment("yesterday"), "yesterday"),
    ],
)
def test_wording(text: str, expected: str) -> None:
    assert text == expected


def test_templates_lie_in_the_package() -> None:
    folder = Path(skinseg.report.__file__).parent / "templates"
    assert {path.name for path in folder.iterdir()} >= {"base.html.j2", "report.css", "report.js", "icon.svg"}
