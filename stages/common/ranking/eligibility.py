"""Which samples of a round are to be ranked: the same for `rank` and for the page where people do
it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, ValidationError

from stages.common.core import params
from stages.common.core.params import StageParams
from stages.common.ranking.samples import Sample
from stages.common.runtime.errors import ParamsError
from stages.common.text import rule_grader
from stages.common.text.rule_grader import WEIGHTS, Indicator


class Wanted(StageParams):
    """What of section `rank` decides which samples are to be ranked, and by how many people."""

    weights: dict[Indicator, float] = {}
    """Weights of the rules' indicators, where they differ from
    stages/common/text/rule_grader.py.
    """
    least_best: float | None = None
    """Samples whose best answer scores less than this by the rules are left out: they teach the
    lesser mistake.
    """
    human_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the samples that people must have ranked before the round goes on; the others are
    left out.
    """

    @classmethod
    def of_params(cls) -> Self:
        """Return what params.yaml says. Raises ParamsError."""
        section = params.plain(params.read_yaml(params.PARAMS_FILE).get("rank")) or {}
        try:
            return cls.model_validate({name: section[name] for name in cls.model_fields if name in section})
        except ValidationError as error:
            first = error.errors()[0]
            what = f"'rank.{'.'.join(map(str, first['loc']))}': {first['msg']}"
            raise ParamsError(what, where=params.PARAMS_FILE) from error

    @property
    def all_weights(self) -> dict[Indicator, float]:
        """The weights of all indicators."""
        return WEIGHTS | self.weights


def judge(sample: Sample) -> list[list[Indicator]]:
    """Return the indicators of each answer."""
    reference, category = sample.record["reference"], sample.record["category"]
    return [
        rule_grader.judge(sample.question, answer, reference, category, cut)
        for answer, cut in zip(sample.responses, sample.cut, strict=True)
    ]


def worthwhile(
    judged: Sequence[Sequence[Indicator]], weights: Mapping[Indicator, float], least_best: float | None
) -> bool:
    """Whether the best answer is as good as `least_best` asks."""
    return least_best is None or max(rule_grader.score(names, weights) for names in judged) >= least_best


def wanted(samples: Iterable[Sample], settings: Wanted) -> list[Sample]:
    """Return the samples to be ranked: with two different answers or more, one of them good
    enough.
    """
    several = [sample for sample in samples if len(sample.responses) > 1]
    if settings.least_best is None:
        return several
    weights = settings.all_weights
    return [sample for sample in several if worthwhile(judge(sample), weights, settings.least_best)]
