"""The loader's view of a payload, rule by rule."""

import struct

import pytest
from corpus import Item
from elfbuild import (
    ABS,
    ALLOC,
    COMMON,
    EXEC,
    GLOBAL,
    MERGE,
    SHT_NOBITS,
    TEXT,
    WEAK,
    WRITE,
    Built,
    Sec,
    Sym,
    build,
    build_id,
    funcs,
    note,
    rel32,
    rela,
)  # fmt: skip

from lpmangle import elf
from lpmangle.errors import PayloadError
from lpmangle.xen import machines
from lpmangle.xen.abi import func_size
from lpmangle.xen.payload import Payload
from lpmangle.xen.placement import place
from lpmangle.xen.symbols import Kind

ARM64, ARM32, X86 = 183, 40, 62


def payload_of(built: Built) -> Payload:
    return Payload(elf.parse(built.data))


def kinds_of(sections: list[Sec], symbols: list[Sym], **options: int) -> list[str]:
    built = build(sections, symbols, machine=options.pop("machine", X86), **{k: bool(v) for k, v in options.items()})
    return names_of(payload_of(built))


def names_of(payload: Payload) -> list[str]:
    names = {kind: name for name, kind in vars(Kind).items() if name.isupper()}
    return [names[kind] for kind in payload.kinds[1:]]


def test_registered_symbols() -> None:
    """livepatch.c:is_payload_symbol. Binding and type do not matter."""
    sections = [TEXT, Sec(".comment", flags=0), Sec(".rodata.str", flags=ALLOC | MERGE)]
    symbols = {
        Sym(b"undefined", 0): "UNDEFINED",
        Sym(b"absolute", ABS): "ABSOLUTE",
        Sym(b"common", COMMON): "COMMON",
        Sym(b"comment", ".comment"): "NOT_LOADED",
        Sym(b"", ".text", type=3): "UNNAMED",
        Sym(b".LC0", ".rodata.str"): "MERGE_LOCAL",
        Sym(b".L", ".rodata.str"): "MERGE_LOCAL",
        Sym(b".LC1", ".text"): "NEW",
        Sym(b".l", ".rodata.str"): "NEW",
        Sym(b".", ".rodata.str"): "NEW",
        Sym(b"$x", ".text"): "NEW",
        Sym(b"notype", ".text", type=0): "NEW",
        Sym(b"object", ".rodata.str", type=1): "NEW",
        Sym(b"global", ".text", bind=GLOBAL): "NEW",
        Sym(b"weak", ".text", bind=WEAK): "NEW",
    }
    assert kinds_of(sections, list(symbols)) == list(symbols.values())


@pytest.mark.parametrize(
    ("machine", "mapping"),
    [(ARM64, ["$x", "$x.f", "$d", "$d.1"]), (ARM32, ["$d", "$d.1", "$a", "$a.f", "$t", "$t.0"]), (X86, [])],
)
def test_mapping_symbols(machine: int, mapping: list[str]) -> None:
    """arch/arm/arm{32,64}/livepatch.c:arch_livepatch_symbol_ok."""
    names = ["$x", "$x.f", "$d", "$d.1", "$a", "$a.f", "$t", "$t.0", "$xy", "$", "$$", "x$x"]
    kinds = kinds_of([TEXT], [Sym(name.encode()) for name in names], machine=machine, is_64=machine != ARM32)
    assert [name for name, kind in zip(names, kinds, strict=True) if kind == "MAPPING"] == mapping
    assert set(kinds) <= {"MAPPING", "NEW"}


def _patched(entries: list[tuple[int, int, int, int]], symbols: list[Sym], *more: Sec, count: int = 1) -> list[str]:
    table = funcs(count)
    return kinds_of([TEXT, *more, table, rela(table.name, entries)], symbols)


def test_overriding_by_symbol_of_any_binding() -> None:
    symbols = [
        Sym(b"old", value=0),
        Sym(b"global", value=16, bind=GLOBAL),
        Sym(b"new", value=32),
        Sym(b"alias", value=16),
    ]
    kinds = _patched([(8, 1, 1, 0), (104 + 8, 2, 1, 0)], symbols, count=2)
    assert kinds == ["OVERRIDING", "OVERRIDING", "NEW", "OVERRIDING"]


def test_overriding_by_section_symbol_and_addend() -> None:
    symbols = [Sym(b"", type=3), Sym(b"a", value=0), Sym(b"b", value=24), Sym(b"c", value=25)]
    assert _patched([(8, 1, 1, 24)], symbols) == ["UNNAMED", "NEW", "OVERRIDING", "NEW"]


def test_only_the_new_address_decides() -> None:
    """A relocation of `name` or `old_addr`, or of another type, makes no symbol overriding."""
    symbols = [Sym(b"a"), Sym(b"b", value=8), Sym(b"c", value=16), Sym(b"undefined", 0)]
    assert _patched([(0, 1, 1, 0), (16, 2, 1, 0), (8, 3, 2, 0)], symbols)[:3] == ["NEW"] * 3
    assert _patched([(8, 4, 1, 0)], symbols)[:3] == ["NEW"] * 3
    assert _patched([], symbols)[:3] == ["NEW"] * 3


def test_overriding_at_the_end_of_another_section() -> None:
    """The end of .text is the start of the section that is loaded next, but not under every version."""
    symbols = [Sym(b"end", ".text", value=64), Sym(b"start", ".text.second"), Sym(b"other", ".text", value=63)]
    empty = Sec(".text.empty", b"", ALLOC | EXEC, align=128)
    for between, coincidences in (([], [{1}, {1}]), ([empty], [{1}, set()])):
        table = funcs(1)
        sections = [TEXT, *between, Sec(".text.second", flags=ALLOC | EXEC, align=16), table]
        payload = payload_of(build([*sections, rela(table.name, [(8, 2, 1, 0)])], symbols))
        assert names_of(payload) == ["NEW", "OVERRIDING", "NEW"]
        assert [set(found) for found in payload.coincidences] == coincidences


@pytest.mark.parametrize("placed_when_empty", [False, True])
def test_sections_are_placed_as_xen_places_them(placed_when_empty: bool) -> None:
    """livepatch.c:move_payload, calc_section: code, then writable, then read-only data, on pages of their own."""
    sections = [
        Sec(".rodata", b"r" * 10),
        Sec(".text.a", b"t" * 5, ALLOC | EXEC),
        Sec(".bss", b"", ALLOC | WRITE, SHT_NOBITS, size=5000),
        Sec(".comment", flags=0),
        Sec(".text.b", b"t" * 5, ALLOC | EXEC, align=16),
        Sec(".empty", b"", ALLOC),
        Sec(".data", b"d", ALLOC | WRITE, align=32),
        Sec(".rodata.1", b"r", ALLOC, align=4),
        Sec(".both", b"x", ALLOC | WRITE | EXEC),
        Sec(".align0", b"r", ALLOC, align=0),
    ]
    view = elf.parse(build(sections, [Sym(b"f", ".text.a")]).data)
    placement = place(view.sections, 2**64 - 1, empty_sections_placed=placed_when_empty)
    placed = dict(zip([s.name for s in view.sections], placement.offsets, strict=True))
    ro = 4096 + 8192
    assert placement.total == ro + 4096
    assert placement.text_size == 22
    assert placed == {
        "": None, ".rodata": ro, ".text.a": 0, ".bss": 4096, ".comment": None, ".text.b": 16,
        ".empty": ro + 10 if placed_when_empty else None,
        ".data": 4096 + 5024, ".rodata.1": ro + 12, ".both": 21,
        ".align0": ro,  # ROUNDUP(x, 0) is 0
        ".symtab": None, ".strtab": None, ".shstrtab": None,
    }  # fmt: skip


def test_arm32_takes_the_addend_from_the_section() -> None:
    table = funcs(1, is_64=False)
    data = bytearray(table.data)
    struct.pack_into("<I", data, 4, 24)
    table = Sec(table.name, bytes(data), table.flags, align=4)
    symbols = [Sym(b"", type=3), Sym(b"a", value=0), Sym(b"b", value=24)]
    kinds = kinds_of([TEXT, table, rel32(table.name, [(4, 1, 2)])], symbols, is_64=0, machine=ARM32)
    assert kinds == ["UNNAMED", "NEW", "OVERRIDING"]


@pytest.mark.parametrize(("version", "is_64", "size"), [(1, True, 64), (2, True, 104), (1, False, 52), (2, False, 92)])
def test_entries_of_both_versions(version: int, is_64: bool, size: int) -> None:
    table = funcs(3, version, is_64)
    assert len(table.data) == 3 * size
    payload = payload_of(build([TEXT, table], [Sym(b"f")], is_64=is_64, machine=X86 if is_64 else ARM32))
    assert [function.version for function in payload.functions] == [version] * 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (funcs(1).data[:-1], "not a multiple of 104"),
        (funcs(1, 1).data + b"x" * 8, "not a multiple of 64"),
        (funcs(1, 3).data, "payload version 3"),
        (b"x" * 20, "too few for one entry"),
        (funcs(1).data + b"\0" * 32 + b"\1" + b"\0" * 71, "versions 2 and 1 mixed"),
    ],
)
def test_bad_funcs(data: bytes, message: str) -> None:
    payload = payload_of(build([TEXT, Sec(".livepatch.funcs", data)], [Sym(b"f")]))
    with pytest.raises(PayloadError, match=message):
        _ = payload.kinds


def test_no_funcs() -> None:
    assert payload_of(build([TEXT], [Sym(b"f")])).functions == []
    assert payload_of(build([TEXT, Sec(".livepatch.funcs", b"")], [Sym(b"f")])).functions == []


def test_build_ids() -> None:
    sections = [
        TEXT, build_id(b"own"), Sec(".livepatch.depends", note(b"below")), Sec(".livepatch.xen_depends", note(b"xen!")),
    ]  # fmt: skip
    payload = payload_of(build(sections, [Sym(b"f")]))
    assert (payload.build_id, payload.depends, payload.xen_depends) == (b"own", b"below", b"xen!")
    bare = payload_of(build([TEXT], [Sym(b"f")]))
    assert (bare.build_id, bare.depends, bare.xen_depends) == (None, None, None)


@pytest.mark.parametrize(
    ("data", "desc"),
    [
        (struct.pack("<III", 5, 4, 3) + b"GNU\0x\0\0\0" + b"abcd", b"abcd"),  # longer name, padded
        (note(b"abcd") + b"trailing", b"abcd"),
        (struct.pack("<III", 4, 4, 4) + b"GNU\0abcd", None),
        (struct.pack("<III", 3, 4, 3) + b"GNU\0abcd", None),
        (struct.pack("<III", 4, 4, 3) + b"FOO\0abcd", None),
        (struct.pack("<III", 4, 5, 3) + b"GNU\0abcd", None),
        (struct.pack("<III", 4, 0, 3) + b"GNU\0abcd", None),
        (struct.pack("<III", 2**32 - 1, 4, 3) + b"GNU\0abcd", None),
        (b"short", None),
        (b"", None),
    ],
)
def test_notes(data: bytes, desc: bytes | None) -> None:
    """version.c:xen_build_id_check."""
    payload = payload_of(build([TEXT, Sec(".note.gnu.build-id", data)], [Sym(b"f")]))
    if desc is not None:
        assert payload.build_id == desc
    else:
        with pytest.raises(PayloadError, match="not a GNU build-id note"):
            _ = payload.build_id


def test_corpus_is_seen_as_it_was_written(corpus: dict[str, Item]) -> None:
    for item in corpus.values():
        view = elf.parse(item.path.read_bytes())
        found: dict[int, list[str]] = {Kind.NEW: [], Kind.OVERRIDING: []}
        for symbol, kind in zip(view.symbols(), Payload(view).kinds, strict=True):
            if kind in found:
                found[kind].append(view.string(symbol.st_name).decode())
        expected = item.expected
        new = [*expected.new_local, *expected.new_global, *expected.signature]
        assert sorted(found[Kind.NEW]) == sorted(new), item.name
        assert sorted(found[Kind.OVERRIDING]) == sorted(expected.overriding), item.name


def test_size_of_an_entry() -> None:
    """sizeof(struct livepatch_func), of versions 1 and 2."""
    assert [func_size(8, 1), func_size(8, 2), func_size(4, 1), func_size(4, 2)] == [64, 104, 52, 92]
    known = {one.name: (one.func_size, one.expect_at) for one in machines.MACHINES.values()}
    assert known == {"x86_64": (104, 72), "aarch64": (104, 72), "arm": (92, 60)}
