"""Runs of Snakemake and its jobs in child processes of one that has loaded what they import.

A start of Snakemake takes 2 s of imports and a job 1 s; a child of this process takes a tenth of
that. A run in the checkout has Corelab loaded, too; a run in a copy of the repository has only other
packages, so it uses the code of the copy. Jobs are what they are for a user otherwise: processes with
an environment, a folder and streams of their own, which end when what started them ends. Only
their benchmarks are not a user's: Snakemake measures the client.

``python fork_server.py PROCESS SOCKET [SCRIPTS]`` serves until the process of that id ends, and removes
the folder of the socket. A request is a connection with three descriptors (standard streams) and a line of JSON;
the answer is a line with the exit status. ``SCRIPTS`` is the folder of the library to load.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

# As every job sets it (corelab.provenance.job), before numpy or ITK are loaded.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
os.environ |= dict.fromkeys((*THREADS, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")
os.environ["MPLBACKEND"] = "Agg"

#: What planning and most jobs import from other packages. Not statsmodels, which starts threads.
PACKAGES = (
    *("jsonschema", "nbformat", "numpy", "pandas", "pydantic", "smart_open", "yte", "yaml"),
    *("snakemake.api", "snakemake.cli", "snakemake_executor_plugin_slurm"),
    *("matplotlib.pyplot", "nibabel", "pydicom", "scipy.interpolate", "scipy.ndimage"),
    *("scipy.optimize", "scipy.signal", "scipy.spatial", "scipy.stats", "jinja2"),
    *("skimage.measure", "skimage.morphology", "skimage.segmentation", "numba"),
)  # fmt: skip
CLIENT = Path(__file__).with_name("fork_client.py")


def load(scripts: str) -> None:
    """Import the packages, and the library in ``scripts`` if any, without starting a thread."""
    for name in PACKAGES:
        importlib.import_module(name)
    if scripts:
        sys.path.insert(0, scripts)
        library = importlib.import_module("corelab")
        for module in pkgutil.walk_packages(library.__path__, "corelab."):
            importlib.import_module(module.name)
        importlib.import_module("corelab.registration.ants_backend").ants_library()
        sys.path.remove(scripts)
    count = sum(1 for _ in Path("/proc/self/task").iterdir())
    assert count == 1, f"{count} threads: a child has only one of them"


def forked_jobs(address: str, scripts: str) -> None:
    """Have Snakemake in this process run scripts of the folder in children of the server."""
    from snakemake.script import PythonScript

    started_anew = PythonScript.execute_script

    def execute_script(self, fname, edit=False):
        if not str(Path(self.path.get_path_or_uri(secret_free=True)).resolve()).startswith(scripts):
            return started_anew(self, fname, edit)
        command = f"{sys.executable} -I -S {CLIENT} {address} {{fname:q}}"
        self._execute_cmd(command, fname=fname, is_python_script=True)

    PythonScript.execute_script = execute_script


def child(request: dict, streams: list[int], address: str) -> int:
    """Be the process that was requested; its exit status."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv = request["arguments"]
    paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:1] = [request["path"], *paths]
    try:
        if request["program"] == "snakemake":
            if request["forked"]:
                forked_jobs(address, request["forked"])
            sys.modules["snakemake.cli"].main()
        else:
            runpy.run_path(request["program"], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def handle(connection: socket.socket, address: str) -> None:
    """Start what is requested, and answer its status, or end it when the other side has ended."""
    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile("rb").readline())
    process = os.fork()
    if process == 0:
        connection.close()
        # What the server's packages would do at its end is not the child's to do.
        atexit._clear()
        status = child(request, streams, address)
        threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(process)
    ready, *_ = select.select([ended, connection], [], [])
    if ended not in ready:
        os.kill(process, signal.SIGTERM)
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def serve(process: str, address: str, scripts: str = "") -> None:
    """Serve until the process ends."""
    served = os.pidfd_open(int(process))
    load(scripts)
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    while served not in (ready := select.select([listener, served], [], [], 1.0)[0]):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if listener in ready:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                try:
                    handle(connection, address)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)
            connection.close()
    shutil.rmtree(Path(address).parent)


if __name__ == "__main__":
    serve(*sys.argv[1:])
