{{/*
The server's settings (docs/settings.md) by group and name: from the values, then extraSettings. What the chart's other
objects rest on is not for extraSettings to change. `$old` has the names without a group that extraSettings may still use.
*/}}
{{- define "tesk.settings" -}}
{{- $tasks := .Values.tasks -}}
{{- $storage := .Values.storage -}}
{{- $info := .Values.serviceInfo -}}
{{- $people := .Values.people -}}
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
  "tasks.engine" "kubernetes"
  "server.host" .Values.server.host
  "server.port" 8080
  "store.data" "/data"
  "kubernetes.instance" $fullname
  "kubernetes.namespace" .Release.Namespace
  "kubernetes.image" (include "tesk.image" .)
  "kubernetes.image_pull_policy" .Values.image.pullPolicy
  "kubernetes.image_pull_secrets" .Values.image.pullSecrets
  "kubernetes.taskmaster_service_account" (include "tesk.taskmasterAccount" .)
  "kubernetes.report_port" 8480
  "kubernetes.report_address" (include "tesk.makesPods" . | empty | ternary "" (printf "%s-reports.%s.svc:8480" $fullname .Release.Namespace))
-}}
{{- $chosen := dict
  "server.log_level" .Values.server.logLevel
  "server.cors_origins" .Values.corsOrigins
  "server.allowed_hosts" (include "tesk.hosts" . | fromJsonArray)
  "people.anyone" $people.anyone
  "people.users_file" (empty $people.usersSecret | ternary "" "/etc/tesk-users/users.toml")
  "people.issuers" (empty $people.issuersSecret | ternary "" "/etc/tesk-issuers/issuers.toml")
  "people.rules" (empty $people.rulesConfigMap | ternary "" "/etc/tesk-rules/rules.toml")
  "people.trusted_addresses" $people.trustedAddresses
  "people.tokens" $people.tokens
  "people.token_days" $people.tokenDays
  "people.admins" $people.admins
  "people.admin_groups" $people.adminGroups
  "people.public_service_info" $people.publicServiceInfo
  "service.id" $info.id
  "service.name" $info.name
  "service.description" $info.description
  "service.organization_name" $info.organizationName
  "service.organization_url" $info.organizationUrl
  "service.storage" $info.storage
  "tasks.max_active_tasks" $tasks.maxActive
  "tasks.default_cpu_cores" $tasks.defaults.cpuCores
  "tasks.default_ram_gb" $tasks.defaults.ramGb
  "kubernetes.default_disk_gb" $tasks.defaults.diskGb
  "tasks.max_cpu_cores" $tasks.maxima.cpuCores
  "tasks.max_ram_gb" $tasks.maxima.ramGb
  "tasks.max_disk_gb" $tasks.maxima.diskGb
  "tasks.executor_image_pull_policy" $tasks.imagePullPolicy
  "kubernetes.cpu_limit" $tasks.cpuLimit
  "kubernetes.memory_limit" $tasks.memoryLimit
  "kubernetes.mode" $tasks.mode
  "kubernetes.pod_disk_gb" $tasks.podDiskGb
  "kubernetes.storage_class" $tasks.storageClass
  "kubernetes.access_mode" $tasks.accessMode
  "kubernetes.pod_security" $tasks.podSecurity
  "kubernetes.run_as_user" $tasks.runAsUser
  "kubernetes.own_user" (include "tesk.isOpenShift" . | empty | ternary 65532 -1)
  "kubernetes.executor_service_account" $tasks.serviceAccount
  "kubernetes.labels" (include "tesk.pairs" $tasks.labels | fromJsonArray)
  "kubernetes.annotations" (include "tesk.pairs" $tasks.annotations | fromJsonArray)
  "kubernetes.node_selector" (include "tesk.pairs" $tasks.nodeSelector | fromJsonArray)
  "kubernetes.tolerations" (include "tesk.taints" $tasks.tolerations | fromJsonArray)
  "kubernetes.preemptible_node_selector" (include "tesk.pairs" $tasks.preemptible.nodeSelector | fromJsonArray)
  "kubernetes.preemptible_tolerations" (include "tesk.taints" $tasks.preemptible.tolerations | fromJsonArray)
  "kubernetes.zone_label" $tasks.zoneLabel
  "tasks.gpu_resource" $tasks.gpuResource
  "tasks.allowed_backend_parameters" $tasks.allowedBackendParameters
  "kubernetes.retries" $tasks.retries
  "kubernetes.taskmaster_retries" $tasks.taskmasterRetries
  "kubernetes.image_timeout_s" $tasks.timeouts.image
  "kubernetes.schedule_timeout_s" $tasks.timeouts.schedule
  "kubernetes.start_timeout_s" $tasks.timeouts.start
  "tasks.executor_timeout_s" $tasks.timeouts.executor
  "tasks.grace_s" $tasks.graceSeconds
  "tasks.log_tail_bytes" $tasks.logTailBytes
  "store.prune_after_s" $tasks.pruneAfterSeconds
  "kubernetes.filer_environment_secret" $storage.environmentSecret
  "kubernetes.filer_mounts" $mounts
  "storage.file_roots" $roots
  "storage.missing_outputs" $storage.missingOutputs
  "storage.transfer_concurrency" $storage.transfers.concurrency
  "storage.transfer_retries" $storage.transfers.retries
  "storage.transfer_timeout_s" $storage.transfers.timeoutSeconds
-}}
{{- $extra := dict -}}
{{- $old := dict -}}
{{- range $name, $value := .Values.extraSettings -}}
  {{- if kindIs "map" $value -}}
    {{- range $key, $each := $value }}{{ $_ := set $extra (printf "%s.%s" $name $key) $each }}{{ end -}}
  {{- else -}}
    {{- $path := $name -}}
    {{- range $known := keys $own $chosen (dict "store.database_url" "") -}}
      {{- if or (hasSuffix (printf ".%s" $name) $known) (eq $name ($known | replace "." "_")) }}{{ $path = $known }}{{ end -}}
    {{- end -}}
    {{- $_ := set $old $path $name -}}
  {{- end -}}
{{- end -}}
{{- range $path, $name := $old -}}
  {{- if hasKey $extra $path }}{{ fail (printf "extraSettings: %s: %s sets the same" $name $path) }}{{ end -}}
  {{- $_ := set $extra $path (get $.Values.extraSettings $name) -}}
{{- end -}}
{{- range $path, $value := $extra -}}
  {{- if or (hasKey $own $path) (eq $path "store.database_url") -}}
    {{- fail (printf "extraSettings: %s is the chart's own to set; see its other values" $path) -}}
  {{- end -}}
  {{- $_ := set $chosen $path $value -}}
{{- end -}}
{{- include "tesk.checkPeople" (list .Values.front.enabled $chosen) -}}
{{- merge $own $chosen | toJson -}}
{{- end -}}

{{/* Fails where nobody knows who could call, before a Pod does. */}}
{{- define "tesk.checkPeople" -}}
{{- $hasFront := index . 0 -}}
{{- $chosen := index . 1 -}}
{{- $hasProxy := get $chosen "people.trusted_addresses" | empty | not -}}
{{- $hasTokens := eq (get $chosen "people.tokens") "alone" -}}
{{- $hasWay := or $hasProxy $hasTokens (get $chosen "people.users_file") (get $chosen "people.issuers") -}}
{{- $isOpen := get $chosen "people.anyone" -}}
{{- if and $hasWay $isOpen -}}
  {{- fail "people.anyone lets everybody in, whatever the ways in say: leave one of them out" -}}
{{- end -}}
{{- if not (or $hasWay $isOpen) -}}
  {{- fail "nobody has to sign in, so whoever reaches the server could run anything: set people.usersSecret, people.issuersSecret, people.trustedAddresses or people.tokens=alone (docs/who-may-call.md), or people.anyone=true where that is meant" -}}
{{- end -}}
{{- if and $hasProxy $hasFront -}}
  {{- fail "people.trustedAddresses: the server does not see the proxy's address behind the front; set front.enabled=false" -}}
{{- end -}}
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
