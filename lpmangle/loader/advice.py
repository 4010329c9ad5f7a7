"""What the loader does not notice, or will notice only later, and an engineer wants to know."""

from collections import Counter

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.errors import counted, listed
from lpmangle.loader.findings import Report
from lpmangle.loader.image import Image
from lpmangle.loader.rules import Rule
from lpmangle.loader.state import State
from lpmangle.mangle.mark import Mark, find_in
from lpmangle.xen.abi import LIVEPATCH_MAX_SIZE, MAX_NAME
from lpmangle.xen.lookalikes import compiler_made

_MOST_NAMES = 12
_DEBUG = (b".debug_", b".rela.debug_", b".rel.debug_", b".gdb_index", b".zdebug_")


def advise(image: Image, state: State, report: Report, known: Mark | None = None) -> None:
    """Warnings about a payload. `known` is how it was mangled if it has no mark."""
    if report.fatal and (what := elf.other_than_payload(image.data)):
        report.warn(Rule.OTHER_FILE, what)
        return
    _debug_size(image, report)
    _init_symbols(image, state, report)
    new = image.new
    names = [image.symbols[index][0] for index in new]
    if not names:
        return
    mark = find_in(image.file_content(image.headers[image.symtab].link)) or known
    mangled, bindings = mark is not None, image.bindings
    local = [name for index, name in zip(new, names, strict=True) if bindings[index] == elf.STB_LOCAL]
    others = [name for index, name in zip(new, names, strict=True) if bindings[index] != elf.STB_LOCAL]
    if local and not mangled:
        report.warn(
            Rule.NOT_MANGLED,
            counted(len(local), "new LOCAL symbol as it was", "new LOCAL symbols as they were")
            + f" compiled: {_some(local)}",
        )
    if others and not (mark and all(mark.suffix.encode() in name for name in others)):
        report.warn(Rule.NEW_GLOBAL, f"{counted(len(others), 'new GLOBAL or WEAK symbol')}: {_some(others)}")
    if twice := _twice(names):
        report.warn(Rule.SAME_NAME, _some(twice))
    if not mangled and (common := [name for name in names if _is_common(name, state)]):
        report.warn(Rule.COMMON_NAME, _some(sorted(set(common))))
    _twins(image, mark, state, report)
    if long := [name for name in names if len(name) > MAX_NAME]:
        report.warn(Rule.LONG_NAME, _some([name[:MAX_NAME] for name in long]))


def _twice(names: list[bytes]) -> list[bytes]:
    cut = [name[:MAX_NAME] for name in names]
    return sorted(name for name, count in Counter(cut).items() if count > 1)


def _is_common(name: bytes, state: State) -> bool:
    """A name without a file in it: it is pure luck if no other source has the same one.

    It counts if the compiler made a part of it, or if a file of the hypervisor has a local symbol of that name.
    """
    if b"#" in name:
        return False
    return bool(compiler_made(name)) or (state.xen is not None and name in state.xen.local_names)


def _init_symbols(image: Image, state: State, report: Report) -> None:
    """Symbols of the hypervisor that relocations refer to, and that are gone after boot."""
    gone = [
        image.symbols[index][0]
        for index in sorted(image.referenced)
        if image.symbols[index][1] == elf.SHN_UNDEF and state.xen and image.values[index] in state.xen.init
    ]
    if gone:
        report.warn(Rule.INIT_SYMBOL, _some(gone), symbol=text(gone[0]))


def _twins(image: Image, mark: Mark | None, state: State, report: Report) -> None:
    """New variables that the hypervisor also has, with another folder, number or compiler's suffix in the name.

    Copies of code and of constants do no harm.
    """
    if not state.xen:
        return
    for index in image.new:
        name, shndx, _ = image.symbols[index]
        if report.has_room(Rule.TWIN) and image.headers[shndx].flags & elf.SHF_WRITE:
            twins = state.xen.lookalikes.twins(mark.original(name) if mark else name)
            if twins:
                report.warn(Rule.TWIN, f"{text(name)}: the hypervisor has {_some(twins)}", symbol=text(name))


def _debug_size(image: Image, report: Report) -> None:
    size = len(image.data)
    if size <= LIVEPATCH_MAX_SIZE or not image.names:
        return
    debug = sum(
        header.size
        for header, name in zip(image.headers, image.names, strict=True)
        if name.startswith(_DEBUG) and header.type != elf.SHT_NOBITS
    )
    if 0 < size - debug <= LIVEPATCH_MAX_SIZE:
        report.warn(Rule.DEBUG_SIZE, f"{debug} of {size} bytes are debug information")


def _some(names: list[bytes]) -> str:
    return listed(list(map(text, names[:_MOST_NAMES])), len(names))
