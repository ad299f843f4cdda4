"""The shards of a stream as Ray tasks, on the processes of one machine or of a cluster.

A task gets a way to load the model and the number of a shard. It can be run again at any time: it
writes the same bytes under the same name. So Ray may retry what a lost worker left behind, and
nothing is lost or doubled. Folders and histories must be reachable by every machine under the same
path. Ray transports what is passed by cloudpickle; nothing of that reaches a file of ours.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

from coterie.errors import ArtifactError, ConfigError, CoterieError, DataError, NumericalError
from coterie.extras import require
from coterie.ranking.approximate import ApproximateIndex
from coterie.ranking.identity import ModelIdentity
from coterie.ranking.recommender import Recommender
from coterie.ranking.scorer import CatalogueScorer
from coterie.stream.shards import ShardJob, ShardResult, StreamRequest, Tick

Failure: TypeAlias = tuple[type[CoterieError], str]
"""An error of Coterie's own, as it crosses processes."""

Loaders: TypeAlias = tuple[
    Callable[[], CatalogueScorer], Callable[[CatalogueScorer], ApproximateIndex] | None
]
"""Of the model and of its approximate index."""

_WAIT_SECONDS = 0.5

_loaded: list[tuple[StreamRequest, Recommender]] = []
"""The recommender that this process scored with last: a model is loaded once a process, and only
one is held.
"""


@dataclass(frozen=True)
class RayEngine:
    """Scores shards on Ray; a machine runs as many at once as it has processors for their threads.

    Connects to the Ray that this process uses already, else to ``address``, else to that in
    RAY_ADDRESS, else starts one on this machine. What it started or connected to it leaves at the
    end; when it is stopped on a Ray that is not its own, it waits for the shards under way, which
    then count as finished.

    Args:
        load: Loads the model in a worker, as in ``functools.partial(TrainedModel.load, folder)``;
            sent by reference.
        load_index: Loads the model's approximate index there, as in
            ``functools.partial(ApproximateIndex.load, folder)``.
        address: Of a running cluster.
        threads: Threads that score a shard, where neither the caller nor an earlier run says.
        gpus: GPUs (or a share of one) of each task; 1 where the model is loaded onto CUDA.
        retries: How often a shard whose worker was lost is tried again.
        options: Of ``ray.init`` when it starts one, as in ``{"num_cpus": 8}``.

    Raises:
        MissingPackageError: if Ray is not installed.

    Example:
        >>> from coterie.training.trained_model import TrainedModel
        >>> engine = RayEngine(partial(TrainedModel.load, "runs/pia"), threads=2)
        >>> engine.retries  # and recommend_to_folder(model, …, engine=engine)
        4
    """

    load: Callable[[], CatalogueScorer]
    load_index: Callable[[CatalogueScorer], ApproximateIndex] | None = None
    address: str | None = None
    threads: int = 1
    gpus: float = 0
    retries: int = 4
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ray()

    @classmethod
    def on(
        cls,
        device: str,
        load: Callable[..., CatalogueScorer],
        load_index: Callable[[CatalogueScorer], ApproximateIndex] | None = None,
    ) -> "RayEngine":
        """An engine whose tasks load the model onto a device, as in
        ``functools.partial(TrainedModel.load, folder)``.
        """
        # Ray shows each task its own GPU only, as the first one.
        place, gpus = ("cuda", 1) if device.startswith("cuda") else (device, 0)
        return cls(partial(load, device=place), load_index, gpus=gpus)

    def run(
        self, recommender: Recommender, job: ShardJob, numbers: Sequence[int], tick: Tick
    ) -> Iterator[ShardResult]:
        """Scores the shards in any order, each as an idempotent task; ``tick`` is called when one
        is finished, and in between.

        Raises:
            ConfigError: if a Ray started here has fewer processors than a shard has threads.
            CoterieError: what a task raised, of the same kind and with the same message; or if a
                shard's workers were lost again and again.
        """
        if not numbers:
            return
        ray, flying = _ray(), set[Any]()
        ours = not ray.is_initialized()
        if ours:
            self._start(ray)
        try:
            self._check(ray, job.request.threads)
            yield from self._run(ray, job, numbers, tick, flying)
        finally:
            # Nobody may write into the folder when this returns. Not by cancelling: a task that
            # ends just as it is cancelled takes this process with it (Ray 2.60).
            if ours:
                ray.shutdown()
            elif flying:
                ray.wait(list(flying), num_returns=len(flying))

    def _start(self, ray: Any) -> None:
        # Nothing is reported to Ray's makers. RAY_AUTH_MODE is left alone: Ray read it when it was
        # imported.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address, quiet = self._address(), {"log_to_driver": False, "logging_level": "error"}
        on_terminate = signal.getsignal(signal.SIGTERM)
        try:
            if address:
                ray.init(address, **quiet)
            else:
                ray.init("local", include_dashboard=False, **quiet, **self.options)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ConfigError(
                f"Ray must be reached or started, found {error}; check the address, RAY_ADDRESS and"
                " RAY_AUTH_MODE."
            ) from error
        # Ray takes SIGTERM for itself; whoever waited for it before must get it.
        if callable(on_terminate) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)

    def _address(self) -> str | None:
        return self.address or os.environ.get("RAY_ADDRESS")

    def _check(self, ray: Any, threads: int) -> None:
        # A cluster may grow; one that was started here does not, and would wait for ever.
        processors = ray.cluster_resources().get("CPU", 0)
        if threads > processors and not self._address():
            raise ConfigError(
                f"a shard must have at most the {processors:.0f} threads that Ray has processors"
                f" for, found {threads}."
            )

    def _run(
        self, ray: Any, job: ShardJob, numbers: Sequence[int], tick: Tick, flying: set[Any]
    ) -> Iterator[ShardResult]:
        threads = job.request.threads
        score = ray.remote(_score).options(
            num_cpus=threads, num_gpus=self.gpus, max_retries=self.retries
        )
        shared, waiting = ray.put(((self.load, self.load_index), job)), iter(numbers)
        while True:
            # As many as can run: a million shards are not queued at once, and a stop waits for few.
            # A cluster may grow.
            places = max(int(ray.cluster_resources().get("CPU", 1)) // threads, 1)
            flying |= {
                score.remote(shared, number)
                for number in islice(waiting, max(places - len(flying), 0))
            }
            if not flying:
                return
            ready, _ = ray.wait(list(flying), timeout=_WAIT_SECONDS)
            tick(0)
            for one in ready:
                flying.remove(one)
                result = self._result(ray, one)
                tick(result.n_users)
                yield result

    def _result(self, ray: Any, reference: Any) -> ShardResult:
        try:
            result: ShardResult | Failure = ray.get(reference)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as error:
            raise CoterieError(
                "a shard's worker must live until it is done, found that it was lost"
                f" {self.retries + 1} times ({error}); is there memory for the model in each? The"
                " same command goes on."
            ) from error
        if isinstance(result, tuple):
            kind, message = result
            raise kind(message)
        return result


def _score(shared: tuple[Loaders, ShardJob], number: int) -> ShardResult | Failure:
    loaders, job = shared
    try:
        return job.score(_recommender(loaders, job.request), number, lambda _: None)
    except CoterieError as error:
        kinds = (ConfigError, DataError, ArtifactError, NumericalError, CoterieError)
        return next(kind for kind in kinds if isinstance(error, kind)), str(error)


def _recommender(loaders: Loaders, request: StreamRequest) -> Recommender:
    if not _loaded or _loaded[0][0] != request:
        _loaded.clear()
        load, load_index = loaders
        model = load()
        index = None if load_index is None else load_index(model)
        if ModelIdentity.of(model).fingerprint != request.model:
            raise ArtifactError(
                "every worker must load the request's model, found another; has the model's folder"
                " been replaced?"
            )
        if (None if index is None else index.name) != request.index:
            raise ArtifactError(
                "every worker must load the request's index, found another; give load_index, and"
                " leave its folder alone."
            )
        _loaded.append((request, request.recommender(model, index)))
    return _loaded[0][1]


def _ray() -> Any:
    return require("ray", "ray", "scoring on Ray")
