"""`Finding`: one line of the doctor's report."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from scircuit.errors import ScircuitError


class Finding(NamedTuple):
    """One check: `state` (`ok`, `warn`, `FAIL`), what was checked, what was found, and how to mend it."""

    state: str
    what: str
    detail: str
    fix: str = ""


def ok(what: str, detail: str) -> Finding:
    """All is well."""
    return Finding("ok", what, detail)


def warn(what: str, detail: str, fix: str = "") -> Finding:
    """It works, but not for everything."""
    return Finding("warn", what, detail, fix)


def fail(what: str, detail: str, fix: str = "") -> Finding:
    """It does not work."""
    return Finding("FAIL", what, detail, fix)


def tried(what: str, check: Callable[..., Finding | Iterable[Finding]], *arguments: Any) -> list[Finding]:
    """What `check(*arguments)` finds; whatever it raises is a finding too, for a doctor must outlive the patient."""
    try:
        found = check(*arguments)
        return [found] if isinstance(found, Finding) else list(found)
    except ScircuitError as error:
        return [fail(what, str(error))]
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return [fail(what, f"{type(error).__name__}: {first}"[:300], "reinstall scircuit in a fresh environment")]


def lines(findings: Sequence[Finding]) -> list[str]:
    """The report as text, one line per finding."""
    width = max((len(f.what) for f in findings), default=0)
    return [f"{f.state:4}  {f.what:{width}}  {f.detail}" + (f"  ->  {f.fix}" if f.fix else "") for f in findings]
