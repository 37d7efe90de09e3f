"""Runs play.yml with Ansible: one case a task."""

import os
import subprocess
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))

environment = dict(
    os.environ,
    ANSIBLE_HOME=os.getcwd(),
    ANSIBLE_LOCALHOST_WARNING="False",
    ANSIBLE_INVENTORY_UNPARSED_WARNING="False",
    ANSIBLE_PYTHON_INTERPRETER=sys.executable,
    ANSIBLE_NOCOLOR="1",
    LC_ALL="C.UTF-8",
)
play = subprocess.run(
    [sys.executable, "-m", "ansible", "playbook", f"{FOLDER}/play.yml"],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
)
task, number = "no task", 0
failed = False
for line in play.stdout.splitlines():
    if line.startswith("TASK ["):
        number += 1
        task = f"ansible.{number}.{line.split('[')[1].split(']')[0]}"
    elif line.startswith(("ok: ", "changed: ")):
        print(f"ok   {task}")
    elif line.startswith("fatal: "):
        failed = True
        print(f"FAIL {task}: {line}")
if play.returncode != 0 and not failed:
    print(f"FAIL {task}: {' '.join(play.stderr.split()) or 'no word'}")
sys.exit(play.returncode)
