"""Benchmark lpmangle: medians and ratios of one run, as Markdown tables."""

import argparse
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from benchmarks import catalogs, commands, renaming, report, retrace
from benchmarks.installed import PYTHON, install
from benchmarks.measure import CPU_SECONDS, Contestant, Group, race, size

PARTS = ("renaming", "commands", "catalogs", "retrace", "growth")
ROOM = 3 << 30  # bytes for the files of 1,000,000 symbols
NOTES = """
Medians; the tools take turns. lpmangle is installed from its wheel by uv, with bytecode. Ratios are to the first line
of each input. Time is that of the whole process or script. Peak memory is the resident memory of its largest process;
less than {floor} cannot be measured. Input and output are in {place}. Output: symbols and relocations, as nm and
readelf print them, compared with those of lpmangle. nm loads all linker plugins that are installed, including LLVM's:
with few symbols, these use most of the scripts' memory. LIEF finds a relocation's symbol by name, so with two symbols
of one name it writes a wrong file; it is here only for time and memory. The logs are random, seed {seed}: retrace has
the manifests of all payloads, sed a command for each name of the one payload, c++filt finds no names to replace. A
tool is stopped after {limit} s of processor time.
{versions}."""


def versions() -> dict[str, str]:
    found = {"Python": platform.python_version()} | {name: version(name) for name in ("lpmangle", "click", "lief")}
    for tool in ("objcopy", "llvm-objcopy"):
        if shutil.which(tool):
            words = renaming.shell(f"{tool} --version", Path.cwd()).split()
            found[tool] = next(word for word in words if word[0].isdigit())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="which to run; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure here")
    parser.add_argument(
        "--compare", type=Path, nargs=2, metavar=("OLD", "NEW"), help="show two such files side by side"
    )
    options = parser.parse_args()
    if options.compare:
        print(*report.compare(*options.compare), sep="\n")
        return
    install()

    nothing = Contestant("nothing", ["true"])
    click = Contestant('python -c "import click"', [PYTHON, "-c", "import click"])
    # A disk would decide the race: only lpmangle waits until its output is on the disk.
    memory = Path("/dev/shm")
    in_memory = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
    groups: list[Group] = []
    growth: list[Contestant] = []
    with tempfile.TemporaryDirectory(prefix="lpmangle-bench-", dir=memory if in_memory else None) as scratch:
        run: dict[str, Callable[[Path], list[Group]]] = {
            "renaming": lambda folder: renaming.groups(folder, click, nothing),
            "commands": commands.groups,
            "catalogs": catalogs.groups,
            "retrace": retrace.groups,
        }
        for part, measure in run.items():
            if part in (options.parts or PARTS):
                groups += measure(Path(scratch) / part)
                shutil.rmtree(Path(scratch) / part)
        if "growth" in (options.parts or PARTS):
            growth = commands.growth(Path(scratch) / "growth")
        race([nothing], Path(scratch), 9, warm_up=True)

    print(*report.table(groups), sep="\n")
    if growth:
        print("", *report.per_symbol(growth), sep="\n")
    print(
        NOTES.format(
            floor=size(nothing.memory),
            limit=CPU_SECONDS,
            seed=retrace.SEED,
            place="memory (tmpfs)" if in_memory else "the folder for temporary files",
            versions=", ".join(f"{name} {number}" for name, number in versions().items()),
        )
    )
    if options.json:
        report.write(options.json, versions(), [*groups, *([Group("growth", 0, growth)] if growth else [])])
    if any("retrace" in row.name and row.output == "wrong" for group in groups for row in group.rows):
        sys.exit("lpmangle retrace is wrong")
    if any("objcopy" in row.name and "wrong" in row.output for group in groups for row in group.rows):
        sys.exit("lpmangle and objcopy do not agree")


main()
