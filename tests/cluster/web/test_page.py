"""The page in a real browser: photos are dropped, a thing is painted with the mouse or a finger, and masks come out."""

import contextlib
import os
import shutil
import threading
import time
import zipfile

import numpy as np
import pytest
import uvicorn
from PIL import Image

from cluster.config.serve import ServeConfig
from cluster.web.app import build
from tests.cluster.web.conftest import Here
from tests.fss.conftest import noise_image
from tests.rays import free_ports

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.actions.action_builder import ActionBuilder  # noqa: E402
from selenium.webdriver.common.actions.pointer_input import PointerInput  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

TOKEN = "0123456789abcdef"
PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
SIZE = (300, 200)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(PROGRAMS.values()), reason=f"expected chromium and chromedriver, got {PROGRAMS}"),
]


@pytest.fixture(scope="module")
def address(segmenter):
    (port,) = free_ports(1)
    page = build(Here(segmenter), ServeConfig(model="m", name="ball", token=TOKEN))
    server = uvicorn.Server(uvicorn.Config(page, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for number in range(3):
        noise_image(number, SIZE).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def browse(tmp_path, address, files):
    """A function (width, height, touch) -> a browser in which the page has the token and the photos."""
    with contextlib.ExitStack() as stack:

        def make(width, height, touch=False):
            options = webdriver.ChromeOptions()
            options.binary_location = PROGRAMS["chromium"]
            options.add_argument("--headless=new")
            options.add_argument("--disable-dev-shm-usage")
            if os.geteuid() == 0:  # for whom Chromium's sandbox does not start
                options.add_argument("--no-sandbox")
            metrics = {"width": width, "height": height, "pixelRatio": 1.0, "touch": touch}
            options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
            options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
            options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
            browser = webdriver.Chrome(options, webdriver.ChromeService(PROGRAMS["chromedriver"]))
            stack.callback(browser.quit)
            browser.get(address)
            wait(browser, lambda: one(browser, "#ask").get_attribute("open"))
            one(browser, "#token").send_keys(TOKEN)
            one(browser, "#ask button").click()
            wait(browser, lambda: one(browser, "#model").text == "correlation on small")
            one(browser, "#files").send_keys("\n".join(map(str, files)))
            wait(browser, lambda: len(states(browser)) == len(files))
            return browser

        yield make


def one(browser, selector):
    return browser.find_element("css selector", selector)


def wait(browser, condition):
    WebDriverWait(browser, 300).until(lambda _: condition())


def states(browser):
    return [photo.get_attribute("data-state") for photo in browser.find_elements("css selector", ".photo")]


def answered(browser):
    return one(browser, "#download").is_enabled()


def choose(browser, tool):
    one(browser, f"input[value={tool}] + span").click()


def drag(browser, start, end, pointer="mouse"):
    """Press at one place of the editor, shares of its size from the middle on, and move to another."""
    editor = one(browser, "#editor")
    size = np.array([editor.size["width"], editor.size["height"]])
    builder = ActionBuilder(browser, mouse=PointerInput(pointer, pointer))
    act = builder.pointer_action
    for step, share in enumerate(np.linspace(start, end, 6)):
        across, down = np.rint(share * size).astype(int).tolist()
        act.move_to(editor, across, down)
        if step == 0:
            act.pointer_down()
    act.pointer_up()
    builder.perform()


def unzipped(folder):
    """The masks of the zip that the browser stores, by their names."""
    while not (folder / "masks.zip").is_file():  # else the test's own limit ends it
        time.sleep(0.1)
    with zipfile.ZipFile(folder / "masks.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        assert set(archive.namelist()) - set(names) == {"coco.json"}
        return {name: np.asarray(Image.open(archive.open(name))) for name in names}


def quiet(browser, address):
    """Whether the page made no error, and asked nobody but its server."""
    asked = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert asked
    assert [name for name in asked if not name.startswith((address, "blob:", "data:"))] == []
    told = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    return [message for message in told if "401" not in message] == []  # before the token was given


def test_what_is_painted_with_the_mouse_is_found_corrected_and_stored(browse, tmp_path, address):
    browser = browse(1280, 900)
    choose(browser, "paint")
    drag(browser, (-0.3, 0), (0.3, 0))
    wait(browser, lambda: answered(browser))
    first, *others = states(browser)
    assert first == "example"
    assert set(others) <= {"found", "absent"}
    assert one(browser, "#state").text.endswith("of 2 hold it, by 1 example")

    browser.find_elements("css selector", ".photo")[1].click()
    drag(browser, (-0.3, 0.3), (0.3, 0.3))
    wait(browser, lambda: states(browser)[1] == "found" and "corrected" in one(browser, "[aria-current=true]").text)
    one(browser, "#example").click()
    wait(browser, lambda: one(browser, "#state").text.endswith("of 1 hold it, by 2 examples"))
    assert states(browser)[:2] == ["example", "example"]

    one(browser, "#download").click()
    masks = unzipped(tmp_path)
    assert list(masks) == ["0.png", "1.png", "2.png"]
    width, height = SIZE
    for mask in masks.values():
        assert (mask.shape, set(np.unique(mask)) <= {0, 1}) == ((height, width), True)
    painted = masks["0.png"]
    assert painted[height // 2, round(0.25 * width) : round(0.75 * width)].all()
    assert not painted[: height // 4].any()
    assert not painted[:, : width // 10].any()
    assert masks["1.png"][round(0.8 * height), round(0.25 * width) : round(0.75 * width)].all()
    assert quiet(browser, address)


def test_a_click_and_undo(browse, address):
    browser = browse(1280, 900)
    ActionChains(browser).move_to_element(one(browser, "#editor")).click().perform()
    wait(browser, lambda: answered(browser))
    assert states(browser)[0] == "example"
    one(browser, "#undo").click()  # then nothing is shown any more
    wait(browser, lambda: set(states(browser)) == {"new"} and not answered(browser))
    assert quiet(browser, address)


def test_a_box_around_a_thing(browse, tmp_path, address):
    browser = browse(1280, 900)
    choose(browser, "box")
    drag(browser, (0, 0), (0.001, 0.001))  # that was a click
    assert set(states(browser)) == {"new"}
    drag(browser, (-0.2, -0.3), (0.3, 0.1))
    wait(browser, lambda: answered(browser))
    assert states(browser)[0] == "example"
    one(browser, "#download").click()
    mask = unzipped(tmp_path)["0.png"]
    rows, columns = np.nonzero(mask)
    assert 38 <= rows.min() <= rows.max() < 122, "the box, give or take a pixel of the screen"
    assert 88 <= columns.min() <= columns.max() < 242
    assert quiet(browser, address)


def test_a_phone_paints_with_a_finger_and_nothing_is_cut_off(browse, address):
    browser = browse(390, 844, touch=True)
    choose(browser, "paint")
    drag(browser, (-0.3, -0.1), (0.3, 0.1), pointer="touch")
    wait(browser, lambda: answered(browser))
    assert states(browser)[0] == "example"
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    assert browser.execute_script("return window.scrollY") == 0  # the finger painted, and moved nothing else
    small = browser.execute_script(
        "return [...document.querySelectorAll('button, .choice span, .button')].filter((one) => one.offsetHeight && "
        "one.offsetHeight < 40).map((one) => one.textContent)"
    )
    assert small == []  # all can be hit with a thumb
    assert quiet(browser, address)


def test_the_api_has_a_page(browse, address):
    browser = browse(390, 844)
    browser.get(f"{address}docs")
    wait(browser, lambda: len(browser.find_elements("css selector", "section")) == 9)
    assert "-F image=@FILE \\\n    -F mask=@FILE" in browser.find_element("tag name", "main").text
    assert "POST/segment" in one(browser, ".api").text.replace(" ", "").replace("\n", "")
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    assert quiet(browser, address)
