"""what arms do in each layer, in a table of its own: what trials kept of layers, and what recipes say of them."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

AT_ONCE = 200
"""Trials and runs that are read together, so that memory suffices for any database."""
SET = ("sparsity", "ratio", "rank", "threshold", "output_error")
"""What recipes say of a layer in numbers; the setting of a threshold is its criterion."""

EVERY = sa.true()
JSON = sa.JSON(none_as_null=True)
run = sa.table("run", sa.column("id"), sa.column("measured", JSON))
arm = sa.table("arm", sa.column("id"), sa.column("run_id"), sa.column("name"))
trial = sa.table(
    "trial", sa.column("id"), sa.column("arm_id"), sa.column("prompt"), sa.column("repetition"),
    sa.column("measurements", JSON), sa.column("unscored_reason"),
)  # fmt: skip
diagnosis = sa.table("diagnosis", *map(sa.column, ("id", "arm_id", "kind", "layer", "setting", "value", "n")))

Row = dict[str, Any]


def upgrade() -> None:
    op.create_table(
        "diagnosis",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("arm_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("layer", sa.String(), nullable=False),
        sa.Column("setting", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["arm_id"], ["arm.id"], name=op.f("fk_diagnosis_arm_id_arm"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_diagnosis")),
        sa.UniqueConstraint("arm_id", "kind", "layer", "setting", name=op.f("uq_diagnosis_arm_id")),
    )
    connection = op.get_bind()
    for rows in _of_recipes(connection):
        connection.execute(diagnosis.insert(), rows)
    for rows in _of_trials(connection):
        connection.execute(diagnosis.insert(), rows)


def downgrade() -> None:
    connection = op.get_bind()
    for row in _in_parts(connection, run.c.id, run.c.measured):
        recipes = (row.measured or {}).get("recipes")
        if recipes:
            whole = {
                name: {"modules": _modules(connection, row.id, name), **recipe} for name, recipe in recipes.items()
            }
            _write(connection, run, row.id, measured={**row.measured, "recipes": whole})
    for row in _in_parts(connection, trial.c.id, trial.c.measurements):
        kept = {layer: value for kind, layer, _, value, _ in row.measurements.get("diagnoses", ()) if kind == "kept"}
        if kept:
            told = {key: value for key, value in row.measurements.items() if key != "diagnoses"}
            figures = {**told["trial"]["figures"], "kept": kept}
            _write(connection, trial, row.id, measurements={**told, "trial": {**told["trial"], "figures": figures}})
    op.drop_table("diagnosis")


def _of_recipes(connection: sa.Connection) -> Iterator[list[Row]]:
    """What the recipes of each run say of layers; it is taken out of the run."""
    for row in _in_parts(connection, run.c.id, run.c.measured):
        recipes: Row = (row.measured or {}).get("recipes") or {}
        if not any("modules" in recipe for recipe in recipes.values()):
            continue
        of_run = sa.select(arm.c.name, arm.c.id).where(arm.c.run_id == row.id)
        arms = {str(row.name): int(row.id) for row in connection.execute(of_run)}
        found = [
            _row(arms[name], kind, layer, module.get("criterion", "") if kind == "threshold" else "", module[kind], 0)
            for name, recipe in recipes.items() if name in arms
            for layer, module in recipe.get("modules", {}).items()
            for kind in SET if module.get(kind) is not None
        ]  # fmt: skip
        if found:
            yield found
        rest = {
            name: {key: value for key, value in recipe.items() if key != "modules" or name not in arms}
            for name, recipe in recipes.items()
        }
        _write(connection, run, row.id, measured={**row.measured, "recipes": rest})


def _of_trials(connection: sa.Connection) -> Iterator[list[Row]]:
    """The share of each layer's channels that the decoded tokens of an arm kept; trials say it in the new form."""
    for key in connection.scalars(sa.select(arm.c.id).order_by(arm.c.id)).all():
        kept = sorted(_kept(connection, key), key=lambda one: one[0])  # sums depend on their order, if by little
        tokens = sum(count for _, count, _ in kept)
        totals: dict[str, float] = defaultdict(float)
        for _, count, shares in kept:
            for layer, share in shares.items():
                totals[layer] += share * count
        if tokens:
            yield [_row(key, "kept", layer, "", total / tokens, tokens) for layer, total in totals.items()]


def _kept(connection: sa.Connection, arm_id: int) -> Iterator[tuple[tuple[str, int], int, dict[str, float]]]:
    """Prompt and repetition, tokens, and layer → share kept, of the trials of an arm that have a result."""
    columns = trial.c.prompt, trial.c.repetition, trial.c.measurements, trial.c.unscored_reason
    for row in _in_parts(connection, trial.c.id, *columns, of=trial.c.arm_id == arm_id):
        told = (row.measurements or {}).get("trial") or {}
        figures = told.get("figures") or {}
        kept = figures.get("kept")
        if not isinstance(kept, dict) or not kept:
            continue
        count = len(figures.get("token_sparsity") or ())
        rest = {**told, "figures": {key: value for key, value in figures.items() if key != "kept"}}
        rows = [["kept", layer, "", share, count] for layer, share in kept.items()]
        _write(connection, trial, row.id, measurements={**row.measurements, "trial": rest, "diagnoses": rows})
        if row.unscored_reason is None:
            yield (row.prompt, row.repetition), count, kept


def _row(arm_id: int, kind: str, layer: str, setting: str, value: float, n: int) -> Row:
    return {"arm_id": arm_id, "kind": kind, "layer": layer, "setting": setting, "value": value, "n": n}


def _modules(connection: sa.Connection, run_id: str, name: str) -> Row:
    """What a recipe says of layers, as it stood in the run."""
    query = (
        sa.select(diagnosis.c.kind, diagnosis.c.layer, diagnosis.c.setting, diagnosis.c.value)
        .join_from(diagnosis, arm, diagnosis.c.arm_id == arm.c.id)
        .where(arm.c.run_id == run_id, arm.c.name == name, diagnosis.c.kind.in_(SET))
        .order_by(diagnosis.c.id)
    )
    modules: dict[str, Row] = defaultdict(lambda: {"output_error": None})
    for kind, layer, setting, value in connection.execute(query):
        modules[layer][kind] = int(value) if kind == "rank" else value
        if kind == "threshold":
            modules[layer]["criterion"] = setting
    return dict(modules)


def _in_parts(connection: sa.Connection, key: Any, *columns: Any, of: Any = EVERY) -> Iterator[Any]:
    """The rows of a table in the order of its key, a part at a time."""
    query = sa.select(key, *columns).where(of).order_by(key).limit(AT_ONCE)
    part = connection.execute(query).all()
    while part:
        yield from part
        part = connection.execute(query.where(key > part[-1][0])).all()


def _write(connection: sa.Connection, table: Any, key: Any, **values: Any) -> None:
    connection.execute(table.update().where(table.c.id == key).values(**values))
