"""The variables of a payload: what holds state while the payload is applied."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from lpmangle import elf
from lpmangle.xen.lookalikes import compiler_made
from lpmangle.xen.payload import Payload
from lpmangle.xen.symbols import Kind

# Written only while relocations are performed: compilers call it "relro".
_CONSTANT = ".data.rel.ro"


class Variable(NamedTuple):
    """Symbol number `symbol`; `name` is its original name, `stable` the one that identifies it in other builds."""

    symbol: int
    name: bytes
    stable: bytes
    size: int


def holds_state(section: elf.Section) -> bool:
    """Whether the content of a section can change while the payload is applied."""
    return (
        section.flags & (elf.SHF_ALLOC | elf.SHF_WRITE) == elf.SHF_ALLOC | elf.SHF_WRITE
        and not section.name.startswith((_CONSTANT, ".livepatch."))
    )  # fmt: skip


def variables(payload: Payload, original: Callable[[bytes], bytes]) -> list[Variable]:
    """The new symbols of a payload that hold state, in table order. Raises PayloadError, ElfError.

    `original` returns a symbol's name before it was mangled.
    """
    found = list(_of_state(payload, original))
    stable = stable_names(name for _, name, _ in found)
    return [Variable(index, name, stable[name], size) for index, name, size in found]


def _of_state(payload: Payload, original: Callable[[bytes], bytes]) -> Iterator[tuple[int, bytes, int]]:
    view = payload.elf
    state = [holds_state(section) for section in view.sections]
    if not any(state):
        return
    for index, (kind, symbol) in enumerate(zip(payload.kinds, view.symbols(), strict=True)):
        if kind == Kind.NEW and state[symbol.st_shndx] and symbol.st_size and symbol.type != elf.STT_FUNC:
            yield index, original(view.string(symbol.st_name)), symbol.st_size


def stable_names(names: Iterable[bytes]) -> dict[bytes, bytes]:
    """Name -> the same without what the compiler has appended, if no other symbol has the name without it.

    Static variables of functions are numbered (`calls.3`), and a fix elsewhere in the file renumbers them.
    """
    stems = {name: name.removesuffix(compiler_made(name)) for name in names}
    count = Counter(stems.values())
    return {name: stem if count[stem] == 1 else name for name, stem in stems.items()}
