"""Archives with executables: fetched, checked, unpacked once, and kept for later."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import os
import shutil
import stat
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, Dict, Iterator, Optional, Tuple

import yaml

from mlagents_envs.env_utils import get_platform
from mlagents_envs.exception import UnityEnvironmentException

BLOCK_SIZE = 8192
"""Bytes that are read at once."""

_TIMEOUT_S = 60
_LARGEST_MANIFEST = 1 << 20
_LARGEST_RATIO = 200
"""Of an archive's content to the archive, beyond which it is taken for a bomb if it is also larger than..."""
_HARMLESS_SIZE = 1 << 28

_EXECUTABLES = {"darwin": ("*.app",), "win32": ("*.exe",)}
_CRASH_HANDLERS = "UnityCrashHandler"


def get_tmp_dirs(tmp_dir: Optional[str] = None) -> Tuple[str, str]:
    """Return the folders of downloads under way and of unpacked archives, which are made where they are missing.

    :param tmp_dir: where they are; the user's cache folder if not given.
    """
    base = (Path(tmp_dir) if tmp_dir is not None else _cache_folder()) / "ml-agents-binaries"
    for folder in (base, base / "tmp", base / "binaries"):
        _make_private(folder)
    return str(base / "tmp"), str(base / "binaries")


def _cache_folder() -> Path:
    if get_platform() == "darwin":
        return Path.home() / "Library" / "Caches"
    if get_platform() == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _make_private(folder: Path) -> None:
    """Make a folder for this user alone: what is in it will be run."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        owner = folder.stat().st_uid
    except OSError as error:
        raise UnityEnvironmentException(
            f"The folder {folder} for downloaded environments cannot be made: {error.strerror}."
        ) from error
    if hasattr(os, "getuid") and owner != os.getuid():
        raise UnityEnvironmentException(
            f"The folder {folder} for downloaded environments belongs to another user, who could change what is run. "
            "Give another one."
        )


def get_local_binary_path(name: str, url: str, tmp_dir: Optional[str] = None, sha256: Optional[str] = None) -> str:
    """Return the path of the executable in an archive, which is fetched and unpacked unless that was done before.

    A second process that asks at the same time waits, and finds what the first has unpacked.

    :param name: of the environment, for its folder and for messages.
    :param url: of the zip archive; https, or http to this machine.
    :param tmp_dir: see `get_tmp_dirs`.
    :param sha256: of the archive, in hexadecimal, which is checked when given.
    :raises UnityEnvironmentException: it cannot be fetched, is not what it should be, or holds no executable.
    """
    folder = _folder_of(url, get_tmp_dirs(tmp_dir)[1], sha256)
    if not folder.is_dir():
        with _locked(folder.with_suffix(".lock"), name):
            if not folder.is_dir():
                download_and_extract_zip(url, name, tmp_dir, sha256)
    path = _find_executable(folder)
    if path is None:
        shutil.rmtree(folder, ignore_errors=True)  # a better archive may come to that place
        raise UnityEnvironmentException(
            f"The environment {name} of {url} has no executable for {get_platform()} in it."
        )
    return path


def get_local_binary_path_if_exists(
    name: str, url: str, tmp_dir: Optional[str] = None, sha256: Optional[str] = None
) -> Optional[str]:
    """Return the path of the executable in an archive that has been unpacked before; None if it has not."""
    folder = _folder_of(url, get_tmp_dirs(tmp_dir)[1], sha256)
    return _find_executable(folder) if folder.is_dir() else None


def _folder_of(url: str, bin_dir: str, sha256: Optional[str]) -> Path:
    """Return where an archive is unpacked: one folder for all environments in it, and none for two archives."""
    key = hashlib.sha256(f"{url}\n{(sha256 or '').lower()}".encode()).hexdigest()[:16]
    stem = PurePosixPath(url).stem
    return Path(bin_dir) / f"{''.join(letter if letter.isalnum() else '-' for letter in stem)}-{key}"


def _find_executable(folder: Path) -> Optional[str]:
    for pattern in _EXECUTABLES.get(get_platform(), ("*.x86_64", "*.x86")):
        found = [path for path in folder.rglob(pattern) if not _is_no_game(path)]
        if found:
            return str(min(found, key=lambda path: (len(path.parts), path)))
    return None


def _is_no_game(path: Path) -> bool:
    return path.name.startswith(_CRASH_HANDLERS) or "__MACOSX" in path.parts


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    """Keep other processes out, which wait; the lock ends with the process that has it."""
    try:
        opened = open(path, "a+b")  # noqa: SIM115  # closed below
    except OSError as error:
        raise UnityEnvironmentException(
            f"The environment {name} cannot be kept: {path} cannot be written: {error.strerror}."
        ) from error
    with opened as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            while True:
                with contextlib.suppress(OSError):  # after ten attempts, a second each
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def download_and_extract_zip(url: str, name: str, tmp_dir: Optional[str] = None, sha256: Optional[str] = None) -> None:
    """Fetch an archive, check it, and unpack it to its folder, which appears whole or not at all.

    :raises UnityEnvironmentException: it cannot be fetched, is not what it should be, or cannot be unpacked.
    """
    download_dir, bin_dir = get_tmp_dirs(tmp_dir)
    target = _folder_of(url, bin_dir, sha256)
    for left in Path(download_dir).glob(f"{target.name}-*"):  # by a process that was killed: this one has the lock
        shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(dir=download_dir, prefix=f"{target.name}-") as folder:
            archive, unpacked = Path(folder) / "archive.zip", Path(folder) / "unpacked"
            with open(archive, "wb") as file:
                _fetch(url, name, file, sha256)
            _unpack(archive, unpacked, url, name)
            os.rename(unpacked, target)
    except OSError as error:
        raise UnityEnvironmentException(
            f"The environment {name} of {url} cannot be kept in {bin_dir}: {error.strerror or error}."
        ) from error


def _unpack(archive: Path, folder: Path, url: str, name: str) -> None:
    try:
        with ZipFileWithProgress(archive) as content:
            content.extract_zip(f"  Unpacking {name}", str(folder))
    except UnityEnvironmentException as error:
        raise UnityEnvironmentException(f"The environment {name} of {url}: {error}") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:  # the last: it is encrypted
        raise UnityEnvironmentException(f"What {url} gave for {name} is no zip archive: {error}.") from error


def _fetch(url: str, name: str, file: IO[bytes], sha256: Optional[str]) -> None:
    """Write what a URL gives to a file, and check it."""
    digest = hashlib.sha256()
    with _open_url(url, name) as response:
        size = response.length or 0
        n_read = 0
        while block := _read(response, BLOCK_SIZE, url, name):
            file.write(block)
            digest.update(block)
            n_read += len(block)
            if size:
                print_progress(f"  Downloading {name}", 100 * n_read / size)
    if size and n_read != size:
        raise UnityEnvironmentException(
            f"The environment {name}: {url} broke off after {n_read} of {size} bytes. Try again."
        )
    if sha256 is not None and digest.hexdigest() != sha256.lower():
        raise UnityEnvironmentException(
            f"The environment {name}: what {url} gave has the SHA-256 {digest.hexdigest()}, not {sha256.lower()}. "
            "It was changed since its entry was written, or on the way; it is not used."
        )


def _read(response: http.client.HTTPResponse, n_bytes: int, url: str, name: str) -> bytes:
    try:
        return response.read(n_bytes)
    except (OSError, http.client.HTTPException) as error:
        raise UnityEnvironmentException(f"The environment {name}: {url} broke off: {error}. Try again.") from error


def _open_url(url: str, name: str) -> http.client.HTTPResponse:
    _check_url(url, name)
    handlers: list[urllib.request.BaseHandler] = [_CheckedRedirects(name)]
    if url.startswith("http:"):  # to this machine, where no proxy leads
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    try:
        response: http.client.HTTPResponse = opener.open(url, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        raise UnityEnvironmentException(
            f"The environment {name}: {url} answers {error.code} {error.reason}."
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UnityEnvironmentException(
            f"The environment {name}: {url} cannot be reached: {reason}. Check the connection and the address."
        ) from error
    return response


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to where a download may come from in the first place."""

    def __init__(self, name: str):
        self._name = name

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        _check_url(newurl, self._name)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str, name: str) -> None:
    """Raise unless nobody on the way can change what a URL gives: https, or http on this machine."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise UnityEnvironmentException(f"The environment {name}: {url} is no address: {error}.") from error
    if parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(parts.hostname or "")):
        return
    raise UnityEnvironmentException(
        f"The environment {name}: {url} is not fetched, since it is not https: it could be changed on the way, and "
        "then be run."
    )


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def print_progress(prefix: str, percent: float) -> None:
    """Show how far something is, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\r{prefix}: {percent:3.0f}%", end="\n" if percent >= 100 else "", flush=True)


def load_remote_manifest(url: str) -> Dict[str, Any]:
    """Return the manifest, a YAML file, that a URL gives.

    :raises UnityEnvironmentException: it cannot be fetched or read.
    """
    with _open_url(url, "manifest") as response:
        text = _read(response, _LARGEST_MANIFEST + 1, url, "manifest")
    if len(text) > _LARGEST_MANIFEST:
        raise UnityEnvironmentException(f"The manifest {url} is larger than a megabyte, so it is none.")
    return _read_manifest(text, url)


def load_local_manifest(path: str) -> Dict[str, Any]:
    """Return the manifest in a YAML file.

    :raises UnityEnvironmentException: it cannot be read.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UnityEnvironmentException(f"The manifest {path} cannot be read: {error.strerror}.") from error
    return _read_manifest(text, path)


def _read_manifest(text: bytes, where: str) -> Dict[str, Any]:
    try:
        manifest = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none, or no text
        reason = " ".join(str(error).split())
        raise UnityEnvironmentException(f"The manifest {where} is no YAML that may be read: {reason}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("environments"), list):
        raise UnityEnvironmentException(f"The manifest {where} must have a list under the key `environments`.")
    return manifest


class ZipFileWithProgress(zipfile.ZipFile):
    """An archive that is unpacked only if all of it stays in its folder."""

    def extract_zip(self, prefix: str, path: str) -> None:
        """Unpack to a folder, which is made.

        :param prefix: what `print_progress` says.
        :raises UnityEnvironmentException: an entry would lie outside of the folder or is a link, or the content is too
            large.
        """
        entries = self.infolist()
        for entry in entries:
            self._check_entry(entry)
        self._check_size(sum(entry.file_size for entry in entries), path)
        os.makedirs(path, mode=0o700)
        for number, entry in enumerate(entries):
            unpacked = self.extract(entry, path)
            if not entry.is_dir() and _is_run(entry):
                os.chmod(unpacked, 0o755)
            print_progress(prefix, 100 * (number + 1) / len(entries))

    def _check_entry(self, entry: zipfile.ZipInfo) -> None:
        name = entry.filename
        windows = PureWindowsPath(name)
        leaves = ".." in windows.parts or windows.drive or windows.root or PurePosixPath(name).is_absolute()
        if leaves or stat.S_ISLNK(entry.external_attr >> 16):
            kind = "lies outside of the folder that it is unpacked to" if leaves else "is a link"
            raise UnityEnvironmentException(f"the archive is not unpacked, since its entry {name!r} {kind}.")

    def _check_size(self, size: int, path: str) -> None:
        packed = os.path.getsize(str(self.filename))
        free = shutil.disk_usage(os.path.dirname(path)).free
        if size > max(_HARMLESS_SIZE, _LARGEST_RATIO * packed):
            raise UnityEnvironmentException(f"the archive is not unpacked: its {packed:,} bytes would become {size:,}.")
        if size > free:
            raise UnityEnvironmentException(
                f"there is no room to unpack the archive: it needs {size:,} bytes, and {free:,} are free."
            )


def _is_run(entry: zipfile.ZipInfo) -> bool:
    """Whether a file is one to run: it says so, or is where Unity's executables are."""
    path = PurePosixPath(entry.filename)
    says_so = bool((entry.external_attr >> 16) & stat.S_IXUSR)
    return says_so or path.suffix in (".x86_64", ".x86") or path.parts[-3:-1] == ("Contents", "MacOS")
