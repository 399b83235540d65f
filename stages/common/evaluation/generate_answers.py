"""A candidate asked: greedy answers to questions, without and with worked examples, and their
rewards; calls of tools, and what it says of their results.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import chat, models, records
from stages.common.evaluation import question_prompts
from stages.common.evaluation.grading import Grading
from stages.common.evaluation.metrics import digits
from stages.common.generation import generator, shares
from stages.common.reward import scoring
from stages.common.runtime.logs import log

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


def use_tools(candidate: Candidate, conversations: Iterable[records.Record]) -> dict[str, list[bool]]:
    """Return of each held-out turn of a chat that calls a tool (`call`), or that follows a tool's
    result (`answer`), whether the candidate says it to the letter, given all before it. Turns that
    the model's context has no room for are left out.
    """
    turns: list[tuple[str, list[int], list[int]]] = []
    for row in conversations if candidate.prompt == "chat" else ():
        turns += _tool_turns(candidate.tokenizer, row) if row["tools"] else []
    limit = generator.context(candidate.policy)
    asked = [turn for turn in turns if limit is None or len(turn[1]) + len(turn[2]) <= limit]
    if len(asked) < len(turns):
        what = "%s of %s held-out turns with tools are left out: they are longer than the model's context of %s tokens"
        log.warning(what, len(turns) - len(asked), len(turns), limit)
    found: dict[str, list[bool]] = {}
    if asked:
        said = shares.generate(
            candidate.policy,
            [before for _, before, _ in asked],
            max_new_tokens=candidate.max_new_tokens,
            stop=question_prompts.stops(candidate.tokenizer, candidate.prompt, line=False),
            batch_size=candidate.batch_size,
        )
        for (kind, _, due), ids in zip(asked, said, strict=True):
            found.setdefault(kind, []).append(_text(candidate.tokenizer, ids) == _text(candidate.tokenizer, due))
    return found


def _tool_turns(tokenizer: "PreTrainedTokenizerBase", row: records.Record) -> list[tuple[str, list[int], list[int]]]:
    """Return kind, tokens before and tokens of each turn that has to do with a tool; a template
    that writes what is before a turn otherwise without it has none.
    """
    found = []
    for at, turn in enumerate(row["messages"]):
        if turn["role"] == "assistant" and (turn["tool_calls"] or (at and row["messages"][at - 1]["role"] == "tool")):
            before = chat.encode_prompt(tokenizer, row["messages"][:at], row["tools"])
            whole = chat.encode(tokenizer, row["messages"][: at + 1], row["tools"]).input_ids
            if whole[: len(before)] == before:
                found.append(("call" if turn["tool_calls"] else "answer", before, whole[len(before) :]))
    return found


def _text(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


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
