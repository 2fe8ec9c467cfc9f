"""The evaluation report: what a model gets wrong and why, as numbers and as one self-contained page."""

from vistasks.evaluation.reports.report import EvaluationReport

__all__ = ["EvaluationReport"]
