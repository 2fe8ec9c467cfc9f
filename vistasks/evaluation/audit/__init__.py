"""What is probably wrong with labels, by what a trained model says of them: places -> confidence -> findings
-> json and page.
"""

from vistasks.evaluation.audit.audit import Audit, audit

__all__ = ["Audit", "audit"]
