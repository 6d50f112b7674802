"""The report in a browser: sound plays, charts tell values and zoom, nothing overflows.

Skipped where there is no browser: the tests drive one that is on the machine already, by the
package playwright.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from avse_ppl import NMF, SVI, GaussianSpeech, Scene
from avse_ppl.report import write_report
from tests.helpers import STFT, waves

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    scene = Scene(GaussianSpeech(stft=STFT), NMF(2))
    posterior = SVI(steps=12, draws=25)(scene, 0.1 * waves(2, 16000), seed=0)
    gate = np.full((1, 25, 2, 1, posterior.mean.shape[2]), 0.25)
    name = "a very long name of a recording without any break" + "x" * 200 + ".wav"
    posterior = replace(
        posterior,
        attrs={**posterior.attrs, "recording": name},
        latents={**posterior.latents, "reliability": gate},
    )
    return write_report(posterior, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=flags)
        yield started
        started.close()


@pytest.fixture(scope="module")
def opened(browser, page_file):
    """Open the page from its file; what it says on the console, or asks for, is an error."""
    said, asked = [], []
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []


@pytest.fixture
def page(opened):
    opened.set_viewport_size({"width": 1440, "height": 900})
    opened.emulate_media(media="screen", color_scheme="light")
    return opened


@pytest.mark.parametrize("width", [375, 1440])
def test_nothing_overflows(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        """[...document.querySelectorAll('main *, header *, nav *')].filter((element) => {
             const box = element.getBoundingClientRect();
             return box.width > 0 && (box.left < -1 || box.right > innerWidth + 1);
           }).map((element) => element.outerHTML.slice(0, 80))"""
    )
    assert wide == []


def test_sounds_play_one_at_a_time(page):
    durations = page.evaluate(
        """Promise.all([...document.querySelectorAll('audio')].map(async (player) => {
             if (player.readyState < 1) {
               await new Promise((done) => player.addEventListener('loadedmetadata', done));
             }
             return player.duration;
           }))"""
    )
    assert durations == pytest.approx([1.0] * 12, abs=0.01)
    found = page.evaluate(
        """(async () => {
             const [noisy, enhanced] = document.querySelectorAll('audio');
             await noisy.play();
             noisy.currentTime = 0.5;
             await new Promise((done) => setTimeout(done, 50));
             await enhanced.play();
             await new Promise((done) => setTimeout(done, 50));
             return [noisy.paused, enhanced.currentTime];
           })()"""
    )
    assert found[0] and 0.5 <= found[1] <= 1.0


def test_charts_tell_values_and_zoom(page):
    chart = page.locator("#recording-0-level")
    canvas, readout = chart.locator("canvas.cursor"), chart.locator(".readout")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 58 + (box["width"] - 70) / 2, box["y"] + 80)
    text = readout.inner_text()
    assert text.startswith("time 0.50") and "posterior median" in text and "dB" in text
    maps = page.locator("#recording-0-spectrograms")
    maps.locator("canvas.cursor").scroll_into_view_if_needed()
    area = maps.locator("canvas.cursor").bounding_box()
    page.mouse.move(area["x"] + 200, area["y"] + 120)
    assert "noisy" in maps.locator(".readout").inner_text()
    assert "width of the 90% credible band" in maps.locator(".readout").inner_text()

    # Drag across the middle: all charts over time follow, those of the other recording do not.
    def show_axis(recording):
        """Times at the ends of the visible part, by the cursor put there."""
        canvas = page.locator(f"#recording-{recording}-gate canvas.cursor")
        canvas.scroll_into_view_if_needed()
        area = canvas.bounding_box()
        times = []
        for place in (58, area["width"] - 13):
            page.mouse.move(area["x"] + place, area["y"] + 60)
            shown = page.locator(f"#recording-{recording}-gate .readout").inner_text()
            times.append(float(shown.split()[1]))
        return times

    assert show_axis(0) == show_axis(1) == pytest.approx([0.0, 1.0], abs=0.01)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 80, steps=4)
    page.mouse.up()
    assert show_axis(0) == pytest.approx([0.27, 0.59], abs=0.02)
    assert show_axis(1) == pytest.approx([0.0, 1.0], abs=0.01)
    chart.locator("[data-zoom=all]").click()
    assert show_axis(0) == pytest.approx([0.0, 1.0], abs=0.01)


def test_the_keyboard_reaches_everything(page):
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.evaluate("document.querySelector('.skip').focus()")
    reached = ["skip"]
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                """(() => { const a = document.activeElement;
                   return a.id || a.className || a.tagName; })()"""
            )
        )
        if reached[-1] == "cursor":
            break
    assert reached[0] == "skip" and "theme" in reached and "AUDIO" in reached
    assert reached.index("theme") < reached.index("AUDIO") < reached.index("cursor")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    readout = page.locator("#recording-0-spectrograms .readout").inner_text()
    assert readout.startswith("time 0.53")
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    assert page.locator("#recording-0-spectrograms .readout").inner_text().startswith("time 0.535")


def test_the_theme_follows_the_system_until_it_is_toggled(page):
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_selector(f"html[data-theme={scheme}]")
        assert (page.evaluate(paper) == light) == (scheme == "light")
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(paper) != light
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
    page.locator("#theme").click()
    assert page.evaluate(paper) == light


def test_charts_print_and_players_do_not(page):
    page.emulate_media(media="print")
    assert page.locator("audio").first.is_hidden() and page.locator("nav").is_hidden()
    assert page.locator("#recording-0-level canvas").first.is_visible()
    assert page.locator("table").first.is_visible()


def test_without_scripts_sounds_and_pictures_are_there(browser, page_file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator("#recording-0-spectrograms img").first.is_visible()
    assert page.locator("audio").first.is_visible()
    context.close()
