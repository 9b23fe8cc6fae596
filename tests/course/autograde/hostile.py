"""Submissions that try to cheat, to read, to destroy, to exhaust or to escape: none may gain a point.

Each is the code of one cell that defines `previous_token_score` wrongly and attacks while it is loaded or called.
`ATTACKS` maps a name to (kind, code). Code is indented into the function's body unless it defines the function.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

NAME = "previous_token_score"
NOTEBOOK = "1_4_attention_detective"
WRONG = "return torch.zeros(pattern.shape[1])"
CANARIES = ("autograde-canary",)  # below build/: what the destroyers aim at


class Attack(NamedTuple):
    """One hostile submission."""

    kind: str  # forge | read | destroy | exhaust | escape | detect
    code: str  # the whole cell

    @property
    def cell(self) -> str:
        return f"import torch\nCANARIES = {CANARIES}\n{self.code}"


def _body(code: str) -> str:
    """A wrong function that attacks first, and never lets its attack fail loudly."""
    attack = textwrap.indent(textwrap.dedent(code).strip(), " " * 8)
    return f"""
def {NAME}(pattern):
    try:
{attack}
    except Exception:
        pass
    {WRONG}
"""


def _value(expression: str) -> str:
    """A function that returns something other than numbers."""
    return f"\ndef {NAME}(pattern):\n    {expression}\n"


LIAR = """
class Liar(torch.Tensor):
    def __eq__(self, other): return True
    def __sub__(self, other): return torch.zeros(2)
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return torch.ones((), dtype=torch.bool)
"""

REPLIES = """
import socket, struct, json
connection = socket.socket(fileno=3)
def send(tree, raw=b""):
    text = json.dumps(tree).encode()
    connection.sendall(struct.pack("!IQ", len(text), len(raw)) + text + raw)
"""


ATTACKS: dict[str, Attack] = {
    # ------------------------------------------------------------------ forging
    "patches the answer's class": Attack("forge", _body("""
        import course.graders as graders
        graders.Answer.should_give = lambda *args, **kwargs: None
        graders.require_same = graders.require = lambda *args, **kwargs: None
    """)),
    "patches the comparison": Attack("forge", _body("""
        import course.compare as compare
        compare.require_same = compare.same = lambda *args, **kwargs: True
        compare.Mistake.__init__ = lambda *args, **kwargs: None
    """)),
    "patches pytest": Attack("forge", _body("""
        import _pytest.python, _pytest.runner
        _pytest.python.Function.runtest = lambda self: None
        _pytest.runner.call_runtest_hook = lambda *args, **kwargs: None
    """)),
    "patches assert and the builtins": Attack("forge", _body("""
        import builtins
        builtins.AssertionError = builtins.ValueError = type("Harmless", (BaseException,), {})
        builtins.isinstance = builtins.all = builtins.any = builtins.hasattr = lambda *args: True
        builtins.abs = builtins.max = lambda *args: 0
    """)),
    "patches torch's and numpy's comparisons": Attack("forge", _body("""
        import numpy as np
        torch.isclose = torch.equal = torch.allclose = lambda *args, **kwargs: True
        np.isclose = np.all = lambda *args, **kwargs: np.True_
    """)),
    "a tensor that equals everything": Attack("forge", LIAR + _value("return torch.zeros(pattern.shape[1]).as_subclass(Liar)")),
    "an object that poses as a tensor": Attack("forge", """
class Anything:
    shape = dtype = property(lambda self: self)
    def __getattr__(self, name): return self
    def __call__(self, *args, **kwargs): return self
    def __eq__(self, other): return True
    def __array__(self, *args, **kwargs): return self
    def __reduce__(self): return (exec, ("import os; os._exit(0)",))
""" + _value("return Anything()")),
    "a number that is below and above everything": Attack("forge", """
class Number(float):
    def __eq__(self, other): return True
    __le__ = __lt__ = __ge__ = __gt__ = __eq__
    def __sub__(self, other): return 0.0
    __rsub__ = __abs__ = __float__ = lambda self, *other: 0.0
    def hex(self): return "0x0p+0"
""" + _value("return [Number(0.5) for _ in range(pattern.shape[1])]")),
    "an array that lies": Attack("forge", """
import numpy as np
class Array(np.ndarray):
    def __array_ufunc__(self, *args, **kwargs): return np.True_
    def __array_function__(self, *args, **kwargs): return np.True_
    def tobytes(self, *args): return b""
""" + _value("return np.zeros(pattern.shape[1]).view(Array)")),
    "a dataclass that lies": Attack("forge", """
from utils.circuits.graph import Edge
class Lie(Edge):
    def __eq__(self, other): return True
    __hash__ = Edge.__hash__
""" + _value("return Lie('a', 'b')")),
    "a dictionary that lies": Attack("forge", """
class Lie(dict):
    def __getitem__(self, key): return self
    def __eq__(self, other): return True
    def keys(self): return self
""" + _value("return Lie()")),
    "not a number": Attack("forge", _value("return torch.full((pattern.shape[1],), float('nan'))")),
    "infinity": Attack("forge", _value("return torch.full((pattern.shape[1],), float('inf'))")),
    "minus infinity": Attack("forge", _value("return torch.full((pattern.shape[1],), -float('inf'))")),
    "a function in the place of a tensor": Attack("forge", _value("return lambda *args: True")),
    "hooks of the display": Attack("forge", _body("""
        import sys
        sys.displayhook = lambda value: print(4.0)
        from IPython.core.interactiveshell import InteractiveShell
        InteractiveShell.instance().display_formatter.format = lambda *args: ({"text/plain": "4.0"}, {})
    """)),
    "transforms the code of later cells": Attack("forge", _body("""
        from IPython.core.interactiveshell import InteractiveShell
        import ast
        class Full(ast.NodeTransformer):
            def visit_Call(self, node): return ast.Constant(4.0)
        shell = InteractiveShell.instance()
        shell.ast_transformers.append(Full())
        shell.input_transformers_post.append(lambda lines: ["4.0"])
    """)),
    "says that the test is skipped": Attack("forge", _value("import pytest; pytest.skip('passed')")),
    "says that the test is expected to fail": Attack("forge", _value("import pytest; pytest.xfail('passed')")),
    "ends pytest": Attack("forge", _value("import pytest; pytest.exit('all passed', returncode=0)")),
    "raises what the grader raises": Attack("forge", _value(
        "from course.compare import Mistake; raise Mistake('4 of 4 points')")),
    "stops the program with success": Attack("forge", _value("raise SystemExit(0)")),
    "interrupts the keyboard": Attack("forge", _value("raise KeyboardInterrupt")),
    "looks for the right result on the stack": Attack("forge", _value("""
    import sys
    frame = sys._getframe()
    while frame is not None:
        for value in frame.f_locals.values():
            if isinstance(value, torch.Tensor) and value.shape == (pattern.shape[1],):
                return value
        frame = frame.f_back
    """ + WRONG)),
    "looks for the right result in memory": Attack("forge", _value("""
    import gc
    for value in gc.get_objects():
        if type(value) is torch.Tensor and value.shape == (pattern.shape[1],) and 0 < value.min() and value.max() <= 1:
            return value
    """ + WRONG)),
    "two replies at once": Attack("forge", REPLIES + _body("""
        zeros = ["tensor", "float32", [pattern.shape[1]], 0, False]
        for _ in range(3):
            send(["tuple", [["str", "done"], zeros, ["list", []]]], bytes(4 * pattern.shape[1]))
    """)),
    "a reply that is a pickle": Attack("forge", REPLIES + _body("""
        import pickle
        data = pickle.dumps(print)
        connection.sendall(struct.pack("!IQ", len(data), 0) + data)
    """)),
    "a reply that names classes": Attack("forge", REPLIES + _body("""
        for name in ("utils.models.load", "os", "course.report", "subprocess"):
            send(["tuple", [["str", "done"], ["dataclass", name, "Popen", [["args", ["str", "true"]]]], ["list", []]]])
    """)),
    "a reply with unknown tags": Attack("forge", REPLIES + _body("""
        send(["_class__", 1])
        send(["value", 1])
    """)),
    "a reply with an array beyond its bytes": Attack("forge", REPLIES + _body("""
        send(["tuple", [["str", "done"], ["tensor", "float32", [2**40], -8, True], ["list", []]]])
    """)),
    "a reply with numbers that collide": Attack("exhaust", REPLIES + _body("""
        colliding = ["set", [["int", str(number * (2**61 - 1))] for number in range(100_000)]]
        send(["tuple", [["str", "done"], colliding, ["list", []]]])
    """)),
    "a reply of brackets": Attack("exhaust", REPLIES + _body("""
        text = b"[" + b"[]," * 5_000_000 + b"[]]"
        connection.sendall(struct.pack("!IQ", len(text), 0) + text)
    """)),
    "a reply that lets the library compute": Attack("exhaust", """
from utils.circuits import Circuit, Graph
""" + _value("""
    circuit = Circuit.__new__(Circuit)
    for name, value in {"graph": Graph(3 * 10**7, 4), "edges": frozenset(), "model": "x", "scores": None}.items():
        object.__setattr__(circuit, name, value)
    return circuit
    """)),
    "says that its inputs became zero": Attack("forge", """
import course.autograde.changes as told
""" + _body("""
        told.Watch.changes = lambda self: [
            told.Change("input", (0, 0), torch.zeros(1)), told.Change("list", (0, 0), []),
            told.Change("count", (0,), 10**9), told.Change("nothing", (), None), told.Change("model", (0, 0), ""),
        ]
    """)),
    "changes its input to make the truth zero": Attack("forge", _value("pattern.zero_()\n    " + WRONG)),
    "replaces the worker": Attack("forge", _body("""
        import course.autograde.worker as worker
        worker.Worker.reply = lambda self, request: b""
        worker.WORKER.function = lambda *args: 4.0
    """)),
    # ------------------------------------------------------------------ reading
    "reads the graders": Attack("read", _body("""
        from pathlib import Path
        import course.paths
        text = (course.paths.ROOT / "tests/week1_foundations/test_1_4_attention_detective.py").read_text()
        space = {}; exec(text, space)
        return space["average"](pattern, lambda q, k: k == q - 1)
    """)),
    "reads the solutions": Attack("read", _body("""
        import course.paths
        text = (course.paths.ROOT / "solutions/week1_foundations/1_4_attention_detective.py").read_text()
        space = {}; exec(text[text.index("def previous_token_score"):].split("# %%")[0], space)
        return space["previous_token_score"](pattern)
    """)),
    "imports the graders": Attack("read", _body("""
        from tests.week1_foundations.test_1_4_attention_detective import average
        return average(pattern, lambda q, k: k == q - 1)
    """)),
    "asks the course for the solution": Attack("read", _body("""
        from course.solutions import solution_of
        return solution_of("previous_token_score")(pattern)
    """)),
    "calls the library's function": Attack("read", _body("""
        import utils.attention
        return utils.attention.previous_token_score(pattern)
    """)),
    "executes the library's file": Attack("read", _body("""
        import utils.attention
        space = {"__name__": "again"}
        exec(open(utils.attention.__file__).read(), space)
        return space["previous_token_score"](pattern)
    """)),
    "imports the library afresh": Attack("read", _body("""
        import sys, importlib
        for name in [name for name in sys.modules if name.split(".")[0] == "utils"]:
            del sys.modules[name]
        return importlib.import_module("utils.attention").previous_token_score(pattern)
    """)),
    "looks for the library's code in memory": Attack("read", _body("""
        import gc, types, utils.attention
        for thing in gc.get_objects() + list(vars(utils.attention).values()):
            code = getattr(thing, "__code__", None)
            if getattr(code, "co_name", "") == "previous_token_score" and thing is not previous_token_score:
                return types.FunctionType(code, vars(utils.attention))(pattern)
    """)),
    "reads other submissions": Attack("read", _body("""
        import glob, json
        for path in glob.glob("/**/submitted/*/*/*.ipynb", recursive=True):
            for cell in json.load(open(path))["cells"]:
                source = "".join(cell["source"])
                if "def previous_token_score" in source and "zeros" not in source:
                    space = {"torch": torch}; exec(source, space)
                    return space["previous_token_score"](pattern)
    """)),
    "reads the environment and the parent": Attack("read", _body("""
        import os
        for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
            open(f"/proc/{pid}/environ", "rb").read()
            open(f"/proc/{pid}/mem", "rb").read(100)
            os.listdir(f"/proc/{pid}/root")
    """)),
    "uses the network": Attack("read", _body("""
        import socket
        for address in (("127.0.0.1", 8888), ("1.1.1.1", 53)):
            socket.create_connection(address, timeout=2).close()
            raise KeyboardInterrupt("there is a network")
    """)),
    # ------------------------------------------------------------------ destroying
    "deletes the course's files": Attack("destroy", _body("""
        import shutil, course.paths
        for name in CANARIES:
            shutil.rmtree(course.paths.ROOT / "build" / name)
        shutil.rmtree(course.paths.ROOT / "utils" / CANARIES[0])
    """)),
    "writes into the library and the gradebook": Attack("destroy", _body("""
        import sqlite3, utils.attention, course.paths
        try:
            open(utils.attention.__file__, "a").write("# changed")
        except OSError:
            pass
        book = sqlite3.connect(course.paths.ROOT / "build" / CANARIES[0] / "gradebook.db")
        book.execute("update grade set auto_score = 100")
        book.commit()
    """)),
    "signals everything": Attack("destroy", _body("""
        import os, signal
        assert os.getpid() < 50  # in a namespace of its own, or not at all
        for target in (1, *range(2, 50)):
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    if target != os.getpid():
                        os.kill(target, number)
                except OSError:
                    pass
        os.killpg(0, signal.SIGKILL)
    """)),
    # ------------------------------------------------------------------ exhausting
    "eats the memory": Attack("exhaust", _body("""
        eaten = []
        while True:
            eaten.append(bytearray(2**26))
    """)),
    "eats the memory in tensors": Attack("exhaust", _body("torch.ones(2**40)")),
    "forks without end": Attack("exhaust", _body("""
        import os
        assert os.getpid() < 50  # in a namespace of its own, or not at all
        while True:
            os.fork()
    """)),
    "leaves a daemon behind": Attack("exhaust", _body("""
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(10_000)
    """)),
    "starts programs": Attack("exhaust", _body("""
        import subprocess
        subprocess.Popen(["/bin/sh", "-c", "sleep 10000 & sleep 10000"])
    """)),
    "starts threads without end": Attack("exhaust", _body("""
        import threading, time
        while True:
            threading.Thread(target=time.sleep, args=(1000,)).start()
    """)),
    "fills the disk": Attack("exhaust", _body("""
        for number in range(10_000):
            with open(f"/tmp/{number}", "wb") as file:
                file.write(bytes(2**24))
    """)),
    "floods the output": Attack("exhaust", _body("""
        import os, sys
        for number in range(2000):
            print("x" * 2**16); sys.stderr.write("y" * 2**16); os.write(1, b"z" * 2**16)
    """)),
    "floods the reply": Attack("exhaust", REPLIES + _body("""
        while True:
            connection.sendall(bytes(2**20))
    """)),
    "drips the reply": Attack("exhaust", REPLIES + _body("""
        import time
        for byte in struct.pack("!IQ", 1000, 0) + bytes(1000):
            connection.sendall(bytes([byte])); time.sleep(0.5)
    """)),
    "uses up the file descriptors": Attack("exhaust", _body("""
        opened = []
        while True:
            opened.append(open("/dev/null"))
    """)),
    "never ends": Attack("exhaust", _value("while True: pass")),
    "never ends while it is loaded": Attack("exhaust", """
def wait():
    while True: pass
WAITED = wait()
""" + _value("return WAITED")),
    "never ends and swallows every exception": Attack("exhaust", _value("""
    while True:
        try:
            while True: pass
        except BaseException: pass
    """)),
    "never ends inside a C function": Attack("exhaust", _value("import re; re.match('(a+)+$', 'a' * 60 + 'b')")),
    "ignores all signals and sleeps": Attack("exhaust", _value("""
    import signal, time
    for number in signal.valid_signals():
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    time.sleep(10_000)
    """)),
    "calls itself without end": Attack("exhaust", _value("return previous_token_score(pattern)")),
    "a result of terabytes": Attack("exhaust", _value("return torch.zeros(1).expand(2**40)")),
    "a result with a million items": Attack("exhaust", _value("return [[0.0]] * 1_000_000")),
    "a result nested a thousand deep": Attack("exhaust", _value("""
    nested = []
    for _ in range(1000): nested = [nested]
    return nested
    """)),
    "a number with a million digits": Attack("exhaust", _value("return [1 << 4_000_000] * pattern.shape[1]")),
    "crashes the interpreter": Attack("exhaust", _value("import ctypes; ctypes.string_at(0)")),
    "ends the process": Attack("exhaust", _value("import os; os._exit(0)")),
    # ------------------------------------------------------------------ escaping
    "opens new namespaces": Attack("escape", _body("""
        import ctypes
        libc = ctypes.CDLL(None)
        if libc.unshare(0x10000000) == 0 or libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0:
            raise KeyboardInterrupt("out")
    """)),
    "traces the first process": Attack("escape", _body("""
        import ctypes
        if ctypes.CDLL(None).ptrace(16, 1, None, None) == 0:
            raise KeyboardInterrupt("out")
    """)),
    "becomes another user": Attack("escape", _body("import os; os.setuid(0); os.chroot('/')")),
    "raises its own limits": Attack("escape", _body("""
        import resource
        for what in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE):
            resource.setrlimit(what, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    """)),
    # ------------------------------------------------------------------ detecting
    "remembers earlier checks": Attack("detect", "SEEN = []\n" + _value("""
    SEEN.append(pattern)
    return torch.as_tensor(SEEN[0].diagonal(-1, -2, -1).mean((0, -1)))[:1].expand(pattern.shape[1]) * len(SEEN)
    """)),
    "behaves only where it is graded": Attack("detect", _body("""
        import sys
        if "course.autograde.worker" in sys.modules:
            state = sys.modules["course.autograde.worker"]
            for name in dir(state):
                candidate = getattr(state, name)
                if isinstance(candidate, torch.Tensor):
                    return candidate
    """)),
}  # fmt: skip

"""Submissions that are no notebook, or hardly: (name, the file's bytes)."""
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n ",
    "not JSON": b"dear teacher, my dog ate it",
    "half a file": b'{"cells": [{"cell_type": "code", "source": "def previous_token_score(pattern):',
    "not UTF-8": b'{"cells": [], "metadata": {}, "x": "\xff\xfe\xe9"}',
    "another notebook": b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
    "a list": b"[]",
    "cells that are numbers": b'{"cells": [1, 2, 3]}',
    "sources that are numbers": b'{"cells": [{"cell_type": "code", "source": 7}]}',
    "nested a hundred thousand deep": b"[" * 100_000 + b"]" * 100_000,
    "30 MB": b'{"cells": [], "x": "' + b"x" * (30 * 2**20) + b'"}',
    "a null byte": b'{"cells": [{"cell_type": "code", "source": "def previous_token_score(p):\\u0000 return 1"}]}',
    "ten thousand parentheses": (
        b'{"cells": [{"cell_type": "code", "source": "def previous_token_score(p): return '
        + b"(" * 10_000 + b")" * 10_000 + b'"}]}'
    ),
    "a sum of a hundred thousand terms": (
        b'{"cells": [{"cell_type": "code", "source": "def previous_token_score(p): return 1' + b"+1" * 100_000 + b'"}]}'
    ),
    "minus a hundred thousand times": (
        b'{"cells": [{"cell_type": "code", "source": "def previous_token_score(p): return ' + b"-" * 100_000 + b'1"}]}'
    ),
}  # fmt: skip
