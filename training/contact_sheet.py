"""Queries with their first answers as one picture or page: what a score of .2 looks like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont

from .batch import Batch
from .cards import ANSWERS, Card, Row, random_rows
from .contact_html import html_sheet
from .data.cache import replacing
from .errors import UserError
from .evaluator import Points

TILE, GAP, MARGIN, LABEL, FOOT = 188, 14, 28, 200, 22
MOST = 10  # answers side by side in a picture; a page wraps
INK, FAINT, PAPER, CARD = "#20242b", "#7a828e", "#ffffff", "#f4f5f7"
RIGHT, QUERY = "#2e9e4f", "#3b6fb6"


def contact_sheet(
    points: Points, batch: Batch, root: Path, path: Path, seed: int = 0, *, enrich: bool = False, metric: torch.Tensor | None = None
) -> None:
    """Draw one query of every direction with its first answers, the right ones framed green.

    The queries are drawn at random, not picked. root: the folder to which the items' paths are relative. path: .png or .html.
    """
    legend = (
        f"{len(batch)} items to choose from · green: right (the item itself or one of the same caption), "
        f"with its rank · R@{ANSWERS}: how often a right one is among five"
    )
    rows = random_rows(points, batch, root, seed, enrich=enrich, metric=metric)
    draw_sheet(rows, "Queries drawn at random, not picked, and their first five answers", legend, path)


def draw_sheet(rows: Sequence[Row], title: str, legend: str, path: Path) -> None:
    """Write rows as a picture (.png) or as a page with players for its sounds (.html); UserError for another ending."""
    check_sheet(path)
    if path.suffix.lower() != ".png":
        html_sheet(rows, title, legend, path)
        return
    left = max(len(row.query) for row in rows) if rows else 1
    right = min(max((len(row.answers) for row in rows), default=0), MOST)
    wide = MARGIN + LABEL + left * (TILE + GAP) + 56 + max(right, ANSWERS) * (TILE + GAP) - GAP + MARGIN
    high = TILE + GAP + FOOT * any(row.captions for row in rows)
    sheet = Image.new("RGB", (wide, 96 + len(rows) * high + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 28), title, INK, _font(26, bold=True))
    draw.text((MARGIN, 62), legend, FAINT, _font(18))
    for number, row in enumerate(rows):
        _draw_row(sheet, row, 96 + number * high, left)
    with replacing(path) as temporary:
        sheet.save(temporary, optimize=True)


def check_sheet(path: Path) -> None:
    """UserError for a sheet that is neither a picture nor a page: before the work, not after it."""
    if path.suffix.lower() not in (".png", ".html", ".htm"):
        raise UserError(f"--sheet {path}: expected a name that ends in .html or .png")


def _draw_row(sheet: Image.Image, row: Row, y: int, left: int) -> None:
    draw = ImageDraw.Draw(sheet)
    asked, _, answered = row.title.partition(" → ")
    draw.text((MARGIN, y + 30), asked, INK, _font(21, bold=True))
    draw.text((MARGIN, y + 60), f"→ {answered}", INK, _font(21, bold=True))
    for number, note in enumerate(row.notes):
        hit = number == 0 and any(row.right)
        draw.text((MARGIN, y + 102 + 26 * number), note, RIGHT if hit else FAINT, _font(17))
    x = MARGIN + LABEL + (left - len(row.query)) * (TILE + GAP)
    for card in row.query:
        _draw_tile(sheet, card, (x, y), QUERY)
        x += TILE + GAP
    middle = y + TILE // 2
    draw.line((x + 4, middle, x + 34, middle), FAINT, 4)
    draw.polygon([(x + 30, middle - 9), (x + 44, middle), (x + 30, middle + 9)], FAINT)
    x += 56
    for number, (card, right) in enumerate(zip(row.answers[:MOST], row.right, strict=False)):
        _draw_tile(sheet, card, (x, y), RIGHT if right else None)
        if row.captions:
            draw.text((x + TILE // 2, y + TILE + 3), row.captions[number], FAINT, _font(15), anchor="ma")
        x += TILE + GAP


def _draw_tile(sheet: Image.Image, card: Card, corner: tuple[int, int], frame: str | None) -> None:
    draw = ImageDraw.Draw(sheet)
    x, y = corner
    box = (x, y, x + TILE - 1, y + TILE - 1)
    draw.rounded_rectangle(box, 10, CARD)
    picture = _picture(card.path) if card.is_picture else None
    if picture is not None:
        draw.rounded_rectangle(box, 10, _ground(picture))
        sheet.paste(picture, (x + (TILE - picture.width) // 2, y + (TILE - picture.height) // 2))
    elif card.is_sound:
        _draw_speaker(draw, x + TILE // 2, y + 38)
        _draw_text(draw, card.text, (x + 14, y + 70, x + TILE - 14, y + TILE - 12))
    else:
        _draw_text(draw, card.text, (x + 14, y + 12, x + TILE - 14, y + TILE - 12))
    draw.rounded_rectangle(box, 10, outline=frame or "#d9dce1", width=6 if frame else 1)


def _picture(path: Path) -> Image.Image | None:
    """The image inside a tile, transparency on the tile's own colour; None for a file that cannot be read (the words stand in)."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    scale = min((TILE - 20) / image.width, (TILE - 20) / image.height, 3.0)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS)
    ground = Image.new("RGBA", image.size, CARD)
    return Image.alpha_composite(ground, image).convert("RGB")


def _ground(picture: Image.Image) -> str | tuple[int, int, int]:
    """The colour of a picture's ground, where two of its corners agree on one, so that the tile goes on from it."""
    right, low = picture.width - 1, picture.height - 1
    corners = Counter(picture.getpixel(at) for at in ((0, 0), (right, 0), (0, low), (right, low)))
    colour, count = corners.most_common(1)[0]
    return colour if count > 1 else CARD


def _draw_speaker(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """A loudspeaker, centred at (x, y)."""
    draw.polygon([(x - 20, y - 7), (x - 11, y - 7), (x, y - 16), (x, y + 16), (x - 11, y + 7), (x - 20, y + 7)], FAINT)
    for radius in (9, 16):
        draw.arc((x + 2 - radius, y - radius, x + 2 + radius, y + radius), -50, 50, FAINT, 3)


def _draw_text(draw: ImageDraw.ImageDraw, text: str, box: tuple[int, int, int, int]) -> None:
    """Text wrapped and centred in a box, at the largest of a few sizes that fits; cut with an ellipsis at the smallest."""
    left, top, right, bottom = box
    for size in (22, 19, 16, 14):
        font = _font(size)
        lines = _wrap(draw, text, font, right - left)
        if len(lines) * size * 1.25 <= bottom - top and all(draw.textlength(line, font) <= right - left for line in lines):
            break
    room = max(1, int((bottom - top) / (size * 1.25)))
    if len(lines) > room:
        lines = [*lines[: room - 1], lines[room - 1] + " …"]
    y = (top + bottom) / 2 - len(lines) * size * 1.25 / 2
    for line in lines:
        draw.text(((left + right) / 2, y), line, INK, font, anchor="ma")
        y += size * 1.25


def _wrap(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and draw.textlength(joined, font) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines or [""]


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"  # comes with matplotlib, so it is always there
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
