"""Batched greedy decoding gives each prompt the answer it gets alone."""

import torch

from stages.common import generation
from tests.tiny import TEXTS, make_model, make_tokenizer


def test_a_batch_of_mixed_lengths_answers_as_one_by_one() -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).eval()
    prompts = [tokenizer(text)["input_ids"][: 3 + 2 * number] for number, text in enumerate(TEXTS[:6])]
    together = generation.generate(model, prompts, max_new_tokens=8, stop=[0], pad=0, batch_size=4)
    for prompt, answer in zip(prompts, together, strict=True):
        ids = list(prompt)
        for _ in range(8):
            with torch.inference_mode():
                token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token == 0:
                break
            ids.append(token)
        assert answer == ids[len(prompt) :]


def test_an_answer_ends_before_its_stop_token() -> None:
    assert generation.until([5, 6, 2, 7], {2}) == [5, 6]
    assert generation.until([5, 6], {2}) == [5, 6]
