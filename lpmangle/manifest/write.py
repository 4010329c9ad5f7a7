"""Writes the manifest of a plan: one JSON object, its shape typed in `read`.

The head is indented and the symbols stand one to a line, so that a diff or grep of two manifests shows symbols. Last
stands what only programs read.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from lpmangle import elf
from lpmangle.mangle.plan import Outcome, Plan
from lpmangle.manifest.format import FORMAT, VERSION, payload_name
from lpmangle.manifest.frame import encode as encode_frame
from lpmangle.manifest.text import indented, is_plain, quoted
from lpmangle.records import TYPE_CHECKING
from lpmangle.system.files import sha256
from lpmangle.xen.payload import Payload

if TYPE_CHECKING:
    from lpmangle.mangle.stack import Stack

# So many symbols are written at once: a manifest of a million symbols is never in memory whole.
_LINES = 1024


def encode(
    payload: Payload,
    plan: Plan,
    output: bytes | bytearray,
    stem: str,
    *,
    embedded: bool = False,
    stack: "Stack | None" = None,
    source: bytes | None = None,
) -> Iterator[bytes]:
    """The manifest of `plan`, which made `output` out of `payload`, in pieces. `stem` is what it is uploaded as.

    A manifest to be embedded into `output` says where the section headers were. `stack` is the plan's, `source`
    the content of the file that --source names.
    """
    view, options, strtab = payload.elf, plan.options, payload.elf.strtab
    head: dict[str, object] = {
        "format": FORMAT,
        "version": VERSION,
        "payload": payload_name(stem),
        "machine": elf.EM_NAMES.get(view.machine, str(view.machine)),
        "build_id": _hex(payload.build_id),
        "depends": _hex(payload.depends),
        "xen_depends": _hex(payload.xen_depends),
        "input": {"sha256": sha256(view.data), "size": len(view.data)},
        "output": {"sha256": sha256(output), "size": len(output)},
        "string_table": {"section": strtab.number, "offset": strtab.offset, "size": strtab.size},
        "suffix": plan.suffix,
        "options": {
            "suffix": options.suffix,
            "template": options.template,
            "scope": options.scope,
            "only": options.only,
            "keep": options.keep,
        },
    }
    if embedded:
        head["section_headers"] = view.e_shoff
    if stack:
        head |= _references(payload, plan, stack)
    if kept := _as_text(_kept(view, plan)):
        head["kept"] = kept
    if options.note:
        pairs = (note.partition("=") for note in dict.fromkeys(options.note))
        head["notes"] = [{"key": key, "value": value} for key, _, value in pairs]
    if source is not None:
        head["source"] = {"sha256": sha256(source), "size": len(source)}
    if unsure := _as_text(sorted(payload.unsure_names)):
        head["unsure"] = unsure
    head["symbols"] = []
    yield indented(head).removesuffix("]\n}").encode()
    lines: list[bytes] = []
    separator = b"\n    "
    for line in _symbol_lines(view, plan):
        lines.append(line)
        if len(lines) == _LINES:
            yield separator + b",\n    ".join(lines)
            lines.clear()
            separator = b",\n    "
    if lines:
        yield separator + b",\n    ".join(lines)
    yield b"\n  ]" if plan.renames else b"]"
    if frame := encode_frame(view):
        yield b',\n  "frame": "%b"' % frame.encode()
    yield b"\n}\n"


def _references(payload: Payload, plan: Plan, stack: "Stack") -> dict[str, object]:
    """What the plan takes from other payloads, and from which: the records of `read` for them."""
    view = payload.elf
    references, entries = [], []
    for index, reference in plan.references.items():
        st_name = view.symbol(index).st_name
        original = view.string(st_name).decode()
        references.append(
            {"index": index, "original": original, "name": reference.name.decode(), "st_name": st_name}
            | {"build_id": reference.build_id}
        )
    found = [entry for entry in payload.looked_up if entry.entry in plan.functions]
    for entry in found:
        name, build_id = plan.functions[entry.entry]
        entries.append(
            {"entry": entry.entry, "original": entry.name.decode(), "name": name.decode(), "addend": entry.addend}
            | {"build_id": build_id}
        )
    sections = [view.sections[number] for number in sorted({entry.section for entry in found})]
    return {
        "against": [
            {"payload": layer.payload, "build_id": layer.build_id, "template": layer.template, "suffix": layer.suffix}
            for layer in stack.layers
            if layer.names
        ],
        "references": references,
        "functions": entries,
        "string_sections": [{"section": s.number, "offset": s.offset, "size": s.size} for s in sections],
    }


def _kept(view: elf.Object, plan: Plan) -> Iterator[bytes]:
    """The names of new symbols that were not renamed."""
    for outcome in (Outcome.GLOBAL, Outcome.GROUP_SIGNATURE, Outcome.EXCLUDED, Outcome.TWIN):
        for index in plan.indices(outcome):
            yield view.symbol_name(index)


def _as_text(names: Iterable[bytes]) -> list[str]:
    """Each name once; one that is not text nobody can refer to in a manifest."""
    found: dict[str, None] = {}
    for name in names:
        with suppress(UnicodeDecodeError):
            found[name.decode()] = None
    return list(found)


def _symbol_lines(view: elf.Object, plan: Plan) -> Iterator[bytes]:
    """One JSON object for each renamed symbol (`read.SymbolRecord`)."""
    sections = [quoted(section.name).encode() for section in view.sections]
    kinds: dict[int, bytes] = {}  # by st_info, of which a payload has few
    names = bytes(view.section_data(view.strtab)).replace(b"\0", b"") + f"{plan.options.template}{plan.suffix}".encode()
    plain, string, new_name = is_plain(names), view.string, plan.renames.get
    for index, (st_name, st_info, _, st_shndx, st_value, st_size) in enumerate(view.symbol_fields()):
        if (new := new_name(index)) is None:
            continue
        if st_info not in kinds:
            kind, binding = st_info & 15, st_info >> 4
            kinds[st_info] = (
                f'"type":"{elf.STT_NAMES.get(kind, kind)}","binding":"{elf.STB_NAMES.get(binding, binding)}","st_name":'
            ).encode()
        old = string(st_name)
        if not plain:
            old, new = (quoted(name.decode()).encode()[1:-1] for name in (old, new))
        yield b'{"index":%d,"original":"%b","name":"%b","section":%b,"value":%d,"size":%d,%b%d}' % (
            *(index, old, new, sections[st_shndx], st_value, st_size, kinds[st_info], st_name),
        )


def _hex(build_id: bytes | None) -> str | None:
    return None if build_id is None else build_id.hex()
