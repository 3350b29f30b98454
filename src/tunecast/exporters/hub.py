"""Uploads a delivered model to the Hugging Face hub. The model stays where it was saved."""

from __future__ import annotations

from pathlib import Path

from tunecast.errors import ConfigurationError, UserError, first_line
from tunecast.exporters.adapters import find_delivery, is_whole
from tunecast.models.adapter import read_adapter

FLAG = "--to hub"


def push(source: Path, repository: str, *, private: bool) -> str:
    """Upload the model that a session delivered, or another one, to a repository; returns its address.

    Args:
        source: A session's folder, or the folder of an adapter or a model.
        repository: ``NAME`` or ``USER/NAME``; it is created if it does not exist.
        private: Whether a new repository can be seen by its owner only.

    Raises:
        ConfigurationError: The model or the token is missing, or the name is not that of a repository.
        UserError: The hub does not answer or refuses.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    folder = find_delivery(FLAG, source)
    if not is_whole(folder):
        read_adapter(FLAG, folder, allow_classifier=True)
    again = f"The model stays in {folder}; repeat this command to upload it."
    if constants.HF_HUB_OFFLINE:
        raise ConfigurationError(
            f"{FLAG}: HF_HUB_OFFLINE is set, so nothing is uploaded.", f"Unset it. {again}"
        )
    if get_token() is None:
        raise ConfigurationError(f"{FLAG} needs a token of the hub.", "Run `hf auth login`, or set HF_TOKEN.")
    hub = HfApi()
    try:
        name = hub.create_repo(repository, private=private, exist_ok=True).repo_id
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a model by Tunecast")
    except HFValidationError as error:
        raise ConfigurationError(f"--repo {repository!r}: {first_line(error)}", "Say USER/NAME.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = "Check that the token may write there." if status in (401, 403) else again
        raise UserError(f"{FLAG}: the hub refused the upload (HTTP {status}).", hint) from None
    except (HTTPError, OSError) as error:
        raise UserError(f"{FLAG}: {hub.endpoint} does not answer ({type(error).__name__}).", again) from None
    return f"{hub.endpoint}/{name}"
