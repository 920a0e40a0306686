"""Several processes that train one model on JAX, as on the hosts of a GPU cluster or of a TPU slice.

All of them make the same updates, each on its devices' share of every batch. What concerns files and the pipeline is
the first one's. Where the environment tells of no others, all of this does nothing
(docs/decisions/0036-several-processes.md). No Keras until somebody trains; JAX only where it trains.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping

# The first process waits for the others so long; they wait for it while it prepares the data, a day at most.
FIRST_WAITS_SECONDS, OTHERS_WAIT_SECONDS = 600, 86_400
# What is set for a process: how many there are, and which one it is. The first row is for whoever starts them by hand
# or by a training operator; the others are those that JAX itself reads (jax/_src/clusters at 0.10.2).
_BY_HAND = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_CLUSTERS = (
    _BY_HAND,
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
)
_TPU_HOSTS, _TPU_NUMBER = "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID"


@dataclasses.dataclass(frozen=True)
class Place:
    """Which of how many processes, from 0 on."""

    number: int = 0
    count: int = 1


def announced(environment: Mapping[str, str] = os.environ) -> Place:
    """What the environment says of this process; the only one where it says nothing.

    Raises:
        ValueError: when it says how many there are, and not which one this is or where the first one is.
    """
    for count, number in _CLUSTERS:
        if environment.get(count, "1") != "1":
            place = _place(environment, count, number, environment[count])
            if count == _BY_HAND[0] and not environment.get("JAX_COORDINATOR_ADDRESS"):
                raise ValueError(
                    f"{count}={environment[count]} needs JAX_COORDINATOR_ADDRESS=HOST:PORT, a free port of the first "
                    "process' host; received none."
                )
            return place
    hosts = [host for host in environment.get(_TPU_HOSTS, "").split(",") if host]
    return _place(environment, _TPU_HOSTS, _TPU_NUMBER, str(len(hosts))) if len(hosts) > 1 else Place()


def _place(environment: Mapping[str, str], said: str, number: str, count: str) -> Place:
    received = environment.get(number, "")
    if not count.isdecimal() or not received.isdecimal() or int(received) >= int(count):
        raise ValueError(
            f"{said}={environment[said]} needs {number}, from 0 to one less than the number of processes; received "
            f"{received or 'none'}."
        )
    return Place(int(received), int(count))


def join() -> None:
    """Meets the others, before JAX computes anything.

    Raises:
        ValueError: as `announced`.
        RuntimeError: JAX', when they do not come.
    """
    place = announced()
    if place.count == 1:
        return
    import jax

    # Between CPUs; older JAX has none by default.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    by_hand = {"num_processes": place.count, "process_id": place.number} if _BY_HAND[0] in os.environ else {}
    jax.distributed.initialize(
        **by_hand, initialization_timeout=OTHERS_WAIT_SECONDS if place.number else FIRST_WAITS_SECONDS
    )


def several() -> bool:
    """Whether this process trains with others."""
    import keras

    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.process_count() > 1


def is_first() -> bool:
    """Whether files are this process' to write."""
    if not several():
        return True
    import jax

    return jax.process_index() == 0


def of_first(content: Callable[[], bytes]) -> bytes:
    """What `content` gives in the first process, which alone calls it; all of them have to ask."""
    if not several():
        return content()
    import numpy as np
    from jax.experimental import multihost_utils

    own = np.frombuffer(content(), np.uint8) if is_first() else np.zeros(0, np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(own), np.int32)))
    whole = np.zeros(size, np.uint8)
    whole[: len(own)] = own
    if size:
        whole = np.asarray(
            multihost_utils.broadcast_one_to_all(whole), np.uint8
        )  # JAX has summed it in more bits
    return whole.tobytes()
