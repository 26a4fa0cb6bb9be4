{{/* The name of the chart, cut so that a suffix fits. */}}
{{- define "forge-jobs.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The beginning of the names of all objects. */}}
{{- define "forge-jobs.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "forge-jobs.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "forge-jobs.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What finds the pods of a component; it can never change. Takes (list . component). */}}
{{- define "forge-jobs.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "forge-jobs.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* The labels of an object. Takes (list . component). */}}
{{- define "forge-jobs.labels" -}}
{{- $root := index . 0 -}}
{{- include "forge-jobs.selector" . }}
app.kubernetes.io/part-of: forge-jobs
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image's whole name. Takes (list . image). */}}
{{- define "forge-jobs.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository ($image.tag | default (index . 0).Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "forge-jobs.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (printf "%s-operator" (include "forge-jobs.fullname" .)) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* The Secret that the try-out PostgreSQL takes its password from. */}}
{{- define "forge-jobs.postgresSecret" -}}
{{- .Values.postgres.existingSecret | default (printf "%s-database" (include "forge-jobs.fullname" .)) }}
{{- end }}

{{/* The Secret that holds the database's address, for operator and migration. */}}
{{- define "forge-jobs.databaseSecret" -}}
{{- if and .Values.postgres.enabled .Values.database.existingSecret }}
{{- fail "database.existingSecret and postgres.enabled are both set: a release has one database." }}
{{- else if .Values.postgres.enabled }}
{{- include "forge-jobs.postgresSecret" . }}
{{- else if .Values.database.existingSecret }}
{{- .Values.database.existingSecret }}
{{- else }}
{{- fail "Where is the database? Name a Secret with its address in database.existingSecret, or set postgres.enabled=true to try things out." }}
{{- end }}
{{- end }}

{{- define "forge-jobs.databaseKey" -}}
{{- if .Values.postgres.enabled }}url{{ else }}{{ .Values.database.key }}{{ end }}
{{- end }}

{{/* The Secret that worker pods refer to, each in its own namespace. */}}
{{- define "forge-jobs.workersSecret" -}}
{{- .Values.database.workers.existingSecret | default (include "forge-jobs.databaseSecret" .) }}
{{- end }}

{{- define "forge-jobs.workersKey" -}}
{{- .Values.database.workers.key | default (include "forge-jobs.databaseKey" .) }}
{{- end }}

{{/* The environment of every container that opens the database. */}}
{{- define "forge-jobs.databaseEnv" -}}
- name: FORGE_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "forge-jobs.databaseSecret" . }}
      key: {{ include "forge-jobs.databaseKey" . }}
- name: FORGE_SCHEMA
  value: {{ .Values.database.schema | quote }}
{{- end }}

{{- define "forge-jobs.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The API version of a PodDisruptionBudget, by the cluster's version: that is also right for
tools that render without a cluster and only say --kube-version. */}}
{{- define "forge-jobs.policyVersion" -}}
{{- if semverCompare ">=1.21-0" .Capabilities.KubeVersion.Version }}policy/v1{{ else }}policy/v1beta1{{ end }}
{{- end }}

{{/* Where worker pods are known to be: the namespaces that are watched; this one when all are. */}}
{{- define "forge-jobs.workerNamespaces" -}}
{{- .Values.watchNamespaces | default (list .Release.Namespace) | uniq | toJson }}
{{- end }}

{{/* The ports that an operator or a migration has to reach, as the egress of a policy. */}}
{{- define "forge-jobs.egress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
- ports:
    - {port: {{ .Values.networkPolicy.databasePort }}, protocol: TCP}
{{- end }}

{{/* The security contexts of the chart's short-lived pods: the Pod Security Standard "restricted". */}}
{{- define "forge-jobs.restrictedPod" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "forge-jobs.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A container of the worker image that runs one command of forge-jobs against the database, less its command. */}}
{{- define "forge-jobs.commandContainer" -}}
image: {{ include "forge-jobs.image" (list . .Values.workerImage) }}
imagePullPolicy: {{ .Values.workerImage.pullPolicy }}
env:
  {{- include "forge-jobs.databaseEnv" . | nindent 2 }}
  {{- with .Values.migration.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.migration.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .Values.migration.resources | nindent 2 }}
securityContext:
  {{- include "forge-jobs.restrictedContainer" . | nindent 2 }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- with .Values.migration.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The volumes of a pod with such containers. */}}
{{- define "forge-jobs.commandVolumes" -}}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: 64Mi
  {{- with .Values.migration.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* On which nodes the pods of those commands may be. */}}
{{- define "forge-jobs.commandPlace" -}}
{{- with .Values.migration.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.migration.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The spec of the migration's Job. */}}
{{- define "forge-jobs.migration" -}}
backoffLimit: {{ .Values.migration.backoffLimit }}
activeDeadlineSeconds: {{ .Values.migration.activeDeadlineSeconds }}
template:
  metadata:
    labels:
      {{- include "forge-jobs.labels" (list . "migration") | nindent 6 }}
      {{- with .Values.migration.podLabels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with .Values.migration.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    {{- with include "forge-jobs.pullSecrets" . }}{{ . | trim | nindent 4 }}{{ end }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    restartPolicy: Never
    securityContext:
      {{- include "forge-jobs.restrictedPod" . | nindent 6 }}
    {{- with include "forge-jobs.commandPlace" . }}{{ . | trim | nindent 4 }}{{ end }}
    {{- if or .Values.postgres.enabled .Values.migration.createDatabase }}
    initContainers:
      {{- if .Values.postgres.enabled }}
      # It starts at the same time as this Job.
      - name: wait
        command: [sh, -c, "until forge-jobs db status >/dev/null; do sleep 2; done"]
        {{- include "forge-jobs.commandContainer" . | nindent 8 }}
      {{- end }}
      {{- if .Values.migration.createDatabase }}
      - name: create
        command: [forge-jobs, db, create]
        {{- include "forge-jobs.commandContainer" . | nindent 8 }}
      {{- end }}
    {{- end }}
    containers:
      - name: migrate
        command: [forge-jobs, db, migrate]
        {{- include "forge-jobs.commandContainer" . | nindent 8 }}
    {{- include "forge-jobs.commandVolumes" . | nindent 4 }}
{{- end }}

{{/* How metrics are read, as a part of an endpoint of a monitor. The rule names the release: each has a database. */}}
{{- define "forge-jobs.endpoint" -}}
port: metrics
path: /metrics
interval: {{ .Values.metrics.interval }}
scrapeTimeout: {{ .Values.metrics.scrapeTimeout }}
relabelings:
  - targetLabel: database
    replacement: {{ .Release.Namespace }}/{{ include "forge-jobs.fullname" . }}
  {{- with .Values.metrics.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.metrics.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What makes an object part of the migration before an installation or an upgrade. Takes (list . weight). */}}
{{- define "forge-jobs.migrationHook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ index . 1 | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* Stops an installation whose database Secret is missing, where the cluster can be asked:
its pods would wait for it until Helm's timeout, without a word. */}}
{{- define "forge-jobs.requireSecret" -}}
{{- if and .Release.IsInstall (lookup "v1" "ServiceAccount" .Release.Namespace "default") }}
{{- $name := include "forge-jobs.databaseSecret" . }}
{{- $keys := ternary (list "password" "url") (list .Values.database.key) .Values.postgres.enabled }}
{{- $secret := lookup "v1" "Secret" .Release.Namespace $name }}
{{- if $secret }}
{{- range $key := $keys }}
{{- if not (hasKey ($secret.data | default dict) $key) }}
{{- fail (printf "The Secret %s in the namespace %s has no key %s%s" $name $.Release.Namespace $key (ternary "." "; database.key names another one." $.Values.postgres.enabled)) }}
{{- end }}
{{- end }}
{{- else if or .Values.postgres.existingSecret (not .Values.postgres.enabled) }}
{{- $literals := ternary "--from-literal=password=password " "" .Values.postgres.enabled }}
{{- fail (printf "There is no Secret %s in the namespace %s. Make it first: kubectl -n %s create secret generic %s %s--from-literal=%s=postgresql://user:password@host:5432/name" $name .Release.Namespace .Release.Namespace $name $literals (last $keys)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What finds every worker pod: a label that only the operator writes, since a template may say what its
pods are called (app.kubernetes.io/name) otherwise. */}}
{{- define "forge-jobs.workerSelector" -}}
matchExpressions:
  - {key: forge-jobs.dev/pool-uid, operator: Exists}
{{- end }}
