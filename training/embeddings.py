"""`transphere embed`: a run's items as points of the sphere in a file, to be searched and to be used elsewhere.

FILE holds one array (N_m, d) float32 a modality, in safetensors' format, and with --enrich one more for every set of modalities
("image+text": the mean over those of the set that an item has). FILE.ids.json beside it names the rows. FILE's metadata, the JSON under
"transphere", holds the run's digest and epoch, the split, the mean, and the digest of the ids' file, so that neither goes with a stranger.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from . import checkpoint
from .batch import load_batch
from .data.groups import SHARES
from .errors import UserError
from .evaluation import add_protocol_arguments, need_sphere
from .evaluator import Points, embed
from .seeding import derive

if TYPE_CHECKING:
    from .run import Run

ALL = "all"
MOST = 8  # modalities of which all sets are written, 255 arrays; of more, those that a query of one or two modalities needs


@dataclass(frozen=True)
class Embeddings:
    """Points of items, each set of modalities with the items that have one of them."""

    points: Points  # set -> (n, d) float32
    ids: dict[tuple[str, ...], list[str]]  # set -> (n,)
    facts: dict  # digest, epoch, split, mean, enrich, ...


def embed_items(run: Run, split: str = ALL, *, mean: str = "frechet", sets: Sequence[tuple[str, ...]] | None = None) -> Embeddings:
    """Embed the items of a split, or of all; a split's points are those that `transphere eval` scores, whatever else is embedded.

    sets: of modalities, each modality by itself by default.
    """
    need_sphere(run)
    whole = load_batch(run.manifest, run.config)
    sets = [(name,) for name in whole.modalities] if sets is None else list(sets)
    names = [name for name in SHARES if any(item.split == name for item in whole.items)] if split == ALL else [split]
    points: dict[tuple[str, ...], list[torch.Tensor]] = {s: [] for s in sets}
    ids: dict[tuple[str, ...], list[str]] = {s: [] for s in sets}
    device = next(run.model.parameters()).device
    for name in names:
        batch = whole.split(name).to(device)
        found = embed(run.model, batch, run.config.run.eval_samples, derive(run.config.run.seed, name), mean=mean, sets=sets)
        for s in sets:
            there = torch.stack([batch.present[m] for m in s]).any(0)  # (N,)
            points[s].append(found[s][there].float().cpu())
            ids[s] += [item.id for item, here in zip(batch.items, there.tolist(), strict=True) if here]
    facts = {
        "digest": run.facts["digest"],
        "epoch": run.epoch,
        "manifest_sha256": run.facts["manifest_sha256"],
        "split": split,
        "mean": mean,
        "eval_samples": run.config.run.eval_samples,
        "modalities": list(whole.modalities),
        "enriched": any(len(s) > 1 for s in sets),
    }
    return Embeddings({s: torch.cat(parts) for s, parts in points.items()}, ids, facts)


def every_set(run: Run) -> list[tuple[str, ...]]:
    """Sets of the run's modalities, single ones first, for a gallery enriched for any query; of more than MOST modalities, for one of up to
    two: all but the query's."""
    names = list(run.facts["dims"])
    m = len(names)
    sizes = range(1, m + 1) if m <= MOST else (1, m - 2, m - 1, m)
    return [s for size in sizes for s in itertools.combinations(names, size)]


def write_embeddings(embeddings: Embeddings, path: Path) -> Path:
    """Write FILE and, before it, FILE.ids.json; returns the latter's path. UserError where the disk refuses."""
    names = {"+".join(s): s for s in embeddings.points}
    if len(names) != len(embeddings.points):
        raise UserError("two sets of modalities have one name: a modality's own name holds a '+'")
    side = _side(path)
    ids = json.dumps({name: embeddings.ids[s] for name, s in names.items()}, indent=0, ensure_ascii=False).encode() + b"\n"
    facts = {**embeddings.facts, "sets": {name: list(s) for name, s in names.items()}, "ids_sha256": hashlib.sha256(ids).hexdigest()}
    for file in (path, side):  # a device would be replaced, not written to
        if file.exists() and not file.is_file():
            raise UserError(f"--out {file}: is no file that can be replaced; give the name of a file")
    checkpoint.write(side, ids)
    arrays = {name: embeddings.points[s].contiguous().clone() for name, s in names.items()}
    checkpoint.write(path, save(arrays, metadata={"transphere": json.dumps(facts)}))
    return side


def read_embeddings(path: Path, run: Run | None = None) -> Embeddings:
    """What `write_embeddings` wrote.

    Raises UserError for files that are missing, not readable or not of one another, for arrays that do not fit the ids or are not
    finite, and, where a run is given, for points of another run or of another epoch of it.
    """
    side = _side(path)
    for file in (path, side):
        if not file.is_file():
            raise UserError(f"{file}: no such file; make it by transphere embed RUN --out {path}")
    try:
        raw = side.read_bytes()
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["transphere"])
            arrays = {name: file.get_tensor(name) for name in facts["sets"]}
        names = {name: tuple(s) for name, s in facts["sets"].items()}
        checks = {key: facts[key] for key in ("digest", "epoch", "mean", "split", "ids_sha256")}
        ids = json.loads(raw)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not readable embeddings of transphere embed ({error})") from None
    if hashlib.sha256(raw).hexdigest() != checks["ids_sha256"]:
        raise UserError(f"{side}: is not the list of ids that {path.name} was written with")
    for name, x in arrays.items():
        if x.ndim != 2 or len(x) != len(ids.get(name, ())) or not torch.isfinite(x).all():
            raise UserError(f"{path}: {name}: expected finite points for {len(ids.get(name, ()))} ids, got shape {tuple(x.shape)}")
    if run is not None and (checks["digest"], checks["epoch"]) != (run.facts["digest"], run.epoch):
        raise UserError(f"{path}: holds the points of another run than {run.path}, or of another epoch; embed again")
    return Embeddings({s: arrays[name] for name, s in names.items()}, {s: ids[name] for name, s in names.items()}, facts)


def _side(path: Path) -> Path:
    return path.with_name(path.name + ".ids.json")


def add_embed_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `transphere embed`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the safetensors file; FILE.ids.json names its rows")
    parser.add_argument("--split", choices=(ALL, *SHARES), default=ALL, help="which items (default: all)")
    parser.add_argument("--data", metavar="MANIFEST", help="the manifest, if it has moved since the run was trained")
    add_protocol_arguments(parser)


def run_embed(arguments: argparse.Namespace) -> None:
    """The command."""
    from .run import open_run

    run = open_run(arguments.run, arguments.data)
    made = embed_items(run, arguments.split, mean=arguments.mean, sets=every_set(run) if arguments.enrich else None)
    side = write_embeddings(made, arguments.out)
    for s, x in made.points.items():
        print(f"{'+'.join(s):24}{tuple(x.shape)}")
    print(f"{arguments.out}\n{side}")
