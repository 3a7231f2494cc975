"""The recipes of docs/deploy: files that parse, commands that there are, and no secret written into them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
import yaml

from vivace.cli.main import app

FOLDER = Path(__file__).parents[2] / "docs" / "deploy"
KUBERNETES = sorted((FOLDER / "kubernetes").glob("*.yaml"))
UNITS = sorted((FOLDER / "systemd").iterdir())
API_VERSIONS = {
    "CronJob": "batch/v1", "Deployment": "apps/v1", "Job": "batch/v1", "PersistentVolumeClaim": "v1", "Service": "v1",
    "ClusterQueue": "kueue.x-k8s.io/v1beta2", "LocalQueue": "kueue.x-k8s.io/v1beta2",
    "ResourceFlavor": "kueue.x-k8s.io/v1beta2",
}  # fmt: skip


def parsed(words: list[str]) -> None:
    """See that a command line of ours could be run: its verb is there, its options and their values too."""
    program = typer.main.get_command(app)
    group: Any = program
    context = click.Context(program, info_name="vivace")
    while hasattr(group, "commands"):
        name, *words = words
        assert name in group.commands, f"there is no verb '{name}'"
        group = group.commands[name]
        context = click.Context(group, info_name=name, parent=context)
    group.make_context(group.name, list(words), parent=context.parent)


def inside(value: Any, key: str) -> Iterator[Any]:
    """Every value of a key, at any depth."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name == key:
                yield each
            yield from inside(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from inside(each, key)


@pytest.mark.parametrize("file", KUBERNETES, ids=lambda file: file.name)
def test_manifests_are_whole_and_their_commands_can_be_run(file: Path) -> None:
    documents = list(yaml.safe_load_all(file.read_text()))
    names = [(each["kind"], each["metadata"]["name"]) for each in documents]
    assert len(set(names)) == len(names)
    for each in documents:
        assert each["apiVersion"] == API_VERSIONS[each["kind"]]
        assert each["spec"]
    containers = [each for found in inside(documents, "containers") for each in found]
    for container in containers:
        parsed(container["args"])
        ports = {port["name"] for port in container.get("ports", [])}
        assert {probe["port"] for probe in inside(container, "httpGet")} <= ports
        assert container["envFrom"] == [{"secretRef": {"name": "vivace"}}]
    for document in documents:
        if document["kind"] == "Deployment":
            labels = document["spec"]["template"]["metadata"]["labels"]
            assert document["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_services_of_compose_can_be_run_and_depend_on_one_another() -> None:
    found = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    services = found["services"]
    assert {"database", "app", "worker"} <= services.keys()
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= services.keys()
        if name != "database":
            parsed(service["command"])
            volumes = {volume.partition(":")[0] for volume in service["volumes"]}
            assert volumes <= found["volumes"].keys()
    assert (FOLDER / services["app"]["build"]["context"] / services["app"]["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_units_are_understood_and_their_commands_can_be_run(file: Path, tmp_path: Path) -> None:
    text = file.read_text()
    for line in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE):
        words = shlex.split(re.sub(r"\$\(.*?\)", "X", line))  # what a shell puts there
        words = shlex.split(words[2]) if words[0] == "/bin/sh" else words
        parsed(words[words.index("/opt/vivace/bin/vivace") + 1 :])
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    for each in UNITS:  # with a program that there is
        (tmp_path / each.name).write_text(each.read_text().replace("/opt/vivace/bin/vivace", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", tmp_path / file.name], capture_output=True, text=True)
    assert str(tmp_path) not in done.stderr, done.stderr
    assert file.name.replace("@", "@i") not in done.stderr, done.stderr


def test_what_skypilot_and_the_image_run_is_there() -> None:
    found = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())
    for line in found["run"].splitlines():
        program, *words = shlex.split(line)
        assert program.endswith("/vivace")
        parsed(words)
    image = (FOLDER / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["vivace"]' in image
    assert (FOLDER.parents[1] / "constraints.txt").is_file()


def test_no_recipe_holds_a_secret() -> None:
    for file in FOLDER.rglob("*"):
        if file.is_file():
            for address in re.findall(r"postgresql://[^\s\"']*", file.read_text()):
                assert re.fullmatch(r"postgresql://vivace:\$\{POSTGRES_PASSWORD:\?set", address) or "@" not in address
            assert not re.search(r"\b(sk-|hf_)[A-Za-z0-9]{8,}", file.read_text())
