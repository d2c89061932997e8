"""The Redis adapters with the settings' defaults, and whatever a test says otherwise."""

from orchestrator import settings
from orchestrator.adapters.redis_events import RedisEvents
from orchestrator.adapters.redis_people import RedisPeople

DEFAULTS = settings.load(environment={})


def an_event_log(client, retention=None, is_log=True, **about) -> RedisEvents:
    """The event log; *about*: settings of the section `events`."""
    return RedisEvents(client, DEFAULTS.events.model_copy(update=about), retention or DEFAULTS.retention, is_log)


def people_of(client, plan=None, retention=None) -> RedisPeople:
    """The People of *client*; without a *plan* nobody has features."""
    return RedisPeople(client, plan, retention or DEFAULTS.retention)


def a_retention(**about):
    """The section `retention`."""
    return DEFAULTS.retention.model_copy(update=about)
