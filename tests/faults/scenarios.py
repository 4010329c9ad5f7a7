"""The commands that write files, each in the situations that matter for it."""

from __future__ import annotations

import shutil
from pathlib import Path

from builds import ROOT, make_tree, options, run, write_patch
from older_catalog import write_older

from faults.harness import EIO, FAULTS, FULL, KILL, Scenario

EXAMPLES = ROOT / "examples"
OLD, NEW = "617712b.livepatch", "fbab204.livepatch"


def _examples(folder: Path) -> None:
    for name in (OLD, NEW):
        shutil.copy(EXAMPLES / name, folder)


def older_output(folder: Path) -> None:
    """out.livepatch is what was made of the older payload; it and its manifest are not for everybody."""
    _examples(folder)
    run(["lpmangle", "-o", "out.livepatch", OLD], folder)
    for name in OUT:
        (folder / name).chmod(0o640)


def _older_manifest(folder: Path) -> None:
    """A build has just replaced a mangled payload by its successor; the manifest is still that of the former."""
    older_output(folder)
    shutil.copy(folder / NEW, folder / "out.livepatch")


def _older_output_elsewhere(folder: Path) -> None:
    _examples(folder)
    for name in ("manifests", "rules"):
        (folder / name).mkdir()
    options = ("--manifest", "manifests/m.json", "--depfile", "rules/out.d")
    run(["lpmangle", *options, "-o", "out.livepatch", OLD], folder)


def _mangled(folder: Path) -> None:
    _examples(folder)
    shutil.copy(folder / NEW, folder / "original.livepatch")
    run(["lpmangle", NEW], folder)


def _linked(folder: Path) -> None:
    _examples(folder)
    (folder / "links").mkdir()
    (folder / "links" / "p.livepatch").symlink_to(f"../{NEW}")


def _hard_links(folder: Path) -> None:
    _examples(folder)
    (folder / "other.livepatch").hardlink_to(folder / NEW)


def _manifests(folder: Path) -> None:
    _examples(folder)
    run(["lpmangle", OLD, NEW], folder)


def _catalog(folder: Path) -> None:
    _manifests(folder)
    run(["lpmangle", "catalog", "add", "c.db", OLD], folder)


def _catalog_of_version_1(folder: Path) -> None:
    _manifests(folder)
    write_older(folder / "c.db", [(folder / f"{OLD}.manifest.json").read_bytes()])


def _whole_catalog(folder: Path) -> None:
    _manifests(folder)
    run(["lpmangle", "catalog", "add", "c.db", OLD, NEW], folder)


def _two_catalogs(folder: Path) -> None:
    _catalog(folder)
    run(["lpmangle", "catalog", "add", "other.db", NEW], folder)


def _built(folder: Path) -> None:
    """A tree that livepatch-build has built once; it makes the same again. An older manifest is there."""
    make_tree(folder / "tree")
    (folder / "config").touch()
    write_patch(folder / "fix.patch", "-older")
    run(["lpmangle", "build", "--", "livepatch-build", *options()], folder)
    write_patch(folder / "fix.patch")
    run(["livepatch-build", "--skip=build", *options()], folder)


def _result(folder: Path) -> None:
    """A build adds to a catalog that has an older manifest."""
    _catalog(folder)
    shutil.copy(EXAMPLES / NEW, folder)
    (folder / f"{NEW}.manifest.json").unlink()
    (folder / "manifests").mkdir()


def _pair(payload: str) -> tuple[str, ...]:
    return payload, f"{payload}.manifest.json"


OUT = _pair("out.livepatch")
# Build-ids of both.
_EXPORTED = [
    f"out/{name}.manifest.json"
    for name in ("617712b-a46b5c175e2839ad0fcd31212d3715bde54b2c28", "fbab204-d967c17f6518371e26e591728fd30fa3f292977c")
]
READERS = (("verify", "out.livepatch"), ("query", "_get_fpu", "-m", "out.livepatch"), ("query", "_get_fpu", "-m", "."))

SCENARIOS = (
    Scenario("in-place", _examples, (NEW,), (_pair(NEW),)),
    Scenario("in-place-embed", _examples, ("--embed", NEW), (_pair(NEW),)),
    Scenario("in-place-older-manifest", _older_manifest, ("out.livepatch",), (OUT,)),
    Scenario("through-a-link", _linked, ("links/p.livepatch",), (_pair(NEW),)),
    Scenario("hard-links", _hard_links, (NEW, "other.livepatch"), ((*_pair(NEW), "other.livepatch"),)),
    Scenario("output", _examples, ("-o", "out.livepatch", NEW), (OUT,), {"out.livepatch": (NEW,)}),
    Scenario(
        "older-output", older_output, ("-o", "out.livepatch", NEW), (OUT,), {"out.livepatch": (OLD, NEW)}, READERS
    ),
    Scenario(
        "older-output-no-links",
        older_output,
        ("-o", "out.livepatch", NEW),
        (OUT,),
        {"out.livepatch": (OLD, NEW)},
        READERS,
        no_links=True,
    ),
    Scenario(
        "older-output-embed",
        older_output,
        ("--embed", "-o", "out.livepatch", NEW),
        (OUT,),
        {"out.livepatch": (OLD, NEW)},
        READERS,
    ),
    Scenario(
        "older-output-elsewhere",
        _older_output_elsewhere,
        ("--manifest", "manifests/m.json", "--depfile", "rules/out.d", "-o", "out.livepatch", NEW),
        (("out.livepatch", "manifests/m.json", "rules/out.d"),),
        readers=(("verify", "out.livepatch", "-m", "manifests/m.json"),),
    ),
    Scenario("again", _mangled, ("--suffix", "name", NEW), (_pair(NEW),), {NEW: ("original.livepatch",)}),
    Scenario("batch", _examples, (OLD, NEW), (_pair(OLD), _pair(NEW))),
    Scenario("restore", _mangled, ("restore", NEW), ((NEW,),), {NEW: ("original.livepatch",)}),
    Scenario("restore-output", _mangled, ("restore", "-o", "back", NEW), (("back",),), {NEW: ("original.livepatch",)}),
    Scenario("catalog", _manifests, ("catalog", "add", "c.db", OLD, NEW), (("c.db",),)),
    Scenario("catalog-no-links", _manifests, ("catalog", "add", "c.db", OLD, NEW), (("c.db",),), no_links=True),
    Scenario(
        "older-catalog",
        _catalog,
        ("catalog", "add", "c.db", NEW),
        (("c.db",),),
        readers=(("catalog", "list", "c.db"), ("query", "_get_fpu", "-m", "c.db")),
    ),
    Scenario(
        "catalog-of-version-1",
        _catalog_of_version_1,
        ("catalog", "add", "c.db", NEW),
        (("c.db",),),
        readers=(("catalog", "list", "c.db"), ("query", "_get_fpu", "-m", "c.db")),
    ),
    Scenario("catalog-merge", _two_catalogs, ("catalog", "merge", "new.db", "c.db", "other.db"), (("new.db",),)),
    Scenario(
        "older-catalog-merge",
        _two_catalogs,
        ("catalog", "merge", "c.db", "other.db"),
        (("c.db",),),
        readers=(("catalog", "list", "c.db"),),
    ),
    Scenario("export", _whole_catalog, ("catalog", "export", "c.db", "-o", "out"), ((_EXPORTED[1], _EXPORTED[0]),)),
    Scenario(
        "build",
        _built,
        ("build", "--", "livepatch-build", "--skip=build", *options()),
        (_pair("out/fix.livepatch"),),
    ),
    Scenario(
        "build-catalog",
        _result,
        ("build", "--result", NEW, "--manifest", "manifests/m.json", "--catalog", "c.db", "--", "true"),
        ((NEW, "manifests/m.json", "c.db"),),
        readers=(("catalog", "list", "c.db"),),
    ),
    Scenario("check", _examples, ("check", "--junit", "r.xml", "--html", "r.html", OLD), (("r.html", "r.xml"),)),
    Scenario("compare", _examples, ("compare", "--html", "c.html", OLD, NEW), (("c.html",),)),
)

# The scenarios that differ most, for `make test`, and the faults to try.
IN_MAKE_TEST = {
    "in-place": FAULTS,
    "older-output": FAULTS,
    "older-output-no-links": (KILL,),
    "older-output-elsewhere": FAULTS,
    "again": FAULTS,
    "batch": FAULTS,
    "hard-links": FAULTS,
    "restore": FAULTS,
    "catalog": (KILL,),
    "older-catalog": FAULTS,
    "catalog-of-version-1": (KILL, EIO),
    "older-catalog-merge": (KILL, EIO),
    "export": (KILL, EIO, FULL),
    "build-catalog": (KILL, EIO),
    "check": (KILL, EIO),
    "build": (KILL,),  # what is built is mangled as in place, and each run builds it
}
