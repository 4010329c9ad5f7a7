"""What a symbol is to the loader: livepatch.c:is_payload_symbol, and build_symbol_table for those at a replacement.

ELF binding and symbol type do not matter.
"""

from lpmangle import elf
from lpmangle.system.light import Sequence


class Kind:  # plain numbers: enum is slow to load
    """Only the last two kinds are registered, and only NEW symbols can collide or be found by name."""

    NULL = 0
    UNDEFINED = 1
    ABSOLUTE = 2
    COMMON = 3
    NOT_LOADED = 4  # its section lacks SHF_ALLOC
    UNNAMED = 5
    MERGE_LOCAL = 6  # .L... in a SHF_MERGE section
    MAPPING = 7  # $a, $d, $t, $x on Arm
    OVERRIDING = 8  # at the new_addr of an entry of .livepatch.funcs
    NEW = 9


# First bytes of names whose kind does not depend only on the section; NUL is that of an empty name.
UNUSUAL = frozenset(b"\0.$")
USUAL = b"usual"  # any name that is


class SymbolRules:
    """The rules for one payload, which depend on the sh_flags of its sections and its machine (EM_*)."""

    def __init__(self, section_flags: Sequence[int], machine: int) -> None:
        # The kind of a symbol with a usual name, by the section that it is defined in; section 0 is SHN_UNDEF.
        self.by_section = [Kind.NEW if flags & elf.SHF_ALLOC else Kind.NOT_LOADED for flags in section_flags]
        self.by_section[0] = Kind.UNDEFINED
        self._mergeable = [bool(flags & elf.SHF_MERGE) for flags in section_flags]
        self._machine = machine

    def kind(self, shndx: int, name: bytes) -> int:
        """NEW for every symbol that is registered: its address then decides whether it overrides."""
        if shndx >= len(self.by_section):
            return Kind.ABSOLUTE if shndx == elf.SHN_ABS else Kind.COMMON
        kind = self.by_section[shndx]
        if kind != Kind.NEW:
            return kind
        if not name:
            return Kind.UNNAMED
        if self._mergeable[shndx] and name.startswith(b".L"):
            return Kind.MERGE_LOCAL
        if self._machine in _MAPPING and name.startswith(b"$") and _is_mapping_symbol(name, self._machine):
            return Kind.MAPPING
        return Kind.NEW


_MAPPING = {elf.EM_AARCH64: b"dx", elf.EM_ARM: b"adt"}


def _is_mapping_symbol(name: bytes, machine: int) -> bool:
    """Whether an Arm toolchain's marker: $d, $x (arm64), $a, $t (arm32), bare or with .anything.

    xen/arch/arm/arm{32,64}/livepatch.c:arch_livepatch_symbol_ok. $t, which makes Xen refuse the payload
    (arch_livepatch_symbol_deny), is one, too: if it were renamed, Xen would accept it.
    """
    return len(name) >= 2 and name[1] in _MAPPING[machine] and name[2:3] in (b"", b".")
