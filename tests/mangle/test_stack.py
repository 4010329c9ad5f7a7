"""--against: names that a payload borrows from mangled ones below are those that are used there."""

import json
import os
import random
import re
import sqlite3
import struct
from pathlib import Path

import pytest
from commands import lpmangle
from elfbuild import Built
from stacked import AARCH64, ARM, HANDLER, HELPER, STRINGS, X86_64, XEN, ident, layer, stacked, write, xensyms
from toolchain import run

from lpmangle import elf
from lpmangle.errors import LpmangleError, PlanError, ProofError
from lpmangle.mangle import function_names as functions
from lpmangle.mangle.apply import apply, prove
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.options import Options
from lpmangle.mangle.plan import Plan
from lpmangle.mangle.stack import Stack
from lpmangle.manifest.read import decode
from lpmangle.manifest.undo import undo
from lpmangle.manifest.write import encode
from lpmangle.xen.payload import Payload
from lpmangle.xen.placement import place

A_HELPER, A_HANDLER = (f"{name}_{ident(1).hex()}" for name in (HELPER, HANDLER))


def lower(number: int = 1, *names: str, depends: bytes = XEN) -> Built:
    return stacked(number, depends, new=names or (HELPER, HANDLER), replaces=["do_patched"])


def upper(**options: object) -> Built:
    settings: dict[str, object] = {
        "new": ["b.c#own"],
        "undefined": [HELPER, "printk"],
        "replaces": [HANDLER, "do_patched", HANDLER],
    }
    return stacked(2, ident(1), **(settings | options))  # type: ignore[arg-type]


def mangled(data: bytes, stack: Stack) -> tuple[elf.Object, Plan, bytes, bytes]:
    view = elf.parse(data)
    payload = Payload(view)
    plan = make_plan(payload, Options(), "b", stack)
    after = bytes(apply(payload, plan))
    prove(payload, after, plan.names, plan.function_names)
    return view, plan, after, b"".join(encode(payload, plan, after, "b", stack=stack))


def function_names(data: bytes) -> list[bytes]:
    return [entry.name for entry in Payload(elf.parse(data)).looked_up]


def symbol_names(data: bytes) -> list[bytes]:
    view = elf.parse(data)
    return [view.string(symbol.st_name) for symbol in view.symbols()]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A mangled payload, and one that is put on it."""
    a, b = write(tmp_path, a=lower(), b=upper())
    lpmangle(a)
    return a, b


@pytest.mark.parametrize("strings", [STRINGS, ".livepatch.strings"])
@pytest.mark.parametrize("machine", [X86_64, AARCH64, ARM])
def test_undefined_symbols_and_functions(machine: int, strings: str) -> None:
    built = upper(machine=machine, strings=strings, last="no NUL behind")
    view, _, after, text = mangled(built.data, Stack([layer(1, HELPER, HANDLER)], None))
    names = symbol_names(after)
    assert {A_HELPER.encode(), b"printk", b"b.c#own_" + ident(2).hex().encode()} <= set(names)
    assert HELPER.encode() not in names
    assert function_names(after) == [A_HANDLER.encode(), b"do_patched", A_HANDLER.encode()]
    done = elf.parse(after)
    for section, now in zip(view.sections, done.sections, strict=True):
        if section.name == strings:
            old, new = bytes(view.section_data(section)), bytes(done.section_data(now))
            assert new == old + b"\0" + A_HANDLER.encode() + b"\0"
        elif section.name not in (".strtab", ".symtab", ".rela.livepatch.funcs", ".livepatch.funcs"):
            assert now == section
            assert done.section_data(now) == view.section_data(section)
    # The bytes that differ: names of two symbols, two section headers, two entries' own addends.
    allowed = {view.symbol_offset(index) + n for index in (3, 7) for n in range(4)}
    for header in (strings, ".strtab"):
        at = built.at("shdr", "sh_offset", header)[1]
        allowed |= set(range(at, at + (8 if machine == ARM else 16)))
    if machine == ARM:
        size = 12 + 8 + 32 + 40
        allowed |= {
            view.sections[built.numbers[".livepatch.funcs"]].offset + size * n + k for n in (0, 2) for k in range(4)
        }
    else:
        table = view.sections[built.numbers[".rela.livepatch.funcs"]].offset
        allowed |= {table + 24 * n + 16 + k for n in (0, 4) for k in range(8)}
    assert [
        at for at, (old, new) in enumerate(zip(built.data, after, strict=False)) if old != new and at not in allowed
    ] == []
    manifest = decode(text)
    assert [(one.original, one.name, one.build_id) for one in manifest.references] == [
        (HELPER, A_HELPER, ident(1).hex())
    ]
    assert [(one.entry, one.original, one.name) for one in manifest.functions] == [
        (0, HANDLER, A_HANDLER),
        (2, HANDLER, A_HANDLER),
    ]
    assert undo(done, manifest) == built.data


def test_readelf_sees_the_new_references(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, b = pair
    lpmangle("--against", a, b)
    symbols = run("readelf", "-Ws", b.name, cwd=tmp_path)
    assert re.search(rf"GLOBAL DEFAULT +UND {re.escape(A_HELPER)}$", symbols, re.MULTILINE)
    strings = run("readelf", "-p", STRINGS, b.name, cwd=tmp_path)
    relocations = run("readelf", "-rW", b.name, cwd=tmp_path)
    found = dict(re.findall(r"^ +\[ *([0-9a-f]+)\]  (.*)$", strings, re.MULTILINE))
    addends = [line.split()[-1] for line in relocations.splitlines() if line.strip().startswith("0000")]
    assert [found.get(addend) for addend in addends[::2]] == [A_HANDLER, "do_patched", A_HANDLER]


def test_the_proof_sees_every_changed_byte() -> None:
    stack = Stack([layer(1, HELPER, HANDLER)], None)
    view, plan, after, _ = mangled(upper().data, stack)
    start = after.index(b"lpmangle 2 ")
    mark = range(start, start + len(plan.mark.encode()))
    for at in set(range(len(after))) - set(mark):
        out = bytearray(after)
        out[at] ^= 0x21
        with pytest.raises(ProofError):
            prove(Payload(view), out, plan.names, plan.function_names)
    for wrong in (
        {},
        {0: A_HANDLER.encode()},
        {**plan.function_names, 1: b"do_other"},
        {**plan.function_names, 0: b"other"},
        {entry: name + b"x" for entry, name in plan.function_names.items()},
    ):
        with pytest.raises(ProofError):
            prove(Payload(view), after, plan.names, wrong)


def test_a_name_that_is_told_by_a_symbol_of_its_own() -> None:
    """A symbol other than the section's, as compilers may leave it (.L.str): the addend counts from that symbol."""
    built = stacked(2, ident(1), replaces=[HANDLER])
    data = bytearray(built.data)
    code, at = built.at("sym", "st_value", 1)
    struct.pack_into("<" + code, data, at, 8)
    addend_at = Payload(elf.parse(built.data)).looked_up[0].addend_at
    struct.pack_into("<q", data, addend_at, 0)
    _, _, after, text = mangled(bytes(data), Stack([layer(1, HANDLER)], None))
    assert function_names(after) == [A_HANDLER.encode()]
    assert undo(elf.parse(after), decode(text)) == data


def test_functions_alone() -> None:
    """No symbol gets another name; the file is marked nevertheless."""
    built = stacked(2, ident(1), replaces=[HANDLER])
    stack = Stack([layer(1, HANDLER)], None)
    _, plan, after, text = mangled(built.data, stack)
    assert (plan.names, list(plan.functions)) == ({}, [0])
    assert undo(elf.parse(after), decode(text)) == built.data
    again = make_plan(Payload(elf.parse(after)), Options(), "b", stack)
    assert again.already
    assert not again.changes


def test_the_order_of_resolution() -> None:
    """The hypervisor, then the payloads from below; ambiguous names are reported."""
    stack = Stack([layer(1, HELPER, HANDLER), layer(3, HELPER, "c.c#only")], frozenset({HANDLER.encode()}))
    built = stacked(2, ident(3), undefined=[HELPER, "c.c#only", "printk"], replaces=[HANDLER])
    _, plan, after, _ = mangled(built.data, stack)
    assert [reference.name.decode() for reference in plan.references.values()] == [
        A_HELPER,
        "c.c#only_" + ident(3).hex(),
    ]
    assert function_names(after) == [HANDLER.encode()]
    assert list(stack.several) == [HELPER.encode()]
    assert list(stack.hidden) == [HANDLER.encode()]


def test_entries_that_xen_does_not_look_up_stay() -> None:
    """old_addr is known already; or a relocation fills it in."""
    stack = Stack([layer(1, HANDLER)], None)
    built = stacked(2, ident(1), replaces=[HANDLER], old_addr=0xFFFF82D040200000)
    _, plan, after, _ = mangled(built.data, stack)
    assert not plan.changes
    assert after == built.data
    relocated = stacked(2, ident(1), replaces=[HANDLER])
    table = relocated.numbers[".rela.livepatch.funcs"]
    view = elf.parse(relocated.data)
    data = bytearray(relocated.data)
    data[view.sections[table].offset + 24] = 16  # the relocation of new_addr now fills old_addr
    _, plan, _, _ = mangled(bytes(data), stack)
    assert not plan.changes


@pytest.mark.parametrize("section", [".data.names", ".livepatch.hooks.load", ".text.names"])
def test_sections_that_cannot_grow(tmp_path: Path, section: str) -> None:
    a, b = write(tmp_path, a=lower(), b=stacked(2, ident(1), replaces=[HANDLER], strings=section))
    lpmangle(a)
    before = b.read_bytes()
    assert "cannot grow" in lpmangle("--against", a, b, code=3).stderr
    assert b.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.livepatch",
        "a.livepatch.manifest.json",
        "b.livepatch",
    ]


def test_the_command(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, b = pair
    original = b.read_bytes()
    warned = lpmangle("-o", tmp_path / "plain.livepatch", b)
    assert f"is put on the payload with build-id {ident(1).hex()}" in warned.stderr
    assert "--against" in warned.stderr
    done = lpmangle("--against", a, "-v", b)
    assert done.stderr == ""
    assert "1 symbol renamed" in done.stdout
    assert (
        f"on a, build-id {ident(1).hex()}, borrowed from it: 1 undefined symbol and 2 functions to replace"
        in done.stdout
    )
    assert "--xen" in done.stdout
    assert f"{HELPER} -> {A_HELPER}" in done.stdout
    assert f"{HANDLER} -> {A_HANDLER} (entry 2 of .livepatch.funcs)" in done.stdout
    (tmp_path / "original").write_bytes(original)
    verified = lpmangle("verify", b, "--original", tmp_path / "original").stdout
    assert "verified, 1 renamed symbol, 3 names borrowed from other payloads, nothing else differs" in verified
    assert "already mangled" in lpmangle("--against", a, b).stdout
    assert "already mangled" in lpmangle(b).stdout
    assert "restored" in lpmangle("restore", b).stdout
    assert b.read_bytes() == original


@pytest.mark.parametrize("machine", [X86_64, AARCH64, ARM])
def test_a_function_of_the_payload_below_on_arm(tmp_path: Path, machine: int) -> None:
    """There a payload that replaces another one's function crashes Xen, whatever its name is now."""
    a = stacked(1, XEN, new=[HELPER, HANDLER], replaces=["do_patched"], machine=machine)
    a_path, b_path = write(tmp_path, a=a, b=upper(machine=machine))
    lpmangle(a_path)
    warning = "replaces {}, a function of a: Xen on Arm dies when this is applied"
    arm = machine != X86_64
    said = lpmangle("--against", a_path, b_path).stderr
    assert (warning.format(HANDLER) in said) is arm
    assert "do_patched" not in said
    assert (warning.format(A_HANDLER) in lpmangle("--against", a_path, b_path).stderr) is arm  # it is already mangled
    lpmangle("restore", b_path)
    names = xensyms(tmp_path / "xensyms", [HANDLER])
    assert "Xen on Arm" not in lpmangle("--against", a_path, "--xen", names, b_path).stderr


def test_a_mangled_payload_that_was_not_mangled_against(pair: tuple[Path, Path]) -> None:
    a, b = pair
    lpmangle("-q", "--against", a, "-o", b.with_name("expected"), b)
    lpmangle(b)
    manifest = Path(f"{b}.manifest.json").rename(b.with_name("moved"))
    before = b.read_bytes()
    assert "restore the original first" in lpmangle("--against", a, b, code=3).stderr
    assert b.read_bytes() == before
    manifest.rename(f"{b}.manifest.json")
    assert "restored first" in lpmangle("--against", a, b).stdout
    assert b.read_bytes() == b.with_name("expected").read_bytes()


def test_every_kind_of_source(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, b = pair
    catalog, embedded, folder = tmp_path / "catalog.db", tmp_path / "embedded.livepatch", tmp_path / "folder"
    lpmangle("catalog", "add", catalog, a)
    folder.mkdir()
    (folder / "x.manifest.json").write_bytes(Path(f"{a}.manifest.json").read_bytes())
    lpmangle("-q", "--against", a, "-o", tmp_path / "expected", b)
    for source in (f"{a}.manifest.json", catalog, folder):
        lpmangle("-q", "--against", source, "-o", tmp_path / "out", b)
        assert (tmp_path / "out").read_bytes() == (tmp_path / "expected").read_bytes()
    lpmangle("restore", a)
    lpmangle("-q", "--embed", "-o", embedded, a)
    Path(f"{embedded}.manifest.json").unlink()
    lpmangle("-q", "--against", embedded, "-o", tmp_path / "out", b)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "expected").read_bytes()


def test_a_chain_is_followed_from_any_source(tmp_path: Path) -> None:
    """A stack of four; the names of the lowest and of the third are used by the highest."""
    middle = stacked(5, ident(1), new=["m.c#mid"], undefined=[HELPER])
    third = stacked(6, ident(5), new=["t.c#top"], undefined=["m.c#mid"])
    fourth = stacked(7, ident(6), undefined=[HELPER, "t.c#top"], replaces=[HANDLER])
    a, m, t, f = write(tmp_path, a=lower(), m=middle, t=third, f=fourth)
    lpmangle(a)
    lpmangle("--against", a, m)
    lpmangle("--against", m, "--against", a, t)
    catalog = tmp_path / "catalog.db"
    lpmangle("catalog", "add", catalog, tmp_path)
    done = lpmangle("--against", catalog, "-o", tmp_path / "f.out", f)
    assert done.stderr == ""
    assert {A_HELPER.encode(), b"t.c#top_" + ident(6).hex().encode()} <= set(
        symbol_names((tmp_path / "f.out").read_bytes())
    )
    assert function_names((tmp_path / "f.out").read_bytes()) == [A_HANDLER.encode()]
    manifest = decode(Path(f"{tmp_path}/f.out.manifest.json").read_bytes())
    assert [one.build_id for one in manifest.against] == [ident(n).hex() for n in (1, 5, 6)]
    # The same, each named separately, in any order; if one is missing, what is below it is not known.
    lpmangle("-q", "--against", a, "--against", t, "--against", m, "-o", tmp_path / "f2.out", f)
    assert (tmp_path / "f2.out").read_bytes() == (tmp_path / "f.out").read_bytes()
    wrong = lpmangle("--against", t, "--against", a, f, code=3).stderr
    assert ident(6).hex() in wrong
    assert ident(5).hex() in wrong
    assert ident(1).hex() in wrong
    half = lpmangle("--against", t, "-o", tmp_path / "half.out", f)
    assert f"no manifest of build-id {ident(5).hex()}, on which t depends, was found" in half.stderr
    with sqlite3.connect(catalog) as db:  # a catalog that returns every payload for any build-id
        db.execute("UPDATE manifest SET build_id = ? WHERE build_id != ?", (ident(6).hex(), ident(6).hex()))
    db.close()
    assert f"build-id {ident(5).hex()}" in lpmangle("--against", catalog, "-o", tmp_path / "x.out", f).stderr


def test_against_another_payload(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, _ = pair
    (other,) = write(tmp_path, other=stacked(9, ident(8), undefined=[HELPER]))
    error = lpmangle("--against", a, other, code=3).stderr
    assert f"depends on build-id {ident(8).hex()}, but --against names {a} with build-id {ident(1).hex()}" in error
    (cumulative,) = write(tmp_path, cumulative=stacked(9, XEN, undefined=[HELPER]))
    assert ident(1).hex() in lpmangle("--against", a, cumulative, code=3).stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"depends on build-id {ident(8).hex()}" in lpmangle("--against", empty, other, code=3).stderr
    # A pipeline may name the place of all payloads: one that is put on the hypervisor borrows nothing from them.
    assert "nothing to rename" in lpmangle("--against", empty, "-o", tmp_path / "out", cumulative).stdout
    (silent,) = write(tmp_path, silent=stacked(9, ident(1), undefined=[HELPER]))
    silent.write_bytes(silent.read_bytes().replace(b".livepatch.depends\0", b".livepatch.depend?\0"))
    assert "has no .livepatch.depends, which says what it is put on" in lpmangle("--against", a, silent, code=3).stderr


def test_a_payload_that_was_mangled_in_two_ways(tmp_path: Path) -> None:
    a, b = write(tmp_path, a=lower(), b=upper())
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, suffix in enumerate(("buildid", "name")):
        lpmangle("-q", "--suffix", suffix, "-o", folder / f"{number}.livepatch", a)
    assert "mangled in several ways" in lpmangle("--against", folder, b, code=3).stderr
    done = lpmangle("--against", folder / "1.livepatch", "-v", b)
    assert f"{HELPER} -> {HELPER}_1" in done.stdout


def test_a_lower_payload_that_was_mangled_anew(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    """The upper one still has the old names; it must not count as already mangled."""
    a, b = pair
    lpmangle("--against", a, b)
    before = b.read_bytes()
    manifest = Path(f"{b}.manifest.json").rename(b.with_name("moved"))
    lpmangle("restore", a)
    lpmangle("--suffix", "name", a)
    error = lpmangle("--against", a, b, code=3).stderr
    assert "was mangled when the names in a were different: of 3 names that it borrows from there, 0 fit" in error
    assert "restore the original first" in error
    assert b.read_bytes() == before
    lpmangle("restore", a)
    lpmangle("--keep", "*handler", a)
    assert "of 3 names that it borrows from there, 1 fits" in lpmangle("--against", a, b, code=3).stderr
    manifest.rename(f"{b}.manifest.json")
    assert "restored first" in lpmangle("--against", a, b).stdout
    lpmangle("verify", b, "-m", tmp_path)


def test_names_that_a_lower_payload_kept(tmp_path: Path) -> None:
    """Xen finds the new symbol that was loaded first, renamed or not."""
    lowest = stacked(1, XEN, new=["x.c#tell", "shared"])
    third = stacked(3, ident(1), new=["shared", "x.c#other"])
    a, t, b = write(tmp_path, a=lowest, t=third, b=stacked(2, ident(3), undefined=["shared", "x.c#tell"]))
    lpmangle("--keep", "shared", a)
    assert decode(Path(f"{a}.manifest.json").read_bytes()).kept == ["shared"]
    lpmangle("--against", a, t)
    done = lpmangle("--against", a, "--against", t, "-v", b)
    assert "shared is new in a and in t; the one of a is meant" in done.stderr
    assert b"shared" in symbol_names(b.read_bytes())
    assert b"x.c#tell_" + ident(1).hex().encode() in symbol_names(b.read_bytes())
    assert f"on t, build-id {ident(3).hex()}, borrowed from it: nothing" in done.stdout


def test_a_payload_of_the_stack_that_is_not_mangled(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, _ = pair
    middle = stacked(5, ident(1), new=["m.c#mid"], undefined=["printk"])
    m, top = write(tmp_path, m=middle, top=stacked(6, ident(5), undefined=[HELPER, "m.c#mid"]))
    done = lpmangle("--against", m, "--against", a, top)
    assert f"on m, build-id {ident(5).hex()}, not mangled" in done.stdout
    assert {A_HELPER.encode(), b"m.c#mid"} <= set(symbol_names(top.read_bytes()))
    assert [one.payload for one in decode(Path(f"{top}.manifest.json").read_bytes()).against] == ["a"]
    # A mangled one without its manifest does not count as not mangled.
    Path(f"{a}.manifest.json").unlink()
    assert (
        "has no manifest" in lpmangle("--against", a, "-o", tmp_path / "out", tmp_path / "b.livepatch", code=3).stderr
    )


def test_make_knows_what_was_read(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, b = pair
    lpmangle("-q", "--against", a, "--depfile", tmp_path / "d", "-o", tmp_path / "out", b)
    assert (tmp_path / "d").read_text() == f"{tmp_path}/out: {b} {a}.manifest.json\n"
    xen = xensyms(tmp_path / "xensyms", ["printk"])
    lpmangle("-q", "--against", a, "--xen", xen, "--depfile", tmp_path / "d", "-o", tmp_path / "out", b)
    assert (tmp_path / "d").read_text() == f"{tmp_path}/out: {b} {a}.manifest.json {xen}\n"


def test_a_depfile_replaces_nothing_else(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, b = pair
    xen = xensyms(tmp_path / "xensyms", ["printk"])
    out = tmp_path / "out"
    for path in (a, Path(f"{a}.manifest.json"), xen, Path(f"{out}.manifest.json")):
        before = path.read_bytes() if path.exists() else None
        error = lpmangle("-q", "--against", a, "--xen", xen, "--depfile", path, "-o", out, b, code=4).stderr
        assert error.startswith(f"lpmangle: {path}: is not a dependency file")
        assert (path.read_bytes() if path.exists() else None) == before
        assert not out.exists()


def test_the_hypervisor_comes_first(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, b = pair
    xen = xensyms(tmp_path / "xensyms", ["printk", HELPER, "do_patched"])
    done = lpmangle("--against", a, "--xen", xen, "-v", b)
    assert f"{HELPER} keeps its name: the hypervisor has it" in done.stderr
    assert f"{HELPER} ->" not in done.stdout
    assert f"{HANDLER} -> {A_HANDLER}" in done.stdout
    assert "are not known" not in done.stdout
    assert "--xen needs --against" in lpmangle("--xen", xen, b, code=2).stderr


def test_embedded_batch_and_dry_run(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, b = pair
    original = b.read_bytes()
    (report,) = json.loads(lpmangle("--against", a, "--dry-run", "--json", b).stdout)["payloads"]
    assert report["against"] == [ident(1).hex()]
    assert [one["new_name"] for one in report["symbols"] if "against" in one] == [A_HELPER]
    assert [(one["entry"], one["new_name"]) for one in report["functions"]] == [(0, A_HANDLER), (2, A_HANDLER)]
    assert "func 2" in lpmangle("--against", a, "--dry-run", b).stdout
    assert b.read_bytes() == original
    second = tmp_path / "b2.livepatch"
    second.write_bytes(original)
    lpmangle("--against", a, "--embed", "-j", "2", b, second)
    for path in (b, second):
        Path(f"{path}.manifest.json").unlink()
        assert "verified" in lpmangle("verify", path).stdout
        lpmangle("restore", path)
        assert path.read_bytes() == original


def test_verify_sees_a_reference_that_was_changed(pair: tuple[Path, Path]) -> None:
    a, b = pair
    lpmangle("--against", a, b)
    good = b.read_bytes()
    for name in (A_HELPER, A_HANDLER):
        at = good.rindex(name.encode())
        b.write_bytes(good[:at] + b"X" + good[at + 1 :])
        assert f"the manifest says {name}" in lpmangle("verify", b, code=1).stdout


def test_undo_believes_no_manifest(tmp_path: Path) -> None:
    """A change in any number that restore needs is refused; no wrong file is made."""
    built = upper()
    _, _, after, text = mangled(built.data, Stack([layer(1, HELPER, HANDLER)], None))
    done, found = elf.parse(after), json.loads(text)
    for part, fields in {
        "references": ("index", "st_name"),
        "functions": ("entry", "addend"),
        "string_sections": ("section", "offset", "size"),
    }.items():
        for field in fields:
            for value in (0, 1, 5, 1000, 2**31, 2**32 - 1, 2**63, 2**64, 2**70):
                lie = json.loads(text)
                if lie[part][0][field] == value:
                    continue
                lie[part][0][field] = value
                try:
                    manifest = decode(json.dumps(lie).encode())
                except LpmangleError:
                    continue
                with pytest.raises(LpmangleError, match="does not lead back"):
                    undo(done, manifest)
        with pytest.raises(LpmangleError, match="does not lead back"):
            undo(done, decode(json.dumps({**found, part: []}).encode()))
    assert undo(done, decode(text)) == built.data


def test_random_damage() -> None:
    """A damaged payload is refused, or mangled with a valid proof, and can be restored."""
    seed = int(os.environ.get("LPMANGLE_SEED", "7"))
    print(f"seed: LPMANGLE_SEED={seed}")
    rng = random.Random(seed)
    stack = Stack([layer(1, HELPER, HANDLER)], None)
    originals = [upper(machine=machine).data for machine in (X86_64, AARCH64, ARM)]
    handled = 0
    for number in range(6000):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice([1, 1, 2, 4])):
            at = rng.randrange(len(data) - 8)
            size = rng.choice([1, 2, 4, 8])
            value = rng.choice([0, 1, 2, 8, 40, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(data), rng.randrange(256)])
            data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
        try:
            _, plan, after, text = mangled(bytes(data), stack)
            assert undo(elf.parse(after), decode(text)) == data
            handled += bool(plan.functions)
        except ProofError:
            print(f"mutation {number}")
            raise
        except LpmangleError:
            continue
    assert handled > 1000


def test_a_section_that_grows_onto_a_symbol() -> None:
    """A replacement beyond the end of its section may meet a symbol once sections move; nothing is written then."""
    built = stacked(2, ident(1), new=["b.c#own"], replaces=[HANDLER])
    own, data = 3, bytearray(built.data)
    view = elf.parse(built.data)
    # The new symbol is put after the strings, and the replacement where these end now.
    code, at = built.at("sym", "st_shndx", own)
    struct.pack_into("<" + code, data, at, built.numbers[".note.gnu.build-id"])
    strings = view.sections[built.numbers[STRINGS]]
    bases = place(view.sections, 2**64 - 1, empty_sections_placed=True).offsets
    note = bases[built.numbers[".note.gnu.build-id"]]
    text = bases[built.numbers[".text"]]
    assert note is not None
    assert text is not None
    code, at = built.at("sym", "st_value", own)
    struct.pack_into("<" + code, data, at, 0)
    table = view.sections[built.numbers[".rela.livepatch.funcs"]].offset
    grown = (strings.size + 1 + len(A_HANDLER) + 1 + 3) & ~3
    moved = note - ((strings.size + 3) & ~3) + grown
    struct.pack_into("<q", data, table + 24 + 16, moved - text)
    payload = Payload(elf.parse(bytes(data)))
    with pytest.raises(PlanError, match="no section of it can grow"):
        functions.rename(payload, {0: A_HANDLER.encode()})


def test_query_and_retrace_know_what_was_taken(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    """With only the manifest of the upper payload."""
    a, b = pair
    lpmangle("--against", a, b)
    manifest = f"{b}.manifest.json"
    for word in (HELPER, A_HELPER, "helper"):
        lines = lpmangle("query", word, "-m", manifest).stdout.splitlines()
        assert lines[:2] == [HELPER, f"  new name  {A_HELPER}"]
        assert lines[2] == f"  borrowed  from a, build-id {ident(1).hex()}: undefined symbol"
        assert lines[3] == f"  payload   b, build-id {ident(2).hex()}"
    taken = json.loads(lpmangle("query", "*", "-m", manifest, "--json").stdout)["borrowed"]
    assert [(one["kind"], one["borrowed_from"]["payload"]) for one in taken] == [
        ("undefined symbol", "a"),
        ("function to replace", "a"),
        ("function to replace", "a"),
    ]
    assert lpmangle("query", "*helper", "-m", manifest, "--format", "objcopy").stdout == (
        f"--redefine-sym={A_HELPER}={HELPER}\n"
    )
    log = tmp_path / "log"
    log.write_text(
        f"(XEN) livepatch: b: Unknown symbol: {A_HELPER}\n"
        f"(XEN) livepatch: b: Could not resolve old address of {A_HANDLER}\n"
    )
    assert lpmangle("retrace", "-m", manifest, log).stdout == (
        f"(XEN) livepatch: b: Unknown symbol: {HELPER}\n"
        f"(XEN) livepatch: b: Could not resolve old address of {HANDLER}\n"
    )


def test_an_original_beside_its_manifest(pair: tuple[Path, Path]) -> None:
    """restore leaves the manifest; the payload itself has its old names."""
    a, b = pair
    lpmangle("restore", a)
    before = b.read_bytes()
    done = lpmangle("--against", a, "-v", b)
    assert f"on a, build-id {ident(1).hex()}, not mangled" in done.stdout
    assert HELPER.encode() in symbol_names(b.read_bytes())
    assert function_names(b.read_bytes()) == function_names(before)


def test_a_lower_payload_that_objcopy_wrote_anew(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, b = pair
    before = b.read_bytes()
    copy = tmp_path / "copy.livepatch"
    run("objcopy", a.name, copy.name, cwd=tmp_path)
    error = lpmangle("--against", copy, b, code=3).stderr
    assert "is mangled, and was changed since" in error
    Path(f"{copy}.manifest.json").write_bytes(Path(f"{a}.manifest.json").read_bytes())
    assert b.read_bytes() == before
    for source in (copy, f"{copy}.manifest.json"):  # the content of the file proves that the manifest belongs to it
        b.write_bytes(before)
        lpmangle("--against", source, b)
        assert A_HELPER.encode() in symbol_names(b.read_bytes())


def test_a_lower_payload_without_its_manifest(pair: tuple[Path, Path]) -> None:
    a, b = pair
    Path(f"{a}.manifest.json").unlink()
    error = lpmangle("--against", a, b, code=3).stderr
    assert "name its manifest, or a place" in error
    assert " -m" not in error  # no option of this command


@pytest.mark.parametrize("takes", [{"undefined": [HELPER]}, {"replaces": [HANDLER]}])
def test_what_objcopy_wrote_anew_keeps_its_manifest(tmp_path: Path, takes: dict[str, list[str]]) -> None:
    """All of its new names are borrowed, and its mark is gone."""
    a, b = write(tmp_path, a=lower(), b=stacked(2, ident(1), **takes))  # type: ignore[arg-type]
    lpmangle(a)
    lpmangle("--against", a, b)
    manifest = Path(f"{b}.manifest.json").read_bytes()
    run("objcopy", b.name, cwd=tmp_path)
    for against in ((), ("--against", a)):
        assert "is already mangled" in lpmangle(*against, b, code=3).stderr
        assert Path(f"{b}.manifest.json").read_bytes() == manifest


def test_options_that_look_like_a_mark(pair: tuple[Path, Path]) -> None:
    a, b = pair
    options = ("--keep", f"x --against {ident(1).hex()}:7")
    lpmangle(*options, "--against", a, b)
    assert "already mangled" in lpmangle(*options, b).stdout
    assert "already mangled" in lpmangle(*options, "--against", a, b).stdout


def test_the_hypervisor_is_known_only_later(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    """The hypervisor has a name that was borrowed from the payload below: that is not what is asked for now."""
    a, b = pair
    lpmangle("--against", a, b)
    before = b.read_bytes()
    assert "already mangled" in lpmangle("--against", a, "--xen", xensyms(tmp_path / "other", ["do_patched"]), b).stdout
    hypervisor = xensyms(tmp_path / "xensyms", ["do_patched", HELPER])
    Path(f"{b}.manifest.json").rename(b.with_name("moved"))
    error = lpmangle("--against", a, "--xen", hypervisor, b, code=3).stderr
    assert f"borrows {HELPER} from a, where Xen would not find it" in error
    assert b.read_bytes() == before


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 127])
def test_a_manifest_with_names_that_nobody_can_have(tmp_path: Path, pair: tuple[Path, Path], name: str) -> None:
    a, b = pair
    manifest = json.loads(Path(f"{a}.manifest.json").read_bytes())
    manifest["symbols"][0]["name"] = name
    hostile = tmp_path / "hostile.manifest.json"
    hostile.write_text(json.dumps(manifest))
    before = b.read_bytes()
    error = lpmangle("--against", hostile, b, code=3).stderr
    assert error.startswith(f"lpmangle: {hostile}: was not written by lpmangle")
    assert b.read_bytes() == before


def test_a_relocation_that_is_another_sections_too() -> None:
    """Of a hostile file: the addend would change code."""
    built = stacked(2, ident(1), replaces=[HANDLER])
    view, data = elf.parse(built.data), bytearray(built.data)
    table = view.sections[built.numbers[".rela.livepatch.funcs"]]
    for field, value in (("sh_offset", table.offset), ("sh_size", table.size)):
        code, at = built.at("shdr", field, ".text")
        struct.pack_into("<" + code, data, at, value)
    with pytest.raises(PlanError, match="overlap"):
        functions.rename(Payload(elf.parse(bytes(data))), {0: A_HANDLER.encode()})


def test_a_chain_that_comes_back(tmp_path: Path) -> None:
    """Only possible by hand: a payload below cannot have been built on one above."""
    one, two = stacked(1, ident(2), new=[HELPER]), stacked(2, ident(1), undefined=[HELPER])
    itself, above = stacked(3, ident(3), new=["s.c#own"]), stacked(4, ident(1), undefined=[HELPER])
    paths = write(tmp_path, one=one, two=two, itself=itself)
    done = tmp_path / "done"
    done.mkdir()
    lpmangle("-q", "-o", done, *paths)
    (top,) = write(tmp_path, top=above)
    for path in (paths[1], paths[2], top):
        assert "twice" in lpmangle("--against", done, path, code=3).stderr


def test_names_from_a_hundred_payloads() -> None:
    """The mark, which counts them, is longer than a name may be; the file can be read again."""
    layers = [layer(number, f"n{number}") for number in range(100, 200)]
    built = stacked(2, ident(199), undefined=[f"n{number}" for number in range(100, 200)])
    _, plan, after, text = mangled(built.data, Stack(layers, None))
    assert len(plan.references) == 100
    again = make_plan(Payload(elf.parse(after)), Options(), "b", Stack(layers, None))
    assert again.already
    assert undo(elf.parse(after), decode(text)) == built.data


def test_what_is_below_is_not_overwritten(pair: tuple[Path, Path]) -> None:
    a, b = pair
    manifest = Path(f"{a}.manifest.json")
    before = a.read_bytes(), manifest.read_bytes()
    for options in (("-o", a), ("--manifest", manifest, "-o", b.with_name("out"))):
        for source in (a, manifest):
            error = lpmangle("--against", source, *options, b, code=4).stderr
            assert "belongs to a payload below" in error
            assert (a.read_bytes(), manifest.read_bytes()) == before


def test_one_suffix_for_two_payloads_of_a_stack(tmp_path: Path) -> None:
    a, b = write(tmp_path, a=lower(), b=upper(new=[HELPER]))
    lpmangle("--suffix", "text:v1", a)
    before = b.read_bytes()
    error = lpmangle("--suffix", "text:v1", "--against", a, b, code=3).stderr
    assert f"{HELPER}_v1 would be new in it and is new in a" in error
    assert b.read_bytes() == before
    lpmangle("--suffix", "text:v2", "--against", a, b)


def test_a_mangled_payload_without_its_mark(pair: tuple[Path, Path]) -> None:
    """Its names still prove that it fits, but not that it does not."""
    a, b = pair
    lpmangle("--against", a, b)
    run("objcopy", b.name, cwd=b.parent)
    assert "already mangled" in lpmangle("--against", a, b).stdout
    lpmangle("restore", a)
    lpmangle("--suffix", "text:v2", a)
    before = b.read_bytes()
    assert "payloads below is not known" in lpmangle("--against", a, b, code=3).stderr
    assert b.read_bytes() == before


def test_build_against(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, b = pair
    (tmp_path / "made").write_bytes(b.read_bytes())
    b.unlink()
    script = ["sh", "-c", f"cp {tmp_path}/made {b}"]
    assert (
        "1 undefined symbol and 2 functions" in lpmangle("build", "--against", a, "--result", b, "--", *script).stdout
    )
    assert function_names(b.read_bytes())[0] == A_HANDLER.encode()
    b.unlink()
    missing = lpmangle("build", "--against", tmp_path / "gone", "--result", b, "--", *script, code=4)
    assert "gone" in missing.stderr
    assert not b.exists()


def test_several_payloads_and_a_source_that_cannot_be_read(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    """Said once, before anything is mangled."""
    _, b = pair
    second = tmp_path / "b2.livepatch"
    second.write_bytes(b.read_bytes())
    before = b.read_bytes()
    for jobs in ("1", "2"):
        done = lpmangle("-j", jobs, "--against", tmp_path / "nowhere", b, second, code=4)
        assert done.stderr.count("nowhere") == 1
    assert b.read_bytes() == before


def test_the_payload_below_is_not_overwritten(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    a, b = pair
    before = a.read_bytes()
    error = lpmangle("--against", a, "--manifest", tmp_path / "other.json", "-o", a, b, code=4).stderr
    assert "belongs to a payload below" in error
    assert a.read_bytes() == before
