"""The page of `upres bench --report x.html` and `upres compare`, in a real headless Chromium.

Skipped where there is no Chromium or no playwright; .ci/run installs both.
"""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.forks import Process
from upres.benchmark.page import Gallery, page
from upres.benchmark.quality import Settings
from upres.benchmark.report import Report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Tab:
    """A page in a window, and everything that it complained of."""

    def __init__(self, browser, path, width=1000, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.page, self.said = context.new_page(), []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("requestfailed", lambda request: self.said.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_function("document.getElementById('lower')?.width !== 300")
        self.page.locator("#stage").scroll_into_view_if_needed()

    def seen(self):
        """What the viewer shows, as pixels."""
        png = self.page.locator("#stage").screenshot()
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def box(self, selector):
        found = self.page.locator(selector).bounding_box()
        return found["x"], found["y"], found["width"], found["height"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, forks, photo):
    """A page for two pictures, made by the real program."""
    import os

    folder = tmp_path_factory.mktemp("page")
    (folder / "mine").mkdir()
    Image.fromarray(photo[60:200, 100:280]).save(folder / "mine" / "eye.png")
    Image.fromarray(photo[100:220, 200:330]).save(folder / "mine" / "fur.png")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "UPRES_HOME": str(folder / "home")}
    arguments = ["bench", "mine", "-s", "2", "--report", "r.html"]
    assert Process(forks, arguments, cwd=folder, env=environment).wait() == 0
    return folder / "r.html"


def test_dragging_the_divider_shows_more_of_one_picture(browser, made):
    tab = Tab(browser, made)
    before = tab.seen()
    x, y, width, height = tab.box("#divider")
    left, _, stage_width, _ = tab.box("#stage")
    tab.page.mouse.move(x + width / 2, y + height / 2)
    tab.page.mouse.down()
    tab.page.mouse.move(left + 0.8 * stage_width, y + height / 2, steps=5)
    tab.page.mouse.up()
    after = tab.seen()
    assert tab.page.get_attribute("#divider", "aria-valuenow") == "80"
    # What changed lies between the old and the new place of the divider.
    columns = np.flatnonzero(np.abs(after - before).max((0, 2)))
    assert columns.size > 20
    middle = after.shape[1]
    assert columns.min() > 0.5 * middle - 30
    assert columns.max() < 0.8 * middle + 30
    assert tab.said == []


def test_another_button_moves_nothing_and_tables_keep_their_keys(browser, made):
    tab = Tab(browser, made)
    at = "document.getElementById('lower').style.transform"
    before = tab.page.evaluate(at)
    x, y, width, height = tab.box("#stage")
    tab.page.mouse.move(x + width / 4, y + height / 2)
    tab.page.mouse.down(button="right")
    tab.page.mouse.move(x + width / 4 + 60, y + height / 2, steps=3)
    tab.page.mouse.up(button="right")
    assert tab.page.evaluate(at) == before
    tab.page.evaluate("document.querySelector('.wide').tabIndex = 0")
    tab.page.focus(".wide")
    tab.page.keyboard.press("ArrowRight")
    assert tab.page.get_attribute("#divider", "aria-valuenow") == "50"
    tab.page.focus("#divider")
    for key, value in (("ArrowRight", "52"), ("End", "100"), ("Home", "0")):
        tab.page.keyboard.press(key)
        assert tab.page.get_attribute("#divider", "aria-valuenow") == value


def test_zooming_moving_and_fitting(browser, made):
    tab = Tab(browser, made)
    before = tab.seen()
    x, y, width, height = tab.box("#stage")
    tab.page.mouse.move(x + width / 4, y + height / 2)
    tab.page.mouse.wheel(0, -400)
    zoomed = tab.seen()
    assert np.abs(zoomed - before).mean() > 1
    tab.page.mouse.down()
    tab.page.mouse.move(x + width / 4 + 60, y + height / 2 + 20, steps=4)
    tab.page.mouse.up()
    assert np.abs(tab.seen() - zoomed).mean() > 1
    same = "document.getElementById('lower').style.transform"
    other = "document.getElementById('over').style.transform"
    assert tab.page.evaluate(same) == tab.page.evaluate(other)  # both move alike
    tab.page.click("#fit")
    assert np.abs(tab.seen() - before).mean() < 1
    assert tab.said == []


def test_everything_by_keyboard(browser, made):
    tab = Tab(browser, made)
    tab.page.focus("#stage")
    before = tab.seen()
    tab.page.keyboard.press("ArrowRight")
    assert tab.page.get_attribute("#divider", "aria-valuenow") == "52"
    tab.page.keyboard.press("m")
    tab.page.wait_for_function("document.getElementById('right').value === 'truth'")
    tab.page.keyboard.press("d")
    tab.page.wait_for_function(
        "document.getElementById('difference').getAttribute('aria-pressed') === 'true'"
    )
    tab.page.wait_for_function(
        "document.getElementById('right-tag').textContent.startsWith('truth less')"
    )
    right = tab.seen()[:, before.shape[1] * 3 // 4]
    assert abs(np.median(right) - 128) < 10  # a difference is gray where there is none
    for _ in range(2):  # off and on again, each time until it is drawn
        before_it = tab.page.inner_text("#right-tag")
        tab.page.keyboard.press("d")
        tab.page.wait_for_function(
            "before => document.getElementById('right-tag').textContent !== before", arg=before_it
        )
    tab.page.keyboard.press("d")
    tab.page.keyboard.press("n")
    assert tab.page.input_value("#picture") == "1"
    tab.page.keyboard.press("n")
    assert tab.page.input_value("#picture") == "0"
    tab.page.keyboard.press("+")
    assert np.abs(tab.seen() - before).mean() > 1
    assert tab.said == []


def test_what_is_shown_is_what_was_measured(browser, made):
    tab = Tab(browser, made)
    tables = tab.page.locator("table")
    assert tables.count() == 2
    assert "edsr-baseline" in tables.nth(0).inner_text()
    assert tab.page.locator("td.best").count() == 1
    tag = tab.page.inner_text("#right-tag")
    detail = tables.nth(1).inner_text()
    assert tag.startswith("edsr-baseline")
    assert " dB / 0." in tag
    assert "+" in detail
    assert tab.page.locator("#plots svg").count() == 2
    assert tab.said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(browser, made, scheme):
    tab = Tab(browser, made, 390, 800, color_scheme=scheme, has_touch=True)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    paper = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 27)")
    assert tab.said == []


def test_compare_makes_a_page_of_ones_own_picture(browser, upres, small, tmp_path):
    done = upres("compare", small, "-s", "2", "--model", "edsr-light,lanczos")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == str(tmp_path / "small-compare.html")
    tab = Tab(browser, tmp_path / "small-compare.html")
    names = tab.page.locator("#left option").all_inner_texts()
    assert names == ["bicubic", "edsr-light", "lanczos"]
    assert tab.page.locator("table").count() == 0
    assert tab.said == []


def test_compare_says_ensembles_and_lays_transparency_on_white(upres, tmp_path):
    Image.new("RGBA", (24, 20), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    done = upres("compare", "clear.png", "-s", 2, "--model", "edsr-light", "--ensemble")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "clear-compare.html").read_text()
    data = json.loads(text.partition('type="application/json">')[2].partition("</script>")[0])
    layers = data["pictures"][0]["layers"]
    assert [name for name, _ in layers] == ["bicubic", "edsr-light+"]
    for _, uri in layers:
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as shown:
            assert shown.getextrema() == ((255, 255),) * 3


def test_compare_tells_what_upscaling_would(upres, photo, tmp_path):
    Image.fromarray(photo[:40, :50]).save(tmp_path / "a.jpg", quality=30)
    done = upres("compare", "a.jpg", "-s", 3, "--model", "auto")
    assert done.returncode == 0, done.stderr
    assert b"note: auto: JPEG of quality 30: its traces stay" in done.stderr


def test_names_of_pictures_command_no_terminal(upres, small, tmp_path):
    (tmp_path / "set").mkdir()
    shutil.copy(small, tmp_path / "set" / "a\x1b]0;b.png")
    done = upres("bench", "set", "-s", 2, "-m", "bicubic", "--pictures")
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout
    assert b"a\\x1b]0;b" in done.stdout


def test_compare_refuses_in_one_line(upres, small, tmp_path):
    assert upres("compare", small, "--model", "").returncode == 2
    assert upres("compare", small, "-o", "x.png").returncode == 4
    (tmp_path / "x.html").touch()
    assert upres("compare", small, "-o", "x.html").returncode == 4
    assert upres("compare", "none.png").returncode == 3
    assert b"is a folder" in upres("compare", ".").stderr
    Image.fromarray(np.full((40, 40), 4095, np.uint16)).save(tmp_path / "dark.png")
    done = upres("compare", "dark.png")
    assert (done.returncode, b"goes up to 4095 of 65535 only" in done.stderr) == (3, True)
    Image.fromarray(np.zeros((20, 20), np.float32)).save(tmp_path / "f.tif")
    done = upres("compare", "f.tif")
    assert done.returncode == 3
    assert b"floating-point values, which a page cannot show" in done.stderr


def test_a_page_of_many_pictures_stays_small(photo):
    """Set14 with ten models at one scale has 154 layers."""
    # Grainier than any photograph that is measured on.
    grain = np.random.default_rng(0).normal(0, 25, (512, 512, 3))
    whole = np.tile(photo, (2, 2, 1))[:512, :512]
    noise = np.clip(whole + grain, 0, 255).astype(np.uint8)
    gallery = Gallery(154)
    for model in range(10):
        gallery.add(f"m{model}", "set14", 4, "one of fourteen", noise, noise)
    text = page(Report(Settings(), (), (), ""), gallery, title="x", protocol="y")
    assert len(text) < 30_000_000 / 14
    (shown,) = gallery.shown.values()
    assert all(len(layer) <= gallery.share for layer in shown.layers.values())
    cropped = Gallery(154 * 30)
    cropped.add("m", "s", 2, "p", np.tile(photo, (3, 3, 1)), None)
    (shown,) = cropped.shown.values()
    left, top, right, bottom = shown.box
    assert max(right - left, bottom - top) < 300


def test_layers_are_what_was_made_to_the_last_bit(photo):
    """Between good models there is less difference than a lossy codec adds."""
    piece = photo[:90, :120]
    other = piece ^ 1
    gallery = Gallery(3)
    gallery.add("1", "", 2, "p", other, piece)
    (shown,) = gallery.shown.values()
    for made, want in ((shown.layers["1"], other), (shown.layers["truth"], piece)):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(made))), want)


def test_names_cannot_end_the_script(photo):
    gallery = Gallery(1)
    gallery.add("</script><b>", "s", 2, "</script>", photo, None)
    text = page(None, gallery, title="</script>", protocol="")
    assert text.count("</script>") == 2
