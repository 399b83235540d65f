"""Answers of GRPO's policy to prompts of its data set, and what the rewards say of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.common.generation import generator, shares
from stages.common.generation.batch import Continuation
from stages.common.generation.sampling import Sampling, earlier
from stages.common.grpo.scored import ASKED, Scored
from stages.common.reward import checked
from stages.common.reward.checked import Asked, Reward
from stages.common.runtime import ranks
from stages.common.runtime.progress import Progress


class Uncounted(Progress):
    """A short piece of work without a line of progress, done to its end."""

    def row(self, done: int) -> None:
        """Count one answer."""
        self.rows += 1


def decoded(
    answering: Any,
    prompts: list[list[int]],
    most: int,
    stops: Sequence[int],
    sampling: Sampling,
    batch_size: int,
    *,
    log_probabilities: bool = False,
    before: Sequence[int] | None = None,
) -> list[Continuation]:
    """Return the answer of a policy, or of an engine in its place, to each prompt."""
    found = generator.decode(
        answering,
        prompts,
        max_new_tokens=most,
        stop=stops,
        sampling=sampling,
        log_probabilities=log_probabilities,
        batch_size=batch_size,
        progress=Uncounted(len(prompts)),
        before=before,
    )
    return [one for (one,) in found]


def greedy(
    answering: Any, asked: Sequence[Mapping[str, Any]], most: int, stops: Sequence[int], batch_size: int
) -> list[list[int]]:
    """Return the greedy answer to each prompt of the data set as tokens, with its end; processes
    share the prompts.
    """
    prompts = [row["prompt"] for row in asked]
    return [tokens(one) for one in shared(answering, prompts, most, stops, Sampling(), batch_size)]


def shared(
    answering: Any,
    prompts: Sequence[list[int]],
    most: int,
    stops: Sequence[int],
    sampling: Sampling,
    batch_size: int,
    *,
    log_probabilities: bool = False,
) -> list[Continuation]:
    """Return what `decoded` does, in every process; they share the prompts."""
    same = earlier(prompts)

    def answered(mine: Iterator[slice]) -> Iterator[list[Continuation]]:
        for one in mine:
            yield decoded(
                answering,
                list(prompts[one]),
                most,
                stops,
                sampling,
                batch_size,
                log_probabilities=log_probabilities,
                before=same[one],
            )

    return [one for some in ranks.shared(shares.cut(len(prompts), batch_size), answered) for one in some]


def tokens(one: Continuation) -> list[int]:
    """Return an answer's tokens with the end of turn it gave."""
    return [*one.tokens, *([] if one.stop is None else [one.stop])]


def answered(
    tokenizer: Any,
    prompts: Sequence[dict[str, Any]],
    answers: Sequence[Sequence[int]],
    stops: Sequence[int],
    scored: Scored,
) -> list[dict[str, Any]]:
    """Return prompts with their answers (tokens, with their end) as rows to be looked at and
    measured.
    """
    ended = [bool(ids) and ids[-1] in stops for ids in answers]
    said = [list(ids[:-1] if whole else ids) for ids, whole in zip(answers, ended, strict=True)]
    texts = [str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in said]
    asked = [Asked(*(one[name] for name in ASKED)) for one in prompts]
    columns = scored.columns([one["prompt"] for one in prompts], said, texts, asked, [not one for one in ended])
    return [
        {
            "question": facts.question,
            "answer": text,
            "reference": facts.reference,
            "length": len(ids),
            "ended": whole,
            "reward": checked.total(scored.rewards, {name: values[at] for name, values in columns.items()}),
            **{f"reward/{name}": values[at] for name, values in columns.items()},
        }
        for at, (facts, text, ids, whole) in enumerate(zip(asked, texts, answers, ended, strict=True))
    ]


def figures(rows: Sequence[Mapping[str, Any]], rewards: Sequence[Reward]) -> dict[str, float]:
    """Return the means of `answered` rows; a reward that gave None does not count where it did."""
    names = ["reward", *(f"reward/{one.name}" for one in rewards), "length", "ended"]
    found = {name: [float(row[name]) for row in rows if row[name] is not None] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items() if values}
