"""Manifests from debuginfod: Debian's real server on loopback, servers that misbehave, the cache on disk."""

from __future__ import annotations

import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from manifests import plain
from test_cli import EXAMPLES, lpmangle

from lpmangle.manifest import embed
from lpmangle.store import debuginfod
from lpmangle.store.debuginfod import DebuginfodSource

ID = "d967c17f6518371e26e591728fd30fa3f292977c"  # of examples/fbab204.livepatch
NAME = f"x86_emulate.c#_get_fpu_{ID}"
UNKNOWN = "0" * 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DEBUGINFOD_URLS", "DEBUGINFOD_TIMEOUT", "LPMANGLE_MANIFESTS", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(folder))
    return folder


@contextmanager
def running(folder: Path, upstream: str = "", build_id: str = ID) -> Iterator[str]:
    """The URL of debuginfod, serving the payloads in a folder; it has answered for one of them."""
    port = free_port()
    command = ["debuginfod", "-F", "-p", str(port), "-d", str(folder / "index.sqlite"), str(folder / "payloads")]
    left_out = ("DEBUGINFOD_URLS", "DEBUGINFOD_CACHE_PATH", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"HOME": str(folder)} | ({"DEBUGINFOD_URLS": upstream} if upstream else {})
    with (
        open(folder / "log", "wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        try:
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    with urllib.request.urlopen(f"{url}/buildid/{build_id}/section/.debug_lpmangle", timeout=5):
                        break
                except OSError:
                    time.sleep(0.2)
            else:
                pytest.fail((folder / "log").read_text()[-3000:])
            yield url
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a folder of mangled payloads."""
    folder = tmp_path_factory.mktemp("debuginfod")
    (folder / "payloads").mkdir()
    for name in ("fbab204", "617712b"):
        lpmangle("--embed", shutil.copy(EXAMPLES / f"{name}.livepatch", folder / "payloads"))
    with running(folder) as url:
        yield url


def retrace(text: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lpmangle", "retrace", *args]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)


def test_name_alone_is_enough(server: str, cache: Path) -> None:
    """A mangled name with the full build-id is all that is needed; the second time nobody is asked."""
    text = f"S {NAME}+0x1/0x2 [fbab204]\n"
    done = retrace(text, "-m", server)
    assert (done.stdout, done.stderr) == ("S x86_emulate.c#_get_fpu+0x1/0x2 [fbab204]\n", "")
    assert NAME in lpmangle("query", f"{NAME}+0x3", "-m", server).stdout
    content = (cache / ID / "section-.debug_lpmangle").read_bytes()
    assert json.loads(embed.decompress(content))["build_id"] == ID
    done = retrace(text, "-m", f"http://127.0.0.1:{free_port()}")
    assert (done.stdout, done.stderr) == ("S x86_emulate.c#_get_fpu+0x1/0x2 [fbab204]\n", "")


def test_a_stacked_payload_finds_the_one_below(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By .livepatch.depends alone; the same bytes as with the payload at hand."""
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


def test_federated_servers(server: str, tmp_path: Path) -> None:
    """A server that has nothing asks the one behind it, as docs/debugging.md says of a fleet."""
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
    assert "is not what lpmangle wrote" in lpmangle("restore", tmp_path / "stripped", code=3).stderr
    lpmangle("verify", tmp_path / "stripped", code=1)
    lpmangle("verify", payload, "-m", server)
    lpmangle("restore", payload, "-m", server)
    assert payload.read_bytes() == (EXAMPLES / "fbab204.livepatch").read_bytes()


def test_cache_is_shared_with_elfutils(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """debuginfod-find takes what lpmangle has fetched, and the other way round, hits and misses."""
    monkeypatch.setenv("DEBUGINFOD_URLS", server)

    def theirs(build_id: str, url: str = server) -> str:
        environment = {**os.environ, "DEBUGINFOD_URLS": url}
        command = ["debuginfod-find", "section", build_id, ".debug_lpmangle"]
        return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()

    assert retrace(NAME).stdout == "x86_emulate.c#_get_fpu"
    nobody = f"http://127.0.0.1:{free_port()}"
    assert theirs(ID, nobody) == str(cache / ID / "section-.debug_lpmangle")

    shutil.rmtree(cache)
    path = theirs(ID)
    assert path == str(cache / ID / "section-.debug_lpmangle")
    assert [found.where for found in DebuginfodSource([nobody]).with_build_id(ID)] == [path]

    assert not theirs(UNKNOWN)
    marker = cache / UNKNOWN / "section-.debug_lpmangle"
    assert marker.stat().st_size == 0
    assert not list(DebuginfodSource([server]).with_build_id(UNKNOWN))
    marker.unlink()
    assert not list(DebuginfodSource([server]).with_build_id(UNKNOWN))
    assert (marker.stat().st_size, marker.stat().st_mode & 0o777) == (0, 0)


def test_misses_are_forgotten(server: str, cache: Path) -> None:
    marker = cache / ID / "section-.debug_lpmangle"
    marker.parent.mkdir(parents=True)
    marker.touch(0)
    assert not list(DebuginfodSource([server]).with_build_id(ID))
    (cache / "cache_miss_s").write_text("5")
    os.utime(marker, (0, 0))
    assert list(DebuginfodSource([server]).with_build_id(ID))
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
def bad_server(behaviour: Handler) -> Iterator[str]:
    """A server that does one thing with every connection."""

    class Request(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                self.request.recv(4096)
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


def slowly(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
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
        (lambda s: time.sleep(20), "timed out"),
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
    """A warning within seconds; the next server is asked; nothing bad gets into the cache."""
    monkeypatch.setenv("DEBUGINFOD_TIMEOUT", "1")
    monkeypatch.setenv("DEBUGINFOD_MAXTIME", "2")
    monkeypatch.setenv("DEBUGINFOD_MAXSIZE", "1000000")
    with bad_server(behaviour) as url:
        started = time.monotonic()
        done = retrace(NAME, "-m", url)
        assert time.monotonic() - started < 8
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
        reply(b"", b"HTTP/1.1 404 Not Found\r\nConnection: close")(connection)

    with bad_server(count) as url:
        source = DebuginfodSource([url])
        for number in range(50):
            assert not list(source.with_build_id(f"{number:040x}"))
    assert len(asked) == 10


def test_only_full_build_ids_are_asked_for() -> None:
    source = DebuginfodSource(["http://127.0.0.1:1"])
    assert not list(source.with_build_id("../../../etc/passwd"))
    assert not list(source.with_suffix("d967c17f6518"))
    assert not list(source.candidates("_get_fpu"))


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
