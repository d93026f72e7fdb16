"""Environments that are fetched: real archives from a real server on this machine."""

import hashlib
import io
import os
import re
import stat
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.registry import UnityEnvRegistry
from mlagents_envs.registry.binary_utils import (
    ZipFileWithProgress,
    get_local_binary_path,
    get_local_binary_path_if_exists,
    get_tmp_dirs,
    load_remote_manifest,
    print_progress,
)
from mlagents_envs.registry.remote_registry_entry import RemoteRegistryEntry

SERVED = f"#!{sys.executable}\nfrom mlagents_envs.server import main\nimport sys\nsys.exit(main())\n"
"""An executable that speaks as a Unity build does."""


def archive(files, mode=0o644):
    """The bytes of a zip archive of these files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as content:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFREG | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            content.writestr(entry, text)
    return packed.getvalue()


class Shop:
    """A server of files: what stands under a path is bytes, or a function that answers the request itself.

    :ivar asked: the paths of all requests.
    """

    def __init__(self):
        self.files, self.asked = {}, []
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                shop.asked.append(self.path)
                found = shop.files.get(self.path)
                if callable(found):
                    found(self)
                elif found is None:
                    self.send_error(404)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(found)))
                    self.end_headers()
                    self.wfile.write(found)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def shop():
    shop = Shop()
    yield shop
    shop.close()


@pytest.fixture(autouse=True)
def linux(monkeypatch):
    monkeypatch.setattr("mlagents_envs.registry.binary_utils.get_platform", lambda: "linux")
    monkeypatch.setattr("mlagents_envs.registry.remote_registry_entry.get_platform", lambda: "linux")


GAME = {"Game/Game.x86_64": "the game", "Game/Data/level.txt": "a level", "Game/UnityCrashHandler64.x86_64": "no"}


def fetched(shop, tmp_path, files=GAME, sha256=None, name="My Game"):
    data = files if isinstance(files, bytes) or callable(files) else archive(files)
    shop.files["/game.zip"] = data
    return get_local_binary_path(name, shop.url("/game.zip"), str(tmp_path), sha256)


def left_in(tmp_path):
    """All files below a folder but locks."""
    return sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_an_archive_is_fetched_once_and_its_executable_can_be_run(shop, tmp_path):
    assert get_local_binary_path_if_exists("My Game", shop.url("/game.zip"), str(tmp_path)) is None
    path = fetched(shop, tmp_path)
    assert Path(path).name == "Game.x86_64"
    assert Path(path).read_text() == "the game"
    assert os.access(path, os.X_OK)
    assert not os.access(Path(path).parent / "Data" / "level.txt", os.X_OK)
    assert fetched(shop, tmp_path) == path
    assert get_local_binary_path_if_exists("My Game", shop.url("/game.zip"), str(tmp_path)) == path
    assert shop.asked == ["/game.zip"]


def test_what_is_kept_is_this_users_alone(shop, tmp_path):
    fetched(shop, tmp_path)
    base = tmp_path / "ml-agents-binaries"
    folders = [
        base,
        base / "tmp",
        base / "binaries",
        *(path for path in (base / "binaries").iterdir() if path.is_dir()),
    ]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700] * 4


def test_the_cache_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for folder in get_tmp_dirs():
        assert Path(folder).is_dir()
        assert tmp_path / "cache" in Path(folder).parents


def test_environments_of_one_archive_share_it(shop, tmp_path):
    assert fetched(shop, tmp_path, name="One Scene") == fetched(shop, tmp_path, name="Another Scene")
    assert shop.asked == ["/game.zip"]


def test_no_proxy_is_asked_for_what_is_on_this_machine(shop, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetched(shop, tmp_path)


def test_a_folder_of_another_user_is_not_used(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(UnityEnvironmentException, match=r"ml-agents-binaries.* belongs to another user"):
        fetched(shop, tmp_path)


def test_archives_of_one_name_do_not_share_a_folder(shop, tmp_path):
    shop.files["/other.zip"] = archive({"Game.x86_64": "another game"})
    first = fetched(shop, tmp_path)
    second = get_local_binary_path("My Game", shop.url("/other.zip"), str(tmp_path))
    assert (Path(first).read_text(), Path(second).read_text()) == ("the game", "another game")


def test_the_sum_is_checked(shop, tmp_path):
    sha256 = hashlib.sha256(archive(GAME)).hexdigest()
    assert fetched(shop, tmp_path, sha256=sha256.upper())
    with pytest.raises(UnityEnvironmentException, match=rf"has the SHA-256 {sha256}, not {'0' * 64}\. It was changed"):
        fetched(shop, tmp_path / "other", sha256="0" * 64)
    assert left_in(tmp_path / "other") == []


def broken_off(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b"PK")


def redirected(location):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.end_headers()

    return answer


BOMB = archive({"Game.x86_64": b"\0" * (1 << 20)})


def link():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as content:
        entry = zipfile.ZipInfo("Game.x86_64")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        content.writestr(entry, "/bin/sh")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (broken_off, "broke off after 2 of 100000 bytes"),
        (b"no archive at all", "is no zip archive"),
        (archive(GAME)[:-30], "is no zip archive"),
        (archive({"readme.txt": "hello"}), "has no executable for linux in it"),
        (archive({"../evil.x86_64": "x"}), r"entry '\.\./evil\.x86_64' lies outside"),
        (archive({"a/../../evil.x86_64": "x"}), "lies outside"),
        (archive({"/evil.x86_64": "x"}), "lies outside"),
        (archive({"C:/evil.x86_64": "x"}), "lies outside"),
        (archive({"..\\evil.x86_64": "x"}), "lies outside"),
        (link(), r"My Game of http://.*game\.zip: .*since its entry 'Game\.x86_64' is a link"),
        (BOMB, "bytes would become 1,048,576"),
        (redirected("http://example.invalid/game.zip"), r"example\.invalid/game\.zip is not fetched, since it is not"),
        (redirected("file:///etc/passwd"), "file:///etc/passwd' is not allowed"),
    ],
    ids=["broken off", "no zip", "cut zip", "no executable", "outside", "outside by a detour", "absolute", "drive",
         "backslash", "link", "bomb", "redirected", "redirected to a file"],
)  # fmt: skip
def test_what_is_not_as_it_should_be_leaves_nothing_behind(shop, tmp_path, monkeypatch, served, message):
    monkeypatch.setattr("mlagents_envs.registry.binary_utils._HARMLESS_SIZE", 1 << 16)
    with pytest.raises(UnityEnvironmentException, match=message):
        fetched(shop, tmp_path / "kept", served)
    assert left_in(tmp_path) == []


def test_a_redirect_on_this_machine_is_followed(shop, tmp_path):
    shop.files["/elsewhere.zip"] = archive(GAME)
    assert fetched(shop, tmp_path, redirected(shop.url("/elsewhere.zip")))
    assert shop.asked == ["/game.zip", "/elsewhere.zip"]


@pytest.mark.parametrize("url", ["http://example.invalid/game.zip", "ftp://127.0.0.1/game.zip", "game.zip"])
def test_only_https_is_fetched(tmp_path, url):
    with pytest.raises(UnityEnvironmentException, match=rf"Game: {url} is not fetched, since it is not https"):
        get_local_binary_path("Game", url, str(tmp_path))


def test_nobody_there_and_nothing_there_are_named(shop, tmp_path):
    with pytest.raises(UnityEnvironmentException, match=r"nowhere\.zip answers 404"):
        get_local_binary_path("Game", shop.url("/nowhere.zip"), str(tmp_path))
    shop.server.server_close()
    with pytest.raises(UnityEnvironmentException, match=r"game\.zip cannot be reached: .*Check the connection"):
        get_local_binary_path("Game", shop.url("/game.zip"), str(tmp_path))


def test_a_folder_that_cannot_be_written_is_named(shop, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnityEnvironmentException, match=r"file.*cannot be made: Not a directory"):
        fetched(shop, tmp_path / "file")


def test_a_half_unpacked_folder_of_a_process_that_died_is_not_used(shop, tmp_path):
    path = Path(fetched(shop, tmp_path))
    unpacked = path.parents[1]
    half = Path(get_tmp_dirs(str(tmp_path))[0]) / f"{unpacked.name}-dead" / "unpacked"
    half.parent.mkdir()
    unpacked.rename(half)
    assert Path(fetched(shop, tmp_path)) == path
    assert shop.asked == ["/game.zip"] * 2
    assert not half.parent.exists()


FETCH = """
import sys
from mlagents_envs.registry.binary_utils import get_local_binary_path
print(get_local_binary_path("Game", sys.argv[1], sys.argv[2]))
"""


def test_two_processes_fetch_an_archive_once(shop, tmp_path):
    started = threading.Event()

    def slowly(handler):
        started.wait(30)  # until the second process runs, so that it finds the first at work
        data = archive(GAME)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    shop.files["/game.zip"] = slowly
    command = [sys.executable, "-c", FETCH, shop.url("/game.zip"), str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    started.set()
    (first, _), (second, _) = [process.communicate(timeout=60) for process in both]
    assert first == second
    assert Path(first.strip()).read_text() == "the game"
    assert shop.asked == ["/game.zip"]


def test_an_environment_is_fetched_started_and_stepped(shop, tmp_path):
    shop.files["/build.zip"] = archive({"build/Served.x86_64": SERVED})
    (tmp_path / "manifest.yaml").write_text(f"""
environments:
  - Line:
      expected_reward: 0.93
      description: A line to walk.
      linux_url: {shop.url("/build.zip")}
      linux_sha256: {hashlib.sha256(shop.files["/build.zip"]).hexdigest()}
      additional_args: [Basic]
""")
    registry = UnityEnvRegistry()
    registry.register_from_yaml(str(tmp_path / "manifest.yaml"))
    entry = registry["Line"]
    assert (entry.expected_reward, entry.description, entry.has_own_process) == (0.93, "A line to walk.", True)
    entry._tmp_dir = str(tmp_path / "cache")
    env = entry.make(worker_id=61)
    env.reset()
    assert list(env.behavior_specs) == ["Basic?team=0"]
    env.step()
    env.close()


def test_a_platform_without_an_archive_is_named(tmp_path):
    entry = RemoteRegistryEntry("Game", None, None, None, "https://a.invalid/m.zip", "https://a.invalid/w.zip")
    with pytest.raises(UnityEnvironmentException, match="Game has no archive for linux; there are: darwin, win"):
        entry.make()


# Manifests


def registered(tmp_path, text):
    (tmp_path / "manifest.yaml").write_text(text)
    registry = UnityEnvRegistry()
    registry.register_from_yaml(str(tmp_path / "manifest.yaml"))
    return registry


def test_a_manifest_may_lead_to_others(shop, tmp_path):
    shop.files["/more.yaml"] = (
        f"environments:\n- Far: {{linux_url: 'https://a.invalid/far.zip'}}\n- {shop.url('/more.yaml')}\n".encode()
    )
    registry = registered(tmp_path, f"environments:\n- {shop.url('/more.yaml')}\n- Near: {{path: builds/Near}}\n")
    assert list(registry) == ["Far", "Near"]
    assert shop.asked == ["/more.yaml"]
    assert load_remote_manifest(shop.url("/more.yaml"))["environments"][0]["Far"]


def test_a_local_entry_is_found_beside_its_manifest(tmp_path):
    build = tmp_path / "builds" / "Served.x86_64"
    build.parent.mkdir()
    build.write_text(SERVED)
    build.chmod(0o755)
    registry = registered(tmp_path, "environments:\n- Line: {path: builds/Served, additional_args: [Basic]}\n")
    env = registry["Line"].make(worker_id=62)
    env.reset()
    assert list(env.behavior_specs) == ["Basic?team=0"]
    env.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("environments: [", r"manifest\.yaml is no YAML that may be read: .*line 1"),
        ("environments: !!python/object/apply:os.system ['true']", "is no YAML that may be read: could not determine"),
        ("3DBall: {}", "must have a list under the key `environments`"),
        ("environments: {Game: {}}", "must have a list under the key `environments`"),
        ("environments: [3]", r"manifest\.yaml: 3 is no entry"),
        ("environments: [{Game: 3}]", "entry Game: it must have keys such as `linux_url` but is 3"),
        ("environments: [{Game: {linux_ulr: a}}]", "no key `linux_ulr`. Did you mean 'linux_url'?"),
        ("environments: [{Game: {path: 3}}]", "entry Game: `path` is 3, of type int"),
        ("environments: [{Game: {path: a, linux_url: b}}]", "both a `path` and URLs"),
        ("environments: [{Game: {description: a}}]", "neither by a `path` nor by a URL"),
        ("environments: [{Game: {linux_url: a, linux_sha256: '12'}}]", "must have 64 hexadecimal digits but is '12'"),
        ("environments: [{Game: {path: }}]", "neither by a `path` nor by a URL"),
        ("environments: [2020-13-45]", "is no YAML that may be read: month must be"),
        ("environments: [{Game: {path: a, expected_reward: true}}]", "`expected_reward` is True, of type bool"),
        ("environments: [{Game: {path: a, additional_args: [{b: c}]}}]", "must be a list of words"),
        (f"environments: [{{Game: {{linux_url: a, win_sha256: '{'0' * 64}'}}}}]", "a `win_sha256` but no `win_url`"),
        ("environments: [{A: {path: a}}, {B: {path: [b]}}]", "entry B: `path` is "),
    ],
)
def test_a_manifest_that_does_not_fit_is_named_and_nothing_of_it_registered(tmp_path, text, message):
    (tmp_path / "manifest.yaml").write_text(text)
    registry = UnityEnvRegistry()
    with pytest.raises(UnityEnvironmentException, match=message):
        registry.register_from_yaml(str(tmp_path / "manifest.yaml"))
    assert len(registry) == 0


def test_a_manifest_that_is_not_there_is_named():
    with pytest.raises(UnityEnvironmentException, match=re.escape("The manifest nowhere.yaml cannot be read: No such")):
        UnityEnvRegistry().register_from_yaml("nowhere.yaml")


def test_a_manifest_from_the_net_names_no_files_of_this_machine(shop, tmp_path):
    shop.files["/more.yaml"] = b"environments:\n- Here: {path: /bin/sh}\n"
    with pytest.raises(UnityEnvironmentException, match="a manifest from the net must not name a `path`"):
        registered(tmp_path, f"environments:\n- {shop.url('/more.yaml')}\n")


def test_progress_is_for_terminals_only(capsys, monkeypatch):
    print_progress("Unpacking", 50)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    print_progress("Unpacking", 50)
    assert capsys.readouterr().out == "\rUnpacking:  50%"


def test_an_archive_without_room_for_it_is_not_unpacked(tmp_path, monkeypatch):
    (tmp_path / "game.zip").write_bytes(archive(GAME))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 3})())
    with (
        ZipFileWithProgress(tmp_path / "game.zip") as content,
        pytest.raises(UnityEnvironmentException, match="no room"),
    ):
        content.extract_zip("Unpacking", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
