"""What people said, as raw records that ingest reads: comparisons, conversations with a person's
answer, and answers that were liked or disliked by themselves.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stages.common.annotation.feedback import Edit, Line, Opinion, Ordered
from stages.common.core.records import Record
from stages.common.text import content_hash, normalisation, rule_grader

EVEN = "liked as often as disliked, and so each other answer to the same conversation"
TAKEN_BACK = "taken back"
REPLACED = "replaced by a later word of the same person"
TIED = "rankings that prefer no answer"
UNCHANGED = "edits that change nothing, or leave nothing"
EMPTY = "without an answer or a question"

Key = tuple[object, ...]


class Exported(NamedTuple):
    """The records in the order of their first line, how many lines each kind gave, and those left
    out by reason.
    """

    comparisons: list[Record]
    conversations: list[Record]
    labelled: list[Record]
    taken: Counter[str]
    left_out: Counter[str]


def export(lines: Iterable[Line]) -> Exported:
    """Return the records that the lines give; the same lines give the same records.

    A person's later word on the same answers replaces the earlier one. A ranking is a comparison,
    an edit a comparison of two and a conversation, a demonstration a conversation. Opinions are a
    comparison where at least two answers to one conversation are liked to a different degree: likes
    less dislikes, each visitor counted once an answer. Elsewhere each answer is labelled by them.
    """
    exported = Exported([], [], [], Counter(), Counter())
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
        if not isinstance(line, Opinion):
            _add(line, exported)
        elif line.liked is None:
            exported.left_out[TAKEN_BACK] += 1
        elif group := opinions.pop(_conversation(line), None):
            _add_opinions(group, exported)
    return exported


def _add(line: Line, to: Exported) -> None:
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
    return content_hash.digest([[one["role"], normalisation.key(one["content"])] for one in line.messages])


def _identity(line: Line) -> Key:
    """Return what a later line has in common with the one it replaces: who spoke, and of which
    answers.
    """
    if isinstance(line, Ordered):
        about = tuple(sorted(normalisation.key(response) for response in line.responses))
    else:
        about = () if line.kind == "demonstration" else (normalisation.key(line.response),)
    return line.kind, line.annotator, _conversation(line), about
