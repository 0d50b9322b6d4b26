"""The openclipart corpus: public-domain clip art with its titles, and synthetic speech of them.

Debian's openclipart-svg 0.18+dfsg-19. The title stands in each SVG's metadata. Many titles name a collection, a theme or an author instead
of what is seen: those are left out, and so are titles that more than 12 drawings have. Of the rest 3,193 are taken, by their hash.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections import Counter
from pathlib import Path

from .drawn import Drawing, DrawnCorpus
from .groups import normalise_caption
from .packages import fetch
from .pins import OPENCLIPART

COMMON = 12  # drawings of one title, from which on it names a collection
_TITLE = re.compile(r"<(?:cc:)?Work\b.*?<dc:title>(.*?)</dc:title>", re.DOTALL)
_KEYWORDS = re.compile(r"<rdf:li[^>]*>(.*?)</rdf:li>", re.DOTALL)
_AUTHOR = re.compile(r"^\s*clip ?art by [^-]* - ", re.IGNORECASE)
_NO_CAPTION = re.compile(
    r"gramastar|icon ?(?:theme|set|collection)|svg theme|-theme|^clip ?art|^etiquette icons|s[iu]bmission|^untitled|https?:|@|\.svg$|"
    r"^card$",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[\s_-]*\(?#?\d[\d\s_.-]*\)?$")
_NO_KEYWORDS = {"", "hash", "unsorted", "webpage", "theme", "icons"}


CORPUS = DrawnCorpus(
    name="openclipart",
    version="1",
    packages=[OPENCLIPART],
    source=f"Debian {OPENCLIPART}",
    licence="public domain (Open Clip Art Library); speech made with espeak-ng (GPL-3)",
    find=lambda: find_drawings(fetch(OPENCLIPART) / "usr" / "share" / "openclipart" / "svg"),
    most=3193,
)
build = CORPUS.build


def find_drawings(root: Path) -> list[Drawing]:
    """The drawings below `root` whose title says what they show, in the order of their hashes."""
    found, whole, count = [], {}, Counter()  # id -> its title as it stands, how many have it
    for picture in sorted(root.rglob("*.svg")):
        if picture.is_symlink():
            continue
        head = picture.read_text(encoding="utf-8", errors="replace")
        caption = title(head)
        if caption:
            identity = picture.relative_to(root).with_suffix("").as_posix()
            whole[identity] = normalise_caption(_TITLE.search(head)[1])
            count[whole[identity]] += 1
            words = sorted({html.unescape(word).strip().lower() for word in _KEYWORDS.findall(head)} - _NO_KEYWORDS)
            texts = {"text_keywords": [", ".join(words)] if words else []}
            found.append(Drawing(identity, caption, picture, identity.split("/")[0].replace("_", " "), identity, texts))
    found = [one for one in found if count[whole[one.id]] <= COMMON]
    return sorted(found, key=lambda one: hashlib.sha256(one.id.encode()).digest())


def title(svg: str) -> str:
    """What an SVG's title says that is seen: without author and number; empty where it says something else."""
    match = _TITLE.search(svg)
    text = " ".join(html.unescape(match[1]).replace("_", " ").split()) if match else ""
    text = _NUMBER.sub("", _AUTHOR.sub("", text)).strip(" -.,")
    return text if any(c.isalpha() for c in text) and len(text) > 1 and not _NO_CAPTION.search(text) else ""
