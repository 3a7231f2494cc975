"""When a job is due: the ticks of a cron line in a time zone, each once, also when summer time begins or ends.

DBOS reads cron lines by the same library, but fires a daily job twice on the night that summer time ends, and makes
up for missed ticks all or none; the ticks are therefore ours, and are claimed in the job's own row.
"""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

from vivace.errors import UsageError

MOST_MISSED = 1000
"""Ticks that are counted, and no more."""
MOST_FIELDS = 6
"""Of a cron line: seconds, and the usual five."""


def time_zone(name: str) -> ZoneInfo:
    """A time zone by its name.

    Raises:
        UsageError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise UsageError(f"There is no time zone '{name}'; write one as Europe/Berlin or UTC.") from error


def next_tick(cron: str, zone: str, after: datetime) -> datetime:
    """The first tick after a moment.

    A time of day that summer time leaves out comes when the clock has gone on; one that comes twice comes once,
    unless the cron line names every hour.

    Raises:
        UsageError: the line cannot be read, or never comes to pass.
    """
    from croniter import CroniterBadCronError, CroniterBadDateError, croniter

    local = after.astimezone(time_zone(zone))
    if re.search(r"(^|\s)[RrHh]", cron):
        raise UsageError(f"The cron line '{cron}' leaves its time to chance; write the times out.")
    if len(cron.split()) > MOST_FIELDS:
        raise UsageError(
            f"The cron line '{cron}' names years, after which a job has no tick; leave the last field out."
        )
    try:
        ticks = croniter(cron, local, second_at_beginning=True)
        every_hour = ticks.expanded[1] == ["*"]
        while True:
            tick: datetime = ticks.get_next(datetime)
            if every_hour or not tick.fold:
                return tick
    except CroniterBadDateError as error:
        raise UsageError(f"The cron line '{cron}' never comes to pass; correct its day and month.") from error
    except (CroniterBadCronError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(
            f"The cron line '{cron}' cannot be read; write minute, hour, day, month and weekday, as '0 3 * * *'; a "
            "sixth field before them is seconds."
        ) from error


def ticks_until(cron: str, zone: str, due: datetime, now: datetime) -> int:
    """How many ticks have come from one that was due until now, that one among them; no more than `MOST_MISSED`."""
    count = 1
    while count < MOST_MISSED and (due := next_tick(cron, zone, due)) <= now:
        count += 1
    return count
