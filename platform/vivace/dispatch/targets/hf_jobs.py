"""Workers as jobs of the Hugging Face hub, in a container image that has Vivace in it."""

from __future__ import annotations

import os
from typing import ClassVar

from pydantic import Field

from vivace.dispatch.orders import Environment, Order, Started, Strict
from vivace.errors import UnreachableError, VivaceError
from vivace.output.secrets import masked
from vivace.settings import Settings


class HuggingFaceOptions(Strict):
    """What a job asks of the hub.

    Attributes:
        image: a container image with Vivace in it.
        flavor: the hardware, as `h200` or `cpu-basic`.
        timeout: after which a job is ended, as `4h`; its run is taken over by another worker.
        namespace: of a user or an organisation; the token's own where none is given.
        labels: by which jobs are found.
    """

    image: str
    flavor: str = "cpu-basic"
    timeout: str = "4h"
    namespace: str | None = None
    labels: dict[str, str] = Field(default={"program": "vivace-worker"})


class HuggingFaceJobs:
    """Each worker is a job. All that it gets of the environment is sent as the hub's secrets."""

    options: ClassVar = HuggingFaceOptions
    is_elsewhere: ClassVar = True

    def start(
        self, order: Order, options: HuggingFaceOptions, environment: Environment, settings: Settings
    ) -> list[Started]:
        """Start the jobs, under the token of `HF_TOKEN` or of `hf auth login`."""
        from httpx import HTTPError
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

        hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        started: list[Started] = []
        try:
            for _ in range(order.workers):
                job = hub.run_job(
                    image=options.image,
                    command=order.command,
                    secrets=dict(environment.values),
                    flavor=options.flavor,
                    timeout=options.timeout,
                    namespace=options.namespace,
                    labels=options.labels,
                )
                started.append(Started(job.id, job.url))
        except (HfHubHTTPError, LocalTokenNotFoundError) as error:
            raise VivaceError(f"The hub starts no job{_so_far(started)} ({masked(str(error))}).") from error
        except HTTPError as error:
            raise UnreachableError(f"The hub does not answer{_so_far(started)} ({masked(str(error))}).") from error
        return started


def _so_far(started: list[Started]) -> str:
    ids = ", ".join(one.id for one in started)
    return f", after it has started {ids}" if started else ""
