"""The registry of methods: built-in ones, and those that other packages add by entry point."""

from __future__ import annotations

from tunecast.errors import ConfigurationError
from tunecast.methods.base import Method
from tunecast.methods.rates import adapter_rate
from tunecast.plugins import Registry
from tunecast.records import ModelFacts

VARIANTS = {
    "dora": "use_dora=true",
    "rslora": "use_rslora=true",
    "pissa": "init_lora_weights=pissa",
    "lora_plus": "loraplus_ratio=16",
    "loraplus": "loraplus_ratio=16",
    "lora+": "loraplus_ratio=16",
}
"""Names of LoRA's variants, and the hyperparameter that makes each."""


def _check(method: Method) -> None:
    if getattr(method, "delivers", "") not in ("adapter", "model"):
        raise ValueError(f"the method {method.name} must set delivers to adapter or model")


_METHODS: Registry[Method] = Registry("method", "tunecast.methods", Method, _check)  # type: ignore[type-abstract]
register = _METHODS.register


def get_method(name: str) -> Method:
    """Return the method called ``name``.

    Raises:
        ConfigurationError: The method is unknown.
    """
    known = _METHODS.all()
    if name not in known:
        variant = VARIANTS.get(name.lower().replace("-", "_"))
        meant = f"That is lora with --fix {variant}. " if variant else _METHODS.hint(name)
        raise ConfigurationError(
            f"There is no finetuning method {name!r}.", f"{meant}Known methods: {', '.join(sorted(known))}."
        )
    return known[name]


def central_rate(name: str, model: ModelFacts) -> float:
    """Return the usual learning rate of a method on a model.

    For an unknown method this is LoRA's: recorded runs may use methods that only another installation has.
    """
    return get_method(name).central_rate(model) if name in method_names() else adapter_rate(model)


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, in the order of registration."""
    return tuple(_METHODS.all())
