"""Virtual tokens: prompt tuning, prefix tuning and p-tuning.

Prompt tuning trains embeddings before the text (Lester et al., arXiv 2104.08691). P-tuning computes them with
a small network that is dropped on saving (Liu et al., arXiv 2103.10385). Prefix tuning instead trains keys
and values of every layer (Li and Liang, arXiv 2101.00190). The base model's weights are not changed.

peft lets the base model count positions, which is correct only for right-padded texts. Batches here are
padded on the left, so positions are counted from the attention mask: virtual tokens take the first positions,
the text follows, and padding takes none. Without padding, these are peft's own positions.
"""

from __future__ import annotations

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.peft_method import PeftMethod, remove_leftovers, task_type
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

NUMBERS = (10, 20, 50, 100)
CONTEXT_SHARE = 8
"""Virtual tokens may take one in this many positions of the context."""
LEARNED_POSITIONS = frozenset(
    {"biogpt", "codegen", "ctrl", "gpt2", "gpt_bigcode", "gpt_neo", "openai-gpt", "opt", "xglm"}
)
"""Families that look positions up in a table, where a position beyond the last is an error."""
VOCABULARY = "vocabulary"
"""The start from random words of the vocabulary."""
WITHOUT_ATTENTION = frozenset({"falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm"})


class VirtualTokens(PeftMethod):
    """The common part: the number of tokens, their positions, and their removal.

    NEFTune's noise is added only to the text's embeddings, because virtual tokens are not looked up.
    """

    def applies(self, model: ModelFacts) -> str | None:
        """Reject contexts too short for the smallest number of virtual tokens."""
        if model.context is not None and not _numbers(model):
            return f"its context of {model.context} positions has no room for {NUMBERS[0]} virtual tokens"
        return None

    def why_not_shardable(self) -> str | None:
        """Only the layers of the base model can be spread."""
        return "its virtual tokens lie outside of the model's layers"

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the number of virtual tokens."""
        from ConfigSpace import Categorical

        numbers = _numbers(model)
        usual = 20 if 20 in numbers else numbers[0]
        return (Categorical("num_virtual_tokens", numbers, default=usual, ordered=True),)

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the configuration; :meth:`own_config` adds the method's own arguments."""
        number = int(pipeline.number("num_virtual_tokens"))
        task = task_type(encoder_decoder)
        return self.own_config(pipeline, num_virtual_tokens=number, task_type=task)

    @abstractmethod
    def own_config(self, pipeline: Pipeline, **common: Any) -> Any:
        """Build the peft configuration from the common arguments and the method's own."""

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Put virtual tokens before the text, and hook the base to count positions."""
        # peft warns at every pass that it drops position ids; the hook puts them back.
        warnings.filterwarnings("ignore", message="Position ids are not supported")
        model = super().attach(base, pipeline, seed)
        if "position_ids" in inspect.signature(base.forward).parameters:
            model._tunecast_hook = base.register_forward_pre_hook(
                _positions_of(base.config), with_kwargs=True
            )
        return model

    def detach(self, model: Any) -> Any:
        """Remove the hook and peft's attributes; the base model was only wrapped."""
        base = model.get_base_model()
        if "_tunecast_hook" in vars(model):
            model._tunecast_hook.remove()
        remove_leftovers(base)
        return base


class PromptTuning(VirtualTokens):
    """Trains input embeddings; an encoder-decoder gets them in the encoder."""

    name: ClassVar[str] = "prompt_tuning"
    weight: ClassVar[float] = 0.15
    rate_range: ClassVar[tuple[float, float] | None] = (1e-3, 3e-1)
    fixed_rate: ClassVar[float | None] = 1e-2

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the common ones and the start: embeddings of random words work better than noise."""
        from ConfigSpace import Categorical

        start = Categorical(
            "prompt_tuning_init", (VOCABULARY, "random"), default=VOCABULARY, weights=(0.8, 0.2)
        )
        return (*super().choices(model), start)

    def own_config(self, pipeline: Pipeline, **common: Any) -> Any:
        """Build the ``PromptTuningConfig``."""
        from peft import PromptTuningConfig, PromptTuningInit

        random = pipeline.hyperparameters.get("prompt_tuning_init") == "random"
        return PromptTuningConfig(
            **common,
            prompt_tuning_init=PromptTuningInit.RANDOM if random else PromptTuningInit.SAMPLE_VOCAB,
            # peft's default of two for an encoder-decoder would leave half of the embeddings unused.
            num_transformer_submodules=1,
        )


class PTuning(VirtualTokens):
    """Trains a three-layer network that computes input embeddings."""

    name: ClassVar[str] = "p_tuning"
    weight: ClassVar[float] = 0.1
    rate_range: ClassVar[tuple[float, float] | None] = (1e-4, 1e-2)
    fixed_rate: ClassVar[float | None] = 1e-3

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the common ones and the width of the network."""
        from ConfigSpace import Categorical

        width = Categorical("encoder_hidden_size", (128, 256, 512), default=256, ordered=True)
        return (*super().choices(model), width)

    def own_config(self, pipeline: Pipeline, **common: Any) -> Any:
        """Build the ``PromptEncoderConfig``."""
        from peft import PromptEncoderConfig

        return PromptEncoderConfig(
            **common,
            encoder_hidden_size=int(pipeline.number("encoder_hidden_size", 256)),
            num_transformer_submodules=1,
        )


class PrefixTuning(VirtualTokens):
    """Trains keys and values before the text's in every layer; in an encoder-decoder, in the decoder's.

    A prefix of zeros disturbs least. One of random words has the keys and values that the model computes for
    them; only a decoder can start so. With gradient checkpointing, transformers leaves out keys and values
    that a layer is given, so that nothing would be trained.
    """

    name: ClassVar[str] = "prefix_tuning"
    ignores: ClassVar[frozenset[str]] = frozenset({"gradient_checkpointing"})
    weight: ClassVar[float] = 0.15
    rate_range: ClassVar[tuple[float, float] | None] = (3e-3, 3e-1)
    fixed_rate: ClassVar[float | None] = 2e-2

    starts: ClassVar[Mapping[str, float]] = {"zero": 0.8, "random": 0.2}
    """What a prefix begins as, the usual one first, with the share of the search that draws it."""

    def applies(self, model: ModelFacts) -> str | None:
        """Reject models without attention."""
        if model.family in WITHOUT_ATTENTION:
            return "it has no attention whose keys and values a prefix could extend"
        return super().applies(model)

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the common ones and the start."""
        from ConfigSpace import Categorical

        starts = self.starts if model.architecture == "decoder-only" else PrefixTuning.starts
        names, shares = tuple(starts), tuple(starts.values())
        start = Categorical("prefix_init", names, default=names[0], weights=shares)
        return (*super().choices(model), start)

    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Put the prefix before the text, and start it from words where the pipeline says so."""
        model = super().attach(base, pipeline, seed)
        if pipeline.hyperparameters.get("prefix_init") == VOCABULARY:
            _start_from_words(model, seed)
        return model

    def own_config(self, pipeline: Pipeline, **common: Any) -> Any:
        """Build the ``PrefixTuningConfig``."""
        from peft import PrefixTuningConfig

        random = pipeline.hyperparameters.get("prefix_init") == "random"
        return PrefixTuningConfig(**common, init_weights=None if random else "zero")

    def suit(self, peft_config: Any, model_config: Any) -> None:
        """Set the shape of an encoder-decoder's keys, where peft would use the encoder's layers and width."""
        if not model_config.is_encoder_decoder:
            return
        heads = getattr(model_config, "decoder_attention_heads", model_config.num_attention_heads)
        head_width = getattr(model_config, "d_kv", model_config.hidden_size // heads)
        layers = getattr(model_config, "num_decoder_layers", None) or getattr(
            model_config, "decoder_layers", model_config.num_hidden_layers
        )
        peft_config.num_layers = layers
        peft_config.num_attention_heads = heads
        peft_config.token_dim = heads * head_width


def _start_from_words(model: Any, seed: int) -> None:
    """Give a prefix the keys and values of random words, as MeZO's authors do (arXiv 2305.17333)."""
    import torch
    from peft import prompt_embeddings_from_past_key_values

    base, prefix = model.get_base_model(), model.prompt_encoder[model.active_adapter].embedding.weight
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(base.config.vocab_size, (1, len(prefix)), generator=generator).to(base.device)
    was_training = base.training
    with torch.no_grad():
        cache = base.eval()(input_ids=words, use_cache=True).past_key_values
        prefix.copy_(prompt_embeddings_from_past_key_values(cache, num_virtual_tokens=len(prefix)))
    base.train(was_training)


def _numbers(model: ModelFacts) -> list[int]:
    limit = NUMBERS[-1] if model.context is None else model.context // CONTEXT_SHARE
    return [number for number in NUMBERS if number <= limit]


def _positions_of(config: Any) -> Callable[..., Any]:
    """Build a hook that counts positions from the attention mask before the base model runs.

    The hook raises a ValueError if the text and its virtual tokens exceed the position table. On an
    accelerator, the failing look-up would kill the process.
    """
    limit = None
    if config.model_type in LEARNED_POSITIONS:
        limit = getattr(config, "max_position_embeddings", None)

    def count(_module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        mask = named.get("attention_mask")
        if mask is None or mask.dim() != 2:
            return None
        if limit is not None and mask.shape[1] > limit:
            raise ValueError(
                f"{mask.shape[1]} positions with the virtual tokens, but the model has {limit}: "
                "give a smaller --max-length"
            )
        given = named.get("inputs_embeds")
        given = named["input_ids"] if given is None else given
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        return arguments, {**named, "position_ids": positions[:, -given.shape[1] :]}

    return count
