"""How well is the loss of a finetuning predicted before it begins, on what was never seen?"""
