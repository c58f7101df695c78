"""A real Slurm on one machine, from Debian's packages: munge, MariaDB, slurmdbd, slurmctld and two slurmds.

Everything lives below one folder and on ports of its own, runs without systemd, and is ended by pid, so that it
disturbs no other Slurm of the machine. The nodes are named as loopback addresses because names must resolve; their
GPUs are character devices that do nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = "slurm-wlm slurmdbd munge mariadb-server"
_PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db", "sbatch", "sacctmgr")
_SBIN = "/usr/sbin:/sbin"
CPUS = 4
GPUS = 2
MEMORY_MB = 8000


def missing() -> str:
    """Why no cluster can be brought up here and what to do; empty where one can."""
    path = f"{os.environ.get('PATH', '')}:{_SBIN}"
    absent = [p for p in _PROGRAMS if not shutil.which(p, path=path)]
    if absent:
        return f"no {', '.join(absent)} here; install Debian's packages: apt-get install {PACKAGES}"
    if os.geteuid() != 0:
        return "a private Slurm is started as root here; run the tests as root (a container will do)"
    return ""


class Cluster:
    """Two nodes of 4 CPUs and 2 GPUs; partitions debug (default), low (preempted by high), grace and high."""

    nodes = ("127.0.1.1", "127.0.1.2")

    def __init__(self, root: Path, *, accounting: bool = True) -> None:
        self.root = root
        self.accounting = accounting
        self.conf = root / "etc" / "slurm.conf"
        ports = _free_ports(3 + len(self.nodes))
        self._ctld_port, self._dbd_port, self._db_port, *self._node_ports = ports
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))},
            "PATH": f"{os.environ.get('PATH', '')}:{_SBIN}",
            "SLURM_CONF": str(self.conf),
        }

    # --- up and down --------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start everything; returns when both nodes are idle."""
        for folder in ("etc", "ctld", "log", "dev"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self._munge()
        if self.accounting:
            self._database()
        self._write_conf()
        if self.accounting:
            self._start("slurmdbd", "slurmdbd", "-D")
            _until(lambda: self._ok("sacctmgr", "-n", "show", "cluster"), "slurmdbd answers")
            self.run("sacctmgr", "-i", "add", "cluster", "lab")
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        _until(lambda: self.run("sinfo", "-h", "-N", "-o", "%T", "-p", "debug").split() == ["idle"] * 2, "nodes idle")

    def down(self) -> None:
        """End everything by pid, jobs first."""
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            self.run("scancel", "--signal=KILL", "-u", str(os.geteuid()))
            _until(lambda: not self.run("squeue", "-h", "-t", "running,completing"), "jobs gone", 15)
        for name in reversed(list(self._processes)):
            self._stop(name)
        for pid in _orphans(self.root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start_controller(self) -> None:
        """Start slurmctld (again), keeping its state."""
        self._start("slurmctld", "slurmctld", "-D")
        _until(lambda: self._ok("scontrol", "ping") and "UP" in self.run("scontrol", "ping"), "slurmctld answers")

    def stop_controller(self) -> None:
        """End slurmctld; jobs run on."""
        self._stop("slurmctld")

    def start_node(self, node: str) -> None:
        """Start the slurmd of `node` (again)."""
        self._start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """SIGKILL the slurmd of `node`; what it was running lives on."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    # --- asking -------------------------------------------------------------------------------------------------------

    def run(self, *command: str) -> str:
        """stdout of one of Slurm's commands."""
        return subprocess.run(command, env=self.env, check=True, capture_output=True, text=True, timeout=60).stdout

    def _ok(self, *command: str) -> bool:
        return subprocess.run(command, env=self.env, capture_output=True, timeout=60).returncode == 0

    def jobs(self) -> dict[str, str]:
        """State by job id of everything Slurm still remembers."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _start(self, name: str, *command: str) -> None:
        log = (self.root / "log" / f"{name}.out").open("ab")
        self._processes[name] = subprocess.Popen(
            command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def _stop(self, name: str) -> None:
        process = self._processes.pop(name)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _munge(self) -> None:
        key = self.root / "etc" / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        self.root.chmod(0o755)
        self._start(
            "munged",
            "munged",
            "--foreground",
            "--force",
            f"--socket={self.root}/munge.sock",
            f"--key-file={key}",
            f"--pid-file={self.root}/munge.pid",
            f"--log-file={self.root}/log/munge.log",
            f"--seed-file={self.root}/munge.seed",
        )
        _until(lambda: self._ok("munge", "-S", f"{self.root}/munge.sock", "-n"), "munged answers")

    def _database(self) -> None:
        data, sock = self.root / "db", self.root / "db.sock"
        self.run(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--user=root",
            "--skip-test-db",
            "--auth-root-authentication-method=socket",
        )
        self._start(
            "mariadbd",
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            f"--socket={sock}",
            f"--pid-file={self.root}/db.pid",
            "--bind-address=127.0.0.1",
            f"--port={self._db_port}",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
        )
        client = ("mariadb", "--no-defaults", "-uroot", "-S", str(sock), "-e")
        _until(lambda: self._ok(*client, "select 1"), "mariadbd answers")
        self.run(
            *client,
            "create database acct; create user slurm@'%' identified by 'slurm'; grant all on acct.* to slurm@'%'",
        )

    def _write_conf(self) -> None:
        root, host = self.root, socket.gethostname().split(".")[0]
        dbd = root / "etc" / "slurmdbd.conf"
        dbd.write_text(f"""\
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
DbdHost=localhost
DbdPort={self._dbd_port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self._db_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=acct
LogFile={root}/log/slurmdbd.log
PidFile={root}/slurmdbd.pid
""")
        dbd.chmod(0o600)
        accounting = f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={self._dbd_port}
AccountingStoragePass={root}/munge.sock
AccountingStorageTRES=gres/gpu
"""
        nodes = "".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} "
            f"RealMemory={MEMORY_MB} Gres=gpu:{GPUS} State=UNKNOWN\n"
            for node, port in zip(self.nodes, self._node_ports, strict=True)
        )
        # cred_expire: a requeued job otherwise waits 120 s before it may start again.
        # SlurmdTimeout: a node that does not answer is given up, and its job requeued, within seconds.
        self.conf.write_text(f"""\
ClusterName=lab
SlurmctldHost={host}
SlurmctldPort={self._ctld_port}
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/ctld
SlurmctldPidFile={root}/slurmctld.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdPidFile={root}/%n.pid
SlurmdSpoolDir={root}/spool.%n
SlurmdLogFile={root}/log/%n.log
SlurmdParameters=config_overrides
SlurmdTimeout=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=2
KillWait=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
{accounting if self.accounting else "AccountingStorageType=accounting_storage/none"}
{nodes}
PartitionName=debug Nodes=ALL Default=YES State=UP PriorityTier=10
PartitionName=low Nodes=ALL State=UP PriorityTier=1 GraceTime=0
PartitionName=grace Nodes=ALL State=UP PriorityTier=1 GraceTime=25
PartitionName=high Nodes=ALL State=UP PriorityTier=20 PreemptMode=OFF
""")
        for gpu in range(GPUS):
            device = root / "dev" / f"gpu{gpu}"
            if not device.exists():
                os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))  # as /dev/null
        (root / "etc" / "gres.conf").write_text(
            f"NodeName=127.0.1.[1-{len(self.nodes)}] Name=gpu File={root}/dev/gpu[0-{GPUS - 1}]\n"
        )


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for s in held:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in held]
    finally:
        for s in held:
            s.close()


def _orphans(root: Path) -> list[int]:
    """Processes that were started from this cluster and outlived it (a slurmstepd whose slurmd was killed)."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"SLURM_CONF={root}/" in (folder / "environ").read_bytes().decode(errors="replace"):
                pids.append(int(folder.name))
    return [pid for pid in pids if pid != os.getpid()]


def _until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.SubprocessError):
            if condition():
                return
        time.sleep(0.1)
    raise TimeoutError(f"waited {seconds:g} s until: {what}")


def main() -> None:
    """`python -m tests.slurm.cluster FOLDER`: a cluster to try things on, until Ctrl-C."""
    cluster = Cluster(Path(sys.argv[1]).resolve())
    problem = missing()
    if problem:
        sys.exit(problem)
    for number in (signal.SIGINT, signal.SIGTERM):  # ignored in a shell's background jobs; or ends without down()
        signal.signal(number, signal.default_int_handler)
    try:
        started = time.monotonic()
        cluster.up()
        print(f"up in {time.monotonic() - started:.1f} s; export SLURM_CONF={cluster.conf}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
