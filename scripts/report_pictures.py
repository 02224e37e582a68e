"""Photograph the five screens of a report in light, dark and at phone width, for docs/report.md.

python scripts/report_pictures.py demo/report/index.html docs/images   # needs chromium, playwright and pillow
"""

import argparse
import shutil
from pathlib import Path

SCREENS = ("answer", "explore", "feature", "edge", "evidence")
LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 860}},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
}
COLOURS = 200
"""Of a picture: enough for a page of few, and half the bytes."""


def main() -> None:
    """Take the pictures."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--grade", default="sizeable", help="grade of the edges shown")
    parser.add_argument("--search", default="CD3D")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for look, context in LOOKS.items():
            tab = browser.new_context(**context).new_page()
            tab.goto(f"{options.page.resolve().as_uri()}#explore?grade={options.grade}&q={options.search}&most=120")
            row = tab.locator("[data-part=ranked] tbody tr").first
            row.wait_for()
            edge, node = (row.locator("a").nth(i).get_attribute("href").split("=")[-1] for i in (0, 1))
            tab.evaluate(f"location.hash += '&node={node}&edge={edge}'")
            for screen in SCREENS:
                tab.click(f".top nav a[data-screen={screen}]")
                tab.wait_for_timeout(500)
                path = options.out / f"report-{screen}-{look}.png"
                tab.screenshot(path=path)
                Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
