"""SFT's checkpoint by reward: which is picked, what is copied and what is written."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from stages import select_sft
from stages.common.core import models
from stages.common.evaluation import sft_epochs
from stages.common.runtime.errors import DataError
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking import session
from stages.common.tracking.run import Run
from tests.common.reward.test_scoring import reward_model
from tests.support import held_models
from tests.support.tiny import conversation, make_model, make_tokenizer

PARAMS = "run: {name: test}\nselect_sft: {max_new_tokens: 4, batch_size: 2}\n"
CURVE = "step,epoch,loss,learning_rate,eval_loss\n1,0.5,2.0,0.1,\n2,1,,,1.5\n3,1.5,1.0,0.1,\n4,2,,,1.75\n"


def picked(*epochs: tuple[float, list[float]]) -> str:
    """Return which epoch is picked, of (validation loss, reward by prompt)."""
    scores = {f"epoch-{number}": rewards for number, (_, rewards) in enumerate(epochs, 1)}
    return sft_epochs.pick(sft_epochs.measure(scores, [loss for loss, _ in epochs]), scores)


def test_of_epochs_that_are_not_surely_worse_the_lowest_loss_is_picked_then_the_first() -> None:
    surely, about = [0.4] * 20, [0.0, 0.9] * 10
    assert picked((1.0, [0.2] * 20), (3.0, surely), (2.0, [0.3] * 20)) == "epoch-2"
    assert picked((1.0, about), (3.0, [value + 0.01 * (-1) ** at for at, value in enumerate(about)])) == "epoch-1"
    assert picked((3.0, [0.5 + 0.1 * (-1) ** at for at in range(20)]), (2.0, about)) == "epoch-2"
    assert picked((2.0, surely), (1.0, surely)) == "epoch-2"
    assert picked((1.0, surely), (1.0, surely)) == "epoch-1"


def test_without_rewards_the_lowest_validation_loss_is_taken(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        models.save(make_model(make_tokenizer(), number), make_tokenizer(), tmp_path / f"sft/epoch-{number}")
    found = select_sft.epochs(tmp_path / "sft"), [1.5, 1.25, 1.75]
    assert sft_epochs.by_loss(*found, tmp_path / "out", tmp_path / "r.json", tmp_path / "c.csv") == "epoch-2"
    said = json.loads((tmp_path / "r.json").read_text())["weights_sha256"]
    assert models.weights_sha256(tmp_path / "out") == said == models.weights_sha256(tmp_path / "sft/epoch-2")
    assert (tmp_path / "c.csv").read_text().splitlines()[:2] == ["epoch,eval_loss,reward,low,high", "1,1.5,,,"]


def test_epochs_come_in_order_of_their_number(tmp_path: Path) -> None:
    for name in ("epoch-10", "epoch-9", "last"):
        (tmp_path / name).mkdir()
    assert [path.name for path in select_sft.epochs(tmp_path)] == ["epoch-9", "epoch-10"]
    with pytest.raises(DataError, match="no epoch"):
        select_sft.epochs(tmp_path / "nothing")


def test_a_curve_of_another_training_is_refused() -> None:
    with pytest.raises(DataError, match="1 kept epochs, but 2 validation losses"):
        sft_epochs.measure({"epoch-1": [0.0]}, [1.0, 2.0])


def test_no_held_out_prompt_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no held-out prompts"):
        select_sft.rewards([], tmp_path, [], select_sft.Params())


def test_a_reward_that_is_no_number_picks_nothing(tmp_path: Path) -> None:
    tokenizer, judge = make_tokenizer(), reward_model()
    judge.get_submodule("score").weight.data.fill_(float("nan"))
    models.save(judge, tokenizer, tmp_path / "reward")
    models.save(make_model(tokenizer), tokenizer, tmp_path / "sft/epoch-1")
    asked = [conversation(1)["messages"][:1]]
    settings = select_sft.Params(max_new_tokens=2)
    with pytest.raises(DataError, match="a score that is not a number"):
        select_sft.rewards([tmp_path / "sft/epoch-1"], tmp_path / "reward", asked, settings)


def test_one_model_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer()
    for seed in (1, 2, 3):
        models.save(make_model(tokenizer, seed), tokenizer, tmp_path / f"sft/epoch-{seed}")
    models.save(reward_model(), tokenizer, tmp_path / "reward")
    counts = held_models.counted(monkeypatch)
    asked = [conversation(number)["messages"][:1] for number in range(3)]
    settings = select_sft.Params(max_new_tokens=4)
    select_sft.rewards(select_sft.epochs(tmp_path / "sft"), tmp_path / "reward", asked, settings)
    assert counts == [0, 0, 0, 0]


def test_the_picked_epoch_is_copied_whole_and_two_runs_write_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "start", lambda *_, **__: nullcontext(Run(None)))
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "sft.csv").write_text(CURVE)
    tokenizer = make_tokenizer()
    for seed in (1, 2):
        models.save(make_model(tokenizer, seed), tokenizer, tmp_path / f"sft/epoch-{seed}")
    models.save(reward_model(), tokenizer, tmp_path / "reward")
    rows = [conversation(number)["messages"][:1] for number in range(5)]
    prompts = [
        {"id": f"p:{n}", "source": "p", "messages": turns, "reference": None, "category": None}
        for n, turns in enumerate(rows)
    ]
    write_records(prompts, tmp_path / "prompts/validation", "prompts")
    for out in ("one", "two"):
        paths = [
            Path(name)
            for name in ("sft", "reward", "prompts", "sft.csv", f"{out}/best", f"{out}/r.json", f"{out}/c.csv")
        ]
        select_sft.main(*paths)
    report = json.loads((tmp_path / "one/r.json").read_text())
    assert models.weights_sha256(tmp_path / "one/best") == models.weights_sha256(tmp_path / "sft" / report["best"])
    assert report["weights_sha256"] == models.weights_sha256(tmp_path / "one/best")
    assert report["prompts"] == 5
    means = {name: one["reward"] for name, one in report["epochs"].items()}
    assert report["best"] == max(means, key=lambda name: means[name])
    assert report["epochs"][report["best"]]["best_leads_by"] == [0.0, 0.0, 0.0]
    assert [line.split(",")[:2] for line in (tmp_path / "one/c.csv").read_text().splitlines()[1:]] == [
        ["1", "1.5"],
        ["2", "1.75"],
    ]
    for name in ("r.json", "c.csv", "best/model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
