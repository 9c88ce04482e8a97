"""One picture of any kind: its pixels as 8 bits per channel, at one size."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import PIL.Image
import PIL.ImageOps

_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of grey pictures
_BITS_PER_SAMPLE = 258  # TIFF tag
# Formats that Pillow writes only, or recognises and leaves to other programs.
_NEVER_READ = {"BUFR", "GRIB", "HDF5", "MPEG", "PALM", "PDF", "WMF"}
_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")


def accept_large() -> None:
    """Silences Pillow's warning of pictures of more than 89 million pixels.

    Those of more than twice as many stay an error of `PIL.Image.open`.
    """
    warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)


def suffixes() -> set[str]:
    """Returns the endings of names, in lower case, of the formats that Pillow reads.

    >>> {".jpg", ".jpeg", ".png"} <= suffixes(), ".pdf" in suffixes()
    (True, False)
    """
    known = PIL.Image.registered_extensions()
    return {suffix for suffix, form in known.items() if form not in _NEVER_READ}


def eight_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Returns a picture whose values are from 0 to 255; grey of 16 bits is scaled.

    65,535, or the largest value of a TIFF of fewer bits, becomes 255. Pillow's own
    `convert` would clip: everything above 255 would be white.

    Raises:
        ValueError: what is white is not defined: numbers of 32 bits, signed or float.
    """
    if picture.mode in _SIXTEEN_BITS:
        bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
    elif picture.mode == "I" and picture.format == "PPM":  # scaled to 16 bits by Pillow
        bits = 16
    elif picture.mode in ("I", "F"):
        raise ValueError(
            f"its values are {'floats' if picture.mode == 'F' else 'signed or 32 bits'}"
            ", which of them is white is not defined; save it with 8 or 16 bits"
        )
    else:
        return picture
    values = np.asarray(picture, np.float64)
    return PIL.Image.fromarray(np.rint(values * (255 / (2**bits - 1))).astype(np.uint8))


def is_transparent(picture: PIL.Image.Image) -> bool:
    """Returns whether some pixels may let the background through."""
    return picture.mode in _TRANSPARENT or "transparency" in picture.info


def rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Returns a picture in RGB; where it is transparent, on white.

    Raises:
        ValueError: there is no conversion; see `eight_bits`.
    """
    picture = eight_bits(picture)
    if not is_transparent(picture):
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    picture = picture.convert("RGBA")
    white = PIL.Image.new("RGBA", picture.size, "white")
    return PIL.Image.alpha_composite(white, picture).convert("RGB")


def fit(picture: PIL.Image.Image, size: int) -> PIL.Image.Image:
    """Scales the smaller side to `size` pixels, then cuts out the centre square.

    Bilinear, and antialiased where that makes it smaller. One of that size stays as
    it is.
    """
    if picture.size == (size, size):
        return picture
    picture = scale(picture, size)
    left, top = (centred(side, size) for side in picture.size)
    return picture.crop((left, top, left + size, top + size))


def scale(picture: PIL.Image.Image, size: int) -> PIL.Image.Image:
    """Scales a picture isotropically, so that its smaller side has `size` pixels.

    Bilinear, and antialiased where that makes it smaller. One whose smaller side has
    that size stays as it is.
    """
    if min(picture.size) == size:
        return picture
    return picture.resize(
        scaled_size(*picture.size, size), PIL.Image.Resampling.BILINEAR
    )


def scaled_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Returns width and height in pixels once the smaller side is scaled to `size`.

    The longer side is cut down to whole pixels, as in torchvision's `Resize`, with
    which the published numbers of its networks were measured.

    >>> scaled_size(451, 333, 256)
    (346, 256)
    """
    smaller = min(width, height)
    return width * size // smaller, height * size // smaller


def centred(side: int, size: int) -> int:
    """Returns where a centred crop of `size` pixels starts in `side` pixels.

    Half a pixel goes to the even number, as in torchvision's `CenterCrop`.

    >>> [centred(side, 4) for side in (4, 5, 6, 7)]
    [0, 0, 1, 2]
    """
    return round((side - size) / 2)


def upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Decodes a picture and returns it as its camera was held, in RGB.

    Raises:
        ValueError: there is no conversion; see `eight_bits`.
    """
    picture.load()
    PIL.ImageOps.exif_transpose(picture, in_place=True)
    return rgb(picture)


def read(file: str | Path, size: int, channels: int = 3) -> np.ndarray:
    """Returns a picture in a file, uint8 `[size, size, channels]`, upright, by `fit`.

    Args:
        file: of any format that Pillow reads.
        size: height and width in pixels.
        channels: 3 for RGB, 1 for grey (ITU-R 601-2 luma).

    Raises:
        ValueError: it is no picture that has a conversion to RGB; the message is why.
    """
    with opened(file) as picture:
        found = fit(upright(picture), size)
        pixels = np.asarray(found if channels == 3 else found.convert("L"))
        return pixels.reshape(size, size, channels)


@contextlib.contextmanager
def opened(file: str | Path | IO[bytes]) -> Iterator[PIL.Image.Image]:
    """Opens a picture; whatever is wrong with it, while it is used, is a `ValueError`.

    Raises:
        ValueError: it is no picture, or a damaged one; the message is why.
    """
    try:
        with PIL.Image.open(file) as picture:
            yield picture
    except PIL.UnidentifiedImageError as error:
        raise ValueError("it has no format that Pillow reads") from error
    except MemoryError as error:
        raise ValueError("it takes more memory than there is") from error
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except (SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
