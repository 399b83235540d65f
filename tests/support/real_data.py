"""Where public data files lie that tests may read and the project never copies."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("LATHE_SHARED_DATA", Path(__file__).parents[3] / "shared/data"))
REAL = SHARED / "real"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data in {REAL} (set LATHE_SHARED_DATA)")
