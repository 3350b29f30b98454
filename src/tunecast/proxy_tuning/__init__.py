"""Proxy-tuning: a small finetuned model steers a large one by its logits (Liu et al., arXiv 2401.08565).

The next token is drawn from ``softmax(base + alpha * (expert - anti_expert))``. The base is a large model,
whose weights stay as they are. The expert is a small finetuned model, the anti-expert the same model before
its finetuning.
"""
