"""The one reader of picture files: which formats, how large, how deep, in which mode, and which side is up."""

import io
import unicodedata
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

SUFFIXES = {
    ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
    ".webp",
}  # fmt: skip
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # by content: an EPS called .png is none
DEEPEST = 65535  # the largest value of a 16-bit pixel
_ORIENTATION = 0x0112  # EXIF: how the stored pixels are to be turned
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def name_of(path: Path, root: Path) -> str:
    """A file's path below a folder, with "/" and in Unicode's composed form (NFC), in which people type names."""
    return unicodedata.normalize("NFC", path.relative_to(root).as_posix())


def head(source: bytes | Path) -> Image.Image:
    """A picture whose pixels are not decoded yet, from the bytes of its file, or from the file.

    Raises:
        OSError: another format than `FORMATS`, more than 89 million pixels (Pillow's limit), or a damaged head.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise OSError(f"it is damaged, or no picture in one of the formats {', '.join(FORMATS)}") from error
    except OSError:
        raise
    except Exception as error:  # Pillow raises many types for damaged files
        raise OSError(str(error) or type(error).__name__) from error


def opened(data: bytes, draft: int | None = None) -> Image.Image:
    """A decoded picture from the bytes of its file, as they are stored: not turned, of any mode.

    Args:
        data: of the file, see `head`.
        draft: a JPEG may be decoded in grey, at a half, a quarter or an eighth of its size, but for this side at least;
            None = in full.

    Raises:
        OSError: another format, too many pixels, or damaged.
    """
    image = head(data)
    try:
        if draft is not None:
            image.draft("L", (draft, draft))
        image.load()
    except OSError:
        raise
    except Exception as error:  # Pillow raises many types for damaged files
        raise OSError(str(error) or type(error).__name__) from error
    return image


def read_picture(path: Path, draft: int | None = None) -> Image.Image:
    """A picture as it is seen: turned by its EXIF tag; 16-bit grey is mode I;16 whatever the format.

    Args:
        path: of the file.
        draft: see `opened`.

    Raises:
        ValueError: it cannot be read, or has 32 bits a pixel, whose range nobody knows. The text names the file.
    """
    try:
        image = opened(path.read_bytes(), draft)
        turned = turn(image, orientation(image))
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
            turned = Image.fromarray(np.asarray(turned).astype(np.uint16))
        if turned.mode in ("I", "F"):
            raise OSError(f"pixels of mode {turned.mode} (32 bit) have no fixed range; save it with 8 or 16 bits")
    except OSError as error:
        raise unreadable(path, error) from error
    return turned


def unreadable(path: Path, error: Exception) -> ValueError:
    """The error for a picture that cannot be opened or decoded."""
    return ValueError(f"image {path} cannot be read: {error}. Replace or remove it.")


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 … 8; 1 is upright. Pillow turns TIFF itself."""
    found = 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)
    return found if found in _TURNS else 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """A stored picture turned upright."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height as the picture is seen, from the head of its file. ValueError names one that has none."""
    try:
        with head(path) as image:
            return image.size[::-1] if orientation(image) >= 5 else image.size
    except OSError as error:
        raise unreadable(path, error) from error


def as_float(image: Image.Image, deepest: int = DEEPEST) -> np.ndarray:
    """(H, W, 1 or 3) float32 in [0, 1] of a picture as `read_picture` gives it; what is transparent lies on white.

    Args:
        image: of any mode but I and F.
        deepest: the value of 16-bit grey that is white: 4095 for a camera of 12 bits. What is above is white, too.
    """
    if image.mode == "I;16":
        return np.minimum(np.asarray(image, dtype=np.float32)[..., None] / deepest, 1)
    if image.has_transparency_data:
        top = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
        return top[..., :3] * top[..., 3:] + (1 - top[..., 3:])
    kept = image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")
    return np.asarray(kept, dtype=np.float32).reshape(image.height, image.width, -1) / 255


def as_8_bit(image: Image.Image, mode: str) -> Image.Image:
    """A picture as `read_picture` gives it, in mode L or RGB: 16 bits are divided by 257, transparent is white."""
    if image.mode == "I;16":
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        return Image.fromarray(np.rint(255 * as_float(image)).astype(np.uint8)).convert(mode)
    return image.convert(mode)


def grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 1 or 3) as (H, W, 1): 0.299 R + 0.587 G + 0.114 B."""
    return pixels if pixels.shape[2] == 1 else pixels @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32)
