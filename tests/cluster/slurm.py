"""A SLURM cluster of this machine alone: munge, slurmctld and slurmd on loopback, all in a folder.

Needs root and Debian's packages: ``apt-get install slurm-wlm munge``.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIG = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=120
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""Nothing of it needs cgroups or systemd, so that it runs in a container."""

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")


def run(*command: str) -> str:
    """Run a command and return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def cluster(folder: Path, cpus: int = 2) -> Iterator[None]:
    """Start the daemons, point SLURM's commands at them, and end them.

    Args:
        folder: For their files.
        cpus: How many CPUs SLURM may give to jobs, whatever the machine has.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        raise SystemExit(f"needs root, and slurm-wlm and munge installed (missing: {missing})")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    folder.chmod(0o755)
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=socket.gethostname(), folder=folder, cpus=cpus))
    os.environ["SLURM_CONF"] = str(config)
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    munge = ["munged", "--force", "--foreground", f"--socket={folder}/munge.socket", *files]
    daemons = [subprocess.Popen([*munge, f"--key-file={key}"], stderr=subprocess.DEVNULL)]
    try:
        wait_for(lambda: (folder / "munge.socket").exists(), 30, "munged")
        for name in ("slurmctld", "slurmd"):
            daemons.append(subprocess.Popen([name, "-D"], stderr=subprocess.DEVNULL))
        wait_for(lambda: "idle" in run("sinfo", "-h", "-o", "%t"), 60, "an idle node")
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Ask every half second until it is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except subprocess.CalledProcessError:
            pass  # SLURM's commands fail until its daemon answers
        time.sleep(0.5)
    raise SystemExit(f"waited {seconds:.0f} s in vain for {what}")


def state_of(job: str) -> str:
    """PENDING, RUNNING, COMPLETED, ..."""
    return field(job, "JobState")


def field(job: str, name: str) -> str:
    """One field of what ``scontrol show job`` says."""
    shown = run("scontrol", "show", "job", job, "--oneliner")
    return next(part.partition("=")[2] for part in shown.split() if part.partition("=")[0] == name)
