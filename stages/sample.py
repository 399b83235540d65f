"""K answers a prompt from a policy, to be ranked: sampled, the same for the same seed.

Reads the policy and data/validated/prompts. Writes data/samples/<round>, in the splits of the prompts.
Run: dvc repro sample@r1
"""

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import batched, islice
from pathlib import Path
