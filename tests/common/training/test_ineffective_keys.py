"""A key of `training` either does something in its stage or is refused by name; none is new and
unknown to us.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from stages import dpo, orpo, pretrain, reward, sft
from stages.common.runtime.errors import ParamsError
from stages.common.training import fit_params, ineffective_keys
from tests.support.trainers import MODULES


def words(text: str) -> list[str]:
    return text.split()


EFFECTIVE = words("""
accelerator_config activation_checkpointing activation_checkpointing_kwargs adam_beta1 adam_beta2 adam_epsilon
auto_find_batch_size average_tokens_across_devices bf16 bf16_full_eval dataloader_drop_last dataloader_in_order
dataloader_multiprocessing_context dataloader_num_workers dataloader_persistent_workers dataloader_pin_memory
dataloader_prefetch_factor ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters
ddp_static_graph ddp_timeout debug deepspeed enable_jit_checkpoint eval_delay eval_on_start fp16 fp16_full_eval fsdp
fsdp_config full_determinism gradient_accumulation_steps gradient_checkpointing gradient_checkpointing_kwargs
ignore_data_skip include_num_input_tokens_seen label_names learning_rate liger_kernel_config local_rank log_level
log_level_replica log_on_each_node logging_strategy lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_steps
metric_for_best_model neftune_noise_alpha num_train_epochs optim optim_args optim_target_modules parallelism_config
per_device_eval_batch_size per_device_train_batch_size restore_callback_states_from_checkpoint save_on_each_node seed
skip_memory_metrics tf32 torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps use_cache
use_liger_kernel warmup_steps weight_decay
""")
SAMPLING = ["data_seed", "train_sampling_strategy"]
OF_STAGE: dict[str, list[str]] = {
    "pretrain": [*SAMPLING, "label_smoothing_factor"],
    "sft": [*SAMPLING, *words("activation_offloading eos_token packing pad_to_multiple_of pad_token padding_free")],
    "reward": [*SAMPLING, "length_column_name"],
    "ppo": [],
    "dpo": [
        *SAMPLING,
        "length_column_name",
        *words("activation_offloading beta disable_dropout discopop_tau f_alpha_divergence_coef f_divergence_type"),
        *words("label_smoothing ld_alpha loss_type loss_weights pad_to_multiple_of pad_token"),
        *words("precompute_ref_batch_size router_aux_loss_coef use_weighting"),
    ],
    "orpo": [*SAMPLING, "length_column_name"],
    "kto": words(
        "activation_offloading beta data_seed desirable_weight disable_dropout loss_type pad_to_multiple_of"
        " precompute_ref_batch_size router_aux_loss_coef undesirable_weight"
    ),
    "grpo": words(
        "beta cast_lm_head_to_fp32 delta entropy_coef entropy_coef_delta entropy_coef_max"
        " entropy_coef_min entropy_target epsilon epsilon_high generation_batch_size importance_sampling_level"
        " loss_type mask_truncated_completions multi_objective_aggregation num_generations num_iterations"
        " off_policy_mask_threshold pad_to_multiple_of ref_model_mixup_alpha ref_model_sync_steps"
        " router_aux_loss_coef sapo_temperature_neg sapo_temperature_pos scale_rewards shuffle_dataset"
        " steps_per_generation sync_ref_model temperature top_entropy_quantile top_p use_adaptive_entropy"
        " use_bias_correction_kl vespo_k_neg vespo_k_pos vespo_lambda_neg vespo_lambda_pos"
        " vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min vllm_importance_sampling_correction"
        " vllm_importance_sampling_mode"
    ),
}
SET_BY_THE_STAGE: dict[str, set[str]] = {
    "pretrain": set(),
    "sft": {"max_length", "dataset_kwargs"},
    "reward": {"label_names", "remove_unused_columns"},
    "ppo": {"remove_unused_columns"},
    "dpo": {"max_length", "precompute_ref_log_probs", "remove_unused_columns"},
    "orpo": {"label_names", "remove_unused_columns"},
    "kto": {"max_length", "precompute_ref_log_probs", "remove_unused_columns"},
    "grpo": {"max_completion_length", "remove_unused_columns", "reward_weights"},
}
PARAMS = {name: module.Params for name, module in MODULES.items()}


def config_class(stage: str) -> type:
    from transformers import TrainingArguments
    from trl import DPOConfig, GRPOConfig, KTOConfig, SFTConfig

    classes: dict[str, type] = {"sft": SFTConfig, "dpo": DPOConfig, "grpo": GRPOConfig, "kto": KTOConfig}
    return classes.get(stage, TrainingArguments)


@pytest.mark.parametrize("stage", PARAMS)
def test_every_key_of_the_library_is_known_to_work_or_refused(stage: str) -> None:
    keys = {field.name for field in dataclasses.fields(config_class(stage)) if field.init}
    own = {*fit_params.OWN, "output_dir", "use_cpu"} | SET_BY_THE_STAGE[stage]
    refused = set(ineffective_keys.reasons(stage))
    assert not refused - keys
    assert not refused & own - {"remove_unused_columns"}
    assert keys - own - refused == {*EFFECTIVE, *OF_STAGE[stage]} - own


@pytest.mark.parametrize("stage", PARAMS)
def test_every_key_without_effect_is_refused_by_name(stage: str) -> None:
    for key in ineffective_keys.reasons(stage):
        settings = PARAMS[stage](training={"seed": 1, key: None})
        with pytest.raises(ParamsError, match=rf"'{stage}\.training\.{key}' has no effect: .+; remove it"):
            fit_params.config(config_class(stage), settings, stage, "test")


@pytest.mark.parametrize(
    ("stage", "key"),
    [
        ("pretrain", "save_steps"),
        ("sft", "loss_type"),
        ("sft", "assistant_only_loss"),
        ("reward", "label_smoothing_factor"),
        ("dpo", "padding_free"),
        ("orpo", "eval_steps"),
    ],
)
def test_a_stage_refuses_before_it_reads_anything(tmp_path: Path, stage: str, key: str) -> None:
    nowhere: Any = tmp_path / "nowhere"
    settings = MODULES[stage].Params(training={key: "x"})
    build = {
        "pretrain": lambda: pretrain.build_trainer(settings, nowhere, nowhere, "test"),
        "sft": lambda: sft.build_trainer(settings, nowhere, nowhere, "test"),
        "reward": lambda: reward.build_trainer(settings, nowhere, nowhere, "test"),
        "dpo": lambda: dpo.build_trainer(settings, nowhere, nowhere, "test"),
        "orpo": lambda: orpo.build_trainer(settings, nowhere, nowhere, "test"),
    }
    with pytest.raises(ParamsError, match=rf"'{stage}\.training\.{key}' has no effect"):
        build[stage]()


@pytest.mark.parametrize(
    ("key", "beside"),
    [
        ("metric_for_best_model", {"lr_scheduler_type": "reduce_lr_on_plateau"}),
        ("length_column_name", {"train_sampling_strategy": "group_by_length"}),
    ],
)
def test_a_key_that_needs_another_is_refused_without_it(key: str, beside: dict[str, Any]) -> None:
    ineffective_keys.check("reward", {key: "x"} | beside)
    ((other, value),) = beside.items()
    with pytest.raises(ParamsError, match=rf"'reward\.training\.{key}' has no effect: it needs {other}: .*{value}"):
        ineffective_keys.check("reward", {key: "x"})


@pytest.mark.parametrize("stage", PARAMS)
def test_what_was_never_tried_in_a_stage_is_refused_by_name(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ineffective_keys.check(stage, {"fsdp": None, "torch_compile": False})
    with pytest.raises(ParamsError, match=rf"'{stage}\.training\.fsdp_config' is not supported.*zero3"):
        ineffective_keys.check(stage, {"fsdp_config": {"fsdp_version": 2}})
    if stage in ("pretrain", "sft"):
        ineffective_keys.check(stage, {"torch_compile_backend": "inductor"})
    else:
        with pytest.raises(ParamsError, match=rf"'{stage}\.training\.torch_compile_mode' is tried in pretrain and"):
            ineffective_keys.check(stage, {"torch_compile_mode": "default"})
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ParamsError, match="FSDP is not supported"):
        ineffective_keys.check(stage, {})


@pytest.mark.parametrize("stage", PARAMS)
def test_the_optimiser_is_the_fused_one_unless_told_otherwise(stage: str) -> None:
    settings = PARAMS[stage](training={})
    assert fit_params.config(config_class(stage), settings, stage, "test").optim == "adamw_torch_fused"
