"""A server on localhost that speaks KFP's API v2beta1 as its OpenAPI files define it, and fails when it is told to."""

import http.server
import json
import time
import urllib.parse
import uuid

from tests.component.json_server import JsonHandler, served

PREFIX = "/apis/v2beta1/"


class Api(http.server.ThreadingHTTPServer):
    """The server's state: what was created, and what was asked.

    Attributes:
        runs, recurring: by id, as they were sent, with the fields that the server adds.
        asked: "METHOD path" of each request but health checks.
        tokens: the Authorization header of each.
        failing: "METHOD path" -> status that it answers with; "hang" answers nothing for a while.
        page: recurring runs on one page.
        version: what it calls itself; it orphans from 2.16 on.
        workflows: run id -> id of the recurring run that owns its Workflow; the Workflow of a run that is in `runs`
            alone is gone, at work or not, and the list of runs keeps the last state that it heard.
        multi_user: whether it says so.
        ends: task -> state that it comes to in a new run, SUCCEEDED if it is not there; None leaves runs PENDING.
        ended: ids of the runs that were terminated.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs, self.recurring, self.experiments = {}, {}, {}
        self.asked, self.tokens, self.failing, self.page = [], [], {}, 2
        self.version, self.workflows = "2.16.1", {}
        self.multi_user, self.ends, self.ended = False, None, []

    def start(self, run):
        """Plays a new run to its end, where `ends` says which one.

        A task is a node of Argo's by its name, and its driver and its pod are others
        (backend/src/v2/compiler/argocompiler/dag.go; NodeStatuses, backend/src/common/util/workflow.go:862 at 2.17.0).
        """
        if self.ends is None:
            return
        tasks = run["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
        states = {name: self.ends.get(name, "SUCCEEDED") for name in tasks}
        details = [{"display_name": f"{name}-driver", "state": "SUCCEEDED"} for name in tasks]
        details += [{"display_name": "executor", "state": state} for state in states.values()]
        details += [{"display_name": name, "state": state} for name, state in states.items()]
        run["run_details"] = {"task_details": details}
        working = {"PENDING", "RUNNING"} & set(states.values())
        run["state"] = "RUNNING" if working else "FAILED" if "FAILED" in states.values() else "SUCCEEDED"

    def fire(self, identity, state="RUNNING"):
        """Starts a run of a recurring run, which owns its Workflow; returns the run's id.

        As backend/src/common/util/workflow.go:679 of KFP 2.16.1 does, by NewControllerRef.
        """
        run = str(uuid.uuid4())
        self.runs[run] = {"run_id": run, "recurring_run_id": identity, "state": state}
        self.workflows[run] = identity
        return run

    def delete(self, identity, policy):
        """Deletes a recurring run as Kubernetes does: what it owns goes with it, unless it is orphaned.

        The policy is read from 2.16 on (backend/src/apiserver/resource/resource_manager.go:1282 at 2.16.0); before,
        grpc-gateway drops a parameter that the message lacks.
        """
        del self.recurring[identity]
        orphaned = policy == "ORPHAN" and float(self.version.rpartition(".")[0]) >= 2.16
        self.workflows = {
            run: None if owner == identity else owner
            for run, owner in self.workflows.items()
            if owner != identity or orphaned
        }

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(JsonHandler, http.server.BaseHTTPRequestHandler):
    server: Api

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def do_DELETE(self):
        self._answer()

    def log_message(self, *_):
        pass

    def _answer(self):
        url = urllib.parse.urlsplit(self.path)
        path = url.path.removeprefix(PREFIX)
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else {}
        asked = f"{self.command} {path}"
        if path != "healthz":
            self.server.asked.append(asked)
            self.server.tokens.append(self.headers.get("Authorization"))
        failure = self.server.failing.get(asked)
        if failure == "hang":
            time.sleep(3)
            return
        if failure:
            self._send(failure, {"error": f"planted {failure}", "code": 13, "message": f"planted {failure}"})
            return
        self._send(*self._route(self.command, path, urllib.parse.parse_qs(url.query), body))

    def _route(self, method, path, query, body):
        if path == "healthz":
            # backend/src/apiserver/main.go:280 at KFP 2.5.0
            return 200, {
                "commit_sha": "",
                "tag_name": self.server.version,
                "multi_user": self.server.multi_user,
            }
        if path == "experiments":
            return self._experiments(method, body)
        if (method, path) == ("POST", "runs"):
            made = {**body, "run_id": str(uuid.uuid4()), "state": "PENDING"}
            self.server.runs[made["run_id"]] = made
            self.server.start(made)
            return 200, made
        if path.startswith("runs"):
            return self._get_runs(method, path, query)
        if path == "recurringruns":
            return self._recurring_runs(method, query, body)
        return self._recurring_run(method, path, query)

    def _get_runs(self, method, path, query):
        if method == "POST":  # runs/{run_id}:terminate, backend/api/v2beta1/run.proto
            self.server.ended.append(path.removeprefix("runs/").removesuffix(":terminate"))
            return 200, {}
        if method == "DELETE":
            return (200, {}) if self.server.runs.pop(path.removeprefix("runs/"), None) else (404, {})
        if path == "runs":
            return 200, {"runs": self._runs(json.loads(urllib.parse.unquote(query["filter"][0])))}
        found = self.server.runs.get(path.removeprefix("runs/"))
        return (200, found) if found else (404, {"message": f"{path} not found"})

    def _runs(self, wanted):
        (predicate,) = wanted["predicates"]
        key, value = predicate["key"], predicate["stringValue"]
        key = {"name": "display_name"}.get(key, key)  # backend/src/apiserver/model/run.go
        return [run for run in self.server.runs.values() if run.get(key) == value]

    def _experiments(self, method, body):
        if method == "GET":
            return 200, {"experiments": list(self.server.experiments.values())}
        made = {**body, "experiment_id": str(uuid.uuid4())}
        self.server.experiments[made["display_name"]] = made
        return 200, made

    def _recurring_run(self, method, path, query):
        server = self.server
        identity, _, action = path.removeprefix("recurringruns/").partition(":")
        if not path.startswith("recurringruns/") or identity not in server.recurring:
            return 404, {"message": f"{path} not found"}
        if method == "DELETE":
            server.delete(identity, query.get("propagation_policy", [""])[0])
            return 200, {}
        server.recurring[identity]["status"] = {"enable": "ENABLED", "disable": "DISABLED"}[action]
        return 200, {}

    def _recurring_runs(self, method, query, body):
        server = self.server
        if method == "POST":
            status = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
            made = {**body, "recurring_run_id": str(uuid.uuid4()), "status": status}
            server.recurring[made["recurring_run_id"]] = made
            return 200, made
        start = int(query.get("page_token", ["0"])[0] or 0)
        rows = list(server.recurring.values())
        more = start + server.page < len(rows)
        page = {"recurringRuns": rows[start : start + server.page]}
        return 200, {**page, "next_page_token": str(start + server.page)} if more else page


def running():
    return served(Api())
