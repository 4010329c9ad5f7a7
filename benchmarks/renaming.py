"""The main job against other ways to rename the same symbols."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks import inputs
from benchmarks.installed import LPMANGLE, PYTHON
from benchmarks.measure import Contestant, Group, race, size

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
ROUNDS = 25
LARGE = ((100_000, 7), (1_000_000, 3))  # symbols, rounds


def groups(folder: Path, click: Contestant, nothing: Contestant) -> list[Group]:
    """A payload of real size, the start-up, and large inputs."""
    show_version = Contestant("lpmangle --version", [LPMANGLE, "--version"])
    python = Contestant("python -c pass", [PYTHON, "-c", "pass"])
    small = _compare("payload of 60 symbols", partial(inputs.payload, fraction=5), folder / "small", ROUNDS)
    usual = _compare(
        "payload of 300 symbols", inputs.payload, folder / "payload", ROUNDS, (nothing, python, click, show_version)
    )
    found = [small, usual, Group("start-up", ROUNDS, [python, click, show_version, usual.rows[0]])]
    for count, rounds in LARGE:
        found.append(_compare(f"{count:,} symbols", partial(inputs.many, count), folder / str(count), rounds))
    return found


def _renamers(arguments: Path) -> list[Contestant]:
    tools = [Contestant("lpmangle, with manifest", [LPMANGLE, "-o", OUTPUT, INPUT])]
    for tool in ("objcopy", "llvm-objcopy"):
        tools.append(Contestant(f"script: nm, awk, {tool}", ["sh", "-c", f"{LIST}{tool} @args {INPUT} {OUTPUT}"]))
        tools.append(Contestant(f"{tool} alone", [tool, f"@{arguments}", INPUT, OUTPUT]))
    script = Path(__file__).with_name("lief_rename.py")
    return [*tools, Contestant("LIEF script", [PYTHON, script, INPUT, OUTPUT])]


def _compare(
    title: str, make: Callable[[Path], None], folder: Path, rounds: int, guests: Sequence[Contestant] = ()
) -> Group:
    """Race all renamers on one input, `guests` among them; check what came out."""
    print(f"measuring: {title}", file=sys.stderr)
    (folder / "list").mkdir(parents=True)
    make(folder / "in.livepatch")
    shell(LIST, folder / "list")
    tools = _renamers(folder / "list" / "args")
    race([*tools, *guests], folder, rounds, warm_up=rounds > 3)
    _check(tools, folder)
    return Group(f"{title}, {size((folder / 'in.livepatch').stat().st_size)}", rounds, tools)


def _check(tools: Sequence[Contestant], folder: Path) -> None:
    """Note for each tool in what its output differs from that of the first."""
    expected = {what: shell(script, folder / tools[0].folder) for what, script in FACTS.items()}
    for tool in tools:
        if not tool.failure:
            wrong = [what for what in FACTS if shell(FACTS[what], folder / tool.folder) != expected[what]]
            tool.output = f"wrong {' and '.join(wrong)}" if wrong else "equal"
    tools[0].output = ""


def shell(script: str, folder: Path) -> str:
    return subprocess.run(["sh", "-c", script], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
