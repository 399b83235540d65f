"""Every profile, before anything of it is fetched: its keys are valid, its shapes fit, and each
stage's memory is below its card's.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flows.plans import memory_plan, profile_plan
from flows.plans.profile_plan import Row
from stages.common.core import params
from stages.common.memory import estimate
from stages.common.ppo.schedule import Schedule
from stages.common.training import ineffective_keys
from tests.support import gpu_page

ROOT = Path(__file__).parents[3]
CARDS = {"qwen2.5-0.5b": (1, 24), "qwen3-4b-lora": (1, 80), "llama3.1-8b-zero3": (8, 80)}


@pytest.fixture(scope="module")
def plans() -> dict[str, list[Row]]:
    return gpu_page.plans()


def document(name: str) -> dict[str, Any]:
    return dict(params.plain(params.read_yaml(ROOT / f"infra/profiles/{name}.yaml")))


@pytest.mark.parametrize("name", CARDS)
def test_a_profile_of_gpus_names_its_cards(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run, (gpus, sold) = document(name)["run"], CARDS[name]
    assert run["gpus"] == gpus == memory_plan.launch(run["launcher"]).processes
    assert 0.9 * sold < run["gpu_gibibytes"] < sold  # a card has less than is on its box


@pytest.mark.parametrize("name", [*gpu_page.PROFILES, "instructgpt"])
def test_the_training_libraries_know_every_key_of_a_profile(name: str) -> None:
    from transformers import TrainingArguments
    from trl import DPOConfig, GRPOConfig, KTOConfig, SFTConfig

    given = document(name)
    for stage in memory_plan.TRAINERS:
        own = {"sft": SFTConfig, "dpo": DPOConfig, "grpo": GRPOConfig, "kto": KTOConfig}
        known = own.get(stage, TrainingArguments)
        ineffective_keys.check(stage, given[stage]["training"])
        assert set(given[stage]["training"]) <= {field.name for field in dataclasses.fields(known)}, stage


@pytest.mark.parametrize("name", gpu_page.PROFILES)
def test_a_profile_s_lengths_and_batches_fit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    given = document(name)
    context = memory_plan.config(given).max_position_embeddings
    for stage in (*memory_plan.TRAINERS, "evaluate"):
        assert given[stage].get("max_tokens", given[stage].get("block_tokens")) <= context, stage
    ppo, training = given["ppo"], given["ppo"]["training"]
    accumulation = training.get("gradient_accumulation_steps", 1)
    world = memory_plan.launch(given["run"]["launcher"]).processes
    assert ppo["rollout_episodes"] % (training["per_device_train_batch_size"] * accumulation * world) == 0
    Schedule(
        rollout=ppo["rollout_episodes"],
        rollouts=ppo["rollouts_per_epoch"],
        ppo_epochs=ppo["ppo_epochs"],
        batch=training["per_device_train_batch_size"],
        accumulation=accumulation,
        rank=0,
        world=world,
        seed=1,
    )


@pytest.mark.slow
def test_every_stage_of_every_profile_is_below_its_card(plans: dict[str, list[Row]]) -> None:
    for name, planned in plans.items():
        assert len(planned) >= 8
        for row in planned:
            sizes = f"{name}, {row.stage}: {estimate.amount(row.memory)} of {estimate.amount(row.room)}"
            print(sizes)
            assert row.fits and (row.room > 0) is (name in CARDS), sizes


@pytest.mark.slow
def test_the_page_s_table_is_what_the_doctor_says(plans: dict[str, list[Row]]) -> None:
    assert gpu_page.profiles_table(plans) in gpu_page.PAGE.read_text(encoding="utf-8"), gpu_page.HOW


def test_ppo_of_seven_billion_weights_with_adapters_fits_eighty_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(memory_plan, "TRAINERS", ("ppo",))
    given = document("qwen3-4b-lora")
    given["pretrain"] |= {"base": "Qwen/Qwen2.5-7B"}
    [plan] = memory_plan.plans(given, given["run"]["gpu_gibibytes"], quick=True)
    print(plan.need.shown())
    assert plan.need.parameters > 3 * 2 * 7e9  # policy, value and reward model, in 16 bits
    assert plan.need.total < plan.free * estimate.SPARE


def test_hours_and_price_follow_from_the_given_speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    given = document("llama3.1-8b-zero3")
    ppo = Row("ppo", 0, 0, 8 * 3.6e6 * 5_000, 8 * 3.6e6 * 100, 0)
    assert profile_plan.hours(ppo, given) is None  # no speed is given
    given["run"] |= {"tokens_per_second": {"train": 10_000, "decode": 1_000}, "price_per_gpu_hour": 2.5}
    assert profile_plan.hours(ppo, given) == pytest.approx(500 + 100)
    of_data = ppo._replace(tokens=None)
    assert profile_plan.hours(of_data, given) is None
    cells = profile_plan.table(given, [ppo, of_data])
    assert cells[1][4:6] == ("600.0", "12000.00") and cells[-1][4:6] == ("600.0", "12000.00")
    assert cells[2][4:6] == ("", "")


def test_a_stage_s_tokens_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    given = document("llama3.1-8b-zero3")
    started, base = memory_plan.launch(given["run"]["launcher"]), memory_plan.config(given)
    jobs = {stage: memory_plan.job(stage, given, base, started, True) for stage in memory_plan.TRAINERS}
    found = {stage: profile_plan.work(stage, given[stage], job) for stage, job in jobs.items()}
    assert found["sft"] == (1000 * 128 * 4096, None)
    # the reference reads each pair once
    assert found["dpo"][0] == pytest.approx(200 * 128 * 2 * 2048 * 4 / 3) and found["dpo"][1] is None
    episodes = 2 * 25 * 512
    assert found["ppo"][0] == pytest.approx(episodes * 2048 * (2 * 2 + 4 / 3)) and found["ppo"][1] == episodes * 512
    assert profile_plan.work("sft", given["sft"] | {"training": {"num_train_epochs": 2}}, jobs["sft"]) == (None, None)


def test_vllm_s_weights_and_cache_are_counted_where_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    given = document("qwen2.5-0.5b")
    given["run"]["engine"] = "vllm"
    started, base = memory_plan.launch(given["run"]["launcher"]), memory_plan.config(given)
    jobs = {stage: memory_plan.job(stage, given, base, started, True) for stage in memory_plan.TRAINERS}
    assert {stage for stage, job in jobs.items() if job.engine} == {"ppo", "grpo"} and jobs["ppo"].sleeps
    assert not memory_plan.job("ppo", given, base, started, False).sleeps  # vLLM cannot on a CPU
    token = 2 * base.num_hidden_layers * base.num_key_value_heads * (base.hidden_size // base.num_attention_heads) * 2
    blocks = 1 + 64 * 8  # of 128 tokens, 64 rows of 1000
    wanted = 2 * 10**9 + blocks * 128 * token + estimate.PROCESS
    for stage in ("sample", "select_sft"):  # the reward model comes when the engine has ended
        assert profile_plan.answering(stage, base, 10**9, 64, 1000, 2, "vllm") == wanted
    assert profile_plan.answering("select_sft", base, 10**9, 64, 1000, 2, "local") == 4 * 10**9 + 64_000 * token


def test_the_command_prints_the_table_and_fails_where_a_stage_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["profile_plan", "qwen2.5-0.5b"])
    fits = Row("sft", 10 * 2**30, 20 * 2**30, 5e6, None, 2**30)
    monkeypatch.setattr(profile_plan, "rows", lambda _: iter([fits, fits._replace(stage="ppo", memory=21 * 2**30)]))
    with pytest.raises(SystemExit) as ended:
        profile_plan.main()
    said = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1 and said[0].split()[:3] == ["stage", "GiB", "a"]
    assert said[1].split() == ["sft", "10.0", "20.0", "5.0", "M", "1.0"] and "21.0 too much" in said[2]
    assert "run.tokens_per_second" in said[-1]
    monkeypatch.setattr("sys.argv", ["profile_plan", "nosuch"])
    with pytest.raises(SystemExit, match=r"lathe: infra/profiles/nosuch.yaml: file not found"):
        profile_plan.main()
