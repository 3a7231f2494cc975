"""Other tools: what lm-eval, inspect and others measured, brought in from their files, and never ranked."""

from __future__ import annotations

import streamlit as st

from vivace_app import data, downloads, figures
from vivace_app.address import Address, select
from vivace_app.tables import foreign_tables

POSITION = 70
"""Among the pages, from the left."""
_ALL = "all"
_ROWS = 25
_HEIGHT = 800
"""In pixels, for tables with more rows than that; the rest scrolls."""
_REPORTED_HELP = "The tool's own figure, with what it says of how sure it is."
_MEAN_HELP = "The mean over the samples that the tool scored [95 % interval]; each sample is the mean of its tries."
_SCORED_HELP = "Tries that were scored, of those planned, and why the others were not."
_RANGE_HELP = "Where the mean of all tries could lie, if everything unscored went one way."


def page() -> st.Page:
    """Where this page lives."""
    return st.Page(show, title="Other tools", icon=":material/move_to_inbox:", url_path="other-tools")


def show() -> None:
    """Draw the page."""
    st.title("Other tools", anchor=False)
    st.caption(
        "What other evaluation tools measured, brought in from their files. Nothing here is ranked, and nothing "
        "compares with what was run here."
    )
    database = data.database()
    found = data.foreign(database) if database else []
    if not found:
        st.info("Nothing was brought in yet. Results of lm-eval and logs of inspect come in with:",
                icon=":material/inbox:")  # fmt: skip
        st.code("vivace import --from lm-eval results_….json samples_….jsonl\nvivace import --from inspect logs",
                language=None, wrap_lines=True)  # fmt: skip
        return
    address = Address()
    problems = st.container()
    tasks = {_ALL: "All tasks"} | {row.task: row.task for row in found}
    wanted = select(address, "task", "Task", tasks, what="task", fallback=_ALL)
    for name, group in foreign_tables.groups([row for row in found if wanted in (_ALL, row.task)]).items():
        st.markdown(f"#### {figures.literal(name)}")
        table = foreign_tables.table(group)
        st.dataframe(
            figures.cells(table.dropna(axis="columns", how="all")), key=f"foreign-{name}", hide_index=True,
            placeholder=figures.ABSENT, height=_HEIGHT if len(group) > _ROWS else "content",
            column_config={
                "Model": st.column_config.TextColumn(pinned=True),
                "Reported": st.column_config.TextColumn(help=_REPORTED_HELP),
                "Scored mean": st.column_config.TextColumn(help=_MEAN_HELP),
                "Scored": st.column_config.TextColumn(help=_SCORED_HELP),
                "Could be": st.column_config.TextColumn(help=_RANGE_HELP),
                "Made": st.column_config.DateColumn(format="YYYY-MM-DD", help="As the file says."),
                "Brought in": st.column_config.DateColumn(format="YYYY-MM-DD"),
            },
            alt=f"What other tools measured: {name}",
        )  # fmt: skip
        downloads.offer(name, table)
    with problems:
        address.show_problems()
