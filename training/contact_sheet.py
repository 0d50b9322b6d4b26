"""Queries with their first answers as one picture: what a score of .2 looks like."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont

from .batch import Batch
from .data.cache import replacing
from .data.manifest import Item
from .evaluator import Direction, Ranking, directions, rank_direction
from .metrics import rank
from .report import arrows
from .seeding import derive

TILE, GAP, MARGIN, LABEL = 188, 14, 28, 200
INK, FAINT, PAPER, CARD = "#20242b", "#7a828e", "#ffffff", "#f4f5f7"
RIGHT, QUERY = "#2e9e4f", "#3b6fb6"
ANSWERS = 5


@dataclass(frozen=True)
class Row:
    """One query and the items that came first."""

    direction: Direction
    query: Item
    answers: list[Item]
    right: list[bool]
    rank: int  # of the first right answer, from 1
    recall: float  # share of this direction's queries with a right answer among the first five


def contact_sheet(points: dict[tuple[str, ...], torch.Tensor], batch: Batch, root: Path, path: Path, seed: int = 0, *, enrich: bool = False, metric: torch.Tensor | None = None) -> None:
    """Draw one query of every direction with its first answers, the right ones framed green.

    The queries are drawn at random, not picked. root: the folder to which the items' paths are relative.
    """
    rows = choose(points, batch, seed)
    wide = MARGIN + LABEL + 2 * (TILE + GAP) + 56 + ANSWERS * (TILE + GAP) - GAP + MARGIN
    sheet = Image.new("RGB", (wide, 96 + len(rows) * (TILE + GAP) + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 28), "Queries drawn at random, not picked, and their first five answers", INK, _font(26, bold=True))
    legend = (
        f"{len(batch)} items to choose from · green: right (the item itself or one of the same caption), "
        f"with its rank · R@{ANSWERS}: how often a right one is among five"
    )
    draw.text((MARGIN, 62), legend, FAINT, _font(18))
    for number, row in enumerate(rows):
        _draw_row(sheet, row, 96 + number * (TILE + GAP), root)
    with replacing(path) as temporary:
        sheet.save(temporary, optimize=True)


def choose(points: dict[tuple[str, ...], torch.Tensor], batch: Batch, seed: int) -> list[Row]:
    """One query a direction, at random and each item at most once as long as there are enough."""
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(derive(seed, "contact sheet"))).tolist()
    used: set[int] = set()
    rows = []
    for direction in directions(batch.inputs):
        ranking = rank_direction(direction, points, batch)
        if ranking.queries:
            allowed = set(ranking.queries)
            query = next((i for i in order if i in allowed and i not in used), ranking.queries[0])
            used.add(query)
            rows.append(_row(direction, ranking, query, batch))
    return rows


def _row(direction: Direction, ranking: Ranking, query: int, batch: Batch) -> Row:
    at = ranking.queries.index(query)
    first = ranking.scores[at].argsort(descending=True, stable=True)[:ANSWERS].tolist()
    answers = [batch.items[ranking.gallery[j]] for j in first]
    ranks = rank(ranking.scores, ranking.positives).pessimistic  # (Q,)
    recall = float((ranks <= ANSWERS).mean())
    return Row(direction, batch.items[query], answers, ranking.positives[at][first].tolist(), int(ranks[at]), recall)


def _draw_row(sheet: Image.Image, row: Row, y: int, root: Path) -> None:
    draw = ImageDraw.Draw(sheet)
    words = arrows(str(row.direction)).split(" → ")
    draw.text((MARGIN, y + 30), words[0], INK, _font(21, bold=True))
    draw.text((MARGIN, y + 60), f"→ {words[1]}", INK, _font(21, bold=True))
    draw.text((MARGIN, y + 102), f"right: rank {row.rank}", RIGHT if row.rank <= ANSWERS else FAINT, _font(17))
    draw.text((MARGIN, y + 128), f"R@{ANSWERS}: {100 * row.recall:.0f} %", FAINT, _font(17))
    x = MARGIN + LABEL + (2 - len(row.direction.query)) * (TILE + GAP)
    for modality in row.direction.query:
        _draw_tile(sheet, row.query, modality, (x, y), root, QUERY)
        x += TILE + GAP
    middle = y + TILE // 2
    draw.line((x + 4, middle, x + 34, middle), FAINT, 4)
    draw.polygon([(x + 30, middle - 9), (x + 44, middle), (x + 30, middle + 9)], FAINT)
    x += 56
    for item, right in zip(row.answers, row.right, strict=True):
        _draw_tile(sheet, item, row.direction.target, (x, y), root, RIGHT if right else None)
        x += TILE + GAP


def _draw_tile(sheet: Image.Image, item: Item, modality: str, corner: tuple[int, int], root: Path, frame: str | None) -> None:
    draw = ImageDraw.Draw(sheet)
    x, y = corner
    box = (x, y, x + TILE - 1, y + TILE - 1)
    draw.rounded_rectangle(box, 10, CARD)
    content = item.modalities.get(modality) or {}
    picture = _picture(root / content["path"]) if modality == "image" and "path" in content else None
    if picture is not None:
        draw.rounded_rectangle(box, 10, _ground(picture))
        sheet.paste(picture, (x + (TILE - picture.width) // 2, y + (TILE - picture.height) // 2))
    elif modality == "speech":
        _draw_speaker(draw, x + TILE // 2, y + 38)
        _draw_text(draw, said(item), (x + 14, y + 70, x + TILE - 14, y + TILE - 12))
    else:
        text = content["texts"][0] if "texts" in content else item.caption or item.id
        _draw_text(draw, text, (x + 14, y + 12, x + TILE - 14, y + TILE - 12))
    draw.rounded_rectangle(box, 10, outline=frame or "#d9dce1", width=6 if frame else 1)


def said(item: Item) -> str:
    """What a recording says, in its own language where the manifest knows it."""
    entry = item.modalities.get("speech") or {}
    return entry.get("text") or item.caption or item.id


def _picture(path: Path) -> Image.Image | None:
    """The image inside a tile, transparency on the tile's own colour; None for a file that cannot be read (the caption stands in)."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGBA")
    except OSError:
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
