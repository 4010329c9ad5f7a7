"""The names that a payload brings in: livepatch.c:is_payload_symbol, build_symbol_table."""

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.loader.findings import Report
from lpmangle.loader.image import Image
from lpmangle.loader.rules import Rule
from lpmangle.loader.state import State
from lpmangle.mangle.mark import find_in
from lpmangle.xen.abi import MAX_NAME
from lpmangle.xen.symbols import Kind, SymbolRules


def find_new_symbols(image: Image) -> None:
    """The registered symbols that do not override, in table order.

    A symbol at the address of any replacement overrides, whatever its name is.
    """
    replacements = {function.new_addr for function in image.functions} - {0}
    kind = SymbolRules([header.flags for header in image.headers], image.machine.e_machine).kind
    image.new = [
        index
        for index, (name, shndx, _) in enumerate(image.symbols)
        if kind(shndx, name) == Kind.NEW and image.values[index] not in replacements
    ]


def register_names(image: Image, state: State, report: Report) -> None:
    """build_symbol_table: no new name may be in use. Two equal names within one payload are not noticed."""
    find_new_symbols(image)
    for index in image.new:
        name = image.symbols[index][0][:MAX_NAME]
        holder = state.holder(name)
        if holder is not None:
            says, advice = f"duplicate new symbol: {text(name)}", _remedy(image, index)
            if state.profile.duplicates_accepted:
                detail = f"{holder} has it; as long as it does, look-ups of the name find that one"
                report.warn(Rule.DUPLICATE_ACCEPTED, detail, text(name), advice, says=says)
            else:
                report.refuse(Rule.DUPLICATE_SYMBOL, says, f"{holder} has it", text(name), advice=advice)
    if not state.xen and image.new:
        names = {image.symbols[index][0][:MAX_NAME] for index in image.new}
        what = "its new name" if len(names) == 1 else f"one of its {len(names)} new names"
        report.not_checked(Rule.NO_HYPERVISOR_TABLE, f"whether the hypervisor has {what}")


def _remedy(image: Image, index: int) -> str:
    """By default lpmangle renames LOCAL symbols; if it has renamed this one, the suffix was not unique."""
    if image.bindings[index] != elf.STB_LOCAL:
        return "lpmangle --scope new PAYLOAD (the symbol is not LOCAL)"
    if find_in(image.file_content(image.headers[image.symtab].link)):
        return "lpmangle restore PAYLOAD, then lpmangle PAYLOAD (its default suffix is unique)"
    return "lpmangle PAYLOAD"
