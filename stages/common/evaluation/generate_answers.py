"""A candidate asked: greedy answers to questions, without and with worked examples, and their
rewards.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import models, records
from stages.common.evaluation import question_prompts
from stages.common.evaluation.grading import Grading
from stages.common.evaluation.metrics import digits
from stages.common.generation import shares
from stages.common.reward import scoring

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stages.common.generation.engines.vllm_process import Vllm

Answer = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """Who is asked, and how: `plain` (the question as text, judged by the line that follows) or
    `chat`.
    """

    policy: "PreTrainedModel | Vllm"
    tokenizer: "PreTrainedTokenizerBase"
    prompt: str
    max_new_tokens: int
    batch_size: int
    grading: Grading = field(default_factory=Grading)


def ask(candidate: Candidate, questions: Sequence[records.Record]) -> list[Answer]:
    """Return each question with the candidate's greedy answer and whether it is right (None: it has
    no reference).
    """
    if candidate.prompt == "chat":
        prompts = [question_prompts.turns(candidate.tokenizer, row, []) for row in questions]
    else:
        prompts = [question_prompts.bare(candidate.tokenizer, row) for row in questions]
    return _answers(candidate, questions, prompts, line=False)


def ask_with_shots(
    candidate: Candidate,
    questions: Sequence[records.Record],
    counts: Sequence[int],
    examples: dict[str, list[question_prompts.Shot]],
    answers: Sequence[Answer],
) -> list[Answer]:
    """Return the answers after each number of worked examples; a chat without any is asked as in
    `answers`.

    A base model gets marked questions (`Q: ... A: ...`) throughout, so that only the examples make
    the difference.
    """
    rows: list[Answer] = []
    for count in counts:
        given = answers
        if candidate.prompt == "plain" or count:
            encode = question_prompts.turns if candidate.prompt == "chat" else question_prompts.marked
            drawn = [question_prompts.draw(examples, row["messages"][-1]["content"], count) for row in questions]
            prompts = [encode(candidate.tokenizer, row, shots) for row, shots in zip(questions, drawn, strict=True)]
            given = _answers(candidate, questions, prompts, line=True)
        rows += [{"shots": count} | row for row in given]
    return rows


def add_rewards(answers: Sequence[Answer], questions: Sequence[records.Record], prompt: str, reward: Path) -> None:
    """Add the reward model's score to every answer."""
    texts = [question_prompts.said(row["answer"], prompt) for row in answers]
    judge, tokenizer = scoring.load(reward), models.load_tokenizer(reward)
    scores = scoring.score(judge, tokenizer, [row["messages"] for row in questions], texts)
    for row, value in zip(answers, scores, strict=True):
        row["reward"] = digits(value)


def _answers(
    candidate: Candidate, questions: Sequence[records.Record], prompts: Sequence[Sequence[int]], *, line: bool
) -> list[Answer]:
    if not questions:
        return []
    tokens = shares.generate(
        candidate.policy,
        prompts,
        max_new_tokens=candidate.max_new_tokens,
        stop=question_prompts.stops(candidate.tokenizer, candidate.prompt, line=line),
        batch_size=candidate.batch_size,
    )
    answers = [_row(candidate, row, ids) for row, ids in zip(questions, tokens, strict=True)]
    candidate.grading.grade(answers, candidate.prompt)
    return answers


def _row(candidate: Candidate, question: records.Record, ids: Sequence[int]) -> Answer:
    return {
        "id": question["id"],
        "group": question["group"],
        "category": question["category"],
        "language": (question["category"] or "").rpartition("/")[2],
        "question": question["messages"][-1]["content"],
        "reference": question["reference"],
        "answer": str(candidate.tokenizer.decode(ids, skip_special_tokens=True)),
    }
