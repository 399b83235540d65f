"""OpenAssistant's trees: a prompt, its ranked answers, what was said next; whole, or a row a
message.

Of each prompt the best answer (the lowest rank) goes on as a conversation, and all ranked answers
are a comparison. Deleted messages, and those that reviewers refused, are in no record.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from stages.common.core.records import Record, Shape, message
from stages.common.ingest.layouts.fields import Fields, Malformed, first, peek, string
from stages.common.ingest.layouts.turns import ROLES

DEEPEST = 200
UNUSED = "replies"
"""What a tree's messages in no record are counted as."""


class Node(NamedTuple):
    """A message of a tree: raw row, name, role, text, rank (0 is the best) and replies."""

    number: int
    name: str
    role: str
    text: str
    rank: float | None
    replies: list["Node"]


def is_tree(row: Record) -> bool:
    """Whether a row is a whole tree."""
    root = row.get("prompt")
    return isinstance(root, dict) and "text" in root and isinstance(root.get("replies"), list)


def is_message(row: Record) -> bool:
    """Whether a row is one message of a tree."""
    known = all(row.get(key) is not None for key in ("message_id", "message_tree_id", "text", "role"))
    return known and "parent_id" in row


def tree(row: Record) -> list[tuple[Shape, Record]]:
    """`{"prompt": {"text", "role", "replies": [{"text", "role", "rank"?, "replies"}, …]}}` ->
    conversations and comparisons.
    """
    row.get("message_tree_id")
    root = _node(0, row["prompt"], 0)
    made, used = made_of(root)
    unused = sum(1 for _ in _all(root)) - len(used)
    if unused and isinstance(row, Fields):
        row.lost.append((UNUSED, unused))
    if not made:
        raise Malformed("no answer", "nobody answers the prompt")
    return made


def joined(rows: list[tuple[int, Record]]) -> tuple[list[tuple[Shape, Record]], set[int]]:
    """Return the records of the messages of one tree, and the numbers of the rows in them. Raises
    Malformed.
    """
    replies: dict[str | None, list[tuple[int, Record]]] = {}
    for number, row in rows:
        parent = row.get("parent_id")
        row.get("message_tree_id")
        replies.setdefault(parent if isinstance(parent, str) else None, []).append((number, row))
    roots = replies.pop(None, [])
    if len(roots) != 1:
        raise Malformed("bad tree", f"{len(roots)} messages answer no other one")

    def grown(number: int, row: Record, depth: int) -> Node:
        node = _node(number, row, depth)
        below = replies.pop(node.name, [])
        return node._replace(replies=[grown(*one, depth + 1) for one in below if _is_fit(one[1])])

    made, used = made_of(grown(*roots[0], 0))
    return made, used


def made_of(root: Node) -> tuple[list[tuple[Shape, Record]], set[int]]:
    """Return the records of a tree, and the ids (`number`) of the messages in them."""
    made: list[tuple[Shape, Record]] = []
    used: set[int] = set()
    for path in _paths(root):
        if path[-1].role == "user":
            path = path[:-1]
        if len(path) > 1:
            said = [message(node.role, node.text) for node in path]
            record = {"messages": said, "tools": None}
            if ("conversations", record) not in made:
                made.append(("conversations", record))
            used |= {_identity(node) for node in path}
    for before, answers in _choices(root, []):
        order = {
            rank: place
            for place, rank in enumerate(sorted({node.rank for node in answers if node.rank is not None}), 1)
        }
        ranks = [order[node.rank] for node in answers if node.rank is not None]
        prompt = [message(node.role, node.text) for node in before]
        texts = [node.text for node in answers]
        made.append(("comparisons", {"prompt": prompt, "responses": texts, "ranks": ranks, "tools": None}))
        used |= {_identity(node) for node in [*before, *answers]}
    return made, used


def _identity(node: Node) -> int:
    return node.number or id(node)


def _paths(node: Node) -> Iterator[list[Node]]:
    """Yield the ways from a message to the last one: after a prompt the best answer, after an
    answer every prompt.
    """
    following = node.replies
    if node.role == "user" and following:
        following = [min(following, key=lambda reply: float("inf") if reply.rank is None else reply.rank)]
    if not following:
        yield [node]
    for reply in following:
        yield from ([node, *path] for path in _paths(reply))


def _choices(node: Node, before: list[Node]) -> Iterator[tuple[list[Node], list[Node]]]:
    """Yield every prompt that has ranked answers, with all that stands before it."""
    here = [*before, node]
    ranked = [reply for reply in node.replies if reply.rank is not None]
    if node.role == "user" and len(ranked) > 1:
        yield here, ranked
    for reply in node.replies:
        yield from _choices(reply, here)


def _all(node: Node) -> Iterator[Node]:
    yield node
    for reply in node.replies:
        yield from _all(reply)


def _node(number: int, row: Any, depth: int) -> Node:
    """Return a message with its replies, those that are fit. Raises Malformed."""
    if not isinstance(row, dict) or depth > DEEPEST:
        raise Malformed("bad tree", "a reply is no object, or the tree is too deep")
    name = row.get("role")
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role not in ("user", "assistant"):
        raise Malformed("bad role", f"{name!r}"[:200])
    rank = row.get("rank")
    below = row.get("replies") if peek(row, "replies") is not None else []
    if not isinstance(below, list):
        raise Malformed("bad tree", "the replies are no list")
    replies = [_node(number, reply, depth + 1) for reply in below if _is_fit(reply)]
    key = string(row, "message_id") if first(row, ("message_id",)) else ""
    return Node(number, key, role, string(row, "text"), rank if type(rank) in (int, float) else None, replies)


def _is_fit(row: Any) -> bool:
    return isinstance(row, dict) and not row.get("deleted") and row.get("review_result") is not False
