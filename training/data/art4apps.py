"""The art4apps corpus: 585 drawings of the Art4Apps library with their names in four languages, and synthetic speech of the English ones.

Debian's pysiogame 4.20.01-1 (GPL-3; its credits give the drawings as CC BY-SA, Art4Apps). i18n/custom/a4a_words.py holds the English words
of each category, a4a_py/XX.py the same lists in another language, entry by entry; the drawings are named after the English words.
"""

from __future__ import annotations

import ast
from pathlib import Path

from ..errors import UserError
from .drawn import Drawing, DrawnCorpus
from .packages import fetch
from .pins import PYSIOGAME

LANGUAGES = ("fr", "es", "de")
_OTHER_NAMES = {  # of pictures that are not called after their word
    "sneaker": "trainer",
    "drink": "to drink",
    "police": "policeman",
    "magic": "magician",
    "office": "office worker",
    "ballet": "ballet dancer",
}


CORPUS = DrawnCorpus(
    name="art4apps",
    version="1",
    packages=[PYSIOGAME],
    source=f"Debian {PYSIOGAME}",
    licence="CC BY-SA (Art4Apps) by the program's credits, GPL-3+ by the package; speech made with espeak-ng (GPL-3)",
    find=lambda: find_drawings(fetch(PYSIOGAME) / "usr" / "share" / "games" / "pysiogame"),
)
build = CORPUS.build


def find_drawings(root: Path) -> list[Drawing]:
    """The drawings below `root` whose word is in the lists, by category and name."""
    words = _lists(root / "i18n" / "custom" / "a4a_words.py")
    others = {language: _lists(root / "i18n" / "custom" / "a4a_py" / f"{language}.py") for language in LANGUAGES}
    found = []
    for picture in sorted((root / "res" / "images" / "art4apps").glob("*/*.jpg")):
        category = f"a4a_{picture.parent.name}"
        word = picture.stem.replace("_", " ")
        word = word if word in words.get(category, ()) else _OTHER_NAMES.get(picture.stem, word)
        if word not in words.get(category, ()):
            continue
        place = words[category].index(word)
        texts = {}
        for language, lists in others.items():
            same = lists.get(category, [])
            # <word>: not translated yet; lists of another length are of another edition
            good = len(same) == len(words[category]) and same[place] and not same[place].startswith("<")
            texts[f"text_{language}"] = [same[place]] if good else []
        identity = f"{picture.parent.name}/{picture.stem}"
        label = picture.parent.name.replace("_n_", " and ").replace("veg", "vegetables")
        found.append(Drawing(identity, word, picture, label, identity, texts))
    return found


def _lists(file: Path) -> dict[str, list[str]]:
    """The lists that a module of the package assigns, d["name"] = [...], read without running it."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assigned = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)]
        return {ast.literal_eval(node.targets[0].slice): ast.literal_eval(node.value) for node in assigned}
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file}: not the word lists of pysiogame: {error}; delete the package's folder, it is fetched again") from error
