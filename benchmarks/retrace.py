"""retrace against c++filt, which replaces names in a stream as well, and a sed script of the same replacements.

The log looks like a console log: one line in ten holds a mangled name. All read the same bytes. c++filt knows none of
these names; a log of as many C++ names takes it the same time. A sed script of more than the names of one payload would
run for minutes.
"""

import hashlib
import json
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import inputs
from benchmarks.installed import LPMANGLE
from benchmarks.measure import Contestant, Group, race

SEED = 5
LOG_BYTES = 100_000_000
PAYLOADS, SYMBOLS = 1_000, 100
MATCHING = 0.1
REPEATED = 100  # the log of 100 MB, for one of 10 GB
ROUNDS = 5
PLACES = 10_000
DEBUG_BYTES = 1 << 20  # of the payload that these are in
WORDS = ("check", "domain", "emulate", "fpu", "frame", "get", "grant", "hvm", "irq", "map", "page", "put", "vmx", "vpt")

Names = dict[str, str]  # new name -> original


def groups(folder: Path) -> list[Group]:
    """Logs with names of one payload, of 20, and of all, with the manifests of all payloads."""
    print(f"measuring: retrace, seed {SEED}", file=sys.stderr)
    rng = random.Random(SEED)
    manifests = folder / "manifests"
    manifests.mkdir(parents=True)
    payloads = [_payload(manifests / f"p{number}.livepatch.manifest.json", rng) for number in range(PAYLOADS)]
    one, title = payloads[0], f"log of 100 MB, 10 % of lines with names of {{}} of {PAYLOADS:,} payloads"
    (folder / "one.sed").write_text("".join(f"s/{re.escape(new)}/{old}/g\n" for new, old in one.items()))
    sed = Contestant(f"sed, {SYMBOLS} s commands", ["env", "LC_ALL=C", "sed", "-f", "../../one.sed", "../log"])
    return [
        _race(title.format("1"), folder / "1", [one], rng, [sed]),
        _race(title.format("20"), folder / "20", payloads[:20], rng),
        _race(title.format("all"), folder / "all", payloads, rng),
        _long(folder / "long", payloads[:20], rng),
        _source_lines(folder / "lines", rng),
    ]


def _long(folder: Path, payloads: Sequence[Names], rng: random.Random) -> Group:
    """The log of 20 payloads a hundred times over, through a pipe."""
    folder.mkdir()
    _write_log(folder / "log", payloads, rng)
    log = f"for i in $(seq {REPEATED}); do cat ../log; done"
    rows = [
        Contestant("lpmangle retrace", ["sh", "-c", f"{log} | {LPMANGLE} retrace -m ../../manifests"], output="right"),
        Contestant("cat", ["sh", "-c", f"{log} | cat"]),
    ]
    race(rows, folder, 1, warm_up=False)
    (folder / "log").unlink()
    return Group("log of 10 GB, through a pipe", 1, rows)


def _source_lines(folder: Path, rng: random.Random) -> Group:
    """A trace of many places in one payload, against addr2line with their addresses given."""
    folder.mkdir()
    inputs.debug(folder / "p.livepatch", DEBUG_BYTES)
    subprocess.run([LPMANGLE, "--quiet", folder / "p.livepatch"], check=True)
    symbols = json.loads((folder / "p.livepatch.manifest.json").read_text())["symbols"]
    places = rng.sample(
        [(s, offset) for s in symbols if s["section"] == ".text" for offset in range(s["size"])], PLACES
    )
    (folder / "log").write_text("".join(f"(XEN) R {s['name']}+{at:#x}/{s['size']:#x} [p]\n" for s, at in places))
    (folder / "addresses").write_text("".join(f"{s['value'] + at:#x}\n" for s, at in places))
    rows = [
        Contestant("lpmangle retrace --source-lines", [LPMANGLE, "retrace", "--source-lines", "-m", "..", "../log"]),
        Contestant("addr2line", ["sh", "-c", "exec addr2line -e ../p.livepatch -j .text <../addresses"]),
    ]
    race(rows, folder, ROUNDS, warm_up=True)
    return Group(f"{PLACES:,} places in a payload with debug information, for their source lines", ROUNDS, rows)


def _race(
    title: str, folder: Path, payloads: Sequence[Names], rng: random.Random, guests: Sequence[Contestant] = ()
) -> Group:
    folder.mkdir()
    expected = _write_log(folder / "log", payloads, rng)
    retrace = Contestant("lpmangle retrace", [LPMANGLE, "retrace", "-m", "../../manifests", "../log"])
    rows = [retrace, Contestant("c++filt", ["sh", "-c", "exec c++filt <../log"]), *guests]
    for row in (retrace, *guests):
        row.check(folder, expected)
    rounds = 3 if guests else ROUNDS
    race(rows, folder, rounds, warm_up=not guests)
    (folder / "log").unlink()
    return Group(title, rounds, rows)


def _write_log(path: Path, payloads: Sequence[Names], rng: random.Random) -> str:
    """Write a log; the SHA-256 of what is to come out."""
    size, expected = 0, hashlib.sha256()
    several = [list(names.items()) for names in payloads]
    with path.open("w") as file:
        while size < LOG_BYTES:
            if rng.random() < MATCHING:
                new, old = rng.choice(rng.choice(several))
                line = f"(XEN)    [<ffff82d0{rng.getrandbits(32):08x}>] R {{}}+0x{rng.randrange(4096):x}/0xfff [p]\n"
            else:
                new = old = " ".join(rng.choices(WORDS, k=rng.randrange(3, 12)))
                line = f"(XEN) [{rng.uniform(0, 1e6):.6f}] d{rng.randrange(9)} {{}} {rng.getrandbits(64):016x}\n"
            file.write(line.format(new))
            expected.update(line.format(old).encode())
            size += len(line) + len(new) - 2
    return expected.hexdigest()


def _payload(path: Path, rng: random.Random) -> Names:
    """Write the manifest of a payload that was never built."""
    build_id = rng.randbytes(20).hex()
    originals: set[str] = set()
    while len(originals) < SYMBOLS:
        originals.add(f"{'_'.join(rng.sample(WORDS, 2))}.c#{'_'.join(rng.sample(WORDS, 3))}")
    names = {f"{original}_{build_id}": original for original in sorted(originals)}
    inputs.manifest(path, build_id, {old: new for new, old in names.items()})
    return names
