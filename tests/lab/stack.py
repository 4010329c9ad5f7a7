"""Payloads that stand on each other, made of payloads/stack-*.c, and what `lpmangle check` says to each.

Which code runs is seen in two strings: the extra version "-WHO by WHOM", told by a function that payload a introduced,
and the changeset, told by one that the others override by its name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from livepatch import Source, build_id

from lab.boot import Result
from lab.scenario import Scenario

PAYLOADS = Path(__file__).parent / "payloads"
FOREIGN = {
    "b": ("x86_emulate.c#tell",),
    "c": ("x86_emulate.c#tell", "x86_emulate.c#letter"),
    "d": ("x86_emulate.c#tell", "x86_emulate.c#mark"),
}


# Xen on Arm dies where a payload overrides another one's function: there these are built without that.
NOT_ON_ARM = "Xen on Arm dies where a payload overrides another one's function"
KEPT_ON_ARM = {"b1": "a", "cb": "a", "dD": "a"}


class Stack:
    """Builds payloads, and loads them where `lpmangle check` has said what the hypervisor then must say."""

    def __init__(self, xen: Scenario) -> None:
        self.xen = xen
        self.loaded: list[Path] = []  # as `check --loaded` wants them: applied, in this order

    def build(self, name: str, *defines: str, on: Path | None = None, file: str = "") -> Path:
        """Payload `name`, from stack-NAME.c or another file; it depends on the build-id of `on` or of Xen."""
        code = (PAYLOADS / f"stack-{file or name}.c").read_text()
        keep = () if self.xen.lab.machine.x86 else ("KEEP",)
        made = Source(code, foreign=FOREIGN.get(file or name, ()), defines=(f'NAME="{name}"', *keep, *defines))
        return self.xen.build(name, made, depends=build_id(on) if on else None)

    def upload(self, payload: Path, *, error: int = 0, says: str = "", action: str = "apply") -> None:
        """Uploads; `says` is what the console shows behind the payload's name, `action` what `check` tells to do."""
        message = f"livepatch: {payload.stem}: {says}" if says else ""
        verdict = self._check(payload, good=not error)
        found = verdict["errno"], verdict["message"], verdict["action"]
        assert found == (error, message, "" if error else action), verdict
        self.xen.upload(payload, error=error, console=f"(XEN) {message}\n" if says else "")

    def load(self, *payloads: Path) -> None:
        """Uploads each and applies it on top."""
        for payload in payloads:
            self.upload(payload)
            self.xen.tool(f"apply {payload.stem}")
            self.loaded.append(payload)

    def not_applied(self, payload: Path, *, error: int, says: str) -> None:
        """Xen accepts the payload and refuses to apply it."""
        verdict = self._check(payload, good=False)
        refusals = [f for f in verdict["findings"] if f["severity"] == "refused"]
        message = f"livepatch: {payload.stem}: {says}"
        assert [(f["errno"], f["message"]) for f in refusals] == [(error, message)], verdict
        self.xen.upload(payload)
        self.xen.tool(f"apply {payload.stem}", error=error, console=f"(XEN) {message}\n")
        self.xen.tool(f"unload {payload.stem}")

    def replace(self, payload: Path) -> None:
        """In the place of all that are applied."""
        self.upload(payload, action="replace")
        self.xen.tool(f"replace {payload.stem}")

    def unload(self, *payloads: Path) -> None:
        """Takes the last ones away; a reverted one can be unloaded."""
        for payload in payloads:
            assert payload == self.loaded.pop()
            self.xen.unload(payload.stem)

    def shows(self, extra: str, changeset: str) -> None:
        self.xen.extra(extra)
        if not self.xen.lab.machine.x86:
            changeset = KEPT_ON_ARM.get(changeset, changeset)
        self.xen.run("cat /sys/hypervisor/properties/changeset", output=f"{changeset}\n")

    def literals(self) -> None:
        """What b uses the literal for that is also the name of the function to override, and the end of it."""
        self.xen.run("cat /sys/hypervisor/compilation/compiler", output="x86_emulate.c#who\n")
        self.xen.run("cat /sys/hypervisor/compilation/compile_date", output="who\n")

    def retraced(self, words: str, *manifests: Path) -> None:
        """The console lines of the last step, with the original names."""

        def check(result: Result) -> str:
            said = self.xen.retrace(result.console, *manifests)
            return "" if words in said else f"retrace does not give {words!r} but {said!r}"

        self.xen.steps[-1].checks.append(check)

    def _check(self, payload: Path, good: bool) -> dict[str, Any]:
        below = [word for path in self.loaded for word in ("--loaded", path)]
        said = self.xen.lpmangle("check", "--json", "--xen", self.xen.xen_syms, *below, payload, code=0 if good else 1)
        verdict: dict[str, Any] = json.loads(said)["payloads"][0]
        assert verdict["complete"], verdict
        return verdict

    def restores(self, mangled: Path, original: Path) -> None:
        """The mangled payload is verified, and the original can be had back, byte for byte."""
        self.xen.lpmangle("verify", mangled, "--original", original, says="verified")
        restored = mangled.parent / "restored.livepatch"
        self.xen.lpmangle("restore", mangled, "-o", restored)
        assert restored.read_bytes() == original.read_bytes()
