"""Runs on a device: answers questions about its Edge TPUs and runs models on them.

This file is uploaded as it is. It needs nothing but Python 3.7; an interpreter for models
(pycoral, tflite_runtime or ai_edge_litert, and numpy with it) is used where the device has one.

It speaks on standard input and output. A message is a 4-byte big-endian length and that many
bytes of UTF-8 JSON, an object. Its key ``blobs`` lists the lengths of binary blobs that follow it.
A request names a ``verb``; the answer has ``ok`` true, or false with ``code``, ``message``
and ``advice``. The first bytes that the agent sends are :data:`GREETING`: whatever a login shell
prints before them is no part of the conversation.

Where ``ETPU_AGENT_RUNTIME`` is ``virtual:<JSON>``, Edge TPUs are simulated with the same
answers and ``simulated`` true in them.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import fcntl
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import queue
import re
import select
import shutil
import struct
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

VERSION = "1"
GREETING = b"\x00ETPU-AGENT-1\n"
IDLE_SECONDS = 900.0

Blobs = List[bytes]
Answer = Tuple[Dict[str, Any], Blobs]

_TOO_OLD = re.compile(r"Package requires runtime version \((\d+)\), which is newer than this runtime version \((\d+)\)")
_VERSION = re.compile(r"RuntimeVersion\((\d+)\)")
_INTERPRETERS = ("tflite_runtime", "ai_edge_litert")


def pack_message(message: Dict[str, Any], blobs: Blobs) -> bytes:
    """Return the bytes of a message."""
    body = json.dumps(dict(message, blobs=[len(blob) for blob in blobs])).encode("utf-8")
    return b"".join([struct.pack(">I", len(body)), body, *blobs])


def read_message(read_exactly: Callable[[int], bytes]) -> Answer:
    """Read a message and its blobs through a function that returns exactly as many bytes as asked for."""
    (length,) = struct.unpack(">I", read_exactly(4))
    message = json.loads(read_exactly(length).decode("utf-8"))
    return message, [read_exactly(size) for size in message.get("blobs", [])]


class RefusalError(Exception):
    """A request that cannot be fulfilled; goes back as an answer with ``ok`` false."""

    def __init__(self, code: str, message: str, advice: str = "", **data: Any) -> None:
        super().__init__(message)
        self.answer = dict(data, code=code, message=message, advice=advice)


# --- the Edge TPU runtime ------------------------------------------------------------------------------------------


class _CDevice(ctypes.Structure):
    """``struct edgetpu_device`` of edgetpu_c.h."""

    _fields_ = [("type", ctypes.c_int), ("path", ctypes.c_char_p)]


class EdgeTpuRuntime:
    """The real runtime, libedgetpu, through its C interface."""

    simulated = False

    def __init__(self) -> None:
        self._library = None  # type: Optional[ctypes.CDLL]
        self._library_name = ""

    def _load(self) -> ctypes.CDLL:
        if self._library is not None:
            return self._library
        reasons = []
        for name in ("libedgetpu.so.1", ctypes.util.find_library("edgetpu")):
            if not name:
                continue
            try:
                library = ctypes.CDLL(name)
            except OSError as error:
                reasons.append(str(error))
                continue
            library.edgetpu_version.restype = ctypes.c_char_p
            library.edgetpu_list_devices.restype = ctypes.POINTER(_CDevice)
            library.edgetpu_list_devices.argtypes = [ctypes.POINTER(ctypes.c_size_t)]
            library.edgetpu_free_devices.argtypes = [ctypes.POINTER(_CDevice)]
            library.edgetpu_free_devices.restype = None
            self._library, self._library_name = library, name
            return library
        raise RefusalError(
            "no_runtime_library",
            "libedgetpu cannot be loaded: {}".format("; ".join(reasons)),
            "Install libedgetpu1-std (it needs libusb-1.0-0 too).",
        )

    def describe(self) -> Dict[str, Any]:
        """Return version, version text, library and the list of Edge TPUs."""
        library = self._load()
        text = library.edgetpu_version().decode("utf-8", "replace")
        found = _VERSION.search(text)
        if not found:
            raise RefusalError("no_runtime_version", "libedgetpu does not tell its runtime version: {!r}".format(text))
        return {
            "version": int(found.group(1)),
            "text": text,
            "library": self._library_name,
            "devices": self._devices(library),
        }

    @staticmethod
    def _devices(library: ctypes.CDLL) -> List[Dict[str, Any]]:
        count = ctypes.c_size_t(0)
        devices = library.edgetpu_list_devices(ctypes.byref(count))
        kinds = {0: "pcie", 1: "usb"}
        found = [
            {"index": i, "type": kinds.get(devices[i].type, "?"), "path": (devices[i].path or b"").decode()}
            for i in range(count.value)
        ]
        if devices:
            library.edgetpu_free_devices(devices)
        return found

    def load(self, data: bytes, tpu: Optional[int]) -> LiteModel:
        """Load a model, with the Edge TPU of that index for its custom operators (None: CPU only)."""
        name, interpreter_type, load_delegate = find_interpreter()
        delegates = []
        if tpu is not None:
            devices = self.describe()["devices"]
            if tpu >= len(devices):
                raise RefusalError(
                    "no_edge_tpu",
                    "there is no Edge TPU {}; libedgetpu lists {}".format(tpu, len(devices)),
                    "Plug it in, check `lsusb` for 1a6e:089a or 18d1:9302 and /dev/apex_*; `etpu doctor` looks closer.",
                )
            try:
                delegates.append(load_delegate(self._library_name, {"device": ":{}".format(tpu)}))
            except (ValueError, OSError, AttributeError) as error:
                raise RefusalError(
                    "edge_tpu_not_opened",
                    "Edge TPU {} ({}) cannot be opened: {}".format(
                        tpu, devices[tpu]["path"], str(error).strip() or "libedgetpu gives no reason"
                    ),
                    "Usually another process holds it, or the user may not: join group plugdev (USB) or apex (PCIe).",
                ) from error
        return LiteModel(name, interpreter_type, data, delegates)


class LiteModel:
    """A model in a TensorFlow Lite interpreter."""

    def __init__(self, runtime: str, interpreter_type: Any, data: bytes, delegates: List[Any]) -> None:
        import numpy

        self._numpy = numpy
        self.runtime = runtime
        try:
            self._interpreter = interpreter_type(model_content=data, experimental_delegates=delegates or None)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise _explain_model(str(error)) from error
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.inputs = [_tensor_facts(detail) for detail in self._inputs]
        self.outputs = [_tensor_facts(detail) for detail in self._outputs]

    def run(self, inputs: Blobs) -> Tuple[Blobs, Dict[str, Any]]:
        """Run once. Return the outputs and the microseconds that the call took."""
        for detail, blob in zip(self._inputs, inputs):  # noqa: B905 - Python 3.7
            array = self._numpy.frombuffer(blob, dtype=detail["dtype"]).reshape(detail["shape"])
            self._interpreter.set_tensor(detail["index"], array)
        start = time.perf_counter_ns()
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise _explain_model(str(error)) from error
        micros = (time.perf_counter_ns() - start) / 1000.0
        outputs = [self._interpreter.get_tensor(detail["index"]).tobytes() for detail in self._outputs]
        return outputs, {"total_us": micros, "host_us": None, "device_us": None}


def _tensor_facts(detail: Dict[str, Any]) -> Dict[str, Any]:
    import numpy

    scale, zero_point = detail["quantization"]
    dtype = numpy.dtype(detail["dtype"])
    shape = [int(size) for size in detail["shape"]]
    size = dtype.itemsize
    for length in shape:
        size *= length
    return {
        "name": detail["name"],
        "shape": shape,
        "dtype": dtype.name,
        "bytes": size,
        "scale": float(scale),
        "zero_point": int(zero_point),
    }


def _explain_model(text: str) -> RefusalError:
    too_old = _TOO_OLD.search(text)
    if too_old:
        required, offered = int(too_old.group(1)), int(too_old.group(2))
        return RefusalError("runtime_too_old", too_old.group(0) + ".", required=required, offered=offered)
    if "edgetpu-custom-op" in text:
        return RefusalError(
            "needs_edge_tpu", "the model is compiled for the Edge TPU and was loaded without one: " + text
        )
    return RefusalError("model_refused", "the interpreter refuses the model: " + text)


def find_interpreter() -> Tuple[str, Any, Any]:
    """Return name, Interpreter class and load_delegate of the first interpreter that can be imported."""
    reasons = []
    for name in _INTERPRETERS:
        if importlib.util.find_spec(name) is None:
            reasons.append(name + " is not installed")
            continue
        try:
            module = importlib.import_module(name + ".interpreter")
            return name, module.Interpreter, module.load_delegate
        except Exception as error:  # a broken binary module can raise anything
            reasons.append("{} does not import ({})".format(name, error))
    raise RefusalError(
        "no_interpreter",
        "no TensorFlow Lite interpreter on the device: {}".format("; ".join(reasons)),
        "Install python3-pycoral or python3-tflite-runtime (Debian), or `pip install ai-edge-litert`.",
    )


def choose_runtime() -> Any:
    """Return the runtime that the environment asks for: the real one unless it names a virtual one."""
    setting = os.environ.get("ETPU_AGENT_RUNTIME", "")
    if not setting:
        return EdgeTpuRuntime()
    kind, _, config = setting.partition(":")
    if kind != "virtual":
        raise RefusalError("bad_runtime", "ETPU_AGENT_RUNTIME is {!r}".format(setting), "It can be virtual:<JSON>.")
    return importlib.import_module("deploy.virtual").VirtualRuntime.from_json(config)


# --- facts about the host ------------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _module_version(name: str) -> Optional[str]:
    """Return the version of a module, "?" when it does not tell, None when it is not there."""
    if importlib.util.find_spec(name) is None:
        return None
    try:
        metadata = importlib.import_module("importlib.metadata")  # not in Python 3.7
        return str(metadata.version(name))
    except Exception:
        pass
    try:
        return str(getattr(importlib.import_module(name), "__version__", "?"))
    except Exception as error:
        return "broken: {}".format(error)


def interpreter_versions() -> Dict[str, Optional[str]]:
    """Return the versions of what can run models here. A pycoral without Edge TPU functions is another project."""
    versions = {name: _module_version(name) for name in (*_INTERPRETERS, "numpy")}
    try:
        genuine = importlib.util.find_spec("pycoral.utils.edgetpu") is not None
    except ImportError:
        genuine = False
    versions["pycoral"] = _module_version("pycoral") if genuine else None
    return versions


def temperatures() -> List[Dict[str, Any]]:
    """Return what the kernel driver of PCIe Edge TPUs tells, in degrees Celsius."""
    found = []
    for folder in sorted(Path("/sys/class/apex").glob("apex_*")):

        def celsius(name: str, folder: Path = folder) -> Optional[float]:
            text = _read(folder / name)
            return int(text) / 1000.0 if re.fullmatch(r"-?\d+", text) else None

        found.append(
            {
                "device": folder.name,
                "celsius": celsius("temp"),
                "warnings": [celsius("hw_temp_warn1"), celsius("hw_temp_warn2")],
                "trip_points": [celsius("trip_point{}_temp".format(i)) for i in range(3)],
            }
        )
    return found


def usb_accelerators() -> List[Dict[str, Any]]:
    """Return the USB accelerators that the kernel lists, with or without firmware."""
    states = {("1a6e", "089a"): "dfu", ("18d1", "9302"): "running"}
    found = []
    for path in sorted(Path("/sys/bus/usb/devices").glob("*/idVendor")):
        folder = path.parent
        state = states.get((_read(path), _read(folder / "idProduct")))
        if not state:
            continue
        bus, number = _read(folder / "busnum"), _read(folder / "devnum")
        node = "/dev/bus/usb/{:0>3}/{:0>3}".format(bus, number)
        found.append(
            {
                "sysfs": str(folder),
                "state": state,
                "megabits": _read(folder / "speed"),
                "node": node,
                "accessible": os.access(node, os.R_OK | os.W_OK),
            }
        )
    return found


def pcie_accelerators() -> Dict[str, Any]:
    """Return the PCIe Edge TPUs that the kernel lists and the nodes its driver made for them."""
    functions = [
        str(path.parent)
        for path in sorted(Path("/sys/bus/pci/devices").glob("*/vendor"))
        if _read(path) == "0x1ac1" and _read(path.parent / "device") == "0x089a"
    ]
    nodes = [
        {"node": str(node), "accessible": os.access(str(node), os.R_OK | os.W_OK)}
        for node in sorted(Path("/dev").glob("apex_*"))
    ]
    loaded = {line.split()[0] for line in _read(Path("/proc/modules")).splitlines() if line}
    return {"functions": functions, "nodes": nodes, "driver": "apex" in loaded}


# --- the verbs -----------------------------------------------------------------------------------------------------


class Agent:
    """Answers requests; holds the loaded models and the locks of this conversation."""

    def __init__(self) -> None:
        self._runtime = None  # type: Any
        self._models = {}  # type: Dict[int, Any]
        self._cold = {}  # type: Dict[int, bool]
        self._locks = {}  # type: Dict[str, Any]

    @property
    def runtime(self) -> Any:
        """The runtime, made when it is first needed."""
        if self._runtime is None:
            self._runtime = choose_runtime()
        return self._runtime

    def answer(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Answer one request; a failure is an answer too."""
        try:
            method = getattr(self, "verb_" + str(request.get("verb")), None)
            if method is None:
                raise RefusalError("unknown_verb", "the agent knows no verb {!r}".format(request.get("verb")))
            answer, out = method(request, blobs)
            return dict(answer, ok=True), out
        except RefusalError as refusal:
            return dict(refusal.answer, ok=False), []
        except Exception as error:
            traceback.print_exc()
            return dict(_unforeseen(error), ok=False), []

    def verb_hello(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Return who answers."""
        return {
            "agent": VERSION,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "host": platform.node(),
            "runtimes": interpreter_versions(),
            "simulated": bool(self.runtime.simulated),
        }, []

    def verb_runtime(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Return the Edge TPU runtime's version and its devices."""
        return dict(self.runtime.describe(), simulated=bool(self.runtime.simulated)), []

    def verb_temperatures(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Return the temperatures of PCIe Edge TPUs; others have no sensor that can be read."""
        return {"devices": [] if self.runtime.simulated else temperatures()}, []

    def verb_diagnose(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Return everything that helps to find out why Edge TPUs do not work."""
        root = Path(request["root"])
        while not root.is_dir():
            root = root.parent
        answer = {
            "usb": usb_accelerators(),
            "pcie": pcie_accelerators(),
            "free_bytes": shutil.disk_usage(str(root)).free,
            "writable": os.access(str(root), os.W_OK),
            "kernel": platform.release(),
        }  # type: Dict[str, Any]
        for name, look in (
            ("runtime", self.runtime.describe),
            ("interpreter", lambda: {"name": find_interpreter()[0]}),
        ):
            try:
                answer[name] = look()
            except RefusalError as refusal:
                answer[name] = refusal.answer
        return answer, []

    def verb_load(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Load a model from a path on the device or from a blob. Return its handle and its tensors."""
        data = blobs[0] if blobs else _read_model(str(request["path"]))
        model = self.runtime.load(data, request.get("tpu"))
        handle = max(self._models, default=0) + 1
        self._models[handle] = model
        self._cold[handle] = True
        return {"handle": handle, "runtime": model.runtime, "inputs": model.inputs, "outputs": model.outputs}, []

    def verb_unload(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Forget a loaded model."""
        self._model(request)
        del self._models[request["handle"]], self._cold[request["handle"]]
        return {}, []

    def verb_run(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Run a loaded model once on the blobs as its inputs."""
        model = self._model(request)
        _check_inputs(model, blobs)
        self._cold[request["handle"]] = False
        outputs, timing = model.run(blobs)
        return {"timing": timing, "simulated": bool(self.runtime.simulated)}, outputs

    def verb_time(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Run a loaded model `runs` times (inputs: the blobs, or zeros). The first one may have parameters to write."""
        model = self._model(request)
        inputs = blobs or [bytes(tensor["bytes"]) for tensor in model.inputs]
        _check_inputs(model, inputs)
        cold = self._cold[request["handle"]]
        self._cold[request["handle"]] = False
        timings = [model.run(inputs)[1] for _ in range(int(request["runs"]))]
        return {"cold": cold, "timings": timings, "simulated": bool(self.runtime.simulated)}, []

    def verb_pipeline(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Run loaded models as a pipeline: each takes by name what it needs from the inputs and from earlier models.

        The blobs are the inputs of the first model, run after run. All models work at the same time, each on another
        run. Return the outputs of the last model, run after run, the timings of each model, and the time in all.
        """
        models = [self._model({"handle": handle}) for handle in request["handles"]]
        width = len(models[0].inputs)
        runs = [blobs[i : i + width] for i in range(0, len(blobs), width)]
        for run in runs:
            _check_inputs(models[0], run)
        cold = [self._cold[handle] for handle in request["handles"]]
        for handle in request["handles"]:
            self._cold[handle] = False
        start = time.perf_counter_ns()
        outputs, timings = _run_pipeline(models, runs)
        elapsed = (time.perf_counter_ns() - start) / 1000.0
        simulated = bool(self.runtime.simulated)
        answer = {"timings": timings, "cold": cold, "simulated": simulated}  # type: Dict[str, Any]
        answer["elapsed_us"] = _pipelined_us(timings) if simulated else elapsed
        return answer, outputs

    def verb_verify(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Force files to the disk and return their sha256."""
        digests = {}
        for path in request["paths"]:
            with Path(path).open("rb") as file:
                os.fsync(file.fileno())
                digest = hashlib.sha256()
                for block in iter(lambda f=file: f.read(1 << 20), b""):  # type: ignore[misc]
                    digest.update(block)
            digests[path] = digest.hexdigest()
            _sync_folder(str(Path(path).parent))
        return {"sha256": digests}, []

    def verb_sync(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Force the entries of a folder to the disk."""
        _sync_folder(str(request["path"]))
        return {}, []

    def verb_lock(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Take a lock that ends with this process, however that ends."""
        path = str(request["path"])
        file = Path(path).open("a+")  # noqa: SIM115 - stays open as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise RefusalError("locked", "the lock {} is held by {}".format(path, holder), holder=holder) from None
        file.truncate(0)
        file.write("{} (process {} here)\n".format(request.get("owner", "?"), os.getpid()))
        file.flush()
        self._locks[path] = file
        return {}, []

    def verb_unlock(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Give a lock back."""
        file = self._locks.pop(str(request["path"]), None)
        if file is not None:
            file.truncate(0)
            file.close()
        return {}, []

    def verb_ping(self, request: Dict[str, Any], blobs: Blobs) -> Answer:
        """Show that both sides are still there."""
        return {}, []

    def _model(self, request: Dict[str, Any]) -> Any:
        try:
            return self._models[request["handle"]]
        except KeyError:
            raise RefusalError("no_such_model", "no model {!r} is loaded".format(request.get("handle"))) from None


def _read_model(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RefusalError("not_found", "cannot read {}: {}".format(path, error.strerror)) from error


def _check_inputs(model: Any, blobs: Blobs) -> None:
    wanted = [tensor["bytes"] for tensor in model.inputs]
    given = [len(blob) for blob in blobs]
    if wanted != given:
        names = ", ".join("{} of {} bytes".format(t["name"], t["bytes"]) for t in model.inputs)
        raise RefusalError("bad_input", "the model takes {}; inputs of {} bytes were given".format(names, given))


def _run_pipeline(models: List[Any], runs: List[Blobs]) -> Tuple[Blobs, List[List[Dict[str, Any]]]]:
    """Run models in threads that hand the tensors of a run on; None after the last run, an error instead of tensors."""
    queues = [queue.Queue() for _ in range(len(models) + 1)]  # type: List[Any]
    timings = [[] for _ in models]  # type: List[List[Dict[str, Any]]]
    wanted = [{tensor["name"] for later in models[i + 1 :] for tensor in later.inputs} for i in range(len(models))]

    def work(number: int) -> None:
        model = models[number]
        while True:
            known = queues[number].get()
            if isinstance(known, dict):
                try:
                    outputs, timing = model.run([known[tensor["name"]] for tensor in model.inputs])
                    timings[number].append(timing)
                    known.update(zip((tensor["name"] for tensor in model.outputs), outputs))  # noqa: B905 - Python 3.7
                    if number < len(models) - 1:
                        known = {name: known[name] for name in wanted[number] if name in known}
                except Exception as error:
                    known = error
            queues[number + 1].put(known)
            if known is None or isinstance(known, Exception):
                return

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(models))]
    for thread in threads:
        thread.start()
    names = [tensor["name"] for tensor in models[0].inputs]
    for run in runs:
        queues[0].put(dict(zip(names, run)))  # noqa: B905 - Python 3.7
    queues[0].put(None)
    found = []  # type: Blobs
    while True:
        known = queues[-1].get()
        if known is None:
            return found, timings
        if isinstance(known, Exception):
            raise known
        found += [known[tensor["name"]] for tensor in models[-1].outputs]


def _pipelined_us(timings: List[List[Dict[str, Any]]]) -> float:
    """Return how long simulated models take that work at the same time: the simulation itself runs in one process."""
    ends = [0.0] * len(timings[0])
    for model in timings:
        free = 0.0
        for run, timing in enumerate(model):
            free = ends[run] = max(free, ends[run]) + timing["total_us"]
    return ends[-1] if ends else 0.0


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unforeseen(error: Exception) -> Dict[str, Any]:
    """Return the answer for an exception: our own errors carry message and advice, others only their text."""
    message = getattr(error, "message", "") or "{}: {}".format(type(error).__name__, error)
    too_old = _TOO_OLD.search(message)
    answer = {"code": getattr(error, "code", "failed"), "message": message, "advice": getattr(error, "advice", "")}  # type: Dict[str, Any]
    if too_old:
        answer.update(code="runtime_too_old", required=int(too_old.group(1)), offered=int(too_old.group(2)))
    return answer


# --- the conversation ----------------------------------------------------------------------------------------------


class _EndOfInputError(Exception):
    """Nobody talks to us any more."""


def _reader(descriptor: int) -> Callable[[int], bytes]:
    def read_exactly(size: int) -> bytes:
        parts = []
        while size:
            if not select.select([descriptor], [], [], IDLE_SECONDS)[0]:
                raise _EndOfInputError
            block = os.read(descriptor, min(size, 1 << 20))
            if not block:
                raise _EndOfInputError
            parts.append(block)
            size -= len(block)
        return b"".join(parts)

    return read_exactly


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(descriptor, view[: 1 << 20]) :]


def main() -> None:
    """Talk until the other side ends or is silent for :data:`IDLE_SECONDS`."""
    # Libraries print to standard output as they like; from here on that goes to standard error.
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    read_exactly = _reader(requests)
    agent = Agent()
    try:
        _write_all(answers, GREETING)
        while True:
            request, blobs = read_message(read_exactly)
            _write_all(answers, pack_message(*agent.answer(request, blobs)))
    except (_EndOfInputError, BrokenPipeError):
        sys.exit(0)


if __name__ == "__main__":
    main()
