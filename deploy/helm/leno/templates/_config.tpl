{{/* How the control plane injects: `leno_inject::InjectionConfig`. */}}
{{- define "leno.injection" -}}
{{- $proxy := .Values.proxy -}}
{{- $defaults := dict
  "accessLog" $proxy.accessLog
  "concurrency" $proxy.concurrency
  "drainDuration" $proxy.drainDuration
  "logLevel" $proxy.logLevel
  "resources" (include "leno.resources" $proxy.resources | fromJson)
  "startupSeconds" $proxy.startupSeconds
-}}
{{- if $proxy.tracing.endpoint -}}
{{- $_ := set $defaults "tracing" (dict "endpoint" $proxy.tracing.endpoint "sampling" $proxy.tracing.sampling) -}}
{{- end -}}
{{- dict
  "image" (dict
    "name" (include "leno.image" (list . .Values.image.proxy))
    "pullPolicy" .Values.image.pullPolicy
    "pullSecrets" .Values.image.pullSecrets)
  "version" .Chart.AppVersion
  "revision" .Values.revision
  "tags" .Values.tags
  "systemNamespace" .Values.namespace
  "cluster" .Values.cluster
  "network" .Values.network
  "trustDomain" .Values.trustDomain
  "control" (printf "%s.%s.svc:15012" (include "leno.control" .) .Values.namespace)
  "istioLabels" (eq .Values.compat "istio")
  "policy" .Values.injection.policy
  "neverInject" .Values.injection.neverInject
  "alwaysInject" .Values.injection.alwaysInject
  "capture" .Values.injection.capture
  "proxy" $defaults
  "initResources" (include "leno.resources" .Values.injection.initResources | fromJson)
| toJson -}}
{{- end }}

{{/* Requests and limits, both always there. */}}
{{- define "leno.resources" -}}
{{- dict "requests" (.requests | default dict) "limits" (.limits | default dict) | toJson -}}
{{- end }}

{{/* What the control plane is told at its start. */}}
{{- define "leno.configuration" -}}
{{- dict
  "cluster" .Values.cluster
  "compat" .Values.compat
  "gateways" .Values.gateways
  "injection" (include "leno.injection" . | fromJson)
  "namespace" .Values.namespace
  "network" .Values.network
  "peers" .Values.peers
  "region" .Values.region
  "revision" .Values.revision
  "tags" .Values.tags
  "trustDomain" .Values.trustDomain
| toPrettyJson -}}
{{- end }}
