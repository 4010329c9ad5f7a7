"""Writes the manifest of a plan: one JSON object, whose types are in `read`.

The head is indented and each symbol is on one line, so that a diff or grep of two manifests shows symbols. What only
programs read comes last.
"""

from itertools import compress, islice

from lpmangle import elf
from lpmangle.mangle.plan import Outcome, Plan
from lpmangle.manifest.format import FORMAT, VERSION, payload_name
from lpmangle.manifest.frame import encode as encode_frame
from lpmangle.manifest.text import indented, is_plain, quoted
from lpmangle.system.files import sha256
from lpmangle.system.light import Iterable, Iterator
from lpmangle.system.records import TYPE_CHECKING
from lpmangle.xen.payload import Payload

if TYPE_CHECKING:
    from lpmangle.mangle.stack import Stack

# This many symbols are written at once, so that a manifest of a million symbols is never in memory as a whole.
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
    """The manifest of `plan`, which made `output` out of `payload`, in pieces. `stem` is the name by which it is
    uploaded.

    A manifest that will be embedded into `output` says where the section headers were. `stack` is the plan's, `source`
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
    separator = "\n    "
    for lines in _symbol_lines(view, plan):
        yield (separator + ",\n    ".join(lines)).encode()
        separator = ",\n    "
    yield b"\n  ]" if plan.renames else b"]"
    if frame := encode_frame(view):
        yield b',\n  "frame": "%b"' % frame.encode()
    yield b"\n}\n"


def _references(payload: Payload, plan: Plan, stack: "Stack") -> dict[str, object]:
    """The names that the plan borrows, and the payloads that they are from, as records of `read`."""
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
    st_names = view.symbol_column("st_name")
    for outcome in (Outcome.GLOBAL, Outcome.GROUP_SIGNATURE, Outcome.EXCLUDED, Outcome.TWIN):
        yield from view.strings(compress(st_names, plan.flags(outcome)))


def _as_text(names: Iterable[bytes]) -> list[str]:
    """Each name once; names that are not text cannot be in a manifest."""
    texts = []
    for name in dict.fromkeys(names):
        try:
            texts.append(name.decode())
        except UnicodeDecodeError:
            continue
    return texts


def _symbol_lines(view: elf.Object, plan: Plan) -> Iterator[list[str]]:
    """One JSON object for each renamed symbol (`read.SymbolRecord`), many at once."""
    sections = [quoted(section.name) for section in view.sections]
    st_name, st_info, st_shndx, st_value, st_size = map(
        view.symbol_column, ("st_name", "st_info", "st_shndx", "st_value", "st_size")
    )
    kinds = {info: _kind(info) for info in set(st_info)}
    # A new name consists of an old one, and of these.
    plain = is_plain(f"{plan.options.template}{plan.suffix}".encode())
    renames = iter(plan.renames.items())
    while some := list(islice(renames, _LINES)):
        names = view.strings([st_name[index] for index, _ in some])
        joined = b"\0".join(names)
        if plain and is_plain(joined, b"\0"):
            olds, news = joined.decode().split("\0"), [name.decode() for _, name in some]
        else:
            olds, news = list(map(_escaped, names)), [_escaped(name) for _, name in some]
        yield [
            f'{{"index":{index},"original":"{old}","name":"{new}","section":{sections[st_shndx[index]]},'
            f'"value":{st_value[index]},"size":{st_size[index]},{kinds[st_info[index]]},"st_name":{st_name[index]}}}'
            for (index, _), old, new in zip(some, olds, news, strict=True)
        ]


def _kind(info: int) -> str:
    """What st_info says."""
    kind, binding = info & 15, info >> 4
    return f'"type":"{elf.STT_NAMES.get(kind, kind)}","binding":"{elf.STB_NAMES.get(binding, binding)}"'


def _escaped(name: bytes) -> str:
    """A name as it is written between quotes."""
    return quoted(name.decode())[1:-1]


def _hex(build_id: bytes | None) -> str | None:
    return None if build_id is None else build_id.hex()
