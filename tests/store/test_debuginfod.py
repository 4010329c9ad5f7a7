"""Manifests from debuginfod: Debian's real server on loopback, servers that misbehave, the cache on disk."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import EXAMPLES, lpmangle, run_lpmangle
from debuginfod_server import ID, free_port, running
from hypothesis import given
from hypothesis import strategies as st
from manifests import plain

from lpmangle.manifest import embed
from lpmangle.store import debuginfod
from lpmangle.store.debuginfod import DebuginfodSource, Server, server_at, servers_in

NAME = f"x86_emulate.c#_get_fpu_{ID}"
UNKNOWN = "0" * 40
# The names of the section's file in elfutils' cache: before 0.192, and since.
CACHED = {"section-.debug_lpmangle", "section-4f232649-.debug_lpmangle"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DEBUGINFOD_URLS", "DEBUGINFOD_TIMEOUT", "LPMANGLE_MANIFESTS", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(folder))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a folder of mangled payloads."""
    folder = tmp_path_factory.mktemp("debuginfod")
    (folder / "payloads").mkdir()
    for name in ("fbab204", "617712b"):
        lpmangle("--embed", shutil.copy(EXAMPLES / f"{name}.livepatch", folder / "payloads"))
    with running(folder) as url:
        yield url


def source(urls: str) -> DebuginfodSource:
    """The source that DEBUGINFOD_URLS gives."""
    return DebuginfodSource(servers_in(urls), share_misses=True)


def retrace(text: str, *args: str) -> subprocess.CompletedProcess[str]:
    return run_lpmangle(["retrace", *args], stdin=text)


def test_name_alone_is_enough(server: str, cache: Path) -> None:
    """A mangled name with the full build-id is enough; the second time, no server is asked."""
    text = f"S {NAME}+0x1/0x2 [fbab204]\n"
    done = retrace(text, "-m", server)
    assert (done.stdout, done.stderr) == ("S x86_emulate.c#_get_fpu+0x1/0x2 [fbab204]\n", "")
    assert NAME in lpmangle("query", f"{NAME}+0x3", "-m", server).stdout
    content = (cache / ID / "section-.debug_lpmangle").read_bytes()
    assert json.loads(embed.decompress(content))["build_id"] == ID
    done = retrace(text, "-m", f"http://127.0.0.1:{free_port()}")
    assert (done.stdout, done.stderr) == ("S x86_emulate.c#_get_fpu+0x1/0x2 [fbab204]\n", "")


def test_a_stacked_payload_finds_the_one_below(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only by .livepatch.depends; the same bytes as with the payload itself."""
    upper, lower = EXAMPLES / "stacked" / "8d4a1c7.livepatch", shutil.copy(EXAMPLES / "617712b.livepatch", tmp_path)
    lpmangle(lower)
    lpmangle("--against", lower, "-o", tmp_path / "expected", upper)
    done = lpmangle("--against", server, "-o", tmp_path / "found", upper)
    assert done.stderr == ""
    assert "2 undefined symbols and 1 function to replace" in done.stdout
    assert (tmp_path / "found").read_bytes() == (tmp_path / "expected").read_bytes()
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "empty"))
    dead = lpmangle("--against", f"http://127.0.0.1:{free_port()}", "-o", tmp_path / "none", upper, code=3)
    assert "127.0.0.1" in dead.stderr
    assert not (tmp_path / "none").exists()


def test_a_catalog_takes_its_manifests(server: str, tmp_path: Path) -> None:
    lpmangle("catalog", "add", tmp_path / "c.db", f"{server}/buildid/{ID}")
    assert "x86_emulate.c#_get_fpu" in lpmangle("query", NAME, "-m", tmp_path / "c.db").stdout


def test_federated_servers(server: str, tmp_path: Path) -> None:
    """A server that has nothing asks the next one, as docs/debugging.md says for a fleet."""
    (tmp_path / "site" / "payloads").mkdir(parents=True)
    with running(tmp_path / "site", upstream=server) as url:
        assert retrace(NAME, "-m", url).stdout == "x86_emulate.c#_get_fpu"


def test_verify_and_restore(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUGINFOD_URLS", f"  {server} ")
    payload = Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))
    lpmangle("--embed", payload)
    subprocess.run(["cp", payload, tmp_path / "stripped"], check=True)
    subprocess.run(["strip", "-g", tmp_path / "stripped"], check=True)
    Path(f"{payload}.manifest.json").unlink()
    lpmangle("verify", tmp_path / "stripped", code=1)
    lpmangle("restore", tmp_path / "stripped")
    assert (tmp_path / "stripped").read_bytes() == (EXAMPLES / "fbab204.livepatch").read_bytes()
    lpmangle("verify", payload, "-m", server)
    lpmangle("restore", payload, "-m", server)
    assert payload.read_bytes() == (EXAMPLES / "fbab204.livepatch").read_bytes()


def test_cache_is_shared_with_elfutils(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """debuginfod-find uses what lpmangle has fetched, and the other way round, hits and misses."""
    monkeypatch.setenv("DEBUGINFOD_URLS", server)

    def theirs(build_id: str, url: str = server) -> str:
        environment = {**os.environ, "DEBUGINFOD_URLS": url}
        command = ["debuginfod-find", "section", build_id, ".debug_lpmangle"]
        return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()

    assert retrace(NAME).stdout == "x86_emulate.c#_get_fpu"
    nobody = f"http://127.0.0.1:{free_port()}"
    assert theirs(ID, nobody) in {str(cache / ID / name) for name in CACHED}

    shutil.rmtree(cache)
    path = theirs(ID)
    assert path in {str(cache / ID / name) for name in CACHED}
    assert [found.where for found in source(nobody).with_build_id(ID)] == [path]

    assert not theirs(UNKNOWN)
    (marker,) = (cache / UNKNOWN).iterdir()
    assert marker.name in CACHED
    assert marker.stat().st_size == 0
    assert not list(source(server).with_build_id(UNKNOWN))
    marker.unlink()
    assert not list(source(server).with_build_id(UNKNOWN))
    assert {path.name for path in marker.parent.iterdir()} == CACHED
    assert [(path.stat().st_size, path.stat().st_mode & 0o777) for path in marker.parent.iterdir()] == [(0, 0)] * 2


@pytest.mark.parametrize("name", sorted(CACHED))
def test_misses_are_forgotten(server: str, cache: Path, name: str) -> None:
    marker = cache / ID / name
    marker.parent.mkdir(parents=True)
    marker.touch(0)
    assert not list(source(server).with_build_id(ID))
    (cache / "cache_miss_s").write_text("5")
    os.utime(marker, (0, 0))
    assert list(source(server).with_build_id(ID))
    assert marker.stat().st_size


def test_unknown_to_the_server(server: str) -> None:
    done = retrace(f"f_{UNKNOWN}\n", "-m", server)
    assert done.stdout == f"f_{UNKNOWN}\n"
    assert done.stderr.startswith("lpmangle: 1 name with 1 build-id in no manifest:")


def test_dead_server_is_a_warning(server: str) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    done = retrace(f"{NAME} f_{UNKNOWN} g_{UNKNOWN[1:]}1", "-m", dead, "-m", server)
    assert done.stdout.startswith("x86_emulate.c#_get_fpu f_0")
    assert done.stderr.count(dead) == 1
    assert f"lpmangle: {dead}: warning: left out: Connection refused" in done.stderr
    assert done.returncode == 0


Handler = Callable[[socket.socket], None]


@contextmanager
def bad_server(behaviour: Handler, asked: list[bytes] | None = None) -> Iterator[str]:
    """A server that does one thing with every connection; requests are collected in `asked`."""

    class Request(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                request = self.request.recv(4096)
                if asked is not None:
                    asked.append(request)
                behaviour(self.request)
            except OSError:
                pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Request) as made:
        made.daemon_threads = True
        threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()


def reply(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\nConnection: close") -> Handler:
    return lambda s: s.sendall(head + b"\r\n\r\n" + body)


NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nConnection: close"


def slowly(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 16))


OTHER = embed.compress(json.dumps(plain("other", "x")).encode())


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (lambda s: time.sleep(60), "timed out"),
        (slowly, "no end after 2 seconds"),
        (endless, "more than 1000000 bytes"),
        (reply(b"no zlib"), "is damaged"),
        (reply(b""), "is damaged"),
        (reply(OTHER), "is the manifest of another payload"),
        (reply(b"", b"HTTP/1.1 500 Oh\x1b[31m dear"), "500 Oh?[31m dear"),
        (reply(b"", b"nonsense"), "left out"),
        (reply(b"", b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd"), "302"),
        (lambda s: s.close(), "left out"),
        (reply(OTHER[:9], b"HTTP/1.1 200 OK\r\nContent-Length: 999"), "is "),
    ],
)
def test_servers_that_misbehave(
    server: str, cache: Path, monkeypatch: pytest.MonkeyPatch, behaviour: Handler, words: str
) -> None:
    """A warning; the next server is asked; nothing bad gets into the cache."""
    # Only where it matters: others would depend on the speed of this machine.
    monkeypatch.setenv("DEBUGINFOD_TIMEOUT", "2" if words == "timed out" else "30")
    monkeypatch.setenv("DEBUGINFOD_MAXTIME", "2" if behaviour is slowly else "60")
    monkeypatch.setenv("DEBUGINFOD_MAXSIZE", "1000000")
    with bad_server(behaviour) as url:
        done = retrace(NAME, "-m", url)
        assert done.stdout == NAME
        assert words in done.stderr
        assert "\x1b" not in done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode == 0
        assert not [path for path in cache.rglob("section-*") if path.stat().st_size]
        shutil.rmtree(cache, ignore_errors=True)
        assert retrace(NAME, "-m", url, "-m", server).stdout == "x86_emulate.c#_get_fpu"


def test_log_of_random_digits_is_no_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debuginfod, "MAX_MISSES", 10)
    asked = []

    def count(connection: socket.socket) -> None:
        asked.append(1)
        reply(b"", NOT_FOUND)(connection)

    with bad_server(count) as url:
        made = source(url)
        for number in range(50):
            assert not list(made.with_build_id(f"{number:040x}"))
    assert len(asked) == 10


ELFUTILS = {
    "http://h": "http://h",
    "HTTP://Example.ORG:8002/": "http://Example.ORG:8002",
    "https://h/prefix//": "https://h/prefix",
    "h:8002": "http://h:8002",
    "localhost": "http://localhost",
    "h/prefix": "http://h/prefix",
    "[::1]:8002": "http://[::1]:8002",
    "http://[::1]": "http://[::1]",
    "file:///srv/tree/": "file:///srv/tree",
    "FILE://localhost/srv": "file://localhost/srv",
}
NO_URLS = (
    "ftp://h",
    "http://",
    "http:///x",
    "://h",
    ":8002",
    "h:port",
    "h:99999",
    "h:0",
    "/srv/shipped",
    "file://h/x",
    "file://",
    "[::1",
    "http://h\x1b",
)


@pytest.mark.parametrize(("word", "url"), ELFUTILS.items())
def test_urls_as_elfutils_takes_them(word: str, url: str) -> None:
    assert server_at(word) == Server(url, "")


def test_what_is_no_url_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert [server.url for server in servers_in(" ".join(("a:1", *NO_URLS, "b:2")))] == ["http://a:1", "http://b:2"]
    assert capsys.readouterr().err.splitlines() == [
        f"lpmangle: {word}: warning: left out: is not the URL of a debuginfod server".replace("\x1b", "?")
        for word in NO_URLS
    ]


def test_tags(capsys: pytest.CaptureFixture[str]) -> None:
    """elfutils would check the signature of data from a server after ima:enforcing; unchecked data are not used."""
    words = "http://a ima:enforcing http://b c:1 ima:ignore http://d ima:new http://e"
    assert [server.url for server in servers_in(words)] == ["http://a", "http://d", "http://e"]
    assert capsys.readouterr().err.splitlines() == [
        "lpmangle: http://b: warning: left out: follows ima:enforcing, and lpmangle does not check signatures",
        "lpmangle: http://c:1: warning: left out: follows ima:enforcing, and lpmangle does not check signatures",
        "lpmangle: ima:new: warning: left out: is not a policy that DEBUGINFOD_URLS knows",
    ]


@given(st.text())
def test_any_text_as_urls(text: str) -> None:
    for server in servers_in(text):
        assert server.url.startswith(("http://", "https://", "file://"))
        assert server.url.isprintable()


def test_the_environment_as_distributions_set_it(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is copied; query and verify give the same, whatever other sources there are."""
    place = server.removeprefix("http://")
    payload = Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))
    lpmangle("--embed", payload)
    for value in (f"ima:enforcing ima:ignore {place}", f"HTTP://{place}/ ftp://h", f"http://{place}//"):
        monkeypatch.setenv("DEBUGINFOD_URLS", value)
        monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / f"cache-{len(value)}"))
        done = retrace(NAME)
        assert (done.stdout, done.returncode) == ("x86_emulate.c#_get_fpu", 0)
        assert NAME in lpmangle("query", NAME).stdout
        lpmangle("verify", payload)
    for value in ("ima:enforcing https://debuginfod.example.org/ ima:ignore ", "ftp://h", "/srv/nothing"):
        monkeypatch.setenv("DEBUGINFOD_URLS", value)
        monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "empty"))
        done = retrace(NAME)
        assert (done.stdout, done.returncode) == (NAME, 0)
        assert "warning: left out: " in done.stderr
        assert "warning: left out: " in lpmangle("query", NAME, code=1).stderr
        assert "has no manifest" not in lpmangle("verify", payload).stderr
    monkeypatch.setenv("DEBUGINFOD_URLS", " ")
    assert "no manifests to search" in lpmangle("query", NAME, code=2).stderr


def test_a_tree_as_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """file:// names a folder with the paths of a server; elfutils' own client accepts the same."""
    tree = tmp_path / "tree 100%"
    section = tree / "buildid" / ID / "section" / ".debug_lpmangle"
    section.parent.mkdir(parents=True)
    lpmangle("--embed", payload := shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))
    text = Path(f"{payload}.manifest.json").read_bytes()
    section.write_bytes(embed.compress(text))
    url = tree.as_uri()
    monkeypatch.setenv("DEBUGINFOD_URLS", url)
    command = ["debuginfod-find", "section", ID, ".debug_lpmangle"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(found).read_bytes() == section.read_bytes()
    for number, args in enumerate(((), ("-m", url), ("-m", url.replace("file", "FILE")))):
        monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / f"cache{number}"))
        done = retrace(f"{NAME} f_{UNKNOWN}", *args)
        assert done.stdout == f"x86_emulate.c#_get_fpu f_{UNKNOWN}"
        assert "warning" not in done.stderr
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "empty"))
    done = retrace(NAME, "-m", "file:///no/such/folder")
    assert done.stdout == NAME
    assert "lpmangle: file:///no/such/folder: warning: left out: Not a directory" in done.stderr


def test_user_and_password() -> None:
    """As debuginfod-find(1) documents them; they are never shown, and not sent to the target of a redirection."""
    here: list[bytes] = []
    there: list[bytes] = []
    with bad_server(reply(b"", NOT_FOUND), there) as other:
        redirection = f"HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: {other}/x".encode()
        with bad_server(reply(b"", redirection), here) as url:
            done = retrace(NAME, "-m", url.replace("http://", "http://me:p%40ss@"))
    assert f"Authorization: Basic {base64.b64encode(b'me:p@ss').decode()}\r\n".encode() in here[0]
    assert there
    assert b"Authorization" not in there[0]
    assert "p%40ss" not in done.stderr
    assert done.stdout == NAME


def test_an_unknown_build_id_is_asked_of_others(server: str) -> None:
    """If one server does not have it, another is still asked, in the same run or in the next."""
    with bad_server(reply(b"", NOT_FOUND)) as url:
        assert retrace(NAME, "-m", url).stdout == NAME
        assert retrace(NAME, "-m", url, "-m", server).stdout == "x86_emulate.c#_get_fpu"


def test_only_full_build_ids_are_asked_for() -> None:
    made = source("http://127.0.0.1:1")
    assert not list(made.with_build_id("../../../etc/passwd"))
    assert not list(made.with_suffix("d967c17f6518"))
    assert not list(made.candidates("_get_fpu"))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DEBUGINFOD_CACHE_PATH": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/debuginfod_client"),
        ({"HOME": "/h"}, "/h/.cache/debuginfod_client"),
    ],
)
def test_cache_folder(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEBUGINFOD_CACHE_PATH", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert debuginfod.cache_folder() == expected


def test_cache_that_cannot_be_written(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "file"))
    assert retrace(NAME, "-m", server).stdout == "x86_emulate.c#_get_fpu"
