"""Draw docs/explore.png: the page of `underone explore`, in a Chromium that is there already."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent / "explore.png"
MODEL = "fashion-mnist-preconditioned"
SHOWN = f"#left-model={MODEL}&left-steps=20&right-model={MODEL}&right-sampler=tuned&right-steps=5"
DRAWN = "[...document.querySelectorAll('.command')].every(each => each.textContent)"
CHOSEN = 18


def main() -> None:
    """Serve the page, look at it, and keep what is seen."""
    command = [sys.executable, "-m", "underone", "explore", "--port", "0", "--precision", "float32"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:  # noqa: S603
        try:
            said = serving.stderr.readline() if serving.stderr is not None else ""
            found = re.search(r"http://\S+:\d+", said)
            if found is None:
                raise SystemExit(f"the page is not served: {said}")
            look(f"{found[0]}/{SHOWN}")
        finally:
            serving.terminate()


def look(address: str) -> None:
    """Draw the page once both sides are drawn."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium
        browser = chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 960}, bypass_csp=True)
        page.goto(address)
        page.wait_for_function(DRAWN)
        page.evaluate(f"choose({CHOSEN})")
        page.screenshot(path=PICTURE, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
