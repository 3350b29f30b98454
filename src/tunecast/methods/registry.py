"""The registry of methods: built-in ones, and those that other packages add by entry point."""

from __future__ import annotations

from functools import cache

from tunecast.errors import ConfigurationError, did_you_mean
from tunecast.methods.base import Method
from tunecast.methods.rates import adapter_rate
from tunecast.plugins import broken_plugin, load_plugins
from tunecast.records import ModelFacts

ENTRY_POINT_GROUP = "tunecast.methods"

VARIANTS = {
    "dora": "use_dora=true",
    "rslora": "use_rslora=true",
    "pissa": "init_lora_weights=pissa",
    "lora_plus": "loraplus_ratio=16",
    "loraplus": "loraplus_ratio=16",
    "lora+": "loraplus_ratio=16",
}
"""Names of LoRA's variants, and the hyperparameter that makes each."""

_METHODS: dict[str, Method] = {}


def register(method: Method) -> None:
    """Add a method.

    Raises:
        ValueError: The name is missing or taken, or ``delivers`` is neither ``adapter`` nor ``model``.
    """
    name = getattr(method, "name", "")
    if not name or name in _METHODS:
        raise ValueError(f"the method name {name!r} is missing or taken")
    if getattr(method, "delivers", "") not in ("adapter", "model"):
        raise ValueError(f"the method {name} must set delivers to adapter or model")
    _METHODS[name] = method


def get_method(name: str) -> Method:
    """Return the method called ``name``.

    Raises:
        ConfigurationError: The method is unknown.
    """
    broken = _load_plugins()
    if name not in _METHODS:
        known = ", ".join(sorted(_METHODS))
        variant = VARIANTS.get(name.lower().replace("-", "_"))
        meant = f"That is lora with --fix {variant}. " if variant else did_you_mean(name, _METHODS)
        raise ConfigurationError(
            f"There is no finetuning method {name!r}.",
            f"{broken_plugin(name, broken)}{meant}Known methods: {known}.",
        )
    return _METHODS[name]


def central_rate(name: str, model: ModelFacts) -> float:
    """Return the usual learning rate of a method on a model.

    For an unknown method this is LoRA's: recorded runs may use methods that only another installation has.
    """
    return get_method(name).central_rate(model) if name in method_names() else adapter_rate(model)


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, in the order of registration."""
    _load_plugins()
    return tuple(_METHODS)


@cache
def _load_plugins() -> dict[str, str]:
    """Register the plugins, once; returns what is wrong with broken ones."""
    return load_plugins(ENTRY_POINT_GROUP, Method, register)  # type: ignore[type-abstract]
