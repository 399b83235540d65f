"""Ask a candidate the test questions, with and without worked examples, and measure what it says
and predicts.

Reads one model, data/validated/{questions,documents,conversations}, a round's held-out prompts and
a reward model. Writes reports/evaluate/<candidate>: metrics.json (95 % intervals), answers.jsonl,
shots.jsonl, accuracy.csv, shots.csv, losses.csv. Run: dvc repro evaluate@dpo
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import NonNegativeInt, PositiveInt

from stages.common.core import chat, left_out, models, params, records
from stages.common.evaluation import generate_answers, harness, metrics, perplexity, question_prompts, results
from stages.common.evaluation.generate_answers import Answer, Candidate
from stages.common.evaluation.grading import Grading
from stages.common.generation.engines import choice
from stages.common.ranking.llm_judge import JudgeParams
from stages.common.runtime import logs, process, ranks
from stages.common.runtime.errors import ParamsError
from stages.common.text.graders import Grader
from stages.common.tracking import session

if TYPE_CHECKING:
    from stages.common.tracking.run import Run

PROMPTS = ("chat", "plain", "base")


class Params(params.StageParams):
    """Section `evaluate` of params.yaml."""

    max_new_tokens: PositiveInt = 48
    """Longest answer."""
    max_tokens: PositiveInt = 256
    """Longest conversation or piece of a document whose perplexity is measured."""
    batch_size: PositiveInt = 64
    """Prompts answered at once."""
    shots: list[NonNegativeInt] = [0, 1, 5]
    """Numbers of worked examples before a question, each measured on every group."""
    grader: dict[str, Grader] = {}
    """How answers are graded, by group of questions (`*`: all others): `exact` (default),
    `contains`, `number`, `boxed` (LaTeX's box), `choice` (a letter) or `judge`.
    """
    judge: JudgeParams = JudgeParams()
    """The endpoint that the grader `judge` asks."""
    lm_eval: list[str] = []
    """Tasks of lm-evaluation-harness, by name; its data must be on this machine or its hub within
    reach.
    """


def main(
    candidate: Annotated[str, typer.Option(help="name of the candidate in reports")],
    model: Annotated[Path, typer.Option(help="folder of the model")],
    prompt: Annotated[str, typer.Option(help="chat; plain: as text; base: chat if it brought its template, or plain")],
    questions: Annotated[Path, typer.Option(help="validated questions")],
    documents: Annotated[Path, typer.Option(help="validated documents; their validation split is read")],
    conversations: Annotated[Path, typer.Option(help="validated conversations: examples from train, validation read")],
    out: Annotated[Path, typer.Option(help="folder of the report")],
    samples: Annotated[Path | None, typer.Option(help="samples of a round: its held-out prompts are asked too")] = None,
    reward: Annotated[Path | None, typer.Option(help="reward model that scores the answers")] = None,
    before: Annotated[str, typer.Option(help="candidate it was made from, to be compared with")] = "",
    tasks: Annotated[Path | None, typer.Option(help="folder of task files for lm-evaluation-harness")] = None,
) -> None:
    """Measure one candidate."""
    settings = params.load(Params, "evaluate")
    others = {"samples": samples, "reward": reward}
    inputs = {"model": model, "questions": questions} | {name: path for name, path in others.items() if path}
    if why := left_out.reason(model):
        if process.is_main_process():
            results.write_left_out(candidate, why, out)
            logs.report(f"left out: {why}")
        return
    if reward and left_out.reason(reward):
        reward = None
    sections = {"evaluate": settings.model_dump()} | choice.section()
    with session.start(f"evaluate-{candidate}", params=sections, inputs=inputs) as run:
        test = list(records.read(questions))
        asked = test + (held_out(samples) if samples else [])
        one = load(model, prompt, settings, asked)
        answers = generate_answers.ask(one, asked)
        examples = question_prompts.pool(records.read(conversations / "train"))
        shots = generate_answers.ask_with_shots(one, test, settings.shots, examples, answers[: len(test)])
        used = generate_answers.use_tools(one, records.read(conversations / "validation"))
        one = replace(one, policy=choice.readable(one.policy, model))
        if reward:
            generate_answers.add_rewards(answers, asked, one.prompt, reward)
        losses = read_texts(one, documents, conversations, settings.max_tokens)
        report = measure(answers, shots, losses, one.prompt)
        metrics.tools(report, used)
        ranks.once(lambda: harness.run(report, one, settings.lm_eval, tasks))
        if not process.is_main_process():
            return
        facts = identity(candidate, before or candidate, model, one.prompt, questions) | {
            "test_sha256": test_sha256(asked, documents, conversations, settings, tasks)
        }
        results.write(report, answers, shots, losses, out, facts)
        publish(report, answers, run, candidate)
    logs.report(headline(report, one.grading.of("iid")), compared(report))


def load(model: Path, prompt: str, settings: Params, asked: list[records.Record]) -> Candidate:
    """Return the candidate, ready to be asked. Raises ParamsError, and as `Grading.check`, before
    the model is read.
    """
    if prompt not in PROMPTS:
        raise ParamsError(f"--prompt is {prompt!r}, none of {', '.join(PROMPTS)}", where="dvc.yaml, candidates")
    grading = Grading(settings.grader, settings.judge)
    grading.check(asked)
    policy, tokenizer = choice.load(model, settings.batch_size), models.load_tokenizer(model)
    if prompt == "base":
        prompt = "chat" if chat.brought_template(tokenizer) else "plain"
    return Candidate(policy, tokenizer, prompt, settings.max_new_tokens, settings.batch_size, grading)


def held_out(samples: Path) -> list[records.Record]:
    """Return the held-out prompts of a round as questions of the group `prompts`; some have no
    reference.
    """
    names = ("id", "source", "messages", "reference", "category")
    rows = records.read(samples / "validation")
    return [{name: row[name] for name in names} | {"group": "prompts"} for row in rows]


def read_texts(
    one: Candidate, documents: Path, conversations: Path, max_tokens: int
) -> dict[str, list[tuple[float, int]]]:
    """Return (nats, tokens) of each held-out document, and of the assistant's tokens of each
    held-out conversation.
    """
    texts = (perplexity.whole(one.tokenizer, row["text"]) for row in records.read(documents / "validation"))
    dialogues = (
        chat.encode(one.tokenizer, row["messages"], row["tools"]) for row in records.read(conversations / "validation")
    )
    return {
        name: perplexity.losses(one.policy, rows, max_tokens, one.batch_size)
        for name, rows in (("documents", texts), ("conversations", dialogues))
    }


def measure(
    answers: list[Answer], shots: list[Answer], losses: dict[str, list[tuple[float, int]]], prompt: str
) -> metrics.Report:
    """Return all metrics of one candidate."""
    report = metrics.Report()
    metrics.accuracy(report, answers)
    for count in sorted({row["shots"] for row in shots}):
        metrics.accuracy(report, [row for row in shots if row["shots"] == count], f"shots-{count}")
    metrics.behaviour(report, answers, prompt)
    if answers and "reward" in answers[0]:
        metrics.rewards(report, answers)
    metrics.perplexities(report, losses)
    return report


def identity(candidate: str, before: str, model: Path, prompt: str, questions: Path) -> dict[str, Any]:
    """Return what was measured with which questions, by content."""
    return {
        "candidate": candidate,
        "before": before,
        "model": str(model),
        "prompt": prompt,
        "weights_sha256": models.weights_sha256(model),
        "questions_sha256": records.sha256(questions),
    }


def test_sha256(
    asked: list[records.Record], documents: Path, conversations: Path, settings: Params, tasks: Path | None
) -> str:
    """Return the hash of all that was asked and read, and how: evaluations with the same one
    compare pairwise.
    """
    engine = choice.section()["run"]
    parts = [
        *(json.dumps([row["id"], row["messages"], row["reference"]], sort_keys=True) for row in asked),
        *(records.sha256(folder / "validation") for folder in (documents, conversations)),
        settings.model_dump_json(),
        *([] if engine["engine"] == "local" else [json.dumps(engine, sort_keys=True)]),
    ]
    if tasks and settings.lm_eval:
        parts += [models.file_sha256(file) for file in sorted(tasks.rglob("*")) if file.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def publish(report: metrics.Report, answers: list[Answer], run: "Run", candidate: str) -> None:
    """Log metrics, the answers as a table and accuracy by group as a figure."""
    run.metrics(report.metrics)
    run.table("answers", answers)
    if any(name.startswith("accuracy/") for name in report.metrics):
        run.figure("accuracy-by-group", metrics.accuracy_figure(report, candidate))


def compared(report: metrics.Report) -> dict[str, float]:
    """Return what people compare: perplexity, behaviour, reward, and accuracy by group in all
    languages.
    """
    whole = [name for name in report.metrics if name.count("/") <= 1 and not name.startswith(("reward/", "shots-"))]
    return {name: report.metrics[name] for name in sorted(whole, key=lambda name: name.startswith("accuracy/"))}


def headline(report: metrics.Report, grader: Grader = "exact") -> str:
    """Return the one figure the closing table shows."""
    if "accuracy/iid" in report.metrics:
        low, high = report.intervals["accuracy/iid"]
        how = "exact match" if grader == "exact" else f"right by {grader}"
        return f"iid {how} {report.metrics['accuracy/iid']:.1%} [{low:.1%}, {high:.1%}]"
    return ", ".join(f"{name} {value:.2f}" for name, value in report.metrics.items() if name.startswith("perplexity/"))


if __name__ == "__main__":
    process.run("evaluate", main)
