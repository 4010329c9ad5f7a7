"""What differs between the machines that Xen runs on, as data."""

from struct import Struct
from typing import NamedTuple

from lpmangle import elf
from lpmangle.xen.abi import EXPECTATION_SIZE, LIVEPATCH_PAYLOAD_VERSION, func_size


class Machine(NamedTuple):
    """One machine: what arch_livepatch_verify_elf requires, and the sizes of Xen's structures on it."""

    e_machine: int
    is_64: bool
    layout: elf.Layout
    func: Struct  # struct livepatch_func up to `version`
    distance: int  # ARCH_LIVEPATCH_RANGE: how far a jump reaches
    jump: int  # ARCH_PATCH_INSN_SIZE
    bug_frame: int  # sizeof(struct bug_frame)
    alternative: int  # sizeof(struct alt_instr)
    exception: int | None  # sizeof(struct exception_table_entry); None without CONFIG_HAS_EX_TABLE

    @property
    def name(self) -> str:
        return elf.EM_NAMES[self.e_machine]

    @property
    def pointer(self) -> int:
        return 8 if self.is_64 else 4

    @property
    def func_size(self) -> int:
        """sizeof(struct livepatch_func)."""
        return func_size(self.pointer, LIVEPATCH_PAYLOAD_VERSION)

    @property
    def expect_at(self) -> int:
        """Offset of the expectation in it."""
        return self.func_size - EXPECTATION_SIZE

    @property
    def mask(self) -> int:
        return (1 << (8 * self.pointer)) - 1


_LAYOUT_64, _LAYOUT_32 = elf.Layout(True, False), elf.Layout(False, False)
_FUNC_64, _FUNC_32 = Struct("<QQQIIB"), Struct("<IIIIIB")

X86_64 = Machine(
    elf.EM_X86_64, True, _LAYOUT_64, _FUNC_64, 2 << 30, 5, 8, 14, 8
)  # fmt: skip
ARM64 = Machine(
    elf.EM_AARCH64, True, _LAYOUT_64, _FUNC_64, 128 << 20, 4, 16, 12, None
)  # fmt: skip
ARM32 = Machine(
    elf.EM_ARM, False, _LAYOUT_32, _FUNC_32, 32 << 20, 4, 16, 12, None
)  # fmt: skip
MACHINES = {machine.e_machine: machine for machine in (X86_64, ARM64, ARM32)}

ALTERNATIVE_CALL_SIZE = 4  # sizeof(struct alt_call): the offset of the call from here

# What a function of x86_64 may begin with; the second form is what sealing at boot makes of one that nothing jumps to
# (xen/arch/x86/include/asm/endbr.h).
ENDBR64 = b"\xf3\x0f\x1e\xfa"
ENDBR64_FORMS = (ENDBR64, b"\x66\x0f\x1f\x01")


def machine_of(payload: bytes) -> Machine:
    """The machine that a payload says it is for; x86_64 if Xen does not run on it."""
    return MACHINES.get(int.from_bytes(payload[18:20], "little"), X86_64)
