"""The configuration of a run: five dataclasses, strict TOML, and `--set section.key=value`.

Every key is known, typed and checked here; a key that is not known is an error that names the nearest one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UserError, near

RECIPES = Path(__file__).parent / "recipes"
OBJECTIVES = (
    "contrastive", "sliced", "harnessed", "mc-infonce", "pcmc", "pcmr", "triplet", "entropic-contrastive", "pcme", "mpc",
    "learning-to-match", "mmcosine", "softmax", "gated", "film",
)  # fmt: skip
CLASSIFY = ("mmcosine", "softmax", "gated", "film")
OPTIMISERS, SCHEDULES, PRECISIONS = ("adamw", "adam", "sgd"), ("constant", "cosine", "step"), ("fp32", "bf16")
HEADS = ("vmf", "natural", "linear", "residual", "none")
SAMPLERS = ("released",)

# on any result
WITHOUT_EFFECT = (
    ("data", "manifest"), ("data", "workers"), ("run", "save_every"), ("run", "shard"), ("run", "tensorboard"), ("run", "timeout"),
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """What is trained on."""

    manifest: str | None = None  # path of a manifest, or the name of a corpus that `transphere data list` shows
    split_seed: int | None = None  # None keeps the manifest's own splits; a number assigns the groups anew
    modalities: list[str] = field(default_factory=list)  # empty: all that the manifest has
    encoders: dict[str, str] = field(default_factory=dict)  # modality -> frozen encoder; modalities given as vectors need none
    split_by: str = "group"  # with split_seed: "group", or "item", which leaks and shows by how much
    noise: dict[str, float] = field(default_factory=dict)  # modality -> share of training items that get another one's
    missing: dict[str, float] = field(default_factory=dict)  # modality -> share of training items that lose it
    hold_out: dict[str, str] = field(default_factory=dict)  # fact -> value, style = "noto": such items are not trained or validated on
    test_only: dict[str, str] = field(default_factory=dict)  # fact -> value: of the test items such alone are left
    workers: int | None = None  # processes that read files for encoders that are trained; None: one a core, at most 16


@dataclass(frozen=True)
class Encoder:
    """An encoder that is trained with the model; docs/encoders.md lists them. In a recipe its name alone stands for all the defaults."""

    name: str
    pretrained: str | None = None  # a published model, by name or local folder; PANN: the checkpoint's file. None: random weights
    size: str = "full"  # or "tiny": the same anatomy at a width for tests; random weights only
    freeze: int = 0  # layers from the input on that stay as they are: 0 none, -1 the whole encoder
    lr: float | None = None  # None: optim.lr
    checkpoint: bool = False  # compute activations again in the backward pass, for less memory
    augment: list[str] = field(default_factory=list)  # sound: crop, mask; pictures: crop, flip, erase; text: drop, eda
    dropout: float | None = None  # None: as published
    seconds: float | None = None  # of sound
    frames: int | None = None  # of a video that are seen, their features averaged; None: one picture
    template: str | None = None  # of captions, from the item's meta: '"{title}" is a song by "{artist}"'
    width: int | None = None  # of mlp and embedding
    classes: int | None = None  # of embedding


@dataclass(frozen=True)
class Model:
    """The encoder and the head of every modality: features -> von Mises-Fisher on the unit sphere of R^dim, or a point of R^dim."""

    encoders: dict[str, Encoder] = field(default_factory=dict)  # modality -> encoder that is trained; the others have frozen features
    head: str = "vmf"  # or linear, residual: points; none: the encoder's features, to be classified
    dim: int = 512
    hidden: int = 0  # width of the head's hidden layer; 0: none, the head is linear
    dropout: float = 0.5
    kappa: tuple[float, float] = (64.0, 128.0)  # open interval of the concentration


@dataclass(frozen=True)
class Objective:
    """What is minimised, and its arguments: those of the class in transphere.losses that `model.LOSSES` names; mmcosine, softmax, gated
    and film classify by the manifest's labels (`classification`).

    contrastive: L_C (eq. 10); sliced: L_S (eq. 12); harnessed: L_C + weight L_S (eq. 13) of ISMIR 2024, which recipes compare, so that an
    objective ignores those of the first four that it does not take. The others are None for the loss's own default, and an error for a
    loss that does not take them.
    """

    name: str = "harnessed"
    temperature: float = 0.07
    n_samples: int = 16
    n_projections: int = 100
    weight: float = 1.0
    duplicates: str | None = None  # items of one caption in a batch: "ignore", "positive", or None: wrong answers to each other
    learnable: bool | None = None
    rho: float | None = None
    threshold: float | None = None
    form: str | None = None
    margin: float | None = None
    hardest: bool | None = None
    eps: float | None = None
    metric: str | None = None
    mass: float | None = None
    scale: str | None = None
    init: str | None = None
    bottleneck: float | None = None
    uniformity: float | None = None
    penalty: float | None = None
    debias: bool | None = None
    logit_scale: float | None = None  # s of mmcosine
    bound: str | None = None
    probability: float | None = None
    sampler: str | None = None  # of contrastive, sliced, harnessed: "released" draws from another law (released_sampler.py)


@dataclass(frozen=True)
class Optim:
    """How it is minimised."""

    name: str = "adamw"  # adamw, adam, sgd; without weight decay the first two are one
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9  # of sgd
    clip_norm: float = 0.0  # 0: gradients are not clipped
    schedule: str = "constant"  # constant, cosine (to 0 at the end), step (times gamma every step_epochs epochs)
    warmup: int = 0  # steps over which the rate rises to lr
    step_epochs: int = 10
    gamma: float = 0.1
    batch_size: int = 128  # items a step, over all processes and chunks
    accumulate: int = 1  # chunks that a process cuts its items into to save memory; the gradient stays exact
    epochs: int = 60
    ema: float = 0.0  # decay of the average of the weights that is validated and saved; 0: none


@dataclass(frozen=True)
class Run:
    """How the run goes."""

    seed: int = 0
    eval_every: int = 1  # epochs between validations; a checkpoint is written at each
    patience: int = 0  # validations without a better MRR before the run stops; 0: never
    eval_samples: int = 64  # samples of a distribution from which its Fréchet mean is taken; 0: its mean direction
    save_every: int = 0  # steps between checkpoints, beside those at validations; 0: none
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    precision: str = "fp32"  # or bf16: encoders under autocast; heads and losses stay in float32
    compile: bool = False  # torch.compile the model
    sync_batchnorm: bool = False  # statistics of BatchNorm over all processes
    shard: bool = False  # encoders spread over the processes (FSDP2)
    tensorboard: bool = False
    timeout: int = 1800  # seconds that a process waits for another before it ends the job


@dataclass(frozen=True)
class Config:
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    optim: Optim = field(default_factory=Optim)
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        _check(self)

    def replace(self, **sections: dict[str, object]) -> Config:
        """A copy with some keys of some sections changed: config.replace(run={"seed": 1})."""
        return dataclasses.replace(self, **{s: dataclasses.replace(getattr(self, s), **keys) for s, keys in sections.items()})

    def digest(self, *facts: str) -> str:
        """sha256 of every value that can change a result (WITHOUT_EFFECT cannot), and of further `facts`."""
        values = dataclasses.asdict(self)
        for section, key in WITHOUT_EFFECT:
            del values[section][key]
        return hashlib.sha256(json.dumps([values, *facts], sort_keys=True).encode()).hexdigest()


def load(recipe: str | Path, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a recipe (the name of one that comes with the package, or the path of a TOML file).

    `overrides` are "section.key=value", later ones win. Raises UserError for an unknown recipe, section or key, a wrong type or range.
    """
    path = find_recipe(recipe)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a valid TOML file: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}") from None
    for text in overrides:
        _override(values, text)
    return from_dict(values, str(path))


def from_dict(values: dict[str, object], where: str) -> Config:
    """The configuration held by nested tables; `where` names their origin in errors."""
    hints = typing.get_type_hints(Config)
    sections = {}
    for name, table in values.items():
        _known(name, hints, f"{where}: unknown section")
        if not isinstance(table, dict):
            raise UserError(f"{where}: expected [{name}] to be a table, got {table!r}")
        keys = typing.get_type_hints(hints[name])
        for key in table:
            _known(key, keys, f"{where}: unknown key", f"{name}.")
        sections[name] = hints[name](**{key: _convert(value, keys[key], f"{where}: {name}.{key}") for key, value in table.items()})
    return Config(**sections)


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe given by name or by path."""
    packaged = RECIPES / f"{recipe}.toml"
    if packaged.is_file():
        return packaged
    if Path(recipe).is_file():
        return Path(recipe)
    raise UserError(f"unknown recipe {str(recipe)!r}, and no such file; {near(str(recipe), recipe_names())}")


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def to_toml(config: Config) -> str:
    """The configuration as a recipe; reading it back gives an equal Config."""
    lines = []
    for name, table in dataclasses.asdict(config).items():
        lines.append(f"[{name}]")
        # A JSON string, number, boolean or list of them is TOML too; None is said by leaving the key out.
        lines += [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items() if item is not None) + "}"
    # DEL is the one control character that JSON leaves as it is and TOML forbids.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _override(values: dict[str, object], text: str) -> None:
    """Put "section.key=value" (or "section.key.name=value" for a table) into the nested tables `values`."""
    key, equals, raw = text.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not equals or len(names) < 2 or not all(names):
        raise UserError(f"--set {text}: expected section.key=value, for example --set optim.lr=1e-3")
    hints = typing.get_type_hints(Config)
    _known(names[0], hints, f"--set {text}: unknown section")
    keys = typing.get_type_hints(hints[names[0]])
    _known(names[1], keys, f"--set {text}: unknown key", f"{names[0]}.")
    hint = keys[names[1]]
    inner = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else None
    if inner and len(names) == 3:
        hint = inner
    elif dataclasses.is_dataclass(inner) and len(names) == 4:  # a key of what lies under a name of the table
        keys = typing.get_type_hints(inner)
        _known(names[3], keys, f"--set {text}: unknown key", ".".join(names[:3]) + ".")
        hint = keys[names[3]]
        table = values.get(names[0], {}).get(names[1], {})
        if isinstance(table.get(names[2]), str):
            table[names[2]] = {"name": table[names[2]]}
    elif len(names) > 2:
        raise UserError(f"--set {text}: {names[0]}.{names[1]} holds a single value, not a table")
    table = values
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {text}: the recipe does not hold a table at {name}")
    # The value is checked here rather than with the recipe so that the message names --set.
    parsed = _parse(raw.strip(), hint)
    converted = _convert(parsed, hint, f"--set {text}")
    table[names[-1]] = parsed if dataclasses.is_dataclass(hint) else converted


def _parse(raw: str, hint: object) -> object:
    if hint is str or str in typing.get_args(hint) and typing.get_origin(hint) in (types.UnionType, typing.Union):
        return raw.strip("\"'")
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    return parsed["value"] if len(parsed) == 1 else raw


def _convert(value: object, hint: object, where: str) -> object:
    """`value` as the type `hint` says, or a UserError; a number is never a string and a truth value never a number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _convert(value, next(a for a in arguments if a is not type(None)), where)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    if origin is list and isinstance(value, (list, tuple)):
        return [_convert(item, arguments[0], where) for item in value]
    if origin is tuple and isinstance(value, (list, tuple)) and len(value) == len(arguments):
        return tuple(_convert(item, kind, where) for item, kind in zip(value, arguments, strict=True))
    if dataclasses.is_dataclass(hint) and isinstance(value, str):  # its name alone
        return hint(value)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        keys = typing.get_type_hints(hint)
        for key in value:
            _known(key, keys, f"{where}: unknown key")
        if "name" not in value:
            raise UserError(f"{where}: expected a name, got {value!r}")
        return hint(**{key: _convert(item, keys[key], f"{where}.{key}") for key, item in value.items()})
    if origin is dict and isinstance(value, dict):
        return {str(key): _convert(item, arguments[1], where) for key, item in value.items()}
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a string"}
    names |= {list: "a list", dict: "a table", tuple: "a pair of numbers"}
    raise UserError(f"{where}: expected {names[origin or hint]}, got {value!r}")


def _check(config: Config) -> None:
    data, model, objective, optim, run = config.data, config.model, config.objective, config.optim, config.run
    low, high = model.kappa
    rules = [
        (len(set(data.modalities)) == len(data.modalities), "data.modalities", "each modality once", data.modalities),
        (len(data.modalities) != 1, "data.modalities", "none (all) or at least two", data.modalities),
        (data.split_by in ("group", "item"), "data.split_by", "group or item", data.split_by),
        (data.split_by == "group" or data.split_seed is not None, "data.split_by", "group without a data.split_seed", data.split_by),
        *((0 <= rate <= 1, f"data.noise.{name}", "0 <= rate <= 1", rate) for name, rate in data.noise.items()),
        *((0 <= rate < 1, f"data.missing.{name}", "0 <= rate < 1", rate) for name, rate in data.missing.items()),
        *(rule for name, encoder in model.encoders.items() for rule in _encoder_rules(f"model.encoders.{name}", encoder)),
        (data.workers is None or 0 <= data.workers <= 256, "data.workers", "0 to 256", data.workers),
        (model.dim >= 2, "model.dim", "at least 2", model.dim),
        (model.head != "none" or objective.name in CLASSIFY, "objective.name", f"one of {CLASSIFY} with model.head = none", objective.name),
        (model.hidden >= 0, "model.hidden", "0 (none) or more", model.hidden),
        (0 <= model.dropout < 1, "model.dropout", "0 <= dropout < 1", model.dropout),
        (0 <= low < high, "model.kappa", "0 <= low < high", list(model.kappa)),
        (objective.sampler in (None, *SAMPLERS), "objective.sampler", f"none (the right law), {', '.join(SAMPLERS)}", objective.sampler),
        (objective.temperature > 0, "objective.temperature", "a number > 0", objective.temperature),
        (objective.n_samples >= 1, "objective.n_samples", "at least 1", objective.n_samples),
        (objective.n_projections >= 1, "objective.n_projections", "at least 1", objective.n_projections),
        (objective.weight >= 0, "objective.weight", "a number >= 0", objective.weight),
        (0 < optim.lr <= 1e6, "optim.lr", "0 < lr <= 1e6", optim.lr),
        (optim.weight_decay >= 0, "optim.weight_decay", "a number >= 0", optim.weight_decay),
        (optim.clip_norm >= 0, "optim.clip_norm", "a number >= 0", optim.clip_norm),
        (optim.batch_size >= 2, "optim.batch_size", "at least 2", optim.batch_size),
        (optim.epochs >= 1, "optim.epochs", "at least 1", optim.epochs),
        (0 <= optim.momentum < 1, "optim.momentum", "0 <= momentum < 1", optim.momentum),
        (optim.warmup >= 0, "optim.warmup", "0 (none) or more", optim.warmup),
        (optim.step_epochs >= 1, "optim.step_epochs", "at least 1", optim.step_epochs),
        (0 < optim.gamma <= 1, "optim.gamma", "0 < gamma <= 1", optim.gamma),
        (1 <= optim.accumulate <= optim.batch_size, "optim.accumulate", "1 to optim.batch_size", optim.accumulate),
        (0 <= optim.ema < 1, "optim.ema", "0 <= ema < 1", optim.ema),
        (run.eval_every >= 1, "run.eval_every", "at least 1", run.eval_every),
        (run.patience >= 0, "run.patience", "0 (never) or more", run.patience),
        (run.eval_samples >= 0, "run.eval_samples", "0 (the mean direction) or more", run.eval_samples),
        (run.save_every >= 0, "run.save_every", "0 (at validations only) or more", run.save_every),
        (not run.shard or not optim.ema, "optim.ema", "0 with run.shard: torch cannot copy a model that is spread", optim.ema),
        (not run.shard or not run.compile, "run.compile", "false with run.shard", run.compile),
        (run.timeout >= 1, "run.timeout", "at least 1 second", run.timeout),
    ]
    for holds, key, expected, value in rules:
        if not holds:
            raise UserError(f"{key}: expected {expected}, got {value}")
    for key, value, known in (
        ("objective.name", objective.name, OBJECTIVES),
        ("model.head", model.head, HEADS),
        ("optim.name", optim.name, OPTIMISERS),
        ("optim.schedule", optim.schedule, SCHEDULES),
        ("run.precision", run.precision, PRECISIONS),
    ):
        if value not in known:
            raise UserError(f"{key}: unknown {value!r}; {near(value, known)}")


def _encoder_rules(where: str, encoder: Encoder) -> list[tuple[bool, str, str, object]]:
    return [
        (encoder.size in ("full", "tiny"), f"{where}.size", "full or tiny", encoder.size),
        (not encoder.pretrained or encoder.size == "full", f"{where}.size", "full for published weights", encoder.size),
        (encoder.freeze >= -1, f"{where}.freeze", "-1 (all), 0 (nothing) or a number of layers", encoder.freeze),
        (encoder.lr is None or 0 < encoder.lr <= 1e6, f"{where}.lr", "0 < lr <= 1e6", encoder.lr),
        (encoder.dropout is None or 0 <= encoder.dropout < 1, f"{where}.dropout", "0 <= dropout < 1", encoder.dropout),
        (encoder.seconds is None or 0.1 <= encoder.seconds <= 600, f"{where}.seconds", ".1 to 600", encoder.seconds),
        (encoder.frames is None or 1 <= encoder.frames <= 256, f"{where}.frames", "1 to 256", encoder.frames),
        (encoder.width is None or encoder.width >= 1, f"{where}.width", "at least 1", encoder.width),
        (encoder.classes is None or encoder.classes >= 1, f"{where}.classes", "at least 1", encoder.classes),
    ]


def _known(name: str, known: Iterable[str], complaint: str, prefix: str = "") -> None:
    if name not in known:
        raise UserError(f"{complaint} {prefix + name!r}; {near(prefix + name, [prefix + k for k in known])}")
