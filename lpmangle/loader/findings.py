"""What was found on the way of a payload through the loader, in Xen's words and in ours."""

from errno import EOPNOTSUPP
from errno import errorcode as ERRNO_NAMES
from typing import NamedTuple

from lpmangle.loader.rules import Rule

REFUSED = "refused"
CRASH = "crash"
NOT_CHECKED = "not checked"
WARNING = "warning"

# Of a thousand bad relocations, this many are enough.
MOST_PER_RULE = 50


class Finding(NamedTuple):
    """One finding. `lines` are what Xen prints, without `(XEN) ` before each; none if it prints nothing.

    A name in a line may contain a newline, which does not start a new line here. `detail` says in our words what it is
    about; `symbol` is the symbol that causes it.
    """

    rule: Rule
    severity: str
    lines: tuple[str, ...] = ()
    detail: str = ""
    symbol: str = ""
    error: int | None = None
    advice: str = ""
    headline: str = ""  # the one of `lines` that says it, with the payload's name

    @property
    def message(self) -> str:
        """All lines as one text."""
        return "\n".join(self.lines)

    @property
    def errno(self) -> int:
        return self.rule.errno if self.error is None else self.error

    @property
    def errno_name(self) -> str:
        # Xen returns EOPNOTSUPP, which Python on Linux calls ENOTSUP.
        return {EOPNOTSUPP: "EOPNOTSUPP", 0: ""}.get(self.errno, ERRNO_NAMES.get(self.errno, str(self.errno)))

    @property
    def meaning(self) -> str:
        return self.rule.meaning

    @property
    def remedy(self) -> str:
        return self.advice or self.rule.remedy

    @property
    def fatal(self) -> bool:
        return self.severity in (REFUSED, CRASH)


class Report:
    """The findings about one payload, in the order in which Xen would meet them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.findings: list[Finding] = []
        self._counts: dict[Rule, int] = {}

    def add(self, finding: Finding) -> None:
        count = self._counts[finding.rule] = self._counts.get(finding.rule, 0) + 1
        if count <= MOST_PER_RULE and (not finding.fatal or finding not in self.findings):
            self.findings.append(finding)

    def has_room(self, rule: Rule) -> bool:
        """Whether another finding by this rule would be kept."""
        return self._counts.get(rule, 0) < MOST_PER_RULE

    def refuse(
        self,
        rule: Rule,
        says: str = "",
        detail: str = "",
        symbol: str = "",
        *,
        error: int | None = None,
        advice: str = "",
        colon: str = ":",
        before: str = "",
        behind: tuple[str, ...] = (),
    ) -> None:
        """Xen refuses, and says `says` after the payload's name; some messages have no colon there.

        `before` and `behind` are lines that it prints before and after that, without the payload's name.
        """
        line = f"livepatch: {self.name}{colon} {says}" if says else ""
        lines = tuple(filter(None, (before, line, *behind)))
        self.add(Finding(rule, REFUSED, lines, detail, symbol, error, advice, line))

    def crash(self, rule: Rule, detail: str, advice: str = "") -> None:
        self.add(Finding(rule, CRASH, detail=detail, advice=advice))

    def not_checked(self, rule: Rule, detail: str) -> None:
        self.add(Finding(rule, NOT_CHECKED, detail=detail))

    def warn(self, rule: Rule, detail: str, symbol: str = "", advice: str = "", *, says: str = "") -> None:
        """Xen accepts the payload, but may print `says` after its name."""
        line = f"livepatch: {self.name}: {says}" if says else ""
        lines = (line,) if line else ()
        self.add(Finding(rule, WARNING, lines, detail, symbol, advice=advice, headline=line))

    @property
    def fatal(self) -> Finding | None:
        """What Xen would report: the first refusal, or the crash that comes before."""
        return next((finding for finding in self.findings if finding.fatal), None)
