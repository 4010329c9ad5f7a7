"""The first inputs of each reader: small valid ones, and hostile ones written by hand. Made on demand."""

from __future__ import annotations

import json
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from elfbuild import (
    ABS,
    ALLOC,
    COMMON,
    GLOBAL,
    HOOK,
    MERGE,
    TEXT,
    WRITE,
    Sec,
    Sym,
    build,
    build_id,
    funcs,
    note,
    plain,
    rela,
)  # fmt: skip
from manifests import manifest
from manifests import plain as manifest_of
from older_catalog import write_older
from signing import note as signature_note
from signing import older
from stacked import ARM, ident, stacked

from lpmangle import elf
from lpmangle.manifest import embed, frame
from lpmangle.store.catalog_writing import add
from lpmangle.store.source import Found
from lpmangle.xen.abi import SIGNATURE_SECTION

from .readers import BUILD_ID, MANIFEST, SEPARATOR, XENSYMS, _mangled

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
EVIL = "../../x\x1b[2J\u202e\n"


def payloads() -> dict[str, bytes]:
    depends = [Sec(name, note(b"\xcd" * 20), align=4) for name in (".livepatch.depends", ".livepatch.xen_depends")]
    more = [
        TEXT, build_id(), *depends, funcs(2),
        rela(".livepatch.funcs", [(8, 2, 1, 0), (0, 5, 1, 3), (112, 3, 1, 0), (104, 5, 1, 0)]),
        Sec(".livepatch.strings", b"xen_extra_version\0printk\0"), Sec(".data", bytes(16), ALLOC | WRITE),
        Sec(".bss", b"", ALLOC | WRITE, 8, size=64), Sec(".rodata.str1.1", b"a\0b\0", ALLOC | MERGE),
        replace(HOOK), rela(HOOK.name, [(0, 2, 1, 0)]), Sec(".altinstructions", bytes(28)), Sec(".comment", flags=0),
        rela(".text", [(0, 6, 2, -4), (8, 7, 4, -4)]),
    ]  # fmt: skip
    symbols = [
        Sym(b"", ".text", type=3), Sym(b"a.c#patched"), Sym(b"a.c#_get_fpu", value=16, size=8),
        Sym(b".LC0", ".rodata.str1.1"), Sym(b"", ".livepatch.strings", type=3), Sym(b"printk", 0, GLOBAL),
        Sym(b"b.c#g", ".data"), Sym(EVIL.encode(), ".data"), Sym(b"abs", ABS),
        Sym(b"lp", ".text", GLOBAL, value=32), Sym(b"x" * 140, ".data", value=8),
    ]  # fmt: skip
    return {
        "plain": plain().data,
        "big": plain(big=True).data,
        "arm": plain(is_64=False).data,
        "arm-big": plain(is_64=False, big=True).data,
        "arm64": build([TEXT, build_id()], [Sym(b"$x", ".text"), Sym(b"$d.1"), Sym(b"a.c#f")], machine=183).data,
        "one-table": plain(one_string_table=True).data,
        "more": build(more, symbols).data,
        "common": build([TEXT, build_id(), *depends, HOOK], [Sym(b"c", COMMON), Sym(b"a.c#f_SUF")]).data,
        "stacked": stacked(1, ident(2), new=["a"], undefined=["printk"], replaces=["printk", "x"], last="y").data,
        "stacked-arm": stacked(1, ident(2), undefined=["_get_fpu"], replaces=["printk"], machine=ARM).data,
        "example": (EXAMPLES / "fbab204.livepatch").read_bytes(),
        "example-before": (EXAMPLES / "617712b.livepatch").read_bytes(),
    }


def manifests() -> dict[str, bytes]:
    text = _mangled()[2]
    evil = manifest(EVIL, {EVIL: EVIL + "_SUF", "a": "a_SUF"}, suffix="SUF")
    deep = b'{"format": "lpmangle-manifest", "version": "1.0", "payload": ' + b"[" * 5000
    return {
        "good": text,
        "plain": MANIFEST,
        "evil": json.dumps(evil).encode(),
        "deep": deep,
        "deep-ignored": b'{"x": ' + b'{"a":' * 3000,
        "digits": text.replace(b'"size": 1', b'"size": ' + b"9" * 6000, 1),
        "digits-symbol": text.replace(b'"value":16', b'"value":' + b"9" * 4301, 1),
        "float": text.replace(b'"value":16', b'"value":1e400', 1),
        "surrogate": text.replace(b"lp_helper", b"\\ud800helper"),
        "surrogate-head": text.replace(b"stem", b"\\udc80"),
        "nul": text.replace(b"lp_helper", b"\\u0000helper"),
        "no-utf8": text.replace(b"lp_helper", b"\xff"),
        "bom": b"\xef\xbb\xbf" + text,
        "version": text.replace(b'"1.0"', b'"2.0"'),
        "newline-in-id": text.replace(b'abab"', b'abab\\n"', 1),
        "long-suffix": json.dumps(manifest("p", {"a": "a_"}, suffix="x" * 5000)).encode(),
        "empty-suffix": json.dumps(manifest("p", {"a": "a_"}, suffix="")).encode(),
    }


def embedded() -> dict[str, bytes]:
    _, view, text = _mangled()
    found = {"good": embed.add(view, text)}
    bare = json.loads(text)
    bare["section_headers"] = view.e_shoff
    whole = embed.add(view, json.dumps(bare).encode())
    found["whole"] = whole
    for name, content in (
        ("bomb", zlib.compress(b" " * (30 << 20), 9)),
        ("bomb-of-symbols", zlib.compress(bomb_of_symbols(), 9)),
        ("cut", zlib.compress(text)[:-5]),
        ("twice", zlib.compress(text) * 2),
        ("none", b""),
        ("text", text),
    ):
        sections = [TEXT, build_id(), Sec(embed.SECTION, content, 0)]
        found[name] = build(sections, [Sym(b"a.c#f")]).data
    found["debug-file"] = split(found["good"], ".symtab", ".strtab")
    found["debug-file-without"] = split(found["good"], ".symtab", ".strtab", embed.SECTION)
    return found


def split(data: bytes, *names: str) -> bytes:
    """What eu-strip -f leaves of those sections in a .debug file: the header."""
    view, out = elf.parse(data), bytearray(data)
    for section in view.sections:
        if section.name in names:
            view.layout.word.pack_into(out, view.section_header_offset(section.number) + 4, elf.SHT_NOBITS)
    return bytes(out)


def bomb_of_symbols() -> bytes:
    one = manifest_of("fbab204", "f")
    line = json.dumps(one["symbols"][0])
    one["symbols"] = []
    return json.dumps(one).replace('"symbols": []', '"symbols": [' + ",".join([line] * 200_000) + "]").encode()


def catalogs() -> dict[str, bytes]:
    found = {"empty": b"", "text": b"no database\n" * 100}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "catalog.db"
        evil = json.dumps(manifest(EVIL, {EVIL: "x_SUF"}, suffix="SUF")).encode()
        list(add(str(path), [Found("", text) for text in (_mangled()[2], MANIFEST, evil)]))
        db = sqlite3.connect(path, isolation_level=None)
        db.executescript("PRAGMA page_size = 512; VACUUM")
        db.close()
        good = found["good"] = path.read_bytes()
        for what, script in {
            "types": "UPDATE manifest SET payload = x'ff', build_id = 7, symbols = 'x', text = 'none'",
            "text-null": "UPDATE manifest SET text = zeroblob(0)",
            "text-damaged": "UPDATE manifest SET text = x'789c00'",
            "no-utf8": "UPDATE manifest SET payload = CAST(x'ff41' AS TEXT); "
            "UPDATE OR IGNORE name SET name = CAST(x'fe' AS TEXT)",
            "build-id": "UPDATE manifest SET build_id = char(27) || '[2J'",
            "trigger": "CREATE TRIGGER t AFTER INSERT ON manifest BEGIN DELETE FROM name; END",
            "view": "DROP TABLE name; CREATE VIEW name AS SELECT payload AS name, id AS manifest FROM manifest",
            "endless": "DROP TABLE name; CREATE VIEW name AS WITH RECURSIVE c(x) AS "
            "(SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT 'x' AS name, x AS manifest FROM c",
            "no-table": "DROP TABLE ending",
            "wal": "PRAGMA journal_mode = wal",
            "version-3": "PRAGMA user_version = 3",
            "orphans": "UPDATE name SET manifest = manifest + 1000; DELETE FROM file",
            "foreign": "PRAGMA application_id = 7",
            "foreign-0": "PRAGMA application_id = 0; PRAGMA user_version = 0",
            "foreign-wal": "PRAGMA application_id = 0; PRAGMA user_version = 0; PRAGMA journal_mode = wal",
        }.items():
            path.write_bytes(good)
            db = sqlite3.connect(path, isolation_level=None)
            db.executescript(script)
            db.close()
            found[what] = path.read_bytes()
        path.unlink()
        db = sqlite3.connect(path)
        db.executescript("PRAGMA page_size = 512; CREATE TABLE x (y); DROP TABLE x")
        db.close()
        found["no-tables"] = path.read_bytes()
        path.unlink()
        write_older(path, (_mangled()[2], MANIFEST, evil))
        found["version-1"] = path.read_bytes()
    found["cut"] = good[: len(good) // 2]
    bomb = zlib.compress(b" " * (20 << 20), 9)
    found["endless-tree"] = endless_tree(good)
    found["bomb"] = with_text(good, bomb)
    return found


def with_text(good: bytes, text: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "catalog.db"
        path.write_bytes(good)
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("UPDATE manifest SET text = ?", (text,))
        db.close()
        return path.read_bytes()


def endless_tree(good: bytes) -> bytes:
    """The root of a table's tree refers to a page whose cells all refer to the next such page, and so on."""
    out, page = bytearray(good), 512
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "catalog.db"
        path.write_bytes(good)
        db = sqlite3.connect(path)
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'manifest'").fetchone()[0]
        db.close()
    leaf = len(out) // page + 1
    out += out[(root - 1) * page : root * page]  # the leaf: what the root was
    depth = 12
    for level in range(depth):
        below = leaf if level == 0 else len(out) // page
        cells = 50
        cell = struct.pack(">IB", below, 5)
        interior = bytearray(page)
        struct.pack_into(">BHHHBI", interior, 0, 5, 0, cells, page - len(cell) * cells, 0, below)
        for number in range(cells):
            at = page - len(cell) * (number + 1)
            struct.pack_into(">H", interior, 12 + 2 * number, at)
            interior[at : at + len(cell)] = cell
        out += interior
    out[(root - 1) * page : root * page] = out[-page:]
    struct.pack_into(">I", out, 28, len(out) // page)
    return bytes(out)


def xensyms() -> dict[str, bytes]:
    sections = [
        replace(TEXT, data=b"\xb8\x04\0\0\0\xc3" + bytes(58)), build_id(), Sec(".bss", b"", ALLOC | WRITE, 8, size=64),
        Sec(".data", b"-unstable\0", ALLOC | WRITE),
    ]  # fmt: skip
    symbols = [
        Sym(b"setup.c", ABS, type=4), Sym(b"local"), Sym(b"xen_major_version", bind=GLOBAL), Sym(b"$x"),
        Sym(b"xen_minor_version", bind=GLOBAL), Sym(b"xen_extra_version", bind=GLOBAL), Sym(b"_end", ".bss", GLOBAL),
    ]  # fmt: skip
    one = build(sections, symbols)
    executable = one.edit("ehdr", "e_type", 2)
    huge = replace(one, data=executable).edit("shdr", "sh_size", 1 << 40, ".bss")
    names = b"\0" + b"n" * 30_000 + b"\0"
    symbols = [Sym(n + 1, ".text", type=4 if n % 2 else 2) for n in range(1200)]
    many = build([TEXT], [*symbols, Sym(names[1:-1])])
    evil = EVIL.strip().encode()
    return {
        "elf": executable,
        "elf-huge-bss": huge,
        "elf-long-names": many.edit("ehdr", "e_type", 2),
        "text": XENSYMS,
        "text-evil": XENSYMS + b"ffff82d040203000 T %b\n-5 T x\n0_1 T y\n%b T _end\n" % (evil, b"f" * 9000),
        "text-huge-end": XENSYMS.replace(b"ffff82d0404fffff", b"f" * 40),
    }


def consoles() -> dict[str, bytes]:
    name = b"x86_emulate.c#_get_fpu_" + BUILD_ID.encode()
    log = b"(XEN) [<ffff82d0>] S %b+0x32/0x3e [fbab204]\n%b. (%b)\nf_%b\n" % (name, name, name, b"0" * 40)
    unusual = manifest("p", {"a!b": "a!b_SUF", "c": "c_SUF"}, suffix="SUF")
    short = manifest("q", {"a": "a!", "b": "!!"}, suffix="!", options=template("{name}{suffix}"))
    odd = manifest("q", {"a": "a!", "b": "!!"}, suffix="!", options=template("{name}{suffix}" + "é" * 60))
    evil = manifest(EVIL, {EVIL: "e_SUF", "\x9b2J": "g_SUF", "\u202e": "h_SUF"}, suffix="SUF")
    found = {
        "plain": SEPARATOR.join([MANIFEST, log]),
        "none": log,
        "unusual": SEPARATOR.join([json.dumps(unusual).encode(), MANIFEST, b"a!b_SUF c_SUF+0x1 " + log]),
        "evil": SEPARATOR.join([json.dumps(evil).encode(), b"e_SUF g_SUF h_SUF\n"]),
        "short": SEPARATOR.join([json.dumps(short).encode(), b"a!" * 8000]),
        "boundaries": SEPARATOR.join([json.dumps(odd).encode(), b"a!" * 8000]),
        "long-runs": SEPARATOR.join([json.dumps(unusual).encode(), b"a!SUF" * 8000]),
        "anchors": SEPARATOR.join([MANIFEST, (b"_" + b"a" * 40) * 800]),
        "unknown": b" ".join(b"f_%040x" % n for n in range(400)),
    }
    for what, text in manifests().items():
        if "suffix" in what:
            found[what] = SEPARATOR.join([text, b"a_" + b"x" * 300 + b" a_\n"])
    return found


def template(text: str) -> dict[str, object]:
    return {"suffix": "text:!", "template": text, "scope": "local", "only": [], "keep": []}


def uploads() -> dict[str, bytes]:
    all_ = payloads()
    one, two, more = all_["example-before"], all_["example"], all_["more"]
    found = {f"{name}-{choice}": bytes([choice]) + data for name, data in all_.items() for choice in (0, 31)}
    found["two"] = b"\x01" + one + two
    found["three"] = b"\x1f" + one + two + one
    found["loaded"] = b"\x08" + more + one
    found["nothing"] = b"\x00"
    xen_depends = Sec(".livepatch.xen_depends", b"", 0, 8, size=1 << 50)
    found["huge-nobits"] = b"\x04" + build([TEXT, build_id(), xen_depends], [Sym(b"a.c#f")]).data
    many = [Sec(f".bss{n}", b"", ALLOC | WRITE, 8, size=2 << 20) for n in range(400)]
    found["much-nobits"] = b"\x00" + build([TEXT, build_id(), *many], [Sym(b"a.c#f")]).data
    aligned = Sec(".data", bytes(8), ALLOC | WRITE)
    depends = [Sec(name, note(b"\xcd" * 20), align=4) for name in (".livepatch.depends", ".livepatch.xen_depends")]
    relocation = rela(".livepatch.funcs", [(8, 1, 1, 0), (0, 1, 1, 0)])
    symbols = [Sym(b"a.c#f"), Sym(b"a.c#g", ".data")]
    built = build([TEXT, build_id(), *depends, funcs(1), relocation, aligned], symbols)
    found["much-alignment"] = b"\x08" + built.edit("shdr", "sh_addralign", 1 << 28, ".data")
    names = b"n" * 20_000
    for what, where in (("long-names", ".text"), ("undefined-names", 0)):
        symbols = [Sym(names), *(Sym(n + 1, where) for n in range(1500))]
        found[what] = b"\x01" + build([TEXT, build_id()], symbols).data
    found["same-names"] = b"\x01" + build([TEXT, build_id()], [Sym(b"n")] * 2400).data
    return found


def answers() -> dict[str, bytes]:
    body = embed.compress(MANIFEST)
    ok = b"HTTP/1.1 200 OK\r\n"

    def answer(head: bytes, content: bytes = body) -> bytes:
        return head + b"\r\n" + content

    return {
        "good": answer(ok + b"Content-Length: %d\r\n" % len(body)),
        "chunked": answer(ok + b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
        "chunk-bad": answer(ok + b"Transfer-Encoding: chunked\r\n", b"-5\r\nxxxx"),
        "chunk-huge": answer(ok + b"Transfer-Encoding: chunked\r\n", b"f" * 30 + b"\r\nxxxx"),
        "length-bad": answer(ok + b"Content-Length: -1\r\n"),
        "length-huge": answer(ok + b"Content-Length: 999999999999999\r\n"),
        "close": answer(ok),
        "404": answer(b"HTTP/1.1 404 Not Found\r\n", b""),
        "500": answer(b"HTTP/1.1 500 \x1b[2J\xe2\x80\xae\r\n", b""),
        "302": answer(b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/x\r\n", b""),
        "302-file": answer(b"HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\n", b""),
        "302-ftp": answer(b"HTTP/1.1 302 x\r\nLocation: ftp://127.0.0.1:1/x\r\n", b""),
        "302-bad": answer(b"HTTP/1.1 302 x\r\nLocation: http://[::1\r\n", b""),
        "302-port": answer(b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:x/\r\n", b""),
        "401": answer(b"HTTP/1.1 401 x\r\nWWW-Authenticate: Basic realm=x\r\n", b""),
        "100": b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + answer(ok),
        "0.9": b"<html>",
        "headers": ok + b"".join(b"H%d: x\r\n" % n for n in range(200)) + b"\r\n",
        "line": ok + b"H: " + b"x" * 60_000 + b"\r\n\r\n",
        "bomb": answer(ok, zlib.compress(b" " * (50 << 20), 9)),
        "bomb-of-symbols": answer(ok, zlib.compress(bomb_of_symbols(), 9)),
        "other": answer(ok, embed.compress(json.dumps(manifest_of("other", "x")).encode())),
        "nothing": b"",
    }


# These are only replayed: similar inputs also take long, and would find nothing new.
SLOW = (
    *("bomb", "bomb-of-symbols", "endless-tree", "much-nobits", "much-alignment"),
    *("short", "boundaries", "long-runs", "anchors"),
)


def frames() -> dict[str, bytes]:
    before, _, _ = _mangled()
    text = frame.encode(before)
    assert text
    raw = frame.decode(text)
    return {
        "good": raw,
        "cut": raw[:-1],
        "empty": b"",
        "many-sections": raw[:8] + b"\xff" * 4 + raw[12:],
        "far-headers": b"\xff" * 8 + raw[8:],
        "class": raw[:16] + b"\1" + raw[17:],
    }


def laid_out_anew() -> dict[str, bytes]:
    """As it was, and with a signature in a section that is put in as the manifest is."""
    _, view, _ = _mangled()
    name, embed.SECTION = embed.SECTION, SIGNATURE_SECTION
    try:
        signed = embed.embed(view, signature_note(b"\x01" * 256))
    finally:
        embed.SECTION = name
    return {"good": view.data, "signed": signed, "example": (EXAMPLES / "fbab204.livepatch").read_bytes()}


def signatures() -> dict[str, bytes]:
    return {
        "good": signature_note(b"\x01" * 256),
        "older": older(b"\x01" * 256),
        "older-big": older(b"\x01" * 8, length=1 << 31),
        "blank": signature_note(bytes(8)),
        "blank-older": signature_note(bytes(16), 0),
        "two": signature_note(b"\x01" * 8) * 2,
        "huge": signature_note(b"x", 1)[:4] + b"\xff" * 12,
    }


SEEDS: dict[str, Callable[[], dict[str, bytes]]] = {
    "elf": lambda: {
        f"{name}-{choice}": bytes([choice]) + data for name, data in payloads().items() for choice in (1, 3, 0x80)
    },
    "manifest": manifests,
    "embedded": embedded,
    "catalog": catalogs,
    "catalog-add": catalogs,
    "xensyms": xensyms,
    "console": consoles,
    "uploads": uploads,
    "debuginfod": answers,
    "verify": payloads,
    "review": payloads,
    "signature": signatures,
    "frame": frames,
    "relaid": laid_out_anew,
}
