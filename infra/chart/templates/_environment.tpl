{{/* The environments of infra/compose.yaml, with the cluster's addresses and its Secret. */}}

{{- define "flywheel.labels" -}}
app.kubernetes.io/name: flywheel
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "flywheel.secret" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .root.Values.serverSecret }}, key: {{ .key }}}}
{{- end }}

{{- define "flywheel.claim" -}}
{{ .Values.home.existingClaim | default (printf "%s-home" .Release.Name) }}
{{- end }}

{{- define "flywheel.prefectServer" -}}
- {name: PREFECT_HOME, value: /tmp/prefect}
- {name: PREFECT_SERVER_API_HOST, value: 0.0.0.0}
- {name: PREFECT_SERVER_API_PORT, value: "4200"}
{{ include "flywheel.secret" (dict "root" . "name" "PREFECT_SERVER_API_AUTH_STRING" "key" "PREFECT_AUTH_STRING") }}
- {name: PREFECT_SERVER_CSRF_PROTECTION_ENABLED, value: "true"}
- {name: PREFECT_SERVER_CORS_ALLOWED_ORIGINS, value: "https://{{ .Values.hosts.prefect }}"}
- {name: PREFECT_SERVER_UI_API_URL, value: "https://{{ .Values.hosts.prefect }}/api"}
- {name: PREFECT_SERVER_ANALYTICS_ENABLED, value: "false"}
- {name: PREFECT_SERVER_DATABASE_DRIVER, value: postgresql+asyncpg}
- {name: PREFECT_SERVER_DATABASE_HOST, value: {{ .Values.postgres.host | quote }}}
- {name: PREFECT_SERVER_DATABASE_PORT, value: {{ .Values.postgres.port | quote }}}
- {name: PREFECT_SERVER_DATABASE_NAME, value: prefect}
- {name: PREFECT_SERVER_DATABASE_USER, value: prefect}
{{ include "flywheel.secret" (dict "root" . "name" "PREFECT_SERVER_DATABASE_PASSWORD" "key" "PREFECT_DATABASE_PASSWORD") }}
- {name: PREFECT_SERVER_DATABASE_MIGRATE_ON_START, value: "false"}
- {name: PREFECT_MESSAGING_BROKER, value: prefect_redis.messaging}
- {name: PREFECT_MESSAGING_CACHE, value: prefect_redis.messaging}
- {name: PREFECT_SERVER_EVENTS_CAUSAL_ORDERING, value: prefect_redis.ordering}
- {name: PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE, value: prefect_redis.lease_storage}
- {name: PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE, value: prefect_redis.cleanup_queue}
- {name: PREFECT_REDIS_MESSAGING_HOST, value: {{ .Values.redis.host | quote }}}
- {name: PREFECT_REDIS_MESSAGING_PORT, value: {{ .Values.redis.port | quote }}}
{{ include "flywheel.secret" (dict "root" . "name" "PREFECT_REDIS_MESSAGING_PASSWORD" "key" "REDIS_PASSWORD") }}
- {name: PREFECT_REDIS_WORKER_CLEANUP_QUEUE_HOST, value: {{ .Values.redis.host | quote }}}
- {name: PREFECT_REDIS_WORKER_CLEANUP_QUEUE_PORT, value: {{ .Values.redis.port | quote }}}
{{ include "flywheel.secret" (dict "root" . "name" "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_PASSWORD" "key" "REDIS_PASSWORD") }}
{{ include "flywheel.secret" (dict "root" . "name" "PREFECT_SERVER_DOCKET_URL" "key" "REDIS_URL") }}
- {name: DO_NOT_TRACK, value: "1"}
{{- end }}

{{- define "flywheel.client" -}}
- {name: FLYWHEEL_HOME, value: /srv/flywheel}
- {name: PREFECT_HOME, value: /srv/flywheel/prefect}
- {name: PREFECT_API_URL, value: "http://{{ .Release.Name }}-prefect:4200/api"}
- {name: PREFECT_SERVER_ANALYTICS_ENABLED, value: "false"}
- {name: PREFECT_WORKER_QUERY_SECONDS, value: "5"}
- {name: MLFLOW_TRACKING_URI, value: "http://{{ .Release.Name }}-mlflow:5000"}
- {name: MLFLOW_DISABLE_TELEMETRY, value: "true"}
- {name: MPLBACKEND, value: Agg}
- {name: DO_NOT_TRACK, value: "1"}
{{- end }}

{{/* The worker that makes jobs watches its own namespace, as its Role allows: by default it watches the cluster, is
     refused, and then nobody notices that a pod was killed or got no image. A job's manifest names the Secret of the
     login instead of having the login in it. */}}
{{- define "flywheel.jobs" -}}
- {name: PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES, value: {{ .Release.Namespace | quote }}}
- {name: PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME, value: {{ .Values.clientSecret | quote }}}
- {name: PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY, value: PREFECT_API_AUTH_STRING}
{{- end }}

{{/* Of the clients' Secret, or of one with an S3 key of its own, what reaches the object store. */}}
{{- define "flywheel.store" -}}
{{- $secret := .Values.receiver.storeSecret | default .Values.clientSecret }}
{{- range list "FLYWHEEL_STORE" "AWS_ENDPOINT_URL" "AWS_DEFAULT_REGION" "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ . }}, optional: true}}
{{- end }}
{{- end }}

{{/* For what mounts a claim that one node can mount at a time. */}}
{{- define "flywheel.nearTheCpuWorker" -}}
{{- $labels := dict "app.kubernetes.io/instance" .Release.Name "app.kubernetes.io/component" "worker-cpu" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $labels) -}}
{{- dict "podAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term)) | toJson -}}
{{- end }}

{{/* A pod's spec around one container: dict root, name, command, env, client,
     resources, port, path, alive, home, pools, account, secret; with `ships` the home is a volume of its own, and
     a second container ships its spool. Where `path` refuses while the pod should go on as it is, `alive` does not. */}}
{{- define "flywheel.pod" -}}
automountServiceAccountToken: {{ .account | default false }}
securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
terminationGracePeriodSeconds: 60
{{- if and .home (not .ships) (ne .name "worker-cpu") (not (has "ReadWriteMany" .root.Values.home.accessModes)) }}
affinity: {{ include "flywheel.nearTheCpuWorker" .root }}
{{- end }}
containers:
  - name: {{ .name }}
    image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag }}"
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: {{ toJson .command }}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    env:
      {{- .env | nindent 6 }}
    {{- if .client }}
    envFrom: [{secretRef: {name: {{ .secret | default .root.Values.clientSecret }}}}]
    {{- end }}
    {{- with .resources }}
    resources: {{ toJson . }}
    {{- end }}
    {{- if .port }}
    ports: [{name: http, containerPort: {{ .port }}}]
    startupProbe: {httpGet: {path: {{ .alive | default .path }}, port: http}, periodSeconds: 5, failureThreshold: 60}
    readinessProbe: {httpGet: {path: {{ .path }}, port: http}, periodSeconds: 5}
    livenessProbe: {httpGet: {path: {{ .alive | default .path }}, port: http}, periodSeconds: 20, failureThreshold: 6}
    {{- end }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- if .home }}
      - {name: home, mountPath: /srv/flywheel}
      {{- end }}
      {{- if .pools }}
      - {name: pools, mountPath: /etc/flywheel/pools}
      {{- end }}
  {{- if .ships }}
  - name: ship
    image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag }}"
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [flywheel, ship]
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    env:
      {{- .env | nindent 6 }}
      {{- include "flywheel.store" .root | nindent 6 }}
    resources: {{ toJson .root.Values.resources.ship }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: home, mountPath: /srv/flywheel}
  {{- end }}
volumes:
  - {name: tmp, emptyDir: {sizeLimit: 10Gi}}
  {{- if and .home (not .ships) }}
  - {name: home, persistentVolumeClaim: {claimName: {{ include "flywheel.claim" .root }}}}
  {{- end }}
  {{- if .pools }}
  - {name: pools, configMap: {name: {{ .root.Release.Name }}-pools}}
  {{- end }}
{{- end }}
