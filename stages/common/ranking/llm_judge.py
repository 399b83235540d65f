"""A language model behind any OpenAI-compatible endpoint as annotator: every pair of answers is
asked in both orders.

A pair whose two verdicts do not agree is a tie, which takes out the judge's liking for the first
answer (Zheng et al. 2023). Replies are kept on disk, so nothing is asked, or paid, twice and a
stopped stage goes on where it was.
"""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from pydantic import PositiveInt

from stages.common.generation.engines.endpoint import Endpoint, EndpointParams
from stages.common.ranking.samples import Sample
from stages.common.text.rule_grader import ranks
from stages.common.text.thoughts import without_thoughts

CACHE = Path(".lathe/judge.sqlite")
INSTRUCTION = """You compare two answers of an assistant to the same conversation. The better one is correct, answers \
in the language of the question, refuses what is harmful and only that, admits what it does not know, is polite, \
complete and no longer than needed. Reply with A, B or TIE and nothing else."""
VERDICT = re.compile(r"\b(A|B|TIE)\b")


class JudgeParams(EndpointParams):
    """The judge's endpoint: an `EndpointParams` whose replies are short."""

    max_tokens: PositiveInt = 8
    """Longest reply; raise it for a judge that thinks aloud first."""


class Judge(Endpoint):
    """An endpoint that compares. `key` is where in params.yaml its settings are."""

    def __init__(self, settings: JudgeParams, cache: Path | None = None, key: str = "rank.judge") -> None:
        super().__init__(settings, CACHE if cache is None else cache, key, "judge")
        self.unreadable = 0

    def rank(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Return the ranks of each sample's responses by their number of wins, a tie counting half.

        Raises as `each` does.
        """
        pairs = [
            (sample, one, other) for sample in samples for one, other in combinations(range(len(sample.responses)), 2)
        ]
        won = self.each(self.compare, pairs)
        wins = {id(sample): [0.0] * len(sample.responses) for sample in samples}
        for (sample, one, other), points in zip(pairs, won, strict=True):
            wins[id(sample)][one] += points
            wins[id(sample)][other] += 1 - points
        return [ranks(wins[id(sample)]) for sample in samples]

    def compare(self, sample: Sample, one: int, other: int) -> float:
        """Return 1 when response `one` beats `other` in both orders, 0 when it loses in both, else
        1/2.
        """
        first = self.verdict(sample, one, other)
        second = self.verdict(sample, other, one)
        return {("A", "B"): 1.0, ("B", "A"): 0.0}.get((first, second), 0.5)

    def verdict(self, sample: Sample, shown_first: int, shown_second: int) -> str:
        """Return A, B or TIE: the last of these words in the reply, or TIE (and counted) for a
        reply without one.
        """
        return self.word(VERDICT, question(sample, shown_first, shown_second)) or "TIE"

    def word(self, verdict: re.Pattern[str], messages: list[dict[str, str]]) -> str:
        """Return the last verdict in what the judge says behind its thoughts, or "", counted as
        unreadable.
        """
        words = verdict.findall(without_thoughts(self.reply(messages).text))
        with self.lock:
            self.unreadable += not words
        return str(words[-1]) if words else ""

    def summary(self) -> dict[str, float]:
        """Return what judging these samples takes, and how many replies held no verdict."""
        return super().summary() | {"unreadable": self.unreadable}


def question(sample: Sample, shown_first: int, shown_second: int) -> list[dict[str, str]]:
    """Return the messages that ask which of two responses is better, without their thoughts."""
    first, second = (without_thoughts(sample.responses[at]) for at in (shown_first, shown_second))
    talk = "\n".join(f"{turn['role']}: {turn['content']}" for turn in sample.record["messages"])
    parts = [f"Conversation:\n{talk}"]
    if sample.record["reference"]:
        parts.append(f"A correct answer: {sample.record['reference']}")
    parts += [f"Answer A:\n{first}", f"Answer B:\n{second}"]
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "\n\n".join(parts)}]
