"""The hypervisor as a payload meets it: its own symbols and code, and the payloads that are loaded."""

from collections.abc import Iterable
from functools import cached_property

from lpmangle import elf
from lpmangle.errors import ElfError, PayloadError
from lpmangle.loader.image import Function, Image
from lpmangle.loader.profile import Profile
from lpmangle.mangle.mark import find
from lpmangle.xen.abi import HOOKS_PREFIX, MAX_NAME, PAGE_SIZE
from lpmangle.xen.hypervisor import XEN_VIRT_START, Hypervisor
from lpmangle.xen.machines import ARM64, X86_64, Machine
from lpmangle.xen.payload import Payload
from lpmangle.xen.variables import Variable, variables
from lpmangle.xen.versions import NEWEST, Version, nearest

# Where payloads are mapped on x86 if no table says where the hypervisor ends.
_BEHIND_XEN = XEN_VIRT_START + 0x600000
_MOST_LIKE = 3  # this many names that may have been meant
# vm_init_type uses the first pages of the area for its bitmap, with a bit for each page: of 1 GiB on x86, 2 MiB on Arm.
_BITMAP_PAGES_X86, _BITMAP_PAGES_ARM = 8, 1


class Loaded:
    """A payload that is loaded: what later payloads can meet. `symbols` are its new ones, cut to 126 bytes."""

    def __init__(self, name: str, image: Image) -> None:
        self.name = name
        self.data = image.data
        self.build_id = image.build_id
        self.depends = image.depends
        self.xen_depends = image.xen_depends
        self.fatal_hook = image.fatal_hook
        self.base = image.base
        self.memory = image.memory
        self.vetoing = image.vetoing
        self.hooks = [name for name in image.names if name.startswith(HOOKS_PREFIX.encode())]
        self.functions = image.functions
        self.functions_writable = image.functions_writable
        self.symbols: dict[bytes, int] = {}
        for index in image.new:
            # If a payload has two equal names, look-ups find the first.
            self.symbols.setdefault(image.symbols[index][0][:MAX_NAME], image.values[index])

    @cached_property
    def variables(self) -> list[Variable]:
        """Its variables, by original names as far as they can be derived from its mark."""
        try:
            payload = Payload.parse(self.data)
            mark = find(payload.elf)
            return variables(payload, mark.original if mark else bytes)
        except (ElfError, PayloadError):
            return []  # Xen accepts files that lpmangle does not

    def replaces(self, address: int, state: "State") -> bool:
        """Whether applying it puts a jump at `address`."""
        return any(address == self.old_address(function, state) for function in self.functions)

    def old_address(self, function: Function, state: "State") -> int | None:
        """The address of the function that `function` replaces; None if it is not known."""
        return function.old_addr or state.find(self.string(function.name))

    def holds(self, address: int) -> bool:
        """Whether `address` is in the payload's memory."""
        return 0 <= address - self.base < len(self.memory)

    def string(self, address: int) -> bytes:
        """The C string at an address of the payload's memory."""
        if not self.holds(address):
            return b""
        start = address - self.base
        return bytes(self.memory[start : start + elf.MAX_NAME_BYTES].partition(b"\0")[0])


class State:
    """A hypervisor with payloads: `loaded` in the order of their uploads, `applied` in that of applying.

    `xen` is None if nothing is known about the hypervisor but its version.
    """

    def __init__(
        self,
        xen: Hypervisor | None = None,
        version: Version | None = None,
        loaded: Iterable[Loaded] = (),
        applied: Iterable[Loaded] = (),
        allocator: "Allocator | None" = None,
        vendor: str = "",
    ) -> None:
        self.xen = xen
        # The version that was given; the rules may be those of another one, the nearest that is known.
        self.version = version or (xen and xen.version) or None
        self.profile = Profile(nearest(self.version or NEWEST), vendor)
        self.machine = xen.machine if xen else None  # if not known, that of the first payload
        self.allocator = allocator
        self.loaded = list(loaded)
        self.applied = list(applied)
        self.asked: set[bytes] | None = None  # if set: collects every name that is looked up

    def copy(self) -> "State":
        state = State(self.xen, self.version, self.loaded, self.applied, self.allocator, self.profile.vendor)
        state.machine = self.machine
        return state

    def find(self, name: bytes) -> int | None:
        """symbols_lookup_by_name, then livepatch_symbols_lookup_by_name: the address of `name`, not 0.

        Payloads keep 126 bytes of a name, so a longer one is not found there.
        """
        if self.asked is not None:
            self.asked.add(name)
        if self.xen and name and (address := self.xen.symbols.get(name)):
            return address
        for payload in self.loaded:
            if address := payload.symbols.get(name):
                return address
        return None

    def holder(self, name: bytes) -> str | None:
        """Who already has a new symbol of that name, in our words; None if nobody (build_symbol_table)."""
        if self.asked is not None:
            self.asked.add(name)
        if self.xen and name in self.xen.symbols:
            return "the hypervisor"
        return next((payload.name for payload in self.loaded if name in payload.symbols), None)

    def read(self, address: int, size: int) -> bytes | None:
        """At most `size` bytes of memory, the hypervisor's or a payload's; empty if unmapped, None if unknown."""
        for payload in self.loaded:
            if payload.holds(address):
                start = address - payload.base
                return bytes(payload.memory[start : start + size])
        if self.xen and address in self.xen.init:
            return b""  # unmapped after boot
        return self.xen.read(address, size) if self.xen else None

    def like(self, name: bytes) -> list[bytes]:
        """Names that can be found, and may have been meant by `name`, which cannot."""
        if not name:
            return []
        loaded = [other for payload in self.loaded for other in payload.symbols if other.startswith(name + b"_")]
        return [*loaded, *(self.xen.lookalikes.like(name) if self.xen else [])][:_MOST_LIKE]

    def free_address(self, pages: int, machine: Machine) -> int:
        """Where `pages` pages are mapped: in the first gap, with a free page before it (xen/common/vmap.c:vm_alloc)."""
        if machine is X86_64:
            end = self.xen.end if self.xen else None
            at = (_BEHIND_XEN if end is None else _round_up(end)) + (_BITMAP_PAGES_X86 + 1) * PAGE_SIZE
        else:
            area = self.profile.arm64_payloads if machine is ARM64 else self.profile.arm32_payloads
            at = area + (_BITMAP_PAGES_ARM + 1) * PAGE_SIZE
        if self.allocator:
            return self.allocator.take(at, pages)
        for start, size in sorted((payload.base, len(payload.memory)) for payload in self.loaded):
            if at + pages * PAGE_SIZE < start:
                break
            at = start + size + PAGE_SIZE
        return at


class Allocator:
    """Gives every payload its own memory, even those that are never loaded together."""

    AREA = 512 << 20

    def __init__(self) -> None:
        self._used = 0

    def take(self, base: int, pages: int) -> int:
        start = self._used
        self._used = (start + (pages + 1) * PAGE_SIZE) % self.AREA
        return base + start


def _round_up(address: int) -> int:
    return (address + PAGE_SIZE - 1) & -PAGE_SIZE
