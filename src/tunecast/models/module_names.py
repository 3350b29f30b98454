"""Names of the parts of a layer across architectures, as patterns that peft takes."""

from __future__ import annotations

ATTENTION_MODULES = r".*\.(q_proj|k_proj|v_proj|o_proj|c_attn|q|k|v|o|query_key_value|qkv_proj|Wqkv)"
"""The projections of attention by their names in models like Llama, GPT-2 and T5, and in fused ones."""
FEED_FORWARD_OUTPUTS = r".*\.(down_proj|wo|mlp\.c_proj|fc2|dense_4h_to_h)"
"""The last layers of feed-forward blocks, by their names in models like Llama, T5, GPT-2, OPT and NeoX."""
KEYS_VALUES_AND_FEED_FORWARD = (
    r".*\.(k_proj|v_proj|k|v|c_attn|query_key_value|qkv_proj|Wqkv|down_proj|wo|mlp\.c_proj|fc2|dense_4h_to_h)"
)
"""The projections of keys and values, or the fused one of queries too, and :data:`FEED_FORWARD_OUTPUTS`."""
