"""Runs in MLflow: trials are child runs of the session's run.

Server, user and experiment are those of MLflow's environment variables (``MLFLOW_TRACKING_URI``,
``MLFLOW_EXPERIMENT_NAME``, ...). See https://mlflow.org/docs/latest/ml/tracking.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from tunecast.records import Run, Scalar
from tunecast.trackers import content
from tunecast.trackers.tracker import OpenTracker, Results, TrackedSession, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

SESSION_TAG = "tunecast.session"
RUN_TAG = "tunecast.run"
MAX_RUNS = 50_000
"""The most that one search of MLflow may ask for."""


class MlflowTracker(Tracker):
    """MLflow: a server, a database or a folder."""

    name: ClassVar[str] = "mlflow"
    library: ClassVar[str] = "mlflow"
    installation: ClassVar[str] = "pip install 'tunecast[mlflow]'"

    def open(self, session: TrackedSession) -> OpenTracker:
        """Find the session's runs by their tags, or begin its parent run."""
        from mlflow import MlflowClient

        # Its own seven tries take two minutes, and the session tries again by itself.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        client = MlflowClient()
        return _OpenMlflow(client, _experiment(client), session)


def _experiment(client: MlflowClient) -> str:
    """Return the id of the experiment that the environment names, by default one called ``tunecast``."""
    from mlflow.exceptions import MlflowException

    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "tunecast")
    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:  # another session made it meanwhile
        if (found := client.get_experiment_by_name(name)) is None:
            raise
        return str(found.experiment_id)


class _OpenMlflow(OpenTracker):
    def __init__(self, client: MlflowClient, experiment: str, session: TrackedSession) -> None:
        self._client = client
        self._experiment = experiment
        self._session = session
        found = client.search_runs(
            [experiment], f"tags.`{SESSION_TAG}` = '{session.id}'", max_results=MAX_RUNS
        )
        self._ids = {run.data.tags[RUN_TAG]: run.info.run_id for run in found}
        self._logged: dict[str, set[tuple[str, int]]] = {}
        self._parent = self._ids.get(session.id) or self._begin(
            session.id, session.name, session.parameters, {}
        )
        self.place = f"{client.tracking_uri}, experiment {experiment}"

    def put(self, run: Run) -> None:
        """Log the points that the run lacks, and how it stands."""
        id = self._ids.get(run.id) or self._begin(
            run.id, content.run_name(run), content.parameters(run), {"mlflow.parentRunId": self._parent}
        )
        self._log(id, dict(content.points(run)))
        for name, text in content.outcome(run).items():
            self._client.set_tag(id, f"tunecast.{name}", text)
        if content.has_ended(run):
            self._client.update_run(id, "FAILED" if run.outcome.is_failure else "FINISHED")

    def finish(self, results: Results) -> None:
        """Log scores and files, and end all runs."""
        for run in results.runs:
            self.put(run)
            id = self._ids[run.id]
            self._log(id, {run.curve[-1].step if run.curve else 0: content.run_summary(run, results.record)})
            if not content.has_ended(run):
                self._client.update_run(id, "FINISHED")
        record = results.record
        self._log(self._parent, {record.test_scorings: content.session_summary(record)})
        for name, text in content.session_outcome(record).items():
            self._client.set_tag(self._parent, f"tunecast.{name}", text)
        for file in (results.report, results.card):
            self._client.log_artifact(self._parent, str(file))
        self._client.update_run(self._parent, "FINISHED")

    def close(self) -> None:
        """Do nothing: every call has reached the server."""

    def _begin(self, id: str, name: str, parameters: Mapping[str, Scalar], tags: Mapping[str, str]) -> str:
        from mlflow.entities import Param

        tags = {**tags, SESSION_TAG: self._session.id, RUN_TAG: id}
        begun = self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id
        self._ids[id] = begun
        self._logged[begun] = set()
        self._client.log_batch(begun, params=[Param(key, str(value)) for key, value in parameters.items()])
        return str(begun)

    def _log(self, id: str, figures: Mapping[int, Mapping[str, float]]) -> None:
        """Log figures by step, without those that the run has."""
        from mlflow.entities import Metric

        # Forgotten until the server has answered: a request that failed may have arrived.
        logged = self._logged.pop(id, None)
        if logged is None:
            logged = self._read(id)
        now = int(1000 * time.time())
        new = [
            Metric(name, value, now, step)
            for step, named in figures.items()
            for name, value in named.items()
            if (name, step) not in logged
        ]
        if new:
            self._client.log_batch(id, metrics=new)
        self._logged[id] = logged | {(metric.key, metric.step) for metric in new}

    def _read(self, id: str) -> set[tuple[str, int]]:
        """Return which metrics the run has, with their steps."""
        names = self._client.get_run(id).data.metrics
        return {(name, metric.step) for name in names for metric in self._client.get_metric_history(id, name)}
