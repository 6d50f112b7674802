"""The documentation site in a browser, opened as files: as it is read without a server.

Slow, as the site is built first. Skipped where mkdocs, playwright or a browser is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.helpers import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]
WIDTHS = [375, 1440]

# Boxes that stick out of the window, unless something around them scrolls or hides them, as the
# drawer of the navigation is hidden. The width of the page is compared by itself.
OVERFLOW = """() => {
  const root = document.documentElement;
  const kept = (element) => {
    for (let one = element; one && one !== root; one = one.parentElement) {
      const style = getComputedStyle(one);
      if (['auto', 'scroll', 'hidden', 'clip'].includes(style.overflowX)) return true;
      if (style.position === 'fixed') return true;
    }
    return false;
  };
  const wide = [...document.querySelectorAll('article *, header *, footer *')].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && (box.left < -1 || box.right > innerWidth + 1) && !kept(element);
  });
  return [root.scrollWidth, wide.slice(0, 3).map((element) => element.outerHTML.slice(0, 90))];
}"""
# Contrast of the text of an element with what lies behind it (WCAG 2.2, 1.4.3).
CONTRAST = """(element) => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const light = (colours) => {
    canvas.fillStyle = '#fff';
    canvas.fillRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = [];
  for (let one = element; one; one = one.parentElement) {
    behind.unshift(getComputedStyle(one).backgroundColor);
  }
  const [a, b] = [light(behind), light([...behind, getComputedStyle(element).color])];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    made = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, site):
    """A page of the site; what it says on the console, or asks the network for, is an error."""
    said, asked = [], []
    opened = browser.new_page(color_scheme="light", viewport={"width": 1440, "height": 900})
    opened.set_default_timeout(60_000)
    opened.on("console", lambda message: said.append(f"{opened.url}: {message.text}"))
    opened.on("pageerror", lambda error: said.append(f"{opened.url}: {error}"))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto((site / "index.html").as_uri())
    yield opened
    opened.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "file:", "blob:"))] == []


def test_nothing_overflows_on_any_page(page, site):
    found = {}
    for file in sorted(site.rglob("*.html")):
        if file.name == "404.html":  # what a server shows: its links begin at the root of one
            continue
        page.goto(file.as_uri(), wait_until="load")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            whole, wide = page.evaluate(OVERFLOW)
            if whole > width or wide:
                found[str(file.relative_to(site)), width] = (whole, wide)
    assert found == {}


def test_wide_tables_and_code_scroll_by_themselves(page, site):
    page.set_viewport_size({"width": 375, "height": 900})
    page.goto((site / "index.html").as_uri())
    scrolled = page.evaluate(
        """[...document.querySelectorAll('article pre > code, .md-typeset__scrollwrap')]
             .filter((box) => box.scrollWidth > box.clientWidth)
             .map((box) => { box.scrollLeft = 40; return box.scrollLeft; })"""
    )
    assert len(scrolled) >= 3 and set(scrolled) == {40}


@pytest.mark.parametrize("width", WIDTHS)
def test_search_finds_a_term_and_opens_its_page(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.keyboard.press("/")
    page.wait_for_selector(".md-search__input:focus")
    page.keyboard.type("horseshoe")
    found = page.locator(".md-search-result__link[href*='models/noise.html?h=horseshoe']").first
    found.wait_for()
    found.click()
    page.wait_for_url("**/models/noise.html*")
    page.wait_for_selector("article mark >> text=/horseshoe/i")


def test_the_switch_changes_to_dark_and_is_remembered(page, site):
    def look() -> list[str]:
        return page.evaluate(
            "[document.body.dataset.mdColorScheme, getComputedStyle(document.body).backgroundColor]"
        )

    light = look()
    page.get_by_title("Switch to dark").filter(visible=True).click()
    page.wait_for_selector("body[data-md-color-scheme=slate]")
    dark = look()
    assert light[0] == "default" and dark[0] == "slate" and light[1] != dark[1]
    page.goto((site / "faq.html").as_uri())
    page.wait_for_selector("body[data-md-color-scheme=slate]")
    assert page.locator("article p").first.evaluate(CONTRAST) > 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_formulas_are_legible(page, site, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((site / "api" / "models.html").as_uri())
    formulas = page.locator("article .formula math")
    assert formulas.count() >= 3
    first = formulas.first
    assert first.evaluate(CONTRAST) > 7
    drawn = page.evaluate(
        """[...document.querySelectorAll('article math')].map((one) => {
             const box = one.getBoundingClientRect();
             return [parseFloat(getComputedStyle(one).fontSize), box.width, box.height];
           }).filter(([size, width, height]) => size < 14 || width < 4 || height < 8)"""
    )
    assert drawn == []
    # Not one letter after the other: an index stands lower than what it belongs to.
    low = page.evaluate(
        """[...document.querySelectorAll('article .formula msub')].map((one) => {
             const [base, index] = [...one.children].map((part) => part.getBoundingClientRect());
             return index.bottom - base.bottom;
           })"""
    )
    assert low and min(low) > 0


def press_until(page, selector: str, most: int = 80) -> None:
    """Press the tabulator key until an element that fits the selector has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.matches({selector!r})"):
            return
    pytest.fail(f"{selector} is not reached by the keyboard")


def test_the_keyboard_opens_a_section_of_the_navigation(page):
    press_until(page, ".md-skip")
    press_until(page, ".md-nav--primary label[for^='__nav']")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    press_until(page, ".md-nav--primary .md-nav .md-nav__link[href$='data-path.html']", 5)
    page.keyboard.press("Enter")
    page.wait_for_url("**/concepts/data-path.html")


def test_the_keyboard_opens_the_navigation_of_a_narrow_window(page):
    page.set_viewport_size({"width": 375, "height": 900})
    press_until(page, "label[for='__drawer']", 10)
    page.keyboard.press("Enter")
    page.wait_for_function(
        "document.querySelector('.md-sidebar--primary').getBoundingClientRect().left >= 0"
    )
    press_until(page, ".md-nav--primary a.md-nav__link[href$='faq.html'], "
                ".md-nav--primary a.md-nav__link[href$='contents.html']")  # fmt: skip
    box = page.evaluate(
        "(({left, right}) => [left, right])(document.activeElement.getBoundingClientRect())"
    )
    assert 0 <= box[0] < box[1] <= 375
    page.keyboard.press("Enter")
    page.wait_for_url("**/contents.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_of_the_data_path_is_legible(browser, scheme):
    opened = browser.new_page(color_scheme=scheme, viewport={"width": 343, "height": 900})
    opened.goto((ROOT / "docs" / "concepts" / "data-path.svg").as_uri())
    found = opened.evaluate(
        """(() => {
             const near = (a, b) => a.left >= b.left && a.right <= b.right
               && a.top >= b.top && a.bottom <= b.bottom;
             const outside = [...document.querySelectorAll('.box')].flatMap((box) => {
               const frame = box.querySelector('rect').getBoundingClientRect();
               return [...box.querySelectorAll('text')]
                 .filter((text) => !near(text.getBoundingClientRect(), frame))
                 .map((text) => text.textContent);
             });
             const texts = [...document.querySelectorAll('text')];
             const boxes = texts.map((text) => text.getBoundingClientRect());
             const overlaps = texts.filter((_, i) => boxes.some((other, j) => j < i
               && Math.min(boxes[i].right, other.right) - Math.max(boxes[i].left, other.left) > 1
               && Math.min(boxes[i].bottom, other.bottom) - Math.max(boxes[i].top, other.top) > 3));
             const colours = new Set(texts.map((text) => getComputedStyle(text).fill));
             const papers = new Set([...document.querySelectorAll('rect')]
               .map((rect) => getComputedStyle(rect).fill));
             return [outside, overlaps.map((text) => text.textContent), [...colours], [...papers]];
           })()"""
    )
    opened.close()
    outside, overlaps, colours, papers = found
    assert outside == [] and overlaps == []

    def measure_light(colour: str) -> float:
        shares = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for colour in colours:
        for paper in papers:
            dark, light = sorted((measure_light(colour), measure_light(paper)))
            assert (light + 0.05) / (dark + 0.05) > 6, (colour, paper)
