"""Tokenizers of habits that the tiny models' ones do not have."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def space_adding() -> Any:
    """A tokenizer that marks the start of every text as the start of a word, as SentencePiece ones do."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = {letter: number for number, letter in enumerate("▁\nabc<>s/", start=0)}
    tokenizer = Tokenizer(models.BPE(vocab=letters | {"<s>": 20, "</s>": 21}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 20), ("</s>", 21)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
