"""A contact sheet as one HTML file that needs nothing beside it: pictures inlined, sounds with players."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from PIL import Image, ImageOps

from .cards import SOUNDS, Card, Row
from .data.cache import replacing

SIDE = 320  # pixels of an inlined picture's longer side
INLINE = 500_000  # bytes up to which a sound is put into the page; a longer one is linked where it lies

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; color: #20242b; background: #fff; margin: 28px; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0; } p { margin: 2px 0; color: #7a828e; }
section { border-top: 1px solid #d9dce1; padding: 14px 0; } .cards { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 10px; }
figure { width: 172px; margin: 0; padding: 8px; box-sizing: border-box; border: 1px solid #d9dce1; border-radius: 10px; }
figure { background: #f4f5f7; }
figure.query { border: 4px solid #3b6fb6; padding: 5px; } figure.right { border: 4px solid #2e9e4f; padding: 5px; }
img { display: block; width: 100%; height: 130px; object-fit: contain; } audio { width: 100%; }
.words { min-height: 40px; overflow-wrap: anywhere; } figcaption { color: #7a828e; font-size: 12px; overflow-wrap: anywhere; }
.arrow { align-self: center; font-size: 26px; color: #7a828e; }
""".strip()


def html_sheet(rows: Sequence[Row], title: str, legend: str, path: Path) -> None:
    """Write the rows; every text is escaped."""
    body = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(legend)}</p>"]
    body += [_section(row, path.absolute().parent) for row in rows]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _section(row: Row, folder: Path) -> str:
    notes = " · ".join(row.notes)
    lines = [f"<section>\n<h2>{html.escape(row.title)}</h2>", f"<p>{html.escape(notes)}</p>" if notes else "", '<div class="cards">']
    lines += [_figure(card, "query", "", folder) for card in row.query]
    lines.append('<span class="arrow">→</span>')
    for number, (card, right) in enumerate(zip(row.answers, row.right, strict=True)):
        lines.append(_figure(card, "right" if right else "", row.captions[number] if row.captions else "", folder))
    return "\n".join([line for line in lines if line] + ["</div>\n</section>"])


def _figure(card: Card, kind: str, caption: str, folder: Path) -> str:
    words = html.escape(card.text)
    picture = _picture(card.path) if card.is_picture else None
    if picture:
        shown = f'<img src="{picture}" alt="{words}">'
    elif card.is_sound:
        shown = f'<div class="words">{words}</div><audio controls preload="none" src="{html.escape(_sound(card.path, folder))}"></audio>'
    else:
        shown = f'<div class="words">{words}</div>'
    under = " · ".join(html.escape(text) for text in (caption, card.id) if text)
    return f'<figure class="{kind}">{shown}<figcaption>{under}</figcaption></figure>'


def _picture(path: Path) -> str | None:
    """A data URI of the picture made small; None for a file that cannot be read."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _sound(path: Path, folder: Path) -> str:
    """A data URI, or where the sound is long or missing, its address as seen from the page."""
    try:
        if path.stat().st_size <= INLINE:
            return f"data:{SOUNDS[path.suffix.lower()]};base64," + base64.b64encode(path.read_bytes()).decode()
    except OSError:
        pass
    return quote(os.path.relpath(path, folder))
