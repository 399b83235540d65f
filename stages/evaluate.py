"""Ask a candidate the test questions and measure how well it predicts held-out text, with 95 % intervals.

Reads one model, data/validated/{questions,documents,conversations}. Writes reports/evaluate/<candidate>: metrics.json,
answers.jsonl, accuracy.csv. Run: dvc repro evaluate@sft
"""

import csv
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stages.common import chat, generation, journal, likelihood, models, params, process, records, tracking
from stages.common.answers import matches
from stages.common.statistics import wilson

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stages.common.run import Run

log = logging.getLogger("lathe")
Prompt = Literal["plain", "chat"]


class Params(params.StageParams):
    """Section `evaluate` of params.yaml."""

    max_new_tokens: int = 48
    """Longest answer."""
    max_tokens: int = 256
    """Longest conversation or piece of a document whose perplexity is measured."""
    batch_size: int = 64
    """Prompts answered at once."""


@dataclass
class Report:
    """What is measured of one candidate: point values, 95 % intervals and sample sizes, by metric name."""

    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: float, interval: tuple[float, float], count: int) -> None:
        """Add one metric; six significant digits are written, so that reports compare across machines."""
        self.metrics[name] = float(f"{value:.6g}")
        self.intervals[name] = (float(f"{interval[0]:.6g}"), float(f"{interval[1]:.6g}"))
        self.counts[name] = count


def main(
    candidate: Annotated[str, typer.Option(help="name of the candidate in reports")],
    model: Annotated[Path, typer.Option(help="folder of the model")],
    prompt: Annotated[str, typer.Option(help="plain: the question as text; chat: through the chat template")],
    questions: Annotated[Path, typer.Option(help="validated questions")],
    documents: Annotated[Path, typer.Option(help="validated documents; their validation split is read")],
    conversations: Annotated[Path, typer.Option(help="validated conversations; their validation split is read")],
    out: Annotated[Path, typer.Option(help="folder of the report")],
) -> None:
    """Measure one candidate."""
    settings = params.load(Params, "evaluate")
    inputs = {"model": model, "questions": questions}
    with tracking.start(f"evaluate-{candidate}", params={"evaluate": settings.model_dump()}, inputs=inputs) as run:
        policy, tokenizer = models.load(model), models.load_tokenizer(model)
        policy.to(models.device())
        answers = ask(policy, tokenizer, list(records.read(questions)), prompt, settings)
        report = accuracy(answers)
        likelihood_of(report, policy, tokenizer, documents, conversations, settings)
        write(report, answers, out, identity(candidate, model, prompt, questions))
        publish(report, answers, run, candidate)
    journal.report(headline(report))


def ask(
    policy: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    questions: list[records.Record],
    prompt: str,
    settings: Params,
) -> list[dict[str, Any]]:
    """Return each question with the candidate's greedy answer and whether it matches the reference exactly.

    A plain prompt is the question as the first line of a text; the answer is judged by the line that follows.
    """
    if prompt == "chat":
        prompts = [chat.encode_prompt(tokenizer, row["messages"]) for row in questions]
        stop = [chat.end_of_turn(tokenizer), tokenizer.convert_tokens_to_ids(chat.END_OF_DOCUMENT)]
    else:
        prompts = [tokenizer(row["messages"][-1]["content"] + "\n")["input_ids"] for row in questions]
        stop = [tokenizer.convert_tokens_to_ids(chat.END_OF_DOCUMENT)]
    tokens = generation.generate(
        policy, prompts, max_new_tokens=settings.max_new_tokens, stop=stop, pad=stop[-1], batch_size=settings.batch_size
    )
    texts = [str(tokenizer.decode(answer, skip_special_tokens=True)) for answer in tokens]
    rows = []
    for row, text in zip(questions, texts, strict=True):
        judged = text if prompt == "chat" else text.split("\n")[0]
        rows.append(
            {
                "id": row["id"],
                "group": row["group"],
                "category": row["category"],
                "language": (row["category"] or "").rpartition("/")[2],
                "question": row["messages"][-1]["content"],
                "reference": row["reference"],
                "answer": text,
                "correct": matches(judged, row["reference"]),
            }
        )
    return rows


def accuracy(answers: list[dict[str, Any]]) -> Report:
    """Return exact-match accuracy by group, and by group and language, with Wilson intervals."""
    report = Report()
    cells: dict[str, list[bool]] = {}
    for row in answers:
        cells.setdefault(f"accuracy/{row['group']}", []).append(row["correct"])
        if row["language"]:
            cells.setdefault(f"accuracy/{row['group']}/{row['language']}", []).append(row["correct"])
    for name, correct in sorted(cells.items()):
        report.add(name, sum(correct) / len(correct), wilson(sum(correct), len(correct)), len(correct))
    return report


def likelihood_of(
    report: Report,
    policy: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    documents: Path,
    conversations: Path,
    settings: Params,
) -> None:
    """Add perplexity per token on held-out documents, and on the assistant's tokens of held-out conversations."""
    texts = (likelihood.whole(tokenizer, row["text"]) for row in records.read(documents / "validation"))
    dialogues = (
        chat.encode(tokenizer, row["messages"], row["tools"]) for row in records.read(conversations / "validation")
    )
    for name, rows in (("documents", texts), ("conversations", dialogues)):
        scored = likelihood.perplexity(policy, rows, settings.max_tokens, settings.batch_size)
        if scored is not None:
            report.add(f"perplexity/{name}", scored.value, scored.interval, scored.tokens)


def identity(candidate: str, model: Path, prompt: str, questions: Path) -> dict[str, Any]:
    """Return what was measured with which questions, by content."""
    return {
        "candidate": candidate,
        "model": str(model),
        "prompt": prompt,
        "weights_sha256": models.weights_sha256(model),
        "questions_sha256": records.sha256(questions),
    }


def write(report: Report, answers: list[dict[str, Any]], out: Path, facts: dict[str, Any]) -> None:
    """Write metrics.json, answers.jsonl and accuracy.csv."""
    out.mkdir(parents=True, exist_ok=True)
    document = facts | {"metrics": report.metrics, "intervals": report.intervals, "counts": report.counts}
    (out / "metrics.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in answers)
    (out / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
    with (out / "accuracy.csv").open("w", encoding="utf-8", newline="") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(["candidate", "group", "accuracy", "low", "high", "count"])
        for name, value in report.metrics.items():
            if name.startswith("accuracy/"):
                group = name.removeprefix("accuracy/")
                table.writerow([facts["candidate"], group, value, *report.intervals[name], report.counts[name]])


def publish(report: Report, answers: list[dict[str, Any]], run: "Run", candidate: str) -> None:
    """Log metrics, the answers as a table and accuracy by group as a figure."""
    run.metrics(report.metrics)
    run.table("answers", answers)
    if any(name.startswith("accuracy/") for name in report.metrics):
        run.figure("accuracy-by-group", figure(report, candidate))


def figure(report: Report, candidate: str) -> Any:
    """Return accuracy by group with its intervals as a matplotlib figure."""
    from matplotlib.figure import Figure

    names = [name for name in report.metrics if name.startswith("accuracy/")]
    values = [report.metrics[name] for name in names]
    spread = [
        [value - report.intervals[name][0] for name, value in zip(names, values, strict=True)],
        [report.intervals[name][1] - value for name, value in zip(names, values, strict=True)],
    ]
    plot = Figure(figsize=(7, 0.3 * len(names) + 1.2), layout="constrained")
    axes = plot.subplots()
    axes.barh([name.removeprefix("accuracy/") for name in names], values, xerr=spread, color="#4c72b0", capsize=2)
    axes.set(xlim=(0, 1), xlabel="exact match, 95 % interval", title=candidate)
    axes.invert_yaxis()
    return plot


def headline(report: Report) -> str:
    """Return the one figure the closing table shows."""
    if "accuracy/iid" in report.metrics:
        low, high = report.intervals["accuracy/iid"]
        return f"iid exact match {report.metrics['accuracy/iid']:.1%} [{low:.1%}, {high:.1%}]"
    return ", ".join(f"{name} {value:.2f}" for name, value in report.metrics.items() if name.startswith("perplexity/"))


if __name__ == "__main__":
    process.run("evaluate", main)
