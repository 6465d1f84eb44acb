{{- define "lychee.gatewayContainer" -}}
{{- $values := .Values.gateway -}}
{{- $settings := $values.settings -}}
name: gateway
image: {{ include "lychee.image" (dict "root" . "image" $values.image) }}
imagePullPolicy: {{ $values.image.pullPolicy }}
ports:
  - name: http
    containerPort: 7860
env:
  {{- if $settings.allowed_hosts }}
  - name: POD_IP
    valueFrom:
      fieldRef:
        fieldPath: status.podIP
  {{- end }}
  - name: LYCHEE_GATEWAY_HOST
    value: 0.0.0.0
  - name: LYCHEE_GATEWAY_PORT
    value: "7860"
  - name: LYCHEE_GATEWAY_TRITON_URL
    value: {{ include "lychee.tritonUrl" . | quote }}
  {{- if $values.models }}
  - name: LYCHEE_GATEWAY_MODELS
    value: /etc/lychee/models/models.json
  {{- end }}
  {{- if .Values.triton.enabled }}
  - name: LYCHEE_TRITON_KEY
    valueFrom:
      secretKeyRef:
        name: {{ include "lychee.tritonKeySecret" . }}
        key: {{ include "lychee.tritonKeyItem" . }}
  {{- end }}
  {{- if $values.apiKeys.secret }}
  - name: LYCHEE_GATEWAY_API_KEYS_FILE
    value: /etc/lychee/keys/{{ $values.apiKeys.item }}
  {{- end }}
  {{- if .Values.redis.urlSecret }}
  - name: LYCHEE_GATEWAY_REDIS_URL
    valueFrom:
      secretKeyRef:
        name: {{ .Values.redis.urlSecret }}
        key: {{ .Values.redis.urlItem }}
  {{- else if .Values.redis.enabled }}
  - name: LYCHEE_GATEWAY_REDIS_URL
    value: redis://{{ include "lychee.fullname" . }}-redis:6379/0
  {{- end }}
  {{- range $name, $value := $settings }}
  {{- if not (kindIs "invalid" $value) }}
  - name: LYCHEE_GATEWAY_{{ upper $name }}
    {{- if eq $name "allowed_hosts" }}
    {{- $service := printf "%s-gateway" (include "lychee.fullname" $) }}
    {{- $own := list $service (printf "%s.%s" $service $.Release.Namespace) (printf "*.%s.%s" $service $.Release.Namespace) (printf "%s.%s.svc" $service $.Release.Namespace) (printf "%s.%s.svc.cluster.local" $service $.Release.Namespace) }}
    # Callers in the cluster and Prometheus come by these.
    value: {{ join "," (concat $value $own (list "$(POD_IP)")) | quote }}
    {{- else if kindIs "slice" $value }}
    value: {{ join "," $value | quote }}
    {{- else if kindIs "string" $value }}
    value: {{ $value | quote }}
    {{- else }}
    value: {{ toJson $value | quote }}
    {{- end }}
  {{- end }}
  {{- end }}
  {{- with $values.forwardedAllowIps }}
  # Addresses of proxies whose X-Forwarded-For is believed.
  - name: FORWARDED_ALLOW_IPS
    value: {{ . | quote }}
  {{- end }}
  {{- with .Values.tracing.endpoint }}
  - name: OTEL_EXPORTER_OTLP_ENDPOINT
    value: {{ . | quote }}
  {{- end }}
  {{- with $values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
# The kubelet asks by the pod's address, which allowed_hosts would refuse.
startupProbe:
  httpGet: {path: /health/live, port: http, httpHeaders: [{name: Host, value: localhost}]}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 120
# Ready: the golden pairs' scores are those of the reference model, through this gateway and the Tritons behind it.
readinessProbe:
  httpGet: {path: /health/ready, port: http, httpHeaders: [{name: Host, value: localhost}]}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /health/live, port: http, httpHeaders: [{name: Host, value: localhost}]}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
lifecycle:
  # Proxies and services go on sending until they have heard that the pod ends; SIGTERM, and with it the drain, comes after.
  preStop:
    exec:
      command: [sleep, "{{ $values.preStopSeconds }}"]
resources: {{ toYaml $values.resources | nindent 2 }}
securityContext: {{ include "lychee.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: gateway-tmp
    mountPath: /tmp
  {{- if $values.apiKeys.secret }}
  # A folder and no single file: only so does a changed Secret reach the gateway, which reads the file again.
  - name: api-keys
    mountPath: /etc/lychee/keys
    readOnly: true
  {{- end }}
  {{- if $values.models }}
  - name: models
    mountPath: /etc/lychee/models
    readOnly: true
  {{- end }}
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* JSON's keys are sorted, so the first is no default. */ -}}
{{- define "lychee.gatewayModels" -}}
{{- $default := required "gateway.defaultModel is empty; expected one of gateway.models" .Values.gateway.defaultModel -}}
{{- dict "default" $default "models" .Values.gateway.models | toJson -}}
{{- end }}

{{- define "lychee.gatewayVolumes" -}}
- name: gateway-tmp
  emptyDir:
    sizeLimit: 512Mi
{{- with .Values.gateway.apiKeys.secret }}
- name: api-keys
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - key: {{ $.Values.gateway.apiKeys.item }}
        path: {{ $.Values.gateway.apiKeys.item }}
{{- end }}
{{- if .Values.gateway.models }}
- name: models
  configMap:
    name: {{ include "lychee.fullname" . }}-gateway-models
{{- end }}
{{- with .Values.gateway.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "lychee.tritonUrl" -}}
{{- if not .Values.triton.enabled }}{{ .Values.triton.url }}
{{- else if eq .Values.topology "together" }}localhost:8001
{{- else }}dns:///{{ include "lychee.fullname" . }}-triton.{{ .Release.Namespace }}.svc:8001{{ end }}
{{- end }}
