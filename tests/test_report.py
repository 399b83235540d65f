"""The review page: what it says of real evaluations' files, that it fetches nothing and that no
data becomes markup.
"""

import json
import re
from contextlib import nullcontext
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stages import report
from stages.common.evaluation import metrics, results
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.tracking import session
from stages.common.tracking.run import Run
from tests.support import judge_server

BAD = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


class Tags(HTMLParser):
    """Collects tags and attributes, and checks that what is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attributes
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def answer(number: int, text: str, correct: bool, reward: float) -> metrics.Answer:
    return {
        "id": f"q:{number}",
        "group": ("iid", "honesty")[number % 2],
        "language": "en",
        "category": "capital/en",
        "question": f"Question {number}? {BAD}",
        "reference": "Right.",
        "answer": text,
        "correct": correct,
        "reward": reward,
    }


def evaluate(folder: Path, candidate: str, right: int, losses: list[tuple[float, int]], before: str) -> None:
    answers = [answer(n, "Right." if n < right else f"Wrong. {BAD}", n < right, float(n < right)) for n in range(20)]
    shots = [{"shots": count} | row for count in (0, 2) for row in answers]
    found = metrics.Report()
    metrics.accuracy(found, answers)
    for count in (0, 2):
        metrics.accuracy(found, answers, f"shots-{count}")
    metrics.behaviour(found, answers, "chat")
    metrics.rewards(found, answers)
    metrics.perplexities(found, {"documents": losses})
    facts = {"candidate": candidate, "before": before, "model": "m", "prompt": "chat"}
    hashes = {"weights_sha256": "a", "questions_sha256": "b", "test_sha256": "c"}
    results.write(found, answers, shots, {"documents": losses}, folder / candidate, facts | hashes)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "start", lambda *_, **__: nullcontext(Run(None)))
    (tmp_path / "params.yaml").write_text("report: {examples_per_group: 2}\n")
    (tmp_path / "sft.csv").write_text(
        "step,epoch,loss,learning_rate,eval_loss\n1,1,2.5,0.1,\n2,1,1.5,0.1,\n2,1,,,1.75\n"
    )
    (tmp_path / "select.csv").write_text("epoch,eval_loss,reward,low,high\n1,1.5,0.1,0.0,0.2\n2,1.75,0.3,0.2,0.4\n")
    (tmp_path / "ppo").mkdir()
    (tmp_path / "ppo/r1.csv").write_text("step,reward,kl\n1,0.1,0.0\n17,0.4,0.5\n")
    evaluate(tmp_path / "evaluate", "pretrain", 2, [(2.0, 2), (4.0, 2)], "pretrain")
    evaluate(tmp_path / "evaluate", "sft_best", 10, [(4.0, 2), (6.0, 2)], "pretrain")
    evaluate(tmp_path / "evaluate", "dpo", 18, [(4.0, 2), (6.0, 2)], "sft_best")
    return tmp_path


def run(against: str = "sft_best", out: str = "report") -> dict[str, Any]:
    outs = Path(f"{out}.html"), Path(f"{out}.json")
    report.main(Path("evaluate"), against, [Path("sft.csv")], *outs, Path("ppo"), Path("select.csv"))
    found: dict[str, Any] = json.loads(Path(f"{out}.json").read_text())
    return found


def test_wins_and_changes_worked_by_hand(work: Path) -> None:
    found = run()
    # of 20 questions dpo answers 8 more right, pretrain 8 fewer
    assert found["wins"]["dpo"]["rules"]["rate"] == (8 + 0.5 * 12) / 20
    assert found["wins"]["pretrain"]["rules"] | {"low": 0, "high": 0} == {
        "rate": 0.3, "low": 0, "high": 0, "wins": 0, "ties": 12, "losses": 8
    }  # fmt: skip
    assert found["wins"]["dpo"]["reward"] == found["wins"]["dpo"]["rules"]
    assert found["changes"]["dpo since sft_best"]["accuracy/iid"]["change"] == 0.4
    assert found["changes"]["dpo since sft_best"]["perplexity/documents"]["change"] == 1.0
    assert found["changes"]["sft_best since pretrain"]["perplexity/documents"]["change"] == pytest.approx(2.71828)


def test_the_page_is_well_formed_and_fetches_nothing(work: Path) -> None:
    run()
    page = Path("report.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert tags.open == []
    assert not tags.tags & {"script", "img", "link", "iframe", "object", "a", "image"}
    assert not [name for name, _ in tags.attributes if name.startswith("on") or name in ("src", "href")]
    ids = [value for name, value in tags.attributes if name == "id"]
    within = {value for name, value in tags.attributes if name == "xlink:href"}
    assert within <= {f"#{one}" for one in ids}, "a chart refers to what is not on the page"
    assert not re.search(r"https?://|url\((?!#)|@import", page)
    assert "default-src 'none'" in page
    assert BAD not in page


def test_of_stages_that_were_left_out_the_page_shows_nothing(work: Path) -> None:
    (work / "sft.csv").write_text("step,epoch,loss,learning_rate,eval_loss\n")
    (work / "select.csv").write_text("epoch,eval_loss,reward,low,high\n1,1.5,,,\n")
    (work / "ppo/r1.csv").write_text("step,reward,kl\n")
    results.write_left_out("orpo", "no pair to learn from", work / "evaluate/orpo")
    assert sorted(run()["wins"]) == ["dpo", "pretrain"]
    page = Path("report.html").read_text(encoding="utf-8")
    assert Tags(page).open == []
    assert not [head for head in ("SFT by epoch", "Reward against KL", "Loss curves", "orpo") if head in page]


def test_a_judge_endpoint_has_its_place_beside_the_rules(work: Path) -> None:
    with judge_server.serving(lambda one, other: "A" if len(one) < len(other) else "B") as server:
        judge = f"{{url: '{server.url}', model: judge-1}}"
        (work / "params.yaml").write_text(f"report: {{examples_per_group: 2, judge: {judge}}}\n")
        found = run()
    assert found["wins"]["dpo"]["judge"] == found["wins"]["dpo"]["rules"]  # who is right is also brief here
    assert found["judge"]["requests"] == 2 * (8 + 8)
    assert "beats sft_best by judge" in Path("report.html").read_text(encoding="utf-8")


def test_the_page_says_what_was_found(work: Path) -> None:
    run()
    page = Path("report.html").read_text(encoding="utf-8")
    assert "<b>dpo</b> beats sft_best by rules" in page
    assert "<b>pretrain</b> loses to sft_best by reward" in page
    for heading in ("Right answers by group", "Worked examples", "Gained and forgotten", "SFT by epoch", "Loss curves"):
        assert f"<h2>{heading}</h2>" in page
    assert "16 of 20 questions tell the candidates apart" in page
    assert page.count("Question ") == 4


def test_candidates_stand_as_trained(work: Path) -> None:
    found = {one.candidate: one for one in results.read(Path("evaluate"))}
    order = report.in_order(found)
    assert [one.candidate for one in order] == ["pretrain", "sft_best", "dpo"]


def test_two_runs_write_the_same_bytes(work: Path) -> None:
    run(out="one")
    run(out="two")
    for suffix in ("html", "json"):
        assert Path(f"one.{suffix}").read_bytes() == Path(f"two.{suffix}").read_bytes()


def test_names_that_were_not_evaluated_are_refused(work: Path) -> None:
    with pytest.raises(ParamsError, match="'sft_bst' was not evaluated, did you mean 'sft_best'"):
        run(against="sft_bst")
    evaluate(work / "evaluate", "dpo", 18, [(4.0, 2)], "sft_bst")
    with pytest.raises(ParamsError, match="'sft_bst' was not evaluated, did you mean 'sft_best'"):
        run()


def test_half_an_evaluation_is_named(work: Path) -> None:
    Path("evaluate/dpo/losses.csv").unlink()
    with pytest.raises(DataError, match=r"losses\.csv"):
        run()


def test_one_candidate_and_no_questions_still_make_a_page(work: Path) -> None:
    for name in ("dpo", "pretrain"):
        for file in Path("evaluate", name).iterdir():
            file.unlink()
        Path("evaluate", name).rmdir()
    evaluate(work / "evaluate", "sft_best", 10, [(4.0, 2)], "sft_best")
    assert run()["wins"] == {}
    assert Tags(Path("report.html").read_text(encoding="utf-8")).open == []
