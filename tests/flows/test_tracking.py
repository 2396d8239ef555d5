"""An MLflow run that is continued belongs to whoever continues it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from mlflow.tracking import MlflowClient

from flows.home import Home
from flows.journal import ConsoleJournal
from flows.tracking import FAILURE_TAG, FLOW_RUN_TAG, FLOW_RUN_URL_TAG, tracked_run


class FlowRunJournal(ConsoleJournal):
    """As in a deployment, as far as MLflow is told of it."""

    def __init__(self, flow_run_id: str) -> None:
        super().__init__()
        self.flow_run_id = flow_run_id
        self.flow_run_url = f"http://127.0.0.1:4200/runs/flow-run/{flow_run_id}"


def fail(home: Home, journal: ConsoleJournal) -> str:
    """The id of an MLflow run whose work has failed."""
    run_id = ""
    with suppress(OSError), tracked_run(home, "molecules", "finetune it", {}, journal, None) as run:
        run_id = run.run_id
        raise OSError("the disk is full")
    return run_id


@pytest.mark.parametrize("second", [ConsoleJournal(), FlowRunJournal("second")])
def test_a_resumed_run_forgets_its_former_flow_run_and_failure(home: Home, second: ConsoleJournal) -> None:
    run_id = fail(home, FlowRunJournal("first"))
    failed = MlflowClient().get_run(run_id)
    assert failed.info.status == "FAILED"
    assert failed.data.tags[FLOW_RUN_TAG] == "first"
    assert failed.data.tags[FAILURE_TAG] == "the disk is full"

    with tracked_run(home, "molecules", "finetune it", {}, second, run_id):
        resumed = MlflowClient().get_run(run_id)
    assert resumed.info.status == "RUNNING"
    # Whoever looks for runs that outlived their flow run must not find this one by the first.
    assert resumed.data.tags.get(FLOW_RUN_TAG, "") == second.flow_run_id
    assert resumed.data.tags.get(FLOW_RUN_URL_TAG, "") == second.flow_run_url
    assert FAILURE_TAG not in resumed.data.tags
    assert MlflowClient().get_run(run_id).info.status == "FINISHED"
