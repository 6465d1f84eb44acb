"""Values that together use every branch of the chart."""

from __future__ import annotations

from typing import Any

import pytest
from chart import OLDEST

CLAIM = {"source": "claim", "claim": {"name": "models"}, "path": "mini"}
GATEWAY = {"kind": "Gateway", "name": "public", "namespace": "gateways"}

MATRIX: dict[str, dict[str, Any]] = {
    "default": {},
    "together": {"topology": "together", "model": CLAIM, "gateway": {"replicas": 3}},
    "together-export": {"topology": "together", "autoscaling": {"kind": "hpa"}},
    "export-job": {
        "model": {
            "export": {
                "as": "job",
                "args": ["vec-ai/lychee-rerank-mm", "--precision", "fp16", "--target", "cuda"],
                "secret": "hub",
                "nodeSelector": {"memory": "large"},
            },
            "claim": {"accessModes": ["ReadWriteMany"], "storageClassName": "nfs"},
        },
        "triton": {"replicas": 2},
    },
    "image": {"model": {"source": "image", "image": {"reference": "registry.example.org/models:7"}}},
    "copy": {"model": {"source": "copy", "copy": {"image": "registry.example.org/models:7"}}},
    "s3": {
        "model": {
            "source": "s3",
            "s3": {"command": ["aws", "s3", "sync", "s3://models/mini", "/models"], "secret": "s3"},
        }
    },
    "gpu": {"triton": {"gpu": {"count": 1}, "runtimeClassName": "nvidia", "configName": "tensorrt"}, "model": CLAIM},
    "mig": {
        "triton": {
            "gpu": {"count": 2, "resource": "nvidia.com/mig-1g.10gb"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "nodeSelector": {"nvidia.com/mig.strategy": "mixed"},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        }
    },
    "hpa": {
        "autoscaling": {"kind": "hpa", "maxReplicas": 8},
        "gateway": {"autoscaling": {"enabled": True}},
        "monitoring": {"podMonitor": {"enabled": True}},
    },
    "keda": {"autoscaling": {"kind": "keda", "keda": {"authenticationRef": "prometheus"}}},
    "monitored": {
        "monitoring": {
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboard": {"enabled": True},
        },
        "gateway": {"apiKeys": {"secret": "keys"}},
    },
    "public": {
        "gateway": {
            "apiKeys": {"secret": "keys"},
            "settings": {
                "allowed_hosts": ["rerank.example.org"],
                "image_hosts": ["images.example.org", "*.example.net"],
                "calibration": "/etc/lychee/own/calibration.json",
                "timeout_s": 12.5,
                "drain_timeout_s": 12.5,
                "max_request_mb": 2000000,
                "web": False,
                "cache_mb": 0,
                "policy": None,
            },
            "forwardedAllowIps": "10.0.0.0/8",
            "extraVolumes": [{"name": "own", "configMap": {"name": "calibration"}}],
            "extraVolumeMounts": [{"name": "own", "mountPath": "/etc/lychee/own", "readOnly": True}],
            "podAnnotations": {"example.org/owner": "search"},
        },
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "hosts": ["rerank.example.org"],
            "tls": [{"hosts": ["rerank.example.org"], "secretName": "tls"}],
        },
        "networkPolicy": {"gatewayFrom": [{"namespaceSelector": {"matchLabels": {"team": "web"}}}]},
        "redis": {"enabled": True},
    },
    "canary": {
        "httpRoute": {
            "enabled": True,
            "parentRefs": [GATEWAY],
            "hostnames": ["rerank.example.org"],
            "canary": {"service": "lychee-next-gateway", "weight": 5},
        },
        "redis": {"urlSecret": "redis"},
    },
    "external-triton": {
        "triton": {"enabled": False, "url": "http://mini-predictor.search.svc:80"},
        "networkPolicy": {"gatewayEgress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 8080}]}]},
    },
    "several": {
        "gateway": {
            "models": {
                "zh": {"triton_url": "dns:///lychee-zh-triton.search.svc:8001", "served_model_names": ["rerank-v3.5"]},
                "mini": {"policy": "strict", "max_concurrency": 4},
            },
            "defaultModel": "zh",
        },
        "networkPolicy": {"gatewayEgress": [{"to": [{"podSelector": {}}], "ports": [{"port": 8001}]}]},
    },
    "traced": {"tracing": {"endpoint": "http://collector.observability:4318"}, "model": CLAIM},
    "bulk": {
        "bulk": {
            "enabled": True,
            "input": "s3://pairs/today/",
            "output": "s3://pairs/scores",
            "args": ["--keep-columns", "sku", "--instruction", "what's cheap: $5"],
            "secret": "s3",
        },
        "gateway": {"apiKeys": {"secret": "keys"}},
        "networkPolicy": {"bulkEgress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 9000}]}]},
    },
    "bulk-gateway": {
        "topology": "together",
        "bulk": {
            "enabled": True,
            "input": "/data/pairs",
            "output": "/data/scores",
            "claim": "data",
            "apiKey": {"secret": "keys", "item": "probe-key"},
            "extraEnv": [{"name": "AWS_REGION", "value": "eu-central-1"}],
        },
        "networkPolicy": {"gatewayFrom": [{"namespaceSelector": {"matchLabels": {"team": "web"}}}]},
    },
    "bulk-gpu": {
        "triton": {"gpu": {"count": 1}, "runtimeClassName": "nvidia"},
        "model": {"source": "copy", "copy": {"image": "registry.example.org/models:7"}},
        "networkPolicy": {"modelEgress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 9000}]}]},
        "bulk": {
            "enabled": True,
            "input": "gs://pairs/*.parquet",
            "output": "gs://pairs/scores",
            "head": {"nodeSelector": {"pool": "plain"}, "tolerations": [{"operator": "Exists"}]},
            "workers": {
                "triton": True,
                "replicas": 8,
                "nodeSelector": {"pool": "gpu"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            },
        },
    },
    "own-cluster": {
        "fullnameOverride": "lychee-next",
        "imageRegistry": "registry.example.org/lychee",
        "imagePullSecrets": [{"name": "registry"}],
        "antiAffinity": "required",
        "topologySpread": [],
        "gateway": {"priorityClassName": "interactive", "image": {"digest": "sha256:" + 64 * "0"}},
        "triton": {"key": {"existingSecret": "triton-key"}, "affinity": {"podAntiAffinity": {}}},
        "serviceAccount": {"create": False, "name": "default"},
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
    },
}
OLDEST_MINOR = {"image": 31}
"""Kubernetes 1.x that values need, where that is not the chart's oldest."""


@pytest.fixture(params=sorted(MATRIX))
def case(request: pytest.FixtureRequest) -> str:
    """Name each entry of MATRIX."""
    return str(request.param)


@pytest.fixture
def oldest(case: str) -> int:
    """Return the oldest Kubernetes 1.x for a case."""
    return OLDEST_MINOR.get(case, OLDEST)
