{{- /* Whom the workers call. */}}
{{- define "lychee.bulkUrl" -}}
{{- if .Values.bulk.url }}{{ .Values.bulk.url }}
{{- else if .Values.bulk.workers.triton }}localhost:8001
{{- else if and .Values.triton.enabled (eq .Values.topology "separate") }}{{ include "lychee.tritonUrl" . }}
{{- else }}http://{{ include "lychee.fullname" . }}-gateway:{{ .Values.gateway.service.port }}{{ end }}
{{- end }}

{{- /* A pod of the Ray cluster, its head or one of its workers; KubeRay adds command, probes and what waits for the head. */}}
{{- define "lychee.rayPod" -}}
{{- $root := .root -}}
{{- $bulk := $root.Values.bulk -}}
{{- $values := get $bulk .part -}}
{{- $triton := and (eq .part "workers") $bulk.workers.triton -}}
{{- $beside := merge (dict "besideRay" true) $root -}}
metadata:
  labels: {{ include "lychee.labels" $root | nindent 4 }}
    app.kubernetes.io/component: ray
spec:
  {{- include "lychee.podBasics" $root | nindent 2 }}
  {{- with $values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- if and $triton $root.Values.triton.runtimeClassName }}
  runtimeClassName: {{ $root.Values.triton.runtimeClassName }}
  {{- end }}
  securityContext: {{ include "lychee.podSecurity" 10001 | nindent 4 }}
  {{- if $triton }}
  {{- with include "lychee.tritonInit" $root | trim }}
  initContainers:
    {{- . | nindent 4 }}
  {{- end }}
  {{- end }}
  containers:
    - name: ray
      image: {{ include "lychee.image" (dict "root" $root "image" $bulk.image) }}
      imagePullPolicy: {{ $bulk.image.pullPolicy }}
      {{- if eq .part "head" }}
      ports:
        - {name: gcs, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
      {{- end }}
      env:
        - {name: HOME, value: /tmp}
        - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
        # The network policy says who reaches Ray; a token would have to reach KubeRay, too.
        - {name: RAY_AUTH_MODE, value: disabled}
        {{- with $bulk.apiKey.secret }}
        - name: LYCHEE_API_KEY
          valueFrom:
            secretKeyRef:
              name: {{ . }}
              key: {{ $bulk.apiKey.item }}
        {{- end }}
        {{- with $bulk.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $bulk.secret }}
      envFrom:
        - secretRef: {name: {{ . }}}
      {{- end }}
      resources: {{ toYaml $values.resources | nindent 8 }}
      securityContext: {{ include "lychee.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - {name: ray-tmp, mountPath: /tmp}
        - {name: ray-shm, mountPath: /dev/shm}
        {{- if $bulk.claim }}
        - {name: data, mountPath: /data}
        {{- end }}
    {{- if $triton }}
    - {{- include "lychee.tritonContainer" $beside | nindent 6 }}
    {{- end }}
  volumes:
    # Ray's sessions with their logs, and rows that did not fit into its store.
    - name: ray-tmp
      emptyDir:
        sizeLimit: 10Gi
    - name: ray-shm
      emptyDir:
        medium: Memory
        sizeLimit: {{ add $bulk.objectStoreMb 64 }}Mi
    {{- with $bulk.claim }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ . }}
    {{- end }}
    {{- if $triton }}
    {{- include "lychee.tritonVolumes" $root | nindent 4 }}
    {{- end }}
{{- end }}
