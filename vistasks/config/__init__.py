"""The typed configuration of an experiment (`schema`), the YAML it is read from (`files`), and where each
value was written.
"""

from vistasks.config.files import (
    apply_override,
    checked_config,
    load_config,
    parse_config,
    read_config,
    read_yaml,
    to_json,
    to_yaml,
)
from vistasks.config.schema import (
    Config,
    DataConfig,
    Engine,
    InputConfig,
    ModelConfig,
    OptimizerConfig,
    ProposalsConfig,
    ScheduleConfig,
    StageConfig,
    TrainConfig,
)

__all__ = [
    "Config",
    "DataConfig",
    "Engine",
    "InputConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ProposalsConfig",
    "ScheduleConfig",
    "StageConfig",
    "TrainConfig",
    "apply_override",
    "checked_config",
    "load_config",
    "parse_config",
    "read_config",
    "read_yaml",
    "to_json",
    "to_yaml",
]
