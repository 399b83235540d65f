"""Conversations and texts as tokens: one rendering, used by training, evaluation and serving alike.

What ends a turn or a document is read off the template and the base's generation config, never off
names of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from stages.common.core import templates
from stages.common.core.records import Record, message
from stages.common.runtime.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

END_OF_DOCUMENT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_DOCUMENT, START_OF_TURN, END_OF_TURN)
"""Of a tokenizer that is trained here. A base brings its own."""
OF_BASE = "lathe"
"""Key of tokenizer_config.json, where a base was copied: {ends: the tokens that end its texts, new:
those added, kept: whether its template is its own}.
"""
PROBE = (("user", "Which word follows, number {}?"), ("assistant", "Word{}follows"))
"""A turn each, said to a template to see what it makes of them."""


@dataclass(frozen=True)
class Encoded:
    """A conversation as `input_ids`, and `assistant_mask`: 1 where the loss is taken. Both have the
    same length.
    """

    input_ids: list[int]
    assistant_mask: list[int]


class Form(NamedTuple):
    """What a tokenizer's template is like: the token that ends a turn; a template with marks, if
    there is one.
    """

    end_of_turn: int
    marked: str | None


def encode(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], tools: str | None = None) -> Encoded:
    """Return a whole conversation, with the mask of the tokens the assistant wrote (end of turn
    included).

    Where the assistant speaks last, it ends on the end of turn. Raises DataError for what the
    template refuses.
    """
    form = _form(tokenizer, str(tokenizer.chat_template))
    found = _closed(tokenizer, messages, tools, form)
    opening = _missing_opening(tokenizer, found.input_ids)
    return Encoded(opening + found.input_ids, [0] * len(opening) + found.assistant_mask)


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], tools: str | None = None
) -> list[int]:
    """Return the tokens that ask the assistant for its next turn."""
    ids = templates.prompt(tokenizer, messages, tools)
    return _missing_opening(tokenizer, ids) + ids


def encode_texts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[list[int]]:
    """Return plain texts as tokens: each begins as the tokenizer begins one (BOS, once), none is
    ended.
    """
    if not texts:
        return []
    opening = _opening(tokenizer)
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [ids if opening and ids[: len(opening)] == opening else opening + ids for ids in rows]


def check(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise DataError when the template gives no mask of what the assistant says, or ends
    no turn.
    """
    _form(tokenizer, str(tokenizer.chat_template))


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the id of the token that ends a turn. Raises DataError when the template has none."""
    return _form(tokenizer, str(tokenizer.chat_template)).end_of_turn


def end_of_document(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the id of the token that ends a document: the base's own, if it has one that ends no
    turn.
    """
    turn, ends = end_of_turn(tokenizer), base_ends(tokenizer)
    if OF_BASE not in tokenizer.init_kwargs and tokenizer.pad_token_id is not None:
        ends = [*ends, int(tokenizer.pad_token_id)]  # of a tokenizer trained here: texts are parted by its padding
    return next((token for token in ends if token != turn), turn)


def base_ends(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the ids at which the base ends what it says: its EOS, and all others in its generation
    config.
    """
    named = [tokenizer.eos_token, *of_base(tokenizer, "ends")]
    return list(dict.fromkeys(int(tokenizer.convert_tokens_to_ids(token)) for token in named if token))


def document_ends(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the ids at which plain text ends: the base's own that end no turn, or the end of turn
    if it has none.
    """
    found = dict.fromkeys([*base_ends(tokenizer), end_of_document(tokenizer)])
    return [token for token in found if token != end_of_turn(tokenizer)] or [end_of_turn(tokenizer)]


def stops(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the ids at which an answer ends: end of turn, or of the document. Raises as
    `end_of_turn` does.
    """
    return list(dict.fromkeys([end_of_turn(tokenizer), *base_ends(tokenizer), end_of_document(tokenizer)]))


def generation_ends(tokenizer: "PreTrainedTokenizerBase") -> int | list[int]:
    """Return `eos_token_id` for the generation config of a model that chats: one id, or all where a
    base has more.
    """
    ends = list(dict.fromkeys([end_of_turn(tokenizer), *base_ends(tokenizer)]))
    return ends[0] if len(ends) == 1 else ends


def end_with_turn(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Tell a base model's `generate` that an answer ends with its turn. Raises as `end_of_turn`
    does.
    """
    model.generation_config.eos_token_id = generation_ends(tokenizer)
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def brought_template(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the chat template is the base's own: it has read conversations in it."""
    return bool(tokenizer.init_kwargs.get(OF_BASE, {}).get("kept"))


def of_base(tokenizer: "PreTrainedTokenizerBase", key: str) -> list[str]:
    """Return the tokens of a base that was copied: its `ends`, or those `new` to it."""
    return list(tokenizer.init_kwargs.get(OF_BASE, {}).get(key, []))


@lru_cache(maxsize=16)
def _opening(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the tokens that the tokenizer puts before every text."""
    whole, bare = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (True, False))
    at = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)
    return list(whole[:at])


def _missing_opening(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> list[int]:
    opening = _opening(tokenizer)
    return [] if ids[: len(opening)] == opening else opening


@lru_cache(maxsize=16)
def _form(tokenizer: "PreTrainedTokenizerBase", template: str) -> Form:
    """Return the first form, by marks if any, in which two answers are marked as what the assistant
    said.
    """
    end, said, reasons = _end_of_turn(tokenizer), _probe(2), []
    added = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    for marked in (*templates.with_marks(tokenizer), None):
        try:
            found = _closed(tokenizer, said, None, Form(end, marked))
        except DataError as error:
            reasons.append(error.what)
            continue
        runs = [found.input_ids[start:stop] for start, stop in _runs(found.assistant_mask)]
        spoken = [str(tokenizer.decode(run)) for run in runs]
        answers = [one["content"] for one in said if one["role"] == "assistant"]
        whole = len(runs) == len(answers) and all(answer in run for answer, run in zip(answers, spoken, strict=True))
        if whole and all(run[-1] in added for run in runs) and runs[-1][-1] == end:
            return Form(end, marked)
        reasons.append(f"marked is {spoken}")
    what = f"the chat template does not tell what the assistant says: {'; '.join(reasons)}"
    raise DataError(what, remedy=templates.REMEDY)


def _probe(exchanges: int) -> list[Record]:
    return [message(role, said.format(number)) for number in range(1, exchanges + 1) for role, said in PROBE]


def _end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the first added token behind an answer: of the turn itself, or of the next where
    generation ends there.
    """
    said = _probe(2)
    added = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    for messages, allowed in ((said[:2], added), (said[:3], set(base_ends(tokenizer)))):
        _, answer, tail = templates.text(tokenizer, messages).rpartition(said[1]["content"])
        ids = tokenizer(tail, add_special_tokens=False)["input_ids"] if answer else []
        first = next((token for token in ids if token in added), None)
        if first is not None and first in allowed:
            return int(first)
    raise DataError("the chat template ends no answer with a token of its own", remedy=templates.REMEDY)


def _closed(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], tools: str | None, form: Form) -> Encoded:
    """Return the conversation with every run of the mask ending on an end of turn, and nothing
    after the last.
    """
    if form.marked is None:
        ids, mask = templates.by_turns(tokenizer, messages, tools)
    else:
        ids, mask = templates.by_marks(tokenizer, messages, tools, form.marked)
    ends = {form.end_of_turn, *base_ends(tokenizer)}
    for start, stop in _runs(mask):
        ending = [at for at in range(start, stop) if ids[at] in ends]
        last = max([at for at in ending if ids[at] == form.end_of_turn] or ending, default=None)
        if last is not None:
            mask[last + 1 : stop] = [0] * (stop - last - 1)  # a newline that the template writes is not learnt
        elif stop < len(ids) and ids[stop] in ends:
            mask[stop] = 1
    if messages[-1]["role"] == "assistant" and 1 in mask:
        last = len(mask) - mask[::-1].index(1)
        ids, mask = ids[:last], mask[:last]
        if ids[-1] not in ends:  # the template leaves it to the turn that would follow
            ids, mask = [*ids, form.end_of_turn], [*mask, 1]
    return Encoded(ids, mask)


def _runs(mask: Sequence[int]) -> list[tuple[int, int]]:
    """Return [start, stop) of every run of ones."""
    edges = [at for at in range(len(mask) + 1) if (mask[at - 1] if at else 0) != (mask[at] if at < len(mask) else 0)]
    return list(zip(edges[::2], edges[1::2], strict=True))
