"""What is probably wrong with labels, by what a trained model says of them: places -> confidence -> findings
-> json and page.
"""

from vistasks.evaluation.audit.audit import audit
from vistasks.evaluation.audit.result import Audit

__all__ = ["Audit", "audit"]
