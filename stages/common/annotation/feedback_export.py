"""What people said, as raw records that ingest reads: comparisons, conversations with a person's
answer, and answers that were liked or disliked by themselves.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stages.common.annotation import feedback
from stages.common.annotation.feedback import Demonstration, Edit, Line, Opinion, Ordered, Vote
from stages.common.core.records import Record
from stages.common.text import content_hash, normalisation, rule_grader

EVEN = "liked as often as disliked, and so each other answer to the same conversation"
TAKEN_BACK = "taken back"
REPLACED = "replaced by a later word of the same person"
TIED = "rankings that prefer no answer"
UNCHANGED = "edits that change nothing, or leave nothing"
EMPTY = "without an answer or a question"
APART = "votes between conversations that went apart before their last answers"
EQUAL = "votes for one of two answers that read the same"
NO_PAIR = {
    "tie": "votes that hold both answers good: each is labelled as liked",
    "both bad": "votes that hold both answers bad: each is labelled as not liked",
}

Key = tuple[object, ...]


class Exported(NamedTuple):
    """The records in the order of their first line, how many lines each kind gave, those left out
    by reason, and votes among those taken that make no pair, by reason.
    """

    comparisons: list[Record]
    conversations: list[Record]
    labelled: list[Record]
    taken: Counter[str]
    left_out: Counter[str]
    no_pair: Counter[str]


def export(lines: Iterable[Line]) -> Exported:
    """Return the records that the lines give; the same lines give the same records.

    A person's later word on the same answers replaces the earlier one. A ranking is a comparison,
    an edit a comparison of two and a conversation, a demonstration a conversation. Opinions are a
    comparison where at least two answers to one conversation are liked to a different degree: likes
    less dislikes, each visitor counted once an answer. Elsewhere each answer is labelled by them. A
    vote is a comparison of the two answers, or labels both where it is for neither.
    """
    exported = Exported([], [], [], Counter(), Counter(), Counter())
    last: dict[Key, Line] = {}
    for line in lines:
        key = _identity(line)
        exported.left_out[REPLACED] += key in last
        last[key] = line
    opinions: dict[bytes, list[Opinion]] = {}
    for line in last.values():
        if isinstance(line, Opinion) and line.liked is not None:
            opinions.setdefault(_conversation(line), []).append(line)
    for line in last.values():
        if isinstance(line, Vote):
            _add_vote(line, exported)
        elif not isinstance(line, Opinion):
            _add(line, exported)
        elif line.liked is None:
            exported.left_out[TAKEN_BACK] += 1
        elif group := opinions.pop(_conversation(line), None):
            _add_opinions(group, exported)
    return exported


def _add(line: Ordered | Edit | Demonstration, to: Exported) -> None:
    """Add what a ranking, an edit or a demonstration gives."""
    if isinstance(line, Ordered):
        record = _comparison(line.messages, line.responses, [-rank for rank in line.ranks], line.annotator)
        reason = "" if record else TIED
    elif isinstance(line, Edit):
        record = _comparison(line.messages, [line.better, line.response], [1, 0], line.annotator)
        reason = "" if record and line.better.strip() else UNCHANGED
    else:
        record, reason = None, ""
    if not _is_whole(line.messages) or (line.kind == "demonstration" and not line.response.strip()):
        reason = EMPTY
    if reason:
        to.left_out[reason] += 1
        return
    if record:
        to.comparisons.append(record)
    answer = {"edit": "better", "demonstration": "response"}.get(line.kind)
    if answer:
        said = {"role": "assistant", "content": getattr(line, answer)}
        to.conversations.append({"messages": [*line.messages, said]})
    to.taken[line.kind] += 1


def _add_vote(line: Vote, to: Exported) -> None:
    """Add what a vote says of the two last answers. A vote for one of them is a comparison where
    both have the same conversation before them; one for neither holds of each by itself.
    """
    sides = [line.left, line.right]
    before = [feedback.before_last(line.messages, side.answers) for side in sides]
    last = [side.answers[-1] if side.answers else "" for side in sides]
    if not _is_whole(line.messages) or not all(one.strip() for one in last):
        to.left_out[EMPTY] += 1
    elif line.vote in NO_PAIR:
        told = [[*asked, {"role": "assistant", "content": text}] for asked, text in zip(before, last, strict=True)]
        told = told[:1] if _turns(told[0]) == _turns(told[1]) else told
        to.labelled.extend({"messages": turns, "label": line.vote == "tie"} for turns in told)
        to.no_pair[NO_PAIR[line.vote]] += 1
        to.taken[line.kind] += 1
    elif _turns(before[0]) != _turns(before[1]):
        to.left_out[APART] += 1
    elif record := _comparison(before[0], last, [side is line.preferred for side in sides], line.annotator):
        to.comparisons.append(record)
        to.taken[line.kind] += 1
    else:
        to.left_out[EQUAL] += 1


def _add_opinions(group: Sequence[Opinion], to: Exported) -> None:
    """Add the comparison of the answers to one conversation that visitors liked to different
    degrees, or each of those that they liked, or disliked, alike.
    """
    votes: Counter[str] = Counter()
    texts: dict[str, str] = {}
    for one in group:
        key = normalisation.key(one.response)
        texts.setdefault(key, one.response)
        votes[key] += 1 if one.liked else -1
    asked = group[0].messages
    record = _comparison(asked, list(texts.values()), [votes[key] for key in texts], "page")
    reason = "" if _is_whole(asked) else EMPTY
    if record and not reason:
        to.comparisons.append(record)
    elif not reason and not any(votes.values()):
        reason = EVEN
    elif not reason:  # all are liked alike, or disliked
        said = [[*asked, {"role": "assistant", "content": text}] for text in texts.values()]
        to.labelled.extend({"messages": turns, "label": votes.total() > 0} for turns in said)
    (to.left_out if reason else to.taken)[reason or "opinion"] += len(group)


def _comparison(
    messages: list[dict[str, str]], responses: Sequence[str], scores: Sequence[float], annotator: str
) -> Record | None:
    """Return answers with their ranks by score, or None where no two that read differently score
    differently.
    """
    first: dict[str, tuple[str, float]] = {}
    for response, score in zip(responses, scores, strict=True):
        first.setdefault(normalisation.key(response), (response, score))
    kept = list(first.values())
    ranks = rule_grader.ranks([score for _, score in kept])
    if len(set(ranks)) < 2:
        return None
    texts = [response for response, _ in kept]
    return {"prompt": messages, "responses": texts, "ranks": ranks, "annotator": annotator}


def _is_whole(messages: Sequence[dict[str, str]]) -> bool:
    """Whether there is a question, and it is the last thing said."""
    return bool(messages) and messages[-1]["role"] == "user" and bool(messages[-1]["content"].strip())


def _conversation(line: Line) -> bytes:
    return _turns(line.messages)


def _turns(messages: Sequence[dict[str, str]]) -> bytes:
    return content_hash.digest([[one["role"], normalisation.key(one["content"])] for one in messages])


def _identity(line: Line) -> Key:
    """Return what a later line has in common with the one it replaces: who spoke, and of which
    answers.
    """
    if isinstance(line, Vote):
        return line.kind, line.annotator, line.conversation
    if isinstance(line, Ordered):
        about = tuple(sorted(normalisation.key(response) for response in line.responses))
    else:
        about = () if line.kind == "demonstration" else (normalisation.key(line.response),)
    return line.kind, line.annotator, _conversation(line), about
