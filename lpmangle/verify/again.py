"""Makes the manifest again from the original, in the way that the manifest says: is it the same?

So every field is checked against the payload, including those that a later version adds. What only the manifest says,
the options and the payloads below, is used here, and checked in `claims`.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from lpmangle import elf
from lpmangle.errors import LpmangleError, ManifestError
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.mark import Below, check_of
from lpmangle.mangle.options import Options
from lpmangle.mangle.plan import Plan, Reference
from lpmangle.mangle.stack import Stack
from lpmangle.manifest import frame, write
from lpmangle.manifest.read import FunctionNameRecord, Manifest, ReferenceRecord, decode
from lpmangle.xen.payload import Payload

# The most wrong entries of one kind that are reported one by one.
MOST_ENTRIES = 20
_ELSEWHERE = ("format", "version", "against")
_SAID_BY_PEOPLE = ("notes", "source")  # nothing in a payload says it
_KEYS = {"symbols": "index", "references": "index", "functions": "entry", "string_sections": "section"}
_WORDS = {"index": "symbol", "entry": ".livepatch.funcs entry", "section": "section"}


def differences(before: elf.Object, after: bytes, found: Manifest) -> Iterator[str]:
    """One line for each field in which `found` is not the manifest of `before`, which became `after`."""
    try:
        again = _made_again(before, after, found)
    except LpmangleError as error:
        yield f"the original cannot be mangled as the manifest says: {error.message}"
        return
    except UnicodeDecodeError:  # a name that is not text is never borrowed
        yield "the original has a name that is not text where the manifest says that it was changed"
        return
    for field in Manifest.__struct_fields__:
        is_now, said = getattr(again, field), getattr(found, field)
        if field in (*_ELSEWHERE, *_SAID_BY_PEOPLE) or is_now == said:
            continue
        if field == "frame":
            if said is not None:
                yield from _frame_differences(is_now, said)
            continue
        if field in _KEYS:
            yield from _some(list(_entry_differences(_KEYS[field], is_now, said)), field)
        elif isinstance(said, list):
            yield from _some(list(_name_differences(field, is_now, said)), field)
        elif isinstance(is_now, msgspec.Struct):
            yield from (f"{field}: {line}" for line in _field_differences(is_now, said))
        else:
            yield f"{field} is {is_now}, the manifest says {said}"


def plan_of(before: elf.Object, found: Manifest) -> Plan:
    """The plan by which lpmangle mangles the original as `found` says. Raises LpmangleError, UnicodeDecodeError."""
    asked = found.options
    options = Options(asked.suffix, asked.template, tuple(asked.only), tuple(asked.keep), asked.scope)
    plan = make_plan(Payload(before), options, found.payload)
    plan.references = {one.index: _borrowed(one) for one in found.references}
    plan.functions = {one.entry: _borrowed(one) for one in found.functions}
    borrowed = Counter(one.build_id for one in found.borrowed)
    below = [Below(one.build_id, borrowed[one.build_id], check_of(one.template, one.suffix)) for one in found.against]
    plan.mark = plan.mark._replace(below=tuple(below))
    return plan


def _made_again(before: elf.Object, after: bytes, found: Manifest) -> Manifest:
    """The manifest that lpmangle writes with the options in `found`."""
    embedded, stack = found.section_headers is not None, Stack([], None) if found.borrowed else None
    plan = plan_of(before, found)
    text = write.encode(Payload(before), plan, after, found.payload, embedded=embedded, stack=stack)
    return decode(b"".join(text))


def _frame_differences(is_now: str | None, said: str) -> Iterator[str]:
    """Compare the uncompressed content: versions of zlib may compress differently."""
    try:
        if is_now is None or frame.decode(is_now) != frame.decode(said):
            yield "frame is not that of the original"
    except ManifestError as error:
        yield error.message


def _borrowed(one: ReferenceRecord | FunctionNameRecord) -> Reference:
    return Reference(one.name.encode(), one.build_id)


def _entry_differences(key: str, is_now: list[Any], said: list[Any]) -> Iterator[str]:
    """Entries are told apart by their field `key`."""
    now, then = ({getattr(entry, key): entry for entry in entries} for entries in (is_now, said))
    for number in sorted({*now, *then}):
        what = f"{_WORDS[key]} {number}"
        if number not in then:
            yield f"{what} is missing in the manifest"
        elif number not in now:
            yield f"{what} does not belong in the manifest"
        else:
            yield from (f"{what}: {line}" for line in _field_differences(now[number], then[number]))


def _name_differences(field: str, is_now: list[str], said: list[str]) -> Iterator[str]:
    now, then = set(is_now), set(said)
    yield from (f"{field}: {name} is missing in the manifest" for name in is_now if name not in then)
    yield from (f"{field}: {name} does not belong in the manifest" for name in said if name not in now)


def _some(lines: list[str], field: str) -> Iterator[str]:
    yield from lines[:MOST_ENTRIES] or [f"{field}: the entries are in another order, or repeated"]
    if len(lines) > MOST_ENTRIES:
        yield f"{field}: {len(lines) - MOST_ENTRIES} more"


def _field_differences(is_now: msgspec.Struct, said: msgspec.Struct) -> Iterator[str]:
    for field in is_now.__struct_fields__:
        if (now := getattr(is_now, field)) != (then := getattr(said, field)):
            yield f"{field} is {now}, the manifest says {then}"
