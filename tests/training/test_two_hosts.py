"""torchrun over two network namespaces, as over two machines: slow, needs root and iproute2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.two_processes import STEPS, equal_config, write_data
from vistasks.checkpoint import read_checkpoint
from vistasks.config import to_yaml
from vistasks.training.loop import train

pytestmark = pytest.mark.slow
SECONDS = 900
HOSTS = ("10.79.61.1", "10.79.61.2")


@pytest.fixture
def hosts() -> Iterator[list[tuple[str, str]]]:
    """(namespace, interface) of two hosts that see each other and nothing else."""
    if shutil.which("ip") is None:
        pytest.skip("the command ip is not there (Debian: iproute2)")
    spaces = [f"vistasks{os.getpid()}{side}" for side in "ab"]
    links = [f"vt{os.getpid() % 100000}{side}" for side in "ab"]
    if subprocess.run(["ip", "netns", "add", spaces[0]], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces cannot be made here (needs root)")
    try:
        subprocess.run(["ip", "netns", "add", spaces[1]], check=True)
        subprocess.run(["ip", "link", "add", links[0], "type", "veth", "peer", "name", links[1]], check=True)
        for space, link, address in zip(spaces, links, HOSTS):
            subprocess.run(["ip", "link", "set", link, "netns", space], check=True)
            up = ["link", "set", link, "up"], ["link", "set", "lo", "up"]
            for words in (["addr", "add", f"{address}/24", "dev", link], *up):
                subprocess.run(["ip", "-n", space, *words], check=True)
        yield list(zip(spaces, links))
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


def test_two_hosts_learn_what_one_process_learns(tmp_path: Path, hosts: list[tuple[str, str]]) -> None:
    write_data(tmp_path)
    config_file = tmp_path / "config.yaml"
    config_file.write_text(to_yaml(equal_config(tmp_path, "hosts", devices=1, batch_size=2)))
    started = []
    for space, link in hosts:
        command = [
            "ip",
            "netns",
            "exec",
            space,
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes",
            "2",
        ]
        command += ["--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{HOSTS[0]}:29517"]
        number = hosts.index((space, link))
        # torchrun finds out by the host's name whether it is the endpoint, and both namespaces have the same
        # name
        command += [
            "--rdzv-id",
            "test",
            "--local-addr",
            HOSTS[number],
            "--rdzv-conf",
            f"is_host={int(number == 0)}",
        ]
        command += ["-m", "vistasks.cli", "train", "--config", str(config_file)]
        environment = os.environ | {"GLOO_SOCKET_IFNAME": link, "OMP_NUM_THREADS": "1"}
        started.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    try:
        told = [process.communicate(timeout=SECONDS)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(told)[-4000:]
    assert "steps of 4 images (2 x 2 processes)" in told[0] + told[1]
    train(equal_config(tmp_path, "one", devices=1, batch_size=4))
    two, one = (read_checkpoint(tmp_path / name / "last.safetensors") for name in ("hosts", "one"))
    assert two.state["step"] == STEPS
    expected = one.part("model")
    assert (
        max(float((value - expected[name]).abs().max()) for name, value in two.part("model").items()) <= 1e-6
    )
