"""``python fork_client.py SOCKET SCRIPT``: run a script in a child of tests/fork_server.py.

Only what a bare interpreter has is imported: this process stands for the job and takes 10 ms.
"""

# ruff: noqa: PTH100, PTH109, PTH120

import json
import os
import socket
import sys


def request(address, program, arguments, folder, environment, streams, **more):
    """Exit status of a program with these streams; negative: ended by that signal."""
    given = {"program": program, "arguments": arguments, "folder": folder, **more}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"-"], streams)
        connection.sendall(json.dumps({**given, "environment": environment}).encode() + b"\n")
        answer = connection.makefile("rb").readline()
    return int(answer) if answer.strip() else 1


if __name__ == "__main__":
    address, script = sys.argv[1:]
    where = os.path.dirname(os.path.abspath(script))
    code = request(address, script, [script], os.getcwd(), dict(os.environ), [0, 1, 2], path=where)
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)
