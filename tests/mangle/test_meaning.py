"""What a name means to a stacked payload, before and after the payloads below are mangled."""

import struct
from pathlib import Path

import pytest
from commands import lpmangle
from elfbuild import ALLOC, EXEC, Sec, Sym, build, build_id, funcs, note, rela
from stacked import HELPER, XEN, ident, layer, stacked, write

from lpmangle import elf
from lpmangle.errors import PlanError
from lpmangle.jobs.against import layer_of_manifest
from lpmangle.mangle.apply import apply
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.options import Options
from lpmangle.mangle.plan import Reference
from lpmangle.mangle.stack import Layer, Stack
from lpmangle.manifest.read import decode
from lpmangle.manifest.write import encode
from lpmangle.xen.payload import Payload


def decoded_layer(*names: str, suffix: str = "buildid") -> Layer:
    """The layer from the manifest of a payload with these new symbols."""
    built = stacked(1, XEN, new=names, replaces=["do_patched"])
    payload = Payload(elf.parse(built.data))
    plan = make_plan(payload, Options(suffix), "a")
    text = b"".join(encode(payload, plan, apply(payload, plan), "a"))
    return layer_of_manifest(decode(text), "a.manifest.json")


def test_names_of_which_xen_keeps_126_bytes() -> None:
    """Xen compares a whole name with the kept parts of others."""
    kept, whole = "n" * 126, "n" * 130
    below = decoded_layer(whole)
    stack = Stack([below], None)
    assert stack.resolve(kept.encode()) == Reference(below.names[kept.encode()], below.build_id)
    assert stack.resolve(whole.encode()) is None


def test_the_first_of_names_that_are_cut_to_one() -> None:
    names = ["n" * 126 + "1", "n" * 126 + "2"]
    below = decoded_layer(*names)
    first = make_plan(Payload(elf.parse(stacked(1, XEN, new=names, replaces=["do_patched"]).data)), Options(), "a")
    reference = Stack([below], None).resolve(b"n" * 126)
    assert reference
    assert reference.name == min(first.renames.items())[1]


def test_a_name_of_two_symbols_of_which_one_was_renamed() -> None:
    """Manifests of lpmangle 0.1 may have this, and do not say which one was the first."""
    built = stacked(1, XEN, new=[HELPER, "kept"], replaces=["do_patched"])
    payload = Payload(elf.parse(built.data))
    plan = make_plan(payload, Options(keep=("kept",)), "a")
    text = b"".join(encode(payload, plan, apply(payload, plan), "a")).replace(b'"kept"\n', f'"{HELPER}"\n'.encode())
    with pytest.raises(PlanError, match="stands for two symbols of a, which are called differently now"):
        Stack([layer_of_manifest(decode(text), "a")], None).resolve(HELPER.encode())


def test_a_name_of_two_symbols_of_which_one_is_new_under_some_versions_only() -> None:
    """They are equal in the 126 bytes that Xen keeps, but not in what they are called by a manifest."""
    long = b"n" * 126
    symbols = [Sym(long + b"1", ".text", value=64), Sym(long, ".text.b", value=8), Sym(b"start", ".text.b")]
    table, empty = funcs(1), Sec(".text.empty", b"", ALLOC | EXEC, align=128)
    code = [Sec(".text", flags=ALLOC | EXEC, align=16), empty, Sec(".text.b", flags=ALLOC | EXEC, align=16)]
    sections = [
        *code,
        table,
        rela(table.name, [(8, 3, 1, 0)]),
        build_id(ident(1)),
        Sec(".livepatch.depends", note(XEN)),
    ]
    payload = Payload(elf.parse(build(sections, symbols).data))
    plan = make_plan(payload, Options(), "a")
    below = layer_of_manifest(decode(b"".join(encode(payload, plan, apply(payload, plan), "a"))), "a")
    with pytest.raises(PlanError, match="stands for two symbols of a, which are called differently now"):
        Stack([below], None).resolve(long)


def test_a_name_that_is_new_under_some_versions_only() -> None:
    """The end of a section is the replacement's address only if empty sections are not placed."""
    symbols = [Sym(b"end", ".text", value=64), Sym(b"start", ".text.b")]
    table = funcs(1)
    sections = [
        Sec(".text", flags=ALLOC | EXEC, align=16),
        Sec(".text.empty", b"", ALLOC | EXEC, align=128),
        Sec(".text.b", flags=ALLOC | EXEC, align=16),
        table,
    ]
    sections += [rela(table.name, [(8, 2, 1, 0)]), build_id(ident(1)), Sec(".livepatch.depends", note(XEN))]
    payload = Payload(elf.parse(build(sections, symbols).data))
    plan = make_plan(payload, Options(), "a")
    assert list(plan.renames) == [1]
    found = decode(b"".join(encode(payload, plan, apply(payload, plan), "a")))
    assert found.unsure == ["end"]
    unsure, sure = layer_of_manifest(found, "a"), layer(2, "end")
    assert Stack([unsure], None).resolve(b"end") == Reference(unsure.names[b"end"], unsure.build_id)
    assert Stack([sure, unsure], None).resolve(b"end") == Reference(sure.names[b"end"], sure.build_id)
    with pytest.raises(PlanError, match="which end is meant depends on the version of Xen"):
        Stack([unsure, sure], None).resolve(b"end")


@pytest.mark.parametrize("below", [layer(1, "f"), layer(1, HELPER, kept=("f_v1",)), layer(1, kept=("f_v1",))])
def test_a_kept_name_that_is_new_below(below: Layer) -> None:
    """Names that the upper payload keeps collide, like those that it renames."""
    payload = Payload(elf.parse(stacked(2, ident(1), new=["f_v1", "b.c#own"], replaces=["do_patched"]).data))
    stack = Stack([below], None)
    assert make_plan(payload, Options(), "b", stack).renames
    if b"f_v1" not in below.kept:
        below = below._replace(names={b"f": b"f_v1"})
    with pytest.raises(PlanError, match="f_v1 would be new in it and is new in p1") as caught:
        make_plan(payload, Options(keep=("f_v1",)), "b", Stack([below], None))
    assert "it keeps this name" in caught.value.hint


def test_a_stacked_payload_means_what_it_meant(tmp_path: Path) -> None:
    """Two LOCAL f below, the first a group signature: the upper payload's f is the first, renamed neither."""
    group = Sec(".group", struct.pack("<II", 1, 1), flags=0, type=17, link=".symtab", info=1, entsize=4)
    table = funcs(1)
    sections = [Sec(".text", flags=ALLOC | EXEC), group, table, rela(table.name, [(8, 3, 1, 0)]), build_id(ident(1))]
    symbols = [Sym(b"f", value=8), Sym(b"f", value=16), Sym(b"new"), Sym(b"g", value=24)]
    built = build([*sections, Sec(".livepatch.depends", note(XEN))], symbols)
    a, b = write(tmp_path, a=built, b=stacked(2, ident(1), undefined=["f", "g"], replaces=["do_patched"]))
    assert "keeps its name" in lpmangle(a).stderr
    lpmangle("--against", a, b)
    names = [view.string(symbol.st_name).decode() for view in [elf.parse(b.read_bytes())] for symbol in view.symbols()]
    assert names.count("f") == 1
    assert f"g_{ident(1).hex()}" in names


def test_a_new_name_of_any_symbol_below_collides() -> None:
    """Also the name of a symbol that Xen does not find by its old name, because another one comes first."""
    long = "n" * 126
    names = [long + "_b", long + "_a"]
    below = decoded_layer(*names, suffix="text:v1")
    data = stacked(2, ident(1), new=[long + "_a"], replaces=["do_patched"]).data
    with pytest.raises(PlanError, match="would be new in it and is new in a"):
        make_plan(Payload(elf.parse(data)), Options("text:v1"), "b", Stack([below], None))
