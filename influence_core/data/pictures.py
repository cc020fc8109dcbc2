"""Images as bytes of an image file, and back."""

import io

import numpy as np
from PIL import Image

from influence_core.errors import UserError

PIXELS = 50_000_000  # of one image; more is refused before it is decoded
FORMATS = ("PNG", "JPEG", "PPM", "GIF", "BMP", "WEBP", "TIFF")  # none that starts another program, as EPS does


def decode(content: bytes, name: str) -> Image.Image:
    """Return an image; raises `UserError` naming one that cannot be read."""
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        if picture.width * picture.height > PIXELS:
            raise UserError(f"the image {name} has {picture.width} × {picture.height} pixels: make it smaller")
        picture.load()
    except UserError:
        raise
    except Exception as error:  # a damaged file can make Pillow's many readers raise anything
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the image {name} cannot be read ({said}): replace or drop it") from None
    return picture


def netpbm(pixels: np.ndarray) -> bytes:
    """Return uint8 pixels [H, W] or [H, W, 3] as an uncompressed image file (PGM or PPM).

    The bytes follow from the pixels alone, whatever library wrote them, so that they can be hashed.
    """
    height, width = pixels.shape[:2]
    kind = b"P5" if pixels.ndim == 2 else b"P6"
    return kind + f"\n{width} {height}\n255\n".encode() + np.ascontiguousarray(pixels, dtype=np.uint8).tobytes()
