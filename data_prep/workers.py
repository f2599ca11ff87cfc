"""One way to run the parts of a job: here, in local processes, or over many machines on Ray.

A part may run more than once (Ray starts it again when a worker dies), so it must leave the same
result behind however often it runs.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import Any, Literal, TypeVar

from miniflamingo.errors import UserError

Part = TypeVar("Part")
Result = TypeVar("Result")

Ray = Literal["auto", "local"]
RETRIES = 3
"""How often Ray starts a part again whose worker died."""


class WorkerDied(OSError):
    """A process ended without a result: killed, or out of memory."""


def run_parts(
    function: Callable[[Part], Result],
    parts: Sequence[Part],
    workers: int,
    ray: Ray | None,
    gpus: int = 0,
) -> Iterator[Result]:
    """Apply a function to every part.

    Args:
        function: Picklable.
        parts: Picklable.
        workers: Local processes; 1 runs in this one. With ``ray="local"`` how many CPUs Ray takes.
        ray: ``auto`` joins the cluster that this machine belongs to, ``local`` starts one here.
        gpus: What Ray reserves for a part, which then sees no others.

    Yields:
        A result for each part, as they come.

    Raises:
        UserError: If ``ray`` is asked for and not installed, or there is no cluster, or too few
            GPUs in it.
        WorkerDied: If a process is killed; with Ray, if the same part loses its worker every time.
    """
    if workers < 1:
        raise UserError(f"--workers is {workers}; at least 1 is needed.")
    if ray is not None:
        yield from _on_ray(function, parts, workers, ray, gpus)
    elif workers == 1:
        yield from map(function, parts)
    else:
        yield from _in_processes(function, parts, workers)


def _in_processes(
    function: Callable[[Part], Result], parts: Sequence[Part], workers: int
) -> Iterator[Result]:
    # Not forked from this process: torch's threads do not survive that. The server imports once.
    context = get_context("forkserver")
    context.set_forkserver_preload(["data_prep.jobs"])
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        for future in as_completed([pool.submit(function, part) for part in parts]):
            yield future.result()
    except BrokenProcessPool as error:
        raise WorkerDied(
            "a worker process was killed, perhaps for want of memory. What was finished is kept; "
            "run the same command again, with fewer --workers if memory was short."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _on_ray(
    function: Callable[[Part], Result],
    parts: Sequence[Part],
    workers: int,
    address: Ray,
    gpus: int,
) -> Iterator[Result]:
    try:
        import ray
        from ray.exceptions import RayTaskError, WorkerCrashedError
    except ImportError as error:
        raise UserError(
            f"--ray {address} needs Ray: pip install 'miniflamingo[ray]'. Without it, --workers "
            "runs local processes."
        ) from error

    def call(function: Callable[[Any], Any], part: Any) -> Any:
        return function(part)

    try:
        if address == "local":
            ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
        else:
            ray.init("auto", log_to_driver=False)
    except ConnectionError as error:
        raise UserError(
            "--ray auto found no Ray cluster; start one with `ray start --head`, or use "
            f"--ray local: {error}"
        ) from error
    try:
        found = int(ray.cluster_resources().get("GPU", 0))
        if found < gpus:
            raise UserError(
                f"--ray {address} found {found} GPUs, and each part needs {gpus}. Give "
                "--device cpu, or run where there are some."
            )
        remote = ray.remote(max_retries=RETRIES, num_gpus=gpus)(call)
        shared = ray.put(function)
        waiting = iter(parts)
        # A bounded window: parts may carry their rows with them.
        window = 4 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        running = [remote.remote(shared, part) for part in islice(waiting, window)]
        while running:
            done, running = ray.wait(running)
            yield ray.get(done[0])
            running += [remote.remote(shared, part) for part in islice(waiting, 1)]
    except RayTaskError as error:
        raise error.cause from error
    except WorkerCrashedError as error:
        raise WorkerDied(
            f"a part lost its Ray worker {RETRIES + 1} times, perhaps for want of memory. What was "
            "finished is kept; run the same command again."
        ) from error
    finally:
        ray.shutdown()
