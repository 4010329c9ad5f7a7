"""The jobs get the options of the command line, under the same names."""

import json
import shutil
from pathlib import Path

import pytest
from commands import EXAMPLES

from lpmangle.cli import build, mangle
from lpmangle.errors import FileError, LpmangleError, PlanError
from lpmangle.jobs.mangle import mangle_file
from lpmangle.mangle.options import Options
from lpmangle.manifest.read import decode


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    return Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))


def test_names_and_defaults_are_those_of_the_command_line(payload: Path) -> None:
    given = mangle.command.make_context("mangle", [str(payload)]).params
    assert Options(**{name: given[name] for name in Options._fields}) == Options()
    of_build = {parameter.name for parameter in build.command.params}
    assert set(Options._fields) - of_build == {"output", "depfile", "if_changed", "dry_run"}


def test_each_takes_effect(payload: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    original = payload.read_bytes()
    options = Options(
        suffix="name",
        template="{suffix}.{symbol}",
        only=("*_fpu", "lp_*"),
        keep=("lp_helper",),
        scope="new",
        embed=True,
        output=f"{tmp_path}/out/",
        manifest=f"{tmp_path}/m.json",
        depfile=f"{tmp_path}/d",
        if_changed=True,
    )
    assert mangle_file(str(payload), options._replace(dry_run=True)).status == "would be mangled"
    assert not list((tmp_path / "out").iterdir())
    result = mangle_file(str(payload), options)
    assert (result.status, result.output) == ("mangled", f"{tmp_path}/out/{payload.name}")
    assert mangle_file(str(payload), options).status == "unchanged"
    assert payload.read_bytes() == original
    manifest = decode((tmp_path / "m.json").read_bytes())
    assert [symbol.name for symbol in manifest.symbols] == [
        "fbab204.x86_emulate.c#_get_fpu",
        "fbab204.x86_emulate.c#_put_fpu",
    ]
    assert json.loads((tmp_path / "m.json").read_text())["options"] == {
        "suffix": "name",
        "template": "{suffix}.{symbol}",
        "scope": "new",
        "only": ["*_fpu", "lp_*"],
        "keep": ["lp_helper"],
    }
    assert b".debug_lpmangle" in Path(result.output).read_bytes()
    assert (tmp_path / "d").read_text() == f"{tmp_path}/out/{payload.name}: {payload}\n"
    payload.write_bytes(original + b"SIGNATURE")
    with pytest.raises(LpmangleError, match="follow its last section"):
        mangle_file(str(payload), options)
    assert mangle_file(str(payload), options._replace(force=True)).status == "mangled"


def test_against_and_xen(payload: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="depends on build-id"):
        mangle_file(str(payload), Options(against=(str(payload),)))
    with pytest.raises(FileError) as caught:
        mangle_file(str(payload), Options(against=(str(tmp_path),), xen="missing"))
    assert caught.value.path == "missing"
    result = mangle_file(str(payload), Options(against=(str(tmp_path),)))
    assert result.stack
    assert result.stack.layers == []
