"""What the chart says of the project, and what it promises, in values, names and times."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, NAMESPACE, RefusedError, container, environment, of_kind, one, pods, render, run_helm
from deployment import ROOT, read_services
from lychee_server.gateway.models_file import PER_MODEL, read_models
from lychee_server.gateway.settings import ENVIRONMENT_PREFIX, GatewaySettings, variable_of
from lychee_server.triton_tracing import trace_options

from .conftest import CLAIM, MATRIX

SET_BY_THE_CHART = {"api_keys", "api_keys_file", "host", "models", "port", "redis_url", "triton_url"}
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
KSERVE = ROOT / "examples" / "kserve"


MODELS_FILE = "/etc/lychee/models/models.json"


def lines_of(manifests: list[dict[str, Any]]) -> list[str]:
    return container(manifests, "Deployment triton", "triton")["args"][1:]


def test_helm_finds_nothing_to_complain_about(case: str) -> None:
    assert "0 chart(s) failed" in run_helm("lint", "--strict", CHART, values=MATRIX[case])


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    release = runpy.run_path(str(ROOT / "deploy" / "release" / "version.py"))["RELEASE"]
    assert (chart["appVersion"], chart["version"]) == (release, release)
    assert container(render(), "Deployment gateway", "gateway")["image"] == f"lychee-rerank-gateway:{release}"


def test_images_and_versions_are_those_of_compose() -> None:
    services = read_services()
    images = {name: services[name]["image"] for name in ("gateway", "redis")}
    manifests = render({"redis": {"enabled": True}})
    assert container(manifests, "Deployment gateway", "gateway")["image"].partition(":")[0] == images["gateway"]
    assert container(manifests, "Deployment redis", "redis")["image"] == images["redis"]
    triton = container(manifests, "Deployment triton", "triton")
    assert triton["image"].partition(":")[0] == services["triton"]["image"].partition(":")[0]
    assert container(manifests, "Deployment triton", "export")["image"].partition(":")[0] == services["export"]["image"]


def test_redis_and_triton_run_with_what_compose_gives_them() -> None:
    services = read_services(LYCHEE_TRITON_KEY="$(LYCHEE_TRITON_KEY)")
    manifests = render({"redis": {"enabled": True}, "model": {"source": "claim", "claim": {"name": "models"}}})
    assert container(manifests, "Deployment redis", "redis")["args"] == services["redis"]["command"]
    args = container(manifests, "Deployment triton", "triton")["args"]
    composes = [word.replace("$$", "$") for word in services["triton"]["command"]]
    assert set(composes) <= set(args)
    more = {word.partition("=")[0] for word in set(args) - set(composes)}
    assert more == {"--exit-timeout-secs", "--grpc-max-connection-age", "--grpc-max-connection-age-grace"}


def test_settings_of_the_gateway_are_those_that_it_has() -> None:
    properties = SCHEMA["definitions"]["settings"]["properties"]
    assert set(properties) == set(GatewaySettings.model_fields) - SET_BY_THE_CHART
    kinds = {bool: "boolean", int: "integer", float: "number", tuple: "array", str: "string"}
    for name, schema in properties.items():
        default = GatewaySettings.model_fields[name].default
        assert default is None or kinds[type(default)] in schema["type"], name


def test_models_reach_the_gateway_as_it_reads_them(tmp_path: Path) -> None:
    schema = SCHEMA["properties"]["gateway"]["properties"]["models"]["additionalProperties"]
    assert set(schema["properties"]) == set(PER_MODEL)
    manifests = render(MATRIX["several"])
    gateway = container(manifests, "Deployment gateway", "gateway")
    assert environment(gateway)[variable_of("models")] == MODELS_FILE
    assert {"name": "models", "mountPath": "/etc/lychee/models", "readOnly": True} in gateway["volumeMounts"]
    file = tmp_path / "models.json"
    file.write_text(one(manifests, "ConfigMap", "gateway-models")["data"]["models.json"])
    own = "dns:///lychee-triton.search.svc:8001"
    read = read_models(GatewaySettings(triton_url=own, models=file))
    assert read.default == "zh"
    assert read.settings["zh"].served_model_names == ("rerank-v3.5",)
    assert (read.settings["mini"].triton_url, read.settings["mini"].policy) == (own, "strict")


def test_changed_models_start_the_gateways_again() -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = one(render(values), "Deployment", "gateway")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/models"])

    several = MATRIX["several"]["gateway"]
    assert checksum(MATRIX["several"]) != checksum({"gateway": {**several, "defaultModel": "mini"}})


def test_settings_reach_the_gateway_as_it_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = render(MATRIX["public"])
    variables = environment(container(manifests, "Deployment gateway", "gateway"))
    assert {name for name in variables if name.startswith(ENVIRONMENT_PREFIX)} >= {variable_of("max_request_mb")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("$(POD_IP)", "10.1.2.3"))
    read = GatewaySettings()
    assert read.max_request_mb == 2_000_000
    assert (read.timeout_s, read.web, read.cache_mb, read.policy) == (12.5, False, 0, "balanced")
    assert read.image_hosts == ("images.example.org", "*.example.net")
    assert read.allowed_hosts[0] == "rerank.example.org"
    # Prometheus comes to the pod's address, callers in the cluster to the service's names.
    assert {"10.1.2.3", "lychee-gateway", f"lychee-gateway.{NAMESPACE}.svc.cluster.local"} <= set(read.allowed_hosts)
    assert read.redis_url == "redis://lychee-redis:6379/0"


def test_every_value_has_a_default_and_a_type() -> None:
    def compare(values: Any, schema: dict[str, Any], path: str) -> None:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        properties = schema.get("properties")
        if properties is None or path == ".gateway.settings":
            return
        assert schema["additionalProperties"] is False, path
        optional = {"global", "absolute", "claims", "requests", "limits"}
        assert set(properties) - optional <= set(values) <= set(properties), path
        for name, value in values.items():
            compare(value, properties[name], f"{path}.{name}")

    compare(VALUES, SCHEMA, "")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gateway": {"settings": {"max_concurency": 8}}}, "max_concurency"),
        ({"gateway": {"settings": {"api_keys": ["secret"]}}}, "api_keys"),
        ({"gateway": {"settings": {"max_documents": 0}}}, "max_documents"),
        ({"gateway": {"models": {"a": {"port": 1}}, "defaultModel": "a"}}, "port"),
        ({"gateway": {"models": {"a": {}}}}, "defaultModel is empty"),
        ({"tritn": {}}, "tritn"),
        ({"autoscaling": {"kind": "both"}}, "/autoscaling/kind"),
        ({"autoscaling": {"kind": "hpa", "minReplicas": 21}}, "minReplicas"),
        ({"model": {"source": "claim"}}, "/model/claim/name"),
        ({"model": {"source": "image"}}, "/model/image/reference"),
        ({"model": {"source": "copy"}}, "/model/copy/image"),
        ({"model": {"source": "s3"}}, "/model/s3/command"),
        ({"triton": {"enabled": False}}, "/triton/url"),
        ({"triton": {"url": "elsewhere:8001"}}, "/triton/url"),
        ({"triton": {"enabled": False, "url": "a:1"}, "autoscaling": {"kind": "keda"}}, "/autoscaling/kind"),
        ({"triton": {"gpu": {"count": 1, "resource": "gpu"}}}, "/triton/gpu/resource"),
        ({"topology": "together", "gateway": {"autoscaling": {"enabled": True}}}, "/gateway/autoscaling/enabled"),
        ({"redis": {"enabled": True, "urlSecret": "redis"}}, "/redis/urlSecret"),
        ({"ingress": {"enabled": True}}, "/ingress/hosts"),
        ({"httpRoute": {"enabled": True}}, "/httpRoute/parentRefs"),
        ({"httpRoute": {"canary": {"weight": 5}}}, "/httpRoute/canary/service"),
        ({"bulk": {"enabled": True, "input": "/data/pairs"}}, "/bulk/output"),
        ({"bulk": {"workers": {"triton": True}}, "triton": {"enabled": False, "url": "a:1"}}, "/triton/enabled"),
        ({"bulk": {"workers": {"triton": True}, "url": "a:1"}}, "/bulk/url"),
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(said)):
        render(values)


def test_a_volume_from_an_image_needs_a_kubernetes_that_has_them() -> None:
    with pytest.raises(RefusedError, match=r"Kubernetes v?1\.30\.0; .* set model\.source to \"copy\""):
        render(MATRIX["image"], 30)


def test_the_release_that_is_called_like_the_project_names_nothing_twice() -> None:
    names = {manifest["metadata"]["name"] for manifest in render() if manifest["kind"] == "Deployment"}
    assert names == {"lychee-gateway", "lychee-triton"}
    text = run_helm("template", "shop", CHART)
    assert "name: shop-lychee-rerank-gateway\n" in text


def test_grace_periods_are_longer_than_what_has_to_end(case: str) -> None:
    manifests = render(MATRIX[case])
    settings = MATRIX[case].get("gateway", {}).get("settings", {})
    drain_s = settings.get("drain_timeout_s", GatewaySettings.model_fields["drain_timeout_s"].default)
    for name, pod in pods(manifests).items():
        if name.startswith("Deployment") and not name.endswith("redis"):
            needed_s = 0.0
            for one_container in pod["spec"]["containers"]:
                if one_container["name"] == "gateway":
                    needed_s += float(one_container["lifecycle"]["preStop"]["exec"]["command"][-1]) + drain_s
                else:
                    needed_s += VALUES["triton"]["exitTimeoutSeconds"]
            assert needed_s + 5 <= pod["spec"]["terminationGracePeriodSeconds"] <= needed_s + 16, name


def test_calls_may_end_on_a_connection_that_is_too_old() -> None:
    for timeout_s, expected in ((None, "35000"), (12.5, "17500")):
        args = lines_of(render({"gateway": {"settings": {"timeout_s": timeout_s}}}))
        assert f"--grpc-max-connection-age-grace={expected}" in args
    assert "--grpc-max-connection-age=60000" in args


def test_the_gateway_asks_all_tritons_through_a_headless_service() -> None:
    manifests = render()
    service = one(manifests, "Service", "triton")
    assert service["spec"]["clusterIP"] == "None"
    url = environment(container(manifests, "Deployment gateway", "gateway"))[variable_of("triton_url")]
    assert url == f"dns:///lychee-triton.{NAMESPACE}.svc:8001"
    assert {"grpc", "triton-http"} < {
        port["name"] for port in container(manifests, "Deployment triton", "triton")["ports"]
    }
    together = container(render({"topology": "together"}), "Deployment server", "gateway")
    assert environment(together)[variable_of("triton_url")] == "localhost:8001"


def test_services_find_pods_and_policies_know_ports(case: str) -> None:
    manifests = render(MATRIX[case])
    labels = [pod["metadata"]["labels"] for pod in pods(manifests).values()]
    ports = {
        port["name"]
        for pod in pods(manifests).values()
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    }
    selectors = [service["spec"]["selector"] for service in of_kind(manifests, "Service")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind(manifests, "PodMonitor")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind(manifests, "PodDisruptionBudget")]
    for policy in of_kind(manifests, "NetworkPolicy"):
        selectors.append(policy["spec"]["podSelector"]["matchLabels"])
        named = [port["port"] for rule in policy["spec"].get("ingress", []) for port in rule.get("ports", [])]
        assert set(named) <= ports, policy["metadata"]["name"]
    for selector in selectors:
        assert any(selector.items() <= one.items() for one in labels), selector


def test_only_gateway_and_prometheus_reach_triton() -> None:
    policy = one(render(), "NetworkPolicy", "triton")["spec"]
    reached = {port["port"]: rule["from"] for rule in policy["ingress"] for port in rule["ports"]}
    (gateway,) = reached["grpc"]
    assert gateway["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert reached["grpc"] == reached["triton-http"]
    assert reached["triton-metrics"] == VALUES["networkPolicy"]["prometheusFrom"]
    assert one(render({"model": CLAIM}), "NetworkPolicy", "triton")["spec"]["egress"] == []


def test_a_bulk_run_is_let_in_where_it_asks_and_lets_nobody_else_in() -> None:
    manifests = render(MATRIX["bulk"])
    ray = one(manifests, "NetworkPolicy", "ray")["spec"]
    own = {"podSelector": ray["podSelector"]}
    among_themselves, dashboard = ray["ingress"]
    assert among_themselves == {"from": [own]}
    assert dashboard["from"] == VALUES["networkPolicy"]["kuberayFrom"]
    assert own in one(manifests, "NetworkPolicy", "triton")["spec"]["ingress"][0]["from"]
    assert own in one(render(MATRIX["bulk-gateway"]), "NetworkPolicy", "gateway")["spec"]["ingress"][0]["from"]
    assert not of_kind(render(), "RayJob") + of_kind(render(), "NetworkPolicy", "ray")


@pytest.mark.parametrize(
    ("bulk", "url"),
    [
        ("bulk", f"dns:///lychee-triton.{NAMESPACE}.svc:8001"),
        ("bulk-gateway", "http://lychee-gateway:7860"),
        ("bulk-gpu", "localhost:8001"),
    ],
)
def test_a_bulk_run_asks_the_nearest_server(bulk: str, url: str) -> None:
    manifests = render(MATRIX[bulk])
    words = shlex.split(one(manifests, "RayJob")["spec"]["entrypoint"])
    options = MATRIX[bulk]["bulk"]
    assert words[:5] == ["exec", "lychee", "bulk", options["input"], options["output"]]
    assert words[5:] == ["--address", "auto", "--url", url, *options.get("args", [])]
    if bulk == "bulk-gpu":
        triton = container(manifests, "RayJob workers", "triton")
        assert "lifecycle" not in triton
        assert not [word for word in triton["args"] if "connection-age" in word]
        assert triton["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_traces_go_to_the_receiver_as_lychee_load_sends_them() -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.observability:4318"}
    manifests = render(MATRIX["traced"])
    args = container(manifests, "Deployment triton", "triton")["args"]
    assert [word for word in args if "trace-config" in word] == trace_options(variables)
    assert variables.items() <= environment(container(manifests, "Deployment gateway", "gateway")).items()
    for part in ("gateway", "triton"):
        rules = one(manifests, "NetworkPolicy", part)["spec"]["egress"]
        assert {"ports": [{"port": 4318}], "to": [{"namespaceSelector": {}}]} in rules
        assert {"port": 53, "protocol": "UDP"} in rules[0]["ports"]
    secure = render({"tracing": {"endpoint": "https://traces.example.org"}})
    assert [{"port": 443}] in [rule["ports"] for rule in one(secure, "NetworkPolicy", "triton")["spec"]["egress"]]
    assert "trace-config" not in str(container(render(), "Deployment triton", "triton")["args"])


def test_another_export_is_another_folder_and_another_job() -> None:
    job = {"as": "job", "args": ["lychee-mini"]}
    folders, names = set(), set()
    for precision in ("fp32", "w8"):
        manifests = render({"model": {"export": {**job, "args": ["lychee-mini", "--precision", precision]}}})
        (made,) = of_kind(manifests, "Job")
        names.add(made["metadata"]["name"])
        (exported,) = made["spec"]["template"]["spec"]["containers"]
        folder = environment(exported)["LYCHEE_REPOSITORY"]
        assert f"--model-repository={folder}" in lines_of(manifests)
        folders.add(folder)
    assert len(folders) == len(names) == 2


def test_whatever_changes_a_job_gives_it_another_name_and_the_same_folder() -> None:
    names, folders = set(), set()
    for more in ({}, {"resources": {"limits": {"memory": "9Gi"}}}, {"nodeSelector": {"memory": "large"}}):
        (made,) = of_kind(render({"model": {"export": {"as": "job", **more}}}), "Job")
        names.add(made["metadata"]["name"])
        (exported,) = made["spec"]["template"]["spec"]["containers"]
        folders.add(environment(exported)["LYCHEE_REPOSITORY"])
    assert (len(names), len(folders)) == (3, 1)


def test_autoscaled_pods_are_not_counted_by_their_deployment() -> None:
    for case, deployment in (("hpa", "triton"), ("keda", "triton"), ("together-export", "server"), ("hpa", "gateway")):
        manifests = render(MATRIX[case])
        assert "replicas" not in one(manifests, "Deployment", deployment)["spec"]
        scaled = of_kind(manifests, "HorizontalPodAutoscaler") + of_kind(manifests, "ScaledObject")
        assert f"lychee-{deployment}" in {one["spec"]["scaleTargetRef"]["name"] for one in scaled}


def test_alerts_and_dashboard_are_those_of_compose() -> None:
    manifests = render(MATRIX["monitored"])
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    assert one(manifests, "PrometheusRule")["spec"] == alerts
    (shown,) = one(manifests, "ConfigMap", "dashboard")["data"].values()
    dashboard = ROOT / "deploy" / "grafana" / "dashboards" / "lychee-rerank.json"
    assert json.loads(shown) == json.loads(dashboard.read_text(encoding="utf-8"))
    for monitor in of_kind(manifests, "PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["relabelings"][0]["replacement"] in ("gateway", "triton")
        assert ("authorization" in endpoint) == monitor["metadata"]["name"].endswith("gateway")


def test_the_notes_warn_of_what_will_not_work() -> None:
    def notes(**values: Any) -> str:
        return run_helm("install", "lychee", CHART, "--dry-run=client", values=values).partition("NOTES:")[2]

    assert "WARNING" not in notes()
    assert "ReadWriteOnce" in notes(triton={"replicas": 2})
    assert "ReadWriteOnce" in notes(topology="together")
    assert "no API keys" in notes(gateway={"service": {"type": "LoadBalancer"}})
    assert "monitoring.podMonitor" in notes(autoscaling={"kind": "hpa"})


def test_the_table_of_the_readme_names_values_that_exist() -> None:
    text = (CHART / "README.md").read_text(encoding="utf-8")
    values, sources = (
        re.findall(r"^\| `([\w.]+)` \|", part, re.MULTILINE) for part in text.split("| `model.source` | what happens |")
    )
    assert sources == SCHEMA["properties"]["model"]["properties"]["source"]["enum"]
    named = [*values, *re.findall(r"--set '?([\w.]+)=", text)]
    assert len(named) > 20
    for name in named:
        value: Any = VALUES
        for part in name.removesuffix(".*").split("."):
            assert part in value, name
            value = value[part]


def test_the_example_for_kserve_fits_the_chart() -> None:
    service = yaml.safe_load((KSERVE / "inferenceservice.yaml").read_text(encoding="utf-8"))
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert set(service["spec"]) == {"predictor"}
    assert set(service["spec"]["predictor"]) <= {"minReplicas", "maxReplicas", "model", "nodeSelector", "tolerations"}
    model = service["spec"]["predictor"]["model"]
    assert (model["runtime"], model["modelFormat"], model["protocolVersion"]) == (
        "kserve-tritonserver",
        {"name": "triton"},
        "v2",
    )
    assert model["storageUri"].startswith("pvc://")
    assert model["runtimeVersion"] == VALUES["triton"]["image"]["tag"]
    assert model["resources"] == VALUES["triton"]["resources"]
    assert set(model["args"]) <= set(lines_of(render()))
    values = yaml.safe_load((KSERVE / "values-gateway.yaml").read_text(encoding="utf-8"))
    manifests = render(values)
    assert [one["metadata"]["name"] for one in of_kind(manifests, "Deployment")] == ["lychee-gateway"]
    name = service["metadata"]["name"]
    assert values["triton"]["url"] == f"http://{name}-predictor.{NAMESPACE}.svc:80"
    (rule,) = values["networkPolicy"]["gatewayEgress"]
    assert rule["to"][0]["podSelector"]["matchLabels"] == {"serving.kserve.io/inferenceservice": name}
    assert rule in one(manifests, "NetworkPolicy", "gateway")["spec"]["egress"]
