{{/* Which pods the webhooks must be called for; the same as `leno_inject::webhook`. */}}

{{/* One webhook: (dict "root" . "name" NAME "namespaces" LIST "pods" LIST), the lists being of matchExpressions. */}}
{{- define "leno.oneWebhook" -}}
{{- $root := .root -}}
- name: {{ .name }}.sidecar-injector.leno.dev
  admissionReviewVersions: ["v1"]
  clientConfig:
    service:
      name: {{ include "leno.control" $root }}
      namespace: {{ $root.Values.namespace }}
      path: /inject
      port: 443
  failurePolicy: Fail
  sideEffects: None
  reinvocationPolicy: Never
  matchPolicy: Equivalent
  timeoutSeconds: 10
  namespaceSelector:
    matchExpressions:
    # What the control plane needs must never depend on it.
    - key: kubernetes.io/metadata.name
      operator: NotIn
      values: [kube-node-lease, kube-public, kube-system, local-path-storage, {{ $root.Values.namespace }}]
    {{- range .namespaces }}
    - {{ toJson . }}
    {{- end }}
  objectSelector:
    matchExpressions:
    - key: leno.dev/inject
      operator: NotIn
      values: [disabled, "false"]
    - key: sidecar.istio.io/inject
      operator: NotIn
      values: [disabled, "false"]
    {{- range .pods }}
    - {{ toJson . }}
    {{- end }}
  rules:
  - apiGroups: [""]
    apiVersions: ["v1"]
    operations: ["CREATE"]
    resources: ["pods"]
    scope: Namespaced
{{- end }}

{{/* The webhooks of one mesh's labels: (dict "root" . "prefix" P "namespace" KEY "pod" KEY "revision" KEY "hidden" LIST "silent" LIST). */}}
{{- define "leno.family" -}}
{{- $root := .root -}}
{{- $revisions := prepend $root.Values.tags $root.Values.revision -}}
{{- $named := dict "key" .revision "operator" "In" "values" $revisions -}}
{{- $unswitched := dict "key" .namespace "operator" "DoesNotExist" -}}
{{- $unnamed := dict "key" .revision "operator" "DoesNotExist" -}}
{{- $silent := concat (list $unswitched $unnamed) .silent -}}
{{ include "leno.oneWebhook" (dict "root" $root "name" (print .prefix "rev.namespace") "namespaces" (concat .hidden (list $unswitched $named)) "pods" list) }}
{{ include "leno.oneWebhook" (dict "root" $root "name" (print .prefix "rev.object") "namespaces" (concat .hidden $silent) "pods" (list $named)) }}
{{- if has "default" $revisions }}
{{- $enabled := dict "key" .namespace "operator" "In" "values" (ternary (list "enabled" "true") (list "enabled") (eq .namespace "leno.dev/inject")) }}
{{- $asking := dict "key" .pod "operator" "In" "values" (list "enabled" "true") }}
{{ include "leno.oneWebhook" (dict "root" $root "name" (print .prefix "namespace") "namespaces" (concat .hidden (list $enabled)) "pods" list) }}
{{ include "leno.oneWebhook" (dict "root" $root "name" (print .prefix "object") "namespaces" (concat .hidden $silent) "pods" (list $unnamed $asking)) }}
{{- end }}
{{- end }}
