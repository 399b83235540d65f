"""What is read from the files that a run of the pipeline leaves."""

import json
from pathlib import Path

from flows.experiments import measures


def test_numbers_are_by_question_text_or_place(tmp_path: Path) -> None:
    place = tmp_path / "reports/evaluate/dpo"
    place.mkdir(parents=True)
    rows = [("q1", "iid", "Paris.", True), ("q2", "iid", "Where?", False), ("q3", "honesty", "No.", True)]
    lines = [dict(zip(("id", "group", "answer", "correct"), row, strict=True)) for row in rows]
    (place / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (place / "shots.jsonl").write_text("".join(json.dumps(lines[0] | {"shots": shots}) + "\n" for shots in (0, 5)))
    (place / "losses.csv").write_text("texts,nats,tokens\ndocuments,6,4\nconversations,1,1\ndocuments,3,6\n")
    (place / "metrics.json").write_text(json.dumps({"metrics": {"accuracy/iid": 0.5}}))
    (tmp_path / "reports/sft.csv").write_text("epoch,step,eval_loss\n1,10,\n1,20,0.5\n2,40,0.25\n")
    assert measures.correct(tmp_path, "dpo") == {"q1": 1.0, "q2": 0.0, "q3": 1.0}
    assert measures.correct(tmp_path, "dpo", "iid") == {"q1": 1.0, "q2": 0.0}
    assert measures.with_examples(tmp_path, "dpo", 5) == {"q1": 1.0}
    assert measures.share(tmp_path, "dpo", lambda text: "?" in text) == {"q1": 0.0, "q2": 1.0, "q3": 0.0}
    assert measures.losses(tmp_path, "dpo", "documents") == {"0": 1.5, "1": 0.5}
    assert measures.figure(tmp_path, "evaluate/dpo/metrics.json", "metrics", "accuracy/iid") == {"": 0.5}
    assert measures.column(tmp_path, "sft.csv", "epoch", "eval_loss") == {"1": 0.5, "2": 0.25}
