"""Several machines on one, made of namespaces by `hosts.sh`, for tests of clusters."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).with_suffix(".sh")
PROGRAMS = ("unshare", "nsenter", "ip", "ssh", "ssh-keygen", "rsync")
USER = "lab"
NUMBER = 1777  # of the user
HOME = f"/home/{USER}"


def missing() -> str | None:
    """Why there can be no hosts here, or None."""
    if os.geteuid() != 0:
        return "needs root, to make network and mount namespaces"
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if not Path("/usr/sbin/sshd").exists():
        absent.append("sshd")
    if absent:
        return f"needs {', '.join(absent)}: apt-get install iproute2 openssh-server openssh-client rsync util-linux"
    tried = subprocess.run(
        [
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--uts",
            "--fork",
            "--mount-proc",
            "ip",
            "link",
            "add",
            "hosts",
            "type",
            "bridge",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"the kernel refuses namespaces or bridges: {tried.stderr.strip()}" if tried.returncode else None


class Hosts:
    """Hosts that exist inside a ``with`` block; the names are those of their folders, addresses follow their order.

    Args:
        folder: where their homes and temporary folders lie; ``folder/shared`` is /srv on all of them.
        names: of the hosts.
    """

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder, self.names = folder, names
        self.addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, start=1)}

    def __enter__(self) -> Hosts:
        self._process = subprocess.Popen(
            ["bash", SCRIPT, self.folder, *self.names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = self._process.stdout.readline()
        if said != "ready\n":
            said += self._process.communicate(timeout=60)[0]
            raise RuntimeError(f"no hosts: {said}")
        inside = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().strip()
        self._enter = ["nsenter", "--target", inside, "--all", "--"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)  # its input is closed, which ends it, and the kernel everything inside

    def home(self, name: str) -> Path:
        """Home of the user on a host, seen from outside."""
        return self.folder / name / "home" / USER

    def command(self, name: str, command: str, folder: str = HOME, **environment: str) -> list[str]:
        """Arguments of a process that runs a command of bash as root on a host."""
        first = (self.folder / name / "pid").read_text().strip()
        settings = {
            "HOME": HOME,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            **environment,
        }
        given = [f"{key}={value}" for key, value in {**settings, **environment}.items()]
        return [
            *(*self._enter, "nsenter", "--target", first, "--all", "--", "env", "--ignore-environment"),
            *(*given, "bash", "-c", f"cd {folder} && {command}"),
        ]

    def cut(self, name: str) -> None:
        """Take a host off the network."""
        self._link(name, "down")

    def join(self, name: str) -> None:
        """Put it back."""
        self._link(name, "up")

    def _link(self, name: str, state: str) -> None:
        subprocess.run([*self._enter, "ip", "link", "set", f"v-{name}", state], check=True)

    def write(self, name: str, path: str, text: str) -> None:
        """Write a file into the user's home on a host, or add to it."""
        file = self.home(name) / path
        for folder in (folder for folder in reversed(file.parents) if not folder.exists()):
            folder.mkdir()
            os.chown(folder, NUMBER, NUMBER)
        with file.open("a") as stream:
            stream.write(text)
        os.chown(file, NUMBER, NUMBER)
        file.chmod(0o600)

    def output(self, name: str, command: str) -> str:
        """What a command of bash, run as root on a host, prints."""
        return subprocess.run(self.command(name, command), capture_output=True, text=True, check=False).stdout

    def processes(self, name: str) -> list[str]:
        """Command lines of the user's processes on a host."""
        return self.output(name, f"ps -u {USER} -o args=").splitlines()
