"""`transphere search`: a new text, picture or sound, or several of them as one query, answered with items of any modality."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .cards import Card, Row, card
from .data.groups import SHARES
from .data.manifest import Item
from .embeddings import ALL, MOST, Embeddings, embed_items, read_embeddings
from .errors import UserError
from .evaluation import add_protocol_arguments
from .evaluator import Direction, gallery_set
from .index import Index
from .queries import check_modality, kind_of, modality_for, points_of
from .report import arrows

if TYPE_CHECKING:
    from .run import Run


def search(
    run: Run,
    query: dict[str, str],
    to: str,
    top: int = 10,
    *,
    mean: str = "frechet",
    enrich: bool = False,
    split: str = ALL,
    embeddings: Embeddings | None = None,
) -> dict:
    """The `top` items of modality `to` nearest to a query, {modality: text or path}; of several modalities it is the mean.

    enrich: an item is the mean of all its modalities but those of the query. embeddings: what `embed_items` gave, so that the items need
    not be embedded anew. Returns {"query", "to", "score", "gallery": size, "answers": [{"rank", "score", "id", "split", "caption", "label",
    and "path" or "text"}]}. Raises UserError for an unknown modality, embeddings by another
    mean or without what `enrich` needs, and whatever cannot be encoded.
    """
    for name in (*query, to):
        check_modality(run, name, f"--to {to}" if name == to else "query")
    names = list(run.facts["dims"])
    query = {name: query[name] for name in names if name in query}
    wanted = tuple(m for m in names if m == to) if to in query else gallery_set(Direction(tuple(query), to), names, enrich)
    if embeddings is None:
        embeddings = embed_items(run, split, mean=mean, sets=list(dict.fromkeys([(to,), wanted])))
    elif embeddings.facts["mean"] != mean:
        raise UserError(f"--index: was made by --mean {embeddings.facts['mean']}, the search asks for {mean}")
    if wanted not in embeddings.points:
        hint = "embed with --enrich"
        if embeddings.facts["enriched"]:
            hint = f"of more than {MOST} modalities embed --enrich writes those for queries of one or two; search without --index"
        raise UserError(f"--index: holds no points of {' + '.join(wanted)}; {hint}")
    places = _rows(run, embeddings, to, wanted, split)
    index = Index(embeddings.points[wanted][places], run.metric)
    point = points_of(run, {name: [value] for name, value in query.items()}, mean)  # (1, d)
    scores, found = index.search(point, top)
    items = {item.id: item for item in run.manifest.items}
    ids = embeddings.ids[wanted]
    answers = [
        {"rank": n, "score": score, **_about(items[ids[places[j]]], to, run.manifest.root)}
        for n, (score, j) in enumerate(zip(scores[0].tolist(), found[0].tolist(), strict=True), start=1)
    ]
    return {
        "query": query,
        "to": to,
        "items_are": " + ".join(wanted),
        "mean": mean,
        "score": "cosine" if run.metric is None else "minus the distance of the learned metric M",
        "gallery": len(index),
        "answers": answers,
    }


def _rows(run: Run, embeddings: Embeddings, to: str, wanted: tuple[str, ...], split: str) -> list[int]:
    """The rows of `wanted` whose item has the target modality, and is of the split."""
    chosen = {item.id for item in run.manifest.items if split in (ALL, item.split)} & set(embeddings.ids[(to,)])
    rows = [i for i, name in enumerate(embeddings.ids[wanted]) if name in chosen]
    if not rows:
        where = "" if split == ALL else f" of the {split} split"
        raise UserError(f"--to {to}: no item{where} that is embedded has it")
    return rows


def _about(item: Item, modality: str, root: Path) -> dict[str, str]:
    entry = item.modalities[modality]
    if "path" in entry:
        what = {"path": str(root / entry["path"])} | ({"text": entry["text"]} if "text" in entry else {})
    else:
        what = {"text": " / ".join(entry["texts"])} if "texts" in entry else {}
    return {"id": item.id, "split": item.split, "caption": item.caption, "label": item.label, **what}


def answers_table(result: dict) -> str:
    """The answers as lines for people: rank, score, id, and a path or text."""
    wide = max(len(answer["id"]) for answer in result["answers"])
    lines = []
    for a in result["answers"]:
        words = f"  ({a['text']})" if "path" in a and "text" in a else ""
        lines.append(f"{a['rank']:>4}  {a['score']:6.3f}  {a['id']:{wide}}  {a.get('path') or a.get('text') or a['caption']}{words}")
    return "\n".join(lines)


def result_row(run: Run, result: dict) -> Row:
    """The result as a row of a contact sheet."""
    items = {item.id: item for item in run.manifest.items}
    query = []
    for name, value in result["query"].items():
        is_text = kind_of(run, name) == "text"
        query.append(Card(value if is_text else Path(value).name[:80], None if is_text else Path(value).absolute()))
    answers = [card(items[a["id"]], result["to"], run.manifest.root) for a in result["answers"]]
    title = arrows(f"{'+'.join(result['query'])}->{result['to']}")
    captions = [f"{a['rank']} · {a['score']:.3f}" for a in result["answers"]]
    return Row(title, [], query, answers, [False] * len(answers), captions)


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `transphere search`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--text", metavar="TEXT", help="ask with a text")
    parser.add_argument("--image", metavar="FILE", help="ask with a picture")
    parser.add_argument("--audio", metavar="FILE", help="ask with a sound: the run's modality of sounds, speech or other")
    parser.add_argument(
        "--query", action="append", default=[], metavar="MODALITY=VALUE", help="ask by the modality's own name: a text, a file, or a vector"
    )
    parser.add_argument("--to", required=True, metavar="MODALITY", help="what the answers shall be, by its name in the manifest")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="how many answers (default: 10)")
    parser.add_argument("--index", type=Path, metavar="FILE", help="search what transphere embed wrote, instead of embedding anew")
    parser.add_argument("--split", choices=(ALL, *SHARES), default=ALL, help="which items may answer (default: all)")
    parser.add_argument("--data", metavar="MANIFEST", help="the manifest, if it has moved since the run was trained")
    add_protocol_arguments(parser)
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw the query and its answers into FILE.html or FILE.png")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def run_search(arguments: argparse.Namespace) -> None:
    """The command."""
    from .run import open_run

    if arguments.top < 1:
        raise UserError(f"--top: expected 1 or more, got {arguments.top}")
    if arguments.sheet:
        from .contact_sheet import check_sheet, draw_sheet

        check_sheet(arguments.sheet)
    run = open_run(arguments.run, arguments.data)
    query = _query(run, arguments)
    found = read_embeddings(arguments.index, run) if arguments.index else None
    options = {"mean": arguments.mean, "enrich": arguments.enrich, "split": arguments.split, "embeddings": found}
    result = search(run, query, arguments.to, arguments.top, **options)
    if arguments.sheet:
        legend = f"{result['gallery']} items to choose from; under each answer its rank and score ({result['score']})"
        draw_sheet([result_row(run, result)], "A query and its answers", legend, arguments.sheet)
    print(json.dumps(result, indent=1, ensure_ascii=False) if arguments.json else answers_table(result))
    if arguments.sheet and not arguments.json:
        print(arguments.sheet)


def _query(run: Run, arguments: argparse.Namespace) -> dict[str, str]:
    """{modality: text or path} of --text, --image, --audio and --query."""
    query: dict[str, str] = {}
    words = {flag: getattr(arguments, flag) for flag in ("text", "image", "audio")}
    given = [(f"--{flag}", modality_for(run, flag), value) for flag, value in words.items() if value is not None]
    for text in arguments.query:
        known = max((name for name in run.facts["dims"] if text.startswith(f"{name}=")), key=len, default=text.partition("=")[0])
        name, equals, value = text[: len(known)], text[len(known) : len(known) + 1], text[len(known) + 1 :]
        if not equals or not name or not value:
            raise UserError(f"--query {text}: expected MODALITY=VALUE, for example --query text=frog")
        given.append(("--query", check_modality(run, name, "--query"), value))
    for flag, name, value in given:
        if name in query:
            raise UserError(f"{flag}: {name} is asked with twice")
        query[name] = value
    if not query:
        raise UserError("nothing to search for: give --text, --image, --audio or --query")
    return query
