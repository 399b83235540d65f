"""Ranks for the answers of a round: by rules, a judge endpoint, people, or an earlier reward model.

Reads data/samples/<round>, the comparisons before it (and people's rankings, or a reward model).
Writes data/comparisons/<round>, in the splits of the samples, data/pools/<round>, with all earlier
ones, and a report with the agreement between annotators. Run: dvc repro rank@r1
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import Field

from stages.common.annotation import ranking_store
from stages.common.core import left_out, models, params
from stages.common.core.left_out import LackError
from stages.common.core.records import SPLITS, Record
from stages.common.pairs import losses
from stages.common.ranking import samples as drawn
from stages.common.ranking.eligibility import Wanted, judge, worthwhile
from stages.common.ranking.llm_judge import Judge, JudgeParams
from stages.common.ranking.samples import Sample
from stages.common.reward import scoring
from stages.common.runtime import logs, process, ranks
from stages.common.runtime.errors import ParamsError
from stages.common.text import rule_grader
from stages.common.text.parquet_writer import Shards, write_json
from stages.common.text.rule_grader import Indicator
from stages.common.text.thoughts import without_thoughts
from stages.common.tracking import lineage, session
from stages.common.tracking.figures import bars

Annotator = Literal["rules", "judge", "human", "reward"]
Ranks = Sequence[list[int] | None]


class Params(Wanted):
    """Section `rank` of params.yaml; which samples are ranked at all:
    stages/common/ranking/eligibility.py.
    """

    annotators: Annotated[list[Annotator], Field(min_length=1)] = ["rules"]
    """The first one ranks; the others are compared with it and with each other."""
    judge: JudgeParams = JudgeParams()
    """The endpoint that `judge` asks."""


def main(
    samples: Annotated[Path, typer.Option(help="answers of the round")],
    out: Annotated[Path, typer.Option(help="folder of the comparisons")],
    earlier: Annotated[Path, typer.Option(help="comparisons given, or the pool of the round before")],
    pool: Annotated[Path, typer.Option(help="folder of all comparisons so far: the earlier ones and these")],
    report: Annotated[Path, typer.Option(help="JSON report")],
    human: Annotated[Path | None, typer.Option(help="people's rankings, JSON lines")] = None,
    reward: Annotated[Path | None, typer.Option(help="folder of an earlier reward model")] = None,
) -> None:
    """Rank every prompt's answers."""
    settings = params.load(Params, "rank")
    asked = {"human": human, "reward": reward}
    inputs = {"samples": samples} | {name: path for name, path in asked.items() if path and name in settings.annotators}
    with session.start("rank", params={"rank": settings.model_dump()}, inputs=inputs) as run:
        main_process = process.is_main_process()
        if human and "human" in settings.annotators:
            lineage.check_copy(human.parent)
        if main_process:  # what is left with nothing to rank
            write({split: [] for split in SPLITS}, {}, settings.annotators[0], out)
        with left_out.allowed(reports=[report]):
            facts = rank(settings, samples, out, human, reward)
            if not main_process:
                return
            write_json(report, facts)
            if "rules" in facts:
                run.figure("indicators", bars(facts["rules"]["indicators"], "answers by indicator"))
            ranked = sum(facts["comparisons"][split] for split in SPLITS)
            agree = {f"agreement/{pair}": cell["value"] for pair, cell in facts["agreement"].items()}
            run.metrics(agree)
            logs.report(f"{ranked:,} comparisons ranked by {settings.annotators[0]}", facts["comparisons"] | agree)
        if main_process:
            join([earlier, out], pool)


def rank(settings: Params, samples: Path, out: Path, human: Path | None, reward: Path | None) -> dict[str, Any]:
    """Rank the samples, write the comparisons and return the report; processes that only help to
    score return nothing.
    """
    found = {split: list(drawn.read(samples, split)) for split in SPLITS}
    several = [sample for split in SPLITS for sample in found[split] if len(sample.responses) > 1]
    weights = settings.all_weights
    judged = {id(sample): judge(sample) for sample in several}
    everything = [sample for sample in several if worthwhile(judged[id(sample)], weights, settings.least_best)]
    if not everything:
        what = f"no prompt to rank: {len(several):,} with two different answers, none of them a good one"
        raise LackError(what, where=samples, remedy="raise sample.temperature, or lower rank.least_best")
    by_rule = by_rules([judged[id(sample)] for sample in everything], weights)
    rankings, facts = annotate(settings, everything, by_rule, human, reward)
    if not process.is_main_process():
        return {}
    first = settings.annotators[0]
    ranked = dict(zip(map(id, everything), rankings[first], strict=True))
    counts = write(found, ranked, first, out)
    counts["none_good"] = len(several) - len(everything)
    counts["not_ranked"] -= counts["none_good"]
    return {"comparisons": counts, "agreement": losses.agreement(rankings)} | facts


def annotate(
    settings: Params,
    samples: Sequence[Sample],
    by_rule: tuple[Ranks, dict[str, Any]],
    human: Path | None,
    reward: Path | None,
) -> tuple[dict[str, Ranks], dict[str, Any]]:
    """Return the ranks each listed annotator gives (None: has not ranked it), and facts for the
    report.
    """
    rankings: dict[str, Ranks] = {}
    facts: dict[str, Any] = {}
    for name in settings.annotators:
        if name == "rules":
            rankings[name], facts[name] = by_rule
        elif name == "judge":
            rankings[name], facts[name] = ranks.once(lambda: by_judge(samples, settings.judge))
        elif name == "human":
            waits = name == settings.annotators[0]
            rankings[name] = ranking_store.by_people(
                samples, given(human, name), settings.human_share if waits else 0.0
            )
            facts[name] = ranking_store.people_agree(samples, given(human, name))
        else:
            rankings[name] = by_reward(samples, given(reward, name))
    return rankings, facts


def given(path: Path | None, annotator: Annotator) -> Path:
    """Return the annotator's path. Raises ParamsError when the command line has none."""
    if path is None:
        raise ParamsError(f"annotator '{annotator}' needs --{annotator}", where=params.PARAMS_FILE)
    return path


def by_rules(
    judged: Sequence[Sequence[Sequence[Indicator]]], weights: Mapping[Indicator, float]
) -> tuple[Ranks, dict[str, Any]]:
    """Return ranks by the sum of each answer's indicators, and how many answers have each."""
    counts = Counter(name for answers in judged for names in answers for name in names)
    found = [rule_grader.ranks([rule_grader.score(names, weights) for names in answers]) for answers in judged]
    return found, {"indicators": dict(sorted(counts.items())), "answers": sum(map(len, judged))}


def by_judge(samples: Sequence[Sample], settings: JudgeParams) -> tuple[Ranks, dict[str, Any]]:
    """Return the ranks that the endpoint gives, and what it was asked."""
    with Judge(settings) as endpoint:
        return endpoint.rank(samples), endpoint.summary()


def by_reward(samples: Sequence[Sample], folder: Path) -> Ranks:
    """Return ranks by the score that the reward model in `folder` gives what each answer says."""
    prompts = [sample.record["messages"] for sample in samples for _ in sample.responses]
    texts = [without_thoughts(response) for sample in samples for response in sample.responses]
    scores = iter(scoring.score(scoring.load(folder), models.load_tokenizer(folder), prompts, texts))
    return [rule_grader.ranks([next(scores) for _ in sample.responses]) for sample in samples]


def write(
    found: Mapping[str, Sequence[Sample]], ranked: Mapping[int, list[int] | None], annotator: str, out: Path
) -> dict[str, int]:
    """Write one comparison a ranked sample, in its split; return the counts."""
    counts: Counter[str] = Counter(dict.fromkeys((*SPLITS, "all_tied", "one_answer", "not_ranked"), 0))
    with Shards({out / split: "comparisons" for split in SPLITS}) as shards:
        for split in SPLITS:
            for sample in found[split]:
                ranks = ranked.get(id(sample))
                if ranks is None:
                    counts["not_ranked" if len(sample.responses) > 1 else "one_answer"] += 1
                    continue
                counts[split] += 1
                counts["all_tied"] += len(set(ranks)) == 1
                shards.add(out / split, comparison(sample, ranks, annotator))
    return dict(counts)


def join(folders: Sequence[Path], pool: Path) -> None:
    """Copy the comparisons of several folders into one, split by split."""
    for split in SPLITS:
        (pool / split).mkdir(parents=True, exist_ok=True)
        parts = [part for folder in folders for part in sorted((folder / split).glob("*.parquet"))]
        for number, part in enumerate(parts):
            shutil.copyfile(part, pool / split / f"part-{number:05d}.parquet")


def comparison(sample: Sample, ranks: list[int], annotator: str) -> Record:
    """Return a ranked sample as a comparison."""
    record = sample.record
    return {
        "id": record["id"],
        "source": record["source"],
        "prompt": record["messages"],
        "responses": sample.responses,
        "ranks": ranks,
        "annotator": annotator,
        "categories": [record["category"]] if record["category"] else None,
        "tools": None,
    }


if __name__ == "__main__":
    process.run("rank", main)
