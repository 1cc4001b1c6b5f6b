"""The job that Snakemake sends to Kubernetes, as a server on this machine receives it. There is no cluster.

What the pod would execute is executed here, in an empty folder, as a pod has one.
"""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from in_snakemake import ONE_THREAD, Project

from cpadapt.records.store import load_records

STUDY = """
name = "nano"
backbone = "tiny"
tasks = ["toy-sentiment"]
ladder = { sizes = { cp = [1] } }
protocol = { steps = 4, eval_every = 2, batch_size = 4, train_cap = 20, dev_cap = 10, eval_cap = 12 }
"""
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "here",
    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
    "users": [{"name": "here", "user": {}}],
}
JOBS = "/apis/batch/v1/namespaces/default/jobs"
INSTALLS = "pip install --target '.snakemake/pip-deployments' snakemake-storage-plugin-fs && "
"""What a pod does first; here the package is at hand."""


class Node(BaseHTTPRequestHandler):
    """Takes jobs as Kubernetes' server does, and executes what their containers would."""

    project: Project
    taken: list[Any]
    pods: dict[str, "subprocess.Popen[bytes]"]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == JOBS:
            self.taken.append(body)
            name, (container,) = body["metadata"]["name"], body["spec"]["template"]["spec"]["containers"]
            workdir = self.project.folder.parent / name
            workdir.mkdir()
            option, command = container["args"]
            with (workdir / "said").open("w") as said:
                self.pods[name] = subprocess.Popen(
                    [*container["command"], option, command.removeprefix(INSTALLS)],
                    cwd=workdir, env=self.project.environment, stdout=said, stderr=subprocess.STDOUT,
                )  # fmt: skip
        self._answer(body)

    def do_GET(self) -> None:
        if not self.path.startswith(JOBS):
            self._answer({"items": []})
            return
        status = self.pods[self.path.removeprefix(JOBS).split("/")[1]].poll()
        self._answer({"status": {} if status is None else {"failed": 1} if status else {"succeeded": 1}})

    def do_DELETE(self) -> None:
        self._answer({})

    def _answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *values: Any) -> None:
        pass


@pytest.fixture
def taken(project: Project) -> Iterator[list[Any]]:
    """The jobs that a server takes, to which the project's Kubernetes client talks."""
    missing = [name for name in ("kubernetes", "snakemake_storage_plugin_fs") if find_spec(name) is None]
    if missing or shutil.which("rsync") is None:
        pytest.skip("needs `make workflow-setup` and rsync")
    Node.project, Node.taken, Node.pods = project, [], {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Node) as server:
        threading.Thread(target=server.serve_forever).start()
        cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        (project.folder / "kubeconfig").write_text(json.dumps(KUBECONFIG | {"clusters": [cluster]}))
        project.environment["KUBECONFIG"] = str(project.folder / "kubeconfig")
        yield Node.taken
        server.shutdown()
        for pod in Node.pods.values():
            pod.kill()
            pod.wait()


@pytest.fixture
def volume(project: Project) -> Path:
    """What the pods share, with a study on it."""
    folder = project.folder / "volume"
    folder.mkdir()
    (folder / "nano.toml").write_text(STUDY)
    return folder


def options(volume: Path) -> tuple[str, ...]:
    return (
        "study", "--config", f"study={volume}/nano.toml", f"results={volume}/records",
        "--container-image", "example.org/cpadapt:1", "--retries", "0", *ONE_THREAD,
        "--kubernetes-persistent-volumes", f"cpadapt:{volume}", "--default-storage-prefix", f"{volume}/snakemake",
        "--seconds-between-status-checks", "1",
    )  # fmt: skip


@pytest.mark.slow
def test_a_dry_run_needs_no_cluster(project: Project, taken: list[Any], volume: Path) -> None:
    found = project.jobs(*options(volume), profile="kubernetes")
    assert found == {"notebook": 1, "measure toy-sentiment 1": 1, "study": 1}
    assert taken == []


@pytest.mark.long
def test_what_a_pod_is_asked_for(project: Project, taken: list[Any], volume: Path) -> None:
    process = project.start(*options(volume), "--profile", "workflow/profiles/kubernetes")
    said = process.communicate()[0]
    assert process.returncode == 0, said + "".join(file.read_text() for file in project.folder.parent.glob("*/said"))
    (job,) = taken
    assert job["spec"]["backoffLimit"] == 0, "Snakemake decides what is tried again"
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "example.org/cpadapt:1"
    assert container["resources"]["limits"] == {"cpu": "1000m", "memory": "32000M", "nvidia.com/gpu": "1"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert {v["name"]: v.get("persistentVolumeClaim") for v in pod["volumes"]}["cpadapt"] == {"claimName": "cpadapt"}
    assert {"name": "cpadapt", "mountPath": str(volume)} in container["volumeMounts"]
    _, command = container["args"]
    assert command.startswith(INSTALLS)
    assert "--target-jobs 'measure:task=toy-sentiment,shard=1'" in command
    assert [record.label for record in load_records(volume / "records")] == ["cp"]
    executed = volume / "snakemake" / "build" / "workflow" / "nano" / "toy-sentiment-1-of-1.ipynb"
    assert "vega" in executed.read_text()
