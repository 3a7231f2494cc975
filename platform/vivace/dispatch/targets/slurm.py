"""Workers as jobs of a Slurm cluster, through submitit; its local executor tries a spec out without one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from vivace.dispatch.orders import Environment, Order, Started, Strict
from vivace.errors import UsageError, VivaceError
from vivace.settings import Settings


class SlurmOptions(Strict):
    """What a job asks of the cluster.

    Attributes:
        cluster: `slurm`, or `local` to try the same on this machine.
        folder: where submitit keeps scripts and logs; all nodes must see it. `dispatch/slurm` in the home folder.
        partition: of the cluster.
        minutes: after which a job is ended; its run is taken over by another worker.
        gpus: of each job.
        cpus: of each job.
        memory_gb: of each job.
        account: that is charged.
        qos: quality of service.
        constraint: features of the node.
        setup: shell lines before the worker, as `module load cuda`.
        more: further options of sbatch, name → value.
    """

    cluster: Literal["slurm", "local"] = "slurm"
    folder: Path | None = None
    partition: str | None = None
    minutes: int = Field(default=240, ge=1)
    gpus: int = Field(default=0, ge=0)
    cpus: int = Field(default=4, ge=1)
    memory_gb: int = Field(default=16, ge=1)
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: list[str] = Field(default=[])
    more: dict[str, Any] = Field(default={})


class WorkerJob:
    """What a job executes: the worker, which is ended gently where the cluster wants its node back."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Work until the worker ends; its exit code."""
        self._process = subprocess.Popen(self._command)
        code = self._process.wait()
        if code:
            raise RuntimeError(f"the worker ended with exit code {code}")
        return code

    def checkpoint(self) -> Any:
        """Before the node is taken: end the worker, and have the cluster start the job again.

        What is recorded stays, and what it worked on is taken over by whoever serves the queue.
        """
        from submitit.helpers import DelayedSubmission

        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return DelayedSubmission(WorkerJob(self._command))


class Slurm:
    """Each worker is a job. The environment travels as sbatch takes it along; it is in no script and no command."""

    options: ClassVar = SlurmOptions
    is_elsewhere: ClassVar = True

    def start(
        self, order: Order, options: SlurmOptions, environment: Environment, settings: Settings
    ) -> list[Started]:
        """Submit the jobs."""
        try:
            import submitit
        except ImportError as error:
            raise UsageError(
                "Slurm is reached by submitit, which is missing: pip install 'vivace[slurm]'."
            ) from error
        folder = (options.folder or settings.home / "dispatch" / "slurm").absolute()
        values = {"VIVACE_HOME": str(settings.home.absolute()), **environment.values}
        try:
            with _in_environment(values):
                executor = submitit.AutoExecutor(folder=folder, cluster=options.cluster)
                executor.update_parameters(**_parameters(options))
                jobs = [executor.submit(WorkerJob(order.command)) for _ in range(order.workers)]
        except (RuntimeError, OSError, subprocess.SubprocessError, submitit.core.utils.FailedJobError) as error:
            raise VivaceError(f"The jobs could not be submitted ({error}).") from error
        return [Started(str(job.job_id), str(job.paths.stderr)) for job in jobs]


def _parameters(options: SlurmOptions) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "timeout_min": options.minutes,
        "cpus_per_task": options.cpus,
        "mem_gb": options.memory_gb,
        "name": "vivace-worker",
    }
    if options.gpus:
        parameters["gpus_per_node"] = options.gpus
    asked = {
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
    }
    parameters |= {f"slurm_{name}": value for name, value in asked.items() if value is not None}
    if options.setup:
        parameters["slurm_setup"] = options.setup
    if options.more:
        parameters["slurm_additional_parameters"] = options.more
    return parameters


@contextmanager
def _in_environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
