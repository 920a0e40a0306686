"""Runs and recurring runs on a server of Kubeflow Pipelines, through its own client."""

import contextlib
import dataclasses
import functools
import io
import json
import pathlib
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pipeline.schedule.cron import Cron

if TYPE_CHECKING:
    from kubeflow.compiled import Compiled

TIMEOUT_SECONDS = 60.0
_NO_SUCH_THING = 404
# The first release that reads `propagation_policy`; older ones ignore it in silence and delete the runs, too
# (backend/api/v2beta1/recurring_run.proto:232 and apiserver/resource/resource_manager.go:1282 at 2.16.0).
ORPHANS_SINCE = (2, 16)
# From this release on a profile's policy in KFP's own store names the folders that it may write to
# (manifests/kustomize/base/installs/multi-user/pipelines-profile-controller/sync.py:401 at 2.16.1).
PROFILES_SINCE, PROFILES_BUCKET = (2, 15), "minio://mlpipeline/"
ENDED = {"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"}  # backend/api/v2beta1/run.proto, RuntimeState
_HINTS = {
    401: "The token is missing or no longer valid: give --token-file.",
    403: "This account may not do that in this namespace: see the roles in kubeflow/manifests.",
    404: "There is no such thing on the server, or --host is not the address of KFP's API.",
    409: "The name is taken already: choose another --name, or delete the old one.",
}


class ServerError(RuntimeError):
    """The server refused, failed or could not be reached; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A recurring run as the server has it.

    Attributes:
        identity: the server's id.
        name: as it was created.
        when: KFP's cron with six fields, or "every N s".
        enabled: whether it fires.
        concurrency: runs that may be at work at the same time.
        catches_up: whether missed times are made up for.
    """

    identity: str
    name: str
    when: str
    enabled: bool
    concurrency: int
    catches_up: bool


class Server:
    """One server.

    Args:
        host: address of KFP's API, such as http://localhost:8888.
        namespace: of a multi-user installation; "" for none.
        token: bearer token; "" for none.
        timeout: seconds that one request may take.
        authorities: file with the certificates of a private authority; None for the public ones.

    Raises:
        ServerError: the server cannot be asked.
    """

    def __init__(
        self,
        host: str,
        namespace: str = "",
        token: str = "",
        timeout: float = TIMEOUT_SECONDS,
        authorities: pathlib.Path | None = None,
    ) -> None:
        self._host, self._namespace, self._timeout = host, namespace or None, timeout
        with self._one_line(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self._client = _client_class(timeout)(
                host=host,
                namespace=namespace or "kubeflow",
                existing_token=token or None,
                ssl_ca_cert=str(authorities) if authorities else None,
            )
        _limit_waiting(self._client, timeout)

    def submit(self, compiled: "Compiled", name: str, experiment: str, account: str = "") -> str:
        """Starts a run; returns its id."""
        with self._one_line(), _silent(), _as_file(compiled) as path:
            run = self._client.run_pipeline(
                experiment_id=self._experiment(experiment),
                job_name=name,
                pipeline_package_path=str(path),
                params={},
                pipeline_root=compiled.pipeline_root,
                service_account=account or None,
            )
        return str(run.run_id)

    def state(self, run: str) -> str:
        """KFP's word for a run's state (backend/api/v2beta1/run.proto); "" if there is no such run any more."""
        import kfp_server_api

        with self._one_line():
            try:
                return str(self._client.get_run(run).state)
            except kfp_server_api.ApiException as error:
                if error.status == _NO_SUCH_THING:
                    return ""
                raise

    def task_states(self, run: str) -> dict[str, str]:
        """KFP's word for the state of each task of a run, by its name; a task that has not begun is not in it."""
        with self._one_line():
            details = self._client.get_run(run).run_details
        # Argo's nodes, by their display names (NodeStatuses, backend/src/common/util/workflow.go:862 at 2.17.0).
        return {str(one.display_name): str(one.state) for one in (details and details.task_details) or []}

    def terminate(self, run: str) -> None:
        """Ends a run that is at work."""
        with self._one_line():
            self._client.terminate_run(run)

    def forget(self, run: str) -> None:
        """Removes a run from the list, and its pods with it."""
        with self._one_line():
            self._client.delete_run(run)

    def run_named(self, name: str) -> str | None:
        """The id of the newest run of a name; None if there is none."""
        # "name" is a key of the filter in every 2.x (backend/src/apiserver/model/run.go).
        wanted = json.dumps({"predicates": [{"operation": "EQUALS", "key": "name", "stringValue": name}]})
        with self._one_line():
            page = self._client.list_runs(
                page_size=100, namespace=self._namespace, filter=wanted, sort_by="created_at desc"
            )
        found = [run for run in page.runs or [] if run.display_name == name]
        return str(found[0].run_id) if found else None

    def schedule(
        self,
        compiled: "Compiled",
        name: str,
        experiment: str,
        when: Cron | int,
        enabled: bool = True,
        account: str = "",
    ) -> Schedule:
        """Makes a recurring run, in place of one of the same name.

        The older one is paused first and removed last: two of them never fire, and if the server refuses the new one,
        the older one goes on as before. A run at work is never ended (`remove`): where KFP cannot delete an older one
        without it, that one stays, paused, until it is asked for again.

        Args:
            compiled: what is run. It goes with the recurring run, not by reference, so that what is scheduled is this.
            name: of the recurring run.
            experiment: made if there is none of that name.
            when: a schedule, or seconds between two starts.
            enabled: False makes it paused.
            account: Kubernetes service account of the steps.

        Raises:
            ServerError: the server refused.
        """
        older = [found for found in self.schedules() if found.name == name]
        for found in older:
            self.pause(found)
        try:
            with self._one_line(), _silent(), _as_file(compiled) as path:
                trigger: dict[str, Any] = (
                    {"cron_expression": when.kubeflow()}
                    if isinstance(when, Cron)
                    else {"interval_second": when}
                )
                made = self._client.create_recurring_run(
                    experiment_id=self._experiment(experiment),
                    job_name=name,
                    # One at a time, and a night that was missed is not made up for: the next run takes the newest data.
                    max_concurrency=1,
                    no_catchup=True,
                    params={},
                    pipeline_package_path=str(path),
                    pipeline_root=compiled.pipeline_root,
                    enabled=enabled,
                    service_account=account or None,
                    **trigger,
                )
        except ServerError:
            for found in older:
                if found.enabled:
                    self.resume(found)
            raise
        for found in older:
            self.remove(found)
        return _schedule(made)

    def schedules(self) -> list[Schedule]:
        """Every recurring run, the newest last."""
        found, token = [], ""
        while True:
            with self._one_line():
                page = self._client.list_recurring_runs(
                    page_token=token, page_size=100, namespace=self._namespace
                )
            found += [_schedule(one) for one in page.recurring_runs or []]
            token = page.next_page_token or ""
            if not token:
                return found

    def named(self, name: str) -> list[Schedule]:
        """The recurring runs of a name.

        Raises:
            ValueError: there is none.
        """
        known = self.schedules()
        found = [one for one in known if one.name == name]
        if not found:
            names = ", ".join(sorted({one.name for one in known})) or "none"
            raise ValueError(f"There is no recurring run {name!r} on {self._host}. There are: {names}.")
        return found

    def pause(self, schedule: Schedule) -> None:
        """Keeps it from firing; a run at work goes on."""
        with self._one_line():
            self._client.disable_recurring_run(schedule.identity)

    def resume(self, schedule: Schedule) -> None:
        """Lets it fire again; KFP starts a run at once if a time was missed meanwhile.

        That is in KFP's controller, with `no_catchup` as well, which leaves out all missed times but the last
        (backend/src/crd/controller/scheduledworkflow/util/cron_schedule.go:83 at 2.16.1).
        """
        with self._one_line():
            self._client.enable_recurring_run(schedule.identity)

    def remove(self, schedule: Schedule, end_runs: bool = False) -> tuple[str, ...]:
        """Removes a recurring run, not a run of it that is at work.

        KFP's Workflows are owned by their ScheduledWorkflow (backend/src/common/util/workflow.go:679 at 2.16.1), so
        Kubernetes deletes them with it unless it is told to orphan them, which only newer servers can pass on.

        Args:
            schedule: what is removed.
            end_runs: delete its Workflows and pods with it, those at work included.

        Returns:
            Runs at work for which it was kept, paused, on a server that cannot orphan them; none if it is gone.
        """
        if end_runs or self.orphans:
            self._delete(schedule, "" if end_runs else "ORPHAN")
            return ()
        self.pause(schedule)  # first, so that no run starts between the look and the deletion
        working = self.at_work(schedule)
        if not working:
            self._delete(schedule, "")
        return working

    def at_work(self, schedule: Schedule) -> tuple[str, ...]:
        """Ids of the runs of a recurring run that have not ended."""
        # "recurring_run_id" is a key of the filter in every 2.x (backend/src/apiserver/model/run.go:370 at 2.5.0).
        wanted = json.dumps(
            {
                "predicates": [
                    {"operation": "EQUALS", "key": "recurring_run_id", "stringValue": schedule.identity}
                ]
            }
        )
        found: list[str] = []
        token = ""
        while True:
            with self._one_line():
                page = self._client.list_runs(
                    page_token=token, page_size=100, namespace=self._namespace, filter=wanted
                )
            found += [
                str(run.run_id)
                for run in page.runs or []
                if str(run.recurring_run_id) == schedule.identity and str(run.state) not in ENDED
            ]
            token = page.next_page_token or ""
            if not token:
                return tuple(found)

    @property
    def version(self) -> str:
        """The server's release, such as "2.16.1"; "" if it does not say so."""
        return str(self._health.get("tag_name") or "")

    @property
    def multi_user(self) -> bool:
        """Whether runs need a namespace."""
        return bool(self._health.get("multi_user"))

    def misplaced(self, pipeline_root: str) -> str:
        """Why runs may not be made as asked on a multi-user server, in a sentence; "" if they may.

        Raises:
            ServerError: the server does not say what it is.
        """
        if not self.multi_user:
            return ""
        if not self._namespace:
            return f"{self._host} is a multi-user installation: give --namespace, the profile's."
        key = pipeline_root.removeprefix(PROFILES_BUCKET)
        allowed = (
            f"private-artifacts/{self._namespace}/",
            f"private/{self._namespace}/",
            "artifacts/",
            "shared/",
        )
        if self._release < PROFILES_SINCE or key == pipeline_root or f"{key}/".startswith(allowed):
            return ""
        return (
            f"From KFP 2.15 on the profile {self._namespace} may not write below {pipeline_root}. Give a pipeline_root "
            f"below {' or '.join(PROFILES_BUCKET + one for one in allowed)}, or none."
        )

    @property
    def _release(self) -> tuple[int, int]:
        """The first two numbers of the release; zeros if it is not known."""
        match = re.match(r"v?(\d+)\.(\d+)\.", self.version)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    @functools.cached_property
    def _health(self) -> dict[str, Any]:
        # kfp's model of the answer lacks the release; the server sends it (backend/src/apiserver/main.go:280 at 2.5.0).
        with self._one_line():
            return self._request("GET", "healthz", {}) or {}

    @property
    def orphans(self) -> bool:
        """Whether the server can delete a recurring run and leave its Workflows."""
        return self._release >= ORPHANS_SINCE

    def _delete(self, schedule: Schedule, policy: str) -> None:
        # kfp's client has no argument for the policy, and kfp-server-api only from 2.16 on.
        query = {"propagation_policy": policy} if policy else {}
        with self._one_line():
            self._request("DELETE", f"recurringruns/{schedule.identity}", query)

    def _request(self, method: str, path: str, query: dict[str, str]) -> Any:
        """What the server answers to a request that kfp's client cannot make."""
        return self._client.healthzs.api_client.call_api(
            f"/apis/v2beta1/{path}",
            method,
            query_params=list(query.items()),
            header_params={"Accept": "application/json"},
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
        )

    def _experiment(self, name: str) -> str:
        return str(self._client.create_experiment(name, namespace=self._namespace).experiment_id)

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        """Makes every way in which a request can fail a ServerError."""
        import kfp_server_api
        import urllib3

        try:
            yield
        except kfp_server_api.ApiException as error:
            hint = _HINTS.get(error.status, "Look into the log of the ml-pipeline pod.")
            raise ServerError(
                f"{self._host} answered {error.status} ({error.reason}): {_first_line(error.body)} {hint}"
            ) from error
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            what = (
                f"did not answer within {self._timeout:g} s"
                if isinstance(reason, urllib3.exceptions.ReadTimeoutError)
                else "cannot be reached"
            )
            raise ServerError(
                f"{self._host} {what}. Is --host the address of KFP's API, and the port forwarded "
                "(kubectl -n kubeflow port-forward svc/ml-pipeline 8888)?"
            ) from error


def _client_class(seconds: float) -> type:
    """kfp's client, asking once for the server's health: by itself five times, 5 s apart, for ever if it hangs."""
    import kfp

    class Client(kfp.Client):
        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            """Asks once; `sleep_duration` is kfp's, before the next time."""
            _limit_waiting(self, seconds)
            # The first is kfp-server-api's name to 2.0, the second from 2.1 on.
            old = getattr(self.healthzs, "get_healthz", None)
            return (old or self.healthzs.healthz_service_get_healthz)()

    return Client


def _limit_waiting(client: Any, seconds: float) -> None:
    """kfp's client has no setting for this: by itself it waits for ever. One pool serves all its interfaces."""
    pool = client.healthzs.api_client.rest_client.pool_manager
    pool.request = _limited(pool, seconds)


def _limited(pool: Any, seconds: float) -> Callable[..., Any]:
    """The pool's `request` that ends; each is sent once, as a second `create` might make a second run."""
    import urllib3

    request = type(pool).request

    def limited(method: str, url: str, **options: Any) -> Any:
        options["timeout"] = options.get("timeout") or urllib3.Timeout(total=seconds)
        return request(pool, method, url, **{"retries": False, **options})

    return limited


def _silent() -> contextlib.redirect_stdout[io.StringIO]:
    """kfp prints addresses of its pages where a program expects JSON."""
    return contextlib.redirect_stdout(io.StringIO())


@contextlib.contextmanager
def _as_file(compiled: "Compiled") -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pipeline.yaml"
        compiled.write(path)
        yield path


def _schedule(run: Any) -> Schedule:
    trigger = run.trigger
    cron = trigger.cron_schedule.cron if trigger and trigger.cron_schedule else None
    every = trigger.periodic_schedule.interval_second if trigger and trigger.periodic_schedule else None
    return Schedule(
        identity=str(run.recurring_run_id),
        name=str(run.display_name),
        when=cron or f"every {every} s",
        enabled=str(run.status or run.mode).startswith("ENABLE"),
        concurrency=int(run.max_concurrency or 0),
        catches_up=not run.no_catchup,
    )


def _first_line(body: Any) -> str:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    return " ".join(text.split())[:300]
