"""What was done with one payload, and what people should know about it."""

from lpmangle import elf
from lpmangle.errors import counted, listed
from lpmangle.mangle.plan import Outcome, Plan
from lpmangle.system.light import Iterator
from lpmangle.system.records import TYPE_CHECKING
from lpmangle.xen.abi import FUNCS_SECTION, HOOKS_PREFIX, LIVEPATCH_MAX_SIZE
from lpmangle.xen.payload import Payload

if TYPE_CHECKING:
    from lpmangle.mangle.stack import Stack

# A warning names at most this many symbols; --dry-run lists all.
MOST_NAMES = 20


class Result:
    """What was done with one payload. `warnings` say what can still go wrong.

    `place` is the output as it was given, `output` the file that this path leads to, and `stem` the name by which the
    payload is uploaded: that file's name without its ending. `restored`: it was mangled before, in another way, and was
    restored first.
    """

    def __init__(
        self,
        path: str,
        place: str,
        output: str,
        stem: str,
        manifest_path: str,
        payload: Payload,
        plan: Plan,
        stack: "Stack | None",
    ) -> None:
        self.path = path
        self.place = place
        self.output = output
        self.stem = stem
        self.manifest_path = manifest_path
        self.payload = payload
        self.view = payload.elf
        self.plan = plan
        self.stack = stack
        self.source: bytes | None = None  # content of the file that --source names
        self.warnings: list[str] = []
        self.unchanged = False
        self.restored = False

    @property
    def status(self) -> str:
        """`mangled`, `already mangled`, `nothing to rename`, or `unchanged`: mangled before from the same input.

        `would be mangled` with --dry-run.
        """
        if self.plan.already:
            return "already mangled"
        if self.unchanged:
            return "unchanged"
        if not self.plan.changes:
            return "nothing to rename"
        return "would be mangled" if self.plan.options.dry_run else "mangled"

    def name(self, index: int) -> bytes:
        """The name of symbol number `index` in the input; only the start of one that is too long to be renamed."""
        at = self.view.strtab.offset + self.view.symbol(index).st_name
        end = self.view.data.find(b"\0", at, at + elf.MAX_NAME_BYTES)
        return bytes(self.view.data[at : end if end >= 0 else at + elf.MAX_NAME_BYTES])


def add_warnings(result: Result, size: int) -> None:
    """Add warnings: what can still go wrong with the payload, which now has `size` bytes."""
    plan, warnings = result.plan, result.warnings
    if size > LIVEPATCH_MAX_SIZE:
        warnings.append(
            f"has {size} bytes, Xen refuses more than {LIVEPATCH_MAX_SIZE}; "
            "strip -g removes debug information (run it before lpmangle)"
        )
    if not any(s.name == FUNCS_SECTION or s.name.startswith(HOOKS_PREFIX) for s in result.view.sections):
        warnings.append(f"has no {FUNCS_SECTION} and no {HOOKS_PREFIX}*: Xen will find nothing to patch")
    for outcome, one, several, remedy in (
        (Outcome.GLOBAL, "GLOBAL or WEAK", "GLOBAL or WEAK", "--scope new renames these too"),
        (
            Outcome.GROUP_SIGNATURE,
            "signature of a section group",
            "signatures of section groups",
            "link with ld -r --force-group-allocation",
        ),
    ):
        if indices := plan.indices(outcome):
            names = listed([elf.text(result.name(index)) for index in indices[:MOST_NAMES]], len(indices))
            symbols = counted(
                len(indices),
                f"new symbol keeps its name ({one}) and clashes with the same name",
                f"new symbols keep their names ({several}) and clash with the same names",
            )
            warnings.append(f"{symbols} of any other payload: {names}; {remedy}")
    warnings += [f"no new symbol matches {glob!r}" for glob in plan.unmatched]
    if result.stack:
        warnings += result.stack.warnings()
        if result.view.machine != elf.EM_X86_64:
            warnings += _deadly_on_arm(result.payload, result.stack)
    elif not plan.already:
        warnings += _missing_stack_warnings(result.payload)


def _deadly_on_arm(payload: Payload, stack: "Stack") -> Iterator[str]:
    """arch_livepatch_apply on Arm writes into a second mapping of the hypervisor, which has no payloads."""
    for name in dict.fromkeys(entry.name for entry in payload.looked_up):
        if layer := stack.owner(name):
            yield (
                f"replaces {elf.text(name)}, a function of {layer.payload}: Xen on Arm dies when this is applied; "
                "replace the hypervisor's function, with a cumulative payload"
            )


def _missing_stack_warnings(payload: Payload) -> Iterator[str]:
    """A payload that is put on another one, by its notes, probably borrows names from it."""
    depends, xen_depends = payload.depends, payload.xen_depends
    if depends and xen_depends and depends != xen_depends:
        yield (
            f"is put on the payload with build-id {depends.hex()}; if that payload is mangled, what this one borrows "
            "from it has another name there: use --against PAYLOAD"
        )
