"""What `python -m MODULE ARGUMENT...` does, in a process that has been forked: `warm_process.run` runs this file in it.

It gives the globals `command`, `folder`, `variables`, `out`, `err` and `umask`.
"""

import os
import runpy
import sys
import tempfile

given = globals()
python, option, module, *arguments = given["command"]
if (python, option) != ("python", "-m"):
    raise ValueError(f"Expected `python -m` of a module, received {given['command'][:3]}.")
os.setsid()
for name, number in (("out", 1), ("err", 2)):
    with open(given[name], "a") as file:
        os.dup2(file.fileno(), number)
os.umask(given["umask"])
os.environ.clear()
os.environ.update(given["variables"])
tempfile.tempdir = None  # it remembers the folder of the process that was forked
os.chdir(given["folder"])
sys.path = [given["folder"], given["variables"]["PYTHONPATH"], *sys.path]
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
