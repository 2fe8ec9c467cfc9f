"""The result of an audit."""

from __future__ import annotations

from dataclasses import dataclass

from vistasks.evaluation.audit.findings import AuditFindings
from vistasks.evaluation.audit.places import Vocabulary


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
        judgement: the ranked lists.
        notes: what could not be checked, and why; one line each.
        pictures: how many were looked at.
        labels: how many labels were judged.
        words: the classes.
    """

    judgement: AuditFindings
    notes: list[str]
    pictures: int
    labels: int
    words: Vocabulary
