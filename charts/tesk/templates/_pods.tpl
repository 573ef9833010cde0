{{/* What all pods of the chart have in common. They pass the Pod Security Standard "restricted". */}}
{{- define "tesk.pod" -}}
enableServiceLinks: false # the Service tesk-server would set TESK_SERVER_PORT, a setting
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
  {{- if not (include "tesk.isOpenShift" .) }}
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- range $name := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with get $.Values.server $name }}
{{ $name }}: {{- if kindIs "string" . }} {{ . }}{{ else }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "tesk.container" -}}
image: {{ include "tesk.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* "yes" where the server makes pods of whole tasks, which report to it. */}}
{{- define "tesk.makesPods" -}}
{{- if ne .Values.tasks.mode "taskmaster" -}}
yes
{{- end -}}
{{- end -}}

{{/* "yes" where the platform chooses user ids itself. */}}
{{- define "tesk.isOpenShift" -}}
{{- if or (eq .Values.platform "openshift")
          (and (eq .Values.platform "auto") (.Capabilities.APIVersions.Has "security.openshift.io/v1")) -}}
yes
{{- end -}}
{{- end -}}
