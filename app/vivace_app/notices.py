"""What every page says when there is nothing to show, or when the database cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from sqlalchemy.exc import SQLAlchemyError

from vivace.errors import VivaceError
from vivace.output.printable import printable
from vivace.output.secrets import masked
from vivace_app.viewer import told


def nothing_yet() -> None:
    """Say how to fill an empty database."""
    st.info("There are no results yet. Fill the board with the bundled demo:", icon=":material/inbox:")
    st.code("vivace demo", language=None, wrap_lines=True)
    st.caption("It needs no key, no GPU and no network. Then reload this page.")


@contextmanager
def what_went_wrong() -> Iterator[None]:
    """Turn what a database that is gone, old or being migrated raises into a sentence on the page.

    Needed around a page, and around each part of one that Streamlit draws again without the page.
    """
    try:
        yield
    except VivaceError as error:
        st.error("The results database cannot be shown.", icon=":material/database_off:")
        st.text(printable(told(masked(str(error)))))
    except SQLAlchemyError:
        st.error("The results database could not be read just now; reload the page in a moment.")
