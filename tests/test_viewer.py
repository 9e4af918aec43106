"""The volume viewer draws what is asked for; and in a browser, where there is one, JupyterLab runs the quick
start, a slider is moved and the picture changes.
"""

import os
import re
import shutil
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from common import ROOT

from cryoetgan_core.paper.viewer import EVERY, slices, view
from cryoetgan_core.volumes.lazy import LazyVolumes
from cryoetgan_core.volumes.table import ParticleSet, particle_table

BOX = 8


def particles(seed=0, classes=("a", "a", "b"), box=BOX):
    volumes = np.random.default_rng(seed).normal(size=(len(classes), box, box, box)).astype(np.float32)
    return ParticleSet(
        volumes,
        particle_table(len(classes), class_name=list(classes), particle=[f"p{i}" for i in range(len(classes))]),
        10.0,
    )


def drawn(figure):
    """Slices by row and plane, as they were given to the axes."""
    axes = np.array(figure.axes).reshape(-1, 3)
    plt.close(figure)
    return [[a.images[0].get_array() if a.images else None for a in row] for row in axes], axes


def test_the_slices_are_those_asked_for():
    real, made = particles(0), particles(1)
    found, _ = drawn(slices({"real": real, "generated": made}, EVERY, 1, 2, 3, 5))
    for row, volume in zip(found, (real.volumes[1], made.volumes[1]), strict=True):
        for cut, wanted in zip(row, (volume[2], volume[:, 3], volume[:, :, 5]), strict=True):
            np.testing.assert_array_equal(cut, wanted)
    found, axes = drawn(slices({"real": real}, "b", 1, 2, 3, 5))  # there is one of this class
    np.testing.assert_array_equal(found[0][0], real.volumes[2][2])
    assert axes[0, 0].get_title(loc="left") == "real: b, p2"


def test_sets_that_do_not_hold_a_class_say_so_and_disk_is_read_one_at_a_time():
    read = []
    lazy = LazyVolumes(lambda i: read.append(i) or np.zeros((BOX,) * 3, np.float32), BOX, list("xyz"))
    sets = {"real": particles(), "disk": ParticleSet(lazy, particle_table(3, class_name="a"), 10.0)}
    drawn(slices(sets, EVERY, 1, 0, 0, 0))
    assert read == [1]
    found, axes = drawn(slices(sets, "b", 0, 0, 0, 0))
    assert found[1] == [None] * 3 and "none of this class" in axes[1, 0].get_title(loc="left")


@pytest.mark.parametrize("sets", [{}, {"a": particles(), "b": particles(box=6)}], ids=["nothing", "two boxes"])
def test_sets_that_cannot_be_shown_are_refused(sets):
    with pytest.raises(ValueError, match="view: sets"):
        view(sets)


def browser():
    """A headless Chromium, or None; Debian: chromium and chromium-driver."""
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not program or not driver:
        return None
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1600"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))


@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="no chromium and chromium-driver on this machine",
)
def test_in_a_browser_the_quick_start_runs_and_a_slider_changes_the_picture(tmp_path):
    from selenium.common.exceptions import ElementClickInterceptedException, TimeoutException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    notebook = nbformat.read(ROOT / "notebooks" / "quick_start.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = re.sub(r"per_class: int = \d+", "per_class: int = 8", cell.source)
    for c in notebook.cells:
        if c.cell_type == "code":
            c.outputs, c.execution_count = [], None
    nbformat.write(notebook, tmp_path / "quick_start.ipynb")
    # all cells are drawn, not only those in view
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')
    news = tmp_path / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    environment = os.environ | {
        "HOME": str(tmp_path),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTER_CONFIG_DIR": str(tmp_path),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_NUM_THREADS": "1",
    }
    log = (tmp_path / "lab.log").open("w")
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--port=0",
        "--IdentityProvider.token=test",
        f"--notebook-dir={tmp_path}",
    ]
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    driver = None
    try:
        deadline, address = time.monotonic() + 60, None
        while address is None and time.monotonic() < deadline:
            address = re.search(r"http://127\.0\.0\.1:\d+/lab\?token=", (tmp_path / "lab.log").read_text())
            time.sleep(0.2)
        assert address, (tmp_path / "lab.log").read_text()[-2000:]
        driver = browser()
        wait = WebDriverWait(driver, 180)
        base = address.group().removesuffix("lab?token=")
        driver.get(f"{base}lab/tree/quick_start.ipynb?token=test&reset")
        wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, ".jp-NotebookPanel .jp-Cell"))
        wait.until(lambda d: "Idle" in d.page_source)

        def run_all():
            run_menu = next(e for e in driver.find_elements(By.CSS_SELECTOR, ".lm-MenuBar-item") if e.text == "Run")
            run_menu.click()
            wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, 'li[data-command="runmenu:run-all"]'))[0].click()

        def dialogs():
            return driver.find_elements(By.CSS_SELECTOR, ".jp-Dialog button.jp-mod-accept")

        def picture():
            found = driver.find_elements(By.CSS_SELECTOR, "img.widget-image")
            return found[0].get_attribute("src") if found else None

        for _ in range(15):  # the page may ask which kernel to take, or cover its menu
            try:
                if "Idle" in driver.page_source:  # else it runs: once more would begin anew
                    run_all()
                WebDriverWait(driver, 20).until(lambda d: picture() or dialogs())
            except (TimeoutException, ElementClickInterceptedException):
                pass
            for button in dialogs():
                button.click()
            if picture():
                break
        before = picture()
        assert before
        driver.save_screenshot(str(tmp_path / "before.png"))
        slider = driver.find_elements(By.CSS_SELECTOR, ".widget-hslider .noUi-handle")
        along_z = next(
            h
            for h in slider
            if "z" == h.find_element(By.XPATH, "ancestor::div[contains(@class,'widget-hslider')]").text.split("\n")[0]
        )
        along_z.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
        wait.until(lambda d: picture() not in (None, before))
        driver.save_screenshot(str(tmp_path / "after.png"))
        if os.environ.get("SCREENSHOTS"):
            for name in ("before.png", "after.png"):
                shutil.copy(tmp_path / name, os.environ["SCREENSHOTS"])
    finally:
        if driver is not None:
            driver.quit()
        server.terminate()
        server.wait(30)
        log.close()
