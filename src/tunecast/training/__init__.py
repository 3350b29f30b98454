"""A trial on real hardware: plan, training loop, evaluation, checkpoints, generation, a worker's runner."""
