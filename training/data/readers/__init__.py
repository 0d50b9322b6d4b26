"""Readers: the folder of a dataset as it is distributed to the items of a manifest. One file a dataset, one function a file.

Each module has ``VARIANTS``, name -> what it is, the first one the default, and ``read(folder, variant, skipped) -> list[Item]``:
paths are relative to ``folder`` and need not exist (`convert` looks), a line of a list that cannot be used goes to ``skipped``, and a
folder of another layout is a UserError that names what was expected.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ...errors import UserError, near

READERS = {
    "as5m": "songs with covers and metadata, one cover for many songs, as in AS5M (a private dataset): songs.csv",
    "audiocaps": "AudioCaps: sounds with one caption (train) or five (val, test); the official lists or those of ACT and m-LTM",
    "clotho": "Clotho v2.1: sounds with five captions",
    "crema-d": "CREMA-D: acted emotions, audio and a frame",
    "cub": "CUB-200-2011: birds, ten captions, attributes, classes; the splits by class of PCME",
    "esc50": "ESC-50: sounds of 50 classes, for zero-shot classification by prompt",
    "flickr8k": "Flickr8k and Flickr Audio Captions: pictures with five written and spoken captions",
    "folder": "your own files, paired by name: x.jpg, x.wav, x.txt, in one folder or one a modality; or captions.csv",
    "ssw60": "SSW60: birds of 60 species in video, audio and pictures",
    "ucf101": "UCF-101: actions in video",
    "voxceleb2": "VoxCeleb2: speech and faces, by the lists of MMCosine or of the official metadata",
    "yt8m-musicvideo": "YT8M-MusicVideo: lists of YouTube ids, and what yt-dlp wrote for them",
}


def reader(name: str) -> ModuleType:
    """The module of the dataset ``name``; UserError for an unknown one."""
    if name not in READERS:
        raise UserError(f"dataset: unknown name {name!r}; {near(name, READERS)}")
    return import_module(f".{name.replace('-', '_')}", __package__)
