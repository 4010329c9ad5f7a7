"""LIEF agrees with the output of lpmangle, and sees every other difference."""

from __future__ import annotations

import pytest
from elfbuild import plain

from lpmangle import elf
from lpmangle.mangle.apply import apply
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.options import Options
from lpmangle.manifest import embed
from lpmangle.manifest.read import Manifest, decode
from lpmangle.manifest.write import encode
from lpmangle.verify.embedded import findings
from lpmangle.verify.second_opinion import on_embedding, on_names
from lpmangle.xen.payload import Payload


def mangled(*, embedded: bool = False, big: bool = False) -> tuple[elf.Object, elf.Object, Manifest, bytes]:
    view = elf.parse(plain(big=big).data)
    payload = Payload(view)
    plan = make_plan(payload, Options("text:SUF"), "p")
    after = bytes(apply(Payload(view), plan))
    text = b"".join(encode(payload, plan, after, "p", embedded=embedded))
    return view, elf.parse(after), decode(text), text


def test_it_agrees() -> None:
    before, after, manifest, _ = mangled()
    assert list(on_names(before.data, after.data, manifest)) == []


@pytest.mark.parametrize("field", ["st_name", "st_info", "st_other", "st_shndx", "st_value", "st_size"])
def test_it_sees_each_field_of_a_symbol(field: str) -> None:
    before, after, manifest, _ = mangled()
    index = manifest.symbols[0].index
    symbol = after.symbol(index)
    changed = symbol._replace(**{field: getattr(symbol, field) ^ 1})
    out = bytearray(after.data)
    after.layout.sym.pack_into(out, after.symbol_offset(index), *changed)
    (line,) = on_names(before.data, bytes(out), manifest)
    assert line.startswith(f"LIEF: symbol {index} is ")


def test_it_sees_a_section_header() -> None:
    before, after, manifest, _ = mangled()
    out = bytearray(after.data)
    after.put_place(out, 1, after.sections[1].offset, after.sections[1].size - 1)
    (line,) = on_names(before.data, bytes(out), manifest)
    assert line.startswith("LIEF: section 1 is ")


def test_it_sees_another_number_of_symbols() -> None:
    before, after, manifest, _ = mangled()
    out = bytearray(after.data)
    entry = after.layout.sym.size
    after.put_place(out, after.symtab.number, after.symtab.offset, after.symtab.size - entry)
    assert list(on_names(before.data, bytes(out), manifest)) == ["LIEF: the number of symbols or sections differs"]


def test_it_agrees_with_an_embedded_manifest() -> None:
    _, after, _, text = mangled(embedded=True)
    view = elf.parse(embed.add(after, text))
    assert list(on_embedding(after, view)) == []
    out = bytearray(view.data)
    view.put_place(out, 1, view.sections[1].offset, view.sections[1].size - 1)
    (line,) = on_embedding(after, elf.parse(bytes(out)))
    assert line.startswith("LIEF: section 1 is ")


def test_it_sees_another_number_of_sections_with_an_embedded_manifest() -> None:
    _, after, _, _ = mangled()
    assert list(on_embedding(after, after)) == ["LIEF: the number of sections differs with the manifest embedded"]


def test_a_file_of_which_it_reads_nothing() -> None:
    """LIEF knows no big-endian x86_64, and says so only by finding no section: that is not agreement."""
    before, after, manifest, text = mangled(embedded=True, big=True)
    assert list(on_names(before.data, after.data, manifest)) == ["LIEF cannot read it"]
    embedded = elf.parse(embed.add(after, text))
    assert list(on_embedding(after, embedded)) == ["LIEF cannot read it with the manifest embedded"]


def test_a_damaged_embedded_manifest_is_a_finding() -> None:
    """One was given, so there is something to compare the payload with."""
    _, after, manifest, text = mangled(embedded=True)
    out = bytearray(embed.add(after, text))
    section = elf.parse(bytes(out)).sections[-1]
    out[section.offset + section.size // 2] ^= 0xFF
    view = elf.parse(bytes(out))
    damaged, moved = findings(view, embed.without(view), manifest)
    assert damaged.startswith("the manifest in .debug_lpmangle is damaged: ")
    assert "is not where lpmangle put it" in moved


def test_an_embedded_manifest_that_is_another_one() -> None:
    _, after, manifest, text = mangled(embedded=True)
    view = elf.parse(embed.add(after, text.replace(b'"payload": "p"', b'"payload": "q"')))
    (line,) = findings(view, embed.without(view), manifest)
    assert line == "the manifest in section .debug_lpmangle is not the one that was given"
