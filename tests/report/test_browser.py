"""The pages in a real browser: what they do, what they ask for, and whether they can be read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import report_content as content

from skinseg.report.comparison_page import comparison_page
from skinseg.report.evaluation_page import evaluation_page
from skinseg.report.wording import MINUS, UNDEFINED

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EXECUTABLE = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
ROWS = 10_000

# Ratio of WCAG 2.2 between text and what lies behind it, for every element with text of its own.
CONTRAST = """
() => {
  const channel = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const c = parse(getComputedStyle(node).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || ["SCRIPT", "STYLE"].includes(node.tagName) || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const colour = parse(node instanceof SVGElement ? style.fill : style.color);
    const a = light(colour), b = light(behind(node));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, node.tagName + "." + node.className, node.textContent.slice(0, 40)]);
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install skinseg[dev])"
    )
    if EXECUTABLE is None:
        pytest.skip("no Chromium on the path; install the system's package")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("report")
    table = content.scores(ROWS)
    told = {**content.evaluation(table), "stamps": ["LEAKY: 12 of these lesions were seen in training"]}
    pages = {
        "evaluation": evaluation_page(told, table, content.gallery()),
        "comparison": comparison_page(*content.comparison()),
    }
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in pages}


Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser, files: dict[str, str]) -> Iterator[Open]:
    """Opens a page; afterwards nothing may have gone wrong in it or left it."""
    contexts = []
    requests: list[str] = []
    errors: list[str] = []

    def opened(name: str = "evaluation", *, width: int = 1280, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(files[name])
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []
    assert [url[:80] for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def column(page: Page, table: str, place: int) -> list[str]:
    cells = page.locator(f"{table} tbody tr > :nth-child({place})").all_inner_texts()
    return [cell.split("\n")[0].strip() for cell in cells]


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace(MINUS, "-")) for text in texts if text != UNDEFINED]


IMAGES = "#image-table"
DICE, HD95 = 5, 8


@pytest.mark.parametrize("name", ["evaluation", "comparison"])
def test_opens_quietly(open_page: Open, name: str) -> None:
    page = open_page(name)
    assert page.evaluate("window.broken === undefined")
    assert page.title()


def test_click_sorts_ten_thousand_rows(open_page: Open) -> None:
    page = open_page()
    table = content.scores(ROWS)
    head = page.locator(f"{IMAGES} thead th").nth(DICE - 1)
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    shown = column(page, IMAGES, DICE)
    assert len(shown) == 50, "one page of rows is in the document, not all"
    assert shown == [f"{value:.4f}" for value in table["dice"].nsmallest(50)]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, IMAGES, DICE) == [f"{value:.4f}" for value in table["dice"].nlargest(50)]
    assert "Sorted by Dice, descending" in page.locator("#announce").inner_text()
    assert page.locator(f'{IMAGES} th[aria-sort="descending"]').count() == 1


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_keyboard_sorts(open_page: Open, key: str) -> None:
    page = open_page()
    page.locator(f"{IMAGES} thead button").nth(0).focus()
    for _ in range(DICE - 1):
        page.keyboard.press("Tab")
    page.keyboard.press(key)
    shown = numbers(column(page, IMAGES, DICE))
    assert shown == sorted(shown)
    assert shown[0] == pytest.approx(content.scores(ROWS)["dice"].min(), abs=1e-4)


def test_undefined_comes_last_both_ways(open_page: Open) -> None:
    page = open_page()
    page.locator("#filter").fill("HAM_00025")
    button = page.locator(f"{IMAGES} thead button").nth(HD95 - 1)
    table = content.scores(ROWS)
    undefined = int(table.loc[table["group"].str.contains("HAM_00025"), "hd95"].isna().sum())
    assert undefined
    for _ in range(2):
        button.click()
        assert UNDEFINED not in column(page, IMAGES, HD95)
        while page.locator("#page-on").is_enabled():
            page.locator("#page-on").click()
        assert column(page, IMAGES, HD95)[-undefined:] == [UNDEFINED] * undefined


def test_search_filters_and_counts(open_page: Open) -> None:
    page = open_page()
    expected = int((content.scores(ROWS)["diagnosis"] == "dermatofibroma").sum())
    page.locator("#filter").fill("DERMATOfib")
    assert page.locator("#images-count").inner_text() == f"{expected:,} of {ROWS:,} images"
    assert set(column(page, IMAGES, 3)) == {"dermatofibroma"}
    page.locator("#filter").fill("no such thing")
    assert page.locator("#images-count").inner_text() == f"0 of {ROWS:,} images"
    assert column(page, IMAGES, 1) == []
    page.locator("#filter").fill("<script>")
    assert column(page, IMAGES, 1) == [content.HOSTILE]


def test_pages_through_the_rows(open_page: Open) -> None:
    page = open_page()
    first = column(page, IMAGES, 1)
    assert page.locator("#page-back").is_disabled()
    page.locator("#page-on").click()
    assert "Rows 51 to 100 of 10,000" in page.locator("#page-place").inner_text()
    assert not set(first) & set(column(page, IMAGES, 1))
    page.locator("#page-back").click()
    assert column(page, IMAGES, 1) == first


def test_ranking_sorts(open_page: Open) -> None:
    page = open_page("comparison")
    table = "#ranking table"
    assert column(page, table, 1) == ["1", "2", "3", "4", "5"]
    page.locator(f"{table} thead button").nth(2).click()
    assert column(page, table, 1) == ["5", "4", "3", "2", "1"]
    # p-values: the best run has none and stays last.
    for _ in range(2):
        page.locator(f"{table} thead button").nth(4).click()
        assert column(page, table, 1)[-1] == "1"


@pytest.mark.parametrize("name", ["evaluation", "comparison"])
def test_outlines_are_switched_by_click_and_by_key(open_page: Open, name: str) -> None:
    page = open_page(name)
    boxes = page.locator("#gallery > .switches input")
    assert boxes.count() == {"evaluation": 2, "comparison": 3}[name]
    for place in range(boxes.count()):
        lines = page.locator(f'.photographs .outline[data-outline="{place}"]')
        others = page.locator(f'.photographs .outline:not([data-outline="{place}"])')

        def hidden(group: Any) -> set[str]:
            return set(group.evaluate_all("nodes => nodes.map(node => getComputedStyle(node).display)"))

        assert hidden(lines) == {"inline"}
        boxes.nth(place).click()
        assert hidden(lines) == {"none"}
        assert hidden(others) == {"inline"}
        boxes.nth(place).focus()
        page.keyboard.press("Space")
        assert hidden(lines) == {"inline"}


def test_lines_differ_in_colour_and_dash(open_page: Open) -> None:
    page = open_page("comparison")
    styles = [
        page.locator(f".photographs .line-{place}").first.evaluate(
            "node => [getComputedStyle(node).stroke, getComputedStyle(node).strokeDasharray]"
        )
        for place in range(3)
    ]
    assert len({colour for colour, _ in styles}) == 3
    assert len({dash for _, dash in styles}) == 3


def test_enlarges_by_keyboard(open_page: Open) -> None:
    page = open_page()
    button = page.locator(".enlarge").first
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog#large")
    assert dialog.is_visible()
    first = dialog.locator("figcaption .id").inner_text()
    dialog.locator("input").first.click()
    assert dialog.locator('.outline[data-outline="0"]').evaluate("n => getComputedStyle(n).display") == "none"
    page.keyboard.press("ArrowRight")
    assert dialog.locator("figcaption .id").inner_text() != first
    assert dialog.locator('.outline[data-outline="0"]').evaluate("n => getComputedStyle(n).display") == "none"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert button.evaluate("node => node === document.activeElement")
    assert not page.locator("#gallery > .switches input").first.is_checked(), "both sets of boxes agree"


def test_theme_button_turns_the_system_theme(open_page: Open) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page = open_page(color_scheme="light")
    light = page.evaluate(background)
    button = page.locator("#theme")
    assert button.inner_text() == "Dark theme"
    button.click()
    dark = page.evaluate(background)
    assert dark != light
    assert button.inner_text() == "Light theme"
    page.reload()
    assert page.evaluate(background) == dark, "the choice is kept"
    assert open_page(color_scheme="dark").evaluate(background) == dark


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["evaluation", "comparison"])
def test_text_has_the_contrast_of_wcag_aa(open_page: Open, name: str, theme: str) -> None:
    page = open_page(name, color_scheme=theme)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    found = page.evaluate(CONTRAST)
    assert len(found) > 100
    assert [entry for entry in found if entry[0] < 4.5] == []
    kinds = {kind.split(".")[0] for _, kind, _ in found}
    assert {"P", "TD", "TH", "BUTTON", "A", "text"} <= kinds


@pytest.mark.parametrize(
    ("name", "tables"),
    [("evaluation", "#strata .scroll"), ("comparison", "#ranking .scroll, #differ .scroll")],
)
def test_tables_fit_a_small_laptop(open_page: Open, name: str, tables: str) -> None:
    beyond = "nodes => nodes.map(node => node.scrollWidth - node.clientWidth)"
    assert set(open_page(name, width=1200).locator(tables).evaluate_all(beyond)) == {0}


@pytest.mark.parametrize("name", ["evaluation", "comparison"])
def test_phone_does_not_scroll_sideways(open_page: Open, name: str) -> None:
    page = open_page(name, width=360, is_mobile=True, has_touch=True)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert page.evaluate("innerWidth") == 360
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "auto"


def test_figures_have_no_text_that_is_cut(open_page: Open) -> None:
    for name in ("evaluation", "comparison"):
        cut = open_page(name).evaluate(
            """() => [...document.querySelectorAll("svg.plot text")].filter((text) => {
              const inner = text.getBoundingClientRect(), outer = text.closest("svg").getBoundingClientRect();
              const sides = inner.left < outer.left - 1 || inner.right > outer.right + 1;
              return sides || inner.bottom > outer.bottom + 1;
            }).map((text) => text.textContent)"""
        )
        assert cut == []


def test_paper_shows_everything_in_the_light(open_page: Open, tmp_path: Path) -> None:
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav.contents").is_visible()
    assert not page.locator("#theme").is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.locator(".scroll").first.evaluate("node => getComputedStyle(node).overflowX") == "visible"
    target = tmp_path / "page.pdf"
    page.pdf(path=str(target), format="A4")
    assert target.read_bytes().startswith(b"%PDF")


def test_without_javascript_the_first_rows_are_there(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    assert page.locator(f"{IMAGES} tbody tr").count() == 50
    assert page.get_by_text("The first 50 of 10,000 images").is_visible()
    assert not page.locator("#filter").is_visible()
    assert not page.locator("#theme").is_visible()


def test_first_tab_skips_to_the_content(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_still_for_those_who_ask_for_it(open_page: Open) -> None:
    page = open_page(reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
