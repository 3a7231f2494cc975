"""Who looks at the pages: whoever has logged in, else nobody in particular, for whom what is private is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from vivace.output import for_strangers
from vivace.settings import load_settings
from vivace.store.visibility import NOBODY, OPERATOR, Viewer


def viewer() -> Viewer:
    """Who looks; whoever reaches the page is the operator where the operator has said so."""
    settings = load_settings()
    if settings.show_private:
        return OPERATOR
    return NOBODY if settings.login is None else viewer_of(st.user.to_dict())


def viewer_of(claims: Mapping[str, Any]) -> Viewer:
    """The person that a login is of, by the e-mail address that the provider vouches for.

    Other names (`name`, `preferred_username`) people may choose for themselves, and with them another's runs.

    Args:
        claims: what the provider said of whoever has logged in, with `is_logged_in`.
    """
    email = claims.get("email")
    # Some providers write the truth value as a text; one that does not say has verified all of its addresses.
    is_verified = str(claims.get("email_verified", True)).lower() == "true"
    if claims.get("is_logged_in") is not True or not is_verified or not isinstance(email, str) or not email.strip():
        return NOBODY
    return Viewer(email.strip().lower())


def told(text: str) -> str:
    """A message of a run as whoever looks may read it, as over the API: the operator alone is told addresses."""
    return text if viewer().sees_all else for_strangers.told(text, load_settings().home)


def told_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose texts are as whoever looks may read them."""
    if viewer().sees_all:
        return table
    tell = for_strangers.teller(load_settings().home)
    return table.map(lambda value: tell(value) if isinstance(value, str) else value)


def show_login() -> None:
    """Draw who has logged in with a way out, or the way in; nothing where nobody can."""
    if load_settings().login is None:
        return
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
        if not st.user.is_logged_in:
            st.button("Log in", icon=":material/login:", key="login", on_click=st.login)
            return
        name = viewer().name
        st.text(name or "Your provider vouches for no e-mail address, so that you see what everybody sees.")
        st.button("Log out", icon=":material/logout:", key="logout", on_click=st.logout)
