"""The text that is written without json is the same as json would write."""

import json
import os
import random

import pytest

from lpmangle.manifest.text import indented, is_plain, quoted

SEED = int(os.environ.get("LPMANGLE_SEED", "20"))
CHARACTERS = [
    "a",
    "Z",
    "#",
    " ",
    "~",
    '"',
    "\\",
    "\n",
    "\t",
    "\0",
    "\x1f",
    "\x7f",
    "é",
    "\u2028",
    "\U0001f600",
    "\udc80",
    "/",
]


def value(rng: random.Random, depth: int = 0) -> object:
    """Any value that a manifest may contain."""
    kind = rng.randrange(7 if depth < 4 else 5)
    if kind < 2:
        return "".join(rng.choices(CHARACTERS, k=rng.randrange(6)))
    if kind < 5:
        return (None, True, False, 0, rng.getrandbits(64), -1)[rng.randrange(6)]
    several = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return rng.choice(
        [several, tuple(several), {f"{at}{rng.choice(CHARACTERS)}": one for at, one in enumerate(several)}]
    )


def test_random_values_are_written_as_json_writes_them() -> None:
    print(f"LPMANGLE_SEED={SEED}")
    rng = random.Random(SEED)
    for _ in range(3000):
        one = value(rng)
        assert indented(one) == json.dumps(one, indent=2)


@pytest.mark.parametrize("character", CHARACTERS, ids=ascii)
def test_escapes(character: str) -> None:
    assert quoted(f"a{character}") == json.dumps(f"a{character}")
    assert is_plain(character.encode("utf-8", "surrogatepass")) == (character in "aZ# ~/")
