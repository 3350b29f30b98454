"""Federated finetuning on Flower: clients train on data that never leaves them.

The algorithms (``fedkseed``, ``lora``, ``slora``) and the loop over rounds (``rounds``) know nothing of
Flower. ``apps`` is where Flower carries their messages.
"""
