"""Rename the symbols of Xen livepatch payloads so that payloads can be loaded side by side.

Whole jobs, as the commands of `lpmangle` do them, on files:

>>> import lpmangle
>>> done = lpmangle.mangle_file("fbab204.livepatch", lpmangle.Options(suffix="name"))
>>> done.status, len(done.plan.renames)
('mangled', 5)
>>> lpmangle.verify_file("fbab204.livepatch").findings
[]
>>> [(entry.name, entry.old_size) for entry in lpmangle.show_file("fbab204.livepatch").inventory.functions]
[(b'xen_extra_version', 12)]
>>> [(manifest, symbol)] = lpmangle.query(["_get_fpu"], ["fbab204.livepatch"]).matches
>>> symbol.name
'x86_emulate.c#_get_fpu_fbab204'
>>> lpmangle.retrace(b"S x86_emulate.c#_get_fpu_fbab204+0x3/0xd [fbab204]", ["fbab204.livepatch"])
b'S x86_emulate.c#_get_fpu+0x3/0xd [fbab204]'
>>> [verdict] = lpmangle.check_files(["617712b.livepatch"], loaded=["fbab204.livepatch"])
>>> verdict.status, verdict.action
('accepted', 'replace')
>>> changes = lpmangle.compare_files("617712b.livepatch", "fbab204.livepatch")
>>> [(change.name, change.verdict.value) for change in changes.functions]
[(b'xen_extra_version', 'changed')]
>>> lpmangle.restore_file("fbab204.livepatch").status
'restored'

`verify_file(path, key=SigningKey.read("key.pub"))` asks whether the signature is valid, too.

Errors are LpmangleErrors, with `message`, `hint`, `path` and the `exit_code` of the command line; all files are then as
they were.
"""

TYPE_CHECKING = False  # typing takes long to load

if TYPE_CHECKING:
    from lpmangle.errors import LpmangleError
    from lpmangle.jobs.check import check_files
    from lpmangle.jobs.compare import compare_files
    from lpmangle.jobs.mangle import mangle_file
    from lpmangle.jobs.query import query
    from lpmangle.jobs.restore import restore_file
    from lpmangle.jobs.show import show_file
    from lpmangle.jobs.verify import verify_file
    from lpmangle.mangle.options import Options
    from lpmangle.trace.retrace import retrace
    from lpmangle.verify.signing_key import SigningKey

__version__ = "0.2.0"
__all__ = [
    "LpmangleError",
    "Options",
    "SigningKey",
    "check_files",
    "compare_files",
    "mangle_file",
    "query",
    "restore_file",
    "retrace",
    "show_file",
    "verify_file",
]

# Loaded when used: the command line imports this first, and should not pay for what it does not use.
_HOMES = {
    "LpmangleError": "lpmangle.errors",
    "Options": "lpmangle.mangle.options",
    "SigningKey": "lpmangle.verify.signing_key",
    "check_files": "lpmangle.jobs.check",
    "compare_files": "lpmangle.jobs.compare",
    "mangle_file": "lpmangle.jobs.mangle",
    "query": "lpmangle.jobs.query",
    "restore_file": "lpmangle.jobs.restore",
    "retrace": "lpmangle.trace.retrace",
    "show_file": "lpmangle.jobs.show",
    "verify_file": "lpmangle.jobs.verify",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module  # a command loads its modules itself

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
