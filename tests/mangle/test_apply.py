"""Applying a plan, its proof, undoing it; a manifest is read as it was written."""

import hashlib
import json
import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from elfbuild import GLOBAL, TEXT, Built, Sec, Sym, build, build_id, plain
from memory import allocated

from lpmangle import elf
from lpmangle.errors import ElfError, ManifestError, ProofError
from lpmangle.mangle.apply import apply, prove
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.options import Options
from lpmangle.mangle.plan import Plan
from lpmangle.manifest import read as manifest
from lpmangle.manifest.undo import undo
from lpmangle.manifest.write import encode
from lpmangle.xen.payload import Payload

SHAPES = [{"is_64": is_64, "big": big} for is_64 in (True, False) for big in (True, False)]
SUF = Options(suffix="text:SUF")


def mangled(built: Built, options: Options = SUF) -> tuple[elf.Object, Plan, bytes, bytes]:
    """View and plan of the input, the output, its manifest."""
    view = elf.parse(built.data)
    plan = make_plan(Payload(view), options, "stem")
    after = bytes(apply(Payload(view), plan))
    return view, plan, after, b"".join(encode(Payload(view), plan, after, "stem"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_only_names_differ_and_the_way_back(shape: dict[str, bool]) -> None:
    view, plan, after, text = mangled(plain(**shape))
    done = elf.parse(after)
    prove(Payload(view), after, plan.renames)
    for index, (before, now) in enumerate(zip(view.symbols(), done.symbols(), strict=True)):
        assert now._replace(st_name=0) == before._replace(st_name=0)
        assert done.string(now.st_name) == plan.renames.get(index, view.string(before.st_name))
        assert index in plan.renames or now == before
    for section, now_section in zip(view.sections, done.sections, strict=True):
        if section is not view.strtab:
            assert now_section == section
        if section not in (view.strtab, view.symtab):
            assert done.section_data(now_section) == view.section_data(section)
    assert undo(done, manifest.decode(text)) == view.data


def test_one_table_for_both_string_tables() -> None:
    built = build([TEXT, build_id()], [Sym(b"x.c#f"), Sym(b"g", bind=GLOBAL)], one_string_table=True)
    view, _, after, text = mangled(built)
    assert view.strtab.name == ".strtab"
    done = elf.parse(after)
    assert [section.name for section in done.sections] == [section.name for section in view.sections]
    assert undo(done, manifest.decode(text)) == view.data


def test_shared_and_tail_shared_names() -> None:
    """Only the planned symbol changes, even if another one shares its st_name or points into its name."""
    first = build([TEXT], [Sym(b"emulate_retry"), Sym(b"emulate_retry", 0, bind=GLOBAL)])
    built = build([TEXT], [Sym(b"emulate_retry"), Sym(1 + 8, bind=GLOBAL), Sym(1, 0, bind=GLOBAL)])
    for each, names in ((first, [b"emulate_retry"]), (built, [b"retry", b"emulate_retry"])):
        _, _, after, _ = mangled(each)
        done = elf.parse(after)
        found = [done.string(symbol.st_name) for symbol in done.symbols()]
        assert found == [b"", b"emulate_retry_SUF", *names]


def test_nothing_to_rename_is_the_very_input() -> None:
    built = build([TEXT], [Sym(b"f", bind=GLOBAL)])
    view, plan, after, text = mangled(built)
    assert after == built.data
    prove(Payload(view), after, plan.renames)
    assert undo(view, manifest.decode(text)) == built.data
    with pytest.raises(ProofError):
        prove(Payload(view), after + b"\0", plan.renames)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_proof_sees_every_changed_byte(shape: dict[str, bool]) -> None:
    """A change in any byte of the output is noticed, except in the mark, which nothing refers to."""
    view, plan, after, _ = mangled(plain(**shape))
    start = after.index(b"lpmangle 2 ")
    mark = range(start, start + len(plan.mark.encode()))
    for at in range(len(after)):
        out = bytearray(after)
        out[at] ^= 0x21
        if at in mark:
            prove(Payload(view), out, plan.renames)
        else:
            with pytest.raises(ProofError):
                prove(Payload(view), out, plan.renames)


def test_the_proof_says_which_byte_differs() -> None:
    view, plan, after, _ = mangled(plain())
    for at in (view.sections[1].offset, view.symbol_offset(1) + 4, view.place_at(1), len(view.data) - 1):
        out = bytearray(after)
        out[at] ^= 1
        with pytest.raises(ProofError, match=f"byte {at:#x} differs, which no rename touches"):
            prove(Payload(view), out, plan.renames)


def test_a_large_payload_is_not_copied() -> None:
    """There are the input and the output; the proof needs no other copy of data or names."""
    symbols = [Sym(f"file.c#{index}".encode().ljust(40, b"_")) for index in range(10_000)]
    payload = Payload(elf.parse(build([Sec(".text", bytes(4 << 20))], symbols).data))
    plan = make_plan(payload, SUF, "stem")
    with allocated() as peak:
        after = apply(payload, plan)
    assert peak() < len(after) + (1 << 20)
    with allocated() as peak:
        prove(payload, after, plan.renames)
    assert peak() < 1 << 20


def test_the_proof_sees_what_is_missing_or_too_much() -> None:
    view, plan, after, _ = mangled(plain())
    for wrong in (after[:-1], after + b"\0", after[: len(view.data)], after[: len(view.data) - 1], b"", view.data):
        with pytest.raises(ProofError):
            prove(Payload(view), wrong, plan.renames)
    for renames in ({}, {**plan.renames, 4: b"other"}, {3: plan.renames[3]}, {**plan.renames, 3: b"x"}):
        with pytest.raises(ProofError):
            prove(Payload(view), after, renames)


def test_undo_refuses_what_does_not_lead_back() -> None:
    _, _, after, text = mangled(plain())
    found = json.loads(text)

    def change(path: str, value: object) -> manifest.Manifest:
        changed = json.loads(text)
        *parents, last = path.split(".")
        inner = changed
        for key in parents:
            inner = inner[int(key) if key.isdigit() else key]
        inner[last] = value
        return manifest.decode(json.dumps(changed).encode())

    cases = {
        "input.size": [0, 100, found["input"]["size"] - 1, found["input"]["size"] + 1, 2**60],
        "input.sha256": ["0" * 64],
        "string_table.section": [0, 1, 1000],
        "string_table.offset": [0, 2**64],
        "string_table.size": [0, 2**70],
        "symbols.0.index": [0, 4, 10**9],
        "symbols.0.st_name": [0, 2**32 - 1],
    }
    for path, values in cases.items():
        for value in values:
            with pytest.raises(ManifestError, match="does not lead back"):
                undo(elf.parse(after), change(path, value))
    for at in random.Random(1).sample(range(64, len(after)), 100):
        broken = bytearray(after)
        broken[at] ^= 1
        with suppress(ElfError, ManifestError):
            assert undo(elf.parse(bytes(broken)), manifest.decode(text)) == plain().data


def test_undo_believes_no_manifest() -> None:
    """A manifest with forged digests must not turn the payload into another file."""
    view, _, after, text = mangled(plain())
    swapped = json.loads(text)
    first, second = swapped["symbols"]
    first["st_name"], second["st_name"] = second["st_name"], first["st_name"]
    out = bytearray(view.data)
    for symbol in (first, second):
        struct.pack_into("<I", out, view.symbol_offset(symbol["index"]), symbol["st_name"])
    swapped["input"]["sha256"] = hashlib.sha256(out).hexdigest()
    empty = json.loads(text)
    empty.update(symbols=[], input={"size": 0, "sha256": hashlib.sha256(b"").hexdigest()})
    renamed = json.loads(text)
    renamed["symbols"][0]["original"] = "evil.c#evil"
    for lie in (swapped, empty, renamed):
        with pytest.raises(ManifestError, match="does not lead back"):
            undo(elf.parse(after), manifest.decode(json.dumps(lie).encode()))


def test_manifest_says_what_is_there() -> None:
    view, plan, after, text = mangled(plain(), Options(suffix="text:SUF", scope="new", keep=("lp_helper",)))
    found = manifest.decode(text)
    assert (found.payload, found.machine, found.build_id, found.depends) == ("stem", "x86_64", "ab" * 20, None)
    assert (found.input.size, found.output.size) == (len(view.data), len(after))
    assert found.options == manifest.OptionsRecord("text:SUF", "{symbol}_{suffix}", "new", [], ["lp_helper"])
    assert found.symbols[0] == manifest.SymbolRecord(
        index=3, original="x86_emulate.c#_get_fpu", name="x86_emulate.c#_get_fpu_SUF", section=".text", value=16,
        size=1, type="FUNC", binding="LOCAL", st_name=view.symbol(3).st_name,
    )  # fmt: skip
    assert [symbol.index for symbol in found.symbols] == list(plan.renames) == [3, 7]
    assert found.symbols[1].binding == "GLOBAL"


def test_manifest_of_many_and_odd_symbols() -> None:
    names = [f'fün"\\\n\x01{number}'.encode() for number in range(3000)]
    view, plan, after, text = mangled(build([TEXT], [Sym(name) for name in names]))
    found = manifest.decode(text)
    assert [symbol.original.encode() for symbol in found.symbols] == names
    assert text.isascii()
    assert len([line for line in text.splitlines() if b'"original"' in line]) == 3000
    assert undo(elf.parse(after), found) == view.data
    assert len(plan.renames) == 3000


def test_manifests_are_the_same_again() -> None:
    assert mangled(plain())[2:] == mangled(plain())[2:]


def test_unknown_fields_are_ignored_and_newer_majors_refused() -> None:
    text = mangled(plain())[3]
    found = json.loads(text)
    found["future"] = {"x": [1]}
    found["symbols"][0]["future"] = 1
    found["version"] = "1.99"
    assert manifest.decode(json.dumps(found).encode()).suffix == "SUF"
    for version in ("2.0", "10.0", "0.9", "x", ""):
        found["version"] = version
        with pytest.raises(ManifestError, match="manifest version"):
            manifest.decode(json.dumps(found).encode())


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"{}", b'{"format": "x", "version": "1.0"}', b"\xff\xfe", b"[" * 100_000,
     b'{"format": "lpmangle-manifest", "version": "1.0"}', b'{"format": "lpmangle-manifest", "version": 1}',
     b'{"format":"lpmangle-manifest","version":"1.0","symbols":' + b'{"a":' * 50_000],
)  # fmt: skip
def test_no_manifest(text: bytes) -> None:
    with pytest.raises(ManifestError):
        manifest.decode(text)


def test_written_fields_are_the_schema_s_and_it_is_shipped() -> None:
    shipped = Path(manifest.__file__).with_name("manifest.schema.json").read_text()
    assert shipped == manifest.schema(), "run `make schema`"
    types = json.loads(shipped)["$defs"]

    def check(value: object, schema: dict[str, object]) -> None:
        if "$ref" in schema:
            schema = types[str(schema["$ref"]).rpartition("/")[2]]
        if isinstance(value, dict):
            properties = schema["properties"]
            assert isinstance(properties, dict)
            required = schema["required"]
            assert isinstance(required, list)
            assert set(required) <= set(value) <= set(properties)
            for key, inner in value.items():
                check(inner, properties[key])
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            items = schema["items"]
            assert isinstance(items, dict)
            check(value[0], items)

    check(json.loads(mangled(plain())[3]), json.loads(shipped))
