"""Two payloads compared, from files to values."""

from lpmangle.jobs.check import state_of
from lpmangle.jobs.show import show_file
from lpmangle.loader import State, Upload
from lpmangle.review.compare import Comparison
from lpmangle.review.transition import transition


def compare_files(
    old: str,
    new: str,
    *,
    xen: str | None = None,
    xen_version: str | None = None,
    vendor: str | None = None,
    source: str | None = None,
) -> Comparison:
    """What changes for a host that runs the payload at `old` and gets the one at `new`.

    `xen`, `xen_version` and `vendor` are those of `check_files`, `source` is that of `show_file`, for both. Raises
    LpmangleError for files that cannot be read or are not payloads.
    """
    return compare_in(state_of(xen, xen_version, vendor), old, new, source)


def compare_in(state: State, old: str, new: str, source: str | None = None) -> Comparison:
    """The same for a hypervisor in `state`; afterwards `old` is applied there."""
    before, after = (show_file(path, source).inventory for path in (old, new))
    uploads = Upload.at(old, before.view.data), Upload.at(new, after.view.data)
    return Comparison(before, after, transition(*uploads, state))
