"""The champion's own data as histograms: what it was trained on and how it answered when it was
evaluated. What is asked of a served champion is compared with them.

The evaluation is known by its weights; the data are those that it was made with as long as
`dvc status` has nothing to say of them. Made once for a champion, and kept.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.core import params, records
from stages.common.runtime.errors import DataError
from stages.common.runtime.whole_files import written_whole
from stages.common.serving.drift import histograms
from stages.common.serving.drift.histograms import TEXT_AT_MOST, Profile
from stages.common.serving.drift.novelty import Known

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VALIDATED, EVALUATIONS = Path("data/validated"), Path("reports/evaluate")
PROMPTS_AT_MOST = 5_000
REFERENCES_KEPT = 20


@dataclass(frozen=True)
class Reference:
    """Histograms of a champion's prompts and answers, and the hashed features of its prompts."""

    weights_sha256: str
    profile: Profile
    known: Known

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all; the oldest of too many go."""
        folder.mkdir(parents=True, exist_ok=True)
        told = {"weights_sha256": self.weights_sha256, "profile": self.profile}
        with written_whole(place(folder, self.weights_sha256)) as file:
            file.write_text(json.dumps(told | {"features": sorted(self.known.counts.items())}), encoding="utf-8")
        for old in sorted(folder.glob("reference-*.json"), key=lambda one: one.stat().st_mtime)[:-REFERENCES_KEPT]:
            old.unlink()


def place(folder: Path, weights_sha256: str) -> Path:
    """Return where the reference of a champion is kept."""
    return folder / f"reference-{weights_sha256[:12]}.json"


def read(folder: Path, weights_sha256: str) -> Reference | None:
    """Return the reference of a champion, if it is there and whole."""
    try:
        told = json.loads(place(folder, weights_sha256).read_text(encoding="utf-8"))
        return Reference(told["weights_sha256"], told["profile"], Known(dict(told["features"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def made(
    weights_sha256: str,
    tokenizer: "PreTrainedTokenizerBase",
    validated: Path = VALIDATED,
    evaluations: Path = EVALUATIONS,
) -> Reference | None:
    """Return the reference of a champion from its data, None where they are not here."""
    evaluation = _evaluation(weights_sha256, evaluations)
    texts = prompts(validated) if evaluation else []
    if evaluation is None or not texts:
        return None
    profile: Profile = {}
    known = Known.of(texts)
    for text in texts:
        bins = histograms.of_prompt(text, tokenizer)
        histograms.add(profile, bins | known.bins(text, is_one_of_them=True))
    longest = _longest_answer()
    for answer in _answers(evaluation):
        tokens = len(tokenizer.encode(answer, add_special_tokens=False))
        cut = None if longest is None else tokens >= longest
        histograms.add(profile, histograms.of_answer(answer, tokens if cut else tokens + 1, cut))
    return Reference(weights_sha256, profile, known)


def prompts(validated: Path = VALIDATED) -> list[str]:
    """Return what was asked in training, a random sample of it where it is much: the last messages
    of the prompts, or where there are none what users say in the conversations.
    """
    for shape in ("prompts", "conversations"):
        try:
            if found := _sampled(_asked(validated / shape, last=shape == "prompts")):
                return found
        except DataError:  # no such files
            continue
    return []


def _asked(folder: Path, last: bool) -> Iterator[str]:
    for record in records.read(folder):
        turns = [turn["content"] for turn in record["messages"] if turn["role"] == "user"]
        yield from (turn[:TEXT_AT_MOST] for turn in (turns[-1:] if last else turns))


def _sampled(texts: Iterator[str]) -> list[str]:
    """Return PROMPTS_AT_MOST of the texts, each with the same chance (Vitter 1985, algorithm R)."""
    generator, kept = random.Random(0), list[str]()
    for number, text in enumerate(texts):
        if number < PROMPTS_AT_MOST:
            kept.append(text)
        elif (at := generator.randrange(number + 1)) < PROMPTS_AT_MOST:
            kept[at] = text
    generator.shuffle(kept)
    return kept


def _evaluation(weights_sha256: str, evaluations: Path) -> Path | None:
    for file in sorted(evaluations.glob("*/metrics.json")):
        if json.loads(file.read_text(encoding="utf-8")).get("weights_sha256") == weights_sha256:
            return file.parent
    return None


def _answers(evaluation: Path) -> Iterator[str]:
    with (evaluation / "answers.jsonl").open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield str(json.loads(line)["answer"])[:TEXT_AT_MOST]


def _longest_answer() -> int | None:
    """Return the longest answer of the evaluation, in tokens: one of that length was cut."""
    section = params.read_yaml(params.PARAMS_FILE).get("evaluate") or {}
    found = section.get("max_new_tokens")
    return int(found) if found else None
