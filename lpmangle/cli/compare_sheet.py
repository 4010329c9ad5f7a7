"""The sheet of a comparison: what changes for a host from one payload to the next."""

from lpmangle.cli.check_report import rules_line, spaced
from lpmangle.cli.compare_report import sections, summary, transition_words, trouble_lines
from lpmangle.cli.sheet import BAD, GOOD, WARN, finding_rows, rendered, tone_of, worst
from lpmangle.loader import State
from lpmangle.review.compare import Comparison


def of_comparison(found: Comparison, old: str, new: str, state: State) -> bytes:
    """The page; `old` and `new` are the payloads' paths."""
    verdict = found.transition.verdict
    asked, answer = transition_words(found)
    tone = tone_of(verdict) if verdict else BAD
    return rendered(
        "compare",
        headline=f"{old} -> {new}",
        tone=worst([tone, WARN if found.lost.variables else GOOD]),
        summary=summary(found),
        sides=[
            {"name": name, "path": path, "build_id": side.build_id}
            for name, path, side in (("OLD", old, found.old), ("NEW", new, found.new))
        ],
        sections=[{**section._asdict(), "lost": section.is_loss} for section in sections(found)],
        asked=asked,
        answer=answer,
        tone_of_upload=tone,
        console=list(map(spaced, found.transition.printed)) if verdict else None,
        kinds=finding_rows(verdict) if verdict else [],
        rules=rules_line(state),
        trouble=trouble_lines(found, old, new),
    )
