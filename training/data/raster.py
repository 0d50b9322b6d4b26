"""Pictures of any kind to small PNGs."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from ..encoders.image import flatten, open_image
from ..errors import CorruptFile
from .cache import replacing

LONGEST = 256  # px of the longer side: a little over what the encoders take


def rasterise(source: Path, target: Path) -> None:
    """Writes ``source`` (svg or any format that Pillow reads) as an RGB PNG of at most 256 px.

    Transparent margins are cut off and what is transparent inside is laid on mid grey.

    Raises CorruptFile that names a file that cannot be read; ``target`` then does not exist. UserError when the disk refuses.
    """
    image = _draw(source) if source.suffix.lower() == ".svg" else open_image(source)
    seen = image.getchannel("A").getbbox()
    if seen is None:
        raise CorruptFile(f"{source}: every pixel is transparent")
    image = flatten(image.crop(seen))
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    with replacing(target) as temporary:
        image.save(temporary, optimize=False)


def _draw(source: Path) -> Image.Image:
    import resvg_py

    try:
        # without dpi, resvg_py refuses sizes in points; system fonts would make the picture depend on the machine
        png = resvg_py.svg_to_bytes(svg_path=str(source), dpi=96, width=3 * LONGEST // 2, skip_system_fonts=True)
        with Image.open(io.BytesIO(png)) as image:
            return image.convert("RGBA")
    except Exception as error:  # resvg_py raises what its parser raises
        raise CorruptFile(f"{source}: not an SVG that can be drawn: {error}") from error
