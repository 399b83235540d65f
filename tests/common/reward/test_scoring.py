"""Scores of a reward model: one an answer, at its last token, whatever the batch."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from stages.common.core import chat, models, records
from stages.common.pairs import preference_pairs
from stages.common.reward import batches, score_head, scoring, shared_prompt
from stages.common.runtime.errors import DataError, ParamsError
from tests.support import architectures, bases
from tests.support.tiny import CONFIG, conversation, make_model, make_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPTS = [[records.message("user", f"What is the capital of land {number}?")] for number in (1, 22, 333)]
ANSWERS = ["town 7.", "...", "I do not know."]


def reward_model(labels: int = 1) -> "PreTrainedModel":
    from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

    set_seed(0)
    config = AutoConfig.for_model(**CONFIG, vocab_size=len(make_tokenizer()), num_labels=labels, pad_token_id=9)
    return AutoModelForSequenceClassification.from_config(config).eval()


def test_a_score_is_the_heads_output_at_the_end_of_turn() -> None:
    tokenizer, model = make_tokenizer(), reward_model()
    whole = chat.encode(tokenizer, [*PROMPTS[0], records.message("assistant", ANSWERS[0])]).input_ids
    assert whole[-1] == chat.end_of_turn(tokenizer)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([whole])).logits.item()
    assert scoring.score(model, tokenizer, PROMPTS[:1], ANSWERS[:1]) == pytest.approx([expected], abs=1e-5)


def test_the_batch_changes_no_score_and_order_is_kept() -> None:
    tokenizer, model = make_tokenizer(), reward_model()
    together = scoring.score(model, tokenizer, PROMPTS, ANSWERS)
    apart = [scoring.score(model, tokenizer, [p], [a])[0] for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    assert together == pytest.approx(apart, abs=1e-5)
    assert len(set(together)) == 3
    assert scoring.score(model, tokenizer, [], []) == []


def test_a_score_that_is_no_number_is_an_error() -> None:
    tokenizer, model = make_tokenizer(), reward_model()
    model.get_submodule("score").weight.data.fill_(float("nan"))
    with pytest.raises(DataError, match="not a number"):
        scoring.score(model, tokenizer, PROMPTS, ANSWERS)


def test_an_answer_beyond_the_context_is_an_error() -> None:
    with pytest.raises(DataError, match="the reward model reads 256"):
        scoring.score(reward_model(), make_tokenizer(), PROMPTS[:1], ["long " * 300])


def test_only_a_model_of_one_label_is_loaded(tmp_path: Path) -> None:
    reward_model(1).save_pretrained(tmp_path / "reward")
    assert scoring.load(tmp_path / "reward").config.num_labels == 1
    reward_model(3).save_pretrained(tmp_path / "three")
    with pytest.raises(DataError, match="one number, this one 3"):
        scoring.load(tmp_path / "three")
    models.save(make_model(make_tokenizer()), make_tokenizer(), tmp_path / "policy")
    with pytest.raises(DataError):
        scoring.load(tmp_path / "policy")


@pytest.mark.parametrize("name", ["granite", "gpt_neox", "falcon_h1", "gemma3, with a vision model"])
def test_any_language_model_gets_a_head(name: str, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    models.save(architectures.build(name), tokenizer, tmp_path / "model")
    model = scoring.begin(tmp_path / "model", tokenizer)
    assert {key for key, _ in model.named_parameters() if key.startswith("score")} == {"score.weight"}
    rows = [[5, 6, 7], [8, 9]]
    scores = scoring.score_rows(model, rows)
    models.save(model, tokenizer, tmp_path / "reward")
    assert scoring.score_rows(scoring.load(tmp_path / "reward"), rows) == pytest.approx(scores, abs=1e-6)


def test_rows_that_rope_turns_by_the_longest_of_a_batch_are_refused() -> None:
    model = architectures.classifier("phi3, LongRoPE")
    rows = architectures.comparisons()
    scoring.check(model, rows[:2], 9, "reward.max_tokens")
    with pytest.raises(ParamsError, match=r"reward\.max_tokens: .* beside each other otherwise than alone"):
        scoring.check(model, rows, 9, "reward.max_tokens")


@pytest.mark.parametrize("padded", [None, bases.END_OF_TURN], ids=["no padding", "padding that ends turns"])
def test_scores_are_read_at_the_end_of_turn_whatever_the_base_pads_with(tmp_path: Path, padded: str | None) -> None:
    tokenizer = bases.tokenizer(template=bases.template("llama3"), eos=bases.END_OF_TURN)
    tokenizer.pad_token = padded
    models.save(models.build(CONFIG, len(tokenizer), "test.model"), tokenizer, tmp_path)
    model = scoring.begin(tmp_path, tokenizer).eval()
    assert tokenizer.pad_token_id not in (None, chat.end_of_turn(tokenizer))
    rows = [preference_pairs.encode(tokenizer, PROMPTS[0], answer) for answer in ("a longer answer", "no")]
    longer, shorter = ([*prompt, *answer] for prompt, answer in rows)
    assert longer[-1] == shorter[-1] == chat.end_of_turn(tokenizer)
    ids = torch.tensor([longer, [*shorter, *[tokenizer.pad_token_id] * (len(longer) - len(shorter))]])
    with torch.no_grad():
        together = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits
        alone = model(input_ids=torch.tensor([shorter])).logits
    assert torch.allclose(together[1:], alone, atol=1e-5)


def test_a_score_is_of_what_is_said_in_tokens_as_in_text() -> None:
    tokenizer, judge = make_tokenizer(), reward_model().eval()
    asked = conversation(1)["messages"][:1]
    plain, thinking, mute = scoring.score(
        judge, tokenizer, [asked] * 3, ["town 7.", "<think>city?</think>town 7.", "<think>town 7."]
    )
    assert thinking == pytest.approx(plain, abs=1e-6)  # a row of a batch adds up in another order
    assert abs(mute - plain) > 1e-4
    tokens = tokenizer("<think>city?</think>town 7.")["input_ids"]
    assert scoring.said(tokenizer, tokens) == tokenizer("town 7.")["input_ids"]
    assert scoring.said(tokenizer, [5, 300, 7]) == [5, 300, 7]


class Gathered:
    """What DeepSpeed's GatheredParameters does: inside, split weights are whole; `most` counts the
    numbers that were whole at once.
    """

    now = most = 0

    def __init__(self, weights: list[Any], modifier_rank: int | None = None) -> None:
        self.weights, self.changes = weights, modifier_rank is not None

    def __enter__(self) -> None:
        for one in self.weights:
            one.data = one.ds_whole.clone()
            Gathered.now += one.numel()
        Gathered.most = max(Gathered.most, Gathered.now)

    def __exit__(self, *_: Any) -> None:
        for one in self.weights:
            Gathered.now -= one.numel()
            one.ds_whole = one.data.clone() if self.changes else one.ds_whole
            one.data = torch.empty(0, dtype=one.dtype)


def split(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Leave of a model what ZeRO-3 leaves in each process; return its weights."""
    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace(zero=SimpleNamespace(GatheredParameters=Gathered)))
    weights: list[Any] = list(model.parameters())
    for number, one in enumerate(weights):
        one.ds_id, one.ds_whole, one.ds_shape = number, one.data, one.shape
        one.data = torch.empty(0, dtype=one.dtype)
    Gathered.now = Gathered.most = 0
    return weights


def test_a_split_model_is_compared_with_few_weights_whole_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[batches.Row] = [{"rows": [[1, 2, 3, 4], [1, 2, 5]], "ranks": [1, 2], "lengths": [2, 1], "length": 4}] * 2
    model = reward_model()
    size = sum(one.numel() for one in model.parameters())
    weights = split(model, monkeypatch)
    shared_prompt.check(model, rows, 9, "reward.share_prompt")
    scoring.check(model, rows, 9, "reward.max_tokens")
    assert 0 < Gathered.most < size / 2 and Gathered.now == 0
    assert all(one.numel() == 0 and not one.is_inference() for one in weights), "training goes on with them"
    hooks = [len(module._forward_hooks) for module in model.modules()]  # transformers' own
    monkeypatch.setattr(score_head, "head_outputs", lambda _, hidden: hidden[:, 0] * torch.arange(len(hidden)))
    with pytest.raises(ParamsError, match=r"reward\.share_prompt: .* otherwise than alone"):
        shared_prompt.check(model, rows, 9, "reward.share_prompt")
    assert Gathered.now == 0 and hooks == [len(module._forward_hooks) for module in model.modules()]


def test_the_head_of_a_split_model_is_the_one_that_a_process_alone_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    head = torch.nn.Linear(64, 1, bias=False)
    torch.set_rng_state(before)
    torch.nn.init.normal_(head.weight)  # transformers' own beginning
    score_head.draw(head.weight, before)
    wanted, after = head.weight.detach().clone(), torch.get_rng_state()
    assert abs(float(wanted.std()) * (wanted.shape[1] + 1) ** 0.5 - 1) < 0.3
    [weight] = split(head, monkeypatch)
    torch.manual_seed(1)  # a process other than the main one has drawn nothing
    score_head.draw(weight, before)
    assert torch.equal(weight.ds_whole, wanted) and torch.equal(torch.get_rng_state(), after)


def test_a_model_in_16_bits_is_compared_within_their_rounding() -> None:
    rows: list[batches.Row] = [{"rows": [[1, 2, 3, 4], [1, 2, 5]], "ranks": [1, 2], "lengths": [2, 1], "length": 4}]
    model = score_head.whole_head(reward_model().to(torch.bfloat16))
    scoring.check(model, rows, 9, "reward.max_tokens")
    shared_prompt.check(model, rows, 9, "reward.share_prompt")
