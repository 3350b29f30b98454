"""Federated finetuning on Flower: clients train on data that never leaves them.

The algorithms (:mod:`fedkseed`, :mod:`lora`, :mod:`slora`) and the loop over rounds (:mod:`rounds`) know nothing
of Flower. :mod:`apps` is where Flower carries their messages.
"""
