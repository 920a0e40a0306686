"""What `python -m MODULE ARGUMENT...` does, in a process that has been forked: the launcher runs this file in it.

The launcher gives the globals `command`, `pod`, `variables` and `log`.
"""

import os
import runpy
import sys
import tempfile

given = globals()
python, option, module, *arguments = given["command"]
if (python, option) != ("python", "-m"):
    raise ValueError(f"Expected `python -m` of a module, received {given['command'][:3]}.")
with open(given["log"], "w") as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
os.environ.clear()
os.environ.update(given["variables"])
tempfile.tempdir = None  # it remembers the folder of the process that was forked
os.chdir(given["pod"])
sys.path = [given["pod"], given["variables"]["PYTHONPATH"], *sys.path]
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
