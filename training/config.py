"""The configuration of a run: five dataclasses, strict TOML, and `--set section.key=value`.

Every key is known, typed and checked here; a key that is not known is an error that names the nearest one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .config_rules import check
from .config_values import check_known, convert, parse, toml_of
from .errors import UserError, near

RECIPES = Path(__file__).parent / "recipes"
# Keys that change no result:
WITHOUT_EFFECT = (
    ("data", "manifest"), ("data", "workers"), ("objective", "sharded"), ("run", "save_every"), ("run", "shard"), ("run", "tensorboard"),
    ("run", "timeout"),
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
    sharded: bool | None = None  # of learning-to-match: the processes solve its problem together, each with its own rows of the costs
    max_iter: int | None = None
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
        check(self)

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
        check_known(name, hints, f"{where}: unknown section")
        if not isinstance(table, dict):
            raise UserError(f"{where}: expected [{name}] to be a table, got {table!r}")
        keys = typing.get_type_hints(hints[name])
        for key in table:
            check_known(key, keys, f"{where}: unknown key", f"{name}.")
        sections[name] = hints[name](**{key: convert(value, keys[key], f"{where}: {name}.{key}") for key, value in table.items()})
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
        lines += [f"{key} = {toml_of(value)}" for key, value in table.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def _override(values: dict[str, object], text: str) -> None:
    """Put "section.key=value" (or "section.key.name=value" for a table) into the nested tables `values`."""
    key, equals, raw = text.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not equals or len(names) < 2 or not all(names):
        raise UserError(f"--set {text}: expected section.key=value, for example --set optim.lr=1e-3")
    hints = typing.get_type_hints(Config)
    check_known(names[0], hints, f"--set {text}: unknown section")
    keys = typing.get_type_hints(hints[names[0]])
    check_known(names[1], keys, f"--set {text}: unknown key", f"{names[0]}.")
    hint = keys[names[1]]
    inner = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else None
    if inner and len(names) == 3:
        hint = inner
    elif dataclasses.is_dataclass(inner) and len(names) == 4:  # a key of what lies under a name of the table
        keys = typing.get_type_hints(inner)
        check_known(names[3], keys, f"--set {text}: unknown key", ".".join(names[:3]) + ".")
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
    parsed = parse(raw.strip(), hint)
    converted = convert(parsed, hint, f"--set {text}")
    table[names[-1]] = parsed if dataclasses.is_dataclass(hint) else converted
