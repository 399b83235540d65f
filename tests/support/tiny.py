"""Tiny real parts for tests: a tokenizer trained on a few lines, a model of a few thousand weights,
records on disk.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import tokenizer as tokenizer_stage
from stages.common.core import models, records
from stages.common.text.parquet_writer import write as write_records

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "attention_dropout": 0.1,
}
TEXTS = [
    f"The capital of land {number} is town {number * 7 % 50}. 第{number}国的首都是{number}城。" for number in range(60)
]


def make_tokenizer() -> "PreTrainedTokenizerBase":
    """Return a byte-level BPE of 320 entries with the chat template."""
    return tokenizer_stage.with_template(tokenizer_stage.train(iter(TEXTS), 320), "chatml")


def make_model(tokenizer: "PreTrainedTokenizerBase", seed: int = 0) -> "PreTrainedModel":
    """Return a two-layer Llama with random weights."""
    from transformers import set_seed

    set_seed(seed)
    return models.build(CONFIG, len(tokenizer), "test.model")


def conversation(number: int, answer: str | None = None) -> records.Record:
    """Return a one-turn conversation."""
    return {
        "id": f"tiny.jsonl:{number + 1}",
        "source": "tiny.jsonl",
        "messages": [
            records.message("user", f"What is the capital of land {number}?"),
            records.message("assistant", answer or f"town {number * 7 % 50}."),
        ],
        "tools": None,
    }


def comparison(number: int, responses: list[str], ranks: list[int]) -> records.Record:
    """Return answers to one question with their ranks."""
    return {
        "id": f"ranked.jsonl:{number + 1}",
        "source": "ranked.jsonl",
        "prompt": [records.message("user", f"What is the capital of land {number}?")],
        "responses": responses,
        "ranks": ranks,
        "annotator": "people",
        "categories": None,
        "tools": None,
    }


def labelled(number: int, response: str, desirable: bool) -> records.Record:
    """Return an answer to one question that was liked or not."""
    return {
        "id": f"labelled.jsonl:{number + 1}",
        "source": "labelled.jsonl",
        "prompt": [records.message("user", f"What is the capital of land {number}?")],
        "response": response,
        "desirable": desirable,
        "tools": None,
    }


NOTHING_TO_LEARN: dict[str, list[records.Record]] = {
    "empty": [],
    "all tied": [comparison(61, ["a", "b"], [2, 2]), comparison(62, ["a", "b", "c"], [1, 1, 1])],
    "single answer": [comparison(63, ["a"], [1])],
    "too long": [comparison(64, ["long " * 300, "longer " * 300], [1, 2])],
}
"""Comparisons that teach no preference, by why."""


def write_validated(folder: Path) -> None:
    """Write small validated records of all shapes but prompts under `folder`."""
    documents = [{"id": f"t:{n}", "source": "t", "text": text} for n, text in enumerate(TEXTS)]
    for split, rows in (("train", slice(10, None)), ("validation", slice(0, 10))):
        write_records(documents[rows], folder / "documents" / split, "documents")
        conversations = [conversation(number) for number in range(60)][rows]
        write_records(conversations, folder / "conversations" / split, "conversations")
        ranked = [comparison(n, [f"town {n * 7 % 50}.", f"land {n}?", "..."], [1, 2, 3]) for n in range(60)]
        write_records(ranked[rows], folder / "comparisons" / split, "comparisons")
        told = [labelled(n, f"town {n * 7 % 50}." if n % 2 else f"land {n}?", n % 2 == 1) for n in range(60)]
        write_records(told[rows], folder / "labelled" / split, "labelled")
    questions = [
        {
            "id": f"q:{number}",
            "source": "q",
            "messages": [records.message("user", f"What is the capital of land {number}?")],
            "reference": f"town {number * 7 % 50}",
            "group": "iid",
            "category": "capital/en",
        }
        for number in range(4)
    ]
    write_records(questions, folder / "questions", "questions")
