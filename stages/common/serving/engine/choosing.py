"""Which requests join a batch, and the next tokens of its answers: each by its own sampling and
grammar, with their log-probabilities; beside the batch, a prompt's scores and a beam search.
"""

from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stages.common.generation.engines import structured
from stages.common.generation.generator import beam
from stages.common.generation.sampling import Sampling, choose, keys, uniforms
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.serving.engine import scores
from stages.common.serving.engine.requests import Finish, Piece, Ticket

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def next_in(waiting: "deque[Ticket]", rows: Sequence[Ticket], most: int, tokens: int | None) -> list[Ticket]:
    """Take from the queue, in order, what there is room for beside `rows`: `most` rows in all, and
    `tokens` of keys and values, which rows take alike. A row alone is always taken.
    """
    from stages.common.generation import kv_cache

    taken: list[Ticket] = []
    longest = max((row.end for row in rows), default=0)
    while waiting and not waiting[0].is_unscored:
        longest = max(longest, waiting[0].end)
        if len(rows) + len(taken) >= kv_cache.rows_within(tokens, longest + 1, most):
            break
        taken.append(waiting.popleft())
    return taken


def prepare(ticket: Ticket, model: "PreTrainedModel") -> None:
    """Give an answer that begins its random numbers and the tokens that count as seen."""
    import torch

    sampling = ticket.request.sampling
    if sampling.temperature:
        key = keys([ticket.request.prompt], sampling.seed)
        ticket.uniform = uniforms(key, np.zeros(1, np.uint64), ticket.limit)[0]
    if sampling.repetition_penalty != 1:
        size = model.get_output_embeddings().weight.shape[0]
        ticket.seen = torch.zeros(size, dtype=torch.bool, device=model.device)
        ticket.seen[ticket.request.prompt] = True


def chosen(rows: Sequence[Ticket], logits: "torch.Tensor") -> "torch.Tensor":
    """Return the next tokens [B] of `rows` for logits [B, V]; the grammars follow them."""
    import torch

    kept = [place for place, row in enumerate(rows) if row.matcher is not None]
    allowed = _allowed(rows, logits, kept) if kept else logits
    kinds: dict[Sampling, list[int]] = {}
    for place, row in enumerate(rows):
        kinds.setdefault(row.kind, []).append(place)
    tokens = torch.empty(len(rows), dtype=torch.long, device=logits.device)
    for sampling, places in kinds.items():
        alike = [rows[place] for place in places]
        seen = [row.seen for row in alike if row.seen is not None]
        drawn = [float(row.uniform[row.count]) for row in alike if row.uniform is not None]
        tokens[places] = choose(
            allowed if len(kinds) == 1 else allowed[places],
            sampling,
            torch.tensor(drawn, device=logits.device) if drawn else None,
            torch.stack(seen) if seen else None,
        )
    for place in kept:
        _follow(rows[place], int(tokens[place]))
    return tokens


def _allowed(rows: Sequence[Ticket], logits: "torch.Tensor", kept: Sequence[int]) -> "torch.Tensor":
    """Return the logits, -inf where a row's grammar allows no token. A grammar that fails ends its
    own answer alone.
    """
    found = logits.clone()
    for place in kept:
        try:
            found[place] = structured.masked([rows[place].matcher], logits[place : place + 1])[0]
        except ParamsError as error:
            rows[place].failed = error
    return found


def _follow(row: Ticket, token: int) -> None:
    try:
        structured.advance([row.matcher], [token])
    except ParamsError as error:
        row.failed = row.failed or error


def note(rows: Sequence[Ticket], logits: "torch.Tensor", tokens: "torch.Tensor", ends: Collection[int]) -> None:
    """Keep the log-probabilities of the tokens [B] that were chosen by logits [B, V], for the rows
    that want them.
    """
    asked = [place for place, row in enumerate(rows) if row.request.alternatives is not None]
    if not asked:
        return
    most = max(rows[place].request.alternatives or 0 for place in asked)
    for place, score in zip(asked, scores.of_tokens(logits[asked], tokens[asked], most), strict=True):
        row = rows[place]
        row.scores.append(score._replace(top=score.top[: row.request.alternatives], ends=score.token in ends))


def advance(row: Ticket, token: int, is_number: bool, ends: Collection[int]) -> bool:
    """Hand the row its token; return whether its answer is over."""
    if not is_number:
        remedy = "its training diverged or the file is damaged: use an earlier version"
        row.failed = DataError(f"the model's logits are not numbers, at token {row.count}", remedy=remedy)
    if row.failed:
        row.deliver(row.failed)
        return True
    row.token, row.position, row.count = token, row.position + 1, row.count + 1
    if row.seen is not None:
        row.seen[token] = True
    at_stop = token in ends
    if not at_stop:
        row.hear(token)
    finish: Finish | None = None
    if row.cancelled:
        finish = "cancelled"
    elif at_stop or row.text.ended:
        finish = "stop"
    elif row.count >= row.limit:
        finish = "length"
    row.tell(finish)
    return finish is not None


def score_prompt(model: "PreTrainedModel", ticket: Ticket, ends: Collection[int]) -> tuple[int, bool] | None:
    """Score the prompt; of an answer of one token return that, and whether its logits are numbers:
    they are at hand.
    """
    ticket.prompt_scores, logits = scores.of_prompt(model, ticket.request.prompt, ticket.request.alternatives or 0)
    if ticket.limit != 1:
        return None
    prepare(ticket, model)
    tokens = chosen([ticket], logits)
    note([ticket], logits, tokens, ends)
    return int(tokens[0]), bool(logits.amax().isfinite())


def searched(model: "PreTrainedModel", ticket: Ticket, stop: Sequence[int]) -> Piece:
    """Return an answer by beam search in one piece, for what is best is known only at the end."""
    asked = ticket.request
    (tokens,) = beam(
        model,
        [asked.prompt],
        beams=asked.beams,
        max_new_tokens=ticket.limit,
        stop=stop,
        repetition_penalty=asked.sampling.repetition_penalty,
        is_stopped=lambda: ticket.cancelled,
    )
    for token in tokens:
        ticket.text.add(token)
    text = ticket.text.take() + ticket.text.end()
    cut = len(tokens) >= ticket.limit and not ticket.text.ended
    return Piece(text, len(tokens), "cancelled" if ticket.cancelled else "length" if cut else "stop")
