"""False alarms and planted shifts on what people really asked. Reference and window are drawn anew
from one pool without replacement, so nothing differs but chance.

LATHE_DRIFT_ROUNDS=200 measures what docs/log.md says.
"""

import gzip
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest

from stages.common.serving.drift import days, distances, histograms, novelty
from stages.common.serving.drift.distances import Drift
from stages.common.serving.drift.histograms import NO, YES, Bins, Profile
from stages.common.serving.drift.novelty import Known
from stages.common.text.refusals import refuses
from tests.support.real_data import REAL, needs_real_data
from tests.support.tiny import make_tokenizer

pytestmark = needs_real_data
ROUNDS = int(os.environ.get("LATHE_DRIFT_ROUNDS", "10"))
SETTINGS = Drift()
LONGEST = 200
"""Characters of a Chinese text: the test must be over in seconds."""


@pytest.fixture(autouse=True, scope="module")
def features_once() -> Iterator[None]:
    """A prompt has the same features in every round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(novelty, "features", cache(novelty.features))
        yield


class Talk(NamedTuple):
    """A question and its answer, with all bins but novelty, which depends on the reference."""

    prompt: str
    bins: Bins


def talk(prompt: str, answer: str) -> Talk:
    tokenizer = _tokenizer()
    tokens = len(tokenizer.encode(answer, add_special_tokens=False))
    return Talk(prompt, histograms.of_prompt(prompt, tokenizer) | histograms.of_answer(answer, tokens, None))


@cache
def _tokenizer() -> Any:
    return make_tokenizer()


@cache
def harmless() -> list[Talk]:
    """First questions of HH-RLHF with the answer to them; English."""
    with gzip.open(REAL / "hh_rlhf/harmless_base_test.jsonl.gz", "rt", encoding="utf-8") as file:
        turns = [json.loads(line)["chosen"].split("\n\nHuman: ")[1] for line in file]
    return [talk(*(part.strip() for part in turn.partition("\n\nAssistant:")[::2])) for turn in turns]


@cache
def chinese(name: str) -> list[Talk]:
    """First questions and answers of a file of MedicalGPT."""
    file = REAL / "medicalgpt" / name
    read = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    turns = [
        [turn["value"] for turn in json.loads(line)["conversations"]] for line in read.decode().splitlines() if line
    ]
    return [talk(turn[0][:LONGEST], turn[1][:LONGEST]) for turn in turns if len(turn) > 1]


@cache
def refused_at_times() -> list[Talk]:
    """All refusals of HH-RLHF among nineteen times as many other answers: of the 2 % that they are
    there a window of 1000 does not tell the double.
    """
    with gzip.open(REAL / "hh_rlhf/harmless_base_test.jsonl.gz", "rt", encoding="utf-8") as file:
        whole = [text for line in file for text in json.loads(line).values()]
    turns = dict.fromkeys(turn for text in whole for turn in text.split("\n\nHuman: ")[1:])
    both = [tuple(part.strip() for part in turn.partition("\n\nAssistant:")[::2]) for turn in turns]
    refused = [one for one in both if refuses(one[1])]
    others = [one for one in both if not refuses(one[1])][: 19 * len(refused)]
    return [talk(*one) for one in refused + others]


def medical() -> list[Talk]:
    return chinese("medical_sft_1K_format.jsonl")


def general() -> list[Talk]:
    return chinese("sharegpt_zh_1K_format.jsonl.gz")


def profile(talks: Sequence[Talk], known: Known, own: bool) -> Profile:
    found: Profile = {}
    for one in talks:
        histograms.add(found, one.bins | known.bins(one.prompt, is_one_of_them=own))
    return found


def halves(pool: Sequence[Talk], window: int, seed: int) -> tuple[list[Talk], list[Talk]]:
    drawn = random.Random(seed).sample(list(pool), len(pool))
    return drawn[window:], drawn[:window]


def drifted(reference: Sequence[Talk], window: Sequence[Talk], settings: Drift = SETTINGS) -> list[str]:
    known = Known.of(one.prompt for one in reference)
    both = profile(reference, known, own=True), profile(window, known, own=False)
    return [one.quantity for one in distances.levels(*both, settings) if one.is_drifted]


@pytest.mark.parametrize(("pool", "window"), [(harmless, 1000), (harmless, 200), (medical, 500), (general, 400)])
def test_equal_traffic_gives_hardly_an_alarm(pool: Callable[[], list[Talk]], window: int) -> None:
    alarms = [drifted(*halves(pool(), window, seed)) for seed in range(ROUNDS)]
    print(pool.__name__, window, sum(map(bool, alarms)), "of", ROUNDS, Counter(name for one in alarms for name in one))
    assert sum(map(bool, alarms)) <= max(1, ROUNDS // 20)


@pytest.mark.parametrize("pool", [harmless, medical])
def test_a_stream_of_equal_traffic_crosses_at_most_once_in_twenty_windows(pool: Callable[[], list[Talk]]) -> None:
    """The window of 1000 moves on by a tenth, so there are ten looks a window."""
    dice, known, counted, before = random.Random(1), Known.of(one.prompt for one in pool()), days.Days(), list[str]()
    rows = [one.bins | known.bins(one.prompt, is_one_of_them=True) for one in pool()]
    expected, crossings, windows = profile(pool(), known, own=True), list[str](), max(20, ROUNDS)
    for _ in range(windows * days.BLOCKS):
        for bins in dice.choices(rows, k=100):
            counted.add("today", bins)
        counted.turn()
        now = [one.quantity for one in distances.levels(expected, counted.window(), SETTINGS) if one.is_drifted]
        crossings += [name for name in now if name not in before]
        before = now
    print(pool.__name__, windows, "windows", Counter(crossings))
    assert len(crossings) <= max(1, windows // 20)


def mixed(share: float, other: Callable[[], list[Talk]]) -> Callable[[list[Talk], int], list[Talk]]:
    """Return what replaces a share of a window by other questions."""

    def mix(window: list[Talk], seed: int) -> list[Talk]:
        many = round(share * len(window))
        return window[many:] + random.Random(seed).choices(other(), k=many)

    return mix


def doubled(window: list[Talk], seed: int) -> list[Talk]:
    """Return prompts of twice the length: each with another behind it."""
    others = random.Random(seed).sample(window, len(window))
    pairs = (f"{one.prompt} {other.prompt}" for one, other in zip(window, others, strict=True))
    return [
        Talk(text, one.bins | histograms.of_prompt(text, _tokenizer())) for one, text in zip(window, pairs, strict=True)
    ]


def refusing(window: list[Talk], seed: int) -> list[Talk]:
    """Return the window with twice as many refusals."""
    rows = [one for one in window if one.bins["answer_refused"] == NO]
    refused = [one for one in window if one.bins["answer_refused"] == YES]
    return refused * 2 + rows[: len(window) - 2 * len(refused)]


PLANTED = [
    (harmless, 1000, mixed(0.10, medical), {"prompt_language"}),
    (harmless, 1000, doubled, {"prompt_tokens"}),
    (refused_at_times, 1000, refusing, {"answer_refused"}),
    (general, 400, mixed(0.5, medical), {"prompt_novelty", "prompt_tokens"}),
    (medical, 500, mixed(0.5, general), {"prompt_novelty"}),
]


@pytest.mark.parametrize(("pool", "window", "shift", "named"), PLANTED)
def test_a_planted_shift_is_named(
    pool: Callable[[], list[Talk]],
    window: int,
    shift: Callable[[list[Talk], int], list[Talk]],
    named: set[str],
) -> None:
    found = []
    for seed in range(max(3, ROUNDS // 4)):
        reference, drawn = halves(pool(), window, seed)
        found.append(set(drifted(reference, shift(drawn, seed))))
    print(pool.__name__, window, len(found), Counter(name for one in found for name in one))
    assert sum(bool(named & one) for one in found) >= 0.9 * len(found)
