"""`vistasks audit` from a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vistasks.cli import main

if __name__ == "__main__":
    sys.exit(main(command="audit"))
