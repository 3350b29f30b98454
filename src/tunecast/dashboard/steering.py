"""Turns forms into instructions to a session."""

from __future__ import annotations

from collections.abc import Mapping

from tunecast.budget import Budget
from tunecast.dashboard.sources import Session
from tunecast.dashboard.view import refused_text
from tunecast.errors import ConfigurationError
from tunecast.methods.restrictions import unflagged
from tunecast.methods.space import check_pipeline
from tunecast.records import Pipeline, Scalar
from tunecast.session.instructions import Instruction, give, new_instruction

PREFIX = "set-"
"""Begins the names of form fields that hold hyperparameters."""
MAX_FIELDS = 100


def instruct(session: Session, form: Mapping[str, str]) -> Instruction:
    """Give a session the instruction that a form asks for.

    Raises:
        ConfigurationError: The session cannot be steered, or the form is wrong.
        OutputError: The session's folder cannot be written.
    """
    if reason := refused_text(session):
        raise ConfigurationError(reason)
    assert session.folder is not None
    given = _instruction(session, form)
    give(session.folder, given)
    return given


def _instruction(session: Session, form: Mapping[str, str]) -> Instruction:
    kind = form.get("kind", "")
    if kind == "stop-trial":
        run = form.get("run", "")
        live = session.live.status.trials if session.live and session.live.status else ()
        if run not in {one.id for one in session.candidates} | {one.run for one in live}:
            raise ConfigurationError("There is no such trial.", "Choose a trial on the session's page.")
        return new_instruction("stop-trial", run=run)
    if kind == "add-pipeline":
        return new_instruction("add-pipeline", pipeline=pipeline_from(form))
    if kind == "extend-budget":
        return new_instruction("extend-budget", budget=_larger(session, form.get("budget", "")).text)
    if kind == "end-now":
        return new_instruction("end-now")
    raise ConfigurationError("The form does not say what to do.", "Use the forms of the session's page.")


def _larger(session: Session, text: str) -> Budget:
    budget, now = Budget.parse(text.strip()), session.budget
    if now is not None and (budget.kind != now.kind or budget.amount <= now.amount):
        raise ConfigurationError(
            f"The session has {now.text}; {budget.text} is not more of the same.",
            "Give the new total budget, such as " + now.times(2) + ".",
        )
    return budget


def pipeline_from(form: Mapping[str, str]) -> Pipeline:
    """Read a pipeline from the fields of a form; empty fields are left out.

    Raises:
        ConfigurationError: It cannot be trained.
    """
    values: dict[str, Scalar] = {
        name.removeprefix(PREFIX): _value(text.strip())
        for name, text in list(form.items())[:MAX_FIELDS]
        if name.startswith(PREFIX) and text.strip()
    }
    for line in filter(None, map(str.strip, form.get("more", "").splitlines())):
        name, _, text = line.partition("=")
        if not name.strip() or not text.strip():
            raise ConfigurationError(f"{line[:80]!r} is not NAME=VALUE.", "Write it as lora_r=16.")
        values[name.strip()] = _value(text.strip())
    pipeline = Pipeline(form.get("method", ""), values)
    try:
        check_pipeline(pipeline)
    except ConfigurationError as error:
        raise unflagged(error) from None
    return pipeline


def _value(text: str) -> Scalar:
    """Read a number, true or false, or a text."""
    if text.lower() in ("true", "yes"):
        return True
    if text.lower() in ("false", "no"):
        return False
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
