{{/*
First word of all names: the release's own, which is unique in its namespace. One that could not begin the name of a
Service (RFC 1035: a letter first, no dot) is made fit; its hash keeps it from being another release's.
*/}}
{{- define "tesk.fullname" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name -}}
{{- if regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name -}}
{{ $name }}
{{- else -}}
tesk-{{ $name | replace "." "-" | trunc 40 | trimSuffix "-" }}-{{ sha256sum $name | trunc 6 }}
{{- end -}}
{{- end -}}

{{- define "tesk.serverAccount" -}}
{{- $own := printf "%s-server" (include "tesk.fullname" .) -}}
{{ .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary $own "default") }}
{{- end -}}

{{- define "tesk.taskmasterAccount" -}}
{{- $own := printf "%s-taskmaster" (include "tesk.fullname" .) -}}
{{- $of := .Values.taskmaster.serviceAccount -}}
{{ $of.name | default ($of.create | ternary $own "default") }}
{{- end -}}

{{- define "tesk.claim" -}}
{{ .Values.database.sqlite.existingClaim | default (printf "%s-data" (include "tesk.fullname" .)) }}
{{- end -}}

{{- define "tesk.image" -}}
{{- $of := .Values.image -}}
{{- if $of.digest -}}
{{ $of.repository }}@{{ $of.digest }}
{{- else -}}
{{ $of.repository }}:{{ $of.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Labels of the chart's own objects. What the server makes for tasks is app.kubernetes.io/managed-by=tesk. */}}
{{- define "tesk.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "tesk.selector" . }}
{{- end -}}

{{- define "tesk.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Labels of everything that this server makes for tasks (setting `instance`). */}}
{{- define "tesk.taskSelector" -}}
app.kubernetes.io/managed-by: tesk
app.kubernetes.io/instance: {{ include "tesk.fullname" . | quote }}
{{- end -}}
