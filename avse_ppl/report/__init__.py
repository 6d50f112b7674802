"""HTML report of a posterior: one page with sound, figures and verdicts, which opens offline."""

from avse_ppl.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
