"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# how long an example takes says more about the processor, and what else it does, than about the product
settings.register_profile("vistasks", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vistasks")
