"""Images as a person looks at them: small ones enlarged in whole steps so that they stay crisp, large ones smaller."""

import base64
import io

import numpy as np
from PIL import Image


def drawn(image: Image.Image, side: int) -> Image.Image:
    """Return an image of 8 bits a channel whose longer side is at most ``side``, on white where it is transparent.

    One that is smaller is enlarged by the largest whole factor that fits, pixel by pixel.
    """
    image = eight_bits(image)
    longest = max(image.size)
    if longest > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return image
    factor = side // longest
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def eight_bits(image: Image.Image) -> Image.Image:
    """Return an image as grey or RGB; deeper pixels are spread from their least to their largest value."""
    if image.mode in ("1", "L", "RGB"):
        return image.convert("L") if image.mode == "1" else image.copy()
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        low, high = np.nanmin(values), np.nanmax(values)
        scaled = np.nan_to_num((values - low) / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray((255 * scaled).astype(np.uint8))
    layers = image.convert("RGBA")
    page = Image.new("RGBA", layers.size, "white")
    return Image.alpha_composite(page, layers).convert("RGB")


def png(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def png_url(file: bytes) -> str:
    """Return a PNG file as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(file).decode("ascii")
