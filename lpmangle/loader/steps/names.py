"""The names that a payload brings in: livepatch.c:is_payload_symbol, build_symbol_table."""

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.loader.image import Image
from lpmangle.loader.rules import Report, Rule
from lpmangle.loader.state import State
from lpmangle.mangle.mark import find_in
from lpmangle.xen.abi import MAX_NAME
from lpmangle.xen.symbols import Kind, SymbolRules


def new_symbols(image: Image, new_addresses: frozenset[int]) -> list[int]:
    """The registered symbols that do not override, in table order.

    One that lies at the address of any replacement overrides, whatever its name is.
    """
    kind = SymbolRules([header.flags for header in image.headers], image.machine.e_machine).kind
    found = []
    for index, (name, shndx, _) in enumerate(image.symbols):
        if kind(shndx, name) == Kind.NEW:
            value = image.values[index]
            if value not in new_addresses or not value:
                found.append(index)
    return found


def _remedy(image: Image, index: int) -> str:
    """lpmangle renames LOCAL symbols unless told otherwise; where it has been already, its suffix was not unique."""
    if image.bindings[index] != elf.STB_LOCAL:
        return "lpmangle --scope new PAYLOAD (the symbol is not LOCAL)"
    if find_in(image.file_content(image.headers[image.symtab].link)):
        return "lpmangle restore PAYLOAD, then lpmangle PAYLOAD (its default suffix is unique)"
    return "lpmangle PAYLOAD"


def check_names(image: Image, new: list[int], state: State, report: Report) -> dict[bytes, int]:
    """build_symbol_table: no new name may be taken. Returns the names, as Xen keeps them, and their addresses."""
    names: dict[bytes, int] = {}
    for index in new:
        name = image.symbols[index][0][:MAX_NAME]
        holder = state.holder(name)
        if holder is not None:
            says = f"duplicate new symbol: {text(name)}"
            report.refuse(Rule.DUPLICATE_SYMBOL, says, f"{holder} has it", text(name), advice=_remedy(image, index))
        # Two equal names within one payload are not noticed; look-ups find the first.
        names.setdefault(name, image.values[index])
    if not state.xen and names:
        report.not_checked(Rule.NO_HYPERVISOR_TABLE, f"whether the hypervisor has one of {len(names)} new names")
    return names
