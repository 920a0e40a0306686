"""A server on localhost that answers what `byol kubeflow check` asks Kubernetes, as its API's reference has it."""

import http.server
import json
import urllib.parse

from tests.component.json_server import JsonHandler, served

NAMESPACE = "kubeflow"
_KINDS = {
    "serviceaccounts": ("ServiceAccount", "v1"),
    "persistentvolumeclaims": ("PersistentVolumeClaim", "v1"),
    "secrets": ("Secret", "v1"),
    "nodes": ("Node", "v1"),
    "pods": ("Pod", "v1"),
    "storageclasses": ("StorageClass", "storage.k8s.io/v1"),
}


class Kubernetes(http.server.ThreadingHTTPServer):
    """The cluster's state.

    Attributes:
        things: "RESOURCE" -> name -> object, without kind and version.
        rules: of the Role that is bound to each account, as the manifest has them.
        forbidden: resources that this person may not ask for.
        asked: "METHOD path" of each request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.things: dict[str, dict] = {resource: {} for resource in _KINDS}
        self.rules, self.forbidden, self.asked = {}, set(), []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, resource, name, **content):
        self.things[resource][name] = {"metadata": {"name": name}, **content}

    def allows(self, spec):
        """As RBAC does it: one rule has verb, group, resource and name (VerbMatches and so on, pkg/apis/rbac/v1)."""
        asked = spec["resourceAttributes"]
        *_, namespace, account = spec["user"].split(":")
        return namespace == asked["namespace"] == NAMESPACE and any(
            asked["verb"] in rule["verbs"]
            and asked.get("group", "") in rule["apiGroups"]
            and asked["resource"] in rule["resources"]
            and asked.get("name", "") in rule.get("resourceNames", [asked.get("name", "")])
            for rule in self.rules.get(account, [])
        )


class Handler(JsonHandler, http.server.BaseHTTPRequestHandler):
    server: Kubernetes

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        self.server.asked.append(f"GET {self.path}")
        parts = url.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        if parts[0] == "namespaces":
            parts = parts[2:] if parts[1] == NAMESPACE else ["none"]
        resource, name = (*parts, "")[:2]
        if resource in self.server.forbidden:
            self._status(403, "Forbidden")
        elif not name and resource in _KINDS:
            self._list(resource)
        elif name in self.server.things.get(resource, {}):
            self._send(200, self._full(resource, self.server.things[resource][name]))
        else:
            self._status(404, "NotFound")

    def do_POST(self):
        self.server.asked.append(f"POST {self.path}")
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith(f"/namespaces/{NAMESPACE}/localsubjectaccessreviews"):
            self._status(404, "NotFound")
        elif "localsubjectaccessreviews" in self.server.forbidden:
            self._status(403, "Forbidden")
        else:
            self._send(201, {**review, "status": {"allowed": self.server.allows(review["spec"])}})

    def log_message(self, *_):
        pass

    def _list(self, resource):
        kind, version = _KINDS[resource]
        items = [self._full(resource, one) for one in self.server.things[resource].values()]
        self._send(200, {"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": items})

    @staticmethod
    def _full(resource, thing):
        kind, version = _KINDS[resource]
        return {"kind": kind, "apiVersion": version, **thing}

    def _status(self, code, reason):
        self._send(code, {"kind": "Status", "status": "Failure", "reason": reason, "code": code})


def kubeconfig(url):
    """A kubeconfig with one context, `here`."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "one", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": "secret-token"}}],
        "contexts": [{"name": "here", "context": {"cluster": "one", "user": "me"}}],
    }


def running():
    return served(Kubernetes())
