"""What is in deploy/ and mixin/: valid by the schemas of what reads it, hardened, and in step with what it deploys."""

import itertools
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _jsonnet  # type: ignore[import-untyped, unused-ignore]
import jsonschema  # type: ignore[import-untyped, unused-ignore]
import kubernetes_validate  # type: ignore[import-untyped, unused-ignore]
import pytest
import yaml

from deploy.generate import generated, rule_files, stale
from health_exporter import __version__
from health_exporter.cli import _parser
from tests.conftest import served
from tests.support import pryv

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
KUBERNETES = DEPLOY / "kubernetes"
UNIT = DEPLOY / "systemd" / "health-exporter.service"

PORT = 10054
DRAIN = 30
"""Seconds that the exporter may take to answer what is in flight; README.md promises it."""
KUBERNETES_VERSIONS = ("1.30", "1.37")


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a program that has to succeed, and return what it says."""
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=120, cwd=cwd, errors="replace"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def yaml_files() -> list[Path]:
    return sorted(path for path in DEPLOY.rglob("*") if path.suffix in {".yml", ".yaml"})


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- generated files ------------------------------------------------------------------------------------------------


def test_generated_files_are_in_step() -> None:
    run(sys.executable, "-m", "deploy.generate", "--check")
    assert stale() == []


def test_the_dashboards_of_kubernetes_are_the_dashboards() -> None:
    copies = sorted(path for path in generated() if path.suffix == ".json")
    assert [path.name for path in copies] == sorted(path.name for path in (ROOT / "dashboards").glob("*.json"))


def rule_groups() -> list[Any]:
    return [group for path in rule_files() for group in read(path)["groups"]]


def alerts() -> list[Any]:
    return [rule for group in rule_groups() for rule in group["rules"] if "alert" in rule]


def test_the_prometheus_rule_holds_every_rule() -> None:
    assert read(KUBERNETES / "operator" / "prometheusrule.yaml")["spec"]["groups"] == rule_groups()


@pytest.mark.parametrize("path", yaml_files(), ids=name)
def test_yaml_parses_and_is_not_empty(path: Path) -> None:
    assert read(path)


# --- Kubernetes -----------------------------------------------------------------------------------------------------


def manifests() -> list[Path]:
    """Return the files that hold a Kubernetes object as it is, not one for kustomize."""
    return [path for path in sorted(KUBERNETES.rglob("*.yaml")) if path.name != "kustomization.yaml"]


def kustomizations() -> list[Path]:
    return sorted(KUBERNETES.rglob("kustomization.yaml"))


def keys(required: str = "", **properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


TEXT = {"type": "string", "minLength": 1}
DURATION = {"type": "string", "pattern": r"^(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def many(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


RELABELING = keys(sourceLabels=many(TEXT), targetLabel=TEXT, replacement=TEXT, regex=TEXT, action=TEXT)
SELECTOR = keys(matchLabels=TEXTS)
RULE = keys("expr", record=TEXT, alert=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS) | {
    "oneOf": [{"required": ["record"]}, {"required": ["alert"]}]
}
RULE["properties"] |= {"for": DURATION, "keep_firing_for": DURATION}

# The parts in use of the CRDs of the Prometheus Operator 0.80 to 0.95. No package that is fit for tests ships them.
CUSTOM = {
    "monitoring.coreos.com/v1 ServiceMonitor": keys(
        "selector endpoints",
        selector=SELECTOR,
        endpoints=many(
            keys(port=TEXT, path=TEXT, interval=DURATION, scrapeTimeout=DURATION, relabelings=many(RELABELING))
        ),
    ),
    "monitoring.coreos.com/v1alpha1 ScrapeConfig": keys(
        httpSDConfigs=many(keys("url", url={"type": "string", "pattern": "^http"}, refreshInterval=DURATION)),
        metricsPath=TEXT,
        scrapeInterval=DURATION,
        scrapeTimeout=DURATION,
        relabelings=many(RELABELING),
    ),
    "monitoring.coreos.com/v1 PrometheusRule": keys(
        groups=many(keys("name", name=TEXT, interval=DURATION, rules=many(RULE)))
    ),
}


def assert_valid(document: Any) -> None:
    kind = f"{document['apiVersion']} {document['kind']}"
    if kind in CUSTOM:
        metadata = keys("name", name=TEXT, namespace=TEXT, labels=TEXTS)
        schema = keys("spec", apiVersion=TEXT, kind=TEXT, metadata=metadata, spec=CUSTOM[kind])
        jsonschema.validate(document, schema)
        return
    for version in KUBERNETES_VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


def raw(kind: str) -> Any:
    """Return the one object of a kind."""
    return next(document for document in map(read, manifests()) if document["kind"] == kind)


@pytest.mark.parametrize("path", manifests(), ids=name)
def test_manifests_are_valid(path: Path) -> None:
    assert_valid(read(path))


def test_a_key_that_is_unknown_or_of_a_wrong_type_would_be_noticed() -> None:
    service, monitor = raw("Service"), raw("ServiceMonitor")
    service["spec"]["prots"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="prots"):
        assert_valid(service)
    monitor["spec"]["endpoints"][0]["intervall"] = "30s"
    with pytest.raises(jsonschema.ValidationError, match="intervall"):
        assert_valid(monitor)


@pytest.mark.parametrize("path", kustomizations(), ids=name)
def test_kustomizations_name_files_that_are_there_and_all_of_them(path: Path) -> None:
    kustomization = read(path)
    generators = kustomization.get("configMapGenerator", [])
    files = {entry.rpartition("=")[2] for generator in generators for entry in generator["files"]}
    named = files | set(kustomization.get("resources", []))
    assert [entry for entry in sorted(named) if not (path.parent / entry).exists()] == []
    assert {entry.name for entry in path.parent.iterdir()} - {"kustomization.yaml"} == named - {"../base"}


def test_the_deployment_is_hardened() -> None:
    pod = raw("Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert raw("ServiceAccount")["automountServiceAccountToken"] is False
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "privileged": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert container["resources"]["limits"].keys() == {"memory"}
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    # Others can read no secret.
    secrets = next(volume["secret"] for volume in pod["volumes"] if "secret" in volume)
    assert secrets["defaultMode"] == 0o440
    assert {spread["topologyKey"] for spread in pod["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }


def test_a_pod_has_time_to_drain() -> None:
    pod = raw("Deployment")["spec"]["template"]["spec"]
    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > sleep + DRAIN


def test_selectors_find_the_pods() -> None:
    deployment = raw("Deployment")
    labels = deployment["metadata"] and deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        raw("Service")["spec"]["selector"],
        raw("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        raw("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(
            spread["labelSelector"]["matchLabels"]
            for spread in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    monitored = raw("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= raw("Service")["metadata"]["labels"].items()


def test_a_disruption_is_possible_and_leaves_a_replica() -> None:
    assert raw("PodDisruptionBudget")["spec"]["maxUnavailable"] < raw("Deployment")["spec"]["replicas"]


def test_ports_are_the_one_port() -> None:
    (container,) = raw("Deployment")["spec"]["template"]["spec"]["containers"]
    assert [(port["name"], port["containerPort"]) for port in container["ports"]] == [("http", PORT)]
    (port,) = raw("Service")["spec"]["ports"]
    assert (port["name"], port["port"], port["targetPort"]) == ("http", PORT, "http")
    (ingress,) = raw("NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in ingress["ports"]] == [PORT]
    assert all(source.keys() == {"namespaceSelector"} for source in ingress["from"])


def test_egress_leaves_out_the_addresses_of_cloud_metadata() -> None:
    policy = raw("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    blocks = [peer["ipBlock"] for rule in policy["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert [block["except"] for block in blocks] == [["169.254.0.0/16"], ["fe80::/10"]]
    assert all(rule["to"] and rule["ports"] for rule in policy["egress"])


def test_the_image_is_the_one_of_this_version() -> None:
    (image,) = read(KUBERNETES / "base" / "kustomization.yaml")["images"]
    (container,) = raw("Deployment")["spec"]["template"]["spec"]["containers"]
    assert (container["image"], image["name"], image["newTag"]) == ("health-exporter", "health-exporter", __version__)


@pytest.mark.parametrize("secrets", [False, True])
def test_the_config_for_kubernetes_is_valid(secrets: bool, tmp_path: Path) -> None:
    text = (KUBERNETES / "base" / "config.yml").read_text(encoding="utf-8")
    if secrets:
        # As it is after "#" is taken away.
        (tmp_path / "pryv-eu").write_text("a-token")
        text = re.sub(r"^  # ?", "  ", text, flags=re.MULTILINE).replace("/run/secrets/health-exporter", str(tmp_path))
        assert len(yaml.safe_load(text)["targets"]) == 2
    config = tmp_path / "config.yml"
    config.write_text(text)
    run(sys.executable, "exporter.py", "check", "--config.file", config)


def test_secrets_of_the_config_are_where_they_are_mounted() -> None:
    (container,) = raw("Deployment")["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    text = (KUBERNETES / "base" / "config.yml").read_text(encoding="utf-8")
    files = re.findall(r"_file: (\S+)", text)
    assert files
    assert all(Path(file).parent == Path(mounts["secrets"]) for file in files)
    assert f"--config.file={mounts['config']}/config.yml" in container["args"]


@pytest.mark.parametrize("overlay", ["base", "operator"])
def test_kustomize_builds_what_is_valid(overlay: str) -> None:
    built = run(program("kubectl"), "kustomize", KUBERNETES / overlay)
    documents = list(yaml.safe_load_all(built))
    for document in documents:
        assert_valid(document)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "health-exporter"
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    deployment = next(document for document in documents if document["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == f"registry.example.com/health-exporter:{__version__}"
    config = next(volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume)
    assert config != "health-exporter"
    assert ("ConfigMap", config) in names
    dashboards = [document for document in documents if "grafana_dashboard" in document["metadata"].get("labels", {})]
    sources = sorted((ROOT / "dashboards").glob("*.json")) if overlay == "operator" else []
    assert len(dashboards) == len(sources)
    held = [json.loads(text) for document in dashboards for text in document["data"].values()]
    assert sorted(one["uid"] for one in held) == sorted(json.loads(path.read_text())["uid"] for path in sources)


def test_the_address_of_discovery_follows_the_namespace(tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    for overlay in ("base", "operator"):
        path = tmp_path / "kubernetes" / overlay / "kustomization.yaml"
        path.write_text(path.read_text().replace("namespace: health-exporter", "namespace: elsewhere"))
    built = run(program("kubectl"), "kustomize", tmp_path / "kubernetes" / "operator")
    documents = list(yaml.safe_load_all(built))
    scrape = next(document for document in documents if document["kind"] == "ScrapeConfig")
    assert scrape["spec"]["httpSDConfigs"][0]["url"] == f"http://health-exporter.elsewhere.svc:{PORT}/sd"
    assert {document["metadata"].get("namespace", "elsewhere") for document in documents} == {"elsewhere"}


def documented(language: str) -> list[str]:
    """Return the code in docs/deploy.md."""
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in blocks]


def test_the_documented_overlay_builds(tmp_path: Path) -> None:
    overlay: dict[str, Any] = {}
    for block in documented("yaml"):
        overlay |= yaml.safe_load(block)
    assert {"resources", "images", "configMapGenerator", "labels", "patches"} <= overlay.keys()
    (resource,) = overlay["resources"]
    overlay["resources"] = [resource.replace("/base", "/operator")]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    (tmp_path / "mine" / "config.yml").write_text("targets: [mine]")
    shutil.copytree(KUBERNETES, tmp_path / "health_exporter" / "deploy" / "kubernetes")
    documents = list(yaml.safe_load_all(run(program("kubectl"), "kustomize", tmp_path / "mine")))
    kinds = {document["kind"]: document for document in documents}
    assert "ScrapeConfig" not in kinds
    assert kinds["ServiceMonitor"]["spec"]["endpoints"][0]["path"] == "/metrics"
    assert {document["metadata"]["labels"]["release"] for document in documents} == {"kube-prometheus-stack"}
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == f"registry.internal/health-exporter:{__version__}"
    config = next(volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume)
    held = {document["metadata"]["name"]: document["data"] for document in documents if document["kind"] == "ConfigMap"}
    assert held[config] == {"config.yml": "targets: [mine]"}


# --- scraping -------------------------------------------------------------------------------------------------------


def test_no_scrape_sets_the_labels_of_the_exporter() -> None:
    monitor, scrape = raw("ServiceMonitor")["spec"], raw("ScrapeConfig")["spec"]
    labels = {rule["targetLabel"] for rule in (*monitor["endpoints"], scrape) for rule in rule.get("relabelings", [])}
    jobs = read(COMPOSE / "prometheus.yml")["scrape_configs"]
    labels |= {rule["target_label"] for job in jobs for rule in job.get("relabel_configs", [])}
    assert labels == {"job", "exporter"}


def test_jobs_have_the_names_that_the_rules_know() -> None:
    jobs = [job["job_name"] for job in read(COMPOSE / "prometheus.yml")["scrape_configs"]]
    assert jobs == ["health-exporter", "health-probe"]
    # A ServiceMonitor calls its job as the Service.
    assert raw("Service")["metadata"]["name"] == "health-exporter"
    relabelings = raw("ScrapeConfig")["spec"]["relabelings"]
    assert {"targetLabel": "job", "replacement": "health-probe"} in relabelings


def paths() -> Iterator[str]:
    """Give every path of the exporter that something here asks for without more."""
    for job in read(COMPOSE / "prometheus.yml")["scrape_configs"]:
        for discovery in job.get("http_sd_configs", []):
            yield discovery["url"].removeprefix(f"http://exporter:{PORT}")
        if "http_sd_configs" not in job:
            yield job["metrics_path"]
    yield from re.findall(rf":{PORT}(/[a-z/-]+)", (COMPOSE / "compose.yml").read_text())
    yield from (endpoint["path"] for endpoint in raw("ServiceMonitor")["spec"]["endpoints"])
    for discovery in raw("ScrapeConfig")["spec"]["httpSDConfigs"]:
        yield re.sub(rf"^http://[a-z.-]+:{PORT}", "", discovery["url"])
    (container,) = raw("Deployment")["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        yield container[probe]["httpGet"]["path"]


@pytest.mark.parametrize("path", sorted(set(paths())))
async def test_paths_are_there(path: str) -> None:
    async with served(pryv("http://127.0.0.1:9")) as service:
        assert (await service.get(path)).status == 200


def commands() -> dict[str, list[str]]:
    """Return the arguments with which each way of running it starts the exporter."""
    unit = next(value for key, value in unit_settings() if key == "ExecStart")
    return {
        "compose": read(COMPOSE / "compose.yml")["services"]["exporter"]["command"],
        "kubernetes": raw("Deployment")["spec"]["template"]["spec"]["containers"][0]["args"],
        "systemd": unit.split()[1:],
    }


@pytest.mark.parametrize("way", ["compose", "kubernetes", "systemd"])
def test_commands_and_flags_are_there(way: str) -> None:
    options = _parser().parse_args(commands()[way])
    assert options.command == ("demo" if way == "compose" else "serve")


# --- compose --------------------------------------------------------------------------------------------------------


def services() -> dict[str, Any]:
    found: dict[str, Any] = read(COMPOSE / "compose.yml")["services"]
    return found


SERVICES = ["alertmanager", "exporter", "grafana", "prometheus"]


def test_compose_is_valid() -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    run(*checker, COMPOSE / "compose.yml")
    assert sorted(services()) == SERVICES


@pytest.mark.parametrize("service", SERVICES)
def test_services_are_hardened(service: str) -> None:
    settings = services()[service]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:\d+", settings["user"])
    assert settings["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in settings["ports"])
    assert "build" in settings or re.search(r":v?\d+\.\d+\.\d+$", settings["image"])
    assert not settings.get("privileged")
    assert not re.search(r"password|secret_key", json.dumps(settings), re.IGNORECASE)


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_is_there_and_read_only(service: str) -> None:
    volumes = read(COMPOSE / "compose.yml")["volumes"]
    for mount in services()[service].get("volumes", []):
        source, _, mode = mount.split(":") if mount.startswith(".") else (*mount.split(":"), "")
        if source.startswith("."):
            assert (COMPOSE / source).exists()
            assert mode == "ro"
        else:
            assert source in volumes


def test_grafana_has_no_account_and_finds_the_dashboards() -> None:
    environment = services()["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    mounts = {target: source for source, target, *_ in (m.split(":") for m in services()["grafana"]["volumes"])}
    provisioning = COMPOSE / "grafana" / "provisioning"
    (provider,) = read(provisioning / "dashboards" / "health-exporter.yml")["providers"]
    folder = (COMPOSE / mounts[provider["options"]["path"]]).resolve()
    assert folder == ROOT / "dashboards"
    assert list(folder.glob("*.json"))
    home = Path(environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (folder / home.name).exists()
    (source,) = read(provisioning / "datasources" / "prometheus.yml")["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"


def test_prometheus_reads_every_file_of_rules() -> None:
    mounts = {target: source for source, target, *_ in (m.split(":") for m in services()["prometheus"]["volumes"])}
    assert (COMPOSE / mounts["/etc/prometheus/rules"]).resolve() == ROOT / "alerts"
    assert read(COMPOSE / "prometheus.yml")["rule_files"] == [f"rules/{path.name}" for path in rule_files()]


def test_alertmanager_holds_back_what_the_example_does_and_tells_nobody() -> None:
    config = read(COMPOSE / "alertmanager.yml")
    assert config["inhibit_rules"] == read(ROOT / "alerts" / "alertmanager.example.yml")["inhibit_rules"]
    assert config["receivers"] == [{"name": "nobody"}]


@pytest.mark.e2e
def test_promtool_accepts_the_prometheus_config(tmp_path: Path) -> None:
    shutil.copy(COMPOSE / "prometheus.yml", tmp_path)
    shutil.copytree(ROOT / "alerts", tmp_path / "rules")
    said = run(program("promtool"), "check", "config", tmp_path / "prometheus.yml")
    assert f"{len(rule_files())} rule files found" in said


@pytest.mark.e2e
def test_amtool_accepts_the_alertmanager_config() -> None:
    run(program("amtool"), "check-config", COMPOSE / "alertmanager.yml")


# --- the image ------------------------------------------------------------------------------------------------------


def test_the_ways_to_run_it_fit_the_image() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"EXPOSE {PORT}\n" in dockerfile
    assert 'ENTRYPOINT ["health-exporter"]' in dockerfile
    user = re.findall(r"^USER (\S+)$", dockerfile, re.MULTILINE)[-1]
    security = raw("Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
    exporter = services()["exporter"]
    assert exporter["user"] == user
    assert (COMPOSE / exporter["build"]["context"]).resolve() == ROOT
    assert exporter["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert int(exporter["stop_grace_period"].removesuffix("s")) > DRAIN


# --- systemd --------------------------------------------------------------------------------------------------------


def unit_settings() -> list[tuple[str, str]]:
    lines = [line for line in UNIT.read_text().splitlines() if re.match(r"\w+=", line)]
    return [(line.partition("=")[0], line.partition("=")[2]) for line in lines]


def test_the_unit_is_hardened() -> None:
    settings = dict(unit_settings())
    assert settings["DynamicUser"] == "yes"
    assert settings["ProtectSystem"] == "strict"
    assert settings["CapabilityBoundingSet"] == ""
    assert settings["NoNewPrivileges"] == "yes"
    assert settings["Restart"] == "on-failure"
    assert settings["LoadCredential"]
    assert int(settings["TimeoutStopSec"].removesuffix("s")) > DRAIN
    # The process metrics need /proc/stat.
    assert "ProcSubset" not in settings


def test_the_unit_listens_on_loopback_until_it_is_told_otherwise() -> None:
    assert f"--web.listen-address=127.0.0.1:{PORT}" in commands()["systemd"]


@pytest.mark.e2e
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    # Nothing is installed in /opt: only the program's path is another.
    start = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.MULTILINE)
    unit = tmp_path / UNIT.name
    unit.write_text(start)
    result = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    run(analyze, "security", "--no-pager", "--offline=true", "--threshold=20", unit)


# --- mixin ----------------------------------------------------------------------------------------------------------


def mixin(**config: Any) -> Any:
    path = ROOT / "mixin" / "mixin.libsonnet"
    code = f"""
        local mixin = (import '{path}') + {{ _config+:: {json.dumps(config)} }};
        {{
          alerts: mixin.prometheusAlerts.groups,
          rules: mixin.prometheusRules.groups,
          dashboards: mixin.grafanaDashboards,
          visible: std.objectFields(mixin),
        }}
    """
    return json.loads(_jsonnet.evaluate_snippet("test", code))


def test_the_mixin_holds_every_rule_once() -> None:
    found = mixin()
    assert found["visible"] == []
    by_name = {group["name"]: group for group in found["alerts"] + found["rules"]}
    assert len(by_name) == len(found["alerts"]) + len(found["rules"])
    assert by_name == {group["name"]: group for group in rule_groups()}
    assert not [rule for group in found["rules"] for rule in group["rules"] if "alert" in rule]


def test_the_mixin_holds_every_dashboard() -> None:
    sources = sorted((ROOT / "dashboards").glob("*.json"))
    expected = {f"health-exporter-{path.name}": json.loads(path.read_text()) for path in sources}
    assert mixin()["dashboards"] == expected


def test_the_mixin_can_be_configured() -> None:
    first = alerts()[0]["alert"]
    found = mixin(
        excludedAlerts=[first],
        alertLabels={"team": "core"},
        runbookUrl="https://runbooks.example.com/health",
        dashboardTags=["team-core"],
    )
    rules = [rule for group in found["alerts"] for rule in group["rules"] if "alert" in rule]
    assert {rule["alert"] for rule in rules} == {rule["alert"] for rule in alerts()} - {first}
    assert {rule["labels"]["team"] for rule in rules} == {"core"}
    before = {rule["alert"]: rule for rule in alerts()}
    for rule in rules:
        assert rule["labels"]["severity"]
        if "runbook_url" in before[rule["alert"]]["annotations"]:
            anchor = before[rule["alert"]]["annotations"]["runbook_url"].partition("#")[2]
            assert rule["annotations"]["runbook_url"] == f"https://runbooks.example.com/health#{anchor}"
    tags = itertools.chain.from_iterable(dashboard["tags"] for dashboard in found["dashboards"].values())
    assert list(tags).count("team-core") == len(found["dashboards"])


def test_the_documented_use_of_the_mixin_gives_files() -> None:
    (code,) = documented("jsonnet")
    code = code.replace("github.com/OWNER/health_exporter", str(ROOT))
    files = json.loads(_jsonnet.evaluate_snippet("test", code))
    assert len(files.pop("rules.yml")["groups"]) == len(rule_groups())
    assert {dashboard["uid"] for dashboard in files.values()} == {
        json.loads(path.read_text())["uid"] for path in (ROOT / "dashboards").glob("*.json")
    }


def test_the_mixin_names_no_dependency() -> None:
    assert json.loads((ROOT / "mixin" / "jsonnetfile.json").read_text())["dependencies"] == []
