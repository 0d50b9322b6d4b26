"""`transphere data audit`: what is wrong with a manifest, or worth knowing before a number is believed."""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import CorruptFile
from .ceiling import ceilings
from .check import Facts, inspect_all
from .frames import frames
from .groups import SHARES, normalise_caption
from .manifest import Item, Manifest

SILENT = -60.0  # dB of full scale: a recording's room is -40 to -60
BLANK = 2.0  # of 255 levels, the standard deviation of red, green and blue
EXAMPLES, DIRECTIONS = 5, 12  # how many cases of a finding, and directions, the table shows


def audit(manifest: Manifest, silent: float = SILENT, quick: bool = False, progress: bool = True) -> dict[str, Any]:
    """Reads every file of the manifest and reports, all of it JSON.

    ``faults``, which must be put right: files "missing or corrupt", "groups in several splits", "files in several splits" (the same
    bytes). ``warnings``: "captions in several splits", "silent sounds" (root mean square at or below ``silent`` dB of full scale),
    "blank pictures" (standard deviation of red, green and blue below 2 of 255 levels), "vectors of zeros", "items of one modality".
    Both map a finding to the list of its cases. ``modalities``: counts, and seconds of sounds. ``shared``: what several items of a split
    have in common, and the R@1 that no system can exceed for it (`ceilings`). ``quick`` looks only whether files are there: silence and
    blanks are not seen, nor that two files hold the same bytes.
    """
    files = _files(manifest)
    facts = dict(inspect_all(manifest.root, list(files), quick, progress))
    bad = {name: result for name, result in facts.items() if isinstance(result, CorruptFile)}
    good = {name: result for name, result in facts.items() if isinstance(result, Facts)}
    content = {name: name for name in good} if quick else _contents(manifest.root, good, progress)
    items = manifest.items
    splits_of = _splits((item.group, item) for item in items)
    bytes_of = _splits((content[name], item) for name, found in files.items() if name in content for item, _ in found)
    names_of = defaultdict(list)
    for name, key in content.items():
        names_of[key].append(name)
    faults = {
        "missing or corrupt": [{"file": name, "items": _ids(files[name]), "reason": str(error)} for name, error in bad.items()],
        "groups in several splits": [{"group": group, "items": ids} for group, ids in splits_of.items()],
        "files in several splits": [{"files": names_of[key], "items": ids} for key, ids in bytes_of.items()],
    }
    warnings = {
        "captions in several splits": [{"caption": text, "items": ids} for text, ids in _splits(_captions(items)).items()],
        "silent sounds": [
            {"file": name, "items": _ids(files[name]), "level": _finite(found.level)}
            for name, found in good.items()
            if found.level is not None and found.level <= silent
        ],
        "blank pictures": [
            {"file": name, "items": _ids(files[name])} for name, found in good.items() if found.spread is not None and found.spread < BLANK
        ],
        "vectors of zeros": [
            {"item": item.id, "modality": name}
            for item in items
            for name, entry in item.modalities.items()
            if entry and len(entry.get("vector", ())) > 1 and not any(entry["vector"])  # a single 0 is the number of a class
        ],
        "items of one modality": [{"item": item.id} for item in items if sum(entry is not None for entry in item.modalities.values()) < 2],
    }
    return {
        "manifest": str(manifest.path),
        "sha256": manifest.sha256,
        "items": len(items),
        "groups": len({item.group for item in items}),
        "splits": {name: sum(item.split == name for item in items) for name in SHARES},
        "silent": silent,
        "quick": quick,
        "modalities": {name: _modality(items, name, facts) for name in manifest.modalities},
        "faults": {name: found for name, found in faults.items() if found},
        "warnings": {name: found for name, found in warnings.items() if found},
        "shared": ceilings(items, content),
    }


def _files(manifest: Manifest) -> dict[str, list[tuple[Item, str]]]:
    """path -> the items, and their modalities, that it belongs to."""
    found: dict[str, list[tuple[Item, str]]] = defaultdict(list)
    for item in manifest.items:
        for name, entry in item.modalities.items():
            for path in dict.fromkeys([entry["path"], *frames(entry, manifest.root)]) if entry and "path" in entry else ():
                found[path].append((item, name))
    return found


def _contents(root: Path, names: Iterable[str], progress: bool) -> dict[str, str]:
    """path -> what tells its bytes from all others': its size, or where several files have that size, the hash of the bytes."""
    size = {name: (root / name).stat().st_size for name in names}
    alike = Counter(size.values())
    found = {}
    for name in tqdm(size, desc="bytes", unit="file", disable=not (progress and size)):
        if alike[size[name]] == 1:
            found[name] = f"{size[name]} bytes"
        else:
            with (root / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _splits(pairs: Iterable[tuple[Hashable, Item]]) -> dict[Any, list[str]]:
    """Of the keys that items of several splits have: key -> their ids, each with its split."""
    found: dict[Hashable, dict[str, str]] = defaultdict(dict)
    for key, item in pairs:
        found[key][item.id] = item.split
    return {key: [f"{split}: {id}" for id, split in ids.items()] for key, ids in found.items() if len(set(ids.values())) > 1}


def _captions(items: Sequence[Item]) -> Iterable[tuple[str, Item]]:
    for item in items:
        for name, entry in item.modalities.items():
            if name != "class":  # whose names are in every split by their nature
                for text in entry["texts"] if entry and "texts" in entry else ():
                    yield normalise_caption(text), item


def _modality(items: Sequence[Item], name: str, facts: dict[str, Facts | CorruptFile]) -> dict[str, Any]:
    entries = [item.modalities.get(name) for item in items]
    there = [entry for entry in entries if entry]
    paths = list(dict.fromkeys(entry["path"] for entry in there if "path" in entry))
    seconds = [found.seconds for path in paths if isinstance(found := facts[path], Facts) and found.seconds is not None]
    report: dict[str, Any] = {"items": len(there), "missing": len(entries) - len(there)}
    if paths:
        report |= {"files": len(paths), "corrupt": sum(isinstance(facts[path], CorruptFile) for path in paths)}
    if texts := [text for entry in there if "texts" in entry for text in entry["texts"]]:
        report |= {"texts": len(texts), "distinct": len(set(texts))}
    if vectors := [entry["vector"] for entry in there if "vector" in entry]:
        report |= {"dim": len(vectors[0])}
    if seconds:
        middle = statistics.median(seconds)
        report |= {"seconds": {"total": sum(seconds), "least": min(seconds), "median": middle, "most": max(seconds)}}
    return report


def _ids(found: list[tuple[Item, str]]) -> list[str]:
    return list(dict.fromkeys(item.id for item, _ in found))


def _finite(level: float) -> float | None:
    return round(level, 1) if level > float("-inf") else None  # null: digital silence, of which JSON has no logarithm


def audit_table(report: dict[str, Any]) -> str:
    """The report for people."""
    splits = ", ".join(f"{name} {count}" for name, count in report["splits"].items())
    out = [f"{report['manifest']}", f"{report['items']} items, {report['groups']} groups ({splits})", ""]
    width = 2 + max((len(name) for name in report["modalities"]), default=0)
    for name, found in report["modalities"].items():
        parts = [f"{found['items']} items"]
        parts += [f"{found[key]} {key}" for key in ("files", "texts") if key in found]
        parts += [f"{found['distinct']} of them distinct"] if "distinct" in found else []
        parts += [f"vectors of {found['dim']}"] if "dim" in found else []
        if "seconds" in found:
            times = found["seconds"]
            hours = f"{times['total'] / 3600:.1f} h" if times["total"] >= 3600 else f"{times['total']:.1f} s"
            parts.append(f"{hours} in all ({times['least']:.1f} to {times['most']:.1f} s each, median {times['median']:.1f})")
        parts += [f"missing from {found['missing']}"] if found["missing"] else []
        parts += [f"{found['corrupt']} files missing or corrupt"] if found.get("corrupt") else []
        out.append(f"  {name:{width}}{', '.join(parts)}")
    for title, kind in (("must be put right", "faults"), ("worth a look", "warnings")):
        for name, cases in report[kind].items():
            out += ["", f"{title}: {name}: {len(cases)}"]
            out += [f"  {_case(case)}" for case in cases[:EXAMPLES]]
            out += [f"  ... and {len(cases) - EXAMPLES} more (--json has all)"] if len(cases) > EXAMPLES else []
    if report["shared"]:
        out += ["", "shared content, and the R@1 in % that no system can exceed for it: where only the item itself is right | where"]
        out += ["items of equal caption are right too, as transphere eval counts"]
        for found in report["shared"][:DIRECTIONS]:
            parts = [f"{count} items share their {found[side]}" for side, count in found["shared"].items() if count]
            name = f"{found['split']}: {found['query']} -> {found['target']}"
            bounds = f"{100 * found['ceiling']:7.2f} |{100 * found['equal_captions']:7.2f}"
            out.append(f"  {name:30}{bounds}   {', '.join(parts)}; {found['queries']} queries")
        out += [f"  ... and {len(report['shared']) - DIRECTIONS} more (--json has all)"] if len(report["shared"]) > DIRECTIONS else []
    out += ["", "nothing must be put right" if not report["faults"] else "see above for what must be put right"]
    return "\n".join(out)


def _case(case: dict[str, Any]) -> str:
    what = case.get("reason") or case.get("caption") or case.get("group") or case.get("file") or _some(case.get("files", ()))
    what = what or ", ".join(str(value) for value in case.values())
    level = "" if "level" not in case else " (digital silence)" if case["level"] is None else f" ({case['level']} dB)"
    return f"{what}{level}" + (f"  [{_some(case['items'])}]" if "items" in case else "")


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f", ... {len(names)} in all" if len(names) > most else "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", metavar="MANIFEST", help="a manifest (JSON lines), its folder, or the name of a corpus")
    parser.add_argument("--silent", type=float, default=SILENT, metavar="DB", help=f"a sound at this level is silent (default: {SILENT:g})")
    parser.add_argument("--quick", action="store_true", help="only look whether the files are there, instead of reading each to its end")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Prints the report; 2 when something must be put right, else 0."""
    from . import find_manifest

    report = audit(Manifest.read(find_manifest(arguments.manifest)), arguments.silent, arguments.quick)
    print(json.dumps(report, indent=1, ensure_ascii=False) if arguments.json else audit_table(report))
    return 2 if report["faults"] else 0
