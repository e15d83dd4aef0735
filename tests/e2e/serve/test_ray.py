"""Two local replicas behind Ray Serve give the same answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from zeroskip import InvalidArgument, load
from zeroskip.serve import Settings
from zeroskip.serve.ray import application, deployment

# In a process of its own: Ray starts others, and leaves them behind where a test fails.
SCRIPT = """
import concurrent.futures, json, sys
import httpx, ray
from ray import serve
from zeroskip.serve import Settings
from zeroskip.serve.ray import deployment

folder, port, texts = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(deployment(folder, Settings(name="small", log_format="off"), replicas=2))
with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
    def ask(text):
        answer = client.post("/v1/embeddings", json={"model": "small", "input": text})
        return answer.json()["data"][0]["embedding"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(ask, texts))
    wrong = client.post("/v1/embeddings", json={"model": "small", "input": ""})
replicas = serve.status().applications["default"].deployments["zeroskip"].replica_states
print(json.dumps({"vectors": vectors, "wrong": [wrong.status_code, wrong.json()], "replicas": dict(replicas)}))
serve.shutdown()
ray.shutdown()
"""


@pytest.mark.slow
def test_two_replicas(folder, tmp_path):
    np = pytest.importorskip("numpy")
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'ray[serve]'")
    texts = ["the cat", "a dog", "one two three", "red tree ran"] * 25
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", SCRIPT, str(folder), str(port), json.dumps(texts)]
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(tmp_path)}  # Ray leaves files in the home folder
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"vectors"')))
    np.testing.assert_allclose(found["vectors"], load(folder).embed(texts), rtol=1e-4, atol=1e-5)
    assert found["replicas"] == {"RUNNING": 2}
    assert found["wrong"][0] == 400
    assert found["wrong"][1]["error"]["param"] == "input"


def test_wrong_arguments():
    with pytest.raises(InvalidArgument, match="replicas is 0"):
        deployment("somewhere", Settings(), replicas=0)
    with pytest.raises(InvalidArgument, match="folder is missing"):
        application({})
    with pytest.raises(InvalidArgument, match="'port' is no argument"):
        application({"folder": "somewhere", "port": "8000"})
    with pytest.raises(InvalidArgument, match="replicas is 'two'"):
        application({"folder": "somewhere", "replicas": "two"})
