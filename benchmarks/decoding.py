"""Milliseconds to decode, scale and crop one JPEG, by library.

    python -m benchmarks.decoding --folder=photos

Which library `data.picture_folder` should decode with: Pillow as it is, Pillow's
`draft` (decoding at a half, a quarter, an eighth where that loses nothing), simplejpeg
with the same, OpenCV, pyvips. Each picture is scaled to a smaller side of 256, 384 and
512 pixels and 224x224 are cut out. `benchmarks.pictures_speed --make` writes a folder;
libraries that are not installed are left out.
"""

import argparse
import importlib
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image

from vgg_jax import machine
from vgg_jax.data.framing import Frame

_ROUNDS = 5


def pillow(data: bytes, frame: Frame) -> np.ndarray:
    """Decodes all pixels."""
    with PIL.Image.open(io.BytesIO(data)) as picture:
        return np.asarray(frame.cut(picture.convert("RGB")))


def pillow_draft(data: bytes, frame: Frame) -> np.ndarray:
    """Decodes as few as suffice."""
    with PIL.Image.open(io.BytesIO(data)) as picture:
        picture.draft("RGB", frame.drafted(*picture.size))
        return np.asarray(frame.cut(picture.convert("RGB")))


def simplejpeg(data: bytes, frame: Frame) -> np.ndarray:
    """Decodes as few as suffice; Pillow scales them."""
    library = importlib.import_module("simplejpeg")
    height, width, _, _ = library.decode_jpeg_header(data)
    wide, high = frame.drafted(width, height)
    found = library.decode_jpeg(data, "RGB", min_height=high, min_width=wide)
    return np.asarray(frame.cut(PIL.Image.fromarray(found)))


def opencv(data: bytes, frame: Frame) -> np.ndarray:
    """Decodes all pixels; OpenCV scales the crop."""
    library = importlib.import_module("cv2")
    found = library.imdecode(np.frombuffer(data, np.uint8), library.IMREAD_COLOR_RGB)
    left, top, right, bottom = map(round, frame.box(found.shape[1], found.shape[0]))
    size, area = (frame.size, frame.size), library.INTER_AREA
    return library.resize(found[top:bottom, left:right], size, interpolation=area)


def pyvips(data: bytes, frame: Frame) -> np.ndarray:
    """Decodes as few as suffice and scales them itself."""
    library = importlib.import_module("pyvips")
    whole = library.Image.new_from_buffer(data, "")
    wide, high = frame.drafted(whole.width, whole.height)
    scaled = library.Image.thumbnail_buffer(data, wide, height=high, size="force")
    left, top = (side - frame.size for side in (wide, high))
    return scaled.crop(left // 2, top // 2, frame.size, frame.size).numpy()


LIBRARIES: dict[str, Callable[[bytes, Frame], np.ndarray]] = {
    "Pillow": pillow,
    "Pillow, draft": pillow_draft,
    "simplejpeg": simplejpeg,
    "OpenCV": opencv,
    "pyvips": pyvips,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=40)
    options = parser.parse_args()
    print(machine.environment(), flush=True)
    files = sorted(options.folder.glob("*/*.jpg"))
    files = files[:: max(1, len(files) // options.pictures)]
    kinds: dict[int, list[bytes]] = {}
    for file in files:
        with PIL.Image.open(file) as picture:
            kinds.setdefault(max(picture.size), []).append(file.read_bytes())
    for side, pictures in sorted(kinds.items()):
        for scale in (256, 384, 512):
            seconds = {name: [] for name in LIBRARIES}
            frame = Frame(scale, 224, 0.4, 0.6)
            for _ in range(_ROUNDS):
                for name, decode in LIBRARIES.items():
                    try:
                        start = time.perf_counter()
                        for data in pictures:
                            decode(data, frame)
                        seconds[name].append(time.perf_counter() - start)
                    except ImportError:
                        continue
            best = {n: 1e3 * min(s) / len(pictures) for n, s in seconds.items() if s}
            said = "  ".join(f"{name} {ms:.2f}" for name, ms in best.items())
            print(f"{len(pictures)} of {side} pixels, scale {scale}: {said} ms")


if __name__ == "__main__":
    main()
