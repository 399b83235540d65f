"""What the README claims of the demo, asserted of a checkout in which it has run with any seeds."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.common.core import params

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "reports"
SEEDED = {"sft", "sample", "reward", "ppo", "grpo", "dpo", "orpo", "kto", "pretrain"}


def unseeded(file: Path) -> dict[str, Any]:
    """Return parameters with their training seeds left out."""
    found: dict[str, Any] = params.plain(params.read_yaml(file))
    for name in SEEDED:
        found[name].pop("seed", None)
        found[name].get("training", {}).pop("seed", None)
    return found


def read(name: str) -> Any:
    return json.loads((REPORTS / name).read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def ran() -> None:
    """Skip where the demo did not run to its end, or another profile did."""
    if not (REPORTS / "promote.json").is_file():
        pytest.skip("the demo has not run in this checkout: make demo")
    if unseeded(ROOT / "params.yaml") != unseeded(ROOT / "infra/profiles/demo.yaml"):
        pytest.skip("params.yaml is not the demo's: make profile PROFILE=demo")


@pytest.mark.parametrize("turn", ["call", "answer"])
def test_the_calculator_is_called_and_quoted_rightly(turn: str) -> None:
    assert read("evaluate/sft_best/metrics.json")["metrics"][f"tools/{turn}"] >= 0.8


@pytest.mark.parametrize(("candidate", "least"), [("ppo_r1", 0.55), ("dpo", 0.53)])
def test_preferences_show_on_held_out_prompts(candidate: str, least: float) -> None:
    """The lower end of the win rate's interval against SFT, by the rules."""
    assert read("report.json")["wins"][candidate]["rules/prompts"]["low"] >= least


def test_ppo_stays_near_its_start_and_keeps_what_sft_knew() -> None:
    report = read("ppo/r1.json")
    kept = next(one for one in report["epochs"] if one["epoch"] == report["best"])
    assert kept["kl"] <= 10
    found = [read(f"evaluate/{name}/metrics.json")["metrics"]["accuracy/iid"] for name in ("sft_best", "ppo_r1")]
    assert found[1] >= found[0] - 0.01


def test_the_champion_is_a_model_that_preferences_trained() -> None:
    promoted = read("promote.json")
    assert promoted["decision"] in ("promoted", "pending") and promoted["candidate"] not in ("pretrain", "sft_best")
