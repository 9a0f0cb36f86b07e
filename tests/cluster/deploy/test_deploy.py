"""The deployment files are right: against Ray's own schema, the RayJob fields of KubeRay, and this repository."""

import copy
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray._private.runtime_env.validation import parse_and_validate_env_vars
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.engine.session import VARIABLES
from tests.places import ROOT

DEPLOY = ROOT / "cluster" / "deploy"
TEXTS = [*sorted(DEPLOY.glob("*.yaml")), DEPLOY / "slurm.sbatch", ROOT / "docs" / "submit.md"]
SCHEMA = json.loads(Path(__file__).with_name("rayjob.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def load(name):
    return yaml.safe_load((DEPLOY / name).read_text())


# ------------------------------------------------------------------------------------------------ ray up


@pytest.mark.parametrize("name", ["gpu-cluster.yaml", "workstation.yaml"])
def test_ray_accepts_the_cluster_configuration(name):
    prepared = prepare_config(load(name))
    validate_config(prepared)  # raises on any field that Ray does not know
    assert prepared["cluster_name"] == load(name)["cluster_name"]


@pytest.mark.parametrize("name", ["gpu-cluster.yaml", "workstation.yaml"])
@pytest.mark.parametrize(("right", "wrong"), [("file_mounts", "file_mount"), ("setup_commands", "setup_comands")])
def test_ray_refuses_a_typing_error(name, right, wrong):
    config = load(name)
    config[wrong] = config.pop(right)
    with pytest.raises(jsonschema.ValidationError, match=wrong):
        validate_config(prepare_config(config))


def test_ray_refuses_a_typing_error_in_a_node_type():
    config = load("gpu-cluster.yaml")
    config["available_node_types"]["gpu"]["max_worker"] = 2
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(config))


def test_gpu_cluster_scales_gpu_machines_and_keeps_tasks_off_the_head():
    config = prepare_config(load("gpu-cluster.yaml"))
    head, gpu = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    assert head["resources"] == {"CPU": 0}
    assert (head["max_workers"], gpu["min_workers"], gpu["max_workers"]) == (0, 0, 4)
    assert gpu["resources"]["GPU"] > 0
    assert gpu["node_config"]["ImageId"] == head["node_config"]["ImageId"]


def test_local_cluster_keeps_all_the_machines_it_was_given():
    config = prepare_config(load("workstation.yaml"))
    machines = config["available_node_types"]["local.cluster.node"]
    assert machines["min_workers"] == machines["max_workers"] == len(config["provider"]["worker_ips"]) == 2
    alone = load("workstation.yaml")
    alone["provider"]["worker_ips"] = []
    validate_config(prepare_config(alone))


@pytest.mark.parametrize("name", ["gpu-cluster.yaml", "workstation.yaml"])
def test_cluster_mounts_a_token_and_the_repositorys_lock(name):
    mounts = load(name)["file_mounts"]
    assert "~/.ray/auth_token" in mounts.values()
    locks = [path for path in mounts.values() if path != "~/.ray/auth_token"]
    assert locks == ["requirements.lock"]
    if not (ROOT / locks[0]).exists():
        pytest.skip(f"{locks[0]} is not in this checkout")


def token_problems(config) -> list[str]:
    """What keeps a cluster from asking for the token on every machine, and from finding it where it is mounted."""
    options = " ".join(config.get("docker", {}).get("run_options", []))
    problems = []
    for start in (*config["head_start_ray_commands"][1:], *config["worker_start_ray_commands"][1:]):
        environment = f"{options} {start}"
        path = re.search(r"RAY_AUTH_TOKEN_PATH=(\S+?);?(?:\s|$)", environment)
        mounted = [remote.removeprefix("~/") for remote, local in config["file_mounts"].items() if "token" in local]
        if "RAY_AUTH_MODE=token" not in environment:
            problems.append(f"no RAY_AUTH_MODE=token: {start}")
        if not path or not any(path[1].endswith(f"/{remote}") for remote in mounted):
            problems.append(f"the token is not where it is mounted: {start}")
        if "--dashboard-host=0.0.0.0" in start:
            problems.append(f"the dashboard is open to the network: {start}")
    return problems


@pytest.mark.parametrize("name", ["gpu-cluster.yaml", "workstation.yaml"])
def test_every_machine_asks_for_the_token(name):
    config = load(name)
    assert token_problems(config) == []
    config["worker_start_ray_commands"][1] = "ray start --address=$RAY_HEAD_IP:6379"
    config.get("docker", {}).pop("run_options", None)
    assert any("no RAY_AUTH_MODE=token: ray start --address" in problem for problem in token_problems(config))


# ------------------------------------------------------------------------------------------------ kubectl apply


def nodes(value, path=()) -> Iterator[tuple[tuple, dict]]:
    """Every mapping inside `value`, with its path."""
    if isinstance(value, dict):
        yield path, value
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from nodes(child, (*path, key))


def reach(value, path):
    for key in path:
        value = value[key]
    return value


FREE = ("rayStartParams", "limits", "requests")  # mappings with keys of the user's choice
PLACES = [path for path, _ in nodes(load("rayjob.yaml")) if not path or path[-1] not in FREE]
FIELDS = [(path, key) for path, node in nodes(load("rayjob.yaml")) if path in PLACES for key in node]


def test_rayjob_has_the_fields_of_the_resource():
    VALIDATOR.check_schema(SCHEMA)
    VALIDATOR.validate(load("rayjob.yaml"))


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)) or "top")
def test_an_unknown_field_anywhere_in_a_rayjob_is_found(path):
    manifest = copy.deepcopy(load("rayjob.yaml"))
    reach(manifest, path)["typo"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="'typo' was unexpected"):
        VALIDATOR.validate(manifest)


def test_a_misspelt_field_anywhere_in_a_rayjob_is_found():
    for path, key in FIELDS:
        manifest = copy.deepcopy(load("rayjob.yaml"))
        node = reach(manifest, path)
        node[f"{key}s"] = node.pop(key)
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(manifest)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "backoffLimit"), "2"),
        (("spec", "submissionMode"), "K8SJobMode"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "replicas"), -1),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers"), []),
        (("metadata", "name"), "FSS photos"),
    ],
)
def test_a_wrong_value_in_a_rayjob_is_found(path, value):
    manifest = copy.deepcopy(load("rayjob.yaml"))
    reach(manifest, path[:-1])[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(manifest)


def test_rayjob_authenticates_cleans_up_and_can_start():
    spec = load("rayjob.yaml")["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert spec["shutdownAfterJobFinishes"] is True  # without it the time to live has no effect
    assert spec["ttlSecondsAfterFinished"] > 0
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert set(mounts) == volumes
        assert mounts["shared"] == "/mnt/shared"
    assert len({group["template"]["spec"]["containers"][0]["image"] for group in groups}) == 1


def test_rayjob_works_on_exactly_the_gpus_that_it_may_order():
    """From none on; its autoscaler tells Ray no limit, so the number of workers is said."""
    spec = load("rayjob.yaml")["spec"]
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    words = spec["entrypoint"].split()
    assert f"cluster.train_workers={group['maxReplicas'] * gpus}" in words
    assert f"cluster.workers={group['maxReplicas'] * gpus}" in words
    assert spec["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    assert group["minReplicas"] == group["replicas"] == 0


def test_jobs_get_the_same_environment_either_way():
    ours = load("runtime-env.yaml")
    assert yaml.safe_load(load("rayjob.yaml")["spec"]["runtimeEnvYAML"]) == ours
    assert parse_and_validate_env_vars(ours["env_vars"]) == ours["env_vars"] == VARIABLES


def test_ray_has_one_version_everywhere():
    texts = [(DEPLOY / name).read_text() for name in ("gpu-cluster.yaml", "Dockerfile", "rayjob.yaml")]
    versions = {version for text in texts for version in re.findall(r"(?:rayproject/ray:|rayVersion: )([\d.]+)", text)}
    assert len(versions) == 1
    lock = ROOT / "requirements.lock"
    if lock.exists():
        assert re.search(rf"^ray(\[[^\]]*\])?=={re.escape(versions.pop())}\b", lock.read_text(), re.MULTILINE)


def test_mlflow_knows_the_names_it_is_called_by():
    from mlflow.server.security_utils import is_allowed_host_header

    deployment, service = list(yaml.safe_load_all((DEPLOY / "mlflow.yaml").read_text()))[1:]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    (allowed,) = [a.removeprefix("--allowed-hosts=") for a in container["args"] if a.startswith("--allowed-hosts=")]
    uri = re.search(r"tracking\.uri=http://(\S+)", load("rayjob.yaml")["spec"]["entrypoint"])[1]
    name, port = uri.split(":")
    assert (service["metadata"]["name"], str(service["spec"]["ports"][0]["port"])) == (name, port)
    for host in (name, uri, "localhost:5000", "127.0.0.1:8080"):
        assert is_allowed_host_header(allowed.split(","), host), host
    assert not is_allowed_host_header(allowed.split(","), "mlflow.attacker.example:5000")
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert deployment["spec"]["strategy"]["type"] == "Recreate"
    assert service["spec"]["type"] == "ClusterIP"


# ------------------------------------------------------------------------------------------------ sbatch

SBATCH = DEPLOY / "slurm.sbatch"
#: Programs of a machine on which no Slurm runs: they answer as those of a job of two machines do, and print what Ray is
#: to start on each.
STUBS = {
    "scontrol": 'test "$*" = "show hostnames n[01-02]" && printf "n01\\nn02\\n"',
    "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "hostname": 'test "$1" = --all-ip-addresses && echo "10.0.0.7 172.17.0.1 fe80::1 "',
    "ray": 'printf "%s\\n" "$RAY_AUTH_MODE" "$@"',
}


def started(tmp_path):
    """What the script has `srun` start, word by word, with stubs of Slurm and Ray."""
    folder = tmp_path / ".venv/bin"
    folder.mkdir(parents=True)
    for name, body in STUBS.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "n[01-02]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "32"}
    done = subprocess.run(
        ["bash", SBATCH],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "SLURM_GPUS_ON_NODE": "4", **slurm},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_slurm_starts_a_ray_on_all_machines_and_the_run_on_the_first(tmp_path):
    """Against stubs: no Slurm is asked here."""
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args as ray_starts_with

    token, program, *words = started(tmp_path)
    assert (token, program) == ("token", "symmetric-run")
    separator = words.index("--")
    arguments, entrypoint = words[:separator], words[separator + 1 :]
    assert arguments[:4] == ["--address", "10.0.0.7:6379", "--min-nodes", "2"]
    assert ray_starts_with(arguments) == ["--num-cpus=32", "--num-gpus=4"]
    assert entrypoint[:3] == ["python", "-m", "jobs.pipeline"]
    assert "cluster.address=10.0.0.7:6379" in entrypoint


def test_slurm_orders_the_gpus_that_training_takes():
    ordered = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", SBATCH.read_text(), re.MULTILINE))
    (command,) = (one for one in commands(SBATCH.read_text()) if one[0] == "jobs.pipeline")
    assert f"cluster.train_workers={int(ordered['nodes']) * int(ordered['gpus-per-node'])}" in command
    assert ordered["ntasks-per-node"] == "1"
    assert {"exclusive", "requeue"} <= set(ordered)


# ------------------------------------------------------------------------------------------------ commands, secrets


def commands(text: str) -> list[list[str]]:
    """The arguments after `python -m` of every job command in `text`; lines that end in a backslash are joined."""
    joined = re.sub(r"\\?\n\s+(?=[\w.]+=)|\\\n\s*", " ", text)
    found = re.findall(r"python -m (jobs\.\w+(?:[ \t]+[\w.]+=[^\s`]+)*)", joined)
    return [shlex.split(command) for command in found]


def command_problems(command: list[str], root: Path) -> list[str]:
    """What of a job command is not in the repository at `root`: the module, or a preset."""
    module, *arguments = command
    files = [root / f"{module.replace('.', '/')}.py"]
    files += [
        root / "conf" / "experiment" / f"{value}.yaml"
        for key, _, value in (argument.partition("=") for argument in arguments)
        if key == "experiment" and value != "NAME"
    ]
    return [f"there is no {path.relative_to(root)}" for path in files if not path.is_file()]


def test_commands_are_found_across_lines_and_checked_against_files(tmp_path):
    text = (
        "# python -m jobs.pipeline experiment=a \\\n    root=/x\nentrypoint: >-\n  python -m jobs.train\n  experiment=b"
    )
    first, second = commands(text)
    assert first == ["jobs.pipeline", "experiment=a", "root=/x"]
    assert second == ["jobs.train", "experiment=b"]
    assert command_problems(first, tmp_path) == ["there is no jobs/pipeline.py", "there is no conf/experiment/a.yaml"]
    for name in ("jobs/pipeline.py", "conf/experiment/a.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert command_problems(first, tmp_path) == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_commands_in_manifests_and_docs_exist(path):
    found = commands(path.read_text())
    assert found or path.name not in ("rayjob.yaml", "slurm.sbatch", "submit.md")
    if not (ROOT / "jobs" / "pipeline.py").exists():
        pytest.skip("jobs/pipeline.py is not in this checkout")
    assert [problem for command in found for problem in command_problems(command, ROOT)] == []


def test_the_settings_of_the_rayjob_are_settings():
    if not (ROOT / "conf" / "experiment" / "photos.yaml").exists() or find_spec("jobs._config") is None:
        pytest.skip("conf/experiment/photos.yaml or jobs/_config.py is not in this checkout")
    from jobs._config import load as load_config

    command, otherwise = commands(load("rayjob.yaml")["spec"]["entrypoint"])
    assert otherwise == ["jobs._refused"]
    config = load_config(command[1:])
    assert (config.root, config.corpus.root) == ("/mnt/shared/runs", "/mnt/shared/data/photos")


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_no_secrets_in_files(path):
    text = path.read_text()
    assert not re.search(r"RAY_AUTH_TOKEN[=:]|kind: Secret|password[=:]|(?:AKIA|ghp_|sk-)\w{8}", text, re.IGNORECASE)
