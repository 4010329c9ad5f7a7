"""Benchmark lpmangle: medians and ratios of one run, as a Markdown table."""

import argparse
import compileall
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path

from benchmarks import inputs, retrace
from benchmarks.measure import CPU_SECONDS, LPMANGLE, Contestant, Group, race

INPUT, OUTPUT = "../in.livepatch", "out.livepatch"
# As good as a script gets: each name once, or objcopy refuses; a response file, which takes the '#' in names (after
# --redefine-syms=FILE it begins a comment) and has no limit of length.
LIST = f"""set -e
id=$(readelf -n {INPUT} | awk '/in: / {{ note = $NF }} /Build ID:/ && note == ".note.gnu.build-id" {{ print $3 }}')
nm -p {INPUT} | awk -v id="$id" '$2 ~ /^[bdrt]$/ && !seen[$3]++ {{ print "--redefine-sym=" $3 "=" $3 "_" id }}' >args
"""
# What must be equal in all outputs. Not r_info, which holds the symbol's index: a tool may move symbols.
FACTS = {
    "symbols": f"nm -p {OUTPUT} | sort | sha256sum",
    "relocations": f"""readelf -rW {OUTPUT} | awk '/^[0-9a-f]+ / {{ $2 = ""; print }}' | sort | sha256sum""",
}
ROOM = 3 << 30  # bytes for the files of 1,000,000 symbols
NOTES = """
Medians of {rounds} runs; the tools take turns. Ratios are to the first line of each input. Time is that of the whole
process or script. Peak memory is the resident memory of its largest process; less than {floor} cannot be told. Input
and output are in {place}. Output: symbols and relocations, as nm and readelf print them, compared with those of
lpmangle after the timing. nm loads all linker plugins that are installed, LLVM's too: with few symbols, that is most of
the scripts' memory. LIEF finds a relocation's symbol by name, so where two have the same one it writes a wrong file; it
is here for time and memory only. The logs are random, seed {seed}: retrace has the manifests of all payloads, sed a
command for each name of the one payload, c++filt finds no names of its own. A tool is stopped after {limit} s of
processor time.
{versions}."""


def renamers(arguments: Path) -> list[Contestant]:
    tools = [Contestant("lpmangle, with manifest", [LPMANGLE, "-o", OUTPUT, INPUT])]
    for tool in ("objcopy", "llvm-objcopy"):
        tools.append(Contestant(f"script: nm, awk, {tool}", ["sh", "-c", f"{LIST}{tool} @args {INPUT} {OUTPUT}"]))
        tools.append(Contestant(f"{tool} alone", [tool, f"@{arguments}", INPUT, OUTPUT]))
    script = Path(__file__).with_name("lief_rename.py")
    return [*tools, Contestant("LIEF script", [sys.executable, script, INPUT, OUTPUT])]


def compare(
    title: str, make: Callable[[Path], None], folder: Path, rounds: int, guests: Sequence[Contestant] = ()
) -> Group:
    """Race all renamers on one input, `guests` among them; check what came out."""
    print(f"measuring: {title}", file=sys.stderr)
    (folder / "list").mkdir(parents=True)
    make(folder / "in.livepatch")
    shell(LIST, folder / "list")
    tools = renamers(folder / "list" / "args")
    race([*tools, *guests], folder, rounds, warm_up=rounds > 3)
    check(tools, folder)
    return Group(f"{title}, {size((folder / 'in.livepatch').stat().st_size)}", rounds, tools)


def check(tools: Sequence[Contestant], folder: Path) -> None:
    """Note for each tool in what its output differs from that of the first."""
    if tools[0].failure:
        sys.exit(f"{tools[0].name}: {tools[0].failure}")
    expected = {what: shell(script, folder / tools[0].folder) for what, script in FACTS.items()}
    for tool in tools:
        if not tool.failure:
            wrong = [what for what in FACTS if shell(FACTS[what], folder / tool.folder) != expected[what]]
            tool.output = f"wrong {' and '.join(wrong)}" if wrong else "equal"
    tools[0].output = ""


def shell(script: str, folder: Path) -> str:
    return subprocess.run(["sh", "-c", script], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def table(groups: Sequence[Group]) -> Iterator[str]:
    yield "| Input | Tool | Time | Ratio | Peak memory | Ratio | Output |"
    yield "|---|---|--:|--:|--:|--:|---|"
    for group in groups:
        first = group.rows[0]
        for row in group.rows:
            figures = [""] * 4
            if not row.failure:
                figures = [duration(row.time), f"{row.time / first.time:.2f}"]
                figures += [size(row.memory), f"{row.memory / first.memory:.2f}"]
            cells = [group.title if row is first else "", row.name, *figures, row.failure or row.output]
            yield f"| {' | '.join(cells)} |"


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def size(count: float) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 1 << 20 else f"{count / 1024:.0f} KiB"


def versions() -> dict[str, str]:
    found = {"Python": platform.python_version()} | {name: version(name) for name in ("lpmangle", "click", "lief")}
    for tool in ("objcopy", "llvm-objcopy"):
        if shutil.which(tool):
            words = shell(f"{tool} --version", Path.cwd()).split()
            found[tool] = next(word for word in words if word[0].isdigit())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave the input of 1,000,000 symbols out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure here")
    options = parser.parse_args()
    # As pip installs it; without, PYTHONDONTWRITEBYTECODE or a fresh checkout would measure Python's compiler.
    compileall.compile_dir(Path(__file__).parent.parent / "lpmangle", quiet=1)
    if not LPMANGLE.exists():
        sys.exit("lpmangle is not installed beside this Python: run `make bench`")

    nothing = Contestant("nothing", ["true"])
    click = Contestant('python -c "import click"', [sys.executable, "-c", "import click"])
    show_version = Contestant("lpmangle --version", [LPMANGLE, "--version"])
    # A disk would decide the race: lpmangle alone waits until its output is on it.
    memory = Path("/dev/shm")
    in_memory = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
    with tempfile.TemporaryDirectory(prefix="lpmangle-bench-", dir=memory if in_memory else None) as scratch:
        folder = Path(scratch)
        small = compare(
            "payload of 300 symbols", inputs.payload, folder / "payload", 25, (nothing, click, show_version)
        )
        groups = [small, Group("start-up", small.rounds, [click, show_version, small.rows[0]])]
        for count, rounds in ((100_000, 7), (1_000_000, 3))[: 1 if options.quick else 2]:
            groups.append(compare(f"{count:,} symbols", partial(inputs.many, count), folder / str(count), rounds))
        groups += retrace.groups(folder / "retrace")

    print(*table(groups), sep="\n")
    print(
        NOTES.format(
            rounds=", ".join(str(group.rounds) for group in groups),
            floor=size(nothing.memory),
            limit=CPU_SECONDS,
            seed=retrace.SEED,
            place="memory (tmpfs)" if in_memory else "the folder for temporary files",
            versions=", ".join(f"{name} {number}" for name, number in versions().items()),
        )
    )
    if options.json:
        report = [group._asdict() | {"rows": [asdict(row) for row in group.rows]} for group in groups]
        options.json.write_text(json.dumps({"versions": versions(), "groups": report}, indent=2, default=str) + "\n")
    if any("retrace" in row.name and row.output != "right" for group in groups for row in group.rows):
        sys.exit("lpmangle retrace is wrong")
    if any("objcopy" in row.name and "wrong" in row.output for group in groups for row in group.rows):
        sys.exit("lpmangle and objcopy do not agree")


main()
