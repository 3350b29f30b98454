"""Tasks of lm-eval (EleutherAI's evaluation harness) as examples: prompts with their right answers.

The harness reads the task's definition and data, and builds its prompts; nothing is scored by it. Every
prompt and answer is running text, as the harness has it by default, without a chat template.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from tunecast.data.examples import Example, Turn
from tunecast.errors import ConfigurationError, DataError, UserError
from tunecast.paths import expanded

PREFIX = "lm-eval:"
"""Begins the name of a task, group or tag that the harness knows, such as ``lm-eval:arc_easy``."""
MAX_EXAMPLES = 200
"""Documents of a task that are used."""
YAML = ".yaml"


def is_lm_eval(source: str) -> bool:
    """Return whether ``source`` names a task: ``lm-eval:NAME``, or a YAML file that defines one."""
    return source.startswith(PREFIX) or source.lower().endswith(YAML)


def lm_eval_examples(source: str) -> dict[str, tuple[Example, ...]]:
    """Return examples of a task, or of each task of a group, by the task's name.

    The split is the one that the harness scores, as are the prompt's description and demonstrations.

    Args:
        source: ``lm-eval:NAME``, or a YAML file; a group's tasks lie in the file's folder or below.

    Raises:
        ConfigurationError: lm-eval is not installed, or knows no such task.
        DataError: The definition or the data cannot be read, or a document has no right answer.
    """
    with _quietly():
        try:
            return {name: _examples(name, task) for name, task in _load(source).items()}
        except UserError:
            raise
        except Exception as error:  # definitions hold code and templates, and data may be anything
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise DataError(
                f"{source}: lm-eval cannot read this task: {reason}",
                "Its data must be on this machine: in Hugging Face's cache, or in files that the YAML lists "
                "under data_files.",
            ) from None


def _load(source: str) -> Mapping[str, Any]:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise ConfigurationError(
            f"{source}: lm-eval is not installed.", "Run: pip install 'tunecast[guard]'"
        ) from None
    if source.startswith(PREFIX):
        manager, name = TaskManager(), source.removeprefix(PREFIX)
        if name not in manager.task_index:
            raise ConfigurationError(
                f"{source}: lm-eval knows no such task.",
                "`lm-eval ls tasks` lists them; or give a YAML file.",
            )
        return dict(manager.load(name)["tasks"])
    path = expanded(source).resolve()
    if not path.is_file():
        raise ConfigurationError(f"{source}: there is no such file.")
    manager = TaskManager(include_path=str(path.parent), include_defaults=False)
    names = [name for name, entry in manager.task_index.items() if entry.yaml_path == path]
    if not names:
        raise DataError(f"{source} defines no task that lm-eval can read.")
    return dict(manager.load(names)["tasks"])


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the harness's progress bars and logs off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _examples(name: str, task: Any) -> tuple[Example, ...]:
    task.build_all_requests(limit=MAX_EXAMPLES)
    asked = (instance for instance in task.instances if instance.idx == _right(name, task, instance.doc))
    return tuple(_example(task, instance, row) for row, instance in enumerate(islice(asked, MAX_EXAMPLES), 1))


def _right(name: str, task: Any, doc: Mapping[str, Any]) -> int:
    """Return the index of a document's right request; tasks without choices have a single one."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return 0
    # With one answer to several prompts, the prompt's place is what the task calls its text.
    right = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if isinstance(right, list):
        right = right[0]
    choices = task.doc_to_choice(doc)
    if isinstance(right, str) and right in choices:
        right = choices.index(right)
    if not isinstance(right, int) or not 0 <= right < len(choices):
        raise DataError(f"A document of lm-eval's task {name} has no right answer among its choices.")
    return right


def _example(task: Any, instance: Any, row: int) -> Example:
    kind, arguments = task.OUTPUT_TYPE, instance.arguments
    if kind == "loglikelihood_rolling":
        return Example((Turn("text", arguments[0], True),), row)
    prompt, answer = arguments[0], arguments[1]
    if kind == "generate_until":
        target = task.doc_to_target(instance.doc)
        answer = task.config.target_delimiter + str(target[0] if isinstance(target, list) else target)
    return Example((Turn("text", prompt, False), Turn("text", answer, True)), row)
