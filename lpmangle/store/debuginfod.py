"""Manifests from debuginfod servers: the section that `--embed` adds, asked for by build-id; and debug information.

    GET /buildid/BUILDID/section/.debug_lpmangle
    GET /buildid/BUILDID/debuginfo

The cache on disk is that of elfutils' own client, so that `debuginfod-find section` and lpmangle share what they fetch:
the same folder, file names, and records of what no server had. Servers are asked one after the other; one that does not
answer is left out for the rest of the run, with a warning.
"""

import errno
import os
import re
import stat
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import unquote, unquote_to_bytes, urlsplit, urlunsplit

from lpmangle import elf
from lpmangle.errors import LpmangleError, ManifestError, PayloadError, counted
from lpmangle.manifest import embed
from lpmangle.manifest.read import decode
from lpmangle.store.source import Found, Shape, warn
from lpmangle.xen.payload import Payload

# Seconds without an answer or a byte, after which the server is left out; DEBUGINFOD_TIMEOUT changes it. elfutils waits
# 90, for files of a gigabyte.
TIMEOUT = 10.0
# Seconds for one whole download; DEBUGINFOD_MAXTIME changes it.
MAX_TIME = 60.0
# Bytes of one compressed manifest or payload; DEBUGINFOD_MAXSIZE can only lower it.
MAX_SIZE = 64 << 20
# Seconds in which a failed query is not repeated; the file cache_miss_s in the cache changes it.
CACHE_MISS = 600
# A log of random digits must not become an attack on the servers.
MAX_MISSES = 500
# A limit for seconds and bytes: more than anybody needs, and still valid for system calls.
_MOST = 1e9

# What is requested.
_SECTION = f"section/{embed.SECTION}"
_DEBUGINFO = "debuginfo"
# Its names in the cache: that of elfutils 0.192 and newer, where a hash (djb2) precedes a section's name
# (debuginfod-client.c, path_escape), and the older one. Both are read and written: elfutils here may be either.
_FILES = {_SECTION: (f"section-4f232649-{embed.SECTION}", f"section-{embed.SECTION}"), _DEBUGINFO: ("debuginfo",)}
_Check = Callable[[bytes, str], bytes]
_BUILD_ID = re.compile(r"[0-9a-f]{40}")


class Server(NamedTuple):
    """A server: its URL, without the slash at the end, and a header's value for the user and password in it."""

    url: str
    authorization: str


def server_at(word: str) -> Server | None:
    """The server that a URL means, as in curl, so also in capital letters or without `http://`; None for anything else.

    With `file://` it is a folder with the paths of a server: FOLDER/buildid/BUILDID/section/.debug_lpmangle.
    """
    try:
        scheme, place, path, _, _ = urlsplit(word if "://" in word else f"http://{word}")
        user, _, host = place.rpartition("@")
        port = urlsplit(f"//{host}").port
    except ValueError:
        return None
    if not word.isprintable() or port == 0 or not (path.startswith("/") or not path):
        return None
    if scheme == "file":
        if host not in ("", "localhost") or not path:
            return None
    elif scheme not in ("http", "https") or not host or host.startswith(":"):
        return None
    credentials = b64encode(unquote_to_bytes(user)).decode()
    return Server(urlunsplit((scheme, host, path.rstrip("/"), "", "")), user and f"Basic {credentials}")


def servers_in(words: str) -> Iterator[Server]:
    """The servers in DEBUGINFOD_URLS (debuginfod-client-config(7)). Other words are left out with a warning.

    So are servers after `ima:enforcing`, whose data must not be used without a checked signature. elfutils can check
    that of whole files, and does not request sections from them either (debuginfod-client.c:init_server_urls).
    """
    enforcing = False
    for word in words.split():
        if word in ("ima:enforcing", "ima:ignore"):
            enforcing = word == "ima:enforcing"
        elif word.startswith("ima:"):
            warn(word, "left out: is not a policy that DEBUGINFOD_URLS knows")
        elif not (server := server_at(word)):
            warn(word, "left out: is not the URL of a debuginfod server")
        elif enforcing:
            warn(server.url, "left out: follows ima:enforcing, and lpmangle does not check signatures")
        else:
            yield server


class DebuginfodSource:
    """A source that cannot be listed: it needs a full build-id, alone or in a mangled name."""

    def __init__(self, servers: Iterable[Server], *, share_misses: bool = False) -> None:
        """With `share_misses`, for the servers of DEBUGINFOD_URLS, the cache also records what none of them has.

        It does not record which servers were asked, so servers that somebody has named are always asked.
        """
        self._servers = list(dict.fromkeys(servers))
        self._share_misses = share_misses
        self._cache = cache_folder()
        self._misses = 0
        self._timeout = _setting("DEBUGINFOD_TIMEOUT", TIMEOUT)
        self._max_time = _setting("DEBUGINFOD_MAXTIME", MAX_TIME)
        self._max_size = min(MAX_SIZE, int(_setting("DEBUGINFOD_MAXSIZE", MAX_SIZE)))

    def shapes(self) -> Iterable[Shape]:
        return []

    def with_suffix(self, suffix: str) -> Iterable[Found]:
        return self.with_build_id(suffix)

    def with_build_id(self, build_id: str) -> Iterable[Found]:
        got = self._get(build_id, _SECTION, _manifest)
        return [Found(*got)] if got else []

    def candidates(self, pattern: str) -> Iterable[Found]:
        return [found for build_id in _BUILD_ID.findall(pattern) for found in self.with_build_id(build_id)]

    def debug_files(self, build_id: str) -> Iterable[str]:
        (path,) = self._paths(build_id, _DEBUGINFO)
        return [path] if self._get(build_id, _DEBUGINFO, _payload) and os.path.exists(path) else []

    def _paths(self, build_id: str, what: str) -> list[str]:
        return [os.path.join(self._cache, build_id, name) for name in _FILES[what]]

    def _get(self, build_id: str, what: str, check: _Check) -> tuple[str, bytes] | None:
        """Where it was found, and the result of `check`."""
        if not _BUILD_ID.fullmatch(build_id):
            return None
        for path in self._paths(build_id, what):
            with suppress(OSError, LpmangleError):
                with open(path, "rb") as file:
                    content = file.read(self._max_size + 1)
                return path, check(content, build_id)
        if not self._servers or self._misses >= MAX_MISSES:
            return None
        found = self._fetch(build_id, what, check)
        if found is None:
            self._misses += 1
            if self._misses == MAX_MISSES:
                warn("debuginfod", f"{MAX_MISSES} build-ids were unknown to all servers; no more are asked for")
        return found

    def _fetch(self, build_id: str, what: str, check: _Check) -> tuple[str, bytes] | None:
        paths = self._paths(build_id, what)
        if self._share_misses and any(map(self._failed_lately, paths)):
            return None
        answered = True
        for server in list(self._servers):
            where = f"{server.url}/buildid/{build_id}/{what}"
            try:
                content = self._read(server, where) if server.url.startswith("file:") else self._download(server, where)
                if content is None:
                    continue
                checked = check(content, build_id)
            except urllib.error.HTTPError as error:
                error.close()
                answered = False
                warn(server.url, f"{error.code} {error.reason}")
            except LpmangleError as error:
                warn(where, error.message)
            except (OSError, HTTPException, ValueError) as error:
                answered = False
                reason = getattr(error, "reason", error)
                warn(server.url, f"left out: {getattr(reason, 'strerror', None) or reason}")
                self._servers.remove(server)
            else:
                self._store(paths, content)
                return where, checked
        if answered and self._share_misses:
            self._store(paths, None)
        return None

    def _download(self, server: Server, where: str) -> bytes | None:
        """The server's content there, or None. Raises ManifestError, OSError, HTTPException, ValueError."""
        request = urllib.request.Request(where, headers={"User-Agent": "lpmangle"})
        if server.authorization:  # not for the target of a redirection
            request.add_unredirected_header("Authorization", server.authorization)
        deadline = time.monotonic() + self._max_time
        pieces, size = [], 0
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                while piece := response.read1(1 << 16):
                    size += len(piece)
                    if size > self._max_size:
                        raise ManifestError(f"more than {counted(self._max_size, 'byte')}")
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"no end after {counted(round(self._max_time), 'second')}")
                    pieces.append(piece)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            error.close()
            return None
        return b"".join(pieces)

    def _read(self, server: Server, where: str) -> bytes | None:
        """The same from a folder that is like a server."""
        if not os.path.isdir(_path_of(server.url)):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        try:
            with open(os.open(_path_of(where), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                content = file.read(self._max_size + 1)
        except FileNotFoundError:
            return None
        if len(content) > self._max_size:
            raise ManifestError(f"more than {counted(self._max_size, 'byte')}")
        return content

    def _failed_lately(self, path: str) -> bool:
        """elfutils: an empty file without permissions means that no server had it."""
        age = CACHE_MISS
        with suppress(OSError, ValueError), open(os.path.join(self._cache, "cache_miss_s")) as file:
            age = int(file.read(20))
        with suppress(OSError):
            state = os.stat(path)
            if stat.S_ISREG(state.st_mode) and not state.st_size and time.time() - state.st_mtime <= age:
                return True
        return False

    def _store(self, paths: Iterable[str], content: bytes | None) -> None:
        """Keep it in the cache; None means that nobody has it. Errors of the cache are ignored."""
        for path in paths:
            temporary = f"{path}.{os.getpid()}.tmp"
            mode = 0o400 if content else 0
            with suppress(OSError):
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                    file.write(content or b"")
                os.replace(temporary, path)


def _path_of(url: str) -> str:
    return unquote(urlsplit(url).path) or "/"


def cache_folder() -> str:
    """Where elfutils' client keeps what it fetched (debuginfod_find_debuginfo(3), CACHE)."""
    environment, home = os.environ, os.path.expanduser("~")
    if path := environment.get("DEBUGINFOD_CACHE_PATH"):
        return path
    old = os.path.join(home, ".debuginfod_client_cache")
    if os.path.isdir(old):
        return old
    return os.path.join(environment.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"), "debuginfod_client")


def _manifest(content: bytes, build_id: str) -> bytes:
    """The manifest in a section's content, which must be for the right build-id. Raises ManifestError."""
    text = embed.decompress(content)
    if (found := decode(text).build_id) != build_id:
        raise ManifestError(f"is the manifest of another payload, build-id {found}")
    return text


def _payload(content: bytes, build_id: str) -> bytes:
    """The payload itself, which must have the right build-id. Raises ElfError, PayloadError."""
    found = Payload(elf.parse_sections(content)).build_id or b""
    if found.hex() != build_id:
        raise PayloadError(f"is another payload, build-id {found.hex() or '(none)'}")
    return content


def _setting(name: str, default: float) -> float:
    with suppress(ValueError):
        value = float(os.environ.get(name, ""))
        if value > 0:
            return min(value, _MOST)
    return default
