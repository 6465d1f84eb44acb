{{- define "lychee.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains "lychee" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "lychee.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lychee.labels" -}}
{{ include "lychee.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* The pods in which a part runs: of the gateway or of Triton, or the ones with both. */}}
{{- define "lychee.component" -}}
{{- if eq .root.Values.topology "together" }}server{{ else }}{{ .part }}{{ end }}
{{- end }}

{{- define "lychee.podSelector" -}}
{{ include "lychee.selector" .root }}
app.kubernetes.io/component: {{ include "lychee.component" . }}
{{- end }}

{{- /* The nodes of the Ray cluster of a bulk run. */}}
{{- define "lychee.raySelector" -}}
{{ include "lychee.selector" . }}
app.kubernetes.io/component: ray
{{- end }}

{{- define "lychee.image" -}}
{{- $tag := .image.tag | default .root.Chart.AppVersion -}}
{{- with .root.Values.imageRegistry }}{{ if not $.image.absolute }}{{ . }}/{{ end }}{{ end -}}
{{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{- /* Kubernetes' restricted profile. */}}
{{- define "lychee.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "lychee.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* What all pods have in common. Links to services are off: a service lychee-gateway would otherwise set
LYCHEE_GATEWAY_PORT=tcp://..., which the gateway takes for its own setting. */}}
{{- define "lychee.podBasics" -}}
serviceAccountName: {{ .Values.serviceAccount.name | default (include "lychee.fullname" .) }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Where pods go: away from each other by host, evenly over what topologySpread names; part, values. */}}
{{- define "lychee.placement" -}}
{{- $selector := include "lychee.podSelector" . -}}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if .values.affinity }}
affinity: {{ toYaml .values.affinity | nindent 2 }}
{{- else if ne .root.Values.antiAffinity "off" }}
affinity:
  podAntiAffinity:
    {{- if eq .root.Values.antiAffinity "required" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{ $selector | nindent 12 }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{ $selector | nindent 14 }}
    {{- end }}
{{- end }}
{{- with .root.Values.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - topologyKey: {{ .topologyKey }}
    maxSkew: {{ .maxSkew }}
    whenUnsatisfiable: {{ .whenUnsatisfiable }}
    labelSelector:
      matchLabels: {{ $selector | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "lychee.gatewayDrain" -}}{{ .Values.gateway.settings.drain_timeout_s | default 30 | float64 | ceil | int }}{{- end }}

{{- /* Loading, pulling images of gigabytes, and where the models are exported first, that. */}}
{{- define "lychee.progressSeconds" -}}
{{- add .Values.triton.loadTimeoutSeconds 600 (ternary 3600 0 (eq .Values.model.source "export")) }}
{{- end }}

{{- /* The pods that autoscaling adds and removes. */}}
{{- define "lychee.scaled" -}}
{{ include "lychee.fullname" . }}-{{ if eq .Values.topology "together" }}server{{ else }}triton{{ end }}
{{- end }}

{{- /* Milliseconds that a request waits for its turn at the encoder that lets it wait longest; 0 without requests. Damped
around the target: autoscalers take a number for proportional to the load, and a queue grows much faster than that. */}}
{{- define "lychee.queueQuery" -}}
{{- $labels := printf "%s,model=~\"%s\"" .labels (join "|" .root.Values.autoscaling.models) -}}
{{- $window := .root.Values.autoscaling.window -}}
sqrt({{ .root.Values.autoscaling.targetQueueMs }} * max(sum by (model) (rate(nv_inference_queue_duration_us{ {{- $labels -}} }[{{ $window }}])) / (sum by (model) (rate(nv_inference_request_success{ {{- $labels -}} }[{{ $window }}])) > 0)) / 1000) or vector(0)
{{- end }}

{{- define "lychee.tritonKeySecret" -}}
{{ .Values.triton.key.existingSecret | default (printf "%s-triton-key" (include "lychee.fullname" .)) }}
{{- end }}

{{- define "lychee.tritonKeyItem" -}}
{{ if .Values.triton.key.existingSecret }}{{ .Values.triton.key.item }}{{ else }}key{{ end }}
{{- end }}

{{- define "lychee.modelClaim" -}}
{{ .Values.model.claim.name | default (printf "%s-models" (include "lychee.fullname" .)) }}
{{- end }}

{{- /* The folder of one export: another checkpoint, precision or version of the exporter is another folder, so that pods of
both exist side by side while they are exchanged. */}}
{{- define "lychee.exportFolder" -}}
{{- $image := .Values.model.export.image -}}
{{ printf "%s %s" (join " " .Values.model.export.args) ($image.digest | default $image.tag | default .Chart.AppVersion) | sha256sum | trunc 12 }}
{{- end }}

{{- /* A Job cannot be changed: whatever changes it gives it another name. It finds an export that is there. */}}
{{- define "lychee.exportJob" -}}
{{- $changes := toJson (list .Values.model .Values.imageRegistry .Values.imagePullSecrets .Values.serviceAccount .Chart.Version) -}}
{{ include "lychee.fullname" . }}-export-{{ $changes | sha256sum | trunc 12 }}
{{- end }}

{{- /* Within /models: where the repository is. */}}
{{- define "lychee.modelPath" -}}
{{- if eq .Values.model.source "export" }}/models/{{ include "lychee.exportFolder" . }}
{{- else if .Values.model.path }}/models/{{ .Values.model.path }}
{{- else }}/models{{ end }}
{{- end }}

{{- define "lychee.egressDns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  to: {{ toYaml .Values.networkPolicy.dnsTo | nindent 4 }}
{{- end }}

{{- /* The receiver of traces, at the port of its URL. */}}
{{- define "lychee.egressTraces" -}}
{{- with .Values.tracing.endpoint }}
{{- $port := ternary 443 80 (hasPrefix "https" .) }}
- ports: [{port: {{ regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" | default $port }}}]
  to: {{ toYaml $.Values.tracing.to | nindent 4 }}
{{- end }}
{{- end }}

{{- define "lychee.internet" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except: [10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
- ipBlock:
    cidr: ::/0
    except: [fc00::/7, fe80::/10]
{{- end }}

{{- /* Where models come from: https on the internet, and what networkPolicy.modelEgress adds. */}}
{{- define "lychee.egressFetch" -}}
- ports: [{port: 443}]
  to: {{ include "lychee.internet" . | nindent 4 }}
{{- with .Values.networkPolicy.modelEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
