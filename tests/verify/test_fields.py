"""No field of a manifest is trusted: each false value is found, and named."""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from stacked import ident, stacked

from lpmangle import elf
from lpmangle.errors import ManifestError
from lpmangle.mangle.apply import apply
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.options import Options
from lpmangle.mangle.stack import Layer, Stack
from lpmangle.manifest.read import decode, schema
from lpmangle.manifest.write import encode
from lpmangle.verify.findings import findings
from lpmangle.xen.payload import Payload

NAME = "upper"
OPTIONS = Options("buildid:12", "{name}.{suffix}", ("u.c#*", "lp_*"), ("*kept*", "u.c#no_such"), "new")


@cache
def mangled() -> tuple[bytes, bytes, str]:
    """A payload with everything that a manifest can contain: the original, the mangled one, its manifest.

    Two payloads are below it; nothing is borrowed from the lower one.
    """
    view = elf.parse(
        stacked(
            3,
            ident(2),
            new=["u.c#one", "lp_two", "u.c#kept", "other"],
            undefined=["m.c#helper", "printk"],
            replaces=["m.c#handler", "do_domctl"],
        ).data
    )
    names = {name: name + b"_MIDDLE" for name in (b"m.c#helper", b"m.c#handler")}
    stack = Stack(
        [
            Layer("lower", "01" * 20, None, "{symbol}_{suffix}", "LOWER", {b"x": b"x_LOWER"}, frozenset(), ""),
            Layer("middle", "02" * 20, "01" * 20, "{symbol}_{suffix}", "MIDDLE", names, frozenset(), ""),
        ],
        None,
    )
    payload = Payload(view)
    plan = make_plan(payload, OPTIONS, NAME, stack)
    after = bytes(apply(payload, plan))
    text = b"".join(encode(payload, plan, after, NAME, embedded=True, stack=stack))
    return view.data, after, text.decode()


def found(manifest: Any, *, original: bool = False) -> list[str]:
    """What is wrong with the good payload and this manifest."""
    before, after, _ = mangled()
    older = elf.parse(before) if original else None
    return list(findings(elf.parse(after), decode(json.dumps(manifest).encode()), NAME, older))


def good() -> Any:
    return json.loads(mangled()[2])


def leaves(node: dict[str, Any], definitions: dict[str, Any], path: str = "") -> Iterator[str]:
    """The fields of the schema without subfields, lists as `name[]`."""
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    if node.get("type") == "object":
        for name, inner in node["properties"].items():
            yield from leaves(inner, definitions, f"{path}.{name}" if path else name)
    elif node.get("type") == "array" and "$ref" in node["items"]:
        yield from leaves(node["items"], definitions, f"{path}[]")
    else:
        yield path


def test_the_good_one_is_good() -> None:
    manifest = good()
    assert found(manifest) == found(manifest, original=True) == []
    for field in ("symbols", "references", "functions", "string_sections", "kept", "against"):
        assert manifest[field], field
    assert manifest["section_headers"]


def other_frame(text: str) -> str:
    """One with another byte."""
    raw = zlib.decompress(b64decode(text))
    return b64encode(zlib.compress(raw[:-1] + bytes([raw[-1] ^ 1]))).decode()


HEX = "ab" * 20
# Field -> (a false value, or a function that makes it from the true one; the message). In lists the first entry.
FALSE: dict[str, list[tuple[Any, str]]] = {
    "version": [("1.9", "version 1.9")],
    "payload": [],  # a file may have been renamed; see test_payload
    "machine": [("arm", "machine is x86_64, the manifest says arm")],
    "build_id": [(HEX, "build-id is 03"), (None, "build-id is 03.* says None")],
    "depends": [(HEX, "depends is 02"), (None, "depends is 02.* says None")],
    "xen_depends": [(HEX, "xen-depends is ee"), (None, "xen-depends is ee.* says None")],
    "input.sha256": [("0" * 64, "does not lead back to the original")],
    "input.size": [
        (lambda size: size + 64, "does not lead back to the original"),
        (lambda size: size - 64, "does not lead back to the original"),
    ],
    "output.sha256": [("0" * 64, "sha256 is .*, the manifest says 0000")],
    "output.size": [(lambda size: size + 1, "output: size is")],
    "string_table.section": [(lambda number: number - 1, "string_table: section is")],
    "string_table.offset": [(lambda offset: offset + 1, "string_table: offset is not")],
    "string_table.size": [
        (lambda size: size + 1, "string_table: size is not"),
        (lambda size: size - 1, "string_table: size is not"),
    ],
    "suffix": [("0" * 12, "mangled with suffix 030303030303, the manifest says 000000000000")],
    "options.suffix": [
        ("buildid:13", "mangled with --suffix buildid:12, the manifest says buildid:13"),
        ("text:" + "03" * 6, "mangled with --suffix buildid:12, the manifest says text:03"),
        ("name", "--suffix name gives upper"),
        ("nothing", "is not one of"),
    ],
    "options.template": [("{symbol}_{suffix}", "mangled with --template {name}.{suffix}, the manifest says {symbol}_")],
    "options.scope": [("local", "mangled with --scope new, the manifest says local")],
    "options.only": [
        ([], r"mangled with --only lp_\* --only u.c#\* --keep .*, the manifest says --keep"),
        (["u.c#*", "lp_*", "x"], "the manifest says --only lp_.* --only x"),
    ],
    "options.keep": [([], "the manifest says --only [^ ]* --only [^ ]*$"), (["*kept*"], r"says .* --keep \*kept\*$")],
    "section_headers": [(lambda offset: offset + 8, "section_headers is")],
    "against[].payload": [],  # not in the payload; see test_payload
    "against[].build_id": [(HEX, f"not mangled against a payload with build-id {HEX}")],
    "against[].template": [("{name}_{suffix}", "build-id 01.* had another template or suffix")],
    "against[].suffix": [("OTHER", "build-id 01.* had another template or suffix")],
    "notes[].key": [],  # notes are not in the payload
    "notes[].value": [],
    "source": [],
    "references[].index": [(lambda index: index + 1, "symbol .*: name is"), (lambda index: 10**6, "does not exist")],
    "references[].original": [("m.c#other", "is m.c#helper, the manifest says m.c#other")],
    "references[].name": [("m.c#other_MIDDLE", "name is m.c#helper_MIDDLE, the manifest says m.c#other_MIDDLE")],
    "references[].st_name": [(lambda st_name: st_name + 1, "at st_name"), (10**6, "at st_name 1000000 is None")],
    "references[].build_id": [
        ("01" * 20, "it borrows 2 of its names from build-id 0202.* says 1"),
        (HEX, f"build-id {HEX} is not in the manifest"),
    ],
    "functions[].entry": [(1, "entry 1"), (7, "entry 7")],
    "functions[].original": [("m.c#other", "original is m.c#handler, the manifest says m.c#other")],
    "functions[].name": [("other_MIDDLE", "name is m.c#handler_MIDDLE, the manifest says other_MIDDLE")],
    "functions[].addend": [(lambda addend: addend + 1, "does not lead back to the original")],
    "functions[].build_id": [
        ("01" * 20, "it borrows 2 of its names from build-id 0202.* says 1"),
        (HEX, f"build-id {HEX} is not in the manifest"),
    ],
    "string_sections[].section": [(lambda number: number + 1, "does not lead back to the original")],
    "string_sections[].offset": [(lambda offset: offset + 1, "does not lead back to the original")],
    "string_sections[].size": [(lambda size: size - 1, "does not lead back to the original")],
    "kept": [
        ([], "kept: u.c#kept is missing in the manifest"),
        (["u.c#kept", "other", "x"], "kept: x does not belong in the manifest"),
    ],
    "unsure": [(["other"], "unsure: other does not belong in the manifest")],
    "frame": [
        ("", "frame in the manifest is damaged"),
        ("no base64", "frame in the manifest is damaged"),
        (lambda text: text[:-4], "frame in the manifest is damaged"),
        (lambda text: other_frame(text), "frame is not that of the original"),
    ],
    "symbols[].index": [(lambda index: index + 1, "symbol .*: name is"), (10**6, "does not exist")],
    "symbols[].original": [("u.c#other", "is u.c#one, the manifest says u.c#other")],
    "symbols[].name": [("other.030303030303", "name is one.030303030303, the manifest says other.030303030303")],
    "symbols[].section": [(".data", "section is .text, the manifest says .data")],
    "symbols[].value": [(lambda value: value + 1, "value is 32, the manifest says 33")],
    "symbols[].size": [(lambda size: size + 1, "size is 1, the manifest says 2")],
    "symbols[].type": [("OBJECT", "type is FUNC, the manifest says OBJECT")],
    "symbols[].binding": [("GLOBAL", "binding is LOCAL, the manifest says GLOBAL")],
    "symbols[].st_name": [(lambda st_name: st_name + 1, "at st_name"), (10**6, "at st_name 1000000 is None")],
}
CASES = [
    pytest.param(field, false, said, id=f"{field}-{number}")
    for field, several in FALSE.items()
    for number, (false, said) in enumerate(several)
]


def falsified(field: str, false: Any) -> Any:
    manifest = good()
    node, names = manifest, field.replace("[]", ".0").split(".")
    for name in names[:-1]:
        node = node[int(name) if name.isdecimal() else name]
    node[names[-1]] = false(node[names[-1]]) if callable(false) else false
    assert manifest != good()
    return manifest


def test_no_field_is_left_out() -> None:
    text = json.loads(schema())
    assert {*FALSE, "format"} == set(leaves(text, text["$defs"]))


@pytest.mark.parametrize(("field", "false", "said"), CASES)
def test_a_false_field(field: str, false: Any, said: str) -> None:
    lines = found(falsified(field, false))
    assert any(re.search(said, line) for line in lines), lines


@pytest.mark.parametrize(("field", "false", "said"), CASES)
def test_a_false_field_with_the_original_at_hand(field: str, false: Any, said: str) -> None:
    """The same; with the original, the message names the field that is wrong."""
    lines = found(falsified(field, false), original=True)
    if "lead back" in said:
        said = (
            rf"{field.rpartition('.')[2]} is .*, the manifest says|{field.partition('.')[2]} is|missing in the manifest"
        )
    assert any(re.search(said, line) for line in lines), lines


@pytest.mark.parametrize(("field", "false"), [("format", "other"), ("version", "2.0"), ("version", "x")])
def test_what_is_no_manifest(field: str, false: str) -> None:
    with pytest.raises(ManifestError):
        found(falsified(field, false))


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("symbols", "symbol .* is twice"),
        ("references", "symbol .* is twice"),
        ("functions", r"\.livepatch\.funcs entry 0 is twice"),
        ("string_sections", "section .* is twice"),
        ("kept", "the kept name .* is twice"),
        ("against", "the payload below with build-id 01.* is twice"),
    ],
)
def test_an_entry_that_stands_twice(field: str, said: str) -> None:
    manifest = good()
    manifest[field].insert(1, manifest[field][0])
    lines = found(manifest)
    assert any(re.search(said, line) for line in lines), lines


@pytest.mark.parametrize("field", ["symbols", "references", "functions", "string_sections", "kept", "against"])
def test_an_entry_that_is_left_out(field: str) -> None:
    manifest = good()
    manifest[field].pop()
    assert found(manifest)


@pytest.mark.parametrize(
    ("field", "said"),
    [("symbols", "does not lead back"), ("kept", "in another order"), ("against", "in another order")],
)
def test_entries_in_another_order(field: str, said: str) -> None:
    manifest = good()
    manifest[field].reverse()
    assert any(re.search(said, line) for line in found(manifest))
