{{- define "callfold.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}{{ $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- end }}

{{- define "callfold.selector" -}}
app.kubernetes.io/name: callfold
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "callfold.labels" -}}
{{ include "callfold.selector" . }}
app.kubernetes.io/part-of: callfold
app.kubernetes.io/managed-by: {{ default .Release.Service .Values.labels.managedBy }}
{{- if .Values.labels.chart }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
{{- with .Values.labels.common }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Metadata of an operator's resource: (list . "name" "kind of server"). Operators give these labels to pods, so no selector of
the chart may match them. */ -}}
{{- define "callfold.serverMetadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "callfold.labels" $root | replace "app.kubernetes.io/name: callfold\n" (printf "app.kubernetes.io/name: callfold-%s\n" (index . 2)) | nindent 2 }}
{{- end }}

{{- /* Metadata of an object: (list . "name" "component") */ -}}
{{- define "callfold.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "callfold.labels" $root | nindent 2 }}
  {{- with index . 2 }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
{{- end }}

{{- define "callfold.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ $image.tag }}{{ end }}
{{- end }}

{{- define "callfold.serviceAccount" -}}
{{- default (include "callfold.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- /* Seconds after which the kubelet kills: (list . "role"). All limits of an orderly end, 10 s to close
connections, and 10 s more. */ -}}
{{- define "callfold.graceSeconds" -}}
{{- $role := index (index . 0).Values (index . 1) -}}
{{- add $role.preStopSeconds $role.drainSeconds (index . 0).Values.shutdownTimeoutSeconds (default 0 $role.spoolDrainSeconds) 10 10 }}
{{- end }}

{{- define "callfold.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "callfold.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "callfold.redisUrl" -}}
{{- $name := printf "%s-redis-sentinel" (include "callfold.fullname" .) -}}
{{- $hosts := list -}}
{{- range $number := until (int .Values.redis.operator.sentinels) -}}
{{- $hosts = append $hosts (printf "%s-%d.%s-headless" $name $number $name) -}}
{{- end -}}
redis+sentinel://{{ join "," $hosts }}/callfold/0
{{- end }}

{{- /* Whether the chart knows the URL of Redis, which then is no secret. */ -}}
{{- define "callfold.knowsRedis" -}}
{{- if and .Values.redis.operator.enabled (not .Values.redis.operator.passwordSecret) }}true{{ end }}
{{- end }}

{{- define "callfold.archiveClaim" -}}
{{- default (printf "%s-archive" (include "callfold.fullname" .)) .Values.archive.volume.existingClaim }}
{{- end }}

{{- define "callfold.archiveIsVolume" -}}
{{- if not .Values.archive.url }}true{{ end }}
{{- end }}

{{- define "callfold.usesSources" -}}
{{- if has . (list "ingress" "worker" "console") }}true{{ end }}
{{- end }}

{{- /* Whether a role reads the file of endpoints: (list . "role"). The console shows them, and sends test events. */ -}}
{{- define "callfold.usesEndpoints" -}}
{{- if and (has (index . 1) (list "console" "forward")) (index . 0).Values.forward.enabled (index . 0).Values.forward.endpointsSecret }}true{{ end }}
{{- end }}

{{- define "callfold.historyIsSqlite" -}}
{{- if and .Values.history.enabled (eq .Values.history.database "sqlite") }}true{{ end }}
{{- end }}

{{- /* Files with credentials: those that the role needs, and those that it uses if they are there. */ -}}
{{- define "callfold.credentials" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $secret := default $root.Values.secret (index $root.Values $role).secret -}}
{{- $usesRedis := has $role (list "worker" "console") -}}
{{- $needed := list -}}
{{- $optional := list -}}
{{- if not $root.Values.rabbitmq.operator.enabled }}{{ $needed = append $needed "CALLFOLD_AMQP_URL" }}{{ end -}}
{{- if and $usesRedis (not (include "callfold.knowsRedis" $root)) }}{{ $needed = append $needed "CALLFOLD_REDIS_URL" }}{{ end -}}
{{- if eq $role "console" }}
{{- $needed = append $needed "CALLFOLD_CONSOLE_KEY" }}
{{- $optional = append $optional "CALLFOLD_CONSOLE_VIEWER_KEYS" }}
{{- end }}
{{- if $usesRedis }}{{ $optional = append $optional "CALLFOLD_MANAGEMENT_URL" }}{{ end -}}
{{- if and (has $role (list "console" "history")) $root.Values.history.enabled (not (include "callfold.historyIsSqlite" $root)) }}
{{- $needed = append $needed "CALLFOLD_HISTORY_URL" }}
{{- end }}
defaultMode: 0440
sources:
{{- if $root.Values.rabbitmq.operator.enabled }}
  - secret:
      name: {{ include "callfold.fullname" $root }}-rabbitmq-default-user
      items: [{key: connection_string, path: CALLFOLD_AMQP_URL}]
{{- end }}
{{- with $needed }}
  - secret:
      name: {{ $secret }}
      items:
        {{- range . }}
        - {key: {{ . }}, path: {{ . }}}
        {{- end }}
{{- end }}
{{- range $optional }}
  - secret:
      name: {{ $secret }}
      optional: true
      items: [{key: {{ . }}, path: {{ . }}}]
{{- end }}
{{- if and (eq $role "console") $root.Values.archive.identitySecret }}
  - secret:
      name: {{ $root.Values.archive.identitySecret }}
      items: [{key: identity.txt, path: identity.txt}]
{{- end }}
{{- end }}

{{- /* Variables of a container: those of the chart, of all roles, and of this role. The last ones win. */ -}}
{{- define "callfold.environment" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $of := index $root.Values $role -}}
{{- $set := dict "CALLFOLD_SECRETS_DIR" "/etc/callfold/secrets" -}}
{{- if include "callfold.usesSources" $role }}{{ $_ := set $set "CALLFOLD_SOURCES" "/etc/callfold/sources/sources.toml" }}{{ end -}}
{{- if include "callfold.usesEndpoints" . }}{{ $_ := set $set "CALLFOLD_ENDPOINTS" "/etc/callfold/endpoints/endpoints.toml" }}{{ end -}}
{{- $_ := set $set "CALLFOLD_DRAIN_SECONDS" $of.drainSeconds -}}
{{- $_ := set $set "CALLFOLD_SHUTDOWN_TIMEOUT_SECONDS" $root.Values.shutdownTimeoutSeconds -}}
{{- $proxies := join ", " $root.Values.proxies -}}
{{- if eq $role "ingress" }}
{{- $_ := set $set "CALLFOLD_SPOOL_DRAIN_SECONDS" $of.spoolDrainSeconds }}
{{- if $proxies }}{{ $_ := set $set "CALLFOLD_INGRESS_PROXIES" $proxies }}{{ end }}
{{- end }}
{{- if and (eq $role "console") $proxies }}{{ $_ := set $set "CALLFOLD_CONSOLE_PROXIES" $proxies }}{{ end -}}
{{- if eq $role "worker" }}{{ $_ := set $set "CALLFOLD_RECORDING_KEPT_BYTES" $of.downloads.keptBytes }}{{ end -}}
{{- if has $role (list "worker" "console") }}
{{- if $root.Values.redis.operator.enabled }}{{ $_ := set $set "CALLFOLD_REDIS_REPLICAS" 1 }}{{ end }}
{{- if include "callfold.knowsRedis" $root }}{{ $_ := set $set "CALLFOLD_REDIS_URL" (include "callfold.redisUrl" $root) }}{{ end }}
{{- $_ := set $set "CALLFOLD_ARCHIVE_URL" (default "file:///var/lib/callfold/archive" $root.Values.archive.url) }}
{{- $set = merge $set $root.Values.archive.environment }}
{{- end }}
{{- if and (eq $role "console") $root.Values.archive.identitySecret }}
{{- $_ := set $set "CALLFOLD_ARCHIVE_IDENTITY" "/etc/callfold/secrets/identity.txt" }}
{{- end }}
{{- if and (has $role (list "console" "history")) (include "callfold.historyIsSqlite" $root) }}
{{- $_ := set $set "CALLFOLD_HISTORY_URL" "sqlite:////var/lib/callfold/history/history.sqlite" }}
{{- end }}
{{- if and (has $role (list "ingress" "worker")) $root.Values.tracing.endpoint }}
{{- $_ := set $set "OTEL_EXPORTER_OTLP_ENDPOINT" $root.Values.tracing.endpoint }}
{{- $set = merge $set $root.Values.tracing.environment }}
{{- end }}
{{- $set = mergeOverwrite $set $root.Values.settings $of.settings -}}
{{- range $name, $value := $set }}
- {name: {{ $name }}, value: {{ if kindIs "float64" $value }}{{ if eq (floor $value) $value }}{{ int64 $value | toString | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}{{ else }}{{ $value | toString | quote }}{{ end }}}
{{- end }}
{{- end }}

{{- define "callfold.probes" -}}
# RabbitMQ and Redis may be away at the start: liveness never depends on them.
startupProbe:
  httpGet: {path: /healthz, port: private}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: private}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: private}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}

{{- /* Spread over nodes and zones: (list . "role") */ -}}
{{- define "callfold.spread" -}}
{{- $root := index . 0 -}}
{{- range $key, $when := dict "kubernetes.io/hostname" (index $root.Values (index $ 1)).topologySpread "topology.kubernetes.io/zone" "ScheduleAnyway" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: {{ $when }}
  labelSelector:
    matchLabels:
      {{- include "callfold.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ index $ 1 }}
{{- end }}
{{- end }}

{{- /* Pod of a role: (list . "role") */ -}}
{{- define "callfold.pod" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $of := index $root.Values $role -}}
{{- $ports := dict "ingress" 8080 "console" 8081 -}}
{{- $usesArchive := and (has $role (list "worker" "console")) (include "callfold.archiveIsVolume" $root) -}}
{{- $usesSqlite := and (has $role (list "console" "history")) (include "callfold.historyIsSqlite" $root) -}}
metadata:
  labels:
    {{- include "callfold.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $role }}
  {{- with $of.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "callfold.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "callfold.graceSeconds" . }}
  securityContext:
    {{- include "callfold.podSecurity" $root | nindent 4 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ $role }}
      image: {{ include "callfold.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ $role }}]
      env:
        {{- include "callfold.environment" . | nindent 8 }}
      {{- $secrets := list }}
      {{- if has $role (list "worker" "console") }}{{ $secrets = append $secrets $root.Values.archive.secret }}{{ end }}
      {{- if and (has $role (list "ingress" "worker")) $root.Values.tracing.endpoint }}{{ $secrets = append $secrets $root.Values.tracing.secret }}{{ end }}
      {{- with compact $secrets }}
      # The clients of the object store and of the receiver of traces read their keys from variables only.
      envFrom:
        {{- range . }}
        - secretRef: {name: {{ . }}}
        {{- end }}
      {{- end }}
      ports:
        {{- with get $ports $role }}
        - {name: http, containerPort: {{ . }}}
        {{- end }}
        - {name: private, containerPort: 9090}
      {{- include "callfold.probes" $root | nindent 6 }}
      {{- if $of.preStopSeconds }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ $of.preStopSeconds }}}
      {{- end }}
      resources:
        {{- toYaml $of.resources | nindent 8 }}
      securityContext:
        {{- include "callfold.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: secrets, mountPath: /etc/callfold/secrets, readOnly: true}
        {{- if include "callfold.usesEndpoints" . }}
        - {name: endpoints, mountPath: /etc/callfold/endpoints, readOnly: true}
        {{- end }}
        {{- if include "callfold.usesSources" $role }}
        - {name: sources, mountPath: /etc/callfold/sources, readOnly: true}
        {{- end }}
        {{- if eq $role "ingress" }}
        - {name: spool, mountPath: /var/lib/callfold/spool}
        {{- end }}
        {{- if eq $role "worker" }}
        - {name: downloads, mountPath: /var/lib/callfold/downloads}
        {{- end }}
        {{- if $usesArchive }}
        - {name: archive, mountPath: /var/lib/callfold/archive}
        {{- end }}
        {{- if $usesSqlite }}
        - {name: history, mountPath: /var/lib/callfold/history}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 1Gi}
    - name: secrets
      projected:
        {{- include "callfold.credentials" . | nindent 8 }}
    {{- if include "callfold.usesEndpoints" . }}
    - name: endpoints
      secret: {secretName: {{ $root.Values.forward.endpointsSecret }}, defaultMode: 0440}
    {{- end }}
    {{- if include "callfold.usesSources" $role }}
    # The whole Secret, never a subPath: a change then reaches the running pods.
    - name: sources
      secret: {secretName: {{ $root.Values.sourcesSecret }}, defaultMode: 0440}
    {{- end }}
    {{- if eq $role "worker" }}
    - name: downloads
      emptyDir: {sizeLimit: {{ $of.downloads.sizeLimit }}}
    {{- end }}
    {{- if $usesArchive }}
    - name: archive
      persistentVolumeClaim: {claimName: {{ include "callfold.archiveClaim" $root }}}
    {{- end }}
    {{- if $usesSqlite }}
    - name: history
      persistentVolumeClaim: {claimName: {{ include "callfold.fullname" $root }}-history}
    {{- end }}
  {{- if ne $role "history" }}
  topologySpreadConstraints:
    {{- include "callfold.spread" . | nindent 4 }}
  {{- end }}
  {{- with $of.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $of.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $of.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $of.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end }}
