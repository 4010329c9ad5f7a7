"""Catalogs: a look-up among a million symbols, and a hundred thousand manifests."""

import hashlib
import sys
from pathlib import Path

from benchmarks import inputs
from benchmarks.installed import LPMANGLE
from benchmarks.measure import Contestant, Group, race

QUERY_ROUNDS, ADD_ROUNDS = 21, 3
SIZES = {"10,000 manifests of 100 symbols": (10_000, 100), "100,000 manifests of 10 symbols": (100_000, 10)}


def groups(folder: Path) -> list[Group]:
    """For each size: adding all, and asking for one name, and for patterns that one name matches."""
    found = []
    for title, (payloads, symbols) in SIZES.items():
        print(f"measuring: catalog of {title}", file=sys.stderr)
        place = folder / str(payloads)
        name = _write(place / "manifests", payloads, symbols)
        add = Contestant("lpmangle catalog add", [LPMANGLE, "catalog", "add", "../catalog.db", "../manifests"])
        peers = [Contestant("tar -cz of the same", ["tar", "-czf", "t", "../manifests"])]
        race([add, *peers], place, ADD_ROUNDS, warm_up=False)
        found.append(Group(f"catalog of {title}: add", ADD_ROUNDS, [add, *peers]))
        original = name.rpartition("_")[0]
        rows = [
            Contestant("lpmangle --version", [LPMANGLE, "--version"]),
            Contestant("lpmangle query --help", [LPMANGLE, "query", "--help"]),
            Contestant("lpmangle query", [LPMANGLE, "query", name, "-m", "../catalog.db"]),
            Contestant(
                "lpmangle query 'FILE.c#NAME*'", [LPMANGLE, "query", original[:-1] + "*", "-m", "../catalog.db"]
            ),
            Contestant("lpmangle query '*NAME'", [LPMANGLE, "query", "*" + original[8:], "-m", "../catalog.db"]),
            Contestant("lpmangle catalog find", [LPMANGLE, "catalog", "find", "../catalog.db", name]),
            Contestant("grep -r of the manifests", ["grep", "-rFl", name, "../manifests"]),
        ]
        race(rows, place, QUERY_ROUNDS, warm_up=True)
        found.append(Group(f"catalog of {title}: one name", QUERY_ROUNDS, rows))
    return found


def _write(folder: Path, payloads: int, symbols: int) -> str:
    """Manifests of payloads that were never built; a name that one of them has."""
    name = ""
    for number in range(payloads):
        place = folder / f"{number // 1000:03}"
        place.mkdir(parents=True, exist_ok=True)
        build_id = hashlib.sha1(str(number).encode()).hexdigest()
        names = [f"file_{at}.c#function_{number}_{at}" for at in range(symbols)]
        inputs.manifest(
            place / f"p{number}.livepatch.manifest.json", build_id, {old: f"{old}_{build_id}" for old in names}
        )
        if number == payloads // 2:
            name = f"file_0.c#function_{number}_0_{build_id}"
    return name
