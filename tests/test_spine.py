"""The whole chain on a small world: raw data to champion, nothing on the second call, a record
followed end to end.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from stages.common.core import params, records
from tests.support import project
from tests.support.counts import FULL
from tests.support.small_world import SMALL

DATA = ["data/raw", "data/ingested", "data/curated", "data/validated"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def compare(folder: Path, best: str) -> None:
    """Write a comparison file of one's own beside the demo's data."""
    file = folder / "data/raw/own/comparisons.jsonl"
    row = {"prompt": "Which city is the capital of Portugal?", "responses": [best, "I will not say."], "ranks": [1, 2]}
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project whose pipeline has run to its end."""
    folder = project.lay(tmp_path_factory.mktemp("spine"), "params.yaml", SMALL)
    compare(folder, "It is Lisbon.")
    result = project.run(folder, "dvc", "repro")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_it_ends_with_a_champion_that_answers(done: Path) -> None:
    promotion = json.loads((done / "reports/promote.json").read_text(encoding="utf-8"))
    files = (done / "reports/evaluate").glob("*/metrics.json")
    found = {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
    assert "grpo.skip is true" in found.pop("grpo")["left_out"]
    assert "kto.skip is true" in found.pop("kto")["left_out"]
    evaluated = {name: one["metrics"]["perplexity/conversations"] for name, one in found.items()}
    assert set(evaluated) == {"pretrain", "sft_best", "dpo", "orpo", "ppo_r1"}
    if promotion["candidate"] == "sft_best":
        assert set(promotion["passed_over"]) == {"dpo", "orpo", "ppo_r1"}
    else:
        assert evaluated[promotion["candidate"]] < evaluated["sft_best"] and promotion["passed_over"] == {}
    asked = json.loads((done / "reports/deploy.json").read_text(encoding="utf-8"))
    assert len(asked["answers"]) == len(params.read_yaml(done / "params.yaml")["deploy"]["canned"])


@pytest.mark.fault
@pytest.mark.skipif(not FULL, reason="the whole pipeline twice more: make faults FULL=1")
def test_everything_made_anew_gives_the_same_lock(done: Path) -> None:
    """Twice anew, because the first time there was no champion to compare with."""
    locks = []
    for _ in range(2):
        result = project.run(done, "dvc", "repro", "--force")
        assert result.returncode == 0, result.stdout + result.stderr
        locks.append((done / "dvc.lock").read_bytes())
    assert locks[0] == locks[1]


def test_a_second_call_runs_nothing(done: Path) -> None:
    lock = (done / "dvc.lock").read_bytes()
    result = project.run(done, "dvc", "repro")
    assert result.returncode == 0
    assert "Running stage" not in result.stdout
    assert (done / "dvc.lock").read_bytes() == lock


def test_a_clone_that_shares_the_remote_alone_has_it_all_and_its_past(done: Path, tmp_path: Path) -> None:
    for line in (
        f"dvc remote add -q -d store {tmp_path}/store",
        "dvc push -q --run-cache",
        "git add dvc.lock .dvc/config",
        "git -c user.name=t -c user.email=t@example.org commit -qm done",
        f"git clone -q . {tmp_path}/clone",
    ):
        result = project.run(done, *line.split())
        assert result.returncode == 0, result.stdout + result.stderr
    clone = tmp_path / "clone"
    shutil.copytree(done / "data/raw/own", clone / "data/raw/own")  # what is under neither DVC nor git
    assert project.run(clone, "dvc", "pull", "-q", "--run-cache").returncode == 0
    assert project.run(clone, "dvc", "status").stdout == "Data and pipelines are up to date.\n"
    reports = ("sft.csv", "promote.json", "metrics/evaluate/sft_best.json")
    assert all((clone / "reports" / name).read_bytes() == (done / "reports" / name).read_bytes() for name in reports)
    shown = json.loads(project.run(clone, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    figures = {path: file["data"] for path, file in shown.items()}
    assert all(len(found) <= 20 for found in figures.values())
    assert figures["reports/metrics/evaluate/sft_best.json"]["perplexity/conversations"] > 1
    shutil.rmtree(clone)


def test_a_comment_in_params_runs_nothing(done: Path) -> None:
    with (done / "params.yaml").open("a", encoding="utf-8") as handle:
        handle.write("# a thought\n")
    assert "Running stage" not in project.run(done, "dvc", "repro").stdout


def test_plots_can_be_shown(done: Path) -> None:
    result = project.run(done, "dvc", "plots", "show")
    assert result.returncode == 0, result.stderr
    page = (done / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert "pretrain.csv" in page
    assert "accuracy" in page


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        (
            "conversations_openai.jsonl",
            [*DATA, "sft", "champion"],
        ),
        ("articles.jsonl", [*DATA, "pretrain"]),
        (
            "questions.jsonl",
            [*DATA, "reports/evaluate", "champion"],
        ),
    ],
)
def test_a_record_is_followed_from_raw_row_to_tokens_and_answer(done: Path, name: str, steps: list[str]) -> None:
    from stages.common.core import records

    shape = {"conversations_openai.jsonl": "conversations", "articles.jsonl": "documents"}.get(name, "questions")
    identifier = next(
        row["id"] for row in records.read(done / "data/validated" / shape) if row["source"] == f"demo/{name}"
    )
    result = project.run(done, "python", "-m", "flows.lineage.trace", identifier)
    assert result.returncode == 0, result.stderr
    places = [line.split(". ", 1)[1] for line in result.stdout.splitlines() if line[:1].isdigit() and ". " in line[:4]]
    found = iter(places)
    for step in steps:
        assert any(place.startswith(step) for place in found), f"{step} is not in {places}"
    if shape == "conversations":
        learnt = [line for line in result.stdout.splitlines() if "  *   " in line]
        assert learnt[-1].endswith('"<|im_end|>"')


@pytest.mark.parametrize("kind", ["malformed", "exact_duplicate"])
def test_a_refused_record_is_followed_to_where_it_was_put_aside(done: Path, kind: str) -> None:
    planted = json.loads((done / "reports/demo.json").read_text(encoding="utf-8"))["planted_rows"]
    result = project.run(done, "python", "-m", "flows.lineage.trace", planted[kind][0]["id"])
    assert result.returncode == 0, result.stderr
    last = result.stdout.strip().splitlines()[-2:]
    assert last[1].startswith("put aside: ")
    assert "data/quarantine/" in last[0] or "data/dropped/" in last[0]


def test_an_unknown_record_is_an_error_with_a_hint(done: Path) -> None:
    result = project.run(done, "python", "-m", "flows.lineage.trace", "demo/articles.jsonl:999999")
    assert result.returncode == 4
    assert "the file ends before line 999999" in result.stderr


def validated(folder: Path) -> dict[str, str]:
    """The hash of everything the door has let through, as DVC locks it."""
    outs = params.plain(params.read_yaml(folder / "dvc.lock"))["stages"]["validate"]["outs"]
    return {out["path"]: out["md5"] for out in outs if out["path"].startswith("data/validated/")}


def test_data_that_is_the_same_again_changes_no_hash(done: Path) -> None:
    lock = (done / "dvc.lock").read_bytes()
    result = project.run(done, "dvc", "repro", "--force", "--single-item", "validate")
    assert "Running stage 'validate'" in result.stdout, result.stderr
    assert (done / "dvc.lock").read_bytes() == lock


def test_a_second_round_runs_what_depends_on_it_and_nothing_else(done: Path) -> None:
    assert project.run(done, "python", "-m", "flows.rounds", "--add-only").returncode == 0
    result = project.run(done, "dvc", "repro")
    assert result.returncode == 0, result.stdout + result.stderr
    ran = re.findall(r"Running stage '(.+?)'", result.stdout)
    new = ["sample@r2", "rank@r2", "reward@r2", "ppo@r2", "evaluate@ppo_r2"]
    assert ran == [*new, "report", "promote", "deploy"][: len(ran)]
    assert set(ran) >= {*new, "report", "promote"}
    pools = [len(list(records.read(done / f"data/pools/{name}/train"))) for name in ("r1", "r2")]
    second = len(list(records.read(done / "data/comparisons/r2/train")))
    assert pools[1] == pools[0] + second > pools[0]
    assert "ppo_r2 since ppo_r1" in json.loads((done / "reports/report.json").read_text())["changes"]


def test_editing_one_comparison_file_does_not_retrain_the_model_that_answers(done: Path) -> None:
    before = validated(done)
    compare(done, "Lisbon, since 1255.")
    result = project.run(done, "dvc", "repro", "sft")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.findall(r"Running stage '(.+?)'", result.stdout) == ["ingest", "curate", "validate"]
    after = validated(done)
    assert {path for path in before if before[path] != after[path]} == {"data/validated/comparisons"}
