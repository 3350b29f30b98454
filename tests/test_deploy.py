"""The files in deploy/: their scripts run, their commands exist, and their YAML is what its readers take."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from kills import committed
from postgres_server import postgres_server
from sessions import FLAGS, call_main
from tunecast.store import Store

DEPLOY = Path(__file__).parents[1] / "deploy"
SCRIPTS = sorted(DEPLOY.glob("*.sh"))
SBATCH = """#!{python}
# Reads a job's script as SLURM does: options come before the first command. Then it runs the array.
import os, re, subprocess, sys
words = sys.argv[1:]
script = next(word for word in words if word.endswith(".sh"))
given = words[words.index(script) + 1:]
lines = open(script).read().splitlines()
assert lines[0].startswith("#!"), "SLURM refuses a script without an interpreter"
header = []
for line in lines[1:]:
    if line and not line.startswith("#"):
        break
    header += re.findall(r"^#SBATCH (--[a-z-]+)=?(.*)$", line)
assert len(header) == sum(line.startswith("#SBATCH") for line in lines), "options after a command are void"
known = {{"--job-name", "--array", "--ntasks", "--cpus-per-task", "--gpus-per-task", "--mem", "--time",
         "--requeue", "--signal", "--output"}}
assert {{name for name, _ in header}} <= known, header
options = dict(header) | dict([w.split("=", 1) for w in words[:words.index(script)]])
first, _, last = options.get("--array", "0").partition("-")
tasks = [subprocess.Popen(["bash", script, *given], env={{**os.environ, "SLURM_ARRAY_TASK_ID": str(task)}})
         for task in range(int(first), int(last or first) + 1)]
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """An environment with `tunecast`, and with an `sbatch` that checks a script and runs it here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    main = f"#!{sys.executable}\nfrom tunecast.cli import main\nmain()\n"
    for name, text in (("tunecast", main), ("sbatch", SBATCH.format(python=sys.executable))):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    shared = tmp_path / "shared"
    shared.mkdir()
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "TUNECAST_STORE": str(shared / "runs.sqlite"),
        "TUNECAST_SHARED": str(shared),
        "TUNECAST_IDLE_EXIT": "5s",
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_shell_and_say_what_is_missing(script: Path) -> None:
    assert script.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", script], check=True)
    lacking = {name: value for name, value in os.environ.items() if not name.startswith("TUNECAST_")}
    done = subprocess.run(["bash", script], env=lacking, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "TUNECAST_STORE: is not set: " in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_session_and_two_workers_of_a_slurm_array(
    programs: dict[str, str], tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    """Real processes, started by the scripts; sbatch is a stub that checks them as SLURM would."""
    out = tmp_path / "shared" / "out"
    task = ["--model", str(tiny_llama), "--data", str(toy_data), "--budget", "3-trials"]
    flags = [*task, "--no-forecast", "--final-training", "none", *FLAGS]
    programs["TUNECAST_IDLE_EXIT"] = "2m"
    workers = subprocess.Popen(["sbatch", "--array=1-2", DEPLOY / "slurm-workers.sh"], env=programs)
    try:
        session = subprocess.run(
            ["sbatch", DEPLOY / "slurm-session.sh", *flags, "--workers", "2", "--output-dir", str(out)],
            env=programs,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    finally:
        for child in _below(workers.pid):
            child.terminate()
    assert session.returncode == 0, session.stderr[-3000:]
    assert workers.wait(timeout=60) == 0
    assert sum(bool(run.curve) for run in committed(tmp_path / "shared")) >= 3
    assert (out / "best" / "README.md").is_file()


def _below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


def _commands(name: str) -> list[list[str]]:
    """The command lines of tunecast in a file, with the values of its variables."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text).replace("$(TUNECAST_STORE)", "postgresql://host/runs")
    content = yaml.safe_load(text)
    if name == "compose.yaml":
        return [service["command"] for service in content["services"].values() if "command" in service]
    return [container["args"] for container in content["spec"]["template"]["spec"]["containers"]]


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes-workers.yaml"])
def test_commands_have_only_options_that_exist(name: str) -> None:
    for command in _commands(name):
        assert all(isinstance(word, str) for word in command), "numbers have to be quoted"
        _, known, _ = call_main(command[0], "--help")
        plain = re.sub(r"\x1b\[[0-9;]*m", "", known)
        missing = [word for word in command if word.startswith("--") and word not in plain]
        assert missing == []


def test_the_job_is_one_that_kubernetes_takes() -> None:
    job = yaml.safe_load((DEPLOY / "kubernetes-workers.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] in ("OnFailure", "Never"), "a Job takes no other policy"
    volumes = {volume["name"] for volume in pod["volumes"]}
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert container["args"][container["args"].index("--shared-dir") + 1] in {
        mount["mountPath"] for mount in container["volumeMounts"]
    }
    amounts = [*container["resources"]["requests"].values(), *container["resources"]["limits"].values()]
    assert all(isinstance(amount, str) for amount in amounts), "quantities are strings"


def test_the_services_meet_in_one_store_and_one_folder() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    worker, session = services["worker"], services["session"]
    for flag in ("--store", "--shared-dir"):
        assert (
            worker["command"][worker["command"].index(flag) + 1]
            == (session["command"][session["command"].index(flag) + 1])
        )
    assert worker["volumes"] == session["volumes"]
    assert all(set(one["depends_on"]) <= set(services) for one in (worker, session))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_composition_run_on_a_real_server(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    """As the containers would, with the paths of this machine in place of theirs."""
    worker, session = _commands("compose.yaml")
    with postgres_server() as server:
        url = server.empty_store()
        places = {
            "postgresql://tunecast:tunecast@database/runs": url,
            "/shared": str(tmp_path),
            "/shared/model": str(tiny_llama),
            "/shared/data.jsonl": str(toy_data),
            "/shared/out": str(tmp_path / "out"),
            "30m": "2-trials",
            "10m": "1m",
        }
        here = [[places.get(word, word) for word in command] for command in (worker, session)]
        main = [sys.executable, "-c", "from tunecast.cli import main; main()"]
        working = subprocess.Popen([*main, *here[0]], stderr=subprocess.DEVNULL)
        try:
            code, _, err = call_main(*here[1], "--no-forecast", "--final-training", "none")
        finally:
            working.terminate()
            working.wait(timeout=60)
        assert code == 0, err[-3000:]
        with Store.open(url) as store:
            assert sum(bool(run.curve) for run in store.runs()) >= 2
