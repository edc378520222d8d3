"""Make the pictures and numbers of README.md's head from one run on drawn images, in docs/.

make pictures
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent
NUMBERS = DOCS / "readme.json"

# More lesions than the demo has, so that its test subset is large enough for intervals.
RUN = ("+experiment=demo", "data.reader.lesions=560", "trainer.max_epochs=14", "logger=csv")
SECTIONS = ("h1", "h2:text('Groups')", "h2:text('Photographs')")
VIEW = {"width": 720, "height": 640}
GAP = 16


def main() -> None:
    """Train, evaluate, and take the pictures and numbers from what that left."""
    with tempfile.TemporaryDirectory() as name:
        run, evaluation = Path(name) / "run", Path(name) / "evaluation"
        call("train", *RUN, f"data.root={name}/data", f"hydra.run.dir={run}")
        call("evaluate", f"ckpt={run}/checkpoints/best.ckpt", f"hydra.run.dir={evaluation}")
        with Image.open(run / "predictions.png") as picture:
            picture.convert("RGB").save(DOCS / "demo_predictions.jpg", quality=88)
        photograph(evaluation / "report.html").save(DOCS / "report.png", optimize=True)
        record = json.loads((evaluation / "evaluation.json").read_text(encoding="utf-8"))
    numbers = {key: record[key] for key in ("images", "lesions")}
    numbers |= {end: record["scores"]["dice"][end] for end in ("mean", "low", "high")}
    NUMBERS.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    print(f"The caption in README.md goes by {NUMBERS}; tests/test_readme.py compares them.")


def call(command: str, *overrides: str) -> None:
    """Run a command of skinseg."""
    subprocess.run([sys.executable, "-m", f"skinseg.{command}", *overrides], check=True)


def photograph(page_file: Path) -> Image.Image:
    """Return parts of a report side by side, as a browser shows them."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=VIEW)
        page.goto(page_file.as_uri())
        parts = []
        for section in SECTIONS:
            page.locator(section).first.evaluate("node => window.scrollTo(0, node.offsetTop - 60)")
            parts.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))
        browser.close()
    width = sum(part.width for part in parts) + GAP * (len(parts) - 1)
    sheet = Image.new("RGB", (width, VIEW["height"]), (214, 219, 215))
    for number, part in enumerate(parts):
        sheet.paste(part, (number * (VIEW["width"] + GAP), 0))
    return sheet.quantize(256)


if __name__ == "__main__":
    main()
