"""The files that start clusters, against Ray's own schema, readers and command line. No cloud is asked."""

import importlib.resources
import json
import re
import shlex
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import typer
import yaml
from jsonschema import Draft7Validator, ValidationError
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts, symmetric_run

from search.cli import app

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "configs" / "cluster"
RAY_UP = [ROOT / "cluster.yaml", FOLDER / "gcp.yaml", FOLDER / "on-premises.yaml"]
KUBERAY, SLURM = FOLDER / "kuberay.yaml", FOLDER / "slurm.sh"


def pinned(package):
    """Version of a package in constraints.txt."""
    (version,) = re.findall(rf"^{package}==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return version


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def option_names(command):
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def test_every_file_is_checked_here():
    assert {*FOLDER.iterdir()} == {*RAY_UP[1:], KUBERAY, SLURM}


@pytest.mark.parametrize("path", [*RAY_UP, KUBERAY, SLURM], ids=lambda path: path.name)
def test_every_file_says_how_far_it_was_checked_and_where_to_change_its_size(path):
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^# Checked", text, re.MULTILINE)
    assert len(re.findall("<- the one line to change for size", text)) == 1


# --- ray up -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
def test_ray_accepts_the_file(path):
    validate_config(prepare_config(read(path)))


def test_ray_does_not_accept_any_file():
    with pytest.raises(ValidationError, match="Additional properties"):
        validate_config(prepare_config({**read(RAY_UP[0]), "sise": 4}))


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
def test_a_cluster_installs_the_ray_that_is_tested(path):
    assert set(re.findall(r"ray\[default\]==([\d.]+)", path.read_text(encoding="utf-8"))) == {pinned(r"ray(?:\[.*\])?")}


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
def test_every_ray_asks_for_the_token_and_listens_as_little_as_it_can(path):
    config = read(path)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [line for key in ("head", "worker") for line in config[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert all("RAY_AUTH_MODE=token" in line for line in config["setup_commands"] if ".bashrc" in line)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    for line in starts:
        used = {word.partition("=")[0] for word in shlex.split(line) if word.startswith("--")}
        assert used <= option_names(scripts.start)


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
def test_only_machines_of_ones_own_need_the_first_autoscaler(path):
    (start,) = (line for line in read(path)["head_start_ray_commands"] if "ray start" in line)
    assert ("RAY_enable_autoscaler_v2=0" in shlex.split(start)) == (read(path)["provider"]["type"] == "local")


@pytest.mark.parametrize("path", RAY_UP[:2], ids=lambda path: path.name)
def test_head_is_on_demand_and_idle_workers_are_spot_and_gpus_come_from_zero(path):
    config = read(path)
    head, cpu, gpu = (config["available_node_types"][name] for name in ("head", "cpu", "gpu"))
    assert config["head_node_type"] == "head" and head["resources"] == {"CPU": 0}
    assert cpu["min_workers"] == cpu["max_workers"] <= config["max_workers"]
    assert gpu["min_workers"] == 0 < gpu["max_workers"]
    spot = [str(kind["node_config"]) for kind in (head, cpu, gpu)]
    assert ["spot" in text or "preemptible" in text for text in spot] == [False, True, True]


# --- Google Cloud -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def google():
    """Checks settings of a machine against the description of Google's API that the API's client ships.

    Unlike the description, it refuses unknown names. 64-bit integers may be written as numbers or strings.
    """
    path = importlib.resources.files("googleapiclient") / "discovery_cache" / "documents" / "compute.v1.json"
    schemas = json.loads(path.read_text(encoding="utf-8"))["schemas"]

    def strict(about):
        if "$ref" in about:
            return {"$ref": f"#/definitions/{about['$ref']}"}
        if about["type"] == "any":
            return {}
        made = {"type": ["string", "integer"] if about.get("format") in ("int64", "uint64") else about["type"]}
        if "enum" in about:
            made["enum"] = about["enum"]
        if "items" in about:
            made["items"] = strict(about["items"])
        if about["type"] == "object":
            made["properties"] = {name: strict(inner) for name, inner in about.get("properties", {}).items()}
            more = about.get("additionalProperties")
            made["additionalProperties"] = strict(more) if more else False
        return made

    definitions = {name: strict(about) for name, about in schemas.items()}
    return Draft7Validator({"$ref": "#/definitions/Instance", "definitions": definitions})


def test_google_knows_every_field_of_every_machine(google):
    for about in read(RAY_UP[1])["available_node_types"].values():
        google.validate(about["node_config"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machineTyp": "n2-standard-4"}, "'machineTyp' was unexpected"),
        ({"scheduling": [{"preemptible": True}]}, "is not of type 'object'"),
        ({"scheduling": {"preemptibel": True}}, "'preemptibel' was unexpected"),
        ({"disks": [{"type": "PERSISTANT"}]}, "'PERSISTANT' is not one of"),
        ({"disks": [{"initializeParams": {"diskSizeGB": 100}}]}, "'diskSizeGB' was unexpected"),
    ],
)
def test_google_does_not_know_any_field(google, change, message):
    machine = read(RAY_UP[1])["available_node_types"]["cpu"]["node_config"]
    with pytest.raises(ValidationError, match=message):
        google.validate({**machine, **change})


# --- KubeRay ------------------------------------------------------------------------------------------------------


def test_rays_autoscaler_reads_the_kubernetes_manifest():
    cluster, claim = yaml.safe_load_all(KUBERAY.read_text(encoding="utf-8"))
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    derived = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)  # it validates, too
    kinds = derived["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert kinds["cpu"]["min_workers"] == kinds["cpu"]["max_workers"] > 0
    assert kinds["cpu"]["resources"]["CPU"] == 8
    assert kinds["gpu"]["min_workers"] == 0 and kinds["gpu"]["resources"]["GPU"] == 1
    spec = cluster["spec"]
    assert spec["rayVersion"] == pinned(r"ray(?:\[.*\])?")
    assert spec["authOptions"] == {"mode": "token"}
    volumes = spec["headGroupSpec"]["template"]["spec"]["volumes"]
    assert [volume["persistentVolumeClaim"]["claimName"] for volume in volumes] == [claim["metadata"]["name"]]


def pods(cluster):
    """The manifest's pods as Kubernetes objects of their own; its volume is one already."""
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]} for group in groups]


def test_kubernetes_knows_every_field_of_the_pods_and_of_the_volume():
    cluster, claim = yaml.safe_load_all(KUBERAY.read_text(encoding="utf-8"))
    for thing in (*pods(cluster), claim):
        kubernetes_validate.validate(thing, "1.30", strict=True)
    (pod, *_) = pods(cluster)
    pod["spec"]["containers"][0]["volumeMount"] = pod["spec"]["containers"][0].pop("volumeMounts")
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        kubernetes_validate.validate(pod, "1.30", strict=True)


# --- Slurm --------------------------------------------------------------------------------------------------------


def test_the_slurm_script_is_bash():
    subprocess.run(["bash", "-n", SLURM], check=True)


@pytest.fixture
def slurm(tmp_path):
    """What the script asks Slurm to run on every node: the words after srun's own options."""
    for name, body in {
        "scontrol": 'echo "$*" > asked; printf "node07\\nnode08\\n"',
        "srun": 'printf "%s\\n" "$@" > ran; echo "$RAY_AUTH_MODE" > mode',
        "ray": 'echo "$*" > token',
    }.items():
        path = tmp_path / ".venv" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    nodes = {"SLURM_JOB_NODELIST": "node[07-08]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "16"}

    def run(*arguments):
        command = ["bash", SLURM, *arguments]
        environment = {"PATH": "/usr/bin:/bin", **nodes}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run, tmp_path


def test_the_slurm_script_starts_ray_on_every_node_and_the_search_on_the_first(slurm):
    run, folder = slurm
    done = run("configs/li-si-cluster.yaml", "/shared/runs/li-si")
    assert done.returncode == 0, done.stderr
    assert (folder / "asked").read_text().split() == ["show", "hostnames", "node[07-08]"]
    assert (folder / "token").read_text().split() == ["get-auth-token", "--generate"]
    assert (folder / "mode").read_text().split() == ["token"]
    words = (folder / "ran").read_text().splitlines()
    start, search = words[words.index("symmetric-run") + 1 : words.index("--")], words[words.index("--") + 1 :]
    assert words[: words.index("ray")] == ["--nodes=2", "--ntasks=2"]
    assert start[:4] == ["--address", "node07:6379", "--min-nodes", "2"]
    rest = symmetric_run.curate_and_validate_ray_start_args(start)  # what is left goes to `ray start`
    assert rest == ["--num-cpus=16"] and {"--num-cpus"} <= option_names(scripts.start)
    assert search[0] == "hostguide"
    command = typer.main.get_command(app).commands[search[1]]
    given = command.make_context("search", search[2:]).params
    assert given["address"] == "auto" and given["run"] == "/shared/runs/li-si"
    assert str(given["what"]) == "configs/li-si-cluster.yaml"


def test_the_slurm_script_asks_for_what_is_missing(slurm):
    run, folder = slurm
    done = run("configs/li-si-cluster.yaml")
    assert done.returncode != 0 and "where its results go" in done.stderr
    assert not (folder / "ran").exists()
