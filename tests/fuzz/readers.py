"""What is fuzzed: for each reader of foreign bytes a function that takes an input, and raises only if there is a bug.

An error that lpmangle raises on purpose (LpmangleError) is the right answer to nearly every input. Accepted input must
have the promised properties, which are asserted here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import socket
import tempfile
import zlib
from binascii import b2a_base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from elfbuild import TEXT, Sec, Sym, build, build_id, plain
from manifests import plain as manifest_of
from stacked import ident, stacked

from lpmangle import elf
from lpmangle.cli.check_report import print_findings, record, says
from lpmangle.cli.compare_report import page as compare_page
from lpmangle.cli.compare_report import record as compare_record
from lpmangle.cli.retrace_log import report
from lpmangle.cli.show import page as show_page
from lpmangle.cli.show import record as show_record
from lpmangle.elf import appended as tail
from lpmangle.errors import LpmangleError
from lpmangle.jobs.show import Shown
from lpmangle.loader import Hypervisor, State, Upload, check_sequence, take
from lpmangle.loader.fleet import Matrix
from lpmangle.loader.instructions import LONGEST, length
from lpmangle.mangle import apply as splice
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.options import Options
from lpmangle.mangle.stack import Layer, Stack
from lpmangle.manifest import embed
from lpmangle.manifest import read as manifest
from lpmangle.manifest import search as query
from lpmangle.manifest.rebuild import rebuild
from lpmangle.manifest.undo import prove_manifest, undo
from lpmangle.manifest.write import encode
from lpmangle.review.compare import Comparison
from lpmangle.review.inventory import take_inventory
from lpmangle.review.subject import Subject
from lpmangle.review.transition import transition
from lpmangle.store import debuginfod, local
from lpmangle.store.catalog import Catalog
from lpmangle.store.catalog_writing import add, merge, remove
from lpmangle.store.open import open_sources
from lpmangle.store.source import Found
from lpmangle.trace.lookup import Lookup
from lpmangle.trace.missed import Missed
from lpmangle.trace.retrace import Retracer
from lpmangle.verify.claims import about_one_below
from lpmangle.verify.findings import findings
from lpmangle.verify.payload import verify_payload
from lpmangle.verify.relaid import differences
from lpmangle.verify.rewritten import since
from lpmangle.xen import signature
from lpmangle.xen.abi import MAX_SECTIONS, SIGNATURE_SECTION
from lpmangle.xen.payload import Payload
from lpmangle.xen.versions import parse_version
from lpmangle.xen.xensyms import captured_symbols, hypervisor_symbols

# Between the parts of an input that has several.
SEPARATOR = b"\n----\n"
OPTIONS = (
    Options("text:SUF"),
    Options("text:SUF", scope="new"),
    Options("text:SUF", "{name}_{suffix}"),
    Options("buildid"),
    Options("name", "{suffix}.{file}#{name}", keep=("*lp*",), scope="new"),
)


def stack() -> Stack:
    """What a payload may be put on."""
    taken = {name: name + b"_B" for name in (b"printk", b"xen_extra_version", b"domain.c#hv_local", b"_get_fpu")}
    return Stack([Layer("below", "cd" * 20, None, "{symbol}_{suffix}", "B", taken, frozenset((b"f",)), "")], None)


def read_elf(data: bytes) -> None:
    """A byte that chooses the options, and a payload: a mangled one is proven, and can be restored."""
    if data:
        with suppress(LpmangleError):
            _mangle(data[1:], OPTIONS[data[0] % len(OPTIONS)], stack() if data[0] & 0x80 else None)


def _mangle(data: bytes, options: Options, below: Stack | None) -> None:
    view = elf.parse(data)
    tail.size(view)
    payload = Payload(view)
    plan = make_plan(payload, options, "stem", below)
    after = bytes(splice.apply(payload, plan))
    splice.prove(payload, after, plan.names, plan.function_names)
    text = b"".join(encode(payload, plan, after, "stem", stack=below))
    mangled = elf.parse(after)
    assert mangled.sections == view.moved(after).sections
    assert undo(mangled, manifest.decode(text)) == data
    assert not make_plan(Payload(mangled), options, "stem", below).changes
    if not view.section_named(embed.SECTION) and len(view.sections) < MAX_SECTIONS:
        text = b"".join(encode(payload, plan, after, "stem", embedded=True))
        both = elf.parse(embed.add(mangled, text))
        assert embed.extract(both) == text
        assert embed.without(both).data == after


def read_verify(data: bytes) -> None:
    """The same with LIEF: it finds no difference in the output of lpmangle."""
    with suppress(LpmangleError):
        view = elf.parse(data)
        payload = Payload(view)
        plan = make_plan(payload, OPTIONS[1], "stem")
        after = bytes(splice.apply(payload, plan))
        found = manifest.decode(b"".join(encode(payload, plan, after, "stem")))
        lines = list(findings(elf.parse(after), found, "stem", view))
        assert not lines or lines == ["LIEF cannot read it"] or _is_note(lines), lines


def _is_note(lines: list[str]) -> bool:
    return all(re.search("not a GNU build-id note", line) for line in lines)


@cache
def _mangled() -> tuple[elf.Object, elf.Object, bytes]:
    """A payload, the same mangled, its manifest."""
    names = ("x86_emulate.c#_get_fpu", "lp_helper")
    view = elf.parse(stacked(1, ident(2), new=names, undefined=["domain.c#hv_local"], replaces=["printk"]).data)
    payload, below = Payload(view), stack()
    plan = make_plan(payload, OPTIONS[0], "stem", below)
    assert plan.renames
    assert plan.references
    assert plan.functions
    after = bytes(splice.apply(payload, plan))
    return view, elf.parse(after), b"".join(encode(payload, plan, after, "stem", stack=below))


def read_manifest(data: bytes) -> None:
    """A manifest: if it is read, it can be used and shown, and leads back to a proven original, or is refused."""
    _, view, _ = _mangled()
    with suppress(LpmangleError):
        manifest.decode_head(data)
    with suppress(LpmangleError):
        manifest.decode_names(data)
    with suppress(LpmangleError):
        _use(manifest.decode(data))
        found = manifest.decode(data)
        original = undo(view, found)
        assert hashlib.sha256(original).hexdigest() == found.input.sha256
        prove_manifest(Payload(elf.parse(original)), view.data, found)


def _use(found: manifest.Manifest) -> None:
    before, view, _ = _mangled()
    for symbol in query.find(found, "*#*"):
        json.dumps([symbol.value, symbol.size, query.file_of(symbol)])
        f"{symbol.value:#x} {symbol.size} {symbol.name}".encode()
    for line in (*findings(view, found, "stem"), *findings(view, found, "stem", before)):
        line.encode()
    for line in (*since(view, found, before), *about_one_below(found, found)):
        line.encode()


def read_embedded(data: bytes) -> None:
    """A payload with a manifest inside, or the .debug file that was split from it."""
    with suppress(LpmangleError):
        local.inside(data, "")
    with suppress(LpmangleError):
        view = elf.parse(data)
        bare = embed.without(view)
        assert len(bare.data) <= len(data)
        text = embed.extract(view)
        if text is not None:
            original = undo(bare, manifest.decode(text))
            assert elf.parse(original).data == original


@cache
def _scratch() -> Path:
    """A folder for inputs that are read by path; in memory where that is possible."""
    folder = Path(tempfile.mkdtemp(prefix="lpmangle-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def read_catalog(data: bytes) -> None:
    """An SQLite file, read in all ways: it does not change, and no file is left beside it."""
    path = _catalog(data)
    with suppress(LpmangleError):
        _look_up(str(path))
    assert path.read_bytes() == data
    assert os.listdir(path.parent) == [path.name], os.listdir(path.parent)


def read_catalog_add(data: bytes) -> None:
    """The same written to; what is refused at once stays as it was."""
    path = _catalog(data)
    try:
        assert len(list(add(str(path), [Found("", _mangled()[2])]))) == 1
    except LpmangleError:
        assert path.read_bytes() == data
    with suppress(LpmangleError):
        remove(Catalog(str(path)), ["stem"], every=True)
    other = _scratch() / "merged.db"
    with suppress(LpmangleError):
        merge(str(other), [Catalog(str(path))])
    other.unlink(missing_ok=True)
    assert os.listdir(path.parent) == [path.name], os.listdir(path.parent)


def _catalog(data: bytes) -> Path:
    """The path of a file with that content, alone in its folder."""
    folder = _scratch() / "catalog"
    if not folder.exists():
        folder.mkdir()
    for name in os.listdir(folder):
        os.unlink(folder / name)
    path = folder / "catalog.db"
    path.write_bytes(data)
    return path


def _look_up(path: str) -> None:
    opened = Catalog(path)
    for way in (
        lambda: [f"{e.payload} {e.build_id} {e.suffix} {e.symbols:d}".encode() for e in opened.entries()],
        lambda: [opened.head(entry) for entry in opened.entries()],
        lambda: [opened.found(e) for entries in opened.named(["stem", "ab" * 20]).values() for e in entries],
        lambda: [found.manifest for found in opened.manifests()],
        lambda: [f"{m.original} {m.name} {m.payload} {m.build_id}".encode() for m in opened.find("_get_*")],
        lambda: list(opened.find("x86_emulate.c#_get_fpu")),
        lambda: [f"{template} {suffix}".encode() for template, suffix in opened.shapes()],
        lambda: opened.with_suffix("SUF"),
        lambda: opened.with_build_id("ab" * 20),
        lambda: [found.manifest for found in opened.candidates("*")],
    ):
        with suppress(LpmangleError):
            way()


def read_xensyms(data: bytes) -> None:
    """A xen-syms, or a copy of /proc/xen/xensyms."""
    with suppress(LpmangleError):
        if data[:4] == elf.ELFMAG:
            hypervisor_symbols(data)
        else:
            captured_symbols(data)
    with suppress(LpmangleError):
        xen = Hypervisor.read_from(data)
        for address in list(xen.symbols.values())[:4]:
            xen.read(address, 64)
        for name in list(xen.symbols)[:4]:
            assert name not in xen.lookalikes.like(name)
        for at in range(min(len(data), 64)):
            assert 0 <= length(data[at : at + 2 * LONGEST]) <= LONGEST
        _play([plain().data], xen, 0)


def read_console(data: bytes) -> None:
    """Manifests, then a log: unknown names pass unchanged, and pieces give the same as the whole."""
    *texts, log = data.split(SEPARATOR)
    folder = _scratch() / "console"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, text in enumerate(texts[:3]):
        (folder / f"{number}.livepatch.manifest.json").write_bytes(text)
    with suppress(LpmangleError):
        lookup = Lookup(open_sources([str(folder)]))
        whole, missed = _retraced(lookup, [log])
        pieces = [log[at : at + 7] for at in range(0, len(log), 7)] if len(log) < 4096 else [log[:999], log[999:]]
        assert _retraced(lookup, pieces)[0] == whole
        if not lookup.plain and not lookup._others:
            assert whole == log
        with redirect_output():
            report(missed)
        _retraced(lookup, [log], annotate=True, tell_ambiguous=lambda name, candidates: None)
        _retraced(lookup, [log], line_of=lambda candidate, spot: f"{candidate.payload}:{spot.offset}", prepare=list)


def _retraced(lookup: Lookup, chunks: list[bytes], **options: Any) -> tuple[bytes, Missed]:
    retracer = Retracer(lookup, **options)
    return b"".join([piece for chunk in chunks for piece in retracer.feed(chunk)] + retracer.end()), retracer.missed


XENSYMS = b"""ffff82d040200000 T _start
ffff82d040201000 T xen_extra_version
ffff82d040202000 t x86_emulate.c#_get_fpu
ffff82d040203000 T printk
ffff82d0404fffff D _end
"""


def read_uploads(data: bytes) -> None:
    """A byte that chooses what is known, and 1 to 3 payloads: `check` always ends."""
    if data:
        parts = [elf.ELFMAG + part for part in data[1:].split(elf.ELFMAG)[1:4]] or [data[1:]]
        _play(parts, Hypervisor.read_from(XENSYMS) if data[0] & 1 else None, data[0] >> 1)


VERSIONS = ("4.14", "4.17.2", "4.18.0", "4.22")


def _play(parts: list[bytes], xen: Hypervisor | None, choice: int) -> None:
    payloads = [Upload(name, part) for name, part in zip(("one", "two", "one"), parts, strict=False)]
    state = State(xen, parse_version(VERSIONS[choice & 3]))
    uploads = list(payloads)
    if choice & 4:
        with suppress(LpmangleError):
            state.loaded.append(take(uploads.pop(), state))
            state.applied += state.loaded
    verdicts = check_sequence(uploads, state)
    with redirect_output():
        for verdict in verdicts:
            json.dumps(record(verdict))
            says(verdict).encode()
            print_findings(verdict)
    if choice & 8:
        deployed = []
        for payload in payloads:
            with suppress(LpmangleError):
                deployed.append(take(payload, state))
        matrix = Matrix(payloads, state)
        for count in range(len(deployed) + 1):
            matrix.check(deployed[:count])


_SINK = io.StringIO()  # one for all: click keeps every stream that it has written to


@contextmanager
def redirect_output() -> Iterator[None]:
    _SINK.seek(0)
    _SINK.truncate()
    with redirect_stdout(_SINK), redirect_stderr(_SINK):
        yield
    assert all(line.isprintable() for line in _SINK.getvalue().split("\n"))


BUILD_ID = hashlib.sha1(b"fbab204").hexdigest()
MANIFEST = json.dumps(manifest_of("fbab204", "x86_emulate.c#_get_fpu")).encode()


class _Answer(socket.socket):
    """One end of a pair, which knows no options of TCP."""

    def setsockopt(self, *args: object) -> None:
        pass


def read_debuginfod(data: bytes) -> None:
    """What a server sends, status line, headers and all: the manifest that was asked for, or a warning and nothing.

    The real client, on a socket that holds the answer; a redirection leads to the same answer again.
    """
    cache_folder = _scratch() / "debuginfod"
    shutil.rmtree(cache_folder, ignore_errors=True)
    os.environ["DEBUGINFOD_CACHE_PATH"] = str(cache_folder)
    os.environ["no_proxy"] = "*"

    def connect(*args: object, **options: object) -> socket.socket:
        pair, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.setblocking(False)
        with suppress(OSError):
            theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        ours = _Answer(fileno=pair.detach())
        sockets.extend((ours, theirs))
        return ours

    sockets: list[socket.socket] = []
    real, socket.create_connection = socket.create_connection, connect
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            source = debuginfod.DebuginfodSource(debuginfod.servers_in("127.0.0.1:8002"), share_misses=True)
            found = list(source.with_build_id(BUILD_ID))
    finally:
        socket.create_connection = real
        for one in sockets:  # `close` would wait for what urllib has forgotten
            if (fd := one.detach()) >= 0:
                os.close(fd)
    assert all(line.isprintable() for line in said.getvalue().split("\n"))
    stored = [path for path in cache_folder.rglob("*") if path.is_file()]
    names = ("section-.debug_lpmangle", "section-4f232649-.debug_lpmangle")
    assert all(path.name in names and path.parent.name == BUILD_ID for path in stored)
    assert bool(found) == any(path.stat().st_size for path in stored)
    for each in found:
        assert manifest.decode(each.text).build_id == BUILD_ID


def read_signature(data: bytes) -> None:
    """The content of a section with a signature: the one that is read is inside, and without it the note is blank."""
    view = elf.parse(build([TEXT, Sec(SIGNATURE_SECTION, data, 0, 7), build_id()], [Sym(b"f")]).data)
    note, section = signature.note_of(view), view.section_named(SIGNATURE_SECTION)
    assert note
    assert section
    str(note).encode()
    if done := signature.signed(view):
        done.refusal()
        done.broken()
    if not note.problem:
        assert section.offset < note.offset < note.offset + note.size <= section.end
        again = signature.note_of(elf.parse(signature.blanked(view, note)))
        assert again
        assert again.blank
        assert (again.problem, again.offset) == ("", note.offset)


def read_review(data: bytes) -> None:
    """A payload that is shown, and compared with another and itself: the output can be printed."""
    with suppress(LpmangleError):
        shown = Shown("p.livepatch", take_inventory(Subject(Payload.parse(data))), None)
        json.dumps(show_record(shown))
        with redirect_output():
            for line in show_page(shown, mangled=True):
                print(line)
        for old, new in ((data, data), (_mangled()[1].data, data), (data, _mangled()[0].data)):
            state = State(None, parse_version("4.17"))
            before, after = (take_inventory(Subject(Payload.parse(one))) for one in (old, new))
            found = Comparison(before, after, transition(Upload("old", old), Upload("new", new), state))
            whys = [one.why for one in (*found.helpers, *found.variables, *found.constants)]
            whys += [one.why for one in found.functions]
            tangled = any(why and why.what == "unknown" for why in whys)  # not looked at, and so another
            assert old != new or not found.differs or tangled
            json.dumps(compare_record(found, "old", "new", state))
            with redirect_output():
                for line in compare_page(found, "old", "new", state):
                    print(line)


def read_frame(data: bytes) -> None:
    """A manifest's frame: the result is proven to be the original, or not accepted."""
    before, view, text = _mangled()
    with suppress(LpmangleError):
        rebuilt = rebuild(view, _with_frame(text, data))
        assert not rebuilt.proven or rebuilt.view.data == before.data


def _with_frame(text: bytes, raw: bytes) -> manifest.Manifest:
    found = manifest.decode(text)
    return msgspec.structs.replace(found, frame=b2a_base64(zlib.compress(raw, 1), newline=False).decode())


def read_relaid(data: bytes) -> None:
    """A payload that another tool has changed: if it is verified, it is what lpmangle wrote, except for a signature."""
    _, view, text = _mangled()
    with suppress(LpmangleError):
        done = verify_payload(data, manifest.decode(text), "stem")
        "\n".join((*done.findings, done.since, done.appended)).encode(errors="surrogateescape")
        assert not done.verified or not list(differences(view, elf.parse(data)))


READERS: dict[str, Callable[[bytes], None]] = {
    "elf": read_elf,
    "manifest": read_manifest,
    "embedded": read_embedded,
    "catalog": read_catalog,
    "catalog-add": read_catalog_add,
    "xensyms": read_xensyms,
    "console": read_console,
    "uploads": read_uploads,
    "debuginfod": read_debuginfod,
    "verify": read_verify,
    "review": read_review,
    "signature": read_signature,
    "frame": read_frame,
    "relaid": read_relaid,
}
