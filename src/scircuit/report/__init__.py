"""Figures and the HTML report, drawn from the artefacts of a run; without torch."""

from scircuit.report.page import write_report
from scircuit.report.runs import ReportRun

__all__ = ["ReportRun", "write_report"]
