{{- /* With `besideRay`, it is in a pod of a Ray worker, which alone calls it. */}}
{{- define "lychee.tritonContainer" -}}
{{- $values := .Values.triton -}}
{{- $callSeconds := .Values.gateway.settings.timeout_s | default 30 -}}
name: triton
image: {{ include "lychee.image" (dict "root" . "image" $values.image) }}
imagePullPolicy: {{ $values.image.pullPolicy }}
# Behind the image's own entry point, which finds CUDA's libraries.
args:
  - tritonserver
  - --model-repository={{ include "lychee.modelPath" . }}
  - --model-config-name={{ $values.configName }}
  - --disable-auto-complete-config
  - --model-load-thread-count=8
  - --exit-timeout-secs={{ $values.exitTimeoutSeconds }}
  {{- if and (eq .Values.topology "separate") (not .besideRay) }}
  # Connections end now and then, so that gateways meet new pods; calls on them may end first. Both in milliseconds.
  - --grpc-max-connection-age={{ mul $values.maxConnectionAgeSeconds 1000 }}
  - --grpc-max-connection-age-grace={{ mulf (addf $callSeconds 5) 1000 | int }}
  {{- end }}
  - --http-restricted-api=model-repository,shared-memory,logging,trace:triton-grpc-protocol-lychee-key=$(LYCHEE_TRITON_KEY)
  - --grpc-restricted-protocol=model-repository,shared-memory,logging,trace:lychee-key=$(LYCHEE_TRITON_KEY)
  {{- with .Values.tracing.endpoint }}
  # Times alone, of calls that the gateway samples.
  - --trace-config=mode=opentelemetry
  - {{ printf "--trace-config=opentelemetry,url=%s/v1/traces" (trimSuffix "/" .) | quote }}
  - --trace-config=opentelemetry,resource=service.name=lychee-triton
  - --trace-config=rate=0
  - --trace-config=level=TIMESTAMPS
  {{- end }}
  {{- range $values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
env:
  - name: LYCHEE_TRITON_KEY
    valueFrom:
      secretKeyRef:
        name: {{ include "lychee.tritonKeySecret" . }}
        key: {{ include "lychee.tritonKeyItem" . }}
  - name: HOME
    value: /tmp
  {{- with $values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - name: triton-http
    containerPort: 8000
  - name: grpc
    containerPort: 8001
  - name: triton-metrics
    containerPort: 8002
# Large models take minutes to load.
startupProbe:
  httpGet: {path: /v2/health/ready, port: triton-http}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: {{ div (add $values.loadTimeoutSeconds 1) 2 }}
readinessProbe:
  httpGet: {path: /v2/health/ready, port: triton-http}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /v2/health/live, port: triton-http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- if not .besideRay }}
lifecycle:
  preStop:
    exec:
      {{- if eq .Values.topology "together" }}
      # Both get their signals at the same time, but the gateway's last calls need Triton: it ends once the gateway is gone.
      command:
        - sh
        - -c
        - >-
          end=$(($(date +%s) + {{ add .Values.gateway.preStopSeconds (include "lychee.gatewayDrain" .) 5 }}));
          while [ "$(date +%s)" -lt "$end" ] &&
          curl --silent --output /dev/null --max-time 2 --header 'Host: localhost' http://127.0.0.1:7860/health/live;
          do sleep 0.5; done
      {{- else }}
      # Clients go on sending until the headless service no longer names the pod.
      command: [sleep, "{{ $values.preStopSeconds }}"]
      {{- end }}
{{- end }}
resources:
  {{- $resources := deepCopy $values.resources }}
  {{- if $values.gpu.count }}
  {{- $limits := set ($resources.limits | default dict) $values.gpu.resource (toString $values.gpu.count) }}
  {{- $_ := set $resources "limits" $limits }}
  {{- end }}
  {{- toYaml $resources | nindent 2 }}
securityContext: {{ include "lychee.containerSecurity" . | nindent 2 }}
  runAsUser: {{ $values.runAsUser }}
  runAsGroup: {{ $values.runAsUser }}
volumeMounts:
  - name: models
    mountPath: /models
    readOnly: true
  - name: triton-tmp
    mountPath: /tmp
  - name: shm
    mountPath: /dev/shm
{{- end }}

{{- define "lychee.tritonVolumes" -}}
{{- $source := .Values.model.source -}}
- name: models
  {{- if eq $source "export" }}
  persistentVolumeClaim:
    claimName: {{ include "lychee.modelClaim" . }}
  {{- else if eq $source "claim" }}
  persistentVolumeClaim:
    claimName: {{ include "lychee.modelClaim" . }}
    readOnly: true
  {{- else if eq $source "image" }}
  image:
    reference: {{ .Values.model.image.reference }}
    pullPolicy: {{ .Values.model.image.pullPolicy }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.model.size }}
  {{- end }}
- name: triton-tmp
  emptyDir:
    sizeLimit: 1Gi
# Memory: it counts against the container's limit. A Python backend passes its tensors through it; 64 MiB are the default.
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.triton.shmSize }}
{{- if eq $source "export" }}
- name: export-tmp
  emptyDir:
    sizeLimit: {{ .Values.model.size }}
{{- end }}
{{- end }}

{{- /* What runs before Triton: gets the models, or waits for whoever gets them. */}}
{{- define "lychee.tritonInit" -}}
{{- $model := .Values.model -}}
{{- if eq $model.source "export" }}
{{- if eq $model.export.as "initContainer" }}
- {{- include "lychee.exportContainer" . | nindent 2 }}
{{- else }}
- name: wait-for-models
  image: {{ include "lychee.image" (dict "root" . "image" .Values.triton.image) }}
  command: [sh, -c, 'until [ -e "$1/.complete" ]; do sleep 2; done', sh, {{ include "lychee.modelPath" . | quote }}]
  resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 64Mi}}
  securityContext: {{ include "lychee.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- else if or (eq $model.source "copy") (eq $model.source "s3") }}
{{- $from := get $model $model.source }}
- name: get-models
  image: {{ $from.image }}
  command: {{ toJson $from.command }}
  env:
    - {name: HOME, value: /tmp}
    {{- with $from.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $from.secret }}
  envFrom:
    - secretRef: {name: {{ . }}}
  {{- end }}
  resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 1Gi}}
  securityContext: {{ include "lychee.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: /models}
    - {name: triton-tmp, mountPath: /tmp}
{{- end }}
{{- end }}

{{- /* `lychee export` into a folder of its own, by one pod at a time, and only once. */}}
{{- define "lychee.exportContainer" -}}
{{- $export := .Values.model.export -}}
name: export
image: {{ include "lychee.image" (dict "root" . "image" $export.image) }}
imagePullPolicy: {{ $export.image.pullPolicy }}
command:
  - sh
  - -euc
  - |
    mkdir -p "$LYCHEE_REPOSITORY"
    exec 9>"$LYCHEE_REPOSITORY/.lock"
    flock 9
    [ ! -e "$LYCHEE_REPOSITORY/.complete" ] || exit 0
    lychee export "$@"
    touch "$LYCHEE_REPOSITORY/.complete"
  - export
args: {{ toYaml $export.args | nindent 2 }}
env:
  - {name: LYCHEE_REPOSITORY, value: {{ include "lychee.modelPath" . }}}
  - {name: HF_HOME, value: /tmp/checkpoints}
  {{- with $export.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $export.secret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
resources: {{ toYaml $export.resources | nindent 2 }}
securityContext: {{ include "lychee.containerSecurity" . | nindent 2 }}
{{- if eq $export.as "initContainer" }}
  runAsUser: 10001
  runAsGroup: 10001
{{- end }}
volumeMounts:
  - {name: models, mountPath: /models}
  - {name: export-tmp, mountPath: /tmp}
{{- end }}
