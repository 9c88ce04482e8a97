"""Draws the manual's pictures of the exported page, as a desktop and a phone show it.

    python -m vgg_jax export --weights=speedrun --to=html --out=/tmp/page.html
    python -m benchmarks.page_picture /tmp/page.html --out=docs/images

Needs Chromium, whose screenshots of both widths stand side by side.
"""

import argparse
import io
from pathlib import Path

import PIL.Image

from benchmarks import chromium

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "examples/pictures/dog.png"
SIZES = ((1180, 800), (390, 800))  # of a desktop's window and a phone's
GAP = 20  # pixels between them


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    with chromium.Browser() as browser:
        browser.resize(*SIZES[0], "light")
        browser.open(options.page)
        browser.wait("document.querySelector('#said').textContent.startsWith('Ready')")
        browser.drop(PICTURE.name, PICTURE.read_bytes())
        browser.wait("current !== null")
        browser.evaluate("document.querySelector('#explain').click()")
        browser.wait("!document.querySelector('#heat').hidden")
        for scheme, between in (("light", "white"), ("dark", "black")):
            looks = [browser.look(*size, scheme) for size in SIZES]
            path = options.out / f"page-{scheme}.png"
            side_by_side(looks, between).save(path, optimize=True)
            print(path)


def side_by_side(looks: list[bytes], between: str) -> PIL.Image.Image:
    """Returns PNG files of the same height as one picture of few colours."""
    pictures = [PIL.Image.open(io.BytesIO(look)).convert("RGB") for look in looks]
    width = sum(picture.width + GAP for picture in pictures) - GAP
    both = PIL.Image.new("RGB", (width, pictures[0].height), between)
    left = 0
    for picture in pictures:
        both.paste(picture, (left, 0))
        left += picture.width + GAP
    return both.quantize(128)


if __name__ == "__main__":
    main()
