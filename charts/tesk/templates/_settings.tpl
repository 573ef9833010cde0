{{/*
The server's settings (docs/settings.md) by name: from the values, then extraSettings. What the chart's other objects
rest on is not for extraSettings to change.
*/}}
{{- define "tesk.settings" -}}
{{- $tasks := .Values.tasks -}}
{{- $storage := .Values.storage -}}
{{- $info := .Values.serviceInfo -}}
{{- $fullname := include "tesk.fullname" . -}}
{{- $mounts := list -}}
{{- $roots := list -}}
{{- range $storage.mounts -}}
  {{- $source := .claim | empty | ternary "secret" "claim" -}}
  {{- $mounts = append $mounts (printf "%s=%s:%s" .path $source (.claim | default .secret)) -}}
{{- end -}}
{{- range $storage.fileRoots -}}
  {{- $mounts = append $mounts (printf "%s=claim:%s" .path .claim) -}}
  {{- $roots = append $roots .path -}}
{{- end -}}
{{- $own := dict
  "engine" "kubernetes"
  "host" .Values.server.host
  "port" 8080
  "data" "/data"
  "instance" $fullname
  "namespace" .Release.Namespace
  "image" (include "tesk.image" .)
  "image_pull_policy" .Values.image.pullPolicy
  "image_pull_secrets" .Values.image.pullSecrets
  "taskmaster_service_account" (include "tesk.taskmasterAccount" .)
-}}
{{- $chosen := dict
  "log_level" .Values.server.logLevel
  "cors_origins" .Values.corsOrigins
  "allowed_hosts" (include "tesk.hosts" . | fromJsonArray)
  "service_id" $info.id
  "service_name" $info.name
  "service_description" $info.description
  "organization_name" $info.organizationName
  "organization_url" $info.organizationUrl
  "storage" $info.storage
  "max_active_tasks" $tasks.maxActive
  "default_cpu_cores" $tasks.defaults.cpuCores
  "default_ram_gb" $tasks.defaults.ramGb
  "default_disk_gb" $tasks.defaults.diskGb
  "max_cpu_cores" $tasks.maxima.cpuCores
  "max_ram_gb" $tasks.maxima.ramGb
  "max_disk_gb" $tasks.maxima.diskGb
  "executor_image_pull_policy" $tasks.imagePullPolicy
  "cpu_limit" $tasks.cpuLimit
  "memory_limit" $tasks.memoryLimit
  "storage_class" $tasks.storageClass
  "access_mode" $tasks.accessMode
  "pod_security" $tasks.podSecurity
  "run_as_user" $tasks.runAsUser
  "own_user" (include "tesk.isOpenShift" . | empty | ternary 65532 -1)
  "executor_service_account" $tasks.serviceAccount
  "labels" (include "tesk.pairs" $tasks.labels | fromJsonArray)
  "annotations" (include "tesk.pairs" $tasks.annotations | fromJsonArray)
  "node_selector" (include "tesk.pairs" $tasks.nodeSelector | fromJsonArray)
  "tolerations" (include "tesk.taints" $tasks.tolerations | fromJsonArray)
  "preemptible_node_selector" (include "tesk.pairs" $tasks.preemptible.nodeSelector | fromJsonArray)
  "preemptible_tolerations" (include "tesk.taints" $tasks.preemptible.tolerations | fromJsonArray)
  "zone_label" $tasks.zoneLabel
  "gpu_resource" $tasks.gpuResource
  "allowed_backend_parameters" $tasks.allowedBackendParameters
  "retries" $tasks.retries
  "taskmaster_retries" $tasks.taskmasterRetries
  "image_timeout_s" $tasks.timeouts.image
  "schedule_timeout_s" $tasks.timeouts.schedule
  "start_timeout_s" $tasks.timeouts.start
  "executor_timeout_s" $tasks.timeouts.executor
  "grace_s" $tasks.graceSeconds
  "log_tail_bytes" $tasks.logTailBytes
  "prune_after_s" $tasks.pruneAfterSeconds
  "filer_environment_secret" $storage.environmentSecret
  "filer_mounts" $mounts
  "file_roots" $roots
  "missing_outputs" $storage.missingOutputs
  "transfer_concurrency" $storage.transfers.concurrency
  "transfer_retries" $storage.transfers.retries
  "transfer_timeout_s" $storage.transfers.timeoutSeconds
-}}
{{- range $name, $value := .Values.extraSettings -}}
  {{- if or (hasKey $own $name) (eq $name "database_url") -}}
    {{- fail (printf "extraSettings: %s is the chart's own to set; see its other values" $name) -}}
  {{- end -}}
  {{- $_ := set $chosen $name $value -}}
{{- end -}}
{{- merge $own $chosen | toJson -}}
{{- end -}}

{{/*
The Host names by which browsers may come: what the chart itself makes known. A page that makes a name of its own lead
here, as to the end of a port-forward, is refused.
*/}}
{{- define "tesk.hosts" -}}
{{- $service := printf "%s-server" (include "tesk.fullname" .) -}}
{{- $inNamespace := printf "%s.%s" $service .Release.Namespace -}}
{{- $svc := printf "%s.svc" $inNamespace -}}
{{- $hosts := list "localhost" $service $inNamespace $svc (printf "%s.cluster.local" $svc) -}}
{{- with .Values.ingress -}}
  {{- if .enabled -}}
    {{- range .hosts }}{{ $hosts = append $hosts .host }}{{ end -}}
    {{- range .tls }}{{ $hosts = concat $hosts (.hosts | default list) }}{{ end -}}
  {{- end -}}
{{- end -}}
{{- with .Values.route -}}
  {{- if and .enabled .host }}{{ $hosts = append $hosts .host }}{{ end -}}
{{- end -}}
{{- concat $hosts .Values.allowedHosts | uniq | toJson -}}
{{- end -}}

{{/* A map as a list of key=value. */}}
{{- define "tesk.pairs" -}}
{{- $found := list -}}
{{- range $key, $value := . -}}
  {{- $found = append $found (printf "%s=%s" $key $value) -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* Tolerations as a list of key=value:Effect. */}}
{{- define "tesk.taints" -}}
{{- $found := list -}}
{{- range . -}}
  {{- $value := eq (.operator | default "Equal") "Equal" | ternary (printf "=%s" (.value | default "")) "" -}}
  {{- $effect := .effect | empty | ternary "" (printf ":%s" .effect) -}}
  {{- $found = append $found (printf "%s%s%s" .key $value $effect) -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}
