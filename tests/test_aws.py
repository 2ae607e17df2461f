"""`cluster.yaml` through Ray's own AWS provider, against a server that answers as AWS does (moto). No machine starts.

botocore checks each request against Amazon's description of its parameters before it is sent.
"""

import copy
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.exceptions import ParamValidationError
from moto.server import ThreadedMotoServer
from ray.autoscaler._private import commands
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE
from ray.autoscaler.v2.instance_manager.config import FileConfigReader
from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter

from tests.support.data import ROOT

pytestmark = pytest.mark.slow
REGION = "us-west-2"
RAY = Path(sys.executable).parent / "ray"
SPOT = {"cpu", "gpu"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    """Environment of a user of the server, with a home of their own, and an `ssh` that reaches nobody."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    home = tmp_path_factory.mktemp("home")
    ssh = home / "bin" / "ssh"  # moto's addresses belong to others
    ssh.parent.mkdir()
    ssh.write_text("#!/bin/sh\necho 'no machine is behind this address' >&2\nexit 255\n")
    ssh.chmod(0o755)
    settings = {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
        "HOME": str(home),
        "PATH": f"{ssh.parent}:{os.environ['PATH']}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield boto3.client("ec2", REGION)
    server.stop()


@pytest.fixture(scope="module")
def file(aws, tmp_path_factory):
    """cluster.yaml, filled in as docs/cluster.md says, in a folder that stands for the repository."""
    image = next(one["ImageId"] for one in aws.describe_images()["Images"] if "ubuntu" in one["Name"])
    path = tmp_path_factory.mktemp("repository") / "cluster.yaml"
    path.write_text((ROOT / "cluster.yaml").read_text().replace("ami-REPLACE-ME", image))
    token = Path.home() / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("token")
    return path


def instances(aws, **tags):
    """Instances with these tags that are not terminated."""
    filters = [{"Name": f"tag:{name}", "Values": [value]} for name, value in tags.items()]
    found = aws.describe_instances(Filters=filters)["Reservations"]
    every = [one for reservation in found for one in reservation["Instances"]]
    return [one for one in every if one["State"]["Name"] != "terminated"]


def of_kind(aws, kind):
    return instances(aws, **{TAG_RAY_CLUSTER_NAME: "hostguide", TAG_RAY_USER_NODE_TYPE: kind})


def ray(command, file):
    """Start a command of Ray in the file's folder."""
    arguments = [RAY, command, "--yes", file.name]
    return subprocess.Popen(arguments, cwd=file.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def head(aws, file):
    """The head, started by `ray up`, which goes on trying to log in until it is ended."""
    process = ray("up", file)
    deadline = time.monotonic() + 120
    while not (found := of_kind(aws, "head")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.5)
    process.kill()
    process.communicate()
    (one,) = found
    return one


@pytest.fixture(scope="module")
def config(file, head):
    """What `ray up` makes of the file, with the roles, keys and networks that it found."""
    return commands._bootstrap_config(yaml.safe_load(file.read_text()), no_config_cache=True)


@pytest.fixture(scope="module")
def provider(config):
    """Ray's way to AWS, as its autoscaler on the head uses it."""
    return AWSNodeProvider(config["provider"], config["cluster_name"])


@pytest.fixture(scope="module")
def workers(aws, provider, config):
    """Two CPU workers and one GPU worker, launched by Ray's second autoscaler, its default on AWS; and the requests."""
    requests = []
    provider.ec2_fail_fast.meta.client.meta.events.register(
        "provide-client-params.ec2.RunInstances", lambda params, **_: requests.append(copy.deepcopy(params))
    )
    _, on_head = commands._set_up_config_for_head_node(copy.deepcopy(config), provider, no_restart=False)
    with on_head:
        launcher = NodeProviderAdapter(provider, FileConfigReader(on_head.name))
    shutil.copy(Path(config["auth"]["ssh_private_key"]).expanduser(), Path.home() / "ray_bootstrap_key.pem")
    launcher.launch({"cpu": 1, "gpu": 1}, "request-1")
    launcher.launch({"cpu": 1}, "request-2")  # moto starts one spot machine a request, whatever its MaxCount
    deadline = time.monotonic() + 60
    while len(launcher.get_non_terminated()) < 4:
        assert time.monotonic() < deadline, [str(error.__cause__) for error in launcher.poll_errors()]
        time.sleep(0.2)
    return {kind: of_kind(aws, kind) for kind in SPOT}, requests


def test_ray_up_starts_the_head_on_demand(head, config):
    assert head["InstanceType"] == "m7i.xlarge" and "InstanceLifecycle" not in head
    assert head["ImageId"] == config["available_node_types"]["head"]["node_config"]["ImageId"]


def test_workers_are_spot_machines_of_the_kinds_that_the_file_names(workers, config):
    found, _ = workers
    assert {kind: len(machines) for kind, machines in found.items()} == {"cpu": 2, "gpu": 1}
    for kind, machines in found.items():
        asked = config["available_node_types"][kind]["node_config"]
        for machine in machines:
            assert machine["InstanceLifecycle"] == "spot"
            assert machine["InstanceType"] == asked["InstanceType"] and machine["ImageId"] == asked["ImageId"]


def test_ray_counts_the_cores_and_the_gpu(config):
    resources = {kind: about["resources"] for kind, about in config["available_node_types"].items()}
    assert resources["head"]["CPU"] == 0
    assert resources["cpu"]["CPU"] == 16 and "GPU" not in resources["cpu"]
    assert resources["gpu"]["GPU"] == 1


def test_every_disk_has_the_size_of_the_file(aws, head, workers):
    machines = [head, *(one for several in workers[0].values() for one in several)]
    for machine in machines:
        (disk,) = [one for one in machine["BlockDeviceMappings"] if one["DeviceName"] == "/dev/sda1"]
        (volume,) = aws.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
        assert (volume["Size"], volume["VolumeType"]) == (140, "gp3")


def test_the_requests_carry_every_field_of_the_file(workers, config):
    _, requests = workers
    for kind in SPOT:
        fields = config["available_node_types"][kind]["node_config"]
        request = next(one for one in requests if one["InstanceType"] == fields["InstanceType"])
        assert {name: request[name] for name in fields if name != "SubnetIds"} == {
            name: value for name, value in fields.items() if name != "SubnetIds"
        }
        assert request["SubnetId"] in fields["SubnetIds"]


def test_only_the_cluster_itself_and_ssh_get_through(aws, head, workers):
    machines = [head, *(one for several in workers[0].values() for one in several)]
    (group,) = {one["GroupId"] for machine in machines for one in machine["SecurityGroups"]}
    (about,) = aws.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert about["GroupName"] == "ray-autoscaler-hostguide"  # docs/cluster.md names it
    open_to_all = [rule for rule in about["IpPermissions"] if rule["IpRanges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in open_to_all] == [(22, 22)]
    within = [rule for rule in about["IpPermissions"] if rule not in open_to_all]
    assert {pair["GroupId"] for rule in within for pair in rule["UserIdGroupPairs"]} == {group}


def test_the_head_has_a_role_that_may_use_s3_and_the_workers_have_none(head, workers):
    profile = head["IamInstanceProfile"]["Arn"].rpartition("/")[2]
    roles = boto3.client("iam", REGION).get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
    policies = boto3.client("iam", REGION).list_attached_role_policies(RoleName=roles[0]["RoleName"])[
        "AttachedPolicies"
    ]
    assert "AmazonS3FullAccess" in {policy["PolicyName"] for policy in policies}
    assert not any("IamInstanceProfile" in one for several in workers[0].values() for one in several)


def test_the_key_is_kept_where_only_the_user_can_read_it(head):
    (key,) = (Path.home() / ".ssh").glob("*.pem")
    assert head["KeyName"] == key.stem and key.stat().st_mode & 0o077 == 0


def places(value, path=()):
    """Paths to all names in nested settings."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name)
            yield from places(inner, (*path, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places(inner, (*path, number))


def misspelt(node_config, place):
    """The settings with the last letter of one name missing."""
    changed = copy.deepcopy(node_config)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1][:-1]] = inner.pop(place[-1])
    return changed


FIELDS = [
    (kind, place)
    for kind, about in yaml.safe_load((ROOT / "cluster.yaml").read_text())["available_node_types"].items()
    for place in places(about["node_config"])
]


@pytest.mark.parametrize(
    ("kind", "place"), FIELDS, ids=lambda value: value if isinstance(value, str) else ".".join(map(str, value))
)
def test_a_misspelt_field_is_refused(provider, config, kind, place):
    changed = misspelt(config["available_node_types"][kind]["node_config"], place)
    tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_USER_NODE_TYPE: kind}
    with pytest.raises(ParamValidationError, match=f"Unknown parameter.*{place[-1][:-1]}"):
        provider.create_node(changed, tags, 1)


def test_ray_down_ends_all_machines(aws, file, head, workers):
    assert len(instances(aws)) == 4
    process = ray("down", file)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "No nodes remaining" in said, said
    assert not instances(aws)
