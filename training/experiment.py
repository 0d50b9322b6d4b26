"""An experiment: variants of one recipe on one corpus, several seeds, one table. Declared in a TOML file of `experiments/`.

title, claim     what is asked, and what the paper says             recipe, corpus   of every variant that names none of its own
set              overrides of every variant, as --set takes them    seeds            how many
directions       those that the tables show (default: all)          test_on          corpora to test every run on, too
plan             false: test items are not ranked by their transport plan too, which of 2,000 items takes as long as a short run
[[variant]]      name, set, recipe, corpus; against: the variant above that it is compared with; control = true for one that is there for
                 comparison only, with untrained = true one that compares frozen features as they are
[[cross]]        name, set: every variant that is no control is run with each of them

The first variant is the one that others are compared with; where some say against which, those alone are compared. Each seed has its own
split by group; the epoch is chosen on validation items and test items are scored once, after that.
"""

from __future__ import annotations

import json
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import checkpoint
from . import config as configuration
from .batch import load_batch
from .config import Config
from .data.manifest import Manifest
from .errors import UserError, near
from .experiment_plots import draw
from .experiment_report import experiment_report, experiment_table
from .pool import Job, job, read_test, run_all
from .probes import NOTHING, read_probes
from .run import environment, open_manifest
from .transfer import read_transfer
from .untrained import untrained_report

EXPERIMENTS = Path(__file__).parent / "experiments"


@dataclass(frozen=True)
class Variant:
    """One row of the table: a recipe with overrides."""

    name: str
    recipe: str
    corpus: str
    set: tuple[str, ...] = ()
    control: bool = False
    untrained: bool = False  # frozen features as they are
    against: str = ""  # the variant that it is compared with; the first

    def config(self, more: Sequence[str] = ()) -> Config:
        return configuration.load(self.recipe, ["data.split_seed=0", *self.set, *more]).replace(data={"manifest": self.corpus})


@dataclass(frozen=True)
class Experiment:
    """What an experiment's file says."""

    name: str
    title: str
    claim: str
    variants: tuple[Variant, ...]
    seeds: int = 3
    directions: tuple[str, ...] = ()
    test_on: tuple[str, ...] = field(default=())
    plan: bool = True


def experiment_names() -> list[str]:
    """The experiments that come with the package."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.toml"))


def load_experiment(name: str | Path, corpus: str | None = None) -> Experiment:
    """The experiment of a name or of a TOML file; `corpus` takes the place of every corpus that it names.

    UserError for an unknown one, a field that is missing, unknown or of a wrong type.
    """
    path = EXPERIMENTS / f"{name}.toml"
    if not path.is_file():
        path = Path(name)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"unknown experiment {str(name)!r}, and no such file; {near(str(name), experiment_names())}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a valid TOML file: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read the experiment {path}: {error.strerror}") from None
    return _parse(path, values, corpus)


_KINDS = {
    **dict.fromkeys(("name", "title", "claim", "recipe", "corpus", "against"), (str, "a string")),
    **dict.fromkeys(("set", "directions", "test_on"), (list, "a list of strings")),
    **dict.fromkeys(("variant", "cross"), (list, "a list of tables")),
    "seeds": (int, "a whole number"),
    **dict.fromkeys(("control", "untrained", "plan"), (bool, "true or false")),
}
_TOP = ("title", "claim", "recipe", "corpus", "set", "seeds", "directions", "test_on", "plan", "variant", "cross")


def _parse(path: Path, values: dict, corpus: str | None) -> Experiment:
    _check(values, _TOP, ("title", "variant"), str(path))
    for word, allowed in (("variant", ("name", "set", "recipe", "corpus", "control", "untrained", "against")), ("cross", ("name", "set"))):
        for number, table in enumerate(values.get(word, []), start=1):
            where = f"{path}: {word} {number}"
            if not isinstance(table, dict):
                raise UserError(f"{where}: expected a table, got {table!r}")
            _check(table, allowed, ("name",), where)
    plain = [_variant(path, table, values, corpus) for table in values["variant"]]
    variants = [crossed for variant in plain for crossed in _crossed(variant, values.get("cross", []))]
    names = [variant.name for variant in variants]
    if not variants or variants[0].control:
        raise UserError(f"{path}: expected a first variant that is no control, to compare the others with")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path}: two variants are called {twice[0]!r}")
    for place, variant in enumerate(variants):
        if variant.against and variant.against not in names[:place]:
            raise UserError(f"{path}: variant {variant.name!r}: against: expected a variant above it, got {variant.against!r}")
    if values.get("seeds", 3) < 1:
        raise UserError(f"{path}: seeds: expected at least 1, got {values['seeds']}")
    return Experiment(
        path.stem, values["title"], values.get("claim", ""), tuple(variants), values.get("seeds", 3),
        tuple(values.get("directions", ())), tuple(values.get("test_on", ())), values.get("plan", True),
    )  # fmt: skip


def _variant(path: Path, table: dict, whole: dict, corpus: str | None) -> Variant:
    """The variant that a table describes; what it leaves out is that of the `whole` experiment."""
    recipe = table.get("recipe", whole.get("recipe"))
    data = corpus or table.get("corpus", whole.get("corpus"))
    if not recipe or not data:
        raise UserError(f"{path}: variant {table['name']!r} has no {'corpus' if recipe else 'recipe'}, nor has the experiment")
    changes = (*whole.get("set", []), *table.get("set", []))
    kind = table.get("control", False), table.get("untrained", False)
    variant = Variant(table["name"], recipe, data, changes, *kind, table.get("against", ""))
    if variant.untrained and not variant.control:
        raise UserError(f"{path}: variant {variant.name!r}: untrained: expected a control")
    return variant


def _check(table: dict, allowed: Sequence[str], needed: Sequence[str], where: str) -> None:
    for key, value in table.items():
        if key not in allowed:
            raise UserError(f"{where}: unknown key {key!r}; {near(key, allowed)}")
        kind, expected = _KINDS[key]
        strings = expected != "a list of strings" or isinstance(value, list) and all(isinstance(text, str) for text in value)
        if not isinstance(value, kind) or not strings or kind is int and isinstance(value, bool):
            raise UserError(f"{where}: {key}: expected {expected}, got {value!r}")
    for key in needed:
        if not table.get(key):
            raise UserError(f"{where}: {key}: is missing")


def _crossed(variant: Variant, crosses: list[dict]) -> list[Variant]:
    if variant.control or not crosses:
        return [variant]
    return [
        replace(variant, name=f"{variant.name}, {cross['name']}", set=(*variant.set, *cross.get("set", []))) for cross in crosses
    ]


def run_experiment(
    experiment: Experiment, out: Path, *, seeds: int | None = None, workers: int = 1, changes: Sequence[str] = ()
) -> dict:
    """Fit, test and probe every variant with every seed, then write table.md, table.json and pictures to `out`; returns the report.

    changes: "section.key=value" for every run. What is finished is not done again.
    """
    started = time.monotonic()
    seeds = experiment.seeds if seeds is None else seeds
    try:
        out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from None
    configs = {variant.name: variant.config(changes) for variant in experiment.variants}
    manifests = {}
    for config in configs.values():  # all features once, before several processes want them; and every mistake before any work
        manifest = open_manifest(config.data)
        load_batch(manifest, config)
        manifests.setdefault(config.data.manifest, manifest)
    for corpus in experiment.test_on:
        manifests[corpus] = open_manifest(configuration.Data(manifest=corpus))
    trained = {variant.name: configs[variant.name] for variant in experiment.variants if not variant.untrained}
    jobs = [one for number, (name, config) in enumerate(trained.items()) for one in _jobs(name, number, config, out, seeds)]
    _say(f"{experiment.name}: {len(configs)} variants, {seeds} seeds, {len(jobs)} runs")
    paths = run_all(jobs, workers)
    folders = {name: paths[i * seeds : (i + 1) * seeds] for i, name in enumerate(trained)}
    measured = {name: [_measured(experiment, path) for path in of_variant] for name, of_variant in folders.items()}
    for name in configs.keys() - trained.keys():
        measured[name] = [_untrained(experiment, configs[name].replace(data={"split_seed": seed})) for seed in range(seeds)]
    report = {
        **experiment_report(experiment, measured),
        "corpora": {name: _about(manifest) for name, manifest in manifests.items()},
        "configs": {variant.name: {"recipe": variant.recipe, "set": [*variant.set, *changes]} for variant in experiment.variants},
        "environment": environment(),
    }
    checkpoint.write(out / "table.json", json.dumps(_rounded(report), ensure_ascii=False) + "\n")
    checkpoint.write(out / "table.md", experiment_table(report) + "\n")
    pictures = draw(experiment, measured, folders, out)
    print(experiment_table(report))
    for path in (out / "table.md", out / "table.json", *pictures):
        print(path)
    _say(f"done in {time.monotonic() - started:.0f} s")
    return report


def _measured(experiment: Experiment, path: Path) -> dict:
    transfer = {corpus: read_transfer(path, corpus) for corpus in experiment.test_on}
    return {"test": read_test(path), "probes": read_probes(path, experiment.plan), "transfer": transfer}


def _untrained(experiment: Experiment, config: Config) -> dict:
    return {"test": untrained_report(config), "probes": NOTHING, "transfer": dict.fromkeys(experiment.test_on, {})}


def _jobs(name: str, number: int, config: Config, out: Path, seeds: int) -> list[Job]:
    word = "".join(c if c.isalnum() and c.isascii() else "-" for c in name).strip("-").lower()
    return [job(name, f"{number:02d}-{word}"[:40], out / "runs", config, seed) for seed in range(seeds)]


def _about(manifest: Manifest) -> dict:
    try:
        about = checkpoint.read_json(manifest.root / "about.json") or {}
    except UserError:  # not ours to judge here
        about = {}
    kept = {key: about[key] for key in ("corpus", "source", "licence", "speech") if key in about}
    return {"sha256": manifest.sha256, "counts": manifest.counts(), **kept}


def _rounded(value: object) -> object:
    """Floats to six digits: fifty numbers a direction and variant."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
