"""Messages on their way: by webhook and by e-mail, tried again within bounds, and kept with what became of them."""

from __future__ import annotations

import asyncio
import html
import os
import re
import smtplib
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import make_msgid
from urllib.parse import SplitResult, unquote, urlsplit

from sqlalchemy import select, update

from vivace.errors import UsageError
from vivace.output.printable import printable
from vivace.output.secrets import masked, note_password
from vivace.settings import Settings, load_settings
from vivace.store.database import Database
from vivace.store.records import clock
from vivace.store.tables import Alert, Delivery, Schedule

TRIES_AT_ONCE = 3
MOST_TRIES = 9
"""After which a message is given up: three nights of three tries."""
PAUSES_S = (1.0, 4.0)
TIMEOUT_S = 10.0
LONGEST = 3000
"""Characters of a message: Slack cuts longer ones."""
IN_ENVIRONMENT = "env:"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ADDRESS = re.compile(r"[^\s@<>,;:\"\x00-\x1f]+@[^\s@<>,;:\"\x00-\x1f]+")
_IS_PLAIN = re.compile(r"[!-~]+")
_MEANS_SECRET = re.compile(r"[A-Za-z0-9_-]{20,}")


class DeliveryError(Exception):
    """A message did not arrive, for a reason that the text names."""


def check_webhook(webhook: str | None) -> None:
    """See that a webhook can be stored, and called.

    Raises:
        UsageError: it is no address, holds a secret, or its variable is not set.
    """
    if webhook is None:
        return
    if webhook.startswith(IN_ENVIRONMENT):
        _resolved(webhook)
        return
    parts = _split(webhook)
    if parts is None:
        raise UsageError(f"The webhook '{masked(webhook)}' is no address; write http(s)://HOST/… or env:VARIABLE.")
    # Whoever reads the database reads the address: what may be a key in it, however short, has to stand elsewhere.
    if masked(webhook) != webhook or "@" in parts.netloc or parts.query or _MEANS_SECRET.search(parts.path):
        raise UsageError(
            "The webhook's address holds what may be a secret, and would be stored; put it into a variable of "
            "the environment or of .env, and write env:VARIABLE."
        )


def _split(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname and _IS_PLAIN.fullmatch(address) else None


def _resolved(webhook: str) -> str:
    """The address that is called.

    Raises:
        UsageError: its variable is not set, or holds no address.
    """
    if not webhook.startswith(IN_ENVIRONMENT):
        return webhook
    name = webhook.removeprefix(IN_ENVIRONMENT)
    if not _VARIABLE.fullmatch(name):
        raise UsageError(f"'{webhook}' names no variable; write env:VARIABLE.")
    value = os.environ.get(name) or _of_file().get(name)
    if not value:
        raise UsageError(f"The variable {name}, which holds the webhook's address, is not set.")
    if _split(value.strip()) is None:
        raise UsageError(f"The variable {name} holds no address of a webhook.")
    return value.strip()


def _of_file() -> dict[str, str | None]:
    from dotenv import dotenv_values

    return dict(dotenv_values(".env"))


def check_email(addresses: tuple[str, ...], settings: Settings) -> None:
    """See that e-mail can be sent.

    Raises:
        UsageError: an address is none, or no server is set.
    """
    for address in addresses:
        if not _ADDRESS.fullmatch(address):
            raise UsageError(f"'{printable(address)}' is no e-mail address.")
    if addresses:
        _smtp(settings)


def post(session_rows: list[Delivery], schedule: Schedule, alert: Alert, text: str) -> None:
    """Add a message to each of a job's places, to be delivered."""
    bounded = bound(text)
    if schedule.webhook is not None:
        session_rows.append(
            Delivery(alert_id=alert.id, channel="webhook", target=schedule.webhook, text=bounded, state="pending")
        )
    for address in schedule.email:
        session_rows.append(
            Delivery(alert_id=alert.id, channel="email", target=address, text=bounded, state="pending")
        )


def bound(text: str) -> str:
    """A message as it may leave: without keys and what commands terminals, and not too long."""
    clean = printable(masked(text))
    return clean if len(clean) <= LONGEST else clean[: LONGEST - 1] + "…"


def deliver(database: Database, *, say: Callable[[str], None], pause: Callable[[float], None] = time.sleep) -> None:
    """Send what waits, each message a few times; what does not arrive waits for the next occasion, or is given up."""
    with database.read() as session:
        waiting = session.scalars(select(Delivery).where(Delivery.state == "pending").order_by(Delivery.id)).all()
    for delivery in waiting:
        _deliver(database, delivery, say, pause)


def _deliver(
    database: Database, delivery: Delivery, say: Callable[[str], None], pause: Callable[[float], None]
) -> None:
    error, state = "", "pending"
    for number in range(TRIES_AT_ONCE):
        if not _take(database, delivery.id, delivery.tries + number):
            return  # another process is at it, or its job was deleted
        try:
            _send(delivery)
            error = ""
        except (DeliveryError, UsageError) as failure:
            error = printable(masked(str(failure)))[:300]
        state = _note(database, delivery.id, error)
        if state != "pending":
            break
        if number + 1 < TRIES_AT_ONCE:
            pause(PAUSES_S[number])
    if error:
        later = "it is given up" if state == "failed" else "it is tried again with the next night"
        say(f"The {delivery.channel} to {_shown(delivery)} has not arrived ({error}); {later}.")


def _take(database: Database, key: int, tries: int) -> bool:
    """Begin one more try than there were; whether nobody else has begun it."""
    with database.write() as session:
        mine = (Delivery.id == key, Delivery.state == "pending", Delivery.tries == tries)
        taken = update(Delivery).where(*mine).values(tries=tries + 1).returning(Delivery.id)
        return session.scalar(taken) is not None


def _note(database: Database, key: int, error: str) -> str:
    """Write down how a try ended; the state that the message then has."""
    with database.write() as session:
        row = session.get(Delivery, key)
        if row is None:
            return "failed"  # its job was deleted meanwhile
        row.error = error or None
        if not error:
            row.state, row.sent_at = "sent", clock(session)
        elif row.tries >= MOST_TRIES:
            row.state = "failed"
        return row.state


def _shown(delivery: Delivery) -> str:
    if delivery.channel == "email" or delivery.target.startswith(IN_ENVIRONMENT):
        return delivery.target
    return urlsplit(delivery.target).netloc


def _send(delivery: Delivery) -> None:
    if delivery.channel == "webhook":
        _call(_resolved(delivery.target), delivery.text)
    else:
        _mail(delivery.target, delivery.text, load_settings())


def _call(address: str, text: str) -> None:
    """Post a message as Slack takes it. No answer is read beyond its status: it may be of any length.

    Raises:
        DeliveryError: it was not taken.
    """
    import httpx

    escaped = html.escape(text, quote=False)  # Slack takes <…> for links, and for calls to everybody

    async def posted() -> int:
        async with asyncio.timeout(TIMEOUT_S), httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            async with client.stream("POST", address, json={"text": escaped}) as answer:
                return answer.status_code

    try:
        status = asyncio.run(posted())
    except (httpx.TimeoutException, TimeoutError) as error:
        raise DeliveryError(f"no answer within {TIMEOUT_S:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise DeliveryError(f"it cannot be reached: {type(error).__name__}") from error
    if not 200 <= status < 300:
        raise DeliveryError(f"it answers {status}")


def _smtp(settings: Settings) -> tuple[str, int, str | None, str | None, bool, str]:
    """Host, port, user, password, whether it is TLS from the start, and the sender.

    Raises:
        UsageError: no server is set, or what is set is none.
    """
    if not settings.smtp:
        raise UsageError("E-mail needs a server: set VIVACE_SMTP to smtp://HOST:PORT or smtps://USER:PASSWORD@HOST.")
    try:
        parts = urlsplit(settings.smtp)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise UsageError("VIVACE_SMTP is no server's address; write smtp://HOST:PORT or smtps://USER:PASSWORD@HOST.")
    sender = settings.smtp_from or f"vivace@{parts.hostname}"
    if not _ADDRESS.fullmatch(sender):
        raise UsageError(f"VIVACE_SMTP_FROM is '{printable(sender)}', no e-mail address.")
    is_tls = parts.scheme == "smtps"
    user, password = (None if one is None else unquote(one) for one in (parts.username, parts.password))
    note_password(password, user, parts.hostname)
    return parts.hostname, port or (465 if is_tls else 25), user, password, is_tls, sender


def _mail(address: str, text: str, settings: Settings) -> None:
    """Send a message; over a plain connection a password is given only once it is encrypted.

    Raises:
        DeliveryError: it was not taken.
    """
    host, port, user, password, is_tls, sender = _smtp(settings)
    message = EmailMessage()
    message["From"], message["To"], message["Message-ID"] = sender, address, make_msgid(domain="vivace.invalid")
    message["Subject"] = " ".join(text.splitlines()[0].split())[:120] if text.strip() else "Vivace"
    message.set_content(text)
    kind = smtplib.SMTP_SSL if is_tls else smtplib.SMTP
    try:
        with kind(host, port, timeout=TIMEOUT_S) as server:
            if user is not None:
                if not is_tls:
                    server.starttls()
                server.login(user, password or "")
            server.send_message(message)
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise DeliveryError(f"the mail server did not take it: {type(error).__name__}") from error
