"""`scircuit doctor`: whether this machine is fit, and everything that a config names is there and right."""

from pathlib import Path

from scircuit.health.finding import Finding, lines
from scircuit.health.machine import check_machine
from scircuit.health.numerics import check_numerics

__all__ = ["Finding", "doctor", "lines"]


def doctor(config: str | Path | None = None) -> list[Finding]:
    """Check the installation, the devices and their arithmetic, and with `config` every path that the file names.

    Nothing is written or downloaded. A model that the config names is loaded on the CPU, so that its files are really
    read.

    `config` is a TOML file of a run, or of anything built of a run's sections at any depth. Findings come in the order
    of the checks; `state` is `ok`, `warn` (works, but read it) or `FAIL`.
    """
    findings = [*check_machine(Path.cwd()), *check_numerics()]
    if config is not None:
        from scircuit.health.configured import check_config

        findings += check_config(Path(config))
    return findings
