"""Runs the fuzzer: `make fuzz`, or `python -m fuzz [READER...]` with tests/ in PYTHONPATH.

Coverage-guided (atheris, libFuzzer), one reader after the other. What is new is kept in .cache/fuzz/READER. An input
that raises, takes more than a second of processor time or brings the process above 256 MiB is written to
.cache/fuzz/crashes; `python -m fuzz --replay FILE READER` runs it alone, with a traceback. `--keep` adds new inputs to
the corpus, as few and as small as possible.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from memory import peak_kib

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".cache" / "fuzz"
PACKAGE = f"{HERE.parent.parent / 'lpmangle'}/"
MAX_SECONDS = 1.0
MAX_KIB = 256 << 10
MAX_INPUT = 64 << 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Fuzz lpmangle's readers.")
    parser.add_argument("readers", nargs="*", metavar="READER")
    parser.add_argument("--minutes", type=float, default=2, help="for each reader (default: 2)")
    parser.add_argument("--runs", type=int, default=-1, help="executions of each reader, instead of minutes")
    parser.add_argument("--max-len", type=int, default=MAX_INPUT, metavar="BYTES", help="of an input (default: 64 KiB)")
    parser.add_argument(
        "--replay", nargs="?", const="", metavar="FILE", help="run an input; without FILE all of READER"
    )
    parser.add_argument("--keep", action="store_true", help="add to the corpus what runs code that nothing in it runs")
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.engine:
        return fuzz(words.readers[0], words.runs, words.minutes, words.max_len)
    from fuzz.readers import READERS

    if unknown := [name for name in words.readers if name not in READERS]:
        parser.error(f"no reader {unknown[0]}; there are {', '.join(READERS)}")
    if words.keep:
        for reader in words.readers or READERS:
            keep(reader)
        return 0
    if words.replay is not None:
        return replay(words.replay, words.readers or list(READERS))
    failed = []
    for reader in words.readers or READERS:
        options = [f"--runs={words.runs}", f"--minutes={words.minutes}", f"--max-len={words.max_len}"]
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "fuzz", reader, "--engine", *options])
        result = "failed" if done.returncode else "good"
        print(f"{reader}: {result} after {time.monotonic() - started:.0f} s", flush=True)
        if done.returncode:
            failed.append(reader)
    if failed:
        print(f"inputs are in {CACHE / 'crashes'}; to run one: python -m fuzz --replay FILE READER")
    return bool(failed)


def replay(path: str, readers: list[str]) -> int:
    from fuzz.readers import READERS

    for reader in readers:
        inputs = {path: Path(path).read_bytes()} if path else known(reader)
        for name, data in sorted(inputs.items()):
            print(f"{reader}: {name}", flush=True)
            READERS[reader](data)
    peak = peak_kib()
    print(f"peak of {peak >> 10} MiB")
    return peak >= MAX_KIB


def known(reader: str) -> dict[str, bytes]:
    """The inputs that the repository has for a reader, by name."""
    from fuzz.seeds import SEEDS

    return SEEDS[reader]() | {file.name: file.read_bytes() for file in (HERE / "corpus" / reader).glob("*")}


def keep(reader: str) -> None:
    """Of the fuzzer's findings, the smallest inputs with steps from line to line that no other input has."""
    covered: set[object] = set()
    for data in known(reader).values():
        covered |= steps(reader, data)
    count, corpus = 0, HERE / "corpus" / reader
    corpus.mkdir(exist_ok=True)
    for file in sorted((CACHE / reader).glob("*"), key=lambda file: file.stat().st_size):
        taken = steps(reader, data := file.read_bytes())
        if not taken <= covered:
            covered |= taken
            count += 1
            (corpus / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    print(f"{reader}: {count} inputs more, {len(covered)} steps")


def steps(reader: str, data: bytes) -> set[object]:
    """Pairs of lines of lpmangle that are run one after the other."""
    from fuzz.readers import READERS

    taken: set[object] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        before = frame.f_lineno

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            taken.add((frame.f_code, before, frame.f_lineno))
            before = frame.f_lineno
            return line

        return line

    sys.settrace(trace)
    try:
        READERS[reader](data)
    finally:
        sys.settrace(None)
    return taken


def fuzz(reader: str, runs: int, minutes: float, max_len: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["lpmangle"]):
        from fuzz.mutators import MUTATORS
        from fuzz.readers import READERS
        from fuzz.seeds import SEEDS, SLOW

    read, change = READERS[reader], MUTATORS[reader]
    started, count = time.monotonic(), 0

    def one(data: bytes) -> None:
        nonlocal count
        count += 1
        before = time.process_time()
        read(data)
        spent = time.process_time() - before
        assert spent < MAX_SECONDS, f"took {spent:.2f} s"
        peak = peak_kib()
        assert peak < MAX_KIB, f"peak of {peak >> 10} MiB"
        if count in (1_000, 10_000) or count % 100_000 == 0:
            spent = time.monotonic() - started
            print(f"{reader}: {count} executions, {count / spent:.0f}/s, {spent:.0f} s, {peak >> 10} MiB", flush=True)

    def mutate(data: bytes, limit: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.8:
            with suppress(struct.error, IndexError, ValueError):  # no structure is recognisable any more
                return change(data, rng)[:limit]
        return bytes(atheris.Mutate(data, limit))

    found, crashes, first, corpus = (
        CACHE / reader,
        CACHE / "crashes",
        CACHE / "seeds" / reader,
        HERE / "corpus" / reader,
    )
    for folder in (found, crashes, first, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in SEEDS[reader]().items():
        if name not in SLOW:
            (first / name).write_bytes(data)
    bound = f"-runs={runs}" if runs >= 0 else f"-max_total_time={int(60 * minutes)}"
    flags = [bound, f"-max_len={max_len}", "-timeout=20", "-rss_limit_mb=1024", f"-artifact_prefix={crashes}/{reader}-"]
    atheris.Setup(
        [sys.argv[0], *flags, "-print_final_stats=1", str(found), str(first), str(corpus)], one, custom_mutator=mutate
    )
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
