"""What the YAML configurations have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunecast.errors import ConfigurationError
from tunecast.exporters.job import Work


def as_yaml(settings: Mapping[str, Any], command: str) -> str:
    """Settings as YAML in their order, below the command that runs them.

    Floats stand as 0.0002, never as 2e-4: YAML 1.1 takes that for a string.
    """
    import yaml

    class Plain(yaml.SafeDumper):
        """Writes floats without an exponent."""

    def write(dumper: Any, value: float) -> Any:
        text = f"{value:.12f}".rstrip("0")
        return dumper.represent_scalar("tag:yaml.org,2002:float", text + "0" * text.endswith("."))

    Plain.add_representer(float, write)
    body = yaml.dump(dict(settings), Dumper=Plain, sort_keys=False, allow_unicode=True)
    return f"# {command}\n{body}"


def refuse_unknown(work: Work, trainer: str, methods: Sequence[str]) -> None:
    """Stop where the trainer does not know the pipeline's method.

    Raises:
        ConfigurationError: It does not.
    """
    if work.pipeline.method not in methods:
        raise ConfigurationError(
            f"{trainer} cannot be told to train {work.pipeline.method}.",
            f"Hand over one of {', '.join(methods)}, or use --to trl for other adapters of peft.",
        )
