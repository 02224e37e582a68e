"""Figures and the HTML report, drawn from the artefacts of a run; without torch."""

from scircuit.report.page import write_report

__all__ = ["write_report"]
