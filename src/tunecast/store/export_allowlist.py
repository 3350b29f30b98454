"""Names that an export may contain: hyperparameters, parts of a model's configuration, hub organisations.

Each list also says which kind of value it permits. Text is permitted only if a program chooses the words.
"""

from __future__ import annotations

HYPERPARAMETER_WORDS = frozenset(
    {
        *("optim", "lr_scheduler_type", "training_loss"),
        *("target_modules", "init_lora_weights", "prompt_tuning_init", "prefix_init"),
    }
)
"""Hyperparameters whose value may be a number or a word."""

HYPERPARAMETER_NUMBERS = frozenset(
    {
        # Arguments of a Trainer, and what all methods share.
        *("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "warmup_ratio"),
        *("warmup_steps", "weight_decay", "max_grad_norm", "neftune_noise_alpha", "label_smoothing"),
        "label_smoothing_factor",
        # Those of the methods.
        *("lora_r", "lora_alpha", "lora_dropout", "loraplus_ratio", "use_dora", "use_rslora", "vera_r"),
        *("adalora_scale", "init_r", "init_r_factor", "target_r", "tinit_ratio", "tfinal_ratio"),
        *("orth_reg_weight", "boft_block_size", "oft_block_size", "budget_r", "d_initial"),
        *("decompose_factor", "loha_r", "loha_scale", "lokr_r", "lokr_scale", "encoder_hidden_size"),
        *("num_virtual_tokens", "keep_share", "perturbation", "directions", "placement"),
        *("trained_layers", "gradient_checkpointing"),
    }
)
"""Hyperparameters whose value must be a number."""

CONFIG_WORDS = frozenset(
    {
        *("model_type", "architectures", "dtype", "torch_dtype", "transformers_version", "rope_type", "type"),
        *("hidden_act", "hidden_activation", "activation_function", "activation", "feed_forward_proj"),
        *("dense_act_fn", "layer_types", "attention_layers", "position_embedding_type", "norm_type"),
    }
)
"""Parts of a model's configuration that may be words, numbers, or lists of them."""

CONFIG_PARTS = frozenset({"rope_parameters", "rope_scaling", "full_attention", "sliding_attention"})
"""Parts of a model's configuration that are mappings."""

CONFIG_NUMBERS = frozenset(
    {
        # Shape.
        *("vocab_size", "hidden_size", "n_embd", "d_model", "num_hidden_layers", "n_layer", "n_layers"),
        *("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "num_attention_heads"),
        *("n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"),
        *("num_key_value_heads", "num_kv_heads", "head_dim", "d_kv", "intermediate_size", "n_inner", "d_ff"),
        *("ffn_dim", "ffn_hidden_size", "encoder_ffn_dim", "decoder_ffn_dim", "word_embed_proj_dim"),
        *("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "chunk_size_feed_forward"),
        *("original_max_position_embeddings", "decoder_vocab_size", "expansion_ratio", "pretraining_tp"),
        # Kinds of layers.
        *("is_encoder_decoder", "is_decoder", "add_cross_attention", "is_gated_act", "tie_word_embeddings"),
        *("attention_bias", "attention_out_bias", "mlp_bias", "use_bias", "bias", "no_bias", "enable_bias"),
        *("use_qkv_bias", "qkv_bias", "multi_query", "new_decoder_architecture", "parallel_attn", "alibi"),
        *("num_ln_in_parallel_attn", "use_parallel_residual", "use_qk_norm", "qk_layernorm"),
        *("do_layer_norm_before", "layer_norm_elementwise_affine", "scale_embedding", "learned_pos_emb"),
        *("apply_residual_connection_post_layernorm", "use_bidirectional_attention", "clip_qkv"),
        *("sliding_window", "use_sliding_window", "sliding_window_pattern", "max_window_layers"),
        *("window_size", "attention_window", "no_rope_layers", "no_rope_layer_interval", "rotary_dim"),
        *("relative_attention_num_buckets", "relative_attention_max_distance"),
        # Numbers inside layers.
        *("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon", "logit_scale"),
        *("final_logit_softcapping", "attn_logit_softcapping", "query_pre_attn_scalar", "scale_attn_weights"),
        *("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "attention_softmax_in_fp32"),
        *("scale_attention_softmax_in_fp32", "embedding_multiplier", "logits_scaling"),
        *("residual_multiplier", "attention_multiplier"),
        # Rotary embeddings.
        *("rope_theta", "rotary_pct", "partial_rotary_factor", "factor", "low_freq_factor"),
        *("high_freq_factor", "attention_factor", "beta_fast", "beta_slow", "short_factor", "long_factor"),
        *("mscale", "mscale_all_dim", "rope_interleave"),
        # Mixtures of experts, latent attention, state spaces and convolutions.
        *("num_experts", "num_local_experts", "num_experts_per_tok", "n_routed_experts", "n_shared_experts"),
        *("moe_intermediate_size", "shared_expert_intermediate_size", "norm_topk_prob", "n_group"),
        *("topk_group", "first_k_dense_replace", "routed_scaling_factor", "decoder_sparse_step"),
        *("mlp_only_layers", "output_router_logits", "router_aux_loss_coef", "router_jitter_noise"),
        *("kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "qk_head_dim", "v_head_dim"),
        "active_parameters",
        *("state_size", "expand", "conv_kernel", "use_conv_bias", "time_step_rank", "conv_bias"),
        *("conv_L_cache", "full_attn_idxs"),
        # Dropout and first values.
        *("attention_dropout", "activation_dropout", "hidden_dropout", "dropout", "dropout_rate"),
        *("resid_pdrop", "embd_pdrop", "attn_pdrop", "emb_pdrop", "residual_dropout", "embedding_dropout"),
        *("resid_dropout", "embed_dropout", "layerdrop", "encoder_layerdrop", "decoder_layerdrop"),
        *("classifier_dropout", "initializer_range", "initializer_factor", "init_std"),
        # Numbers of tokens, and what a call returns.
        *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id"),
        *("forced_eos_token_id", "use_cache", "output_attentions", "output_hidden_states", "return_dict"),
        "problem_type",
    }
)
"""Parts of a model's configuration that must be numbers or lists of numbers."""

ORGANISATIONS = frozenset(
    {
        *("01-ai", "CohereLabs", "EleutherAI", "HuggingFaceH4", "HuggingFaceTB", "LiquidAI", "OpenAssistant"),
        *("PolyAI", "Qwen", "Salesforce", "THUDM", "TinyLlama", "allenai", "apple", "arcee-ai", "bigcode"),
        *("bigscience", "cardiffnlp", "cerebras", "databricks", "deepseek-ai", "distilbert", "facebook"),
        *("google", "google-t5", "ibm-granite", "internlm", "kyutai", "meta-llama", "microsoft"),
        *("mistralai", "mosaicml", "nvidia", "nyu-mll", "openai", "openai-community", "openbmb"),
        *("stabilityai", "stanfordnlp", "state-spaces", "swiss-ai", "tatsu-lab", "tiiuae", "zai-org"),
    }
)
"""Organisations whose hub ids are public. Other ids may be private, or may be folders."""
