"""All other commands, each compared with what one would use without it."""

import random
import subprocess
import sys
from pathlib import Path

from benchmarks import inputs
from benchmarks.installed import LPMANGLE
from benchmarks.measure import Contestant, Group, race

SEED = 5
ROUNDS = 15
PAYLOADS = 200
HOSTS, LOADED, EACH = 10_000, 50, 5
LARGE, LARGE_BYTES = 100, 1_900_000  # Xen takes 2 MiB
GROWTH = {1: 15, 1_000: 15, 10_000: 9, 100_000: 5, 1_000_000: 3}  # symbols -> rounds
# As benchmarks.renaming: each name once, in a response file.
RENAME = """id=$(readelf -n $p | awk '/in: / { note = $NF } /Build ID:/ && note == ".note.gnu.build-id" { print $3 }')
nm -p $p | awk -v id="$id" '$2 ~ /^[bdrt]$/ && !seen[$3]++ { print "--redefine-sym=" $3 "=" $3 "_" id }' >args
objcopy @args $p out/${p##*/}
"""


def groups(folder: Path) -> list[Group]:
    """One group for each command but retrace."""
    folder.mkdir()
    rng = random.Random(SEED)
    payload, manifest = folder / "p.livepatch", "../m.livepatch.manifest.json"
    inputs.payload(payload)
    run: list[str | Path] = [LPMANGLE, "-q", "-o", folder / "m.livepatch", payload]
    subprocess.run(run, check=True, stderr=subprocess.DEVNULL)
    back: list[str | Path] = [LPMANGLE, "query", "*", "-m", folder / "m.livepatch", "--format", "objcopy"]
    (folder / "back").write_bytes(subprocess.run(back, check=True, stdout=subprocess.PIPE).stdout)
    name = "hvm.c#new_function_4"
    listing = subprocess.run(["nm", "-p", payload], check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [f"{0xFFFF82D040200000 + at:x} T {line.split()[-1]}\n" for at, line in enumerate(listing.splitlines())]
    (folder / "xensyms").write_text("".join(lines))
    return [
        _batch(folder / "batch"),
        _race(
            "query, one manifest",
            folder,
            Contestant("lpmangle query", [LPMANGLE, "query", name, "-m", manifest]),
            Contestant("grep", ["grep", "-F", name, manifest]),
        ),
        _race(
            "restore",
            folder,
            Contestant("lpmangle restore", [LPMANGLE, "restore", "-m", manifest, "-o", "o", "../m.livepatch"]),
            Contestant("objcopy, names given", ["objcopy", "@../back", "../m.livepatch", "o"]),
        ),
        _race(
            "verify",
            folder,
            Contestant("lpmangle verify", [LPMANGLE, "verify", "--original", "../p.livepatch", "../m.livepatch"]),
            Contestant(
                "readelf of both, diff",
                _shell("readelf -aW ../p.livepatch >a; readelf -aW ../m.livepatch >b; diff a b >c || [ -s c ]"),
            ),
        ),
        _race(
            "check",
            folder,
            Contestant("lpmangle check", _shell(f"{LPMANGLE} check --xen ../xensyms ../m.livepatch || [ $? = 1 ]")),
            Contestant("readelf -aW", ["readelf", "-aW", "../m.livepatch"]),
        ),
        _race(
            "manifest inside",
            folder,
            Contestant("lpmangle --embed", [LPMANGLE, "-q", "--embed", "-o", "o", "../p.livepatch"]),
            Contestant(
                "script: nm, awk, objcopy --add-section",
                _shell("mkdir out; p=../p.livepatch\n" + RENAME.replace("@args", "--add-section .debug_x=args @args")),
            ),
        ),
        _race(
            "build",
            folder,
            Contestant(
                "lpmangle build -- cp",
                [LPMANGLE, "build", "-q", "--result", "o.livepatch", "--", "cp", "../p.livepatch", "o.livepatch"],
            ),
            Contestant("cp; lpmangle", _shell(f"cp ../p.livepatch o.livepatch; {LPMANGLE} -q o.livepatch")),
        ),
        _with_debug_information(folder / "debug"),
        _check_hosts(folder / "hosts", rng),
        _check_large(folder / "large"),
    ]


def growth(folder: Path) -> list[Contestant]:
    """The same command on more and more symbols; the first row has next to none."""
    folder.mkdir()
    rows = []
    for count, rounds in GROWTH.items():
        inputs.many(count, folder / f"{count}.livepatch")
        row = Contestant(f"{count:,} symbols", [LPMANGLE, "-q", "-o", "o", f"../{count}.livepatch"], units=count)
        print(f"measuring: {row.name}", file=sys.stderr)
        race([row], folder, rounds, warm_up=True)
        rows.append(row)
    return rows


def _with_debug_information(folder: Path) -> Group:
    """A payload of more than 3 MiB, most of it DWARF."""
    folder.mkdir()
    inputs.debug(folder / "p.livepatch", 3 << 20)
    size = (folder / "p.livepatch").stat().st_size
    return _race(
        f"payload with debug information, {size / 2**20:.1f} MiB",
        folder,
        Contestant("lpmangle, with manifest", [LPMANGLE, "-q", "-o", "o", "../p.livepatch"]),
        Contestant("script: nm, awk, objcopy", _shell("mkdir out; p=../p.livepatch\n" + RENAME)),
    )


def _check_hosts(folder: Path, rng: random.Random) -> Group:
    """Will each of many hosts take a payload? Each has some of the same few loaded."""
    folder.mkdir()
    inputs.payloads(folder, LOADED + 1)
    subprocess.run([LPMANGLE, "-q", *folder.glob("p*.livepatch")], check=True)
    new, *loaded = sorted(map(str, folder.glob("p*.livepatch")))
    hosts = ["".join(f"{path}\n" for path in rng.sample(loaded, EACH)) for _ in range(HOSTS)]
    (folder / "stacks").write_text("\n".join(hosts))
    command = f"{LPMANGLE} check --xen ../../xensyms --stack ../stacks {new} || [ $? = 1 ]"
    title = f"{HOSTS:,} hosts with {EACH} of {LOADED} payloads"
    return _race(title, folder, Contestant("lpmangle check --stack", _shell(command)), rounds=5)


def _check_large(folder: Path) -> Group:
    """As many payloads in one call as it takes to see whether memory grows with them."""
    folder.mkdir()
    inputs.payloads(folder, LARGE, padding=LARGE_BYTES)
    subprocess.run([LPMANGLE, "-q", *folder.glob("p*.livepatch")], check=True)
    command = f"{LPMANGLE} check --xen ../../xensyms ../p*.livepatch || [ $? = 1 ]"
    size = next(folder.glob("p*.livepatch")).stat().st_size
    title = f"{LARGE} payloads of {size / 2**20:.1f} MiB"
    return _race(title, folder, Contestant("lpmangle check", _shell(command)), rounds=3)


def _batch(folder: Path) -> Group:
    folder.mkdir()
    inputs.payloads(folder, PAYLOADS)
    one = Contestant(f"lpmangle, {PAYLOADS} at once", _shell(f"mkdir out; {LPMANGLE} -q -o out ../p*.livepatch"))
    two = Contestant("lpmangle -j 2", _shell(f"mkdir out; {LPMANGLE} -q -j 2 -o out ../p*.livepatch"))
    loop = Contestant("loop: nm, awk, objcopy", _shell(f"mkdir out\nfor p in ../p*.livepatch; do\n{RENAME}done"))
    return _race(f"{PAYLOADS} payloads of 300 symbols", folder, one, two, loop, rounds=3)


def _race(title: str, folder: Path, *rows: Contestant, rounds: int = ROUNDS) -> Group:
    print(f"measuring: {title}", file=sys.stderr)
    race(rows, folder, rounds, warm_up=True)
    return Group(title, rounds, list(rows))


def _shell(script: str) -> list[str | Path]:
    return ["sh", "-ec", script]
