"""Keys of `training` that a library's config has and a stage makes no use of: taken in silence they
mislead.
"""

import os
from collections.abc import Mapping
from typing import Any

from stages.common.core import params
from stages.common.runtime.errors import ParamsError

Reasons = dict[str, tuple[str, ...]]
EVERYWHERE: Reasons = {
    "checkpoints are written by checkpoint_minutes and keep_checkpoints, the last epoch's model is published": (
        "save_steps",
        "save_total_limit",
        "save_only_model",
        "load_best_model_at_end",
        "greater_is_better",
        "resume_from_checkpoint",
    ),
    "each epoch's end is evaluated, by its loss alone": (
        "eval_steps",
        "do_eval",
        "do_train",
        "do_predict",
        "prediction_loss_only",
        "include_for_metrics",
        "batch_eval_metrics",
        "eval_accumulation_steps",
        "eval_do_concat_batches",
        "eval_use_gather_object",
    ),
    "every step is logged, and to this project's own run": (
        "logging_first_step",
        "run_name",
        "project",
        "trackio_space_id",
        "trackio_bucket_id",
        "trackio_static_space_id",
    ),
    "models go to the registry and are pushed nowhere": (
        "push_to_hub",
        "hub_model_id",
        "hub_strategy",
        "hub_token",
        "hub_private_repo",
        "hub_always_push",
        "hub_revision",
    ),
}
OWN_LOSS: Reasons = {"this stage's loss has no smoothed labels": ("label_smoothing_factor",)}
OWN_MODEL: Reasons = {"the model is loaded by the stage": ("model_init_kwargs", "trust_remote_code")}
ALL_COLUMNS: Reasons = {
    "the data has no column but those the model reads": ("remove_unused_columns", "length_column_name")
}
REFERENCE_KEYS = ("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps")
STAGES: dict[str, Reasons] = {
    "pretrain": ALL_COLUMNS,
    "sft": OWN_LOSS
    | OWN_MODEL
    | ALL_COLUMNS
    | {
        "the loss is cross-entropy on what the assistant wrote": (
            "loss_type",
            "assistant_only_loss",
            "completion_only_loss",
            "router_aux_loss_coef",
        ),
        "the stage renders and tokenises conversations itself, by the model's own template": (
            "chat_template_path",
            "dataset_text_field",
            "dataset_num_proc",
            "shuffle_dataset",
        ),
        "sft.max_tokens and sft.too_long say what is cut": ("truncation_mode",),
        "rows are packed by best-fit decreasing, held-out ones never": ("packing_strategy", "eval_packing"),
    },
    "reward": OWN_LOSS,
    "ppo": OWN_LOSS
    | {
        "episodes are read in the order of the rollouts": (
            "train_sampling_strategy",
            "length_column_name",
            "data_seed",
        )
    },
    "dpo": OWN_LOSS
    | OWN_MODEL
    | {
        "the stage tokenises pairs itself": ("dataset_num_proc",),
        "dpo.max_tokens says which pairs are left out": ("truncation_mode",),
        "the reference stays as it is and is read once, before the first step": REFERENCE_KEYS,
        "DPOTrainer pads all the same": ("padding_free",),
    },
    "orpo": OWN_LOSS,
    "kto": OWN_LOSS
    | OWN_MODEL
    | {
        "the stage tokenises answers itself": ("dataset_num_proc",),
        "the reference stays as it is and is read once, before the first step": REFERENCE_KEYS,
        "answers are read in a new order each epoch, by the seed": ("train_sampling_strategy", "length_column_name"),
    },
    "grpo": OWN_LOSS
    | OWN_MODEL
    | {
        "answers come from run.engine, by temperature and top_p": (
            "top_k",
            "min_p",
            "repetition_penalty",
            "generation_kwargs",
            "cache_implementation",
            "chat_template_kwargs",
            "ds3_gather_for_generation",
            "max_tool_calling_iterations",
            "transformers_continuous_batching_config",
            "use_transformers_continuous_batching",
            "use_transformers_paged",
            "use_vllm",
            "vllm_enable_sleep_mode",
            "vllm_gpu_memory_utilization",
            "vllm_group_port",
            "vllm_importance_sampling_cap",
            "vllm_max_model_length",
            "vllm_mode",
            "vllm_model_impl",
            "vllm_server_base_url",
            "vllm_server_host",
            "vllm_server_port",
            "vllm_server_timeout",
            "vllm_structured_outputs_regex",
            "vllm_tensor_parallel_size",
        ),
        "held-out prompts are answered once, greedily": ("num_generations_eval",),
        "dropout is off": ("disable_dropout",),
        "a table of answers goes to this project's own run": (
            "log_completions",
            "log_completions_hub_repo",
            "log_multimodal",
            "log_unique_prompts",
            "num_completions_to_print",
        ),
        "prompts are drawn in whole groups": ("train_sampling_strategy", "length_column_name", "data_seed"),
    },
}
UNTRIED: dict[str, tuple[frozenset[str], str, str]] = {
    "torch_compile": (frozenset({"pretrain", "sft"}), "is tried in pretrain and sft only", "remove it"),
    "fsdp": (
        frozenset(),
        "is not supported: a checkpoint would not hold the parts of all processes",
        "split the weights by infra/accelerate/zero3.yaml",
    ),
}
"""Keys by their beginning: the stages that may be told them, and what the others say and advise."""
ONLY_WITH: dict[str, tuple[str, frozenset[str]]] = {
    "metric_for_best_model": ("lr_scheduler_type", frozenset({"reduce_lr_on_plateau"})),
    "length_column_name": ("train_sampling_strategy", frozenset({"group_by_length", "batch_rebalance"})),
}
"""Keys that do something beside another key's values alone."""


def reasons(stage: str) -> dict[str, str]:
    """Return the keys without effect in a stage, with why."""
    both = EVERYWHERE | STAGES.get(stage, {})
    return {key: why for why, keys in both.items() for key in keys}


def check(stage: str, training: Mapping[str, Any]) -> None:
    """Raise ParamsError for the first key of a stage's `training` that would have no effect,
    whatever its value; and for one that was never tried in it, and for accelerate's FSDP.
    """
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        _, what, remedy = UNTRIED["fsdp"]
        raise ParamsError(f"FSDP {what}", where="run.launcher", remedy=remedy)
    for key, value in training.items():
        for begin, (stages, what, remedy) in UNTRIED.items():
            if key.startswith(begin) and value and stage not in stages:
                raise ParamsError(f"'{stage}.training.{key}' {what}", where=params.PARAMS_FILE, remedy=remedy)
    known = reasons(stage)
    for key in training:
        why = known.get(key, "")
        other, values = ONLY_WITH.get(key, ("", frozenset()))
        if not why and other and training.get(other) not in values:
            why = f"it needs {other}: {' or '.join(sorted(values))}"
        if why:
            what = f"'{stage}.training.{key}' has no effect: {why}"
            raise ParamsError(what, where=params.PARAMS_FILE, remedy="remove it")
