from __future__ import annotations

import ast
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from compiler.graph import serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel
from deploy.agent import etpu_agent
from deploy.agent.client import AgentClient, upload_agent
from deploy.errors import (
    AgentError,
    ConnectionLostError,
    DeviceTimeoutError,
    NoEdgeTpuError,
    RuntimeLibraryMissingError,
)
from deploy.inventory import LocalDevice
from deploy.session import DeviceSession, connect
from deploy.transports.local import LocalTransport

AGENT = Path(etpu_agent.__file__)


def test_agent_is_python_3_7() -> None:
    tree = ast.parse(AGENT.read_text(), feature_version=(3, 7))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]  # type: ignore[union-attr]
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported <= set(sys.stdlib_module_names)


def test_messages_keep_blobs() -> None:
    data = etpu_agent.pack_message({"verb": "x", "n": 1}, [b"", b"abc"])
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        at += size
        return data[at - size : at]

    message, blobs = etpu_agent.read_message(read)
    assert (message["verb"], message["n"], blobs) == ("x", 1, [b"", b"abc"])
    assert at == len(data)


def test_agent_runs_alone_and_guards_its_output() -> None:
    """In a bare interpreter, isolated from the project; output of libraries must not reach the conversation."""
    program = f"exec(compile(open({str(AGENT)!r}).read(), 'agent', 'exec'), {{'__name__': 'agent'}})"
    noisy = (
        "import os, types\n"
        "agent = types.ModuleType('agent')\n"
        f"exec(compile(open({str(AGENT)!r}).read(), 'agent', 'exec'), agent.__dict__)\n"
        "plain = agent.Agent.verb_ping\n"
        "def ping(self, request, blobs):\n"
        "    print('noise', flush=True); os.write(1, b'more noise')\n"
        "    return plain(self, request, blobs)\n"
        "agent.Agent.verb_ping = ping\n"
        "agent.main()\n"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, capture_output=True)
    request = etpu_agent.pack_message({"verb": "ping"}, [])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", noisy], input=request, capture_output=True, check=True)
    assert done.stdout.startswith(etpu_agent.GREETING)
    body = done.stdout[len(etpu_agent.GREETING) :]
    assert json.loads(body[4:]) == {"ok": True, "blobs": []}
    assert struct.unpack(">I", body[:4])[0] == len(body) - 4
    assert b"more noise" in done.stderr


def test_real_runtime_is_looked_for(session: DeviceSession) -> None:
    hello = session.agent.hello()
    assert not hello.simulated
    assert hello.runtimes["ai_edge_litert"] or hello.runtimes["tflite_runtime"]
    try:
        runtime = session.agent.runtime()
    except RuntimeLibraryMissingError as error:
        assert "libedgetpu1-std" in error.advice
    else:
        assert runtime.version >= 10


LIBEDGETPU = r"""
#include <stddef.h>
struct edgetpu_device { int type; const char* path; };
static struct edgetpu_device devices[2] = {{1, "/sys/bus/usb/devices/2-1"}, {0, "/dev/apex_0"}};
static int freed = 1;
const char* edgetpu_version(void) {
  return "BuildLabel(COMPILER=5.4.0 20160609,DATE=redacted,TIME=redacted,CL_NUMBER=317268237), RuntimeVersion(13)";
}
struct edgetpu_device* edgetpu_list_devices(size_t* count) {
  *count = freed ? 2 : 0;
  freed = 0;
  return devices;
}
void edgetpu_free_devices(struct edgetpu_device* list) { freed = list == devices; }
void* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  return NULL;
}
void tflite_plugin_destroy_delegate(void* delegate) {}
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_c_interface_of_libedgetpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: LocalDevice) -> None:
    (tmp_path / "edgetpu.c").write_text(LIBEDGETPU)
    library = str(tmp_path / "libedgetpu.so.1")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, str(tmp_path / "edgetpu.c")], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with connect(local) as session:
        for _ in range(2):
            runtime = session.agent.runtime()
        assert runtime.version == 13 and runtime.library == "libedgetpu.so.1" and not runtime.simulated
        assert [(t.index, t.type, t.path) for t in runtime.tpus] == [
            (0, "usb", "/sys/bus/usb/devices/2-1"),
            (1, "pcie", "/dev/apex_0"),
        ]
        with pytest.raises(NoEdgeTpuError, match="there is no Edge TPU 2; libedgetpu lists 2"):
            session.agent.load(b"x", 2)
        with pytest.raises(NoEdgeTpuError, match="Failed to load delegate") as caught:
            session.agent.load(b"x", 0)
        assert "plugdev" in caught.value.advice


def test_pycoral_of_another_project_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: LocalDevice
) -> None:
    (tmp_path / "path" / "pycoral").mkdir(parents=True)
    (tmp_path / "path" / "pycoral" / "__init__.py").write_text("__version__ = '9'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    with connect(local) as session:
        assert session.agent.hello().runtimes["pycoral"] is None


def test_errors_of_the_agent(session: DeviceSession, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cannot read /no/model") as caught:
        session.agent.load("/no/model", None)
    assert caught.value.code == "not_found"
    with pytest.raises(AgentError, match="refuses the model"):
        session.agent.load(b"no model at all, but long enough to look at", None)
    with pytest.raises(AgentError, match="knows no verb"):
        session.agent._ask("dance")
    with pytest.raises(AgentError, match="FileNotFoundError"):
        session.agent.verify([str(tmp_path / "missing")])
    assert session.agent.hello().agent == etpu_agent.VERSION


@pytest.mark.parametrize(
    ("python", "name"),
    [
        (sys.executable, "ai_edge_litert"),
        pytest.param(
            os.environ.get("ETPU_TFLITE_RUNTIME_PYTHON", ""),
            "tflite_runtime",
            marks=pytest.mark.skipif("ETPU_TFLITE_RUNTIME_PYTHON" not in os.environ, reason="no tflite_runtime here"),
        ),
    ],
)
def test_models_run_with_what_the_device_has(tmp_path: Path, python: str, name: str) -> None:
    builder = GraphBuilder()
    x = builder.add_input((1, 16), scale=0.1)
    weights = builder.quantized_weights(np.random.default_rng(3).normal(size=(16, 16)))
    model = serialize_model(builder.build(builder.fully_connected(x, weights, scale=0.4)))
    value = np.arange(-8, 8, dtype=np.int8).reshape(1, 16)
    agent = AgentClient(LocalTransport("x", str(tmp_path)), python=python)
    try:
        assert agent.hello().runtimes[name]
        loaded = agent.load(model, None)
        assert loaded.runtime == name
        inference = agent.run(loaded, [value.tobytes()])
        runs = agent.time(loaded, 4)
    finally:
        agent.close()
    (expected,) = TfliteModel(model).run([value])
    assert inference.outputs == (expected.tobytes(),)
    assert inference.timing.total_us > 0 and inference.timing.device_us is None
    assert not inference.simulated
    assert len(runs.timings) == 4 and not runs.cold


def test_lock_ends_with_the_agent(session: DeviceSession, local: LocalDevice, tmp_path: Path) -> None:
    path = str(tmp_path / "device" / "lock")
    with connect(local) as other:
        session.agent._ask("lock", path=path, owner="one")
        with pytest.raises(AgentError) as caught:
            other.agent._ask("run", handle=7)
        assert caught.value.code == "no_such_model"
        with pytest.raises(Exception, match="by one"), other.agent.lock(path):
            pass
        session.agent.close()
        time.sleep(0.05)
        with other.agent.lock(path):
            pass


def test_agent_that_is_gone(session: DeviceSession) -> None:
    session.agent._process.close()
    with pytest.raises((ConnectionLostError, ValueError)):
        session.agent.hello()


def test_agent_that_does_not_answer(tmp_path: Path) -> None:
    transport = LocalTransport("slow", str(tmp_path))
    sleeper = tmp_path / "python"
    sleeper.write_text(f'#!/bin/sh\n[ "$1" = -u ] && exec sleep 5\nexec {sys.executable} "$@"\n')
    sleeper.chmod(0o755)
    with pytest.raises(DeviceTimeoutError):
        AgentClient(transport, python=str(sleeper), timeout=0.3)


def test_upload_is_skipped_when_it_is_there(tmp_path: Path) -> None:
    transport = LocalTransport("x", str(tmp_path))
    path = Path(upload_agent(transport, sys.executable))
    before = path.stat().st_mtime_ns
    assert upload_agent(transport, sys.executable) == str(path)
    assert path.stat().st_mtime_ns == before
    assert path.read_bytes() == AGENT.read_bytes()
