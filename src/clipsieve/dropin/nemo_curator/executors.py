"""Executors: a pipeline on a Ray cluster, where programs written for NeMo Curator name one.

``pipeline.run()`` needs none of this: it runs here, on all cores and the GPU of this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clipsieve.errors import UsageError

if TYPE_CHECKING:
    from clipsieve.dropin.nemo_curator.job import Finished, Job

log = logging.getLogger("clipsieve")


class RayExecutor:
    """Runs a pipeline as one task of a Ray cluster, on the cores of one of its nodes.

    A cluster that is not there yet is started here and stopped afterwards. The task takes a GPU when a stage asks for
    one and the cluster has any. Source and output must be reachable from the node under the paths given. ``config`` and
    ``ignore_head_node`` are accepted; nothing follows from them.
    """

    def __init__(self, config: Mapping[str, Any] | None = None, ignore_head_node: bool = False) -> None:
        """Imports Ray. Raises ``UsageError`` when it is not installed."""
        self.config = dict(config or {})
        self.ignore_head_node = ignore_head_node
        _ray(type(self).__name__)
        idle = [*self.config, *(["ignore_head_node"] if ignore_head_node else [])]
        if idle:
            log.info("%s: nothing follows from %s here", type(self).__name__, ", ".join(map(str, idle)))

    def execute(self, job: Job) -> Finished:
        """Runs a job to its end, on the cluster."""
        ray = _ray(type(self).__name__)
        started = not ray.is_initialized()
        if started:
            ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            gpus = 1 if job.needs_gpu and any(node.get("GPU", 0) >= 1 for node in nodes) else 0
            fit = [node for node in nodes if node.get("GPU", 0) >= gpus]
            cpus = max((node.get("CPU", 1) for node in fit), default=1)
            # Its last failure is an answer: a second try would say the same, hours later.
            task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_execute)
            try:
                finished: Finished = ray.get(task.remote(job.absolute()))
            except ray.exceptions.RayTaskError as failure:
                raise failure.cause from None
            return finished
        finally:
            if started:
                ray.shutdown()


class XennaExecutor(RayExecutor):
    """The executor that most programs name."""


class RayDataExecutor(RayExecutor):
    """The executor on Ray Data; here the same as ``XennaExecutor``."""


def _execute(job: Job) -> Finished:
    return job.execute()


def _ray(name: str) -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError(
            f"{name} needs Ray: pip install 'clipsieve[ray]'; pipeline.run() without an executor runs on this machine"
        ) from None
    return ray
