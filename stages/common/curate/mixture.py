"""The mixture of GPT-3 (Brown et al. 2020, table 2.2): sources are read by weight, not by size, and
so more than once.

The first glob that matches a source decides; all sources of one glob share its weight by their
sizes, so they are read equally often. Beyond four times, text teaches less and less (Muennighoff et
al. 2023, arXiv 2305.16264).
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field, PositiveFloat

from stages.common.core.params import PARAMS_FILE, StageParams, suggestion
from stages.common.runtime.errors import ParamsError
from stages.common.text.content_hash import draw

MOST_EPOCHS = 4.0
Weight = Annotated[float, Field(ge=0)]


class Mixture(StageParams):
    """How often each source is read."""

    weights: dict[str, Weight] = {}
    """Share of the mix by glob of sources (`books/*.txt`), in any unit; 0 leaves out, none at all
    reads all evenly.
    """
    size: PositiveFloat = 1.0
    """Size of the whole mix, as a multiple of what there is."""


def epochs(sizes: Mapping[str, int], mixture: Mixture) -> dict[str, float]:
    """Return how often each source is read, given its characters: share of the mix * size of the
    mix / own size.

    Raises ParamsError for a source without a weight, and for a weight above 0 without a source that
    has text.
    """
    if not mixture.weights:
        return dict.fromkeys(sizes, mixture.size)
    globs = {source: _glob(source, mixture) for source in sizes}
    total, weights = mixture.size * sum(sizes.values()), sum(mixture.weights.values())
    own = {pattern: sum(sizes[source] for source in sizes if globs[source] == pattern) for pattern in mixture.weights}
    for pattern, weight in mixture.weights.items():
        if weight and not own[pattern]:
            what = f"mixture: no source with text left for '{pattern}'{suggestion(pattern, list(sizes))}"
            raise ParamsError(what, where=PARAMS_FILE, remedy="take the weight out or correct the name")
    if not weights:
        raise ParamsError("mixture: all weights are 0", where=PARAMS_FILE, remedy="give one source a weight")
    return {
        source: mixture.weights[pattern] / weights * total / own[pattern] if mixture.weights[pattern] else 0.0
        for source, pattern in globs.items()
    }


def _glob(source: str, mixture: Mixture) -> str:
    for pattern in mixture.weights:
        if fnmatchcase(source, pattern):
            return pattern
    what = f"mixture: no weight for source '{source}'"
    raise ParamsError(what, where=PARAMS_FILE, remedy=f"add '{source}' (0 leaves it out), or '*' for all others")


def shares(sizes: Mapping[str, int], times: Mapping[str, float]) -> dict[str, float]:
    """Return each source's share of the mix, given its characters and how often it is read."""
    total = sum(size * times[source] for source, size in sizes.items())
    return {source: size * times[source] / total if total else 0.0 for source, size in sizes.items()}


def overused(times: Mapping[str, float]) -> dict[str, float]:
    """Return the sources read more than MOST_EPOCHS times."""
    return {source: often for source, often in times.items() if often > MOST_EPOCHS}


def copies(digest: bytes, often: float) -> int:
    """Return how often one record is written: `often` rounded up or down by chance that comes from
    its digest.
    """
    whole = int(often)
    return whole + (draw("mixture", digest) < often - whole)


def copy_id(record_id: str, copy: int) -> str:
    """Return the id of a record's copy, counted from 1: the first keeps the id, the second is
    `<id>#2`.
    """
    return record_id if copy == 1 else f"{record_id}#{copy}"
