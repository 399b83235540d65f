"""The automations of the Prefect server that are ours: a run whose process is gone becomes Crashed,
and people are told of a run that failed, at the address of LATHE_NOTIFY.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from stages.common.tracking import notices

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import Automation

SILENT_SECONDS = 90
"""A run whose process has not been heard of for so long has crashed; it is heard of each 30 s."""
ZOMBIES, FAILURES = "a run whose process is gone", "a run that failed"
ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")
FLOWS = ("train", "rounds", "review", "release")
"""Flows that people start; what runs within one of them has another name, so one failure is told
once."""
BLOCK = "lathe-notify"
TITLE = "{{ event.resource.name }}: {{ event.resource['prefect.state-name'] }}"
TEXT = "{{ event.resource['prefect.state-message'] }}\nFlow run {{ flow_run.id }}; run it again to go on."


def apply(client: "SyncPrefectClient") -> list[str]:
    """Make what is missing on the server, or follows another address by now; return what was
    done. Raises ParamsError for an address that nothing understands.
    """
    return [*_zombies_end(client), *_people_are_told(client)]


def _zombies_end(client: "SyncPrefectClient") -> list[str]:
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    if client.read_automations_by_name(ZOMBIES):
        return []
    heard = "prefect.flow-run.heartbeat"
    silent = EventTrigger(
        after={heard},
        expect={heard, *(f"prefect.flow-run.{state}" for state in ENDS)},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENT_SECONDS),
    )
    message = f"nothing was heard of its process for {SILENT_SECONDS} s; run it again to go on"
    crashed = ChangeFlowRunState(name=None, state=StateType.CRASHED, message=message, force=False)
    client.create_automation(AutomationCore(name=ZOMBIES, trigger=silent, actions=[crashed]))
    return [f"automation '{ZOMBIES}'"]


def _people_are_told(client: "SyncPrefectClient") -> list[str]:
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    there, url = client.read_automations_by_name(FAILURES), notices.address()
    if url is None:
        for automation in there:
            client.delete_automation(automation.id)
        return [f"no automation '{FAILURES}' any more"] if there else []
    block, changed = _block(url)
    if there and not changed and _sends(there[0]) == block:
        return []
    failed = EventTrigger(
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"},
        match_related=ResourceSpecification.model_validate(
            {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}
        ),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
    tell = SendNotification(block_document_id=block, subject=TITLE, body=TEXT)
    for automation in there:
        client.delete_automation(automation.id)
    client.create_automation(AutomationCore(name=FAILURES, trigger=failed, actions=[tell]))
    return [f"automation '{FAILURES}'"]


def _block(url: str) -> "tuple[UUID, bool]":
    """Return the block that holds the address, and whether that is new; the server keeps it
    encrypted and its pages do not show it.
    """
    from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook

    kind: Any = CustomWebhookNotificationBlock if notices.is_webhook(url) else SlackWebhook
    if kind is SlackWebhook:  # its address is any of Apprise's
        facts: dict[str, Any] = {"url": url, "notify_type": "failure"}
    else:
        body = {"event": "a flow run failed", "title": "{{subject}}", "text": "{{subject}}\n{{body}}"}
        facts = {"name": BLOCK, "url": "{{address}}", "json_data": body, "secrets": {"address": url}}
        facts["timeout"] = notices.SECONDS
    wanted: Any = kind(**facts)
    try:
        there = kind.load(BLOCK)
        if _said(there) == _said(wanted):
            return there._block_document_id, False
    except ValueError:  # there is none
        pass
    return wanted.save(BLOCK, overwrite=True), True


def _said(block: Any) -> dict[str, Any]:
    """Return what a block says, secrets in plain text."""
    facts: dict[str, Any] = block.model_dump(include=set(type(block).model_fields))
    return {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else value for name, value in facts.items()
    }


def _sends(automation: "Automation") -> "UUID | None":
    """Return the block that an automation sends by."""
    return next((getattr(action, "block_document_id", None) for action in automation.actions), None)
