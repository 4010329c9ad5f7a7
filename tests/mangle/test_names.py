"""New names: suffixes, templates, the limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpmangle.errors import NamingError, PayloadError
from lpmangle.mangle.names import MIN_FIELD, Namer, check_naming, field_of, resolve_suffix

BUILD_ID = bytes.fromhex("d60688541c0ffee0123456789abcdef012345678")


@pytest.mark.parametrize(
    ("spec", "suffix"),
    [
        ("buildid", BUILD_ID.hex()),
        ("buildid:7", "d606885"),
        ("buildid:40", BUILD_ID.hex()),
        ("name", "fbab204"),
        ("text:v1.2+x", "v1.2+x"),
        ("text:a:b", "a:b"),
    ],
)
def test_suffix(spec: str, suffix: str) -> None:
    assert resolve_suffix(spec, BUILD_ID, "fbab204") == suffix


@pytest.mark.parametrize(
    "spec",
    ["", "build", "buildid:", "buildid:6", "buildid:-9", "buildid:x", "buildid:²", "buildid:" + "9" * 9,
     "text", "text:", "text:a b", "text:a#b", "text:a\n", "text:ü", "text:\x7f", "name:x", "Name"],
)  # fmt: skip
def test_bad_suffix(spec: str) -> None:
    with pytest.raises(NamingError):
        resolve_suffix(spec, BUILD_ID, "fbab204")
    with pytest.raises(NamingError):
        check_naming(spec, "{symbol}_{suffix}")


def test_suffix_that_this_payload_has_not() -> None:
    with pytest.raises(PayloadError, match="has only 40 digits"):
        resolve_suffix("buildid:41", BUILD_ID, "fbab204")
    with pytest.raises(PayloadError, match="cannot be part of a symbol name"):
        resolve_suffix("name", BUILD_ID, "my payload")


def test_no_build_id_names_the_alternatives() -> None:
    with pytest.raises(PayloadError) as caught:
        resolve_suffix("buildid", None, "x")
    assert "--suffix name" in caught.value.hint
    assert "--suffix text:STRING" in caught.value.hint
    assert resolve_suffix("name", None, "x") == "x"


@pytest.mark.parametrize(
    ("template", "symbol", "new"),
    [
        ("{symbol}_{suffix}", b"arch/x86/x86_emulate.c#_get_fpu", b"arch/x86/x86_emulate.c#_get_fpu_SUF"),
        ("{name}_{suffix}", b"x86_emulate.c#_get_fpu", b"_get_fpu_SUF"),
        ("{name}_{suffix}", b"lp_helper", b"lp_helper_SUF"),
        ("{file}#{name}.{suffix}", b"a#b.c#f", b"a#b.c#f.SUF"),
        ("{suffix}%{symbol}%s", b"f%d", b"SUF%f%d%s"),
        ("{file}{suffix}{name}", b"lp_helper", b"SUFlp_helper"),
    ],
)
def test_template(template: str, symbol: bytes, new: bytes) -> None:
    namer = Namer(template, "SUF")
    assert namer.rename(symbol) == new
    assert namer.carries(new)
    assert not namer.carries(symbol)


@pytest.mark.parametrize(
    "template",
    ["", "{symbol}", "{suffix}", "x_{suffix}", "{symbol}_{suffix}_{suffix}", "{symbol}{name}{suffix}",
     "{file}_{suffix}", "{symbol}_{suffix}{", "{symbol!r}_{suffix}", "{symbol:9}_{suffix}", "{0}_{suffix}",
     "{symbol} {suffix}", "{symbol}_ü{suffix}", "{symbol}\n{suffix}", "{{symbol}}_{suffix}", "{symbol}_{Suffix}"],
)  # fmt: skip
def test_bad_template(template: str) -> None:
    with pytest.raises(NamingError):
        Namer(template, "SUF")


def test_no_room_for_names() -> None:
    Namer("{symbol}_{suffix}", "s" * (125 - MIN_FIELD))
    with pytest.raises(PayloadError, match=r"leaves 31 of Xen's 126 bytes"):
        Namer("{symbol}_{suffix}", "s" * (126 - MIN_FIELD))
    with pytest.raises(PayloadError, match="leaves 0 of"):
        Namer("{symbol}_{suffix}", "s" * 500)
    with pytest.raises(NamingError, match="leaves 31 of"):  # whatever the payload
        check_naming("text:" + "s" * (126 - MIN_FIELD), "{symbol}_{suffix}")


@pytest.mark.parametrize("length", [84, 85, 86, 110, 126, 127, 140])
def test_long_names_keep_suffix_and_stay_unique(length: int) -> None:
    suffix = BUILD_ID.hex()
    first, second = (b"f.c#" + b"x" * (length - 5) + end for end in (b"1", b"2"))
    namer = Namer("{symbol}_{suffix}", suffix)
    new = namer.rename(first)
    assert len(new) == min(length + 41, 126)
    assert new.endswith(b"_" + suffix.encode())
    assert new != namer.rename(second)
    assert new.startswith(b"f.c#xxx")
    if length <= 85:
        assert new == first + b"_" + suffix.encode()
    assert namer.carries(new)


def test_names_that_differ_only_in_the_middle_stay_unique() -> None:
    namer = Namer("{symbol}_{suffix}", BUILD_ID.hex())
    names = {namer.rename(b"f.c#" + b"a" * 80 + bytes([65 + n]) + b"z" * 80) for n in range(20)}
    assert len(names) == 20


def test_both_fields_give_way() -> None:
    namer = Namer("{file}#{name}_{suffix}", "s" * 20)
    for file, name in ((90, 20), (20, 90), (200, 200), (33, 300)):
        new = namer.rename(b"d/" * (file // 2) + b"#" + b"n" * name)
        assert len(new) <= 126
        assert new.endswith(b"_" + b"s" * 20)
        assert new.count(b"#") == 1


SYMBOLS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).map(str.encode)


@given(SYMBOLS, SYMBOLS, st.sampled_from(["{symbol}_{suffix}", "{suffix}.{symbol}"]), st.integers(1, 80))
def test_rename_is_unique_bounded_and_text(first: bytes, second: bytes, template: str, size: int) -> None:
    namer = Namer(template, "s" * size)
    new = namer.rename(first)
    assert len(new) <= 126
    assert b"s" * size in new
    assert new.decode()  # no UTF-8 character was cut
    assert (new == namer.rename(second)) == (first == second)
    assert namer.carries(new)


@given(SYMBOLS)
def test_fields_make_the_symbol(symbol: bytes) -> None:
    file, name = field_of(symbol, "file"), field_of(symbol, "name")
    assert symbol in (file + b"#" + name, name)
    assert b"#" not in name


@pytest.mark.parametrize("build_id", [b"\xab", b"\xab\xcd\xef"])
def test_a_build_id_too_short_to_be_unique(build_id: bytes) -> None:
    for spec in ("buildid", "buildid:7"):
        with pytest.raises(PayloadError, match=f"its build-id has only {2 * len(build_id)} digits"):
            resolve_suffix(spec, build_id, "stem")
    assert resolve_suffix("buildid", b"\xab\xcd\xef\x01", "stem") == "abcdef01"
